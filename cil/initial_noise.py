"""The other starts of the paper's Table 2: FrameInit, FreeInit, progressive and mixed noise.

All give unit noise z for a full run, [..., t, h, w], to be scaled by the host as its own noise is.
`ratio` is the signal-to-noise ratio alpha / sigma of a level; in the unit-variance form that a
VP model has by itself, x at that level is (ratio x_0 + eps) / sqrt(1 + ratio^2).
"""

import math

import torch

FRAME_INIT_LEVEL = 0.85  # tau: timestep 850 of 1000
CUT = 0.25  # d_s and d_t, the usual ones
FREE_INIT_ORDER = 4


def diffused(x0: torch.Tensor, eps: torch.Tensor, ratio: float) -> torch.Tensor:
    """x_0 at the level of this signal-to-noise ratio, in unit-variance form."""
    return (ratio * x0 + eps) / math.sqrt(1 + ratio * ratio)


def distance(shape: tuple[int, ...], d_s: float, d_t: float) -> torch.Tensor:
    """[t, h, w]: the distance of each frequency from zero, 1 at the cut. shape: (t, h, w).

    d_s, d_t: where the cut lies, as shares of the Nyquist frequency in space and time. In the order
    of fftn; for even sizes the same as in the authors' code, for odd ones theirs is off its centre.
    """
    if not 0 < d_s <= 1 or not 0 < d_t <= 1:
        raise ValueError(f"the cuts d_s and d_t are shares of the highest frequency, above 0 and at most 1, but {d_s:g} and {d_t:g} were given")
    t, h, w = (2 * torch.fft.fftfreq(n, dtype=torch.float64) / d for n, d in zip(shape, (d_t, d_s, d_s)))  # [t], [h], [w]
    return (t.square()[:, None, None] + h.square()[:, None] + w.square()).sqrt()


def gaussian_filter(shape: tuple[int, ...], d_s: float = CUT, d_t: float = CUT) -> torch.Tensor:
    """ConsistI2V's low-pass: exp(-d^2 / 2)."""
    return torch.exp(-distance(shape, d_s, d_t).square() / 2)


def butterworth_filter(shape: tuple[int, ...], d_s: float = CUT, d_t: float = CUT, order: int = FREE_INIT_ORDER) -> torch.Tensor:
    """FreeInit's low-pass: 1 / (1 + d^(2 n))."""
    return 1 / (1 + distance(shape, d_s, d_t).pow(2 * order))


def mixed_frequencies(low: torch.Tensor, high: torch.Tensor, low_pass: torch.Tensor) -> torch.Tensor:
    """IFFT(FFT(low) L + FFT(high) (1 - L)) over t, h, w: the low frequencies of one, the high ones of the other."""
    exact = lambda x: x.to("cpu", torch.float64)  # MPS has no float64
    kept = torch.fft.fftn(exact(low), dim=(-3, -2, -1)) * low_pass  # [..., t, h, w]
    added = torch.fft.fftn(exact(high), dim=(-3, -2, -1)) * (1 - low_pass)
    return torch.fft.ifftn(kept + added, dim=(-3, -2, -1)).real.to(high)


def frame_init(still: torch.Tensor, eps: torch.Tensor, ratio: float, d_s: float = CUT, d_t: float = CUT) -> torch.Tensor:
    """ConsistI2V's start (arXiv 2402.04324): the repeated first frame's low frequencies at level tau, `eps` for the rest.

    still: the first frame's x_0, repeated over t. ratio: at tau. The same eps noises the frame, as in the authors' code.
    """
    return mixed_frequencies(diffused(still, eps, ratio), eps, gaussian_filter(eps.shape[-3:], d_s, d_t))


def free_init(
    x0: torch.Tensor, first: torch.Tensor, fresh: torch.Tensor, ratio: float, d_s: float = CUT, d_t: float = CUT, order: int = FREE_INIT_ORDER
) -> torch.Tensor:
    """FreeInit's next start (arXiv 2312.07537): a result diffused with its `first` noise keeps its low frequencies, `fresh` noise for the rest."""
    return mixed_frequencies(diffused(x0, first, ratio), fresh, butterworth_filter(first.shape[-3:], d_s, d_t, order))


def progressive(noise: torch.Tensor, a: float) -> torch.Tensor:
    """PYoCo's progressive noise (arXiv 2305.10474): e_j = a / sqrt(1 + a^2) e_{j-1} + 1 / sqrt(1 + a^2) n_j.

    noise: n, [..., t, h, w]. Each frame stays unit noise; frames j and k correlate at (a / sqrt(1 + a^2))^|j - k|. a = 0: n itself.
    """
    kept, new = a / math.sqrt(1 + a * a), 1 / math.sqrt(1 + a * a)
    frames = [noise.select(-3, 0)]  # [..., h, w] each
    for n in noise.unbind(-3)[1:]:
        frames.append(kept * frames[-1] + new * n)
    return torch.stack(frames, -3)


def mixed(noise: torch.Tensor, shared: torch.Tensor, a: float) -> torch.Tensor:
    """PYoCo's mixed noise: e_j = a / sqrt(1 + a^2) e_shared + 1 / sqrt(1 + a^2) n_j. shared: [..., h, w]. a = 0: n itself."""
    return (a * shared.unsqueeze(-3) + noise) / math.sqrt(1 + a * a)
