"""What is known of each family of image-to-video models: one entry, in one table.

To support another family, add an entry to FAMILIES. A model is recognised by the host's
model classes (by name, so that an older host without the class still loads the pack) or
by the attribute `cil_family` of its configuration.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One family.

    key: its short name, as presets and notes print it.
    classes: names of the host's BaseModel classes, most special first in FAMILIES.
    space: its latent space, as moments files name it.
    moments: packaged moments file; None = mean 0 and `variance`.
    variance: tr(Cov)/d of the latents where no file is packaged.
    start: the default start, (value, "fraction" or "sigma"); 1.0 is neutral.
    evidence: where the default start comes from, in words that a note can print.
    """

    key: str
    classes: tuple
    space: str
    moments: str | None
    variance: float
    start: tuple
    evidence: str


NEUTRAL = (1.0, "fraction")

FAMILIES = (
    Family("demo", (), "demo", "demo.safetensors", 1.0, (50.0, "sigma"), "measured on the demo model"),
    Family("SV3D", ("SV3D_u", "SV3D_p"), "sd", "sd.safetensors", 0.808, NEUTRAL, "no evidence for orbit models: the start is left alone"),
    # LVDM: this pack's own classes, see nodes/lvdm/model.py
    Family("DynamiCrafter", ("DynamiCrafter",), "sd", "sd.safetensors", 0.808, (0.96, "fraction"), "M = 0.96 T, the paper's setting for DynamiCrafter (its image benchmark: 0.92 T)"),
    Family("VideoCrafter1", ("VideoCrafter1",), "sd", "sd.safetensors", 0.808, (0.96, "fraction"), "M = 0.96 T, the paper's setting for VideoCrafter1 (its image benchmark: 0.92 T)"),
    Family("SVD", ("SVD_img2vid",), "sd", "sd.safetensors", 0.808, (100.0, "sigma"), "sigma_M = 100, the paper's setting for SVD"),
)

# Latent formats of the host that no file is packaged for. Those that the host normalises
# channel by channel have mean 0 and variance 1 by construction.
SPACES = {
    "SD15": "sd",
    "Wan21": "wan21",
    "Wan22": "wan22",
    "LTXV": "ltxv",
    "HunyuanVideo": "hunyuan",
    "HunyuanVideo15": "hunyuan15",
    "Mochi": "mochi",
    "Cosmos1CV8x8x8": "cosmos",
}


def generic(latent_format):
    """The entry of a model that the table does not know."""
    name = type(latent_format).__name__
    return Family("unknown", (), SPACES.get(name, name.lower()), None, 1.0, NEUTRAL, "a model that this pack does not know: the start is left alone")


def family_of(model):
    """The family of a host's BaseModel."""
    key = getattr(model.model_config, "cil_family", None)
    names = {cls.__name__ for cls in type(model).__mro__}
    for family in FAMILIES:
        if family.key == key or (key is None and names & set(family.classes)):
            return family
    return generic(model.latent_format)
