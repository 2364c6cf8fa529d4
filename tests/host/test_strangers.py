"""What a graph from a stranger must not be able to do: run script in the page, read files, leave its combos."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from interface import ours
from listener import listening

from cil_pack.workflows import page as page_of

pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
needs_page = pytest.mark.skipif(not page_of.chromium(), reason="the page's tests need Chromium")

PAYLOADS = [
    "<img src=x onerror=window.ran=1>",
    "<svg/onload=window.ran=1>",
    "\"><script>window.ran=1</script><iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    '[[<img src=x onerror=window.ran=1>|javascript:window.ran=1]] http://x/"onmouseover=window.ran=1',
    "http://a.example/__LNK0__ [[z|https://x.example/ onmouseover=window.ran=1 style=position:fixed;inset:0 y=]]",
]
SECRET = "s3cret-in-a-file"


def prompt_of(info, name, changed):
    """A graph that runs one node alone: its things from the demo's nodes, its settings as they are by default but the changed ones."""
    prompt = {
        "m": {"class_type": "CILLoadDemoModel", "inputs": {"checkpoint": "leaking"}},
        "s": {"class_type": "CILDemoScene", "inputs": {"seed": 0, "motion_bucket_id": 60, "frames": 2}},
        "c": {
            "class_type": "SVD_img2vid_Conditioning",
            "inputs": {
                "clip_vision": ["m", 1],
                "init_image": ["s", 0],
                "vae": ["m", 2],
                "width": 128,
                "height": 128,
                "video_frames": 2,
                "motion_bucket_id": 60,
                "fps": 6,
                "augmentation_level": 0.0,
            },
        },
        "g": {"class_type": "BasicScheduler", "inputs": {"model": ["m", 0], "scheduler": "karras", "steps": 1, "denoise": 1.0}},
        "k": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "u": {"class_type": "CFGGuider", "inputs": {"model": ["m", 0], "positive": ["c", 0], "negative": ["c", 1], "cfg": 1.0}},
        "l": {"class_type": "CILLoadMoments", "inputs": {"moments_name": "demo.safetensors", "detail": "channel"}},
    }
    things = {
        "MODEL": ["m", 0],
        "CLIP_VISION": ["m", 1],
        "VAE": ["m", 2],
        "IMAGE": ["s", 1],
        "CONDITIONING": ["c", 0],
        "LATENT": ["c", 2],
        "SIGMAS": ["g", 0],
        "SAMPLER": ["k", 0],
        "GUIDER": ["u", 0],
        "CIL_MOMENTS": ["l", 0],
    }
    inputs, of = {}, info[name]["input"]
    encoders = {one: spec for one, spec in of.get("optional", {}).items() if spec[0] in ("VAE", "CLIP_VISION")}
    for one, spec in (of.get("required", {}) | encoders).items():
        options = spec[1] if len(spec) > 1 else {}
        choices = spec[0] if isinstance(spec[0], list) else options.get("options")
        inputs[one] = things[spec[0]] if not choices and spec[0] in things else options.get("default", choices[0] if choices else "")
    prompt["n"] = {"class_type": name, "inputs": inputs | changed}
    prompt["p"] = {"class_type": "PreviewAny", "inputs": {"source": ["n", 0]}}
    return prompt


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
    """A folder that no graph may read, with a text, a video's name, a pipe in it."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        folder = Path(folder)
        (folder / "secret.txt").write_text(f"{SECRET}\n{SECRET}.mp4\n")
        (folder / "secret.mp4").write_text(SECRET)
        os.mkfifo(folder / "pipe.txt")
        yield folder


@pytest.fixture(scope="module")
def listener():
    with listening() as heard:
        yield heard


def paths_outside(host, outside, address):
    """Fifty ways out: straight, by dots, by links, by lists, by pipes, by the net."""
    inside = host.base / "input"
    straight = [
        "/",
        "/etc",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/zero",
        "/dev/stdin",
        "/home",
        "/tmp",
        str(outside),
        *(str(p) for p in sorted(outside.iterdir())),
    ]
    dots = [
        "..",
        "../..",
        "../../../../../../etc/passwd",
        "x/../../..",
        "./..",
        "../custom_nodes",
        "../user",
        "../models",
        "~",
        "~/..",
        "$HOME",
        f"../../../../../../../..{outside}",
    ]
    net = [f"{scheme}://{address}/a.mp4" for scheme in ("http", "https", "ftp", "tcp", "udp", "file", "rtmp", "concat", "data", "crypto", "subfile")]
    links = []
    for i, target in enumerate([outside, outside / "secret.txt", outside / "pipe.txt", "/etc/passwd", "/"]):
        (inside / f"link{i}").symlink_to(target)
        links.append(f"link{i}")
    lines = [
        str(outside / "secret.mp4"),
        "../../../../etc/passwd",
        f"http://{address}/a.mp4",
        f"tcp://{address}/a.mp4",
        "link0/secret.mp4",
        SECRET,
        f"{SECRET}.mp4",
    ]
    for i, line in enumerate(lines):
        (inside / f"list{i}.txt").write_text(line + "\n")
    os.mkfifo(inside / "pipe.txt")
    return [*straight, *dots, *net, *links, *(f"list{i}.txt" for i in range(len(lines))), "pipe.txt", "link0/secret.txt"]


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
        for path in (host.base / "input").iterdir():
            if path.name.startswith(("link", "list", "pipe")):
                path.unlink()
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
    assert ran
