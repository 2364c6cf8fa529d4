"""What is known of each family of image-to-video models: one entry, in one table.

To support another family, add an entry to FAMILIES. A model is recognised by the host's
model classes (by name, so that an older host without the class still loads the pack), by
the attribute `cil_family` of its configuration, or, where another pack makes it of the
host's plain classes, by a name of that pack's. The forward process is not in the table:
`Sampling` in host/sampling.py reads it from the model.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .host.types import BaseModel


@dataclass(frozen=True)
class ImageInput:
    """How the conditional image reaches a family's network; `condition.py` finds it by this.

    layouts: what c_concat may be made of, channel by channel (see `channels`); the first
        layout of the right width counts.
    tensors: further inputs of the network that hold image latents: {name: layout}.
    kept: the image stands in x itself, in frames that sampling keeps. Where they are told:
        "denoise_mask" (that input), "c_concat" (its mask), "guiding_frame_index" (the first
        frame, when that input is there).
    repeated: every frame carries the same image, so one noise is meant for all of them.
    tokens: inputs of the network that hold tokens of the image, of shape [rows, tokens, width]. Of "clip_fea",
        an image encoder's, many networks make tokens of their own first (host/tokens.py).
    std: standard deviation of the latents that carry the image: the unit of gentle presets.
    level: the columns of the input `y` that embed the level of noise on the image, or None.
    in_model: the MODEL brings the image along, so a conditioning does not show it.
    """

    layouts: tuple = ()
    tensors: dict = field(default_factory=dict)
    kept: str | None = None
    repeated: bool = False
    tokens: tuple = ()
    std: float = 1.0
    level: tuple | None = None
    in_model: bool = False


@dataclass(frozen=True)
class Family:
    """One family.

    key: its short name, as presets and notes print it.
    classes: names of the host's BaseModel classes, most special first in FAMILIES.
    space: its latent space, as moments files name it.
    moments: packaged moments file; None = mean 0 and `variance`.
    variance: tr(Cov)/d of the latents where no file is packaged.
    start: the default start, (value, "fraction" or "sigma"); 1.0 is neutral.
    evidence: where the default start comes from, in words that a note can print; the first is one of
        EVIDENCE ("vendor" is the model as its makers sample it: the ordinary start).
    image: how the image reaches the network.
    beta_m: the paper's largest level of TimeNoise, or None.
    foreign: names that another pack gives it: a configuration's class, a motion module's format.
    experts: whether one model may sample the first steps and another the rest; each was trained
        for its side of one noise level, so an early start must not move the hand-over.
    """

    key: str
    classes: tuple
    space: str
    moments: str | None
    variance: float
    start: tuple
    evidence: str
    image: ImageInput = ImageInput()
    beta_m: float | None = None
    foreign: tuple = ()
    experts: bool = False


def channels(layout: str, width: int, latent_channels: int) -> dict | None:
    """The channels of a layout -> {part: (first, count)}, or None if it is not `width` wide.

    A layout names its parts in order: "image" and "control" are as wide as the latents, or
    as a number says; "mask4" is 4 wide and 1 where the image is given, "hole64" 64 wide and
    0 where it is.
    """
    found, at = {}, 0
    for name, digits in re.findall(r"([a-z]+)(\d*)", layout):
        count = int(digits) if digits else latent_channels
        found[name] = (at, count)
        at += count
    return found if at == width else None


EVIDENCE = ("paper", "vendor", "measured here", "experimental")
NEUTRAL = (1.0, "fraction")
NO_EVIDENCE = "vendor: nobody has measured an early start for {}: the start is left alone"
DYNAMICRAFTER_EVIDENCE = "paper: M = 0.96 T, the paper's setting for DynamiCrafter (its image benchmark: 0.92 T)"

SVD = ImageInput(layouts=("image",), repeated=True, tokens=("c_crossattn",), std=4.9, level=(512, 768))
SV3D = ImageInput(layouts=("image",), repeated=True, tokens=("c_crossattn",), std=4.9, level=(0, 256))
DYNAMICRAFTER = ImageInput(layouts=("image",), repeated=True, tokens=("clip_fea",))
VIDEOCRAFTER1 = ImageInput(tokens=("clip_fea",))
NATIVE_DYNAMICRAFTER = ImageInput(tensors={"cc_concat": "image"}, repeated=True, tokens=("img_emb",), in_model=True)
PIA = ImageInput(layouts=("control1 image",), repeated=True, in_model=True)  # how alike each frame is to be, then the image
# I2V, FLF2V and Fun inpaint; Fun control of Wan 2.2; of Wan 2.1; cameras of Wan 2.1
WAN_LAYOUTS = ("mask4 image", "control mask4 image", "control image", "image")
WAN = ImageInput(layouts=WAN_LAYOUTS, tokens=("clip_fea",))
WAN_VACE = ImageInput(layouts=WAN_LAYOUTS, tensors={"vace_context": "image control hole64"}, tokens=("clip_fea",))
WAN22_5B = ImageInput(layouts=WAN_LAYOUTS, kept="denoise_mask")
HUNYUAN = ImageInput(layouts=("image mask1", "image"), tensors={"ref_latent": "image"}, kept="guiding_frame_index")
HUNYUAN15 = ImageInput(layouts=("image mask1",), tokens=("clip_fea",))
COSMOS = ImageInput(layouts=("mask1",), kept="c_concat")
KEPT_FRAMES = ImageInput(layouts=("mask1",), kept="denoise_mask")


def unmeasured(key: str, classes: tuple, space: str, image: ImageInput = ImageInput(), experts: bool = False) -> Family:
    """A family that is understood, but for which there is no evidence of where to start."""
    return Family(key, classes, space, None, 1.0, NEUTRAL, NO_EVIDENCE.format(key), image, experts=experts)


FAMILIES = (
    Family("demo", (), "demo", "demo.safetensors", 1.0, (20.0, "sigma"), "measured here: on the demo models", SVD, 100.0),
    Family("SV3D", ("SV3D_u", "SV3D_p"), "sd", "sd.safetensors", 0.808, NEUTRAL, "vendor: no evidence for orbit models: the start is left alone", SV3D),
    Family("SVD", ("SVD_img2vid",), "sd", "sd.safetensors", 0.808, (100.0, "sigma"), "paper: sigma_M = 100, the paper's setting for SVD", SVD, 100.0),
    # this pack's own classes, see lvdm/model.py
    Family("DynamiCrafter", ("DynamiCrafter",), "sd", "sd.safetensors", 0.808, (0.96, "fraction"), DYNAMICRAFTER_EVIDENCE, DYNAMICRAFTER, 100.0),
    Family(
        "VideoCrafter1",
        ("VideoCrafter1",),
        "sd",
        "sd.safetensors",
        0.808,
        (0.96, "fraction"),
        "paper: M = 0.96 T, the paper's setting for VideoCrafter1 (its image benchmark: 0.92 T)",
        VIDEOCRAFTER1,
        25.0,
    ),
    # of other packs: ComfyUI_Native_DynamiCrafter, ComfyUI-AnimateDiff-Evolved
    Family(
        "Native DynamiCrafter",
        (),
        "sd",
        "sd.safetensors",
        0.808,
        (0.96, "fraction"),
        DYNAMICRAFTER_EVIDENCE,
        NATIVE_DYNAMICRAFTER,
        100.0,
        ("DynamiCrafterBase",),
    ),
    Family("PIA", (), "sd", "sd.safetensors", 0.808, NEUTRAL, NO_EVIDENCE.format("PIA"), PIA, foreign=("PIA",)),
    unmeasured("Wan VACE", ("WAN21_Vace",), "wan21", WAN_VACE, experts=True),
    unmeasured("Wan 2.2 5B", ("WAN22",), "wan22", WAN22_5B),
    unmeasured("Wan", ("WAN21",), "wan21", WAN, experts=True),  # 2.1 and 2.2 14B: I2V, FLF2V, Fun, cameras
    unmeasured("HunyuanVideo 1.5 upscaler", ("HunyuanVideo15_SR_Distilled",), "hunyuan15"),
    unmeasured("HunyuanVideo 1.5", ("HunyuanVideo15",), "hunyuan15", HUNYUAN15),
    unmeasured("HunyuanVideo", ("HunyuanVideo",), "hunyuan", HUNYUAN),  # I2V concat and replace, SkyReels
    unmeasured("LTXV", ("LTXV",), "ltxv", KEPT_FRAMES),
    unmeasured("LTX-2", ("LTXAV",), "ltxav", KEPT_FRAMES),  # video and sound in one latent
    unmeasured("Cosmos", ("CosmosVideo",), "cosmos", COSMOS),
    unmeasured("Cosmos Predict2", ("CosmosPredict2",), "wan21", KEPT_FRAMES),
    unmeasured("Mochi", ("GenmoMochi",), "mochi"),
)

# Latent formats of the host that no file is packaged for. Those that the host normalises
# channel by channel have mean 0 and variance 1 by construction.
SPACES = {
    "SD15": "sd",
    "Wan21": "wan21",
    "Wan22": "wan22",
    "LTXV": "ltxv",
    "LTXAV": "ltxav",  # of newer hosts
    "HunyuanVideo": "hunyuan",
    "HunyuanVideo15": "hunyuan15",
    "Mochi": "mochi",
    "Cosmos1CV8x8x8": "cosmos",
}

# Spaces whose first latent is of its own kind: it holds one picture, every later one several, so a
# still clip is not one latent repeated. Read from the host's encoders, which treat the first picture
# apart or pad it with zeros; those of SD, Hunyuan, LTXV and Mochi repeat it, and all latents are alike.
FIRST_APART = {"wan21", "wan22", "hunyuan15", "cosmos"}


def generic(latent_format: object) -> Family:
    """The entry of a model that the table does not know."""
    name = type(latent_format).__name__
    return Family("unknown", (), SPACES.get(name, name.lower()), None, 1.0, NEUTRAL, "vendor: a model that this pack does not know: the start is left alone")


def family_of(model: BaseModel, motion: Iterable = ()) -> Family:
    """The family of a host's BaseModel. motion: the formats of the motion modules that go with it."""
    key = getattr(type(model.model_config), "cil_family", None)  # of the class: newer hosts warn of an instance's unknown attributes
    names = {cls.__name__ for cls in type(model).__mro__}
    foreign = {type(model.model_config).__name__, *motion}
    for family in FAMILIES:
        if family.key == key or (key is None and (names & set(family.classes) or foreign & set(family.foreign))):
            return family
    return generic(model.latent_format)
