"""A node pack for the test host alone: loaders that give the tiny models of tests/family_models.py.

They stand where a template has loaders of model files and text encoders, which no test can fetch.
"""

import importlib.util
import sys
from pathlib import Path

import comfy.patcher_extension
import torch
from comfy_api.latest import ComfyExtension, io

TESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(TESTS))
specification = importlib.util.spec_from_file_location("cil_run", TESTS.parent / "run.py")
sys.modules["cil_run"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(sys.modules["cil_run"])
sys.modules["cil_run"].load_pack()  # as `cil_pack`, which family_models imports

import family_models  # noqa: E402

SIGMAS = {}  # what every tiny model was asked about, in order; TinySigmas reads it


class DecodingVAE(family_models.FakeVAE):
    """The fake VAE with a way back, of the right size and without content."""

    def decode(self, samples, **options):
        height, width = (n * self.space for n in samples.shape[-2:])
        frames = samples.shape[0] if self.dimensions == 2 else (samples.shape[2] - 1) * self.time + 1
        return torch.full((frames, height, width, 3), 0.5) + 0.01 * samples.mean()

    decode_tiled = decode


VAES = {"SVD": (4, 8, 1, 2), "Wan 2.2 5B": (48, 16, 4), "LTXV": (128, 32, 8), "Hunyuan 1.5 I2V": (32, 16, 4)}
NAMES = list(family_models.TINY)


class TinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            "TinyModel",
            inputs=[io.Combo.Input("name", options=NAMES), io.String.Input("label", default=""), io.Int.Input("run", default=0)],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output(), io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, name, label, run=0):
        model = family_models.model(name)
        SIGMAS[label] = []

        def note(executor, x, sigma, *args, **kwargs):
            SIGMAS[label].append(float(sigma[0]))
            return executor(x, sigma, *args, **kwargs)

        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "tiny", note)
        vae = DecodingVAE(*VAES.get(name, (16, 8, 4)))
        return io.NodeOutput(model, name, vae, family_models.FakeClipVision())


class TinyText(io.ComfyNode):
    """In the place of CLIPTextEncode; `clip` is the model's name."""

    @classmethod
    def define_schema(cls):
        return io.Schema("TinyText", inputs=[io.Clip.Input("clip"), io.String.Input("text")], outputs=[io.Conditioning.Output()])

    @classmethod
    def execute(cls, clip, text):
        tiny = family_models.TINY[clip]
        generator = torch.Generator().manual_seed(len(text))
        return io.NodeOutput([[torch.randn(1, 5, tiny.text["width"], generator=generator), dict(tiny.text.get("more", {}))]])


class TinyVision(io.ComfyNode):
    """In the place of CLIPVisionEncode."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            "TinyVision",
            inputs=[io.ClipVision.Input("clip_vision"), io.Image.Input("image"), io.Int.Input("width", default=1280)],
            outputs=[io.ClipVisionOutput.Output()],
        )

    @classmethod
    def execute(cls, clip_vision, image, width):
        return io.NodeOutput(family_models.clip_output(width))


class TinySigmas(io.ComfyNode):
    """The noise levels that a tiny model was asked about, once `after` is there."""

    @classmethod
    def define_schema(cls):
        return io.Schema("TinySigmas", inputs=[io.Latent.Input("after"), io.String.Input("label")], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, after, label):
        samples = after["samples"]
        return io.NodeOutput(ui={"sigmas": list(SIGMAS[label]), "finite": [bool(torch.isfinite(samples).all())]})


class TinyExtension(ComfyExtension):
    async def get_node_list(self):
        return [TinyModel, TinyText, TinyVision, TinySigmas]


async def comfy_entrypoint():
    return TinyExtension()
