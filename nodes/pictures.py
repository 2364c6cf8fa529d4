"""Pictures that nodes show: captions, contact sheets. PIL, which the host has."""

from collections.abc import Sequence

import numpy as np
import torch

from ..cil import flow
from .captions import drawable, lines_of

PAPER, INK = (250, 250, 250), (20, 20, 20)
THUMBNAIL = 256  # pixels, the most that a frame in a sheet is wide


def captioned(image: torch.Tensor, text: str, width: int | None = None) -> torch.Tensor:
    """An IMAGE frame [H, W, 3] with a bar of text under it -> [H + bar, W, 3].

    The text is broken to fit and the bar's height depends on it and the width alone.
    """
    from PIL import Image, ImageDraw

    width = width or image.shape[1]
    size = min(24, max(11, width // 16))
    text, font = drawable(text, size)
    lines, step = lines_of(text, font, width - 8), int(size * 1.3)
    bar = Image.new("RGB", (width, step * len(lines) + 6), PAPER)
    draw = ImageDraw.Draw(bar)
    for i, line in enumerate(lines):
        draw.text((width / 2, 3 + step * i), line, INK, font, anchor="ma")
    return torch.cat([image[..., :3], torch.from_numpy(np.asarray(bar).copy()).float() / 255])


def same_size(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """IMAGE frames [t, H, W, 3] at another size."""
    if frames.shape[1:3] == (height, width):
        return frames[..., :3]
    moved = torch.nn.functional.interpolate(frames[..., :3].movedim(-1, 1), (height, width), mode="bilinear", antialias=True)  # [t, 3, H, W]
    return moved.movedim(1, -1)


def enlarged(frames: torch.Tensor, least: int = 256) -> torch.Tensor:
    """Small pictures, whole multiples larger, so that captions can be read."""
    factor = max(1, -(-least // frames.shape[2]))
    return same_size(frames, frames.shape[1] * factor, frames.shape[2] * factor)


def thumbnails(frames: torch.Tensor, count: int = 4, least: int = 192, most: int = 384) -> torch.Tensor:
    """`count` frames of a clip, evenly over it, at a width that can be looked at: [count, h, w, 3]."""
    some = frames[torch.linspace(0, len(frames) - 1, count).round().long()]  # [count, H, W, 3]
    height, width = some.shape[1:3]
    return enlarged(some, least) if width <= most else same_size(some, max(1, round(height * most / width)), most)


def even(frames: torch.Tensor) -> torch.Tensor:
    """Pad by white to even sides, which video codecs want."""
    h, w = frames.shape[1:3]
    return torch.nn.functional.pad(frames.movedim(-1, 1), (0, w % 2, 0, h % 2), value=1.0).movedim(1, -1)


def side_by_side(clips: list[torch.Tensor], captions: Sequence[str]) -> torch.Tensor:
    """Clips [t, H, W, 3] beside each other as one clip; a shorter one holds its last frame."""
    length = max(len(c) for c in clips)
    h, w = clips[0].shape[1:3]
    at = lambda clip, t: clip[min(t, len(clip) - 1)]
    clips = [same_size(c, h, w) for c in clips]
    bars = [captioned(clip[0], text)[h:] for clip, text in zip(clips, captions)]
    tallest = max(len(bar) for bar in bars)
    below = torch.cat([torch.nn.functional.pad(bar, (0, 0, 0, 0, 0, tallest - len(bar)), value=1.0) for bar in bars], 1)  # [tallest, sum of w, 3]
    return torch.stack([torch.cat([torch.cat([at(c, t) for c in clips], 1), below]) for t in range(length)])


def film_strip(clip: torch.Tensor, text: str, frames: int = 6, width: int | None = None) -> torch.Tensor:
    """`frames` thumbnails of a clip side by side with a caption under them -> [h, w, 3]. width: of one."""
    at = torch.linspace(0, len(clip) - 1, frames).round().long()
    clip = clip[at][..., :3]
    width = width or min(clip.shape[2], THUMBNAIL)
    thumbnails = same_size(clip, max(1, round(clip.shape[1] * width / clip.shape[2])), width)  # [frames, h, width, 3]
    return captioned(torch.cat(list(thumbnails), 1), text, width * frames)


def film_strips(clips: list[torch.Tensor], captions: Sequence[str], frames: int = 6) -> torch.Tensor:
    """One row a clip, all of the first one's width -> IMAGE [1, H, W, 3]."""
    width = min(clips[0].shape[2], THUMBNAIL)
    return stacked([film_strip(clip, text, frames, width) for clip, text in zip(clips, captions)])


def stacked(strips: list[torch.Tensor]) -> torch.Tensor:
    """Strips of one width under each other -> IMAGE [1, H, W, 3]."""
    return torch.cat(strips)[None]


def heat(values: torch.Tensor) -> torch.Tensor:
    """[h, w] numbers -> RGB: blue below zero, white at zero, red above, one scale for the array."""
    scaled = (values / values.abs().max().clamp(min=1e-6)).clamp(-1, 1)  # [h, w]
    red, blue = (1 + scaled).clamp(max=1), (1 - scaled).clamp(max=1)
    return torch.stack([red, torch.minimum(red, blue), blue], -1)


def moments_sheet(mean: torch.Tensor, std: torch.Tensor | None = None, decoded: torch.Tensor | None = None, width: int = 256) -> torch.Tensor:
    """Mean and standard deviation of each channel, at the middle frame, captioned -> IMAGE [1, H, W, 3].

    mean, std [C, T, h, w]; decoded: IMAGE of the mean through the VAE.
    """
    middle = mean.shape[1] // 2
    sized = lambda image: same_size(image[None], max(1, round(width * image.shape[0] / image.shape[1])), width)[0]
    cells = [] if decoded is None else [captioned(sized(decoded[0]), "the mean, decoded")]
    for c in range(min(len(mean), 16)):
        m = mean[c, middle]  # [h, w]
        cells.append(captioned(sized(heat(m)), f"mean, channel {c}: {m.min():.2f} to {m.max():.2f}"))
        if std is not None:
            s = std[c, middle]
            grey = (s / s.max().clamp(min=1e-6))[..., None].expand(-1, -1, 3)  # [h, w, 3]
            cells.append(captioned(sized(grey), f"deviation, channel {c}: {s.min():.2f} to {s.max():.2f}"))
    return grid(cells, columns=4)


def grid(cells: list[torch.Tensor], columns: int) -> torch.Tensor:
    """Pictures [h, w, 3] in rows of `columns`, filled up with white -> IMAGE [1, H, W, 3]."""
    height, width = max(c.shape[0] for c in cells), max(c.shape[1] for c in cells)
    pad = lambda c: torch.nn.functional.pad(c, (0, 0, 0, width - c.shape[1], 0, height - c.shape[0]), value=1.0)
    cells = [pad(c) for c in cells]
    cells += [torch.ones(height, width, 3)] * (-len(cells) % columns)
    return torch.cat([torch.cat(cells[i : i + columns], 1) for i in range(0, len(cells), columns)])[None]


def flow_pictures(fields: list[torch.Tensor]) -> torch.Tensor:
    """Optical flows, [h, w, 2] each -> IMAGE [t, h, w, 3], by torchvision's colour wheel, one scale for the clip."""
    try:
        from torchvision.utils import flow_to_image
    except ImportError:
        raise flow.missing("torchvision", "the picture of the flow", "torchvision") from None
    largest = max(1.0, *(float(field.norm(dim=-1).max()) for field in fields))
    out = torch.empty(len(fields), *fields[0].shape[:2], 3)
    for picture, field in zip(out, fields):
        # torchvision scales what it is given by its largest vector: give each the clip's, in a corner that is cut off
        padded = torch.nn.functional.pad(field.movedim(-1, 0), (0, 1, 0, 0))  # [2, h, w + 1]
        padded[0, 0, -1] = largest
        picture.copy_(flow_to_image(padded)[..., :-1].movedim(0, -1) / 255)
    return out
