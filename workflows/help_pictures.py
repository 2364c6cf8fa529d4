"""The typical graphs in the help pages: `python run.py do workflows.help_pictures [NODE ...]`.

Of each node its neighbourhood in an example workflow, as the real page draws it in headless
Chromium. Run workflows.make first after a change of the recipes.
"""

import argparse
import copy
import io
import itertools
import json
from pathlib import Path

from PIL import Image

from . import page
from .make import page_file
from .recipes import WORKFLOWS

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "nodes" / "web" / "docs"
GAP, MARGIN, CORNER = 70, 30, (500, 250)  # pixels; CORNER is clear of the page's own bars


def examples():
    """The pack's nodes -> what the page is to show of each: of all neighbourhoods the least, a demo's only where there is no other."""
    found = {}
    for graph in (json.loads(page_file(recipe.__name__).read_text(encoding="utf-8")) for recipe in WORKFLOWS):
        of_the_demo = any(n["type"] in ("CILLoadDemoModel", "CILSimulatedLeak") for n in graph["nodes"])
        for kind in {n["type"] for n in graph["nodes"] if n["properties"].get("cnr_id") == "i2v-motion"}:
            shown = neighbourhood(graph, kind)
            size = of_the_demo, max(n["pos"][1] + n["size"][1] for n in shown["nodes"])
            if kind not in found or size < found[kind][0]:
                found[kind] = size, shown
    return {kind: shown for kind, (_, shown) in found.items()}


def neighbourhood(workflow, kind):
    """A workflow cut down to one node, what it is connected to at its left and at its right, and their links."""
    workflow = copy.deepcopy(workflow)
    centre = next(n for n in workflow["nodes"] if n["type"] == kind)
    links = [link for link in workflow["links"] if centre["id"] in (link[1], link[3])]
    kept = {link[0] for link in links}
    left = list(dict.fromkeys(link[1] for link in links if link[3] == centre["id"]))
    right = [i for i in dict.fromkeys(link[3] for link in links if link[1] == centre["id"]) if i not in left]
    columns = [[n for i in ids for n in workflow["nodes"] if n["id"] == i] for ids in (left, [centre["id"]], right)]
    x = 0
    for column in columns:
        y = 0
        for node in column:
            node["pos"] = [x, y]
            y += node["size"][1] + GAP
            for slot in node["inputs"]:
                slot["link"] = slot.get("link") if slot.get("link") in kept else None
            for slot in node["outputs"]:
                slot["links"] = [link for link in slot["links"] or [] if link in kept]
        x += max((node["size"][0] for node in column), default=-GAP) + GAP
    workflow |= {"nodes": list(itertools.chain(*columns)), "links": links, "groups": []}
    return workflow


def photograph(tab, graph):
    """A graph in an open page -> its picture."""
    tab.evaluate("data => window.app.loadGraphData(data)", graph)
    tab.wait_for_timeout(800)
    tab.keyboard.press("Escape")  # the page's list of missing models
    box = tab.evaluate(
        """([corner, margin]) => {
        const all = window.app.graph._nodes.map(n => [...n.getBounding()]);
        const low = i => Math.min(...all.map(b => b[i])), high = i => Math.max(...all.map(b => b[i] + b[i + 2]));
        const canvas = window.app.canvas, {x: left, y: top} = canvas.canvas.getBoundingClientRect();
        canvas.ds.scale = 1;
        canvas.ds.offset = [corner[0] - left - low(0), corner[1] - top - low(1)];
        canvas.deselectAll();
        canvas.setDirty(true, true);
        return {x: corner[0] - margin, y: corner[1] - margin, width: high(0) - low(0) + 2 * margin, height: high(1) - low(1) + 2 * margin};
    }""",
        [CORNER, MARGIN],
    )
    tab.wait_for_timeout(800)
    return Image.open(io.BytesIO(tab.screenshot(clip=box)))


def main(arguments=None):
    import cil_run as run

    parser = argparse.ArgumentParser(prog="workflows.help_pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", help="node ids; all without one")
    options = parser.parse_args(arguments)
    found = examples()
    with run.server() as host, page.browser() as browser:
        tab = page.opened(browser, host.url, 2600, 2400)
        for kind in options.nodes or sorted(found):
            path = DOCS / f"graph-{kind}.webp"
            photograph(tab, found[kind]).save(path, quality=62, method=6)
            print(f"nodes/web/docs/{path.name}: {path.stat().st_size} bytes", flush=True)
