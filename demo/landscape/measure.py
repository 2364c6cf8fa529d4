"""Where the subject of a sampled clip goes, and how far the clip is from a true one.

Unlike optical flow, neither is fooled by flicker.
"""

from dataclasses import dataclass

import torch

from . import scenes

LOST = 0.10  # mean squared colour error under the template above which there is no subject


@dataclass(frozen=True)
class Tracks:
    """places [n, t, 2] pixels; errors [n, t] mean squared colour error under the template; velocity [n, 2] pixels a frame."""

    places: torch.Tensor
    errors: torch.Tensor
    velocity: torch.Tensor

    @property
    def seen(self):
        """In which frames something looks like the subject: [n, t]."""
        return self.errors <= LOST

    @property
    def travel(self):
        """The way from the first frame to the last, pixels: [n]."""
        return self.velocity.norm(dim=-1) * (self.places.shape[1] - 1)

    @property
    def furthest(self):
        """The largest distance from the place in the first frame, of the frames in which it is seen, pixels: [n]."""
        return ((self.places - self.places[:, :1]).norm(dim=-1) * self.seen).amax(1)

    @property
    def lost(self):
        """Share of frames in which nothing looks like the subject: [n]."""
        return 1 - self.seen.float().mean(1)


def track(pixels, truth):
    """Follow each clip's subject: pixels [n, t, 3, H, W] RGB in [0, 1]; truth: the n Scenes whose first frames were animated.

    The subject of the first frame is laid on every place of every frame; where its colours
    fit best, it is. The velocity is the median of those between all pairs of frames in which
    it is seen (Theil and Sen), so single frames that jump do not count; where it is seen in
    no two, the velocity is zero.
    """
    found = [_follow(clip, truth[i : i + 1]) for i, clip in enumerate(pixels)]
    places, errors = (torch.stack(v) for v in zip(*found))
    i, j = torch.triu_indices(pixels.shape[1], pixels.shape[1], 1).to(places.device)
    seen = errors <= LOST
    slopes = ((places[:, j] - places[:, i]) / (j - i)[:, None]).where((seen[:, i] & seen[:, j])[..., None], torch.nan)
    return Tracks(places, errors, slopes.nanmedian(1).values.nan_to_num(0.0))


def _follow(frames, scene):
    """frames [t, 3, H, W] -> places [t, 2], errors [t]."""
    middle = torch.full((1, 1, 2), scenes.SIZE / 2 + 0.5, device=frames.device)
    cover, colour = (v[0, 0] for v in scenes.subject(scene, middle))
    weight = cover / cover.sum()
    spectrum = torch.fft.rfft2
    # at each shift of the template the sum of w (x - c)^2, multiplied out
    matched = spectrum(frames.square()) * spectrum(weight).conj() - 2 * spectrum(frames) * spectrum(weight * colour).conj()
    error = torch.fft.irfft2(matched.sum(1), s=frames.shape[-2:]) + (weight * colour.square()).sum()
    error = error.roll((scenes.SIZE // 2, scenes.SIZE // 2), (1, 2))  # now by the template's centre
    edge = scenes.MARGIN - 5
    inside = error[:, edge:-edge, edge:-edge]
    best, at = (inside / 3).flatten(1).min(1)
    places = torch.stack([at % inside.shape[2], at // inside.shape[2]], 1).float() + edge + 0.5
    return places, best


def nearest_clip(pixels, truth, tracks=None):
    """The true clip nearest to each: its subject goes the tracked way, its camera is whichever fits the last frame best.

    -> Scenes of n clips, and the root mean square difference from them, RGB in [0, 1]: [n].
    """
    tracks, frames = tracks or track(pixels, truth), pixels.shape[1]
    rms = lambda a, b: (a - b).square().mean((1, 2, 3, 4)).sqrt()
    nearest, best = None, None
    for camera in scenes.MOTIONS[:, 2:].unique(dim=0).to(pixels.device):
        motion = torch.cat([tracks.velocity - camera[:2], camera.expand(len(truth), 3)], 1)
        gap = rms(scenes.render(truth.replace(motion=motion), frames, only_last=True), pixels[:, -1:])
        nearer = gap < best if nearest is not None else torch.ones_like(gap, dtype=torch.bool)
        nearest = torch.where(nearer[:, None], motion, nearest) if nearest is not None else motion
        best = torch.where(nearer, gap, best) if best is not None else gap
    nearest = truth.replace(motion=nearest)
    return nearest, rms(scenes.render(nearest, frames), pixels)
