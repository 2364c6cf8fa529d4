"""Blueprints: a whole image-to-video graph as one node of the page's list, on hosts from 0.28 on. `workflows.make` writes subgraphs/."""

from .graph import Given, Graph
from .recipes import PROMPT, SVD_XT, WAN_HIGH, WAN_LOW, WAN_TEXT, WAN_VAE

CATEGORY = "Video generation and editing/Image to video"
NEGATIVE = "static, still picture, overexposed, blurred details, worst quality"
IMAGE = Given("start_image", "start image")
LTXV = {
    "name": "ltx-video-2b-v0.9.5.safetensors",
    "url": "https://huggingface.co/Lightricks/LTX-Video/resolve/main/ltx-video-2b-v0.9.5.safetensors",
    "directory": "checkpoints",
}
T5 = {
    "name": "t5xxl_fp16.safetensors",
    "url": "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp16.safetensors",
    "directory": "text_encoders",
}


def size(width, height, frames, name="length"):
    """The three numbers of a clip, as a node's inputs."""
    return {"width": Given("width", value=width), "height": Given("height", value=height), name: Given("length", value=frames)}


def texts(g, clip):
    """Positive and negative conditioning of a prompt that is given."""
    said = (("What happens", Given("prompt", value=PROMPT)), ("Negative", NEGATIVE))
    return [g.node("CLIPTextEncode", title=title, clip=clip, text=text, size=(400, 150))["CONDITIONING"] for title, text in said]


def video(g, samples, vae, fps):
    """Decoded, at a number of frames a second -> VIDEO."""
    decoded = g.node("VAEDecode", samples=samples, vae=vae)
    return g.node("CreateVideo", images=decoded["IMAGE"], fps=fps)["VIDEO"]


def svd():
    g = Graph("svd", "More motion: SVD")
    loader = g.node("ImageOnlyCheckpointLoader", ckpt_name=Given("checkpoint", value=SVD_XT["name"]), models=[SVD_XT], size=(370, 100))
    g.column()
    cond = g.node(
        "SVD_img2vid_Conditioning", clip_vision=loader["CLIP_VISION"], init_image=IMAGE, vae=loader["VAE"], motion_bucket_id=127, fps=6,
        augmentation_level=0.0, **size(1024, 576, 25, "video_frames"),
    )  # fmt: skip
    guided = g.node("VideoLinearCFGGuidance", model=loader["MODEL"], min_cfg=1.0)
    early = g.node("CILEarlyStart", model=guided["MODEL"], start_as="sigma", start=Given("start", "start (sigma): lower moves more", 100.0))
    g.column()
    sampled = g.node(
        "KSampler", model=early["model"], positive=cond["positive"], negative=cond["negative"], latent_image=cond["latent"], seed=Given("seed", value=1),
        steps=20, cfg=2.5, sampler_name="euler", scheduler="karras", denoise=1.0,
    )  # fmt: skip
    g.column()
    return g, video(g, sampled["LATENT"], loader["VAE"], 6.0), "SVD with Early Start at the paper's sigma 100 and Analytic-Init: a picture in, a video out."


def wan22():
    g = Graph("wan22", "More motion: Wan 2.2, two stages")
    made = [
        g.node("UNETLoader", title=title, unet_name=Given(name, value=model["name"]), models=[model], size=(400, 100))["MODEL"]
        for title, name, model in (("High noise", "high_noise_model", WAN_HIGH), ("Low noise", "low_noise_model", WAN_LOW))
    ]
    clip = g.node("CLIPLoader", clip_name=Given("text_encoder", value=WAN_TEXT["name"]), type="wan", models=[WAN_TEXT], size=(400, 130))
    vae = g.node("VAELoader", vae_name=Given("vae", value=WAN_VAE["name"]), models=[WAN_VAE], size=(400, 80))
    g.column()
    positive, negative = texts(g, clip["CLIP"])
    cond = g.node("WanImageToVideo", positive=positive, negative=negative, vae=vae["VAE"], start_image=IMAGE, **size(640, 640, 81))
    g.column()
    high, low = (g.node("ModelSamplingSD3", title=f"Shift: {name}", model=model, shift=8.0)["MODEL"] for name, model in zip(("high noise", "low noise"), made))
    gain = g.node("CILMotionGain", model=high, gain=Given("gain", "motion (gain): 1 is the plain model", 1.4))
    g.column()
    stages = {
        "positive": cond["positive"], "negative": cond["negative"], "steps": 20, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple",
        "noise_seed": Given("seed", value=1),
    }  # fmt: skip
    first = g.node(
        "KSamplerAdvanced", title="First stage: high noise", model=gain["model"], latent_image=cond["latent"], add_noise="enable", start_at_step=0,
        end_at_step=10, return_with_leftover_noise="enable", **stages,
    )  # fmt: skip
    second = g.node(
        "KSamplerAdvanced", title="Second stage: low noise", model=low, latent_image=first["LATENT"], add_noise="disable", start_at_step=10,
        end_at_step=10000, return_with_leftover_noise="disable", **stages,
    )  # fmt: skip
    g.column()
    return (
        g,
        video(g, second["LATENT"], vae["VAE"], 16.0),
        "Wan 2.2 14B with Motion Gain in its first stage: a picture and a prompt in, a video out. Experimental.",
    )


def ltxv():
    g = Graph("ltxv", "More motion: LTX-Video")
    loader = g.node("CheckpointLoaderSimple", ckpt_name=Given("checkpoint", value=LTXV["name"]), models=[LTXV], size=(400, 100))
    clip = g.node("CLIPLoader", clip_name=Given("text_encoder", value=T5["name"]), type="ltxv", models=[T5], size=(400, 130))
    g.column()
    positive, negative = texts(g, clip["CLIP"])
    made = g.node("LTXVImgToVideo", positive=positive, negative=negative, vae=loader["VAE"], image=IMAGE, batch_size=1, strength=1.0, **size(768, 512, 97))
    told = g.node("LTXVConditioning", positive=made["positive"], negative=made["negative"], frame_rate=25.0)
    g.column()
    gain = g.node("CILMotionGain", model=loader["MODEL"], gain=Given("gain", "motion (gain): 1 is the plain model", 1.4))
    sigmas = g.node("LTXVScheduler", steps=30, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=made["latent"])
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    g.column()
    sampled = g.node(
        "SamplerCustom", model=gain["model"], add_noise=True, noise_seed=Given("seed", value=1), cfg=3.0, positive=told["positive"],
        negative=told["negative"], sampler=sampler["SAMPLER"], sigmas=sigmas["SIGMAS"], latent_image=made["latent"],
    )  # fmt: skip
    g.column()
    return g, video(g, sampled["output"], loader["VAE"], 25.0), "LTX-Video with Motion Gain: a picture and a prompt in, a video out. Experimental."


BLUEPRINTS = (svd, wan22, ltxv)
