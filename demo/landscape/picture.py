"""Pictures of the demo's graphs, in the settings of the graphs themselves: `python run.py do demo.landscape.picture [GRAPH]`.

Scenes 0 to 15 are animated, with the sampler's seed of the graph. The graph `demo` and README's moving picture
(demo/compare.webp) show one that stands still plain (in no frame further than a quarter of the true way) and whose
subject is whole in every frame of all clips: of these the one to which Motion Gain adds the median, of an even
number the lower in the middle. The strips of the help pages (still-and-cured.webp, of `demo_simulated_leak`
simulated-leak.webp) have the first eight scenes as they come. Of `demo_wan` nothing is drawn: that graph shows the
scene to which the gain adds most, and says so.
"""

import argparse
import functools
import json
from dataclasses import dataclass

import torch

from ..train import FOLDER
from . import graph, panels, scenes, trained

SCENES, SHOWN = 16, 8
STRIPS = {"demo": "still-and-cured.webp", "demo_simulated_leak": "simulated-leak.webp"}
GRAPHS = (*STRIPS, "demo_wan")
QUALITY = 80


@functools.cache
def wired(name):
    """What the first node of each kind in a graph is set to: {kind: inputs}."""
    from ...workflows.make import api_file

    nodes = json.loads(api_file(name).read_text(encoding="utf-8")).values()
    return {node["class_type"]: node["inputs"] for node in reversed(nodes)}


@functools.cache
def checkpoint_of(name):
    return trained.of(wired(name)["CILLoadDemoModel"]["checkpoint"])


def source(name, number):
    """A graph with another scene, None = its own -> its MODEL, conditions, VAE and Scenes."""
    from ...nodes.demo import DemoScene
    from ...nodes.demo_leak import SimulatedLeak

    nodes, other = wired(name), {} if number is None else {"seed": number}
    if leak := nodes.get("CILSimulatedLeak"):
        model, vision, vae, first, _, scene = SimulatedLeak.PREPARE_CLASS_CLONE(None).execute(**leak | other).args
        return model, graph.conditioned(vision, vae, first), vae, scene
    made = checkpoint_of(name)
    first, *_, scene = DemoScene.PREPARE_CLASS_CLONE(None).execute(**nodes["CILDemoScene"] | other).args
    return made.model, made.conditioned(first), made.vae, scene


@torch.inference_mode()
def animated(name, number=None):
    """A graph with another scene, or its own: Scenes and its three clips, {caption: IMAGE}."""
    nodes = wired(name)
    model, conditions, vae, scene = source(name, number)
    early, gain, sampler = nodes["CILEarlyStart"], nodes["CILMotionGain"], nodes["KSampler"]
    ways = {"plain": model, "Early Start": graph.early(model, early["start"]), "Motion Gain": graph.gained(model, gain["gain"], gain["end"])}
    settings = sampler["seed"], sampler["steps"], sampler["scheduler"], sampler["cfg"]
    return scene, {way: graph.sampled(patched, vae, conditions, *settings) for way, patched in ways.items()}


@dataclass(frozen=True)
class Animated:
    """A scene's panels (see panels.panels): the true clip, plain, Early Start and Motion Gain."""

    number: int
    made: list
    captions: list
    tracks: list

    def __str__(self):
        return ", ".join(f"{float(t.travel):.1f}" for t in self.tracks) + (", still" if self.still else "") + ("" if self.whole else ", not whole")

    @property
    def gain(self):
        """What Motion Gain adds to the way, pixels."""
        return float(self.tracks[3].travel - self.tracks[1].travel)

    @property
    def still(self):
        return float(self.tracks[1].furthest) < panels.STILL * float(self.tracks[0].travel)

    @property
    def whole(self):
        return not any(float(t.lost) for t in self.tracks)


def main(arguments=None):
    from PIL import Image

    from ...nodes import pictures

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("graph", nargs="?", choices=GRAPHS, default=GRAPHS[0])
    name = parser.parse_args(arguments).graph
    found = []
    for number in range(SCENES):
        made, captions, tracks = panels.panels(*animated(name, number))
        found.append(Animated(number, made, captions, tracks))
        print(f"scene {number}: {found[-1]}", flush=True)
    by_gain = sorted(found, key=lambda a: a.gain)
    print("Motion Gain adds, pixels: " + ", ".join(f"{a.gain:.1f} (scene {a.number})" for a in by_gain))
    image = lambda frame: Image.fromarray((frame * 255).round().byte().numpy())
    if name == GRAPHS[0]:
        stills = [a for a in by_gain if a.still]
        whole = [a for a in stills if a.whole]
        shown = whole[(len(whole) - 1) // 2]
        print(f"{len(stills)} of {SCENES} stand still plain, {len(whole)} of them whole in all clips; shown: scene {shown.number}")
        save(FOLDER / "compare.webp", [image(frame) for frame in pictures.even(pictures.side_by_side(shown.made, shown.captions))])
    if name in STRIPS:
        rows = []
        for way, words in ((1, "plain: the last frame of eight clips, and the way of each subject"), (3, "the same eight with Motion Gain")):
            tiles = torch.cat([a.made[way][-1] for a in found[:SHOWN]], 1)
            rows.append(pictures.captioned(pictures.same_size(tiles[None], tiles.shape[0] // 2, tiles.shape[1] // 2)[0], words))
        save(FOLDER.parent / "nodes" / "web" / "docs" / STRIPS[name], [image(torch.cat(rows))])


def save(path, frames):
    frames[0].save(path, save_all=len(frames) > 1, append_images=frames[1:], duration=round(1000 / scenes.FPS), loop=0, quality=QUALITY)
    print(f"{path.name}: {len(frames)} frames of {frames[0].size[0]} x {frames[0].size[1]}, {path.stat().st_size // 1024} KiB")
