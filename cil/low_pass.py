"""Low-pass filters of the conditional image: its latents without fine detail.

The filters of adaptive low-pass guidance (arXiv 2506.08456; adaptive_low_pass.py), which also
serve to filter every evaluation. They act on the last two dimensions of an image, [..., h, w].
"""

import math

import torch
import torch.nn.functional as F


def gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur by a Gaussian of standard deviation `sigma`, in latent cells; 0 changes nothing.

    The border is repeated outwards, so that a flat image stays exactly as bright as it was.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"a Gaussian's standard deviation must be 0 or more, but {sigma} was given")
    if sigma == 0:
        return image
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)  # [2 reach + 1]
    kernel = torch.exp(-(at / sigma).square() / 2)
    kernel = kernel / kernel.sum()
    rows = image.float().reshape(-1, 1, *image.shape[-2:])  # [n, 1, h, w]
    rows = F.pad(rows, (reach, reach, reach, reach), mode="replicate")  # [n, 1, h + 2 reach, w + 2 reach]
    rows = F.conv2d(rows, kernel.view(1, 1, 1, -1))
    rows = F.conv2d(rows, kernel.view(1, 1, -1, 1))  # [n, 1, h, w] again
    return rows.reshape(image.shape).to(image)


def down_up(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Shrink to 1 / `factor` of the size and enlarge again, both bilinear; 1 changes nothing."""
    if not 1 <= factor < math.inf:
        raise ValueError(f"an image can be shrunk by a factor of 1 or more, but {factor} was given")
    if factor == 1:
        return image
    size = image.shape[-2:]
    small = [max(1, round(n / factor)) for n in size]
    rows = image.float().reshape(-1, 1, *size)  # [n, 1, h, w]
    rows = F.interpolate(rows, size=small, mode="bilinear", antialias=True)
    rows = F.interpolate(rows, size=size, mode="bilinear")
    return rows.reshape(image.shape).to(image)


FILTERS = {"down and up": down_up, "gaussian": gaussian}
NEUTRAL = {"down and up": 1.0, "gaussian": 0.0}
