"""Models of the host's own classes, with a network that answers zeros, and a spy on what they see.

The host does all the work (spaces, schedules, samplers, conditioning); only the network's
answer is without interest here.
"""

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import comfy.supported_models_base
import torch

from cil_pack.cil import consistency, motion
from cil_pack.nodes.lvdm.sampling import sampling_for

T = comfy.model_base.ModelType


class Zeros(torch.nn.Module):
    dtype = torch.float32

    def forward(self, x, timesteps=None, context=None, **kwargs):
        return torch.zeros_like(x)


SD, VIDEO = comfy.latent_formats.SD15, comfy.latent_formats.Wan21
SDCube = type("SD15", (SD,), {"latent_dimensions": 3})  # the same channels, known by the same name, with a dimension for time

FRAMES, CUBE = (6, 4, 8, 12), (1, 16, 5, 8, 12)
# name: (model type, sampling settings, latent format, latent shape)
KINDS = {
    "SVD": (T.V_PREDICTION_EDM, {"sigma_max": 700.0, "sigma_min": 0.002}, SD, FRAMES),
    "eps": (T.EPS, {}, SD, FRAMES),
    "v": (T.V_PREDICTION, {}, SD, FRAMES),
    "v zsnr": (T.V_PREDICTION, {"zsnr": True}, SD, FRAMES),
    "eps rescaled": (T.EPS, {"zsnr": False, "base_scale": 0.7}, SD, FRAMES),  # VideoCrafter1
    "v rescaled zsnr": (T.V_PREDICTION, {"zsnr": True, "base_scale": 0.3}, SD, FRAMES),  # DynamiCrafter 1024
    "eps 5-D": (T.EPS, {}, SDCube, (2, 4, 5, 8, 12)),
    "continuous v": (T.V_PREDICTION_CONTINUOUS, {"sigma_max": 500.0, "sigma_min": 0.03}, SD, FRAMES),
    "EDM": (T.EDM, {"sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 0.5}, SDCube, (1, 4, 5, 8, 12)),
    "flow": (T.FLOW, {"shift": 1.0}, VIDEO, CUBE),
    "flow shift 8": (T.FLOW, {"shift": 8.0}, VIDEO, CUBE),
    "flux": (T.FLUX, {"shift": 2.37}, VIDEO, CUBE),
    "Cosmos RFlow": (T.FLOW_COSMOS, {"sigma_max": 80.0, "sigma_min": 0.002}, VIDEO, CUBE),
    "Cascade": (T.STABLE_CASCADE, {"shift": 2.0}, SD, (1, 4, 8, 12)),
}
SHIFTED = {f"flow shift {shift}": (T.FLOW, {"shift": float(shift)}, VIDEO, CUBE) for shift in (3, 5, 12, 17)}


MADE = {}


def model(kind):
    """-> (MODEL, empty LATENT): a clone of one that is made once, since Cascade's table takes seconds."""
    if kind not in MADE:
        MADE[kind] = made(kind)
    return MADE[kind].clone(), {"samples": torch.zeros((KINDS | SHIFTED)[kind][3])}


def made(kind):
    model_type, settings, latent, shape = (KINDS | SHIFTED)[kind]

    class Config(comfy.supported_models_base.BASE):
        unet_config = {"disable_unet_model_creation": True, "in_channels": shape[1]}
        unet_extra_config = {}
        latent_format = latent
        sampling_settings = settings

    base = comfy.model_base.BaseModel(Config(Config.unet_config), model_type)
    if "base_scale" in settings:
        base.model_sampling = sampling_for(base.model_config, model_type)
    base.diffusion_model = Zeros()
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def conditioning():
    return [[torch.zeros(1, 1, 8), {}]]


class Spy:
    """A copy of a MODEL that notes every x and sigma its network is asked about."""

    def __init__(self, model):
        self.x, self.sigmas = [], []
        self.model = model.clone()

        def note(executor, x, sigma, *args, **kwargs):
            self.x.append(x.clone())
            self.sigmas.append(float(sigma[0]))
            return executor(x, sigma, *args, **kwargs)

        self.model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", note)

    @property
    def first_x(self):
        """The x of the first model call, in the host's space before `calculate_input`."""
        return self.x[0]


def read_motion_small(monkeypatch):
    """Consistent motion is read at a fifth of its usual size, for tests that look at what is done with it."""
    for measure in (consistency.pairs, consistency.likeness):
        monkeypatch.setattr(measure, "__defaults__", tuple((90, 160) if default == motion.SVD_SIZE else default for default in measure.__defaults__))
