"""What the network of a model is given while sampling, and where in it the image stands."""

import comfy_extras.nodes_custom_sampler as custom
import family_models
import torch
from node_calls import execute

import nodes as host_nodes

# where the image stands: (input of the network, channels, frames); written down by hand from
# the models' papers and the host's nodes, not from the pack's table
PLACES = {
    "SVD": ("x", slice(4, 8), [0, 1, 2, 3, 4]),
    "SV3D u": ("x", slice(4, 8), [0, 1, 2, 3, 4]),
    "SV3D p": ("x", slice(4, 8), [0, 1, 2, 3, 4]),
    "Wan 2.1 I2V": ("x", slice(20, 36), [0]),
    "Wan 2.1 FLF2V": ("x", slice(20, 36), [0, 3]),
    "Wan 2.2 14B I2V": ("x", slice(20, 36), [0]),
    "Wan 2.1 Fun inpaint": ("x", slice(20, 36), [0, 3]),
    "Wan 2.1 Fun control": ("x", slice(32, 48), [0]),
    "Wan 2.2 Fun control": ("x", slice(36, 52), [0]),
    "Wan 2.1 Camera": ("x", slice(16, 32), [0]),
    "Wan 2.2 Camera": ("x", slice(20, 36), [0]),
    "Wan VACE": ("vace_context", slice(0, 16), [0]),
    "Wan 2.2 5B": ("x", slice(0, 48), [0]),
    "Hunyuan I2V concat": ("x", slice(16, 32), [0]),
    "Hunyuan I2V replace": ("x", slice(0, 16), [0]),
    "Hunyuan reference": ("ref_latent", slice(0, 16), [0]),
    "SkyReels I2V": ("x", slice(16, 32), [0]),
    "Hunyuan 1.5 I2V": ("x", slice(32, 64), [0]),
    "LTXV": ("x", slice(0, 128), [0]),
    "LTXV guide": ("x", slice(0, 128), [4]),
    "Cosmos": ("x", slice(0, 16), [0]),
    "Cosmos Predict2": ("x", slice(0, 16), [0]),
    "Wan 2.2 Fun reference": ("reference_latent", slice(0, 16), [0]),
    "Phantom": ("time_dim_concat", slice(0, 16), [0]),
    "Bernini": ("context_latents.1", slice(0, 16), [0]),
    "Wan S2V": ("reference_latent", slice(0, 16), [0]),
    "HuMo 17B": ("reference_latent", slice(20, 36), [0]),
    "HuMo 1.7B": ("reference_latent", slice(0, 16), [0]),
    "SCAIL": ("reference_latent", slice(0, 16), [0]),
    "SCAIL-2": ("reference_latent", slice(0, 16), [0, 1]),
    "SCAIL-2 continued": ("x", slice(0, 16), [0, 1]),
    "Wan Animate": ("x", slice(20, 36), [0]),
    "Wan Animate 2": ("x", slice(20, 36), [0]),
    "WanDancer": ("x", slice(20, 36), [0]),
    "CogVideoX I2V": ("x", slice(16, 32), [0]),
    "CogVideoX inpaint": ("x", slice(32, 48), [0, 1, 2, 3]),
    "Kandinsky 5 I2V": ("time_dim_replace", slice(0, 16), [0]),
}
PLACES = {name: place for name, place in PLACES.items() if name in family_models.TINY}  # those that this host has
NO_IMAGE = {"Mochi"}


def tensors(inputs):
    """Copies of all tensors among the inputs, also in lists and dicts: {"name", "name.0" or "name.key.0": tensor}."""
    found = {}
    for name, value in inputs.items():
        if torch.is_tensor(value):
            found[name] = value.clone()
        elif isinstance(value, (dict, list)) and name != "transformer_options":
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            found |= {f"{name}.{k}": v for k, v in tensors({str(k): v for k, v in parts}).items()}
    return found


def own_sampler(model, positive, negative, latent, steps, seed=1, cfg=2.0, advanced=True):
    """A run of a model that the host's ordinary samplers do not fit, by its own SAMPLER (CogVideoX: VOIDSampler)."""
    import comfy_extras.nodes_void as void

    sampler = void.VOIDSampler.execute().args[0]
    sigmas = execute(custom.BasicScheduler, model, "simple", steps, 1.0).args[0]
    if not advanced:
        return execute(custom.SamplerCustom, model, True, seed, cfg, positive, negative, sampler, sigmas, latent).args[0]["samples"]
    guider = execute(custom.CFGGuider, model, positive, negative, cfg).args[0]
    return execute(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(seed), guider, sampler, sigmas, latent).args[0]["samples"]


class Seen:
    """What the network gets while sampling: a list of {"x": ..., name: ...} and the cond (0) or uncond (1) rows."""

    def __init__(self, model):
        self.calls, self.rows, self.sigmas = [], [], []

        def note(network, args, kwargs):
            self.calls.append(tensors({"x": args[0], **kwargs}))
            self.rows.append(list(kwargs["transformer_options"]["cond_or_uncond"]))
            self.sigmas.append(float(kwargs["transformer_options"]["sigmas"][0]))

        self.hook = model.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)

    def of(self, name, cond, call=0):
        """One input of one conditioning at one call."""
        parts = self.calls[call][name].chunk(len(self.rows[call]))
        return parts[self.rows[call].index(cond)]


def sample(model, positive, negative, latent, steps=2, cfg=2.0):
    seen = Seen(model)
    try:
        if type(model.model).__name__ == "CogVideoX":
            out = own_sampler(model, positive, negative, latent, steps, cfg=cfg)
        else:
            out = host_nodes.KSampler().sample(model, 1, steps, cfg, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]
    finally:
        seen.hook.remove()
    return out, seen


def cut(tensor, channels, frames):
    """The given channels and frames of [T, C, h, w], [B, C, T, h, w] or [B, n, C, T, h, w]."""
    if tensor.ndim == 4:
        return tensor[frames][:, channels]
    return tensor.narrow(-4, channels.start, channels.stop - channels.start)[..., frames, :, :]


def blanked(tensor, channels, frames):
    out = tensor.clone()
    if out.ndim == 4:
        for frame in frames:
            out[frame, channels] = 0
    else:
        for frame in frames:
            out.narrow(-4, channels.start, channels.stop - channels.start).select(-3, frame).zero_()
    return out
