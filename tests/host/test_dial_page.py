"""The Motion Dial in the real page: its tiles run while it works, stop keeps the best so far, a second queue makes no preview."""

import json

import pytest

from cil_pack.workflows import make
from cil_pack.workflows import page as page_of

pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
pytest.importorskip("cv2")
pytestmark = pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")
GRAPH = make.page_file("demo_dial")

LISTEN = """() => {
    window.seen = []; window.notes = []; window.ended = 0;
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) window.app.api.addEventListener(end, () => window.ended++);
    window.app.api.addEventListener("b_preview_with_metadata", async e => {
        const at = window.seen.push({node: String(e.detail.nodeId ?? e.detail.displayNodeId), size: e.detail.blob.size, text: ""}) - 1;
        window.seen[at].text = (await e.detail.blob.text()).slice(-2000);
    });
    window.app.api.addEventListener("cil.note", e => window.notes.push([String(e.detail.node), e.detail.text]));
}"""


@pytest.fixture(scope="module")
def page(host):
    with page_of.browser() as browser:
        tab = page_of.opened(browser, host.url, width=1600, height=1500)
        tab.evaluate(LISTEN)
        yield tab


def opened(page, **widgets):
    """demo_dial with the dial's widgets set, the view on it -> the dial's id."""
    page.evaluate("data => window.app.loadGraphData(data)", json.loads(GRAPH.read_text(encoding="utf-8")))
    page.wait_for_timeout(1500)
    page.evaluate("() => { window.seen.length = window.notes.length = window.ended = 0; }")
    return page.evaluate(
        """widgets => {
        const dial = window.app.graph._nodes.find(n => n.type === "CILMotionDial");
        for (const w of dial.widgets) if (w.name in widgets) w.value = widgets[w.name];
        for (const n of window.app.graph._nodes.filter(n => n.type === "KSampler")) n.widgets.find(w => w.name === "steps").value = 4;
        window.app.graph._nodes.find(n => n.type === "SVD_img2vid_Conditioning").widgets.find(w => w.name === "video_frames").value = 6;
        const ds = window.app.canvas.ds;
        ds.scale = 1; ds.offset[0] = 300 - dial.pos[0]; ds.offset[1] = 120 - dial.pos[1];
        window.app.canvas.setDirty(true, true);
        return String(dial.id);
    }""",
        widgets,
    )


def run(page):
    page.get_by_test_id("queue-button").click()


def finished(page, dial):
    """Wait for the graph's end -> the dial's last note."""
    page.wait_for_function("() => window.ended", timeout=300_000)
    page.wait_for_timeout(1500)
    return page.evaluate("dial => window.notes.filter(([node]) => node === dial).at(-1)[1]", dial)


def test_the_tiles_run_while_it_works_and_nothing_is_measured_twice(page, artifacts):
    widgets = {"want": "times the plain clip's motion", "amount": 3.0, "lever": "motion gain", "budget": 4, "steps": 18, "preview_steps": 6}
    dial = opened(page, **widgets)
    page.problems.clear()
    run(page)
    page.wait_for_function("dial => window.seen.filter(s => s.node === dial).length > 25", arg=dial, timeout=300_000)
    page.screenshot(path=artifacts / "dial_running.png")
    page.wait_for_timeout(700)
    page.screenshot(path=artifacts / "dial_running_later.png")
    note = finished(page, dial)
    page.screenshot(path=artifacts / "dial_finished.png")
    tiles = page.evaluate("dial => window.seen.filter(s => s.node === dial).map(s => s.text)", dial)
    assert len(set(tiles)) > 10, "the tiles stand still"
    shown = page.evaluate("dial => (window.app.graph.getNodeById(Number(dial)).images || []).map(i => i.filename)", dial)
    assert len(shown) == 1 and shown[0].endswith(".webp")  # its own picture, which moves
    assert "4 previews of 6 steps" in note and note.split("\n")[0][0].isalpha()
    assert any("to go" in text for node, text in page.evaluate("() => window.notes") if node == dial)
    assert not [p for p in page.problems if "Content Security Policy" not in p]
    dial = opened(page, **widgets, seconds=3)  # a changed widget, so that the host asks the node again
    run(page)
    assert "0 previews" in finished(page, dial) and not page.evaluate("dial => window.seen.filter(s => s.node === dial).length", dial)
    assert_one_click_makes_it_ordinary(page, dial, artifacts)


def assert_one_click_makes_it_ordinary(page, dial, artifacts):
    """The button puts the lever's own node, with the setting that was found, where the dial was."""
    sources = "async () => (await window.app.graphToPrompt()).output"
    before = page.evaluate(sources)
    page.evaluate("dial => window.app.graph.getNodeById(Number(dial)).widgets.find(w => w.name === 'ordinary node').callback()", dial)
    page.wait_for_timeout(500)
    page.screenshot(path=artifacts / "dial_ordinary.png")
    after = page.evaluate(sources)
    (number,) = after.keys() - before.keys()
    gain = after[number]
    assert gain["class_type"] == "CILMotionGain" and gain["inputs"]["gain"] != 1 and gain["inputs"]["model"] == before[dial]["inputs"]["model"]
    fed = [(n, name) for n, node in before.items() for name, value in node["inputs"].items() if value == [dial, 0]]
    assert fed and all(after[n]["inputs"][name] == [number, 0] for n, name in fed)
    kept = page.evaluate("dial => window.app.graph.getNodeById(Number(dial)).properties.cil_ordinary", dial)
    assert json.loads(kept)["widgets"]["gain"] == gain["inputs"]["gain"]


def test_stop_keeps_the_best_so_far_and_the_graph_goes_on(page, host, artifacts):
    dial = opened(page, want="times the plain clip's motion", amount=3.0, budget=9, steps=18, preview_steps=6, seed=5)
    run(page)
    page.wait_for_function("dial => window.notes.some(([node, text]) => node === dial && text.startsWith('preview 3'))", arg=dial, timeout=300_000)
    host.request("/interrupt", {})
    note = finished(page, dial)
    page.screenshot(path=artifacts / "dial_stopped.png")
    assert "Stopped" in note and "best so far" in note
