"""The list of the host's internals: whole, true of this host, and a sentence where one is gone."""

import os
import re
import time
from pathlib import Path

import pytest

from cil_pack.bench import host_names
from cil_pack.nodes.host import needs

LISTED = {name for names in needs.NEEDS.values() for name in names} | needs.SOME_HOSTS
USED = re.compile(r"\b(?:comfy\.[a-z_]\w*(?:\.\w+)+|(?:folder_paths|latent_preview|node_helpers)\.\w+)")


def test_this_host_has_all_of_them():
    assert needs.missing() == {}


def test_every_name_in_the_code_is_listed(root):
    """In the shape `comfy.module.name`; a longer one is listed up to what is asked of it."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in sorted((root / "nodes").rglob("*.py")) if p.name != "needs.py")
    code = "\n".join(line for line in text.splitlines() if not re.match(r"\s*(import|from|#)", line))
    modules = {name.rsplit(".", 1)[0] for name in LISTED}
    unlisted = {
        name for name in USED.findall(code)
        if not any(name == known or name.startswith(f"{known}.") or known.startswith(f"{name}.") for known in LISTED) and name not in modules
    }  # fmt: skip
    assert not unlisted


def test_what_is_gone_is_said(monkeypatch):
    monkeypatch.setattr(needs, "NEEDS", {"training": ["comfy.lora.no_such_function", "comfy.sample.sample"], "the rest": ["no_such_module.thing"]})
    first, second = needs.warnings()
    assert needs.version() in first and "comfy.lora.no_such_function" in first and "training will not work" in first and "comfy.sample.sample" not in first
    assert "no_such_module.thing" in second


def test_the_check_costs_little():
    began = time.perf_counter()
    needs.missing()
    assert time.perf_counter() - began < 0.1


def test_the_same_is_read_in_the_hosts_source():
    source = host_names.Source(Path(os.environ["COMFYUI_PATH"]))
    assert source.version == needs.version() and host_names.missing(source) == {}


@pytest.mark.parametrize(
    "name",
    [
        "comfy.no_such_module.thing",
        "comfy.samplers.no_such_function",
        "comfy.samplers.KSampler.NO_SUCH",
        "comfy.model_base.ModelType.NO_SUCH",
        "no_such_module",
    ],
)
def test_what_a_source_lacks_is_found(name):
    assert not host_names.Source(Path(os.environ["COMFYUI_PATH"])).has(name)
