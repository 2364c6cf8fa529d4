"""A seeded part of the campaign (tests/campaign) in the gate's own host; the whole is a command."""

import pytest
from campaign import files, inputs, page, verdict
from interface import ours

from cil_pack.workflows import page as page_of


def unclear(table):
    return [f"{part} {kind}: {case}: {words}" for part, kind, case, words in table.listed]


def test_settings_are_taken_or_refused_in_words(host, info):
    table = verdict.Table()
    inputs.run(host, info, sorted(ours(info)), table, 80, 1)
    assert sum(table.rows["settings"].values()) >= 80 and not unclear(table)


def test_hostile_files_are_refused_by_name_and_run_nothing(host, info, monkeypatch):
    monkeypatch.setattr(files, "PLACES", {kind: files.PLACES[kind] for kind in ("cil_moments", "loras")})
    monkeypatch.setattr(files, "videos", lambda *args: None)
    table = verdict.Table()
    (host.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    (host.base / "models" / "cil_moments").mkdir(parents=True, exist_ok=True)
    files.run(host, info, table, 1)
    assert table.rows["files"]["clear"] > 100 and not unclear(table)


@pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")
def test_script_in_texts_and_choices_does_not_run(host, info):
    table = verdict.Table()
    page.run(host, info, sorted(ours(info)), table, every=19)
    assert table.rows["page"]["clear"] >= 8 and not unclear(table)


def test_a_judge_can_say_no():
    """Each way to fail, from what a host answers."""
    error = lambda **more: {"status": {"status_str": "error", "messages": [["execution_error", {"node_type": "CILX", "exception_type": "ValueError", "exception_message": "steps takes 1, but 2 came", "traceback": ['  File "/a/comfyui-cil/nodes/x.py", line 1, in f\n    raise ValueError(1)\n']} | more]]}, "outputs": {}}  # fmt: skip
    assert verdict.judge(error(), "", True, ["steps"])[0] == "clear"
    assert verdict.judge(error(), "", True, ["other"])[0] == "unclear"
    assert verdict.judge(error(exception_type="AttributeError"), "", True, ["steps"])[0] == "unclear"
    assert verdict.judge(error(traceback=['  File "/usr/lib/torch/x.py", line 1, in f\n    raise ValueError(1)\n']), "", True, ["steps"])[0] == "unclear"
    assert verdict.judge(error(exception_message="steps: 'NoneType' object has no attribute 'x'"), "", True, ["steps"])[0] == "unclear"
    fine = {"status": {"status_str": "success", "messages": []}, "outputs": {}}
    assert verdict.judge(fine, "", False, [])[0] == "clear" and verdict.judge(fine, "", True, [])[0] == "silent"
    assert verdict.judge(fine | {"outputs": {"q": {"strange": ["value0"]}}}, "", False, [])[0] == "silent"
    assert verdict.judge(None, "hang", False, [])[0] == "hang" and verdict.judge(None, "crash", False, [])[0] == "crash"
