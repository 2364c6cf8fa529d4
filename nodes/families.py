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
class Place:
    """One input of a network that holds latents of the conditional image.

    layouts: what it may be made of, channel by channel (see `channels`); the first of the right width counts.
    settings: the entries of a conditioning that it is made of.
    words: how a note names it.
    """

    layouts: tuple = ("image",)
    settings: tuple = ("concat_latent_image",)
    words: str = "the image latents beside the noisy ones"

    @property
    def of_image(self) -> bool:
        """Whether any of it is the image, and not a mask alone."""
        return any("image" in layout for layout in self.layouts)


@dataclass(frozen=True)
class ImageInput:
    """How the conditional image reaches a family's network; `condition.py` finds it by this.

    places: {input of the network: Place}. An input is a tensor or a list of them, each in one of the
        layouts; of a list only the single pictures are the image, a clip among them is there to be
        followed. "input.key" is what a dict among the inputs holds.
    kept: the image stands in x itself, in frames that sampling keeps. Where they are told:
        "denoise_mask" (that input), "c_concat" (its mask), "guiding_frame_index" (the first
        frame, when that input is there).
    repeated: every frame carries the same image, so one noise is meant for all of them.
    tokens: inputs of the network that hold tokens of the image, of shape [rows, tokens, width]. Of "clip_fea",
        an image encoder's, many networks make tokens of their own first (host/tokens.py).
    std: standard deviation of the latents that carry the image: the unit of gentle presets.
    level: the columns of the input `y` that embed the level of noise on the image, or None.
    mixes: an input by which the network itself mixes noise into its image and knows it: the image's share, 1 - level; or None.
    in_model: the MODEL brings the image along, so a conditioning does not show it.
    """

    places: dict = field(default_factory=dict)
    kept: str | None = None
    repeated: bool = False
    tokens: tuple = ()
    std: float = 1.0
    level: tuple | None = None
    mixes: str | None = None
    in_model: bool = False

    @property
    def can_be_told(self) -> bool:
        """Whether the network has an input for the level of noise on its image."""
        return self.level is not None or self.mixes is not None


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
    but: names of classes that derive from those and are no video model.
    bucket: whether the network is told an amount of motion, the host's motion_bucket_id.
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
    but: tuple = ()
    bucket: bool = False

    @property
    def first_apart(self) -> bool:
        """Whether the first latent frame is of another kind than the rest; of a code that this pack does not know, too."""
        return self.space in FIRST_APART or self.key == "unknown"


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


def beside(*layouts: str) -> dict:
    """The image among the channels beside the noisy latents."""
    return {"c_concat": Place(layouts)}


SVD = ImageInput(beside("image"), repeated=True, tokens=("c_crossattn",), std=4.9, level=(512, 768))
SV3D = ImageInput(beside("image"), repeated=True, tokens=("c_crossattn",), std=4.9, level=(0, 256))
DYNAMICRAFTER = ImageInput(beside("image"), repeated=True, tokens=("clip_fea",))
VIDEOCRAFTER1 = ImageInput(tokens=("clip_fea",))
NATIVE_DYNAMICRAFTER = ImageInput({"cc_concat": Place()}, repeated=True, tokens=("img_emb",), in_model=True)
PIA = ImageInput(beside("control1 image"), repeated=True, in_model=True)  # how alike each frame is to be, then the image
# I2V, FLF2V and Fun inpaint; Fun control of Wan 2.2; of Wan 2.1; cameras of Wan 2.1
WAN_BESIDE = beside("mask4 image", "control mask4 image", "control image", "image")
WAN_PLACES = {
    **WAN_BESIDE,
    "reference_latent": Place(("image",), ("reference_latents",), "the reference picture"),  # Fun
    "time_dim_concat": Place(("image",), ("time_dim_concat",), "the reference pictures behind the video"),  # Phantom
    "context_latents": Place(("image",), ("context_latents",), "the reference pictures in the context"),  # Bernini
}
WAN = ImageInput(WAN_PLACES, tokens=("clip_fea",))
WAN_VACE = ImageInput({**WAN_PLACES, "vace_context": Place(("image control hole64",), ("vace_frames",), "the given frames of VACE")}, tokens=("clip_fea",))
WAN22_5B = ImageInput(WAN_BESIDE, kept="denoise_mask")
# the picture is a frame of its own in x's channels there, before or behind the video
WAN_S2V = ImageInput({"reference_latent": WAN_PLACES["reference_latent"]})
WAN_HUMO = ImageInput({"reference_latent": Place(("control mask4 image", "image"), ("reference_latents",), "the reference picture")})  # 17B, 1.7B
WAN_SCAIL = ImageInput({"reference_latent": Place(("image mask4",), ("reference_latents",), "the reference pictures")}, tokens=("clip_fea",))
WAN_SCAIL2 = ImageInput({**WAN_SCAIL.places, "c_concat": Place(("mask4",), ())}, kept="c_concat", tokens=("clip_fea",))
WAN_ANIMATE = ImageInput(WAN_BESIDE, tokens=("clip_fea",))
WAN_ANIMATE2 = ImageInput(WAN_BESIDE, tokens=("clip_fea", "clip_fea_pose"))  # both through one projection
WAN_DANCER = ImageInput(WAN_BESIDE, tokens=("clip_fea", "clip_fea_ref"))
HUNYUAN = ImageInput({**beside("image mask1", "image"), "ref_latent": Place(("image",), ("ref_latent",), "the reference latent")}, kept="guiding_frame_index")
HUNYUAN15 = ImageInput(beside("image mask1"), tokens=("clip_fea",))
COSMOS = ImageInput({"c_concat": Place(("mask1",), ())}, kept="c_concat")
KEPT_FRAMES = ImageInput(kept="denoise_mask")
COGVIDEOX = ImageInput(beside("image", "control image"))  # I2V; inpainting: its mask as a picture, then what is given of the video
KANDINSKY5 = ImageInput({"time_dim_replace": Place(("image",), ("time_dim_replace",), "the start frames that the network puts into the video")})
MINIMAX_H3 = ImageInput(
    {"minimax_payload.cond_video_latents": Place(("image24",), ("minimax_keyframes", "minimax_refs"), "the keyframes and reference pictures")},
    mixes="minimax_payload.visual_cond_noise_aug",
)


def unmeasured(key: str, classes: tuple, space: str, image: ImageInput = ImageInput(), *, experts: bool = False, but: tuple = ()) -> Family:
    """A family that is understood, but for which there is no evidence of where to start."""
    return Family(key, classes, space, None, 1.0, NEUTRAL, NO_EVIDENCE.format(key), image, experts=experts, but=but)


FAMILIES = (
    Family("demo", (), "demo", "demo.safetensors", 1.0, (20.0, "sigma"), "measured here: on the demo models", SVD, 100.0, bucket=True),
    Family("landscape", (), "landscape", "landscape.safetensors", 1.0, NEUTRAL, NO_EVIDENCE.format("the landscape"), SVD, 100.0, bucket=True),
    Family("simulated leak", (), "demo", None, 0.95, (3.0, "sigma"), "measured here: where the simulated leak ends as it is set", SVD, 100.0),
    Family("SV3D", ("SV3D_u", "SV3D_p"), "sd", "sd.safetensors", 0.808, NEUTRAL, "vendor: no evidence for orbit models: the start is left alone", SV3D),
    Family(
        "SVD", ("SVD_img2vid",), "sd", "sd.safetensors", 0.808, (100.0, "sigma"), "paper: sigma_M = 100, the paper's setting for SVD", SVD, 100.0, bucket=True
    ),
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
    unmeasured("Wan S2V", ("WAN22_S2V",), "wan21", WAN_S2V),
    unmeasured("HuMo", ("WAN21_HuMo",), "wan21", WAN_HUMO),
    unmeasured("SCAIL-2", ("WAN21_SCAIL2",), "wan21", WAN_SCAIL2),
    unmeasured("SCAIL", ("WAN21_SCAIL",), "wan21", WAN_SCAIL),
    unmeasured("Wan Animate", ("WAN22_Animate",), "wan21", WAN_ANIMATE),
    unmeasured("Wan Animate 2", ("WAN_Animate2",), "wan21", WAN_ANIMATE2),
    unmeasured("WanDancer", ("WAN22_WanDancer",), "wan21", WAN_DANCER),
    unmeasured("Wan", ("WAN21",), "wan21", WAN, experts=True),  # 2.1 and 2.2 14B: I2V, FLF2V, Fun, cameras, Phantom, Bernini
    unmeasured("HunyuanVideo 1.5 upscaler", ("HunyuanVideo15_SR_Distilled",), "hunyuan15"),
    unmeasured("HunyuanVideo 1.5", ("HunyuanVideo15",), "hunyuan15", HUNYUAN15),
    unmeasured("HunyuanVideo", ("HunyuanVideo",), "hunyuan", HUNYUAN),  # I2V concat and replace, SkyReels
    unmeasured("LTXV", ("LTXV",), "ltxv", KEPT_FRAMES),
    unmeasured("LTX-2", ("LTXAV",), "ltxav", KEPT_FRAMES),  # video and sound in one latent
    unmeasured("Cosmos", ("CosmosVideo",), "cosmos", COSMOS),
    unmeasured("Cosmos Predict2", ("CosmosPredict2",), "wan21", KEPT_FRAMES),
    unmeasured("Mochi", ("GenmoMochi",), "mochi"),
    unmeasured("CogVideoX", ("CogVideoX",), "cogvideox", COGVIDEOX),  # the 5B of 1.0 and 1.5, VOID
    unmeasured("Kandinsky 5", ("Kandinsky5",), "hunyuan", KANDINSKY5, but=("Kandinsky5Image",)),
    unmeasured("MiniMax H3", ("MiniMaxH3",), "minimax_h3", MINIMAX_H3),  # video and sound in one latent
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
    "CogVideoX1_5": "cogvideox",
    "MiniMaxH3AV": "minimax_h3",
}

# Spaces whose first latent is of its own kind: it holds one picture, every later one several, so a
# still clip is not one latent repeated. Read from the host's encoders, which treat the first picture
# apart or pad it with zeros; those of SD, Hunyuan, LTXV and Mochi repeat it, and all latents are alike.
FIRST_APART = {"wan21", "wan22", "hunyuan15", "cosmos", "minimax_h3"}


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
        mine = names & set(family.classes) and not names & set(family.but)
        if family.key == key or (key is None and (mine or foreign & set(family.foreign))):
            return family
    return generic(model.latent_format)
