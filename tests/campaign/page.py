"""Script in every text and choice of every node, and in every text of a file that a node reads, in real Chromium, run from the page itself.

All cases of one script stand in one graph, each with an end of its own that the page is asked to run (`queueNodeIds`), so the
page is opened five times and not five hundred. Each chunk of them is run, then everything that the page shows is touched.
"""

import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cil_pack.cil import prepared
from cil_pack.cil.training import Clip
from cil_pack.workflows import page as page_of

from . import verdict
from .files import metadata_of
from .graphs import choices_of, inputs_of, prompt_of
from .inputs import PAYLOADS

CHUNK = 12  # cases between two looks
OPEN = """async ([prompt, title]) => {
    window.ran = 0;
    window.app.graph.clear();
    await window.app.loadApiJson(prompt, "campaign");
    for (const n of window.app.graph._nodes) if (String(n.id).startsWith("n")) n.title = title;
    window.app.canvas.ds.reset();
    window.app.canvas.draw(true, true);
}"""
QUEUE = "async ends => { for (const end of ends) await window.app.queuePrompt(0, 1, [end]); }"
TOUCH = """() => {
    for (const e of document.querySelectorAll(".dom-widget *, .p-dialog *, .p-toast *, [role=dialog] *, [role=alert] *")) {
        e.dispatchEvent(new MouseEvent("mouseover", {bubbles: true})); e.dispatchEvent(new Event("error"));
    }
}"""
CONTROL = "text => { window.ran = 0; const place = document.createElement('div'); document.body.append(place); place.innerHTML = text; }"


def places(info, names):
    """Every text and every choice: (node, input)."""
    return [(name, one) for name in names for one, (spec, _) in inputs_of(info, name).items() if spec[0] == "STRING" or choices_of(spec) is not None]


def placed(about, place, text):
    """A copy of a file's description in which a text stands at one place: a key and what lies below it; "key" is a new key itself."""
    out = json.loads(json.dumps(about))
    at = out
    for step in place[:-1]:
        at = at[step]
    if place[-1] == "key":
        at[text] = text
    else:
        at[place[-1]] = text
    return out


MOMENTS_PLACES = [("moments", "space"), ("moments", "count"), ("moments", "about", "source"), ("moments", "about", "key"), ("format",), ("version",)]
SET_PLACES = [
    ("clips", "names", 0), ("clips", "settings", "space"), ("clips", "settings", "captions"), ("clips", "settings", "key"), ("clips", "skipped", 0, 0),
    ("clips", "skipped", 0, 1), ("clips", "motion", 0), ("clips", "texts", 0), ("format",), ("version",),
]  # fmt: skip


def write(path, tensors, about):
    """A safetensors file whose metadata are this dict's, what is no text in it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()})


def read(path):
    """-> (tensors, metadata with their JSON read)."""
    strings = metadata_of(path)
    return load_file(path), {key: json.loads(value) if value[:1] in "{[" else value for key, value in strings.items()}


def good_set(folder):
    """A data set as the pack writes it: two clips, one file skipped."""
    clip = Clip(torch.rand(4, 2, 16, 16), torch.rand(4, 16, 16), torch.rand(1, 1024), 1.0)

    def encode(item):
        if item == "c":
            raise prepared.Unreadable("is no video")
        return clip

    prepared.prepare(folder, {"space": "demo", "width": 128, "captions": 1}, ["a", "b", "c"], lambda item: item, encode)
    (shard,) = folder.glob("*.safetensors")
    return shard


def file_cases(base, info, payload, number):
    """The payload in each text of moments, of a data set and of files' names -> [(what, graph of the node `n`)]."""
    made, name = [], f"page{number}"
    whole = {"format": "cil-moments", "version": "1", "moments": {"space": "demo", "variance": 1.0, "count": 3, "about": {"source": "clips"}}}
    mean = {"mean": torch.zeros(4, 1, 1, 1)}
    moments = {".".join(place): (mean, placed(whole, place, payload)) for place in MOMENTS_PLACES} | {"tensor": (mean | {payload: torch.zeros(1)}, whole)}
    named = payload.replace("/", " ").replace("\\", " ")  # a file's name may hold anything else
    moments["name"] = mean, whole
    for k, (what, (tensors, about)) in enumerate(moments.items()):
        file = f"{named}.safetensors" if what == "name" else f"{name}-{k}.safetensors"
        write(base / "models" / "cil_moments" / file, tensors, about)
        made.append((f"moments file, {what}", prompt_of(info, "CILLoadMoments", {"moments_name": file})))
    sets = base / "output" / "cil" / "clips"
    tensors, about = read(good_set(base / "page-sets" / name))
    about["clips"]["texts"] = [None, None]
    for k, place in enumerate(SET_PLACES):
        write(sets / f"{name}-{k}" / "clips-000000.safetensors", tensors, placed(about, place, payload))
        prompt = prompt_of(info, "CILPrepareClips", {"folder": "", "name": f"{name}-{k}"}, cheap=True)
        prompt["h"] = prompt.pop("n")
        train = prompt_of(info, "CILTimeNoiseTrain", {"clips": ["h", 0]}, cheap=True)
        made.append((f"data set, {'.'.join(map(str, place))}", prompt | train))
    videos = base / "input" / name
    videos.mkdir(parents=True, exist_ok=True)
    (videos / f"{named}.mp4").write_bytes(b"no video")
    for node in ("CILEstimateMoments", "CILPrepareClips"):
        prompt = prompt_of(info, node, {"folder": name, "frames": 2, "width": 32, "height": 32, "name": f"{name}-new"}, cheap=True)
        prompt["n"]["inputs"].pop("images", None)
        made.append((f"{node}, a video's name", prompt))
    return made


def together(prompts):
    """Graphs that share what feeds them -> one of them all; the end of the k-th is `p<k>`."""
    out = {}
    for k, prompt in enumerate(prompts):
        own = {old: f"{old}{k}" for old in ("n", "p", "h") if old in prompt}
        for node_id, node in prompt.items():
            inputs = {one: [own.get(v[0], v[0]), v[1]] if isinstance(v, list) and v else v for one, v in node["inputs"].items()}
            out[own.get(node_id, node_id)] = {**node, "inputs": inputs}
    return out


def settled(host):
    until = time.monotonic() + 2 * verdict.SECONDS
    while time.monotonic() < until:
        waiting = host.get("/queue")
        if not waiting["queue_running"] and not waiting["queue_pending"]:
            return True
        time.sleep(0.05)
    return False


def looked(tab):
    """Touch everything and close it -> whether a script ran."""
    tab.wait_for_timeout(200)
    tab.evaluate(TOUCH)
    tab.wait_for_timeout(100)
    ran = tab.evaluate("() => window.ran")
    for _ in range(3):
        tab.keyboard.press("Escape")
    tab.evaluate("() => { window.ran = 0; }")
    return bool(ran)


def run(host, info, names, table, seed=0, share=1.0):
    """share: how much of all cases, drawn by the seed."""
    if not page_of.chromium():
        raise SystemExit("the part page needs Chromium: install it, or leave the part out with --parts")
    base, cases = Path(host.base), {}
    for number, payload in enumerate(PAYLOADS):
        every = [(f"{name}.{one}", prompt_of(info, name, {one: payload}, cheap=True)) for name, one in places(info, names)]
        every += file_cases(base, info, payload, number)
        cases[payload] = random.Random(seed + number).sample(every, max(1, round(share * len(every))))
    with page_of.browser() as browser:
        tab = page_of.opened(browser, host.url)
        sent = []
        tab.on("request", lambda r: sent.append(r) if r.method == "POST" and r.url.endswith("/prompt") else None)
        tab.evaluate(CONTROL, PAYLOADS[0])
        tab.wait_for_timeout(500)
        if not tab.evaluate("() => window.ran"):
            raise SystemExit("a script that is put into this page does not run: nothing can be told here")
        for payload, some in cases.items():
            for what, ran in tried(tab, host, payload, some, sent):
                table.add("page", "executed" if ran else "clear", f"{what} {payload}", "script ran in the page")


def tried(tab, host, payload, some, sent):
    """Run the cases of one script -> (what, whether it ran) of each."""
    tab.evaluate(OPEN, [together([prompt for _, prompt in some]), payload])
    if looked(tab):  # shown alone it ran: which one did is found one by one
        return [(what, alone(tab, host, payload, prompt)) for what, prompt in some] if len(some) > 1 else [(some[0][0], True)]
    out = []
    for first in range(0, len(some), CHUNK):
        part, before = some[first : first + CHUNK], len(sent)
        tab.evaluate(QUEUE, [f"p{k}" for k in range(first, first + len(part))])
        if not settled(host) or len(sent) != before + len(part):
            raise RuntimeError(f"the page sent {len(sent) - before} of {len(part)} graphs, or they did not end")
        if looked(tab):
            out += [(what, alone(tab, host, payload, prompt)) for what, prompt in part]
            tab.evaluate(OPEN, [together([prompt for _, prompt in some]), payload])
        else:
            out += [(what, False) for what, _ in part]
    return out


def alone(tab, host, payload, prompt):
    tab.evaluate(OPEN, [together([prompt]), payload])
    if looked(tab):
        return True
    tab.evaluate(QUEUE, ["p0"])
    settled(host)
    return looked(tab)
