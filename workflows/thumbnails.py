"""The pictures beside the workflows in the template browser.

    python run.py do workflows.thumbnails [NAME ...] [--draw]

A demo's graph is run, and its thumbnail shows what it made above the graph. Of the others, whose
models are not here, a thumbnail says what it borrows: the same node's effect on the simulated leak
or the small Wan, the dial's plot, or what TimeNoise trainings gave in bench.timenoise. Where there
is nothing to borrow, and of all with --draw, it shows the graph. After a change of the recipes run
workflows.make first.
"""

import argparse
import functools
import io
import json

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..nodes import levers
from .make import ROOT, api_file, page_file
from .recipes import TEMPLATES, WORKFLOWS

SIDE, EDGE = 512, 16
NIGHT, PAPER = (24, 26, 34), (235, 235, 235)
OURS, THEIRS, NOTE, LINK = (236, 150, 64), (74, 82, 104), (110, 92, 60), (120, 126, 146)


def graph_picture(page, width, height):
    """A workflow's nodes and links as boxes and lines; the pack's own nodes in orange."""
    out = Image.new("RGB", (width, height), NIGHT)
    draw = ImageDraw.Draw(out)
    boxes = {n["id"]: (*n["pos"], *n["size"]) for n in page["nodes"]}
    wide, high = max(x + w for x, y, w, h in boxes.values()), max(y + h for x, y, w, h in boxes.values())
    scale = min(width / wide, height / high)
    left, top = (width - wide * scale) / 2, (height - high * scale) / 2
    at = lambda x, y: (left + x * scale, top + y * scale)
    for _, source, slot, target, entry, _ in page["links"]:
        x, y, w, _ = boxes[source]
        tx, ty, _, _ = boxes[target]
        draw.line([at(x + w, y + 25 + 22 * slot), at(tx, ty + 25 + 22 * entry)], LINK, 1)
    for node in page["nodes"]:
        x, y, w, h = boxes[node["id"]]
        own = node["properties"].get("cnr_id") == "i2v-motion"
        colour = OURS if own else NOTE if node["type"] == "MarkdownNote" else THEIRS
        draw.rounded_rectangle([at(x, y), at(x + w, y + h)], 3, colour)
    return out


def results(host, name, **changes):
    """What a workflow shows in a running host: the probe's plot, then its saved pictures, one above the other, SIDE wide. changes: of inputs, wherever a node has them."""
    import cil_run as run

    graph = json.loads(api_file(name).read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"] |= {key: value for key, value in changes.items() if key in node["inputs"]}
    entry = host.run(graph)
    if run.error_of(entry):
        raise SystemExit(f"{name}: {run.error_of(entry)}")
    shown = [(graph[id]["class_type"] != "LeakageProbe", file) for id, output in entry["outputs"].items() for file in output.get("images", [])]
    files = [file for other, file in sorted(shown, key=lambda pair: pair[0]) if file["type"] == "output" or not other]
    pictures = [Image.open(io.BytesIO(host.fetch(file))) for file in files if file["filename"].endswith(".png")]
    pictures = [p.resize((SIDE, round(p.height * SIDE / p.width)), Image.LANCZOS) for p in pictures]
    out = Image.new("RGB", (SIDE, sum(p.height for p in pictures)), NIGHT)
    for i, picture in enumerate(pictures):
        out.paste(picture, (0, sum(p.height for p in pictures[:i])))
    return out


def plain_and_gain(host, name):
    """Plain and Motion Gain out of what demo or demo_wan makes: its second and its last row of frames."""
    made = results(host, name)
    row = made.height // 4  # the true clip, plain, Early Start, Motion Gain
    out = Image.new("RGB", (SIDE, 2 * row + 4), NIGHT)
    for place, i in enumerate((1, 3)):
        top = round(i * made.height / 4)
        out.paste(made.crop((0, top, SIDE, top + row)), (0, place * (row + 4)))
    return out


def gain_on_wan(host):
    return plain_and_gain(host, "demo_wan")


@functools.cache
def effect(host):
    """Plain beside Early Start on the simulated leak, the last frames with the subject's trail, SIDE wide."""
    from ..demo.landscape import panels, picture

    scene, clips = picture.animated("demo_simulated_leak")
    made, captions, _ = panels.panels(scene, {name: clips[name] for name in ("plain", "Early Start")})
    out = Image.new("RGB", (SIDE, SIDE // 2 + 44), NIGHT)
    for i in (1, 2):  # behind the truth
        tile = Image.fromarray((made[i][-1] * 255).round().byte().numpy()).resize((SIDE // 2 - 4, SIDE // 2 - 4), Image.LANCZOS)
        out.paste(tile, ((i - 1) * (SIDE // 2 + 4), 0))
        ImageDraw.Draw(out).text(((i - 1) * (SIDE // 2 + 4) + 4, SIDE // 2), captions[i].replace(": ", "\n"), PAPER, ImageFont.load_default(size=16))
    return out


def measured(host):
    """What TimeNoise trainings of the demo gave, SIDE wide and not as high."""
    plot = ImageOps.contain(Image.open(ROOT / "bench" / "results" / "timenoise_sweep.png").convert("RGB"), (SIDE, 270), Image.LANCZOS)
    return ImageOps.pad(plot, (SIDE, plot.height), color="white")


def dialled_by_gain(host):
    """The demo's dial with the lever that it turns on Wan."""
    return results(host, "demo_dial", lever=levers.GAIN)


LENT = {
    "svd_early_start": (effect, "a simulated leak"),
    "dynamicrafter_early_start": (effect, "a simulated leak"),
    "wan22_dial": (dialled_by_gain, "the demo"),
    "wan22_motion_gain": (gain_on_wan, "the demo"),
    "svd_train": (measured, "the demo"),
}  # what is made in a workflow's stead, and on what


def lent(host, name):
    """What a demo lends a workflow, which says so, or None."""
    if name not in LENT:
        return None
    lend, model = LENT[name]
    made = lend(host)
    out = Image.new("RGB", (SIDE, made.height + 28), NIGHT)
    out.paste(made, (0, 28))
    ImageDraw.Draw(out).text((EDGE, 4), f"as on {model}:", LINK, ImageFont.load_default(size=18))
    return out


def thumbnail(title, page, made=None):
    """Title, what the workflow made, or is lent (its upper part, if that is long), and the graph, SIDE x SIDE."""
    out = Image.new("RGB", (SIDE, SIDE), NIGHT)
    font = ImageFont.load_default(size=26)
    words = [""]
    for word in title.split():
        longer = f"{words[-1]} {word}".strip()
        words = [*words[:-1], longer] if font.getlength(longer) <= SIDE - 2 * EDGE else [*words, word]
    ImageDraw.Draw(out).multiline_text((EDGE, EDGE), "\n".join(words), PAPER, font, spacing=6)
    top = 2 * EDGE + 34 * len(words)
    if made:
        made = made.crop((0, 0, SIDE, min(made.height, SIDE - top - 120)))
        out.paste(made, (0, top))
        top += made.height + EDGE
    out.paste(graph_picture(page, SIDE - 2 * EDGE, SIDE - top - EDGE), (EDGE, top))
    return out


def make(graph, host=None):
    """Write one workflow's thumbnail; with a host, run it if it is a demo's."""
    page = json.loads(page_file(graph.name).read_text(encoding="utf-8"))
    runs = host and any(node["type"] in ("CILLoadDemoModel", "CILSimulatedLeak") for node in page["nodes"])
    path = page_file(graph.name).with_suffix(".jpg")
    of_its_own = plain_and_gain if graph.name == "demo" else results
    made = of_its_own(host, graph.name) if runs else lent(host, graph.name) if host else None
    thumbnail(path.stem, page, made).save(path, quality=78, optimize=True)
    print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


def main(arguments=None):
    import cil_run as run

    parser = argparse.ArgumentParser(prog="workflows.thumbnails", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="workflows of the template browser; all without one")
    parser.add_argument("--draw", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    graphs = [graph for graph in (recipe() for recipe in WORKFLOWS if recipe.__name__ in TEMPLATES) if graph.name in options.names or not options.names]
    if options.draw:
        for graph in graphs:
            make(graph)
        return
    with run.server() as host:
        for graph in graphs:
            make(graph, host)
