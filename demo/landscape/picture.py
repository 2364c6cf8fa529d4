"""README's pictures of the simulated leak: `python run.py do demo.landscape.picture`.

Of the scenes 0 to 15, each with the demo graph's settings and one sampler's seed, the moving picture
(demo/compare.webp) shows the one whose gain in travel by Motion Gain is the median of the sixteen (the
lower of the two in the middle). The strip (simulated-leak.webp of the help pages) has the first eight as they come.

`... picture wan_leaking` (or svd_leaking) prints the same travels of a trained model, with the settings of the
graph demo_wan (demo_svd), and draws nothing. Those graphs show a scene to which Motion Gain adds much, and say so.
"""

import argparse
import functools

import torch

from ..train import FOLDER
from . import graph, panels, scenes

SCENES, SHOWN, SEED, STEPS = 16, 8, 1, 20
LEAK, ABOVE = 0.7, 3.0
TRAINED = {"Wan's": (0.9, 1.4, 0.83), "SVD's": (8.0, 2.0, 5.0)}  # by kind: start, gain, above, in sigma
BUCKET = 127
QUALITY = 80


def animated(seed):
    """-> a scene of the simulated leak and its clips: {caption: IMAGE}."""
    from ...nodes.demo_leak import SimulatedLeak

    model, vision, vae, first, _, scene = SimulatedLeak.PREPARE_CLASS_CLONE(None).execute(seed, LEAK, ABOVE).args
    conditions = graph.conditioned(vision, vae, first)
    ways = {"plain": model, "Early Start": graph.early(model, ABOVE), "Motion Gain": graph.gained(model, round(1 / (1 - LEAK), 2), ABOVE)}
    return scene, {name: graph.sampled(patched, vae, conditions, SEED, STEPS) for name, patched in ways.items()}


def animated_by(made, seed):
    """The same of a trained model, see trained.py."""
    from ...nodes.demo import LANDSCAPE, DemoScene

    first, *_, scene = DemoScene.PREPARE_CLASS_CLONE(None).execute(seed, BUCKET, made.frames, LANDSCAPE).args
    conditions = made.conditioned(first)
    start, gain, above = TRAINED[made.kind]
    ways = {"plain": made.model, "Early Start": graph.early(made.model, start), "Motion Gain": graph.gained(made.model, gain, above)}
    clips = {name: graph.sampled(patched, made.vae, conditions, SEED, STEPS, made.scheduler) for name, patched in ways.items()}
    return scene, clips


@torch.inference_mode()
def main(arguments=None):
    from PIL import Image

    from ...nodes import pictures
    from . import trained

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", nargs="?", help="wan_leaking, svd_leaking, wan_healthy or svd_healthy; without one the simulated leak")
    checkpoint = parser.parse_args(arguments).checkpoint
    of = functools.partial(animated_by, trained.of(checkpoint)) if checkpoint else animated
    found = []
    for seed in range(SCENES):
        made, captions, travel = panels.panels(*of(seed))
        found.append((travel[3] - travel[1], seed, made, captions))
        print(seed, [round(t, 1) for t in travel], flush=True)
    if checkpoint:
        print("Motion Gain adds, pixels: " + ", ".join(f"{gain:.1f} (scene {seed})" for gain, seed, *_ in sorted(found, key=lambda f: f[:2])))
        return
    gain, chosen, made, captions = sorted(found, key=lambda f: f[:2])[(SCENES - 1) // 2]
    print(f"shown: scene {chosen}, sampler's seed {SEED}: Motion Gain adds {gain:.1f} pixels")
    image = lambda frame: Image.fromarray((frame * 255).round().byte().numpy())
    save(FOLDER / "compare.webp", [image(frame) for frame in pictures.even(pictures.side_by_side(made, captions))])
    rows = []
    for way, words in ((1, "plain: the last frame of eight clips, and the way of each subject"), (3, "the same eight with Motion Gain")):
        tiles = torch.cat([made[way][-1] for _, _, made, _ in found[:SHOWN]], 1)
        rows.append(pictures.captioned(pictures.same_size(tiles[None], tiles.shape[0] // 2, tiles.shape[1] // 2)[0], words))
    save(FOLDER.parent / "nodes" / "web" / "docs" / "simulated-leak.webp", [image(torch.cat(rows))])


def save(path, frames):
    frames[0].save(path, save_all=len(frames) > 1, append_images=frames[1:], duration=round(1000 / scenes.FPS), loop=0, quality=QUALITY)
    print(f"{path.name}: {len(frames)} frames of {frames[0].size[0]} x {frames[0].size[1]}, {path.stat().st_size // 1024} KiB")
