"""How far the clips of a trained landscape model get, plain and cured: `python run.py do demo.landscape.watch FILE`.

Prints a table over held-out pictures whose amount of motion is left open, and draws six of them
in each way, five frames each, into FILE's folder.
"""

import argparse
from pathlib import Path

import torch

from .. import model as host_model
from . import graph, measure, scenes

STEPS, HELD_OUT = 18, 2_000_000_011
STILL = 0.25  # of the data's median travel
SHOWN, FRAMES_SHOWN = 6, (0, 3, 6, 9, 11)


def load(path):
    """-> (ModelPatcher, ClipVisionModel, VAE) of a file that demo.landscape.train made."""
    model = host_model.build()
    model.load_model_weights(host_model.weights(path, model.diffusion_model))
    return host_model.patcher_of(model), *graph.sockets()


def ways(model):
    """name: the MODEL patched."""
    return {
        "plain": model,
        **{f"early start from sigma {s:g}": graph.early(model, s) for s in (15.0, 8.0)},
        **{f"motion gain {g:g} above sigma {above:g}": graph.gained(model, g, above) for g, above in ((1.4, 5.0), (1.7, 5.0), (2.0, 3.0))},
    }


def typical_travel():
    """The median way of a subject in the data from the first frame to the last, pixels."""
    places = scenes.path(scenes.sample(4096, torch.Generator().manual_seed(2_000_000_033)))
    return float((places[:, -1] - places[:, 0]).norm(dim=-1).median())


def clips(model, vision, vae, held_out, seeds):
    """Yields RGB [1, t, 3, H, W] of each picture with each seed."""
    for scene in (held_out[i : i + 1] for i in range(len(held_out))):
        conditions = graph.conditioned(vision, vae, scenes.render(scene, 1)[0].movedim(1, -1))
        for seed in range(seeds):
            yield graph.sampled(model, vae, conditions, seed, STEPS).movedim(-1, 1)[None]


def main(arguments=None):
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path, help="a checkpoint that demo.landscape.train made")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1, help="clips of each picture")
    o = parser.parse_args(arguments)
    model, vision, vae = load(o.file)
    held_out = scenes.sample(o.pictures, torch.Generator().manual_seed(HELD_OUT), told=0.0)
    truth, typical, rows = held_out[torch.arange(o.pictures).repeat_interleave(o.seeds)], typical_travel(), []
    print(f"{o.pictures} pictures x {o.seeds} seeds, {STEPS} Euler steps, CFG 1; the data's median travel is {typical:.1f} pixels of {scenes.SIZE}\n")
    print("| way | median travel over the data's | still clips | frames without a subject | distance to the nearest true clip |\n|---|---|---|---|---|")
    for name, patched in ways(model).items():
        pixels = torch.cat(list(clips(patched, vision, vae, held_out, o.seeds)))
        tracks = measure.track(pixels, truth)
        distance = measure.nearest_clip(pixels, truth, tracks)[1].mean()
        ratio, still = tracks.travel.median() / typical, (tracks.travel < STILL * typical).float().mean()
        print(f"| {name} | {ratio:.2f} | {still:.0%} | {tracks.lost.mean():.0%} | {distance:.3f} |", flush=True)
        shown = pixels[:: o.seeds][:SHOWN, list(FRAMES_SHOWN)]  # [n, f, 3, H, W]
        rows.append(shown.movedim(2, -1).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1))  # [n H, f W, 3]
    picture = o.file.with_name(f"{o.file.stem}_watch.png")
    Image.fromarray((torch.cat(rows, 1) * 255).round().byte().numpy()).save(picture)
    print(f"\n{picture}: {', '.join(ways(model))}, side by side")
