"""The real page in headless Chromium: every workflow opens whole, and the demo runs from it.

The host brings its page as a package of its own, which people update by itself, so a much newer
one is tried as well.
"""

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from urllib.parse import quote

import chinese
import pytest
from PIL import Image

from cil_pack.workflows import make, recipes
from cil_pack.workflows import page as page_of

PageTimeout = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright").TimeoutError
pytestmark = pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")

NEWER_PAGE = "comfyui-frontend-package==1.58.1"
FILES = ("ckpt_name", "lora_name", "unet_name", "clip_name", "vae_name", "image", "file", "folder")  # widgets whose files a user has and this machine has not


@pytest.fixture(scope="module")
def browser():
    with page_of.browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, host):
    return page_of.opened(browser, host.url)


WORKFLOWS = {recipe.__name__: make.page_file(recipe.__name__) for recipe in recipes.WORKFLOWS}
TEMPLATES = [WORKFLOWS[name] for name in recipes.TEMPLATES]


def open_workflow(page, path):
    page.evaluate("data => window.app.loadGraphData(data)", json.loads(path.read_text(encoding="utf-8")))
    page.wait_for_timeout(1500)


def open_templates(page):
    """The host's template browser, at the pack's own list."""
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("i2v-motion").first.click(timeout=30_000)


def close_templates(page):
    """By the cross, where it is the older pages' one."""
    cross = page.locator(".p-dialog-mask .pi-times")
    if cross.count():
        cross.last.click()
    else:
        page.keyboard.press("Escape")
    page.locator("[data-testid^=template-workflow-]").first.wait_for(state="hidden", timeout=30_000)


def open_template(page, path, artifacts, tries=3):
    """Click a workflow's card, as a user does: again if the list moved away below the pointer, as it does while it grows."""
    wanted = len(json.loads(path.read_text(encoding="utf-8"))["nodes"])
    for left in reversed(range(tries)):
        page.evaluate("() => window.app.graph.clear()")
        open_templates(page)
        card = page.get_by_test_id(f"template-workflow-{path.stem}")
        for _ in range(60):  # the list grows as one scrolls
            if card.count():
                break
            page.wait_for_timeout(500)
            shown = page.locator("[data-testid^=template-workflow-]")
            if shown.count():
                shown.last.scroll_into_view_if_needed(timeout=30_000)
        card.scroll_into_view_if_needed(timeout=30_000)
        page.wait_for_timeout(500)
        card.click(timeout=30_000)
        try:
            return page.wait_for_function("wanted => window.app.graph._nodes.length === wanted", arg=wanted, timeout=30_000)
        except PageTimeout:
            page.screenshot(path=artifacts / f"{path.stem}_not_opened.png")
            if not left:
                raise
            page.keyboard.press("Escape")


def boxes(page):
    """Every node's rectangle with its title bar, as the page has laid it out."""
    return page.evaluate("""() => window.app.graph._nodes.map(n => {
        const [x, y, w, h] = n.getBounding();
        return {type: n.type, known: !!window.LiteGraph.registered_node_types[n.type], x, y, w, h};
    })""")


def out_of_range(page):
    """Widgets of the open graph whose value the page would not offer."""
    widgets = page.evaluate("""() => window.app.graph._nodes.flatMap(n => (n.widgets || []).map(w => {
        const {min, max, values} = w.options || {};
        const offered = typeof values === "function" ? values(w, n) : values;
        return {node: n.type, name: w.name, kind: w.type, value: w.value, min, max, offered: Array.isArray(offered) ? offered : null};
    }))""")
    wrong = []
    for w in widgets:
        if w["kind"] == "number":
            right = w.get("min", w["value"]) <= w["value"] <= w.get("max", w["value"])
        else:
            right = w["kind"] != "combo" or w["offered"] is None or w["name"] in FILES or w["value"] in w["offered"]
        wrong += [] if right else [f"{w['node']}.{w['name']} = {w['value']}"]
    assert any(w["kind"] in ("number", "combo") for w in widgets)
    return wrong


def assert_whole(page, name):
    """No unknown node, no two that overlap, no widget out of range and no error since `problems` was cleared."""
    found = boxes(page)
    assert all(b["known"] for b in found), [b["type"] for b in found if not b["known"]]
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert apart, f"{a['type']} and {b['type']} overlap in {name}"
    assert not out_of_range(page)
    # the page asks its makers' server about node packs, which its own policy forbids offline, an older host's templates for lists of later ones,
    # and where a graph's models can be downloaded how large they are
    lists = ("/templates/index_logo.json", "/templates/fuse_options.json", "Error loading fuse options")
    theirs = ("Content Security Policy", *lists, "ERR_NAME_NOT_RESOLVED https://huggingface.co/")
    assert not [p for p in page.problems if not any(known in p for known in theirs)]


# the dial's node alone is as high as the screen; their notes and results stand on it all the same
HIGHER_THAN_A_SCREEN = {"wan22_dial": 1.2, "demo_dial": 1.2}


@pytest.mark.parametrize("name", recipes.TEMPLATES)
def test_the_first_screen_of_a_template_holds_all_of_it(name):
    """At the zoom that the file asks for, at which the page still writes a node's words."""
    graph = json.loads(WORKFLOWS[name].read_text(encoding="utf-8"))
    scale, offset = graph["extra"]["ds"]["scale"], graph["extra"]["ds"]["offset"]
    assert scale >= 0.6
    at = lambda n, right, down: [
        scale * (n["pos"][0] + right * n["size"][0] + offset[0]),
        scale * (n["pos"][1] + down * n["size"][1] - 30 * (1 - down) + offset[1]),
    ]
    more = HIGHER_THAN_A_SCREEN.get(name, 1.0)
    for node in graph["nodes"]:
        (left, top), (right, bottom) = at(node, 0, 0), at(node, 1, 1)
        assert left >= 60 and top >= 110, node["type"]  # the page's bar and tabs
        assert right <= 1920 * more and bottom <= 1080 * more, node["type"]


def lacking(info, path):
    """The kinds of nodes of a workflow that this host has not; the page shows a dialog over everything then."""
    name = next(name for name, file in WORKFLOWS.items() if file == path)
    return sorted({node["class_type"] for node in json.loads(make.api_file(name).read_text(encoding="utf-8")).values()} - info.keys())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_a_template_opens_whole(page, info, path, artifacts):
    if lacking(info, path):
        pytest.skip(f"this host has no {', '.join(lacking(info, path))}")
    name = path.stem
    page.problems.clear()
    open_template(page, path, artifacts)
    page.wait_for_timeout(1000)
    page.keyboard.press(".")  # the page's own "fit the view to the graph"
    page.wait_for_timeout(800)
    page.screenshot(path=artifacts / f"{name}.png")
    assert_whole(page, name)


def test_the_other_examples_open_whole(page, info):
    for path in WORKFLOWS.values():
        if path not in TEMPLATES and not lacking(info, path):
            page.problems.clear()
            open_workflow(page, path)
            assert_whole(page, path.stem)


def test_the_templates_list_at_most_eight_in_order(host):
    listed = host.get("/api/workflow_templates")["i2v-motion"]
    assert sorted(listed) == [p.stem for p in TEMPLATES] and len(listed) <= 8


def test_every_workflow_has_a_small_thumbnail(host):
    for path in TEMPLATES:
        data = host.request(f"/api/workflow_templates/i2v-motion/{quote(path.stem)}.jpg")
        assert len(data) < 40_000, f"{path.stem}.jpg"
        assert Image.open(io.BytesIO(data)).size == (512, 512)


def test_the_template_browser_shows_the_thumbnails(page, artifacts):
    open_templates(page)
    cards = "[...document.querySelectorAll('[data-testid^=template-workflow-] img')].filter(i => i.complete && i.naturalWidth === 512)"
    page.wait_for_function(f"() => {cards}.length >= 8", timeout=60_000)  # it loads more of them as one scrolls
    page.screenshot(path=artifacts / "templates.png")
    close_templates(page)


def show_help(page, kind):
    """Open a node's help in the page as a user does: select the node, press its info button. -> the help's text"""
    page.evaluate(
        """kind => {
        window.app.graph.clear();
        const node = window.LiteGraph.createNode(kind);
        node.pos = [600, 300];
        window.app.graph.add(node);
        window.app.canvas.ds.reset();
        window.app.canvas.setDirty(true, true);
        requestAnimationFrame(() => requestAnimationFrame(() => window.app.canvas.selectItems([node])));
    }""",
        kind,
    )
    page.get_by_test_id("info-button").click(timeout=30_000)
    return page.locator(".node-help-content")


def test_a_help_page_renders_with_its_pictures(page, artifacts):
    text = show_help(page, "CILEarlyStart")
    text.get_by_role("heading", name="What it does").wait_for(timeout=30_000)
    page.wait_for_function(
        "() => { const p = [...document.querySelectorAll('.node-help-content img')]; return p.length >= 2 && p.every(i => i.complete && i.naturalWidth > 0); }",
        timeout=30_000,
    )
    page.screenshot(path=artifacts / "help.png")


def seed_controls(page):
    """Of new nodes: what the page will do to the seed after a run."""
    return page.evaluate("""() => Object.fromEntries(["CILPrepareClips", "CILTimeNoiseTrain", "CILEstimateMoments", "CILMotionDial", "KSampler"].map(kind => {
        window.app.graph.clear();
        const node = window.LiteGraph.createNode(kind);
        window.app.graph.add(node);
        return [kind, node.widgets.find(w => w.name === "control_after_generate").value];
    }))""")


FIXED = {"CILPrepareClips": "fixed", "CILTimeNoiseTrain": "fixed", "CILEstimateMoments": "fixed", "CILMotionDial": "fixed", "KSampler": "randomize"}


def test_seeds_of_work_that_is_kept_stay(page):
    """A second run goes on with the first one's work; the host's own nodes are left alone, and a graph's own choice stays."""
    assert seed_controls(page) == FIXED
    kept = page.evaluate("""async () => {
        window.app.graph.clear();
        const node = window.LiteGraph.createNode("CILPrepareClips");
        window.app.graph.add(node);
        node.widgets.find(w => w.name === "control_after_generate").value = "increment";
        await window.app.loadGraphData(window.app.graph.serialize());
        return window.app.graph._nodes[0].widgets.map(w => [w.name, w.value]);
    }""")
    assert dict(kept)["control_after_generate"] == "increment" and dict(kept)["flip"] is False


def in_chinese(browser, host, screenshot):
    """The page in Chinese with an Early Start and its help -> its title and the names of its sockets."""
    host.request("/settings/Comfy.Locale", "zh")
    try:
        page = page_of.opened(browser, host.url)
        show_help(page, "CILEarlyStart").get_by_role("heading", name="它做什么").wait_for(timeout=30_000)
        page.screenshot(path=screenshot)
        seen = page.evaluate("""() => {
            const [node] = window.app.graph._nodes;
            return {title: node.title, inputs: Object.fromEntries(node.inputs.map(i => [i.name, i.localized_name])), outputs: node.outputs.map(o => o.localized_name)};
        }""")
        page.close()
    finally:
        host.request("/settings/Comfy.Locale", "en")
    return seen


def test_the_help_in_chinese(browser, host, artifacts):
    """This page loses the names of every pack's nodes in a language that it loads late (mended in 1.35), not their help."""
    in_chinese(browser, host, artifacts / "chinese.png")


def test_what_is_said_is_said_in_chinese(browser, host, artifacts):
    """An error beside the host's own dialog, which is English; and the page's script agrees with its double in tests/chinese.py on every sentence."""
    host.request("/settings/Comfy.Locale", "zh")
    try:
        tab = page_of.opened(browser, host.url)
        open_workflow(tab, WORKFLOWS["demo"])
        tab.evaluate("""() => { const [early] = window.app.graph._nodes.filter(n => n.type === "CILEarlyStart");
            for (const w of early.widgets) if (w.name === "start_as") w.value = "sigma"; else if (w.name === "start") w.value = 1; }""")
        tab.get_by_test_id("queue-button").click()
        tab.get_by_text("只有作为比例时才是普通起点").first.wait_for(timeout=60_000)
        tab.screenshot(path=artifacts / "chinese_error.png")
        sentences = chinese.learnt(chinese.known())
        filled = [re.sub(r"\{(\d+)\}", lambda hole: str(10 + int(hole[1])), english) for english in chinese.known()]
        filled += [f"{a}; {b}" for a, b in itertools.pairwise(filled)] + [f"{a}\n{b}." for a, b in zip(filled, filled[2:])]
        source = next(path for path in host.get("/extensions") if path.endswith("/chinese.js"))
        said = tab.evaluate("async ([url, texts]) => { const { translated } = await import(url); return texts.map(t => translated(t)); }", [source, filled])
        tab.close()
    finally:
        host.request("/settings/Comfy.Locale", "en")
    assert said == [chinese.translated(text, sentences) for text in filled]


def notes(page, kind):
    """The notes that the open graph's nodes of a kind show, each in its read-only field."""
    return page.evaluate(
        "kind => window.app.graph._nodes.filter(n => n.type === kind).flatMap(n => (n.widgets || []).filter(w => w.name === 'note').map(w => String(w.value)))",
        kind,
    )


SHORT = {"steps": 4, "levels": 3, "draws": 1, "most_clips": 4, "starts": "700, 20", "seeds": 1, "budget": 2, "video_frames": 4}


def make_short(page, path, **settings):
    """Fewer steps, frames and tries in the widgets of a graph that is open; the simulated leak makes clips of one length alone."""
    short = {**SHORT, **settings}
    if "CILSimulatedLeak" in path.read_text(encoding="utf-8"):
        del short["video_frames"]
    page.evaluate("""short => window.app.graph._nodes.forEach(n => (n.widgets || []).forEach(w => { if (w.name in short) w.value = short[w.name]; }))""", short)


def notes_stay(browser, url, artifacts, name):
    """Run the demo in a page: the notes of its nodes before and after the job's end, saved, opened again, and in what is queued."""
    tab = page_of.opened(browser, url)
    open_workflow(tab, WORKFLOWS["demo"])
    make_short(tab, WORKFLOWS["demo"], steps=5)  # what has not run yet
    queued = "async () => Object.values((await window.app.graphToPrompt()).output).find(n => n.class_type === 'CILEarlyStart')"
    asked = tab.evaluate(queued)
    tab.evaluate("""() => { window.seen = null; window.app.api.addEventListener("executing", e => {
        if (!window.seen && e.detail !== null) window.seen = window.app.graph._nodes.flatMap(n => (n.widgets || []).filter(w => w.name === "note").map(w => w.value));
        if (window.seen && !window.seen.length) window.seen = null;
    }); window.over = false; window.app.api.addEventListener("execution_success", () => { window.over = true; }); }""")
    tab.get_by_test_id("queue-button").click()
    tab.wait_for_function("() => window.seen || window.over", timeout=300_000)
    tab.keyboard.press(".")
    tab.screenshot(path=artifacts / f"note_{name}_1_running.png")
    tab.wait_for_function("() => window.over", timeout=300_000)
    tab.wait_for_timeout(3000)
    tab.screenshot(path=artifacts / f"note_{name}_2_after.png")
    after = notes(tab, "CILEarlyStart")
    saved = tab.evaluate("() => window.app.graph.serialize()")
    assert tab.evaluate(queued) == asked  # nothing is sent, so nothing is made anew
    tab.wait_for_timeout(2000)  # the page writes its draft a moment after a change
    tab.reload()
    tab.wait_for_function("window.app && window.app.graph && window.app.graph._nodes && window.app.graph._nodes.length", timeout=120_000)
    tab.wait_for_timeout(4000)
    reloaded = notes(tab, "CILEarlyStart")
    tab.keyboard.press(".")
    tab.wait_for_timeout(800)
    tab.screenshot(path=artifacts / f"note_{name}_3_reloaded.png")
    tab.evaluate("async saved => { window.app.graph.clear(); await window.app.loadGraphData(saved); }", saved)
    opened = notes(tab, "CILEarlyStart")
    values = tab.evaluate(
        "() => window.app.graph._nodes.map(n => [n.type, (n.widgets || []).filter(w => w.name !== 'note' && w.serialize !== false).map(w => w.value)])"
    )
    tab.close()
    assert len(after) == 1 and "starts at sigma" in after[0]
    assert reloaded == opened == after
    early = next(n for n in saved["nodes"] if n["type"] == "CILEarlyStart")
    assert early["widgets_values"] == next(v for kind, v in values if kind == "CILEarlyStart")
    return after[0]


def test_notes_stay(browser, host, artifacts):
    note = notes_stay(browser, host.url, artifacts, "page")
    ((prompt_id, entry),) = host.get("/history?max_items=1").items()
    early = next(id for id, node in entry["prompt"][2].items() if node["class_type"] == "CILEarlyStart")
    assert entry["outputs"][early]["text_at_sampling"] == [{prompt_id: note}]


DEMOS = [path for name, path in WORKFLOWS.items() if name.startswith("demo")]


@pytest.mark.parametrize("path", DEMOS, ids=lambda p: p.stem)
def test_a_demo_runs_from_the_page(page, path, artifacts):
    """Opened, made short in its widgets, and run by the page's own button; what it made shows in its nodes."""
    open_workflow(page, path)
    make_short(page, path)
    page.get_by_test_id("queue-button").click()
    previews = "window.app.graph._nodes.filter(n => n.type === 'SaveImage')"
    page.wait_for_function(f"() => {previews}.length && {previews}.every(n => n.imgs && n.imgs.length)", timeout=300_000)
    page.wait_for_timeout(1500)
    page.screenshot(path=artifacts / f"{path.stem}_finished.png")
    texts = list(notes(page, "CILEarlyStart"))
    early = "CILEarlyStart" in path.read_text(encoding="utf-8")
    assert any("starts at sigma" in t for t in texts) == early, texts


def defaults(node):
    """{input: what it stands at} of a node of the host."""
    return {
        name: spec[1]["default"]
        for group in node["input"].values()
        if isinstance(group, dict)
        for name, spec in group.items()
        if "default" in (spec[1:] or [{}])[0]
    }


def test_the_page_sends_the_api_twin(page, info):
    """What the page would queue is the graph in workflows/api, socket for socket; what a later host has added stands as it comes."""
    for name, path in WORKFLOWS.items():
        if lacking(info, path):
            continue
        open_workflow(page, path)
        sent = page.evaluate("async () => (await window.app.graphToPrompt()).output")
        twin = json.loads(make.api_file(name).read_text(encoding="utf-8"))
        for node in sent.values():
            node["inputs"].pop("video-preview", None)  # the page's own widget, no input of LoadVideo
        for number, node in sent.items():
            added = {name: value for name, value in node["inputs"].items() if name not in twin[number]["inputs"]}
            own = {name: value for name, value in added.items() if name.split(".")[0] not in twin[number]["inputs"]}  # the others belong to a choice
            assert own.items() <= defaults(info[node["class_type"]]).items(), (path.name, added)
            moved = {name.split(".")[-1] for name in added.keys() - own.keys()}
            for inputs in (node["inputs"], twin[number]["inputs"]):
                for name in [*added, *moved]:
                    inputs.pop(name, None)
        assert {k: (v["class_type"], v["inputs"]) for k, v in sent.items()} == {k: (v["class_type"], v["inputs"]) for k, v in twin.items()}, path.name


@pytest.fixture(scope="module")
def newer_host(host, root, tmp_path_factory):
    folder = root / ".run" / NEWER_PAGE.replace("==", "-")
    if not folder.exists():
        partial = folder.with_suffix(".part")
        done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(partial), NEWER_PAGE], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{NEWER_PAGE} cannot be had: {done.stderr[-300:]}")
        partial.rename(folder)
    base = tmp_path_factory.mktemp("newer")
    shutil.copytree(host.base / "input", base / "input")
    with sys.modules["cil_run"].server(base, arguments=("--front-end-root", folder / "comfyui_frontend_package" / "static")) as running:
        yield running


# by a name alone, and by the words that newer hosts hand on; wan and svd find the host's own nodes first, whose names begin with them
BY_NAME = {"motion": "CILMotionDial", "dial": "CILMotionDial", "slow": "CILPreflight", "leak": "LeakageProbe"}
BY_WORDS = {"still": "CILPreflight", "static": "CILPreflight", "frozen": "CILPreflight", "lightx2v": "CILMotionGain"}


def test_what_a_user_types_finds_the_right_node_first(page, info):
    """By the search of the page itself."""
    words = BY_NAME | (BY_WORDS if "search_aliases" in info["CILMotionDial"] else {})
    first = page.evaluate(
        """words => {
        const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s;
        return words.map(word => stores.get("nodeDef").nodeSearchService.searchNode(word, [], {limit: 64})[0]?.name);
    }""",
        list(words),
    )
    assert dict(zip(words, first)) == words


def test_every_workflow_opens_whole_in_a_newer_page(browser, newer_host, info, artifacts):
    page = page_of.opened(browser, newer_host.url)
    for path in (path for path in WORKFLOWS.values() if not lacking(info, path)):
        page.problems.clear()
        open_workflow(page, path)
        assert_whole(page, path.stem)
    page.screenshot(path=artifacts / "newer_page.png")
    page.close()


def test_notes_stay_in_a_newer_page(browser, newer_host, artifacts):
    notes_stay(browser, newer_host.url, artifacts, "newer_page")


def test_seeds_of_work_that_is_kept_stay_in_a_newer_page(browser, newer_host):
    page = page_of.opened(browser, newer_host.url)
    assert seed_controls(page) == FIXED
    page.close()


def test_a_newer_page_in_chinese(browser, newer_host, root, artifacts):
    names = json.loads((root / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["CILEarlyStart"]
    seen = in_chinese(browser, newer_host, artifacts / "chinese_newer_page.png")
    assert seen["title"] == names["display_name"]
    assert seen["inputs"] == {name: names["inputs"][name]["name"] for name in seen["inputs"]}
    assert seen["outputs"] == [names["outputs"]["0"]["name"]]
