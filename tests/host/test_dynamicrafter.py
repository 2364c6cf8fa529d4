"""Over HTTP: small checkpoints in the released layout through the shipped DynamiCrafter and VideoCrafter1 graphs."""

import io
import json
import sys

import av
import lvdm_tiny
import lvdm_weights
import pytest
import torch
from safetensors.torch import save_file

from cil_pack.demo import model as demo_model

run = sys.modules["cil_run"]
# what the demo model's sockets give: image tokens and "text" of this width
WIDTH = 64
RESAMPLER = {**lvdm_weights.RESAMPLER, "embedding_dim": WIDTH, "output_dim": WIDTH}
CHECKPOINTS = {
    # workflow: (variant, queries, file)
    "dynamicrafter_plain": ("DynamiCrafter 512", 256, "tiny_512.ckpt"),
    "dynamicrafter_early_start": ("DynamiCrafter 1024", 256, "tiny_1024.safetensors"),
    "dynamicrafter_analytic_init": ("DynamiCrafter 256", 256, "tiny_256.safetensors"),
    "dynamicrafter_both": ("DynamiCrafter 512", 256, "tiny_both.safetensors"),
    "videocrafter1_early_start": ("VideoCrafter1 512", 16, "tiny_videocrafter1.safetensors"),
}


def checkpoint(variant, queries):
    """UNet, resampler, noise tables and a VAE, as a released file has them but for their widths."""
    tensors = lvdm_tiny.tensors(variant, context_dim=WIDTH, image_proj={**RESAMPLER, "queries": queries})
    vae = demo_model.load("healthy")[2].get_sd()
    return tensors | {f"first_stage_model.{k}": v.contiguous() for k, v in vae.items()}


def put(host, name, tensors):
    path = host.base / "models" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".ckpt"):
        torch.save({"state_dict": tensors, "global_step": 1}, path)
    else:
        save_file(tensors, path)
    host.get("/object_info/CILLoadDynamiCrafter")  # the host looks into the folder again


def small(root, workflow, name):
    """The shipped graph with a small file in its loader; text and image encoder, whose size is fixed, from the demo model."""
    prompt = json.loads((root / "workflows" / "api" / f"{workflow}.json").read_text(encoding="utf-8"))
    prompt["demo"] = {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "healthy"}}
    prompt["scene"] = {"class_type": "CILDemoScene", "inputs": {"seed": 1, "motion_bucket_id": 127, "frames": 1}}
    text = {
        "clip_vision": ["demo", 1],
        "vae": ["demo", 2],
        "init_image": ["scene", 0],
        "width": 64,
        "height": 64,
        "video_frames": 1,
        "motion_bucket_id": 127,
        "fps": 6,
        "augmentation_level": 0.0,
    }
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == "CILLoadDynamiCrafter":
            inputs["ckpt_name"] = name
        elif node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "SVD_img2vid_Conditioning", "inputs": dict(text)}
        elif node["class_type"] == "CILDynamiCrafterConditioning":
            inputs |= {"clip_vision": ["demo", 1], "image": ["scene", 0], "width": 128, "height": 64}
        elif "steps" in inputs:
            inputs["steps"] = 3
    return prompt


@pytest.mark.parametrize("workflow", CHECKPOINTS)
def test_a_shipped_graph_makes_a_video(host, root, workflow):
    variant, queries, name = CHECKPOINTS[workflow]
    put(host, name, checkpoint(variant, queries))
    entry = host.run(small(root, workflow, name))
    assert run.error_of(entry) is None
    video = next(o["images"][0] for o in entry["outputs"].values() if o.get("animated"))
    with av.open(io.BytesIO(host.fetch(video))) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 16 and frames[0].shape == (64, 128, 3)


def test_a_wrong_file_is_an_error_in_the_loader(host, root):
    put(host, "unpruned.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 8, 3, 3)})
    entry = host.run(small(root, "dynamicrafter_plain", "unpruned.safetensors"))
    details = next(data for kind, data in entry["status"]["messages"] if kind == "execution_error")
    assert details["node_type"] == "CILLoadDynamiCrafter"
    assert "without LVDM's temporal layers (1 tensors, 8 input channels)" in details["exception_message"]


def test_what_a_pruned_file_leaves_out_is_named_where_it_is_missed(host, root):
    variant, queries, _ = CHECKPOINTS["dynamicrafter_plain"]
    put(host, "pruned_512.safetensors", checkpoint(variant, queries))
    prompt = json.loads((root / "workflows" / "api" / "dynamicrafter_plain.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        if node["class_type"] == "CILLoadDynamiCrafter":
            node["inputs"]["ckpt_name"] = "pruned_512.safetensors"
    entry = host.run(prompt)
    assert all(set(output) <= {"text", "text_at_sampling"} for output in entry["outputs"].values())  # notes, no picture
