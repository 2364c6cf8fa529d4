"""The landscape in the host's own graph: what its models are loaded with, SVD's conditioning of a picture, a sampled clip, the two cures."""

import torch

from .. import model as host_model
from . import latents, scenes


def sockets():
    """-> (ClipVisionModel, VAE) of this world."""
    return host_model.clip_vision(latents.socket("clip_vision.")), host_model.vae(latents.socket("decoder."), latents.encoder_state_dict)


def conditioned(vision, vae, first, bucket=scenes.OPEN):
    """IMAGE [1, H, W, 3] -> positive, negative, latent, as SVD's conditioning node makes them."""
    from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

    return SVD_img2vid_Conditioning().encode(vision, first, vae, scenes.SIZE, scenes.SIZE, scenes.FRAMES, bucket, scenes.FPS, 0.0)


@torch.inference_mode()
def sampled(model, vae, conditions, seed, steps, scheduler="karras", cfg=1.0):
    """One clip -> IMAGE frames [t, H, W, 3]. conditions: as `conditioned` gives them."""
    import nodes as host

    frames = vae.decode(host.KSampler().sample(model, seed, steps, cfg, "euler", scheduler, *conditions, 1.0)[0]["samples"])
    return frames.reshape(-1, *frames.shape[-3:])  # a video VAE gives a clip of clips


def early(model, sigma, analytic=True):
    """The MODEL with Early Start at a sigma, Analytic-Init or naive."""
    from ...nodes.early_start import CILEarlyStart

    return CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "sigma", float(sigma), analytic).args[0]


def gained(model, gain, above, reference="own first frame", still=None):
    """The MODEL with Motion Gain above a sigma. still: LATENT, for the reference image."""
    from ...nodes.motion_gain import CILMotionGain

    return CILMotionGain.PREPARE_CLASS_CLONE(None).execute(model, gain, "sigma", above, "constant", reference, "nothing", 1.0, still).args[0]
