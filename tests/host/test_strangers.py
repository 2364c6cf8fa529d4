"""What a graph from a stranger must not be able to do: run script in the page, read files, leave its combos."""

import json
import tempfile
from pathlib import Path

import pytest
from campaign.graphs import prompt_of
from campaign.inputs import PAYLOADS
from campaign.paths import SECRET, paths_outside, secrets, swept
from interface import ours
from listener import listening

from cil_pack.workflows import page as page_of

pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
CONTROL = "1.32.9"  # the page of the host that the tests fetch
needs_page = pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")


def outcome(host, prompt):
    """-> (the words of its failure or None, everything that anyone is told of it)."""
    entry = host.run(prompt, seconds=120)
    status = entry["status"]
    told = json.dumps(status, ensure_ascii=False) + json.dumps(entry["outputs"], ensure_ascii=False)
    if status["status_str"] == "refused":
        return told, told
    return dict(status["messages"]).get("execution_error", {}).get("exception_message"), told


def test_no_choice_takes_another_text(host, info):
    """Each combo of each node that the demo can feed, given what it does not offer: refused in words that name it."""
    tried = 0
    for name, node in ours(info).items():
        for one, spec in (node["input"].get("required", {}) | node["input"].get("optional", {})).items():
            empty = '"options": []' in json.dumps(node["input"])  # a folder of models that is empty here
            if (spec[0] == "COMBO" or isinstance(spec[0], list)) and "CIL_CLIPS" not in str(node["input"]) and not empty:
                words, _ = outcome(host, prompt_of(info, name, {one: "/etc/passwd"}))
                assert words and one in words and "/etc/passwd" in words, (name, one, words)
                tried += 1
    assert tried >= 12


@pytest.fixture(scope="module")
def outside():
    """A folder that no graph may read."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        yield secrets(Path(folder))


@pytest.fixture(scope="module")
def listener():
    with listening() as heard:
        yield heard


@pytest.mark.parametrize("name", ["CILEstimateMoments", "CILPrepareClips"])
def test_no_path_leads_out(host, info, outside, listener, name):
    """Refused at once, in words, with nothing of what lies there in any message, output, result or log."""
    address, asked = listener
    ways = paths_outside(host, outside, address)
    try:
        assert len(ways) >= 50
        for way in ways:
            words, told = outcome(host, prompt_of(info, name, {"folder": way}))
            assert words and ("clips" in words or "video" in words), (way, words)
            told = told.replace(json.dumps(way), "")  # what was sent may come back
            assert SECRET not in told and "root:" not in told, (way, words)
            assert len(words) < 600, (way, words)
    finally:
        swept(host)
    assert not asked
    assert SECRET not in host.read_log()
    kept = [p for folder in ("output", "models") for p in (host.base / folder).rglob("*") if p.is_file()]
    assert not [p for p in kept if SECRET.encode() in p.read_bytes()]


def test_a_registered_folder_is_read(host, info):
    """The same node takes a folder that extra_model_paths.yaml names, so the test above refuses for the right reason."""
    assert "registered holds no videos" in outcome(host, prompt_of(info, "CILEstimateMoments", {"folder": str(host.base / "registered")}))[0]


# ---- the page, last: while it is open, no other loop of events can run here --------------


@pytest.fixture(scope="module")
def page(host):
    with page_of.browser() as browser:
        yield page_of.opened(browser, host.url)


def shown(page, kind, text, way):
    """What a node of this kind shows of a note: sent as the server sends it, in a saved graph, or with the node's results."""
    return page.evaluate(
        """async ([kind, text, way]) => {
        window.ran = 0;
        window.app.graph.clear();
        const node = window.LiteGraph.createNode(kind);
        window.app.graph.add(node);
        window.app.canvas.ds.reset();
        if (way === "event") window.app.api.dispatchCustomEvent("cil.note", {node: String(node.id), text, prompt_id: "", workflow: ""});
        if (way === "results") window.app.api.dispatchCustomEvent("executed", {node: String(node.id), output: {text: [text]}, prompt_id: ""});
        if (way === "graph") {
            const saved = window.app.graph.serialize();
            saved.nodes[0].properties.cil_note = text;
            await window.app.loadGraphData(saved);
        }
        const field = () => [...document.querySelectorAll("textarea")].find(e => e.readOnly);
        for (let i = 0; i < 100 && !field(); i++) await new Promise(done => setTimeout(done, 100));
        await new Promise(done => setTimeout(done, 500));
        for (const e of document.querySelectorAll(".dom-widget *")) { e.dispatchEvent(new MouseEvent("mouseover", {bubbles: true})); e.dispatchEvent(new Event("error")); }
        await new Promise(done => setTimeout(done, 200));
        return {ran: window.ran, text: field()?.value, tags: [...document.querySelectorAll(".dom-widget")].flatMap(e => [...e.querySelectorAll("img, svg, script, a, iframe, b")]).map(e => e.tagName)};
    }""",
        [kind, text, way],
    )


@needs_page
@pytest.mark.parametrize("way", ["event", "results", "graph"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_note_is_shown_as_it_is_and_runs_nothing(page, payload, way):
    assert shown(page, "CILEarlyStart", payload, way) == {"ran": 0, "text": payload, "tags": []}


@needs_page
@pytest.mark.parametrize("note", [{"a": 1}, ["x"], 3, None, ""])
def test_a_note_that_is_no_text_is_none(page, note):
    seen = page.evaluate(
        """async note => {
        window.app.graph.clear();
        window.app.graph.add(window.LiteGraph.createNode("CILEarlyStart"));
        const saved = window.app.graph.serialize();
        saved.nodes[0].properties.cil_note = note;
        await window.app.loadGraphData(saved);
        return window.app.graph._nodes[0].widgets.map(w => w.name);
    }""",
        note,
    )
    assert "note" not in seen


@needs_page
def test_the_page_would_run_it(page):
    """As the host's own progress text the first payload runs: the test above can fail."""
    ran = page.evaluate(
        """async text => {
        window.ran = 0;
        window.app.graph.clear();
        const node = window.LiteGraph.createNode("KSampler");
        window.app.graph.add(node);
        window.app.canvas.ds.reset();
        window.app.api.dispatchCustomEvent("progress_text", {nodeId: String(node.id), text});
        for (let i = 0; i < 100 && !window.ran; i++) {
            for (const e of document.querySelectorAll(".dom-widget *")) e.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
            await new Promise(done => setTimeout(done, 100));
        }
        return window.ran;
    }""",
        PAYLOADS[0],
    )
    if not ran and page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__") != CONTROL:
        pytest.skip(f"this page no longer runs it: the control is page {CONTROL}")
    assert ran
