"""CILPreflight: what it finds in graphs that have the fault, and that it is silent where there is none."""

import json

import comfy_extras.nodes_easycache as easycache
import family_models
import pytest
import torch

from cil_pack.nodes import preflight
from cil_pack.nodes.preflight import Preflight


def found(model, positive, negative, latent, cfg=3.0, **hidden):
    return preflight.findings(model, positive, negative, latent, cfg, **hidden)


def video(name, *shape):
    return {"samples": torch.zeros(shape)}


TEXT, OTHER = [[torch.ones(1, 5, 8), {}]], [[torch.full((1, 5, 8), 2.0), {}]]
TRAINED = {
    "SVD": (14, 4, 72, 128),
    "Wan 2.1 I2V": (1, 16, 21, 60, 104),
    "LTXV": (1, 128, 13, 16, 24),
    "Hunyuan I2V concat": (1, 16, 33, 90, 160),
    "Hunyuan 1.5 I2V": (1, 32, 31, 30, 53),
}


@pytest.mark.parametrize("name", TRAINED)
def test_silent_at_what_the_authors_trained_on(models, name):
    assert found(models(name)[0], TEXT, OTHER, video(name, *TRAINED[name])) == []


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("SVD", (14, 4, 72, 125), "1000 x 576 is not a multiple of 64 pixels on both sides, which SVD takes: choose 1024 x 576"),
        ("Wan 2.1 I2V", (1, 16, 21, 61, 104), "832 x 488 is not a multiple of 16"),
        ("SVD", (14, 4, 32, 32), "256 x 256 is far from what SVD was trained on"),
        ("Wan 2.1 I2V", (1, 16, 21, 270, 480), "3840 x 2160 is far from"),
        ("Wan 2.1 I2V", (1, 16, 9, 60, 104), "9 latent frames, while Wan was trained on 21 \\(81 frames\\)"),
        ("SVD", (1, 4, 72, 128), "one frame, and nothing moves"),
        ("LTXV", (1, 128, 1, 16, 24), "one frame, and nothing moves"),
    ],
)
def test_a_size_or_length(models, name, shape, message):
    with pytest.raises(AssertionError, match=message):
        assert not found(models(name)[0], TEXT, OTHER, video(name, *shape))


def test_a_latent_of_another_model(models):
    """Full, it cannot be sampled with and is refused, as the sampler would; empty, the host sizes it."""
    other = torch.ones(1, 16, 21, 60, 104)
    with pytest.raises(ValueError, match="this model takes latents of"):
        found(models("SVD")[0], TEXT, OTHER, {"samples": other})
    assert found(models("Wan 2.1 I2V")[0], TEXT, OTHER, {"samples": other}) == []


def test_a_negative_prompt_at_cfg_1(models):
    model, latent = models("Wan 2.1 I2V")[0], video("", *TRAINED["Wan 2.1 I2V"])
    assert "not evaluated" in found(model, TEXT, OTHER, latent, 1.0)[0]
    empty = [[torch.zeros(1, 5, 8), {}]]
    for negative in (None, [], TEXT, [[TEXT[0][0].clone(), {}]], empty):
        assert found(model, TEXT, negative, latent, 1.0) == []
    assert found(model, TEXT, OTHER, latent, 1.5) == []


def test_a_motion_bucket(models):
    model, latent = models("SVD")[0], video("", *TRAINED["SVD"])
    bucket = lambda value: [[torch.ones(1, 1, 8), {"motion_bucket_id": value}]]
    assert "motion_bucket_id is 1:" in found(model, bucket(1), None, latent)[0]
    assert found(model, bucket(127), None, latent) == []
    assert found(models("Wan 2.1 I2V")[0], bucket(1), None, video("", *TRAINED["Wan 2.1 I2V"])) == []  # which has none


@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
def test_the_hosts_step_caches(models, node):
    model, latent = models("Wan 2.1 I2V")[0], video("", *TRAINED["Wan 2.1 I2V"])
    cached = getattr(easycache, node).execute(model, 0.2, 0.15, 0.95, False).args[0]
    assert "a step cache is on this model" in found(cached, TEXT, OTHER, latent)[0]
    assert found(model.clone(), TEXT, OTHER, latent) == []


def test_a_step_cache_of_another_pack(models):
    """By the names that they leave in transformer_options, or that of their function."""
    model, latent = models("Wan 2.1 I2V")[0], video("", *TRAINED["Wan 2.1 I2V"])

    def teacache_wrapper(apply, args):
        return apply(args["input"], args["timestep"], **args["c"])

    one, other = model.clone(), model.clone()
    one.model_options["transformer_options"]["enable_teacache"] = True
    other.set_model_unet_function_wrapper(teacache_wrapper)
    for cached in (one, other):
        assert "step cache" in found(cached, TEXT, OTHER, latent)[0]
    one.model_options["transformer_options"]["enable_teacache"] = False
    assert found(one, TEXT, OTHER, latent) == []


def test_a_few_step_lora_before_the_node_alone(models):
    model, latent = models("Wan 2.1 I2V")[0], video("", *TRAINED["Wan 2.1 I2V"])
    lora = lambda name, source: {"class_type": "LoraLoaderModelOnly", "inputs": {"model": [source, 0], "lora_name": name}}
    prompt = {
        "1": {"inputs": {}},
        "2": lora("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors", "1"),
        "3": lora("my_style.safetensors", "2"),
        "4": {"inputs": {"model": ["3", 0], "ring": ["4", 0]}},
        "5": lora("causvid.safetensors", "1"),
    }
    said = found(model, TEXT, OTHER, latent, prompt=prompt, node_id="4")
    assert len(said) == 1 and "lightx2v_4steps_lora_v1_high_noise.safetensors is a few-step LoRA" in said[0]


def test_the_node():
    model, positive, negative, latent = family_models.model("SVD"), *family_models.conditioning("SVD")
    report, clear = Preflight.PREPARE_CLASS_CLONE(None).execute(model, positive, latent, 2.5, negative).args
    assert not clear and any("far from what SVD was trained on" in line for line in json.loads(report))
    report, clear = Preflight.PREPARE_CLASS_CLONE(None).execute(model, TEXT, video("", *TRAINED["SVD"]), 2.5).args
    assert clear and report == "[]"
