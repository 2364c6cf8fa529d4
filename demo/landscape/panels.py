"""Clips of the landscape beside the truth, so that a person sees which one moves: a ring where the subject was, its trail, and words."""

import numpy as np
import torch

from . import measure, scenes

TRUE = "a true clip"
STILL = 0.25  # of the true way, below which a clip stands still
DOT, LINE, LIGHT, DARK = 3, 2, (255, 255, 255, 230), (30, 30, 30, 160)


def told(tracks, true):
    """One clip's track in words. true: pixels of travel of the true clip."""
    travel, frames = float(tracks.travel), tracks.errors.shape[1]
    words = "stands still" if travel < STILL * true else f"goes {100 * travel / true:.0f} % of the true way"
    gone = round(float(tracks.lost) * frames)
    return f"{words}, deformed or gone in {gone} of {frames} frames" if gone else words


def trailed(frames, tracks, radius):
    """IMAGE frames [t, H, W, 3] of one clip with a ring around the place where its subject began, and dots where it has been.

    Frames in which there is none leave no dot. radius: of the ring, pixels of scenes.SIZE.
    """
    from PIL import Image, ImageDraw

    factor = frames.shape[1] / scenes.SIZE
    been = [place if seen else None for place, seen in zip((tracks.places[0] * factor).tolist(), tracks.seen[0].tolist())]
    out = []
    for k, frame in enumerate(frames):
        picture = Image.fromarray((frame.clamp(0, 1) * 255).round().byte().numpy()).convert("RGBA")
        layer = Image.new("RGBA", picture.size)
        draw = ImageDraw.Draw(layer)
        way = [tuple(place) for place in been[: k + 1] if place]
        circle = lambda x, y, r, *colours: draw.ellipse((x - r, y - r, x + r, y + r), *colours)
        for x, y in way[:1]:
            circle(x, y, radius * factor, None, LIGHT, LINE)
        draw.line(way, LIGHT, LINE)
        for x, y in way:
            circle(x, y, DOT, LIGHT, DARK)
        out.append(torch.from_numpy(np.asarray(Image.alpha_composite(picture, layer).convert("RGB")).copy()).float() / 255)
    return torch.stack(out)


def panels(scene, clips):
    """The true clip and others beside it. scene: of one clip, its motion the true one; clips: {caption: IMAGE [t, 128, 128, 3]}.

    -> (trailed clips at twice the size, captions, their Tracks), the truth first.
    """
    from ...nodes import pictures

    frames = max(len(clip) for clip in clips.values())
    every = {TRUE: scenes.render(scene, frames)[0].movedim(1, -1), **clips}
    tracks = {name: measure.track(clip.movedim(-1, 1)[None].float().cpu(), scene) for name, clip in every.items()}
    true, radius = float(tracks[TRUE].travel), float(scene.radius)
    made = [trailed(pictures.enlarged(clip.float().cpu()), tracks[name], radius) for name, clip in every.items()]
    captions = [f"{name}: what was possible" if i == 0 else f"{name}: {told(tracks[name], true)}" for i, name in enumerate(every)]
    return made, captions, list(tracks.values())
