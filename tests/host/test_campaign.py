"""The campaign's judge (tests/campaign) and a short part of the campaign, which is a command: settings, files, queue, page, by a seed."""

import pytest
from campaign import files, inputs, page, processes, verdict
from interface import ours

from cil_pack.workflows import page as page_of

SEED = 1


def held(table):
    """Nothing crashed, hung, ran or stayed silent; what was unclear is printed."""
    print(table.text(), *table.listed, sep="\n")
    assert not [case for case in table.listed if case[1] != "unclear"]
    assert len(table.listed) <= 0.05 * sum(sum(row.values()) for row in table.rows.values())


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
    waiting = verdict.Table()
    waiting.add("page", "clear", "e")
    verdict.keep(path, waiting, ["page"], "about", ["settings"])  # which is run next: the page shows its old row, the table counts from nothing
    assert "settings" not in waiting.rows and "| settings | 1 |" in path.read_text(encoding="utf-8")
    verdict.keep(path, second, ["page"], "about")
    text = path.read_text(encoding="utf-8")
    assert "| all | 2 | 0 | 1 | 1 | 0 | 0 | 0 |" in text and "- settings, unclear: `a`: b" in text and "- page, silent: `d`: e" in text


def test_settings_that_no_graph_should_hold(host, info):
    table = verdict.Table()
    inputs.run(host, info, sorted(ours(info)), table, 40, SEED, plain=False)
    held(table)


def test_files_that_lie(host, info):
    table = verdict.Table()
    files.run(host, info, table, SEED, every=9)
    held(table)


def test_interrupts(host, info):
    table = verdict.Table()
    processes.queue(host, info, table, SEED, count=3)
    held(table)


@pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")
def test_scripts_in_every_text(host, info):
    """A tenth of the campaign's cases, another for each script."""
    pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    table = verdict.Table()
    page.run(host, info, sorted(ours(info)), table, SEED, share=0.1)
    held(table)
    assert sum(table.rows["page"].values()) >= 30


@pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")
def test_a_page_that_runs_it_is_seen(host, info):
    """The first script, put into the page by hand while it is looked at: the test above can fail."""
    pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    with page_of.browser() as browser:
        tab = page_of.opened(browser, host.url)
        assert not page.looked(tab)
        tab.evaluate(page.CONTROL, inputs.PAYLOADS[0])
        assert page.looked(tab)
