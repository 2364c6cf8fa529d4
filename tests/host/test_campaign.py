"""The campaign's judge and its table (tests/campaign); the campaign itself is a command."""

from campaign import verdict


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


def test_an_input_is_named_with_or_without_its_underscores():
    assert verdict.readable("the existing LoRA is another model's", ["existing_lora"]) and not verdict.readable(
        "the LoRA is another model's", ["existing_lora"]
    )


def test_a_table_keeps_the_rows_of_parts_that_were_not_run_now(tmp_path):
    path, first, second = tmp_path / "table.md", verdict.Table(), verdict.Table()
    first.add("settings", "unclear", "a", "b"), first.add("page", "clear", "c")
    verdict.keep(path, first, ["settings", "page"], "")
    second.add("page", "silent", "d", "e")
    verdict.keep(path, second, ["page"], "")
    assert second.rows["settings"]["unclear"] == 1 and second.dates["settings"] == first.dates["settings"]
    text = path.read_text(encoding="utf-8")
    assert "| all | 2 | 0 | 1 | 1 | 0 | 0 | 0 |" in text and "- settings, unclear: `a`: b" in text and "- page, silent: `d`: e" in text
