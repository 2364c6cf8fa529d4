"""What the benchmarks share: sample the demo model through the host, as a graph would, and write down what came."""

from pathlib import Path

import torch

from ..cil import motion
from ..demo import latents, measure, model, scenes
from ..nodes.early_start import CILEarlyStart

STEPS = 15
BUCKETS = (60, 130, 200)  # requested motions
RESULTS = Path(__file__).parent / "results"
GAIN = "speed / asked, less that of the same clips from the ordinary start"
COLUMNS = "motion score | speed / asked | speed error (px/frame) | distance to nearest true clip"


class Demo:
    """A demo checkpoint in the host, sampled by the host's KSampler with the SVD conditioning node."""

    def __init__(self, checkpoint):
        self.model, self.clip_vision, self.vae = model.load(checkpoint)

    def early(self, sigma, analytic):
        """The MODEL with CILEarlyStart on it; sigma None = the plain one."""
        if sigma is None:
            return self.model
        node = CILEarlyStart.PREPARE_CLASS_CLONE(None)
        return node.execute(self.model, "sigma", float(sigma), analytic).args[0]

    def conditioning(self, scene):
        from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

        first = scenes.render(scene, 1)[0].movedim(1, -1)
        return SVD_img2vid_Conditioning().encode(
            self.clip_vision, first, self.vae, scenes.SIZE, scenes.SIZE, scenes.FRAMES, int(scene.bucket[0]), scenes.FPS, 0.0
        )

    @torch.inference_mode()
    def sample(self, scene, seed, patched=None, cfg=1.0, steps=STEPS):
        """One clip -> scaled latents [1, t, 4, h, w]."""
        import nodes

        positive, negative, latent = self.conditioning(scene)
        out = nodes.KSampler().sample(
            patched or self.model, seed, steps, cfg, "euler", "karras", positive, negative, latent, 1.0
        )[0]  # fmt: skip
        return (out["samples"] * latents.SCALE)[None]

    @torch.inference_mode()
    def frames(self, sample):
        """Scaled latents of one clip -> IMAGE [t, H, W, 3]."""
        return self.vae.decode(sample[0] / latents.SCALE)


def node(cls, **given):
    """A node's outputs; what is not given is as its schema has it."""
    defaults = {i.id: i.default for i in cls.define_schema().inputs if getattr(i, "default", None) is not None}
    return cls.PREPARE_CLASS_CLONE(None).execute(**(defaults | given)).args


def held_out(n, bucket):
    """n scenes that no training or moments run has drawn, at one motion bucket."""
    return scenes.sample(n, torch.Generator().manual_seed(2_000_000_011)).replace(bucket=float(bucket))


def mean_and_error(values):
    """Mean and its standard error."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def number(pair):
    """A mean and its standard error, as a table prints them."""
    return "{:.3f} ± {:.3f}".format(*pair)


def pm(values):
    """`number` of a column of figures."""
    return number(mean_and_error(values))


def judge(sample, scene):
    """-> speed over the requested one, |got - requested| in pixels a frame, distance to the nearest true clip."""
    speed, _, residual = measure.nearest_clip(sample, scene)
    asked = scenes.speed(scene.bucket)
    return float(speed / asked), float((speed - asked).abs()), float(residual)


def from_start(demo, pictures, seeds, sigma, analytic, flow):
    """The columns of COLUMNS, with an entry a seed; seed k animates picture k in turn. sigma None = the ordinary start."""
    patched, figures = demo.early(sigma, analytic), []
    for seed in range(seeds):
        scene = pictures[seed % len(pictures) : seed % len(pictures) + 1]
        sample = demo.sample(scene, seed, patched)
        figures.append((motion.motion_score(demo.frames(sample), flow), *judge(sample, scene)))
    return list(zip(*figures))


def gain(columns, ordinary):
    """GAIN: the clips of two starts share their pictures and seeds, so their differences tell more than their means."""
    return "" if columns is ordinary else pm([after - before for after, before in zip(columns[1], ordinary[1])])


def write_result(name, lines, folder=RESULTS):
    """Lines of markdown -> `folder`/`name`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
