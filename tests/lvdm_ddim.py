"""The authors' sampler, written down by hand from the published tables: DDIM at eta = 0 in x_t."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from cil_pack.nodes.lvdm.model import T

GOLDEN = load_file(Path(__file__).parent / "golden" / "lvdm.safetensors")
LAST = 4.8973451890853435e-08  # the host's stand-in for alpha^2 = 0 at zero terminal SNR


def published(variant):
    """alpha_t, sigma_t and s_t of the released configuration: [1000] float64 each."""
    bar = GOLDEN["alphas_cumprod zero terminal SNR" if variant.zsnr else "alphas_cumprod ordinary terminal SNR"].clone()
    if variant.zsnr:
        assert bar[-1] == 0
        bar[-1] = LAST
    s = GOLDEN[f"scale {variant.base_scale}"] if variant.base_scale != 1 else torch.ones_like(bar)
    return bar.sqrt(), (1 - bar).sqrt(), s


def ddim(variant, network, x, timesteps, end=None):
    """x_t at the first timestep -> x_0. network(x, t): the prediction, v or eps by variant. end: the timestep at which it stops, as the authors' at 0."""
    alpha, sigma, s = published(variant)
    for t, after in zip(timesteps, [*timesteps[1:], end]):
        out = network(x, t)
        if variant.prediction == T.V_PREDICTION:
            eps, scaled = alpha[t] * out + sigma[t] * x, alpha[t] * x - sigma[t] * out
        else:
            eps, scaled = out, (x - sigma[t] * out) / alpha[t]
        x0 = scaled / s[t]
        x = x0 if after is None else alpha[after] * s[after] * x0 + sigma[after] * eps
    return x
