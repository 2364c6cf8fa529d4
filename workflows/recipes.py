"""The example workflows, as Python. `python run.py do workflows.make` writes the files."""

from .graph import Graph

SVD_XT = {
    "name": "svd_xt.safetensors",
    "url": "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt/resolve/main/svd_xt.safetensors?download=true",
    "directory": "checkpoints",
}

DYNAMICRAFTER_512 = {
    "name": "dynamicrafter_512.ckpt",
    "url": "https://huggingface.co/Doubiiu/DynamiCrafter_512/resolve/main/model.ckpt",
    "directory": "checkpoints",
}
VIDEOCRAFTER1 = {
    "name": "videocrafter1_i2v_512.ckpt",
    "url": "https://huggingface.co/VideoCrafter/Image2Video-512/resolve/main/model.ckpt",
    "directory": "checkpoints",
}


def _wan(folder, name, repository="Wan_2.2_ComfyUI_Repackaged"):
    return {"name": name, "url": f"https://huggingface.co/Comfy-Org/{repository}/resolve/main/split_files/{folder}/{name}", "directory": folder}


WAN_HIGH, WAN_LOW = (_wan("diffusion_models", f"wan2.2_i2v_{noise}_noise_14B_fp8_scaled.safetensors") for noise in ("high", "low"))
WAN_LORA_HIGH, WAN_LORA_LOW = (_wan("loras", f"wan2.2_i2v_lightx2v_4steps_lora_v1_{noise}_noise.safetensors") for noise in ("high", "low"))
WAN21 = _wan("diffusion_models", "wan2.1_i2v_480p_14B_fp16.safetensors", "Wan_2.1_ComfyUI_repackaged")
WAN_VISION = _wan("clip_vision", "clip_vision_h.safetensors", "Wan_2.1_ComfyUI_repackaged")
WAN_TEXT = _wan("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "Wan_2.1_ComfyUI_repackaged")
WAN_VAE = _wan("vae", "wan_2.1_vae.safetensors")


# scene and sampler's seed of a graph; which and why: demo/landscape/picture.py
DEMO, LEAK, WAN = {"scene": 14, "seed": 0}, {"scene": 6, "seed": 1}, {"scene": 15, "seed": 1}


def _demo_source(g, checkpoint, bucket=60, seed=4, **scene):
    """Loader, scene and conditioning of the demo, asked for a slow motion: of that the model makes least."""
    loader = g.node("CILLoadDemoModel", checkpoint=checkpoint)
    scene = g.node("CILDemoScene", seed=seed, motion_bucket_id=bucket, **scene)
    g.column()
    return loader, scene, _demo_conditioning(g, loader, scene, bucket)


def _demo_conditioning(g, loader, scene, bucket):
    return g.node(
        "SVD_img2vid_Conditioning", clip_vision=loader["clip_vision"], init_image=scene["first_frame"], vae=loader["vae"],
        width=128, height=128, video_frames=12, motion_bucket_id=bucket, fps=6, augmentation_level=0.0,
    )  # fmt: skip


def _ksampler(g, model, cond, title=None, seed=1, steps=25, cfg=1.0, sampler="euler", scheduler="karras"):
    return g.node(
        "KSampler", title=title, model=model, positive=cond["positive"], negative=cond["negative"], latent_image=cond["latent"],
        seed=seed, steps=steps, cfg=cfg, sampler_name=sampler, scheduler=scheduler, denoise=1.0,
    )  # fmt: skip


def _compare(g, before, after, captions, fps=6.0):
    """Score two clips, put them side by side, save the video and the strips."""
    g.column()
    scores = [g.node("CILMotionScore", title=f"Motion score: {c}", frames=clip) for clip, c in zip((before, after), captions)]
    g.column()
    both = g.node(
        "CILCompareClips", before=before, after=after, before_caption=captions[0], after_caption=captions[1],
        before_score=scores[0]["consistent"], after_score=scores[1]["consistent"],
    )  # fmt: skip
    g.node("SaveImage", title="Comparison picture", images=both["strips"], filename_prefix="cil/compare", size=(420, 400))
    g.column()
    video = g.node("CreateVideo", images=both["clip"], fps=fps)
    g.node("SaveVideo", title="Comparison video", video=video["VIDEO"], filename_prefix="cil/compare", format="mp4", codec="h264", size=(520, 480))


def demo():
    g = Graph("demo", "1 Start here: a small model that leaks, and two cures")
    g.note(
        "## Why image-to-video clips stand still\n\n"
        "Press **Run**; nothing is downloaded. *svd_leaking* is Stable Video Diffusion's own architecture at a small size, trained in the ordinary way for a short while. It copies its picture more than it should, so the clip stands still. "
        "The same seed then runs through **Early Start**, which leaves out the levels where the picture says all, and through **Motion Gain**, which gives back what is missing.\n\n"
        "Six of sixteen scenes stand still like this one. Over 64 clips the median way is 0.37 of the data's plain, 0.59 with the early start and 1.00 with the gain (demo/landscape/README.md). The ring is where the balloon began.\n\n"
        "Try: other scenes and seeds; `gain`; `start`; **Motion Bucket**; the checkpoint *svd_healthy*, the same training gone on with.\n\n"
        "With your own model the nodes go in the same place: between loader and sampler.",
        (380, 400),
    )
    loader, scene, cond = _demo_source(g, "svd_leaking", 127, DEMO["scene"], frames=12, world="landscape")
    _two_cures(g, loader, scene, cond, start=15.0, gain=2.0, end=5.0, seed=DEMO["seed"], cfg=2.0)
    return g


def demo_simulated_leak():
    g = Graph("demo_simulated_leak", "What a leak is, simulated, and two cures")
    g.note(
        "## What a leak is\n\n"
        "Press **Run**; nothing is downloaded. **Simulated Leak** is the ideal model of one small scene, of whose answer 70 % is the still picture at the high noise levels. That is what a leak is, and the clip stands still. "
        "The same seed then runs through **Early Start**, which leaves those levels out, and through **Motion Gain**, which gives back what is missing.\n\n"
        "Try: other seeds; `leak` 0 (the ideal model) to 0.95; `start` and `gain`.\n\n"
        "It is a simulation: it shows what the nodes do, not how much your model leaks. For that there is *Leakage Probe*.",
        (380, 340),
    )
    leak = g.node("CILSimulatedLeak", seed=LEAK["scene"])
    g.column()
    cond = _demo_conditioning(g, leak, leak, 127)
    _two_cures(g, leak, leak, cond, start=3.0, gain=3.33, end=3.0, seed=LEAK["seed"])
    return g


def _beside_the_truth(g, vae, scene, made):
    """Three sampled clips of a landscape, {caption: KSampler}, beside a true one."""
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=vae)["IMAGE"] for s in made.values()]
    g.column()
    names = list(made)
    all_ = g.node(
        "CILDemoCompare", scene=scene, before=clips[0], after=clips[1], third=clips[2],
        before_caption=names[0], after_caption=names[1], third_caption=names[2],
    )  # fmt: skip
    g.node("SaveImage", title="Comparison picture", images=all_["strips"], filename_prefix="cil/compare", size=(560, 460))
    g.column()
    video = g.node("CreateVideo", images=all_["clip"], fps=6.0)
    g.node("SaveVideo", title="Comparison video", video=video["VIDEO"], filename_prefix="cil/compare", format="mp4", codec="h264", size=(760, 420))


def _two_cures(g, loader, scene, cond, start, gain, end, seed, cfg=1.0, scheduler="karras"):
    """One seed plain, through Early Start and through Motion Gain, beside a true clip. start, end: in sigma."""
    early = g.node("CILEarlyStart", model=loader["model"], start_as="sigma", start=start)
    gained = g.node("CILMotionGain", model=loader["model"], gain=gain, end_as="sigma", end=end)
    g.column()
    ways = {"plain": loader["model"], "Early Start": early["model"], "Motion Gain": gained["model"]}
    made = [_ksampler(g, model, cond, f"KSampler: {name}", seed=seed, steps=20, cfg=cfg, scheduler=scheduler) for name, model in ways.items()]
    _beside_the_truth(g, loader["vae"], scene["scene"], dict(zip(ways, made)))


def demo_wan():
    g = Graph("demo_wan", "Wan's kind, trained: it moves too little")
    g.note(
        "## A small model of Wan's kind, and two cures\n\n"
        "Press **Run**; nothing is downloaded. *wan_leaking* is Wan's own architecture at a small size, trained in the ordinary way for a short while. Nobody made it so, but it moves half as far as its data. "
        "The same seed runs plain, through **Early Start** and through **Motion Gain**.\n\n"
        "Of sixteen scenes this is the one where the gain adds most; over 64 clips it takes the median way from 0.51 to 0.84 of the data's, and the still clips from 39 % to 20 % (demo/landscape/README.md).\n\n"
        "Try: other scenes and seeds; `gain`; `start` (of Wan a fraction of its sigma, 1 is the top); the checkpoint *wan_healthy*, the same training gone on with.\n\n"
        "With the real Wan the nodes go in the same place: between loader and sampler.",
        (380, 400),
    )
    loader = g.node("CILLoadDemoModel", checkpoint="wan_leaking")
    scene = g.node("CILDemoScene", seed=WAN["scene"], motion_bucket_id=127, frames=13, world="landscape")
    g.column()
    cond = g.node(
        "WanImageToVideo", positive=loader["text"], negative=loader["text"], vae=loader["vae"], start_image=scene["first_frame"],
        width=128, height=128, length=13, batch_size=1,
    )  # fmt: skip
    _two_cures(g, loader, scene, cond, start=0.9, gain=1.4, end=0.83, seed=WAN["seed"], scheduler="simple")
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


def _save(g, samples, vae, prefix, fps=6.0):
    g.column()
    decoded = g.node("VAEDecode", samples=samples, vae=vae)
    video = g.node("CreateVideo", images=decoded["IMAGE"], fps=fps)
    g.column()
    g.node("SaveVideo", video=video["VIDEO"], filename_prefix=f"cil/{prefix}", format="mp4", codec="h264", size=(520, 420))


def _svd(name, title, note, size, node=None):
    """The host's own graph of SVD, with one node of the pack on its MODEL; None = plain."""
    g = Graph(name, title)
    g.note(note, size)
    loader, cond, guided = _svd_source(g)
    model = guided["MODEL"] if node is None else g.node(node, model=guided["MODEL"])["model"]
    g.column()
    sampled = _ksampler(g, model, cond, steps=20, cfg=2.5)
    _save(g, sampled["LATENT"], loader["VAE"], name)
    return g


def svd_plain():
    note = "## SVD, plain\n\nThe host's own graph, to compare with. Put `svd_xt.safetensors` into `models/checkpoints` and choose a picture."
    return _svd("svd_plain", "SVD as in the host's template", note, (370, 130))


def svd_early_start():
    note = (
        "## SVD + Early Start\n\nThe host's graph with one node more. The preset starts at sigma 100, the paper's setting, with Analytic-Init.\n\n"
        "Too still? Set `start_as` to *sigma* and try 50, 20. Broken picture? Go up again."
    )
    return _svd("svd_early_start", "SVD with the early start, one node", note, (370, 190), "CILEarlyStart")


def svd_motion_gain():
    note = (
        "## SVD + Motion Gain\n\nThe host's graph with one node more: at high noise levels what each prediction moves is multiplied by 1.4.\n\n"
        "Too still? 1.6. Too wild, or it smears? 1.2, or a lower `end`. Calmer than plain: below 1. Nobody has measured it on SVD: *experimental*."
    )
    return _svd("svd_motion_gain", "SVD with motion gain, one node", note, (370, 220), "CILMotionGain")


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
        "SamplerCustomAdvanced",
        noise=start["noise"],
        guider=guider["GUIDER"],
        sampler=sampler["SAMPLER"],
        sigmas=sigmas["sigmas"],
        latent_image=start["latent"],
    )
    _save(g, sampled["output"], loader["VAE"], "svd_analytic_init")
    return g


def demo_explicit():
    g = Graph("demo_explicit", "The demo with explicit nodes")
    g.note(
        "## The demo, explicit nodes\n\nWhat Early Start does in one node, step by step: a schedule that starts lower, and mean and noise for that start.",
        (380, 150),
    )
    loader, _, cond = _demo_source(g, "leaking")
    g.column()
    sigmas = g.node("TruncatedSigmaSchedule", model=loader["model"], scheduler="karras", steps=25, start_as="sigma", start=8.0)
    moments = g.node("CILLoadMoments", moments_name="demo.safetensors")
    start = g.node("AnalyticInitLatent", model=loader["model"], latent=cond["latent"], sigmas=sigmas["sigmas"], moments=moments["moments"], seed=1)
    g.column()
    guider = g.node("CFGGuider", model=loader["model"], positive=cond["positive"], negative=cond["negative"], cfg=1.0)
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    sampled = g.node(
        "SamplerCustomAdvanced",
        noise=start["noise"],
        guider=guider["GUIDER"],
        sampler=sampler["SAMPLER"],
        sigmas=sigmas["sigmas"],
        latent_image=start["latent"],
    )
    plain = _ksampler(g, loader["model"], cond, "KSampler: plain")
    g.column()
    clips = [g.node("VAEDecode", samples=s, vae=loader["vae"])["IMAGE"] for s in (plain["LATENT"], sampled["output"])]
    _compare(g, *clips, ("plain", "Analytic-Init"))
    return g


def demo_motion_gain():
    g = Graph("demo_motion_gain", "Motion gain on the demo model")
    g.note(
        "## One dial for motion, on a model that needs no download\n\n"
        "Press **Run**. The same picture is animated twice by a small demo model. The second sampler gets the model through **Motion Gain**.\n\n"
        "Try: `gain` (1 = plain, below 1 calms, too high smears), `end` (higher acts longer), the seeds, the checkpoint *healthy*.\n\n"
        "It is a demo: the figures hold for this model only. The figures under the clips count motion that flicker cannot fake.",
        (380, 270),
    )
    loader, _, cond = _demo_source(g, "leaking")
    gained = g.node("CILMotionGain", model=loader["model"])
    g.column()
    plain = _ksampler(g, loader["model"], cond, "KSampler: plain")
    cured = _ksampler(g, gained["model"], cond, "KSampler: motion gain")
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=loader["vae"])["IMAGE"] for s in (plain, cured)]
    _compare(g, *clips, ("plain", "motion gain"))
    return g


def demo_motion_bucket():
    g = Graph("demo_motion_bucket", "Another motion bucket, on the demo model")
    g.note(
        "## The model's own amount of motion, set on the MODEL\n\n"
        "Press **Run**; nothing is downloaded. Stable Video Diffusion is told an amount of motion, the motion bucket. The conditioning says 60 here; the second sampler gets the model through **Motion Bucket**, which tells it 200.\n\n"
        "It is what Motion Dial turns first for such models. A model that leaks makes less of slow motions than it is told: then *Motion Gain*.\n\n"
        "It is a demo: the figures hold for this model only.",
        (380, 270),
    )
    loader, _, cond = _demo_source(g, "leaking")
    told = g.node("CILMotionBucket", model=loader["model"], motion_bucket_id=200)
    g.column()
    plain = _ksampler(g, loader["model"], cond, "KSampler: bucket 60")
    other = _ksampler(g, told["model"], cond, "KSampler: bucket 200")
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=loader["vae"])["IMAGE"] for s in (plain, other)]
    _compare(g, *clips, ("bucket 60", "bucket 200"))
    return g


def estimate_moments():
    g = Graph("estimate_moments", "Your own moments from a folder of videos")
    g.note(
        "## Moments of your own clips\n\n"
        "1. Write the path of a folder of videos into **Estimate Moments** (a few hundred clips are enough).\n"
        "2. Press **Run**. The picture shows the mean and the spread of each channel: look for watermarks and black borders.\n"
        "3. **Save Moments** puts the file where *Load Moments* lists it.\n\n"
        "Stopped? Run again: it goes on where it was.\n\n"
        "Model: `svd_xt.safetensors` in `models/checkpoints`; any other model with its VAE will do.",
        (380, 330),
    )
    loader = g.node("ImageOnlyCheckpointLoader", ckpt_name=SVD_XT["name"], models=[SVD_XT], size=(370, 100))
    g.column()
    estimate = g.node("CILEstimateMoments", model=loader["MODEL"], vae=loader["VAE"], folder="", size=(400, 760))
    g.column()
    g.node("CILSaveMoments", moments=estimate["moments"], name="my_moments")
    g.node("SaveImage", title="Mean and standard deviation", images=estimate["picture"], filename_prefix="cil/moments", size=(420, 400))
    return g


def demo_probe():
    g = Graph("demo_probe", "The probe decides where the demo starts")
    g.note(
        "## Where should this model start?\n\n"
        "Press **Run**; nothing is downloaded. **Leakage Probe** shows the model noisy versions of several true clips, each with its own first frame, and looks at which noise levels it predicts too little motion. "
        "Its sentence stands above the plot, the blue line is where it says, and that start goes straight into **Early Start**.\n\n"
        "The model is a *Simulated Leak*: it leaks by `leak` above sigma `above`, so you can see whether the probe finds it. Try `leak` 0, or fewer clips.\n\n"
        "With your own model, clips come from *Prepare Clips*: 8 at least, and not picked for their motion.",
        (380, 330),
    )
    leak = g.node("CILSimulatedLeak", seed=LEAK["scene"])
    g.column()
    clips = g.node("CILDemoClips", clip_vision=leak["clip_vision"], scene=leak["scene"], count=16)
    cond = g.node(
        "SVD_img2vid_Conditioning", clip_vision=leak["clip_vision"], init_image=leak["first_frame"], vae=leak["vae"],
        width=128, height=128, video_frames=12, motion_bucket_id=127, fps=6, augmentation_level=0.0,
    )  # fmt: skip
    g.column()
    probe = g.node("LeakageProbe", model=leak["model"], vae=leak["vae"], clips=clips["clips"], draws=2, size=(500, 740))
    g.node("SaveImage", title="Probe: plot", images=probe["plot"], filename_prefix="cil/probe_plot", size=(500, 380))
    g.column()
    early = g.node("CILEarlyStart", model=leak["model"], start_as="sigma", start=probe["start_sigma"])
    plain = _ksampler(g, leak["model"], cond, "KSampler: plain", seed=LEAK["seed"], steps=20)
    cured = _ksampler(g, early["model"], cond, "KSampler: suggested start", seed=LEAK["seed"], steps=20)
    g.column()
    before, after = (g.node("VAEDecode", samples=s["LATENT"], vae=leak["vae"])["IMAGE"] for s in (plain, cured))
    both = g.node("CILDemoCompare", scene=leak["scene"], before=before, after=after, before_caption="plain", after_caption="from the suggested start")
    g.node("SaveImage", title="Probe: predictions", images=probe["sheet"], filename_prefix="cil/probe_sheet", size=(420, 340))
    g.column()
    g.node("SaveImage", title="Comparison picture", images=both["strips"], filename_prefix="cil/compare", size=(480, 380))
    video = g.node("CreateVideo", images=both["clip"], fps=6.0)
    g.node("SaveVideo", title="Comparison video", video=video["VIDEO"], filename_prefix="cil/compare", format="mp4", codec="h264", size=(480, 380))
    return g


def svd_probe():
    g = Graph("svd_probe", "SVD with the probe deciding the start")
    g.note(
        "## The probe decides the start\n\n"
        "1. Write the path of a folder of videos into **Prepare Clips**: 16 or more, of the kind that the model was made for, not picked for their motion. They are prepared once.\n"
        "2. **Leakage Probe** looks at which noise levels the model predicts too little motion, says so in a sentence, and suggests a start; where nothing is proved the ordinary one stays.\n"
        "3. Your picture is animated from there.\n\n"
        "Models: `svd_xt.safetensors` in `models/checkpoints`.",
        (370, 330),
    )
    loader, cond, guided = _svd_source(g)
    g.column()
    clips = g.node(
        "CILPrepareClips", model=loader["MODEL"], vae=loader["VAE"], clip_vision=loader["CLIP_VISION"], folder="", name="probe_clips", frames=25, fps=6.0, width=1024, height=576, flow="none", size=(370, 420),
    )  # fmt: skip
    probe = g.node("LeakageProbe", model=loader["MODEL"], vae=loader["VAE"], clips=clips["clips"], draws=2, size=(460, 820))
    g.column()
    early = g.node("CILEarlyStart", model=guided["MODEL"], start_as="sigma", start=probe["start_sigma"])
    sampled = _ksampler(g, early["model"], cond, steps=20, cfg=2.5)
    g.node("SaveImage", title="Probe: plot", images=probe["plot"], filename_prefix="cil/probe_plot", size=(420, 320))
    _save(g, sampled["LATENT"], loader["VAE"], "svd_probe")
    return g


def demo_dial():
    g = Graph("demo_dial", "The motion dial on the demo model")
    g.note(
        "## Ask for motion, get it\n\nPress **Run**. **Motion Dial** samples short previews of this very graph, measures how much they move, and looks for the least setting that gives what `want` asks for: here of the motion bucket, since this model is told one (SVD's kind), of *Motion Gain* for all others. Its tiles run while it works; stop keeps the best so far.\n\n"
        "The sampler below it takes the model as the dial hands it on. Run again: nothing is measured twice. Try *calm*, *as much as stays faithful*, or an `amount`.",
        (380, 310),
    )
    loader, scene, cond = _demo_source(g, "leaking")
    dial = g.node(
        "CILMotionDial", model=loader["model"], positive=cond["positive"], negative=cond["negative"], latent=cond["latent"], vae=loader["vae"],
        image=scene["first_frame"], want="times the plain clip's motion", amount=1.5, seed=1, steps=25, cfg=1.0, size=(460, 1100),
    )  # fmt: skip
    g.column()
    plain = _ksampler(g, loader["model"], cond, "KSampler: plain")
    cured = _ksampler(g, dial["model"], cond, "KSampler: by the dial")
    g.node("SaveImage", title="Dial: plot", images=dial["plot"], filename_prefix="cil/dial_plot", size=(420, 400))
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=loader["vae"])["IMAGE"] for s in (plain, cured)]
    _compare(g, *clips, ("plain", "by the dial"))
    return g


def demo_start_sweep():
    g = Graph("demo_start_sweep", "Many starts side by side on the demo model")
    g.note(
        "## Which start? Look.\n\n"
        "**Start Sweep** animates one picture from several starts with the same seeds and shows them side by side, with motion score and likeness to the picture under each. "
        "Write your own starts: numbers with commas, or `from:to:count`.",
        (380, 200),
    )
    loader, scene, cond = _demo_source(g, "leaking")
    g.column()
    guider = g.node("CFGGuider", model=loader["model"], positive=cond["positive"], negative=cond["negative"], cfg=1.0)
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    g.column()
    sweep = g.node(
        "CILStartSweep", guider=guider["GUIDER"], sampler=sampler["SAMPLER"], latent=cond["latent"], vae=loader["vae"], image=scene["first_frame"],
        starts="700, 50, 20, 10, 5", start_as="sigma", seeds=2, size=(420, 900),
    )  # fmt: skip
    g.column()
    g.node("SaveImage", title="Sweep: sheet", images=sweep["sheet"], filename_prefix="cil/sweep", size=(520, 520))
    g.node("SaveImage", title="Sweep: plot", images=sweep["plot"], filename_prefix="cil/sweep_plot", size=(520, 400))
    return g


def _passed_on(node):
    """The conditionings that a node passes on."""
    return {"positive": node["positive"], "negative": node["negative"]}


def demo_condition():
    g = Graph("demo_condition", "The demo with a changed condition")
    g.note(
        "## What the model is told of its image\n\n"
        "Two other ways against a model that copies its image: **TimeNoise Condition** noises that image, **Low-Pass Condition** takes its detail away at the first steps. "
        "Both act inside the model call, on the image alone, and both work together with Early Start.\n\n"
        "Neither was measured on this demo: compare before you believe.",
        (380, 270),
    )
    loader, _, cond = _demo_source(g, "leaking")
    g.column()
    source = {"model": loader["model"], "positive": cond["positive"], "negative": cond["negative"]}
    noised = g.node("TimeNoiseCondition", **source, mode="time-dependent (median)", preset="gentle")
    filtered = g.node("CILLowPassCondition", **source, strength=4.0, end_at=0.7)
    g.column()
    sampled = [
        _ksampler(g, node["model"], {**_passed_on(node), "latent": cond["latent"]}, title)
        for node, title in ((noised, "KSampler: TimeNoise"), (filtered, "KSampler: low-pass"))
    ]
    g.column()
    clips = [g.node("VAEDecode", samples=s["LATENT"], vae=loader["vae"])["IMAGE"] for s in sampled]
    _compare(g, *clips, ("TimeNoise", "low-pass"))
    return g


def demo_other_starts():
    g = Graph("demo_other_starts", "The starts that the paper compares with, on the demo model")
    g.note(
        "## The paper's Table 2, to try\n\n"
        "**Start Noise** makes FrameInit's start (the picture's low frequencies in the noise), progressive or mixed noise; **FreeInit** samples three times over, each run from the low frequencies of the one before. "
        "In the paper all of them move less than Analytic-Init, FreeInit at twice the time.\n\n"
        "Compare with the workflow *demo_explicit*, which starts from the same seed.",
        (380, 240),
    )
    loader, scene, cond = _demo_source(g, "leaking")
    picture = g.node("VAEEncode", pixels=scene["first_frame"], vae=loader["vae"])
    g.column()
    noise = g.node("CILStartNoise", model=loader["model"], image_latent=picture["LATENT"], seed=1)
    guider = g.node("CFGGuider", model=loader["model"], positive=cond["positive"], negative=cond["negative"], cfg=1.0)
    sampler = g.node("KSamplerSelect", sampler_name="euler")
    sigmas = g.node("BasicScheduler", model=loader["model"], scheduler="karras", steps=25, denoise=1.0)
    g.column()
    run = {"guider": guider["GUIDER"], "sampler": sampler["SAMPLER"], "sigmas": sigmas["SIGMAS"]}
    once = g.node("SamplerCustomAdvanced", noise=noise["noise"], latent_image=cond["latent"], **run)
    thrice = g.node("CILFreeInit", latent=cond["latent"], seed=1, **run)
    g.column()
    clips = [g.node("VAEDecode", samples=s, vae=loader["vae"])["IMAGE"] for s in (once["output"], thrice["latent"])]
    _compare(g, *clips, ("FrameInit", "FreeInit"))
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
    clips = g.node(
        "CILPrepareClips", model=loader["MODEL"], vae=loader["VAE"], clip_vision=loader["CLIP_VISION"], folder="", name="my_clips", flow="none", size=(370, 380)
    )
    g.column()
    trained = g.node("CILTimeNoiseTrain", model=guided["MODEL"], clips=clips["clips"], beta_m=15.0, P_mean=0.7, P_std=1.6)
    g.node("SaveLoRA", lora=trained["lora"], prefix="loras/timenoise", steps=1000)
    g.node(
        "SaveAnimatedWEBP", title="Before and after, to watch", images=trained["samples"], filename_prefix="cil/svd_train_samples", fps=8.0, lossless=False,
        quality=85, method="default", size=(370, 200),
    )  # fmt: skip
    g.node("PreviewImage", title="Leakage, before and after", images=trained["leakage"], size=(370, 260))
    g.column()
    sampled = _ksampler(g, trained["model"], cond, steps=20, cfg=2.5)
    _save(g, sampled["LATENT"], loader["VAE"], "svd_train")
    return g


def _lvdm_source(g, checkpoint, prompt, fps):
    """Loader, texts, picture and conditioning of DynamiCrafter or VideoCrafter1."""
    loader = g.node("CILLoadDynamiCrafter", ckpt_name=checkpoint["name"], models=[checkpoint], size=(370, 170))
    image = g.node("LoadImage", image="example.png", size=(370, 380))
    g.column()
    text, nothing = (
        g.node("CLIPTextEncode", title=title, clip=loader["clip"], text=words, size=(370, 150))
        for title, words in (("What happens", prompt), ("Negative: empty", ""))
    )
    g.column()
    cond = g.node(
        "CILDynamiCrafterConditioning", positive=text["CONDITIONING"], negative=nothing["CONDITIONING"], clip_vision=loader["clip_vision"],
        vae=loader["vae"], image=image["IMAGE"], width=512, height=320, frames=16, fps=fps,
    )  # fmt: skip
    return loader, cond


def _dynamicrafter_source(g):
    """The same of DynamiCrafter 512, with the guidance of its authors."""
    loader, cond = _lvdm_source(g, DYNAMICRAFTER_512, PROMPT, fps=24)
    return loader, cond, g.node("RescaleCFG", model=loader["model"], multiplier=0.7)


LVDM_SAMPLING = {"steps": 50, "sampler": "euler_ancestral", "scheduler": "simple"}  # the authors' DDIM: eta 1, trailing timesteps
PROMPT = "a person walking, camera moving slowly"


def _dynamicrafter(name, title, note, size, node=None):
    """DynamiCrafter as its authors run it, with one node of the pack on its MODEL; None = plain."""
    g = Graph(name, title)
    g.note(note, size)
    loader, cond, guided = _dynamicrafter_source(g)
    model = guided["MODEL"] if node is None else g.node(node, model=guided["MODEL"])["model"]
    g.column()
    sampled = _ksampler(g, model, cond, cfg=7.5, **LVDM_SAMPLING)
    _save(g, sampled["LATENT"], loader["vae"], name, fps=8.0)
    return g


def dynamicrafter_plain():
    note = (
        "## DynamiCrafter 512, plain\n\nPut the released `model.ckpt` into `models/checkpoints` as `dynamicrafter_512.ckpt` and choose a picture. "
        "All parts come out of that one file.\n\n1024: its checkpoint, 1024 x 576, fps 10. Interpolation: its checkpoint, an end image, fps 5."
    )
    return _dynamicrafter("dynamicrafter_plain", "DynamiCrafter 512 as its authors run it", note, (370, 210))


def dynamicrafter_early_start():
    note = (
        "## DynamiCrafter 512 + Early Start\n\nThe plain graph with one node more. The preset starts at 0.96 of T, the paper's setting, with Analytic-Init.\n\n"
        "Too still? Set `start_as` to *fraction* and try 0.92. Broken picture? Go up again."
    )
    return _dynamicrafter("dynamicrafter_early_start", "DynamiCrafter 512 with the early start, one node", note, (370, 190), "CILEarlyStart")


def dynamicrafter_both():
    g = Graph("dynamicrafter_both", "DynamiCrafter 512 with the early start and TimeNoise")
    g.note(
        "## DynamiCrafter 512 + both\n\n**TimeNoise Condition** noises the image that the model sees, most at the first steps; **Early Start** skips those that say least. "
        "*gentle* is for the released model.\n\nHave you a checkpoint that was fine-tuned with TimeNoise (the paper's authors', or your own by *TimeNoise Train*)? Load it and set the mode to *clean*: the paper samples it so, with the early start.",
        (370, 270),
    )
    loader, cond, guided = _dynamicrafter_source(g)
    g.column()
    noised = g.node("TimeNoiseCondition", model=guided["MODEL"], **_passed_on(cond), mode="time-dependent (median)", preset="gentle")
    early = g.node("CILEarlyStart", model=noised["model"])
    g.column()
    sampled = _ksampler(g, early["model"], {**_passed_on(noised), "latent": cond["latent"]}, cfg=7.5, **LVDM_SAMPLING)
    _save(g, sampled["LATENT"], loader["vae"], "dynamicrafter_both", fps=8.0)
    return g


def dynamicrafter_analytic_init():
    g = Graph("dynamicrafter_analytic_init", "DynamiCrafter 512 with truncated sigmas and Analytic-Init, explicit nodes")
    g.note(
        "## DynamiCrafter 512, explicit nodes\n\n**Truncated Sigma Schedule** lays the authors' trailing timesteps below 0.96 of T. **Analytic Init Latent** makes mean and noise for that start, "
        "with the model's dynamic rescale in it.",
        (370, 190),
    )
    loader, cond, guided = _dynamicrafter_source(g)
    g.column()
    sigmas = g.node("TruncatedSigmaSchedule", model=guided["MODEL"], scheduler="trailing (paper)", steps=50)
    moments = g.node("CILLoadMoments", moments_name="sd.safetensors")
    start = g.node("AnalyticInitLatent", model=guided["MODEL"], latent=cond["latent"], sigmas=sigmas["sigmas"], moments=moments["moments"], seed=1)
    g.column()
    guider = g.node("CFGGuider", model=guided["MODEL"], positive=cond["positive"], negative=cond["negative"], cfg=7.5)
    sampler = g.node("KSamplerSelect", sampler_name="euler_ancestral")
    sampled = g.node(
        "SamplerCustomAdvanced",
        noise=start["noise"],
        guider=guider["GUIDER"],
        sampler=sampler["SAMPLER"],
        sigmas=sigmas["sigmas"],
        latent_image=start["latent"],
    )
    _save(g, sampled["output"], loader["vae"], "dynamicrafter_analytic_init", fps=8.0)
    return g


def videocrafter1_early_start():
    g = Graph("videocrafter1_early_start", "VideoCrafter1 image-to-video with the early start")
    g.note(
        "## VideoCrafter1 + Early Start\n\nPut the released image-to-video `model.ckpt` into `models/checkpoints` as `videocrafter1_i2v_512.ckpt`. "
        "The preset starts at 0.96 of T, the paper's setting; bypass Early Start for the plain model.",
        (370, 170),
    )
    loader, cond = _lvdm_source(g, VIDEOCRAFTER1, PROMPT, fps=8)
    early = g.node("CILEarlyStart", model=loader["model"])
    g.column()
    sampled = _ksampler(g, early["model"], cond, cfg=12.0, **LVDM_SAMPLING)
    _save(g, sampled["LATENT"], loader["vae"], "videocrafter1_early_start", fps=8.0)
    return g


def dynamicrafter_wrapper_noise():
    g = Graph("dynamicrafter_wrapper_noise", "Analytic-Init for kijai's DynamiCrafter wrapper")
    g.note(
        "## For the old wrapper\n\nThese two nodes make what the sampler of *ComfyUI-DynamiCrafterWrapper* (another pack, not needed by this one) takes as `init_noise`, for any size and number of frames.\n\n"
        "Copy them into your graph and connect **init_noise** there. On their own they run nothing.",
        (380, 230),
    )
    moments = g.node("CILLoadMoments", moments_name="sd.safetensors")
    g.column()
    g.node("CILDynamiCrafterWrapperNoise", moments=moments["moments"])
    return g


def _wan22_source(g, shift=8.0, loras=(None, None)):
    """Both models of Wan 2.2 with their shift and LoRAs, the VAE, and the conditioning of a picture."""
    made = [
        g.node("UNETLoader", title=title, unet_name=model["name"], models=[model], size=(400, 100))["MODEL"]
        for title, model in (("High noise", WAN_HIGH), ("Low noise", WAN_LOW))
    ]
    clip = g.node("CLIPLoader", clip_name=WAN_TEXT["name"], type="wan", models=[WAN_TEXT], size=(400, 130))
    vae = g.node("VAELoader", vae_name=WAN_VAE["name"], models=[WAN_VAE], size=(400, 80))
    image = g.node("LoadImage", image="example.png", size=(400, 380))
    g.column()
    for i, (name, lora) in enumerate(zip(("high noise", "low noise"), loras)):
        if lora:
            made[i] = g.node(
                "LoraLoaderModelOnly", title=f"4 steps: {name}", model=made[i], lora_name=lora["name"], models=[lora], strength_model=1.0, size=(400, 100)
            )["MODEL"]
        made[i] = g.node("ModelSamplingSD3", title=f"Shift: {name}", model=made[i], shift=shift)["MODEL"]
    texts = [
        g.node("CLIPTextEncode", title=title, clip=clip["CLIP"], text=text, size=(400, 150))["CONDITIONING"]
        for title, text in (("What happens", PROMPT), ("Negative", "static, still picture, overexposed, blurred details, worst quality"))
    ]
    cond = g.node("WanImageToVideo", positive=texts[0], negative=texts[1], vae=vae["VAE"], start_image=image["IMAGE"], width=640, height=640, length=81)
    g.column()
    return made, vae, cond, image


def _wan22_sampled(g, name, models, vae, cond, steps, cfg, at):
    """The two samplers of Wan 2.2, the second from step `at`, and the video."""
    stages = {"positive": cond["positive"], "negative": cond["negative"], "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": "simple"}
    first = g.node(
        "KSamplerAdvanced", title="First stage: high noise", model=models[0], latent_image=cond["latent"], **stages,
        add_noise="enable", noise_seed=1, start_at_step=0, end_at_step=at, return_with_leftover_noise="enable",
    )  # fmt: skip
    g.column()
    second = g.node(
        "KSamplerAdvanced", title="Second stage: low noise", model=models[1], latent_image=first["LATENT"], **stages,
        add_noise="disable", noise_seed=1, start_at_step=at, end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip
    _save(g, second["LATENT"], vae["VAE"], name, fps=16.0)
    return g


def _wan22_stages(g, name, patch):
    """The host's two-stage graph of Wan 2.2. patch(high, low): the nodes between the shifts and the samplers -> both MODELs."""
    models, vae, cond, _ = _wan22_source(g)
    return _wan22_sampled(g, name, patch(*models), vae, cond, steps=20, cfg=3.5, at=10)


def wan22_dial():
    g = Graph("wan22_dial", "Wan 2.2 in four steps with the motion dial")
    g.note(
        "## Wan 2.2 14B, four steps: ask for motion\n\nThe host's two-stage graph with its four-step LoRAs at CFG 1, which users find too calm. **Motion Dial** samples small previews through both stages, measures them, and hands both models on with the least setting that gives what `want` asks for. "
        "Stop keeps the best so far.\n\n*Experimental*: no Wan could be run where this was made. Try: `lever` *motion gain* (the default) and *motion slider*, `preview_size` 0.5 and 1, `want` *more*. **Motion Preflight** names what else may hold the clip back.",
        (400, 330),
    )
    models, vae, cond, image = _wan22_source(g, shift=5.0, loras=(WAN_LORA_HIGH, WAN_LORA_LOW))
    run = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    dial = g.node(
        "CILMotionDial", model=models[0], model_low=models[1], positive=cond["positive"], negative=cond["negative"], latent=cond["latent"], vae=vae["VAE"],
        image=image["IMAGE"], hand_over=2, seed=1, preview_size=0.5, budget=6, size=(460, 1100), **run,
    )  # fmt: skip
    g.node("CILPreflight", model=models[0], positive=cond["positive"], negative=cond["negative"], latent=cond["latent"], cfg=1.0, size=(460, 240))
    g.column()
    g.node("SaveImage", title="Dial: plot", images=dial["plot"], filename_prefix="cil/dial_plot", size=(420, 400))
    return _wan22_sampled(g, "wan22_dial", (dial["model"], dial["model_low"]), vae, cond, steps=4, cfg=1.0, at=2)


def wan22_early_start():
    g = Graph("wan22_early_start", "Wan 2.2 with the early start in its first stage")
    g.note(
        "## Wan 2.2 14B + Early Start\n\nThe host's two-stage graph with one node more, before the first sampler: only the high-noise stage starts lower, the hand-over to the second stays where it was.\n\n"
        "The paper did not look at Wan and nobody has measured the best start: 0.95 is a first try, `start` 1 with `analytic_init` off is the plain graph. "
        "Too still? 0.9. Broken picture? Go up again.",
        (400, 250),
    )
    return _wan22_stages(g, "wan22_early_start", lambda high, low: (g.node("CILEarlyStart", model=high, start_as="fraction", start=0.95)["model"], low))


def wan22_motion_gain():
    g = Graph("wan22_motion_gain", "Wan 2.2 with motion gain in its first stage")
    g.note(
        "## Wan 2.2 14B + Motion Gain\n\nThe host's two-stage graph with one node more, before the first sampler: at high noise levels what each prediction moves is multiplied by `gain`. "
        "1 is the plain graph, to the bit; below 1 is calmer.\n\nToo still? 1.7, then 2. Too wild, or it smears? 1.2. It costs no further evaluations and works with few-step LoRAs at CFG 1 too.\n\n"
        "Measured on small demo models of Wan's architecture, *experimental* on Wan itself: no Wan could be run where this was made.",
        (400, 300),
    )
    return _wan22_stages(g, "wan22_motion_gain", lambda high, low: (g.node("CILMotionGain", model=high)["model"], low))


def wan22_motion_slider():
    g = Graph("wan22_motion_slider", "Wan 2.2 with the motion slider in its first stage")
    g.note(
        "## Wan 2.2 14B + Motion Slider\n\nThe host's two-stage graph with one node more, before the first sampler: one dial for the amount of motion, `gamma`. "
        "0 is the plain graph, 0.6 the authors' setting, below 0 is calmer.\n\nIt costs no further evaluations and works with few-step LoRAs at CFG 1 too.",
        (400, 220),
    )
    return _wan22_stages(g, "wan22_motion_slider", lambda high, low: (g.node("CILMotionSlider", model=high)["model"], low))


def _wan21_source(g):
    """Wan 2.1 with the shift that ALG's authors use, its VAE, and the conditioning of a picture."""
    unet = g.node("UNETLoader", unet_name=WAN21["name"], models=[WAN21], size=(400, 100))
    clip = g.node("CLIPLoader", clip_name=WAN_TEXT["name"], type="wan", models=[WAN_TEXT], size=(400, 130))
    vision = g.node("CLIPVisionLoader", clip_name=WAN_VISION["name"], models=[WAN_VISION], size=(400, 80))
    vae = g.node("VAELoader", vae_name=WAN_VAE["name"], models=[WAN_VAE], size=(400, 80))
    image = g.node("LoadImage", image="example.png", size=(400, 380))
    g.column()
    shifted = g.node("ModelSamplingSD3", model=unet["MODEL"], shift=5.0)
    seen = g.node("CLIPVisionEncode", clip_vision=vision["CLIP_VISION"], image=image["IMAGE"], crop="none")
    texts = [
        g.node("CLIPTextEncode", title=title, clip=clip["CLIP"], text=text, size=(400, 150))["CONDITIONING"]
        for title, text in (("What happens", PROMPT), ("Negative", "static, still picture, overexposed, blurred details, worst quality"))
    ]
    cond = g.node(
        "WanImageToVideo", positive=texts[0], negative=texts[1], vae=vae["VAE"], start_image=image["IMAGE"],
        clip_vision_output=seen["CLIP_VISION_OUTPUT"], width=832, height=480, length=81,
    )  # fmt: skip
    return shifted, vae, cond


def wan21_alg():
    g = Graph("wan21_alg", "Wan 2.1 with adaptive low-pass guidance, one node")
    g.note(
        "## Wan 2.1 + Adaptive Low-Pass Guidance\n\nThe authors' setting: the image at 0.4 of its size in the guidance of the first fifth of 50 steps, CFG 5, shift 5. "
        "At those steps there are three evaluations instead of two.\n\nIt needs CFG above 1: with a few-step LoRA at CFG 1 it cannot act and says so.",
        (400, 220),
    )
    shifted, vae, cond = _wan21_source(g)
    g.column()
    guided = g.node("CILAdaptiveLowPass", model=shifted["MODEL"])
    sampled = _ksampler(g, guided["model"], cond, steps=50, cfg=5.0, sampler="uni_pc", scheduler="simple")
    _save(g, sampled["LATENT"], vae["VAE"], "wan21_alg", fps=16.0)
    return g


def wan21_alg_guider():
    g = Graph("wan21_alg_guider", "Wan 2.1 with adaptive low-pass guidance, explicit nodes")
    g.note("## The same as a guider\n\n**Adaptive Low-Pass Guider** stands where CFGGuider does, for SamplerCustomAdvanced.", (400, 130))
    shifted, vae, cond = _wan21_source(g)
    g.column()
    guider = g.node("CILAdaptiveLowPassGuider", model=shifted["MODEL"], positive=cond["positive"], negative=cond["negative"], cfg=5.0)
    noise = g.node("RandomNoise", noise_seed=1)
    sampler = g.node("KSamplerSelect", sampler_name="uni_pc")
    sigmas = g.node("BasicScheduler", model=shifted["MODEL"], scheduler="simple", steps=50, denoise=1.0)
    g.column()
    sampled = g.node(
        "SamplerCustomAdvanced", noise=noise["NOISE"], guider=guider["guider"], sampler=sampler["SAMPLER"], sigmas=sigmas["SIGMAS"], latent_image=cond["latent"]
    )
    _save(g, sampled["output"], vae["VAE"], "wan21_alg_guider", fps=16.0)
    return g


WORKFLOWS = (
    *(
        demo,
        demo_dial,
        demo_motion_gain,
        demo_motion_bucket,
        demo_explicit,
        demo_probe,
        demo_start_sweep,
        demo_condition,
        demo_other_starts,
        demo_wan,
        demo_simulated_leak,
    ),
    *(svd_plain, svd_early_start, svd_motion_gain, svd_analytic_init, svd_probe, svd_train, estimate_moments),
    *(dynamicrafter_plain, dynamicrafter_early_start, dynamicrafter_analytic_init, dynamicrafter_both, dynamicrafter_wrapper_noise, videocrafter1_early_start),
    *(wan22_early_start, wan22_motion_gain, wan22_motion_slider, wan22_dial, wan21_alg, wan21_alg_guider),
)

# those that the page's template browser lists, in this order, by a name that a person can read; the others are in graphs/
TEMPLATES = {
    "demo": "1 Start here - no download",
    "svd_early_start": "2 SVD - more motion",
    "wan22_dial": "3 Wan 2.2, two stages - ask for motion",
    "wan22_motion_gain": "4 Wan 2.2, two stages - more motion",
    "dynamicrafter_early_start": "5 DynamiCrafter - more motion",
    "demo_dial": "6 Ask for motion - no download",
    "demo_probe": "7 Why does it stand still - no download",
    "svd_train": "8 Fine-tune SVD against the leak",
}
