"""The real page in headless Chromium: every workflow opens whole, and the demo runs from it."""

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="the page's tests need Chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def page(host):
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 2800, "height": 1500})
        page.problems = []
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.goto(host.url, timeout=120_000)
        page.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=120_000)
        page.wait_for_timeout(3000)
        yield page
        browser.close()


WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))


def open_workflow(page, path):
    page.evaluate("data => window.app.loadGraphData(data)", json.loads(path.read_text(encoding="utf-8")))
    page.wait_for_timeout(1500)


def boxes(page):
    """Every node's rectangle with its title bar, as the page has laid it out."""
    return page.evaluate("""() => window.app.graph._nodes.map(n => {
        const [x, y, w, h] = n.getBounding();
        return {type: n.type, known: !!window.LiteGraph.registered_node_types[n.type], x, y, w, h};
    })""")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_opens_whole(page, path, artifacts):
    name = path.stem
    page.problems.clear()
    open_workflow(page, path)
    page.keyboard.press(".")  # the page's own "fit the view to the graph"
    page.wait_for_timeout(800)
    page.screenshot(path=artifacts / f"{name}.png")
    found = boxes(page)
    assert all(b["known"] for b in found), [b["type"] for b in found if not b["known"]]
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert apart, f"{a['type']} and {b['type']} overlap in {name}"
    # the page asks its makers' server about node packs, which its own policy forbids offline
    assert not [p for p in page.problems if "Content Security Policy" not in p]


def test_the_templates_list_them(host):
    listed = host.get("/api/workflow_templates")
    assert set(listed["comfyui-cil"]) == {p.stem for p in WORKFLOWS}


def test_every_workflow_has_a_small_thumbnail(host):
    for path in WORKFLOWS:
        data = host.request(f"/api/workflow_templates/comfyui-cil/{path.stem}.jpg")
        assert len(data) < 40_000, f"{path.stem}.jpg"
        assert Image.open(io.BytesIO(data)).size == (512, 512)


def test_the_demo_runs_from_the_page(page, root, host, artifacts):
    open_workflow(page, root / "workflows" / "demo.json")
    page.evaluate("() => window.app.queuePrompt(0)")
    page.wait_for_function("() => window.app.graph._nodes.some(n => n.type === 'SaveImage' && n.imgs && n.imgs.length)", timeout=300_000)
    page.wait_for_timeout(2000)
    page.screenshot(path=artifacts / "demo_finished.png")
    texts = page.evaluate("() => window.app.graph._nodes.filter(n => n.type === 'CILEarlyStart').flatMap(n => (n.widgets || []).map(w => String(w.value)))")
    assert any("starts at sigma" in t for t in texts), texts


def test_the_page_sends_the_api_twin(page):
    """What the page would queue is the graph in workflows/api, socket for socket."""
    for path in WORKFLOWS:
        open_workflow(page, path)
        sent = page.evaluate("async () => (await window.app.graphToPrompt()).output")
        twin = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
        for node in sent.values():
            node["inputs"].pop("video-preview", None)  # the page's own widget, no input of LoadVideo
        assert {k: (v["class_type"], v["inputs"]) for k, v in sent.items()} == {k: (v["class_type"], v["inputs"]) for k, v in twin.items()}, path.name
