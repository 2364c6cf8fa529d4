"""What the network of a model is given while sampling, and where in it the image stands."""

import torch

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
}
NO_IMAGE = {"Mochi"}


class Seen:
    """What the network gets while sampling: a list of {"x": ..., name: ...} and the cond (0) or uncond (1) rows."""

    def __init__(self, model):
        self.calls, self.rows, self.sigmas = [], [], []

        def note(network, args, kwargs):
            self.calls.append({"x": args[0].clone(), **{k: v.clone() for k, v in kwargs.items() if torch.is_tensor(v)}})
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
