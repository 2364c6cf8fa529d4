"""Graphs that run one node alone, on the demo's small model."""

CHEAP = {  # of settings whose defaults take long
    "steps": 1, "frames": 2, "count": 2, "levels": 2, "draws": 1, "most_clips": 2, "width": 64, "height": 64, "rank": 1, "seeds": 1,
    "video_frames": 2, "runs": 1, "fps": 6, "starts": "1, 0.9",
}  # fmt: skip


def choices_of(spec):
    options = spec[1] if len(spec) > 1 else {}
    return spec[0] if isinstance(spec[0], list) else options.get("options")


def inputs_of(info, name):
    """{input: (its specification, whether the node needs it)}."""
    of = info[name]["input"]
    return {one: (spec, part == "required") for part in ("required", "optional") for one, spec in of.get(part, {}).items()}


def prompt_of(info, name, changed, cheap=False):
    """A graph that runs one node: its things from the demo's nodes, its settings as they are by default but the changed ones."""
    prompt = {
        "m": {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "leaking"}},
        "s": {"class_type": "CILDemoScene", "inputs": {"seed": 0, "motion_bucket_id": 60, "frames": 4 if cheap else 2}},
        "c": {
            "class_type": "SVD_img2vid_Conditioning",
            "inputs": {
                "clip_vision": ["m", 1],
                "init_image": ["s", 0],
                "vae": ["m", 2],
                "width": 128,
                "height": 128,
                "video_frames": 2,
                "motion_bucket_id": 60,
                "fps": 6,
                "augmentation_level": 0.0,
            },
        },
        "g": {"class_type": "BasicScheduler", "inputs": {"model": ["m", 0], "scheduler": "karras", "steps": 1, "denoise": 1.0}},
        "k": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "u": {"class_type": "CFGGuider", "inputs": {"model": ["m", 0], "positive": ["c", 0], "negative": ["c", 1], "cfg": 1.0}},
        "l": {"class_type": "CILLoadMoments", "inputs": {"moments_name": "demo.safetensors", "detail": "channel"}},
        "d": {"class_type": "CILDemoClips", "inputs": {"clip_vision": ["m", 1], "count": 2, "seed": 0}},
        "w": {"class_type": "CILSimulatedLeak", "inputs": {"seed": 0, "leak": 0.7, "above": 3.0}},
    }
    things = {
        "MODEL": ["m", 0],
        "CLIP_VISION": ["m", 1],
        "VAE": ["m", 2],
        "IMAGE": ["s", 1],
        "CONDITIONING": ["c", 0],
        "LATENT": ["c", 2],
        "SIGMAS": ["g", 0],
        "SAMPLER": ["k", 0],
        "GUIDER": ["u", 0],
        "CIL_MOMENTS": ["l", 0],
        "CIL_CLIPS": ["d", 0],
        "CIL_DEMO_SCENE": ["w", 5],
    }
    inputs = {}
    for one, (spec, needed) in inputs_of(info, name).items():
        options, choices = spec[1] if len(spec) > 1 else {}, choices_of(spec)
        if needed or spec[0] in ("VAE", "CLIP_VISION"):
            inputs[one] = things[spec[0]] if not choices and spec[0] in things else options.get("default", choices[0] if choices else "")
    if cheap:
        inputs |= {one: value for one, value in CHEAP.items() if one in inputs and not isinstance(inputs[one], list)}
        inputs |= {"flow": "none"} if name == "CILPrepareClips" else {}
        inputs |= {"images": ["s", 1]} if name in ("CILEstimateMoments", "LeakageProbe") else {}
    prompt["n"] = {"class_type": name, "inputs": {one: value for one, value in (inputs | changed).items() if value is not MISSING}}
    prompt["p"] = {"class_type": "PreviewAny", "inputs": {"source": ["n", 0]}}
    return prompt


MISSING = object()  # an input that is left out


def watched(info, prompt):
    """The same graph, its node's outputs looked at, and a model, a guider or a noise sampled with for one step."""
    looked, out = {}, dict(prompt)
    del out["p"]
    for slot, kind in enumerate(info[prompt["n"]["class_type"]]["output"][:5]):
        if kind in ("MODEL", "GUIDER", "NOISE"):
            model, guider = ["n", slot] if kind == "MODEL" else ["m", 0], f"u{slot}"
            out[guider] = {"class_type": "CFGGuider", "inputs": {"model": model, "positive": ["c", 0], "negative": ["c", 1], "cfg": 1.0}}
            out[f"z{slot}"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}}
            out[f"x{slot}"] = {
                "class_type": "SamplerCustomAdvanced",
                "inputs": {
                    "noise": ["n", slot] if kind == "NOISE" else [f"z{slot}", 0],
                    "guider": ["n", slot] if kind == "GUIDER" else [guider, 0],
                    "sampler": ["k", 0],
                    "sigmas": ["g", 0],
                    "latent_image": ["c", 2],
                },
            }
            looked[f"value{slot}"] = [f"x{slot}", 0]
        else:
            looked[f"value{slot}"] = ["n", slot]
    out["q"] = {"class_type": "CampaignLook", "inputs": looked}
    return out
