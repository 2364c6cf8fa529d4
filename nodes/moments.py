"""Moments in the graph: load, save, and the choice where none are connected."""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..cil import moments as cil_moments
from ..cil.files import check_name, claim
from .families import Family
from .host.notes import say

MomentsType = io.Custom("CIL_MOMENTS")
PACKAGED = Path(__file__).parent.parent / "moments"
FOLDER = "cil_moments"
CATEGORY = "image-to-video motion/moments"


def default_moments(family: Family, channels: int) -> tuple[cil_moments.Moments, str]:
    """-> (moments, note): those of the family, or mean 0 and the table's variance, with a note."""
    if family.moments:
        return cil_moments.load(PACKAGED / family.moments), ""
    zero = cil_moments.Moments(torch.zeros(channels, 1, 1, 1), family.variance, family.space)
    return zero, f"no moments are packaged for '{family.space}' latents: mean 0 and variance {family.variance:g} are used"


def idle_moments(moments: cil_moments.Moments | None, analytic_init: bool) -> str:
    """A note where moments are connected but cannot act."""
    return "" if moments is None or analytic_init else "the connected moments are not used while analytic_init is off"


def own_folder() -> Path:
    """The user's own folder of moments files."""
    return Path(folder_paths.get_folder_paths(FOLDER)[0])


class LoadMoments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILLoadMoments",
            display_name="Load Moments (CIL)",
            category=CATEGORY,
            description="Loads the mean and variance of a data set's latents for Analytic-Init: the packaged files, and your own in models/cil_moments (also the .pt files of the paper's authors).",
            inputs=[
                io.Combo.Input(
                    "moments_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A moments file. It must be of the model's latent space: sd for SVD, DynamiCrafter and VideoCrafter, demo for the demo model.",
                ),
                io.Combo.Input(
                    "detail",
                    options=list(cil_moments.DETAILS),
                    default="channel",
                    tooltip="How much of the mean to use. channel: one value a channel, which no watermark or black border of the data set can print into your video (default). smooth: a soft 4 x 4 pattern. full: everything in the file.",
                ),
            ],
            outputs=[MomentsType.Output(display_name="moments", tooltip="E[X_0] and tr(Cov)/d of the latents, for Analytic Init or Early Start.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, moments_name: str, detail: str) -> io.NodeOutput:
        loaded = cil_moments.load(folder_paths.get_full_path_or_raise(FOLDER, moments_name))
        plain = loaded.mean.numel() == loaded.channels and detail != "channel"
        idle = f"the file has one value a channel, so '{detail}' changes nothing" if plain else ""
        say(cls.hidden.unique_id, "\n".join(filter(None, (str(loaded), cil_moments.warning(loaded), idle))))
        return io.NodeOutput(cil_moments.simplify(loaded, detail))

    @classmethod
    def fingerprint_inputs(cls, moments_name: str, detail: str) -> int | None:
        path = folder_paths.get_full_path(FOLDER, moments_name)
        return Path(path).stat().st_mtime_ns if path else None


class SaveMoments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILSaveMoments",
            display_name="Save Moments (CIL)",
            category=CATEGORY,
            description="Saves moments as a safetensors file in models/cil_moments, where Load Moments lists it.",
            inputs=[
                MomentsType.Input("moments", tooltip="From Estimate Moments."),
                io.String.Input("name", default="my_moments", tooltip="File name, without its ending. An existing file of yours is replaced."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file lies.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, moments: cil_moments.Moments, name: str) -> io.NodeOutput:
        path = own_folder() / f"{check_name(name.strip().removesuffix('.safetensors'), 'a file name')}.safetensors"
        with claim(path):
            cil_moments.save(moments, path)
        say(cls.hidden.unique_id, f"saved as {path.name} in models/cil_moments")
        return io.NodeOutput(str(path))


NODES = [LoadMoments, SaveMoments]
