"""The demo's optimiser: Muon (Jordan et al., 2024) for matrices and flattened convolutions, AdamW for the rest.

torch.optim.Muon iterates in bfloat16 alone, which takes longer than the rest of a step on a CPU
that only emulates it, takes no convolutions, and goes through small matrices one by one.
"""

from collections.abc import Callable

import torch
from torch.optim.adamw import adamw

MOMENTUM, BETAS = 0.95, (0.9, 0.99)
MUON = 10.0  # Muon's learning rate over AdamW's


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About U V^T of the singular value decompositions U S V^T of a stack [n, a, b] (Newton-Schulz, Muon's quintic)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """parameters: {name: Parameter}; lr: AdamW's; rate(step): what it is multiplied with at each update.

    ends: beginnings of the names at a network's two ends, whose weights are AdamW's too.
    """

    def __init__(self, parameters: dict, lr: float, rate: Callable, ends: tuple):
        matrix = {name: p.ndim >= 2 and not name.startswith(ends) for name, p in parameters.items()}
        self.matrices, self.rest = ([p for name, p in parameters.items() if matrix[name] is kind] for kind in (True, False))
        self.rate = rate
        super().__init__(list(parameters.values()), {"lr": lr})  # one group, in the order of the parameters

    @torch.no_grad()
    def step(self, closure=None):
        """One update, of the parameters that have a gradient."""
        rest = [p for p in self.rest if p.grad is not None]
        for p in rest:
            if not self.state[p]:
                self.state[p].update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        own = [self.state[p] for p in rest]
        lr = self.param_groups[0]["lr"] * self.rate(int(own[0]["step"]))
        self._orthogonal_updates(MUON * lr)
        adamw(
            rest, [p.grad for p in rest], [s["exp_avg"] for s in own], [s["exp_avg_sq"] for s in own], [], [s["step"] for s in own],
            foreach=True, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    def _orthogonal_updates(self, lr):
        shapes: dict = {}  # matrices of one shape go together
        for p in self.matrices:
            if p.grad is not None:
                shapes.setdefault(p.flatten(1).shape, []).append(p)
        for shape, alike in shapes.items():
            gradient = torch.stack([p.grad.flatten(1) for p in alike]).float()  # [n, a, b]
            momentum = torch.stack([self.state[p].get("momentum", torch.zeros_like(p)).flatten(1) for p in alike])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonal(gradient.lerp(momentum, MOMENTUM))  # Nesterov
            for p, m, u in zip(alike, momentum, update):
                self.state[p]["momentum"] = m.view_as(p).clone()  # of its own: the stack is not kept
                p.sub_(lr * max(1.0, shape[0] / shape[1]) ** 0.5 * u.view_as(p))
