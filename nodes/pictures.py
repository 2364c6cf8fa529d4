"""Pictures that nodes show: captions, contact sheets. PIL, which the host has."""

import math

import numpy as np
import torch

from ..cil import flow

PAPER, INK = (250, 250, 250), (20, 20, 20)
THUMBNAIL = 256  # pixels, the most that a frame in a sheet is wide


def captioned(image, text, width=None):
    """An IMAGE frame [H, W, 3] with a bar of text under it -> [H + bar, W, 3].

    The text is broken to fit and the bar's height depends on it and the width alone.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = width or image.shape[1]
    font = ImageFont.load_default(size=min(24, max(11, width // 16)))
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width - 8:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    step = int(font.size * 1.3)
    bar = Image.new("RGB", (width, step * len(lines) + 6), PAPER)
    draw = ImageDraw.Draw(bar)
    for i, line in enumerate(lines):
        draw.text((width / 2, 3 + step * i), line, INK, font, anchor="ma")
    return torch.cat([image[..., :3], torch.from_numpy(np.asarray(bar).copy()).float() / 255])


def same_size(frames, height, width):
    """IMAGE frames [t, H, W, 3] at another size."""
    if frames.shape[1:3] == (height, width):
        return frames[..., :3]
    moved = torch.nn.functional.interpolate(frames[..., :3].movedim(-1, 1), (height, width), mode="bilinear", antialias=True)
    return moved.movedim(1, -1)


def enlarged(frames, least=256):
    """Small pictures, whole multiples larger, so that captions can be read."""
    factor = max(1, -(-least // frames.shape[2]))
    return same_size(frames, frames.shape[1] * factor, frames.shape[2] * factor)


def thumbnails(frames, count=4, least=192, most=384):
    """`count` frames of a clip, evenly over it, at a width that can be looked at: [count, h, w, 3]."""
    some = frames[torch.linspace(0, len(frames) - 1, count).round().long()]
    height, width = some.shape[1:3]
    return enlarged(some, least) if width <= most else same_size(some, max(1, round(height * most / width)), most)


def even(frames):
    """Pad by white to even sides, which video codecs want."""
    h, w = frames.shape[1:3]
    return torch.nn.functional.pad(frames.movedim(-1, 1), (0, w % 2, 0, h % 2), value=1.0).movedim(1, -1)


def side_by_side(clips, captions):
    """Clips [t, H, W, 3] beside each other as one clip; a shorter one holds its last frame."""
    length = max(len(c) for c in clips)
    h, w = clips[0].shape[1:3]
    at = lambda clip, t: clip[min(t, len(clip) - 1)]
    clips = [same_size(c, h, w) for c in clips]
    bars = [captioned(clip[0], text)[h:] for clip, text in zip(clips, captions)]
    tallest = max(len(bar) for bar in bars)
    bars = torch.cat([torch.nn.functional.pad(bar, (0, 0, 0, 0, 0, tallest - len(bar)), value=1.0) for bar in bars], 1)
    return torch.stack([torch.cat([torch.cat([at(c, t) for c in clips], 1), bars]) for t in range(length)])


def film_strip(clip, text, frames=6, width=None):
    """`frames` thumbnails of a clip side by side with a caption under them -> [h, w, 3]. width: of one."""
    at = torch.linspace(0, len(clip) - 1, frames).round().long()
    clip = clip[at][..., :3]
    width = width or min(clip.shape[2], THUMBNAIL)
    thumbnails = same_size(clip, max(1, round(clip.shape[1] * width / clip.shape[2])), width)
    return captioned(torch.cat(list(thumbnails), 1), text, width * frames)


def film_strips(clips, captions, frames=6):
    """One row a clip, all of the first one's width -> IMAGE [1, H, W, 3]."""
    width = min(clips[0].shape[2], THUMBNAIL)
    return stacked([film_strip(clip, text, frames, width) for clip, text in zip(clips, captions)])


def stacked(strips):
    """Strips of one width under each other -> IMAGE [1, H, W, 3]."""
    return torch.cat(strips)[None]


def heat(values):
    """[h, w] numbers -> RGB: blue below zero, white at zero, red above, one scale for the array."""
    scaled = (values / values.abs().max().clamp(min=1e-6)).clamp(-1, 1)
    red, blue = (1 + scaled).clamp(max=1), (1 - scaled).clamp(max=1)
    return torch.stack([red, torch.minimum(red, blue), blue], -1)


def moments_sheet(mean, std=None, decoded=None, width=256):
    """Mean and standard deviation of each channel, at the middle frame, captioned -> IMAGE [1, H, W, 3].

    mean, std [C, T, h, w]; decoded: IMAGE of the mean through the VAE.
    """
    middle = mean.shape[1] // 2
    sized = lambda image: same_size(image[None], max(1, round(width * image.shape[0] / image.shape[1])), width)[0]
    cells = [] if decoded is None else [captioned(sized(decoded[0]), "the mean, decoded")]
    for c in range(min(len(mean), 16)):
        m = mean[c, middle]
        cells.append(captioned(sized(heat(m)), f"mean, channel {c}: {m.min():.2f} to {m.max():.2f}"))
        if std is not None:
            s = std[c, middle]
            grey = (s / s.max().clamp(min=1e-6))[..., None].expand(-1, -1, 3)
            cells.append(captioned(sized(grey), f"deviation, channel {c}: {s.min():.2f} to {s.max():.2f}"))
    return grid(cells, columns=4)


def grid(cells, columns):
    """Pictures [h, w, 3] in rows of `columns`, filled up with white -> IMAGE [1, H, W, 3]."""
    height, width = max(c.shape[0] for c in cells), max(c.shape[1] for c in cells)
    pad = lambda c: torch.nn.functional.pad(c, (0, 0, 0, width - c.shape[1], 0, height - c.shape[0]), value=1.0)
    cells = [pad(c) for c in cells]
    cells += [torch.ones(height, width, 3)] * (-len(cells) % columns)
    return torch.cat([torch.cat(cells[i : i + columns], 1) for i in range(0, len(cells), columns)])[None]


def flow_pictures(fields):
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


def figure_picture(figure):
    """A matplotlib figure -> IMAGE [1, H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).float()[None] / 255


WORDS = ((0.01, "nearly pure noise"), (0.1, "what moves where"), (1.0, "shapes"), (math.inf, "detail"))  # up to a signal-to-noise ratio


def probe_plot(found, sensitivity=None):
    """A probe's curve with its band, the sentence above it and a line at the start -> IMAGE.

    found: verdict.Finding; sensitivity: of one clip, (read, readable) a level, drawn below it.
    Without matplotlib a note that says so.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return captioned(torch.ones(32, 768, 3), f"{found.sentence} For a plot: pip install matplotlib in ComfyUI's Python")[None]
    figure = Figure(figsize=(9, 6.2 if sensitivity is None else 8.6), dpi=110, layout="constrained")
    axes = figure.subplots(1 if sensitivity is None else 2, squeeze=False, height_ratios=None if sensitivity is None else [3, 2])[:, 0]
    _leakage_axes(axes[0], found)
    if sensitivity is not None:
        _sensitivity_axes(axes[1], found, *sensitivity)
    figure.suptitle("\n".join(_wrapped(found.sentence, 52)), fontsize=17, fontweight="bold")
    figure.supxlabel("\n".join(line for text in found.details for line in _wrapped(text, 125)), fontsize=8)
    return figure_picture(figure)


def _level_axis(axes, found):
    """Levels by their signal-to-noise ratio, in sigma and as the host's percent, and in words."""
    ratios = [found.ratio(s) for _, s in found.chosen]
    axes.set_xscale("log")
    axes.set_xlim(ratios[0] * 0.8, ratios[-1] * 1.25)
    axes.minorticks_off()
    axes.set_xticks(ratios, [f"{s:.3g}\n{1 - f:.3f}\n{r:.2g}" for (f, s), r in zip(found.chosen, ratios)], fontsize=8)
    axes.set_xlabel("noise level: sigma, the host's percent, signal to noise", fontsize=9)
    return ratios


def _leakage_axes(axes, found):
    ratios, curve = _level_axis(axes, found), found.curve
    to_percent = lambda values: 100 * values.clamp(-10, 10).numpy()
    if found.evidence.clips > 1:
        axes.fill_between(
            ratios,
            to_percent(curve.low),
            to_percent(curve.high),
            color="tab:red",
            alpha=0.2,
            linewidth=0,
            label="band: chance leaves it on either side at 1 level in 100",
        )
    axes.plot(ratios, to_percent(curve.leakage), "o-", color="tab:red", label="motion missing from the model's prediction")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-55, 105)
    axes.set_ylabel("motion missing, %  (0 = none, 100 = a still)")
    if found.start < found.sampling.sigma_max:
        axes.axvline(found.ratio(found.start), color="tab:blue", linewidth=2, linestyle="--", label=f"suggested start: sigma {found.start:.3g}")
    left, (low, high) = 0.0, axes.get_xlim()
    for upto, word in WORDS:
        begin, end = max(left, low), min(upto, high)
        if end > begin * 1.3:
            axes.text(math.sqrt(begin * end), 97, word, ha="center", va="center", fontsize=9, color="grey")
            if end < high:
                axes.axvline(end, color="grey", linewidth=0.5, alpha=0.5)
        left = upto
    axes.legend(fontsize=8, loc="lower left")


def _sensitivity_axes(axes, found, read, readable):
    ratios = _level_axis(axes, found)
    axes.plot(ratios, readable, "--", color="black", label="read by an ideal observer of these two")
    axes.plot(ratios, read, "o-", color="tab:green", label="read by the model")
    axes.set_ylim(-0.1, 1.15)
    axes.set_ylabel("of the difference of two clips")
    axes.set_title("Sensitivity, which is no measure of leakage", fontsize=9)
    axes.legend(fontsize=8, loc="upper left")


def _wrapped(text, width):
    import textwrap

    return textwrap.wrap(text, width)


def sweep_plot(runs, start_as, start=None, broken=()):
    """Consistent motion and likeness against the start, mean and standard deviation over seeds -> IMAGE; without matplotlib a note.

    start: the one to point out; broken: starts whose points are grey.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return captioned(torch.ones(32, 768, 3), "For a plot: pip install matplotlib in ComfyUI's Python")[None]
    starts = list(dict.fromkeys(run["start"] for run in runs))
    figure = Figure(figsize=(7, 4.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    right = axes.twinx()
    for on, name, line, colour in ((axes, "consistent", "o-", "tab:red"), (right, "likeness", "s--", "tab:blue")):
        of = {s: np.array([run[name] for run in runs if run["start"] == s]) for s in starts}
        on.errorbar(starts, [of[s].mean() for s in starts], [of[s].std() for s in starts], fmt=line, color=colour, capsize=3)
        on.plot([s for s in starts if s in broken], [of[s].mean() for s in starts if s in broken], "x", color="black", ms=10)
    axes.set_ylabel("consistent motion", color="tab:red")
    right.set_ylabel("likeness to the image", color="tab:blue")
    axes.set_xlabel(f"start, as a {start_as}" + (" (x: broken clips)" if broken else ""))
    if start_as == "sigma":
        axes.set_xscale("log")
    if start is not None:
        axes.axvline(start, color="tab:green", linewidth=2, linestyle="--", alpha=0.6)
        axes.set_title(f"start {start:g}: the highest with enough steady motion", fontsize=10)
    return figure_picture(figure)


def motion_plot(found):
    """consistency.Measures, a point a pair of frames -> IMAGE; without matplotlib a note."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return captioned(torch.ones(32, 768, 3), "For a plot: pip install matplotlib in ComfyUI's Python")[None]
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes, pairs = figure.add_subplot(), np.arange(1, len(found.motion) + 1) + 0.5
    axes.fill_between(pairs, found.motion, color="tab:green", alpha=0.25, linewidth=0, label="consistent motion")
    axes.plot(pairs, found.camera, "o-", color="tab:blue", ms=3, label="camera")
    axes.plot(pairs, found.subject, "o-", color="tab:green", ms=3, label="subject")
    axes.set_ylim(0, max(0.1, 1.1 * max(*found.motion, *found.camera, *found.subject)))
    axes.set_xlabel("frame")
    axes.set_ylabel("pixels a frame, at 800 x 450")
    first = found.first_moving
    if 0 < first < len(found.motion):
        axes.axvspan(1, first + 1, color="grey", alpha=0.15, linewidth=0, label="stands still")
    right = axes.twinx()
    right.plot(pairs, found.flicker, "--", color="tab:red", linewidth=1, label="flicker")
    right.set_ylim(0, max(0.02, 1.5 * max(found.flicker)))
    right.set_ylabel("flicker", color="tab:red")
    axes.legend(fontsize=8, loc="upper left")
    return figure_picture(figure)


def loss_plot(losses, title):
    """The loss of each update and its running mean -> IMAGE; without matplotlib a note."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return captioned(torch.ones(32, 768, 3), f"{title}. For a plot: pip install matplotlib in ComfyUI's Python")[None]
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    steps, window = np.arange(1, len(losses) + 1), max(1, len(losses) // 20)
    sums = np.cumsum([0.0, *losses])
    first = np.maximum(0, steps - window)
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="each update")
    axes.plot(steps, (sums[steps] - sums[first]) / (steps - first), color="tab:red", label=f"mean of the last {window}")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8)
    axes.set_title("\n".join(_wrapped(title, 90)), fontsize=9)
    return figure_picture(figure)


def dial_plot(readings, answer, goal, lever, title):
    """Motion against the setting, with the asked amount and what was chosen -> IMAGE; without matplotlib a note.

    readings: of cil/dial.py, answer and goal likewise; lever: of levers.py.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return captioned(torch.ones(32, 768, 3), f"{title} For a plot: pip install matplotlib in ComfyUI's Python")[None]
    figure = Figure(figsize=(7, 4.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    known = sorted(readings, key=lambda r: r.setting)
    whole, broken = ([r for r in known if r.whole is is_whole] for is_whole in (True, False))
    axes.plot([r.setting for r in whole], [r.amount for r in whole], "o-", color="tab:blue", label="looked at")
    if broken:
        axes.plot([r.setting for r in broken], [r.amount for r in broken], "x", color="tab:red", ms=9, label="breaks")
    if goal.amount is not None:
        axes.axhspan(goal.amount - goal.tolerance, goal.amount + goal.tolerance, color="tab:orange", alpha=0.2, linewidth=0)
        axes.axhline(goal.amount, color="tab:orange", label="asked")
    axes.plot([answer.reading.setting], [answer.reading.amount], "o", ms=14, mfc="none", color="tab:green", mew=2, label="chosen")
    axes.axvline(lever.search.neutral, color="grey", linewidth=0.8, linestyle=":", label="neutral")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{lever.name}" + (": depth, ln of signal to noise over the ordinary start's" if lever.search.neutral == 0 == lever.search.low else ""))
    axes.set_ylabel("consistent motion, pixels at 800 x 450")
    axes.legend(fontsize=8)
    figure.suptitle("\n".join(_wrapped(title, 70)), fontsize=11)
    return figure_picture(figure)
