"""Loads the pack by its place, as a host does, and brings the host up where there is one."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


run = _load("cil_run", ROOT / "run.py")
run.load_pack()  # as `cil_pack`

if os.environ.get("COMFYUI_PATH"):
    run.bring_up_host()


def pytest_ignore_collect(collection_path):
    """Without a host (COMFYUI_PATH), only the tests of cil/ can run."""
    if not os.environ.get("COMFYUI_PATH") and collection_path.name in ("nodes", "host"):
        return True


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def artifacts():
    """Screenshots and pictures that a person should look at."""
    folder = ROOT / ".run" / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
