"""Over HTTP, as a user's page does it: the demo workflow, the SVD graphs, and graphs that must fail in words."""

import io
import json
import re
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import video_file
from PIL import Image
from safetensors.torch import load_file

from cil_pack.cil import moments as cil_moments
from cil_pack.demo import scenes
from cil_pack.nodes.host import needs

run = sys.modules["cil_run"]


def prompt_of(root, name):
    return json.loads((root / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def nodes_of(prompt, kind):
    return [n for n in prompt.values() if n["class_type"] == kind]


def node_id(prompt, kind):
    return next(i for i, n in prompt.items() if n["class_type"] == kind)


def shorter(prompt):
    """Fewer steps and frames, for tests that do not look at the picture; the simulated leak makes clips of one length alone."""
    fewer = {"steps": 3} if nodes_of(prompt, "CILSimulatedLeak") else {"steps": 3, "video_frames": 4}
    for node in prompt.values():
        node["inputs"] |= {name: value for name, value in fewer.items() if name in node["inputs"]}
    return prompt


def test_the_pack_loads_with_every_node(info):
    ours = {name for name, node in info.items() if node["python_module"] == "custom_nodes.i2v-motion"}
    from cil_pack.nodes import NODES

    sys.modules["cil_pack"].register_folders()  # CILLoadMoments lists it
    assert ours == {node.define_schema().node_id for node in NODES}
    assert {"AnalyticInitLatent", "TruncatedSigmaSchedule", "CILEarlyStart", "CILLoadMoments", "CILLoadDemoModel"} <= ours


def test_the_demo_makes_a_video_and_a_picture(host, root):
    """And what README shows: the small trained model stands still, and with Motion Gain it goes most of the true way."""
    prompt, seen = prompt_of(root, "demo"), []
    entry = host.run(prompt, lambda node, value, maximum: seen.append((node, value, maximum)))
    assert run.error_of(entry) is None
    assert ("KSampler", 20, 20) in seen
    video = host.fetch(entry["outputs"][node_id(prompt, "SaveVideo")]["images"][0])
    with av.open(io.BytesIO(video)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == scenes.FRAMES
    assert frames[0].shape[1] > 2 * 128 and np.ptp(frames[0]) > 100
    picture = Image.open(io.BytesIO(host.fetch(entry["outputs"][node_id(prompt, "SaveImage")]["images"][0])))
    assert picture.size[0] >= 6 * 128
    (text,) = [entry["outputs"][i]["text"][0] for i, n in prompt.items() if n["class_type"] == "CILDemoCompare"]
    found = re.fullmatch(r"plain: stands still; Early Start: .*; Motion Gain: goes (\d+) % of the true way \(pixels: .*\)", text)
    assert found and 70 <= int(found[1]) <= 100, text


def test_the_same_graph_twice_is_the_same_video(host, root):
    prompt = shorter(prompt_of(root, "demo_explicit"))
    pictures = []
    for i in range(2):
        # another file name, and the host's cache thrown away, so that it really samples again
        nodes_of(prompt, "SaveImage")[0]["inputs"]["filename_prefix"] = f"again{i}"
        host.request("/free", {"unload_models": True, "free_memory": True})
        entry = host.run(prompt)
        assert run.error_of(entry) is None
        data = host.fetch(entry["outputs"][node_id(prompt, "SaveImage")]["images"][0])
        pictures.append(np.asarray(Image.open(io.BytesIO(data))))
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("name", ["svd_plain", "svd_early_start", "svd_analytic_init"])
def test_the_svd_graphs_run_unchanged_on_the_demo_model(host, root, name):
    """Only the loader and the picture are replaced; SVD's own checkpoint cannot be fetched here."""
    prompt = shorter(prompt_of(root, name))
    loader, image = node_id(prompt, "ImageOnlyCheckpointLoader"), node_id(prompt, "LoadImage")
    prompt[loader] = {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "healthy"}}
    prompt[image] = {"class_type": "CILDemoScene", "inputs": {"seed": 1, "motion_bucket_id": 127, "frames": 1}}
    nodes_of(prompt, "SVD_img2vid_Conditioning")[0]["inputs"] |= {"width": 128, "height": 128, "video_frames": 14}
    for node in nodes_of(prompt, "CILLoadMoments"):
        node["inputs"]["moments_name"] = "demo.safetensors"
    entry = host.run(prompt)
    assert run.error_of(entry) is None
    video = host.fetch(entry["outputs"][node_id(prompt, "SaveVideo")]["images"][0])
    with av.open(io.BytesIO(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 14


def outputs_of(entry, prompt, kind):
    return entry["outputs"][node_id(prompt, kind)]


def test_the_probe_decides_the_start(host, root):
    prompt = shorter(prompt_of(root, "demo_probe"))
    nodes_of(prompt, "LeakageProbe")[0]["inputs"] |= {"levels": 3, "draws": 1, "most_clips": 4}
    entry = host.run(prompt)
    assert run.error_of(entry) is None
    plot = Image.open(io.BytesIO(host.fetch(outputs_of(entry, prompt, "LeakageProbe")["images"][0])))
    assert plot.size[0] > 800
    (early,) = nodes_of(prompt, "CILEarlyStart")
    assert early["inputs"]["start"] == [node_id(prompt, "LeakageProbe"), 2]


def test_the_sweep_shows_every_start(host, root):
    prompt = shorter(prompt_of(root, "demo_start_sweep"))
    nodes_of(prompt, "CILStartSweep")[0]["inputs"] |= {"starts": "700, 20", "seeds": 1}
    entry = host.run(prompt)
    assert run.error_of(entry) is None
    sheet = Image.open(io.BytesIO(host.fetch(outputs_of(entry, prompt, "CILStartSweep")["images"][0])))
    assert sheet.size[0] >= 2 * 192 and sheet.size[1] > 4 * 192  # two starts side by side, four frames under each other


@pytest.fixture
def videos(host):
    """A folder below one that the host's owner registered."""
    with tempfile.TemporaryDirectory(dir=host.base / "registered") as folder:
        yield Path(folder)


def test_moments_of_a_folder_are_estimated_and_saved(host, root, videos):
    for seed in range(3):
        clip = scenes.render(scenes.sample(1, torch.Generator().manual_seed(seed)), 16)[0].movedim(1, -1)
        video_file.write(videos / f"{seed}.mp4", clip)
    prompt = prompt_of(root, "estimate_moments")
    loader = node_id(prompt, "ImageOnlyCheckpointLoader")
    prompt[loader] = {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "healthy"}}
    estimate = nodes_of(prompt, "CILEstimateMoments")[0]["inputs"]
    estimate |= {"model": [loader, 0], "vae": [loader, 2], "folder": str(videos), "frames": 8, "fps": 6.0, "width": 128, "height": 128}
    entry = host.run(prompt)
    assert run.error_of(entry) is None
    made = cil_moments.load(host.base / "models" / "cil_moments" / "my_moments.safetensors")
    assert made.count == 3 and made.space == "demo" and made.mean.shape == (4, 8, 16, 16)


def test_the_condition_workflow_runs_and_the_two_ways_differ(host, root):
    prompt = shorter(prompt_of(root, "demo_condition"))
    entry = host.run(prompt)
    assert run.error_of(entry) is None
    compare = entry["outputs"][node_id(prompt, "SaveImage")]["images"][0]
    picture = np.asarray(Image.open(io.BytesIO(host.fetch(compare)))).astype(float)
    texts = [entry["outputs"][i]["text"][0] for i, n in prompt.items() if n["class_type"] == "CILMotionScore"]
    assert picture.std() > 5 and len(set(texts)) == 2


def test_the_training_graph_runs_unchanged_on_the_demo_model(host, info, root, videos):
    """In the running host, whose nodes live in inference mode: videos in, a LoRA and a video out."""
    if "SaveLoRA" not in info:
        pytest.skip("this host has no SaveLoRA")
    video_file.write(videos / "a.mp4", scenes.render(scenes.sample(1, torch.Generator().manual_seed(0)), 6)[0].movedim(1, -1))
    prompt = shorter(prompt_of(root, "svd_train"))
    loader, image = node_id(prompt, "ImageOnlyCheckpointLoader"), node_id(prompt, "LoadImage")
    prompt[loader] = {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "healthy"}}
    prompt[image] = {"class_type": "CILDemoScene", "inputs": {"seed": 1, "motion_bucket_id": 127, "frames": 1}}
    small = {"width": 128, "height": 128}
    nodes_of(prompt, "SVD_img2vid_Conditioning")[0]["inputs"] |= small | {"video_frames": 2}
    # not 2 frames: of those PyTorch 2.13's Conv3d in bf16 on some CPUs gives gradients that are no numbers
    nodes_of(prompt, "CILPrepareClips")[0]["inputs"] |= small | {"folder": videos.name, "frames": 3, "name": f"clips_of_{videos.name}"}
    seen = []
    entry = host.run(prompt, lambda node, value, maximum: seen.append((node, value, maximum)))
    assert run.error_of(entry) is None
    assert ("CILTimeNoiseTrain", 3, 3) in seen
    (lora,) = (host.base / "output" / "loras").glob("timenoise*.safetensors")
    assert any(k.endswith("lora_up.weight") and v.any() for k, v in load_file(lora).items())
    assert entry["outputs"][node_id(prompt, "SaveVideo")]["images"]


def with_moments(root, name):
    prompt = shorter(prompt_of(root, "demo_explicit"))
    nodes_of(prompt, "CILLoadMoments")[0]["inputs"]["moments_name"] = name
    return prompt


def test_moments_with_the_wrong_channels_are_an_error_in_the_node(host, root):
    wrong = cil_moments.Moments(torch.zeros(16, 1, 1, 1), 1.0, "demo")
    cil_moments.save(wrong, host.base / "models" / "cil_moments" / "sixteen.safetensors")
    entry = host.run(with_moments(root, "sixteen.safetensors"))
    details = next(data for kind, data in entry["status"]["messages"] if kind == "execution_error")
    assert details["node_type"] == "AnalyticInitLatent"
    assert "have 16 channels" in details["exception_message"] and "the latent has 4" in details["exception_message"]


def test_moments_of_another_space_are_an_error_in_the_node(host, root):
    message = run.error_of(host.run(with_moments(root, "sd.safetensors")))
    assert "latent space 'sd' but the model works in 'demo'" in message


def test_a_corrupt_moments_file_is_an_error_in_the_node(host, root):
    folder = host.base / "models" / "cil_moments"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broken.safetensors").write_bytes(b"not a file")
    message = run.error_of(host.run(with_moments(root, "broken.safetensors")))
    assert "broken.safetensors cannot be read as a moments file" in message


def test_ones_own_moments_come_before_the_packaged_ones(host):
    listed = host.get("/object_info/CILLoadMoments")["CILLoadMoments"]["input"]["required"]["moments_name"]
    options = listed[1]["options"] if listed[0] == "COMBO" else listed[0]
    assert {"sd.safetensors", "demo.safetensors"} <= set(options)


def test_a_wrong_start_is_an_error_in_the_node(host, root):
    prompt = prompt_of(root, "demo")
    for node in nodes_of(prompt, "KSampler"):
        node["inputs"]["steps"] = 2  # some hosts sample the plain clip first
    nodes_of(prompt, "CILEarlyStart")[0]["inputs"] |= {"start_as": "sigma", "start": 5000.0}
    entry = host.run(prompt)
    details = next(data for kind, data in entry["status"]["messages"] if kind == "execution_error")
    assert "above the model's largest sigma" in details["exception_message"]
    assert details["node_type"] == "CILEarlyStart"


def test_the_committed_graphs_are_what_the_recipes_say(info, root):
    """Templates, further examples, their /prompt forms and the blueprints, and no file besides."""
    from cil_pack.workflows import make

    if needs.version() != make.MADE_ON:
        pytest.skip(f"the graphs are made on ComfyUI {make.MADE_ON}, of whose nodes they carry the sockets; this is {needs.version()}")
    made = make.files(info)
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run 'python run.py do workflows.make'"
    assert {p for folder in ("example_workflows", "workflows", "subgraphs") for p in (make.ROOT / folder).rglob("*.json")} == set(made)


def test_every_input_and_output_has_a_tooltip(info):
    for name, node in info.items():
        if node["python_module"] != "custom_nodes.i2v-motion":
            continue
        for group in ("required", "optional"):
            for key, spec in node["input"].get(group, {}).items():
                assert spec[1].get("tooltip"), f"{name}.{key}"
        assert all(node["output_tooltips"]) and node["description"], name
