"""How well a sampled clip is one of the clips that its first frame allows."""

import torch

from . import latents, scenes

SPEEDS = 1.5 * scenes.MAX_SPEED  # the fastest that is looked for, pixels a frame


def _distance(sample, candidates):
    """Mean squared distance of latents, per clip."""
    return (sample - candidates).square().flatten(1).mean(1)


def nearest_clip(sample, truth):
    """The heading and speed whose clip is nearest to each sample, and what is left over.

    sample [n, t, 4, h, w] scaled latents; truth: the n Scenes that were asked for.
    -> speed [n] pixels a frame, heading [n], residual [n] (root mean square, latent units).
    Unlike optical flow, this is not fooled by flicker.
    """
    frames = sample.shape[1]

    def at(heading, speed):
        bucket = speed * (scenes.MAX_BUCKET / scenes.MAX_SPEED)
        return _distance(sample, latents.encode(scenes.render(truth.replace(heading=heading, bucket=bucket), frames)))

    n = len(truth)
    best, heading, speed = torch.full((n,), float("inf")), torch.zeros(n), torch.zeros(n)

    def keep_if_nearer(h, v):
        nonlocal best, heading, speed
        h, v = torch.as_tensor(h).expand(n), torch.as_tensor(v).expand(n)
        gap = at(h, v)
        nearer = gap < best
        best, heading, speed = torch.where(nearer, gap, best), torch.where(nearer, h, heading), torch.where(nearer, v, speed)

    coarse = SPEEDS / 6
    keep_if_nearer(0.0, 0.0)
    for h in range(scenes.HEADINGS):
        for k in range(1, 7):
            keep_if_nearer(float(h), k * coarse)
    step = coarse / 2
    while step > 0.02:
        centre = speed
        for side in (-1, 1):
            keep_if_nearer(heading, (centre + side * step).clamp(min=0))
        step /= 2
    return speed, heading, best.sqrt()
