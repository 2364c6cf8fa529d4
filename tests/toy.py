"""A Gaussian data set whose moments and marginals are known in closed form."""

import torch


class Toy:
    """X_0 ~ N(mean, diag(var)) in d dimensions, float64."""

    def __init__(self, d=12, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.mean = torch.randn(d, generator=g, dtype=torch.float64)
        self.var = 0.2 + 2 * torch.rand(d, generator=g, dtype=torch.float64)

    @property
    def variance(self):
        """tr(Cov) / d."""
        return float(self.var.mean())

    def marginal(self, process, sigma):
        """q(x) at sigma in the host's space: mean [d], variance [d]."""
        a, b = process.signal(sigma), process.noise(sigma)
        return a * self.mean, a**2 * self.var + b**2

    def kl(self, process, sigma, mu, std):
        """KL(q || N(mu, std^2 I))."""
        mean, var = self.marginal(process, sigma)
        std = torch.as_tensor(std, dtype=torch.float64)
        return 0.5 * ((var + (mean - mu) ** 2) / std**2 - 1 + torch.log(std**2 / var)).sum()
