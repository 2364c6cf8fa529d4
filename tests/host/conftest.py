"""One running ComfyUI, with the pack in it, for all tests of this folder."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import video_file

from cil_pack.demo import scenes


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    run = sys.modules["cil_run"]
    base = tmp_path_factory.mktemp("comfyui")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    quiet = {"Comfy.Minimap.Visible": False, "Comfy.Workflow.ShowMissingModelsWarning": False}
    settings.write_text(json.dumps(quiet))
    # the picture that the host's own installation brings, which the SVD workflows show
    shutil.copytree(Path(os.environ["COMFYUI_PATH"]) / "input", base / "input")
    # and the video that a user would have chosen in svd_probe
    clip = scenes.render(scenes.sample(1, torch.Generator().manual_seed(0)))[0].movedim(1, -1)
    video_file.write(base / "input" / "clip.mp4", clip)
    # a place of clips that its owner registered
    (base / "registered").mkdir()
    places = base / "extra_model_paths.yaml"
    places.write_text(json.dumps({"clips": {"base_path": str(base), "cil_clips": "registered"}}))
    # what the campaign's short part hands to nodes
    (base / "custom_nodes").mkdir()
    shutil.copy(Path(__file__).parent.parent / "campaign" / "things.py", base / "custom_nodes" / "campaign_things.py")
    with run.server(base, arguments=("--extra-model-paths-config", places)) as running:
        yield running


@pytest.fixture(scope="session")
def info(host):
    return host.get("/object_info")
