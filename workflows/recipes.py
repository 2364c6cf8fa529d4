"""The example workflows, as Python. `python run.py do workflows.make` writes the files."""

from .graph import Graph

SVD_XT = {
    "name": "svd_xt.safetensors",
    "url": "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt/resolve/main/svd_xt.safetensors?download=true",
    "directory": "checkpoints",
}


def _demo_source(g, checkpoint, bucket=200):
    """Loader, scene and conditioning of the demo."""
    loader = g.node("CILLoadDemoModel", checkpoint=checkpoint)
    scene = g.node("CILDemoScene", seed=4, motion_bucket_id=bucket)
    g.column()
    cond = g.node(
        "SVD_img2vid_Conditioning", clip_vision=loader["clip_vision"], init_image=scene["first_frame"], vae=loader["vae"],
        width=128, height=128, video_frames=12, motion_bucket_id=bucket, fps=6, augmentation_level=0.0,
    )  # fmt: skip
    return loader, scene, cond


def _ksampler(g, model, cond, title=None, seed=1, steps=25, cfg=1.0):
    return g.node(
        "KSampler", title=title, model=model, positive=cond["positive"], negative=cond["negative"], latent_image=cond["latent"],
        seed=seed, steps=steps, cfg=cfg, sampler_name="euler", scheduler="karras", denoise=1.0,
    )  # fmt: skip


def _compare(g, before, after, captions, fps=6.0):
    """Score two clips, put them side by side, save the video and the strips."""
    g.column()
    scores = [g.node("CILMotionScore", title=f"Motion score: {c}", frames=clip) for clip, c in zip((before, after), captions)]
    g.column()
    both = g.node(
        "CILCompareClips", before=before, after=after, before_caption=captions[0], after_caption=captions[1],
        before_score=scores[0]["score"], after_score=scores[1]["score"],
    )  # fmt: skip
    g.node("SaveImage", title="Comparison picture", images=both["strips"], filename_prefix="cil/compare", size=(420, 400))
    g.column()
    video = g.node("CreateVideo", images=both["clip"], fps=fps)
    g.node("SaveVideo", title="Comparison video", video=video["VIDEO"], filename_prefix="cil/compare", format="mp4", codec="h264", size=(520, 480))


def demo():
    g = Graph("demo", "Early start on the demo model")
    g.note(
        "## More motion, on a model that needs no download\n\n"
        "Press **Run**. The same picture is animated twice by a small demo model that *leaks*: it copies its image and hardly moves. "
        "The second sampler gets the model through **Early Start**.\n\n"
        "Try: `start` in Early Start (lower = more motion, too low breaks the picture), the seeds, the checkpoint *healthy* (it has nothing to cure).\n\n"
        "It is a demo: the figures hold for this model only.",
        (380, 300),
    )
    loader, _, cond = _demo_source(g, "leaking")
    early = g.node("CILEarlyStart", model=loader["model"])
    g.column()
    plain = _ksampler(g, loader["model"], cond, "KSampler: plain")
    cured = _ksampler(g, early["model"], cond, "KSampler: early start")
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=loader["vae"])["IMAGE"] for s in (plain, cured)]
    _compare(g, *clips, ("plain", "early start"))
    return g


def _svd_source(g):
    loader = g.node("ImageOnlyCheckpointLoader", ckpt_name=SVD_XT["name"], models=[SVD_XT], size=(370, 100))
    image = g.node("LoadImage", image="example.png", size=(370, 380))
    g.column()
    cond = g.node(
        "SVD_img2vid_Conditioning", clip_vision=loader["CLIP_VISION"], init_image=image["IMAGE"], vae=loader["VAE"],
        width=1024, height=576, video_frames=25, motion_bucket_id=127, fps=6, augmentation_level=0.0,
    )  # fmt: skip
    guided = g.node("VideoLinearCFGGuidance", model=loader["MODEL"], min_cfg=1.0)
    return loader, cond, guided


def _save(g, samples, loader, prefix, fps=6.0):
    g.column()
    decoded = g.node("VAEDecode", samples=samples, vae=loader["VAE"])
    video = g.node("CreateVideo", images=decoded["IMAGE"], fps=fps)
    g.column()
    g.node("SaveVideo", video=video["VIDEO"], filename_prefix=f"cil/{prefix}", format="mp4", codec="h264", size=(520, 420))


def svd_plain():
    g = Graph("svd_plain", "SVD as in the host's template")
    g.note("## SVD, plain\n\nThe host's own graph, to compare with. Put `svd_xt.safetensors` into `models/checkpoints` and choose a picture.", (370, 130))
    loader, cond, guided = _svd_source(g)
    g.column()
    sampled = _ksampler(g, guided["MODEL"], cond, steps=20, cfg=2.5)
    _save(g, sampled["LATENT"], loader, "svd_plain")
    return g


def svd_early_start():
    g = Graph("svd_early_start", "SVD with the early start, one node")
    g.note(
        "## SVD + Early Start\n\nThe host's graph with one node more. The preset starts at sigma 100, the paper's setting, with Analytic-Init.\n\n"
        "Too still? Set `start_as` to *sigma* and try 50, 20. Broken picture? Go up again.",
        (370, 190),
    )
    loader, cond, guided = _svd_source(g)
    early = g.node("CILEarlyStart", model=guided["MODEL"])
    g.column()
    sampled = _ksampler(g, early["model"], cond, steps=20, cfg=2.5)
    _save(g, sampled["LATENT"], loader, "svd_early_start")
    return g


def svd_analytic_init():
    g = Graph("svd_analytic_init", "SVD with truncated sigmas and Analytic-Init, explicit nodes")
    g.note(
        "## SVD, explicit nodes\n\n**Truncated Sigma Schedule** lays all 25 steps below sigma 100. **Analytic Init Latent** makes the mean and the noise for that start. "
        "Both feed the host's SamplerCustomAdvanced.",
        (370, 190),
    )
    loader, cond, guided = _svd_source(g)
    g.column()
    sigmas = g.node("TruncatedSigmaSchedule", model=guided["MODEL"], scheduler="karras", steps=25)
    moments = g.node("CILLoadMoments", moments_name="sd.safetensors")
    start = g.node("AnalyticInitLatent", model=guided["MODEL"], latent=cond["latent"], sigmas=sigmas["sigmas"], moments=moments["moments"], seed=1)
    g.column()
    guider = g.node("CFGGuider", model=guided["MODEL"], positive=cond["positive"], negative=cond["negative"], cfg=2.5)
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    sampled = g.node(
        "SamplerCustomAdvanced", noise=start["noise"], guider=guider["GUIDER"], sampler=sampler["SAMPLER"], sigmas=sigmas["sigmas"], latent_image=start["latent"]
    )
    _save(g, sampled["output"], loader, "svd_analytic_init")
    return g


def demo_explicit():
    g = Graph("demo_explicit", "The demo with explicit nodes")
    g.note(
        "## The demo, explicit nodes\n\nWhat Early Start does in one node, step by step: a schedule that starts lower, and mean and noise for that start.",
        (380, 150),
    )
    loader, _, cond = _demo_source(g, "leaking")
    g.column()
    sigmas = g.node("TruncatedSigmaSchedule", model=loader["model"], scheduler="karras", steps=25)
    moments = g.node("CILLoadMoments", moments_name="demo.safetensors")
    start = g.node("AnalyticInitLatent", model=loader["model"], latent=cond["latent"], sigmas=sigmas["sigmas"], moments=moments["moments"], seed=1)
    g.column()
    guider = g.node("CFGGuider", model=loader["model"], positive=cond["positive"], negative=cond["negative"], cfg=1.0)
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    sampled = g.node(
        "SamplerCustomAdvanced", noise=start["noise"], guider=guider["GUIDER"], sampler=sampler["SAMPLER"], sigmas=sigmas["sigmas"], latent_image=start["latent"]
    )
    plain = _ksampler(g, loader["model"], cond, "KSampler: plain")
    g.column()
    clips = [g.node("VAEDecode", samples=s, vae=loader["vae"])["IMAGE"] for s in (plain["LATENT"], sampled["output"])]
    _compare(g, *clips, ("plain", "Analytic-Init"))
    return g


def svd_train():
    g = Graph("svd_train", "Fine-tune SVD with TimeNoise")
    g.note(
        "## A LoRA against leakage, from your own clips\n\nGive **Prepare Clips** a folder of videos; it is prepared once. **TimeNoise Train** makes the LoRA and the sampler tries it on your picture.\n\n"
        "Both can be stopped and go on there. Train *naive* with the same seed to compare. The saved LoRA lies in output/loras: move it to models/loras.",
        (370, 250),
    )
    loader, cond, guided = _svd_source(g)
    g.column()
    clips = g.node("CILPrepareClips", model=loader["MODEL"], vae=loader["VAE"], clip_vision=loader["CLIP_VISION"], folder="", name="my_clips", flow="none", size=(370, 380))
    g.column()
    trained = g.node("CILTimeNoiseTrain", model=guided["MODEL"], clips=clips["clips"], beta_m=15.0, P_mean=0.7, P_std=1.6)
    g.node("SaveLoRA", lora=trained["lora"], prefix="loras/timenoise", steps=1000)
    g.column()
    sampled = _ksampler(g, trained["model"], cond, steps=20, cfg=2.5)
    _save(g, sampled["LATENT"], loader, "svd_train")
    return g


WORKFLOWS = (demo, demo_explicit, svd_plain, svd_early_start, svd_analytic_init, svd_train)
