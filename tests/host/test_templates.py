"""The host's own template graphs with Early Start in them, run in the real host on tiny models.

A template's files cannot be fetched here; what loads or encodes with them is replaced, every
other node is the template's own. Only sizes and step counts are made smaller.
"""

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from cil_pack.workflows import page as page_of

run = sys.modules["cil_run"]
LOADERS = {"UNETLoader", "CheckpointLoaderSimple", "ImageOnlyCheckpointLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader", "CLIPVisionLoader"}
OUTPUTS = {"MODEL": 0, "CLIP": 1, "VAE": 2, "CLIP_VISION": 3}
ENCODERS = {"CLIPTextEncode": "TinyText", "CLIPVisionEncode": "TinyVision"}
SMALL = {"width": 128, "height": 128, "length": 25, "video_frames": 5}
RUNS = itertools.count(1)
PAGE_ONLY = {"Note", "MarkdownNote"}
BYPASSED = 4  # a node's mode on the page
# template: (tiny model, changes of inputs by node)
TEMPLATES = {
    "image_to_video": ("SVD", {}),
    "image_to_video_wan": ("Wan 2.1 I2V", {}),
    "wan2.1_flf2v_720_f16": ("Wan 2.1 FLF2V", {}),
    "wan2.1_fun_inp": ("Wan 2.1 Fun inpaint", {}),
    "video_wan2_2_14B_i2v": ("Wan 2.2 14B I2V", {}),
    "video_wan2_2_14B_fun_inpaint": ("Wan 2.2 14B I2V", {}),
    "video_wan2_2_14B_fun_camera": ("Wan 2.2 Camera", {}),
    "video_wan2_2_5B_ti2v": ("Wan 2.2 5B", {}),
    "ltxv_image_to_video": ("LTXV", {}),
    "video_hunyuan_video_1.5_720p_i2v": ("Hunyuan 1.5 I2V", {"TinyVision": {"width": 8}}),  # of its image tokens
}


@pytest.fixture(scope="module")
def tiny_host(tmp_path_factory):
    base = tmp_path_factory.mktemp("templates")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "tiny_loaders.py").symlink_to(Path(__file__).with_name("tiny_loaders.py"))
    (base / "input").mkdir()
    with run.server(base) as running:
        yield running


@pytest.fixture(scope="module")
def info(tiny_host):
    return tiny_host.get("/object_info")


def template(name):
    """A template of the host's package, as the page keeps it."""
    for package in ("comfyui_workflow_templates_media_video", "comfyui_workflow_templates_media_other", "comfyui_workflow_templates"):
        found = importlib.util.find_spec(package)
        path = Path(found.submodule_search_locations[0]) / "templates" / f"{name}.json" if found else None
        if path and path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    pytest.skip(f"this host's templates have no {name}")


def widgets(info, node):
    """The page's list of widget values -> {input: value}."""
    if node["type"] not in info:
        pytest.skip(f"this host has no {node['type']}")
    return widgets_of(info[node["type"]]["input"], list(node.get("widgets_values") or []))


def widgets_of(inputs, values, within=""):
    """The same of the inputs of a node, or of a choice that brings inputs of its own (as newer hosts' SaveVideo has). Takes from `values`."""
    named = {}
    for group in ("required", "optional"):
        for name, spec in inputs.get(group, {}).items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            choices = options.get("options") if kind == "COMFY_DYNAMICCOMBO_V3" else None
            if not (choices or isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")) or not values:
                continue
            named[within + name] = value = values.pop(0)
            if options.get("control_after_generate") or name in ("seed", "noise_seed"):
                values.pop(0)
            if choices:
                named |= widgets_of(next(choice["inputs"] for choice in choices if choice["key"] == value), values, f"{within}{name}.")
    return named


def prompt_of(info, graph):
    """The /prompt form of a page's graph without subgraphs; as on the page, a bypassed node hands its inputs on."""
    nodes = {n["id"]: n for n in graph["nodes"] if n["type"] not in PAGE_ONLY}
    links = {link[0]: link for link in graph["links"]}

    def source(link):
        """The (node, output) that is really at the other end; None if nothing is."""
        if link not in links or links[link][1] not in nodes:
            return None
        node, index = nodes[links[link][1]], links[link][2]
        if node.get("mode", 0) == 0:
            return [str(node["id"]), index]
        alike = (i["link"] for i in node.get("inputs") or [] if i["type"] == node["outputs"][index]["type"] and node["mode"] == BYPASSED)
        return source(next(alike, None))

    prompt = {}
    for number, node in nodes.items():
        if node.get("mode", 0) == 0:
            linked = {slot["name"]: source(slot["link"]) for slot in node.get("inputs") or [] if slot.get("link")}
            inputs = {**widgets(info, node), **{name: found for name, found in linked.items() if found}}
            prompt[str(number)] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def with_tiny_models(info, prompt, name, changes):
    """The prompt with everything that needs a model file replaced."""
    kind_of = lambda source: info[prompt[source[0]]["class_type"]]["output"][source[1]]
    models = [i for i, n in prompt.items() if n["class_type"] in ("UNETLoader", "CheckpointLoaderSimple", "ImageOnlyCheckpointLoader")]
    out = {}
    for number, node in prompt.items():
        if node["class_type"] in LOADERS:
            continue
        inputs = {}
        for key, value in node["inputs"].items():
            if isinstance(value, list) and prompt[value[0]]["class_type"] in LOADERS:
                index = OUTPUTS[kind_of(value)]
                value = [value[0] if index == 0 else models[0], index]
            inputs[key] = SMALL.get(key, value) if not isinstance(value, list) else value
        kind = ENCODERS.get(node["class_type"], node["class_type"])
        out[number] = {"class_type": kind, "inputs": {**inputs, **changes.get(kind, {})}}
    out |= {i: {"class_type": "TinyModel", "inputs": {"name": name, "label": i}} for i in models}
    # a LoRA cannot be had either: the model is passed through
    for number in [i for i, n in out.items() if n["class_type"] == "LoraLoaderModelOnly"]:
        source = out.pop(number)["inputs"]["model"]
        for node in out.values():
            node["inputs"] = {k: source if v == [number, 0] else v for k, v in node["inputs"].items()}
    return out


def with_early_start(prompt, **settings):
    """Early Start between each model and what samples with it -> the new nodes."""
    ours = {}
    for node in list(prompt.values()):
        if node["class_type"] in ("KSampler", "KSamplerAdvanced", "SamplerCustom", "CFGGuider"):
            number = f"early {len(ours)}"
            ours[number] = {
                "class_type": "CILEarlyStart",
                "inputs": {"model": node["inputs"]["model"], "start_as": "family preset", "start": 1.0, "analytic_init": True, **settings},
            }
            node["inputs"]["model"] = [number, 0]
    prompt |= ours
    return ours


def sampled(prompt):
    """The ids of the nodes that make latents by sampling, earlier stages first."""
    kinds = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
    found = [i for i, n in prompt.items() if n["class_type"] in kinds]
    return sorted(found, key=lambda i: prompt[i]["inputs"].get("start_at_step", 0))


def model_behind(prompt, number):
    """The TinyModel that a sampler uses."""
    node = prompt[number]
    while node["class_type"] != "TinyModel":
        source = node["inputs"].get("model") or node["inputs"]["guider"]
        number = source[0]
        node = prompt[number]
    return number


def graph_of(tiny_host, info, name, early):
    """A template on tiny models, small and short, with Early Start of the settings `early` in it, or without."""
    tiny, changes = TEMPLATES[name]
    page = template(name)
    for node in page["nodes"]:
        if node["type"] == "LoadImage":
            node["mode"] = 0  # Wan 2.2 5B's comes bypassed: without it there is no image
    prompt = with_tiny_models(info, prompt_of(info, page), tiny, {"TinyVision": {"width": 1280}, **changes})
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            Image.effect_noise((160, 144), 60).convert("RGB").save(tiny_host.base / "input" / node["inputs"]["image"])
        if node["inputs"].get("steps", 0) > 6:
            node["inputs"]["steps"] = 6
    if early is not None:
        with_early_start(prompt, **early)
    return with_sigmas_shown(prompt)


def with_sigmas_shown(prompt):
    """A node beside each sampler that shows the noise levels which its model was asked about."""
    last = sampled(prompt)[-1]
    for number in sampled(prompt):
        prompt[f"sigmas {number}"] = {"class_type": "TinySigmas", "inputs": {"after": [last, 0], "label": model_behind(prompt, number)}}
    return prompt


def sigmas_of(tiny_host, prompt):
    """Run a graph -> the falling noise levels that each sampler's model was asked about."""
    return [sorted(set(asked), reverse=True) for asked in asked_of(tiny_host, prompt)]


def asked_of(tiny_host, prompt):
    """Run a graph -> the noise level of every call of each sampler's model."""
    run_number = next(RUNS)
    for node in prompt.values():
        if node["class_type"] == "TinyModel":
            node["inputs"]["run"] = run_number  # so that nothing of it comes from the host's cache
    entry = tiny_host.run(prompt)
    assert run.error_of(entry) is None, run.error_of(entry)
    shown = [entry["outputs"][f"sigmas {number}"] for number in sampled(prompt)]
    assert all(s["finite"] == [True] for s in shown)
    videos = [o for i, o in entry["outputs"].items() if prompt[i]["class_type"] == "SaveVideo"]
    assert len(videos) == 1
    return [s["sigmas"] for s in shown]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_runs_and_starts_where_it_should(tiny_host, info, name):
    """With the node as it is dropped in: SVD at the paper's sigma 100, the others untouched. With a fraction: lower."""
    plain = sigmas_of(tiny_host, graph_of(tiny_host, info, name, None))
    preset = sigmas_of(tiny_host, graph_of(tiny_host, info, name, {}))
    lower = sigmas_of(tiny_host, graph_of(tiny_host, info, name, {"start_as": "fraction", "start": 0.9}))
    assert preset[0][0] == 100.0 if name == "image_to_video" else preset == plain
    assert lower[0][0] < plain[0][0] and len(lower[0]) == len(plain[0])
    assert lower[1:] == plain[1:]  # a second stage stays where it was


def test_wan_2_2_hands_over_where_it_did(tiny_host, info):
    """Four steps of the template, two a stage, shift 5: the sigmas that both stages really used."""
    name = "video_wan2_2_14B_i2v"
    (high, low), (early_high, early_low) = (
        sigmas_of(tiny_host, graph_of(tiny_host, info, name, early)) for early in (None, {"start_as": "fraction", "start": 0.9})
    )
    shifted = lambda t: 5 * t / (1 + 4 * t)
    assert high == pytest.approx([1.0, shifted(0.75)], rel=1e-3) and low == pytest.approx([shifted(0.5), shifted(0.25)], rel=1e-3)
    assert early_high[0] == pytest.approx(shifted(0.9), rel=1e-3) and early_high[0] > early_high[1] > low[0]
    assert early_low == low


def test_the_packs_own_wan_graph(tiny_host, info, root):
    """workflows/wan22_early_start, ten steps a stage at shift 8: the first starts at 0.95, the second where the host's graph does."""
    shipped = json.loads((root / "workflows" / "api" / "wan22_early_start.json").read_text(encoding="utf-8"))
    Image.new("RGB", (160, 144), (90, 60, 30)).save(tiny_host.base / "input" / "example.png")
    prompt = with_sigmas_shown(with_tiny_models(info, shipped, "Wan 2.2 14B I2V", {}))
    shifted = lambda t: 8 * t / (1 + 7 * t)
    high, low = sigmas_of(tiny_host, prompt)
    assert len(high) == len(low) == 10
    assert (high[0], low[0]) == (pytest.approx(shifted(0.95), rel=1e-3), pytest.approx(shifted(0.5), rel=1e-3))


@pytest.mark.parametrize("name", ["image_to_video_wan", "video_wan2_2_14B_i2v"])
def test_the_condition_nodes_run_in_a_template(tiny_host, info, name):
    """TimeNoise and low-pass between the conditioning and the sampler, in both stages where there are two."""
    prompt = graph_of(tiny_host, info, name, {"start_as": "fraction", "start": 0.9})
    for number in sampled(prompt):
        inputs = prompt[number]["inputs"]
        source = {k: inputs[k] for k in ("model", "positive", "negative")}
        noise, blur = f"noise {number}", f"blur {number}"
        prompt[noise] = {
            "class_type": "TimeNoiseCondition",
            "inputs": {
                **source,
                "mode": "time-dependent (median)",
                "preset": "gentle",
                "level": 0.1,
                "a": 5.0,
                "seed": 0,
                "image_tokens": False,
                "tell_model": True,
            },
        }
        prompt[blur] = {
            "class_type": "CILLowPassCondition",
            "inputs": {**{k: [noise, i] for i, k in enumerate(source)}, "filter": "down and up", "strength": 4.0, "start_at": 1.0, "end_at": 0.5},
        }
        inputs |= {k: [blur, i] for i, k in enumerate(source)}
    assert len(sigmas_of(tiny_host, prompt)) == len(sampled(prompt))


@pytest.mark.parametrize("name", ["wan21_alg", "wan21_alg_guider"])
def test_the_packs_graphs_of_adaptive_low_pass_guidance(tiny_host, info, root, name):
    """With ten steps two of them lie in the first fifth, i / 9 <= 0.2, and each of those costs a call more."""
    shipped = json.loads((root / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    Image.new("RGB", (160, 144), (90, 60, 30)).save(tiny_host.base / "input" / "example.png")
    prompt = with_sigmas_shown(with_tiny_models(info, shipped, "Wan 2.1 I2V", {"TinyVision": {"width": 1280}}))
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 10
    (asked,) = asked_of(tiny_host, prompt)
    assert [asked.count(sigma) for sigma in sorted(set(asked), reverse=True)] == [2] * 2 + [1] * 8


@pytest.mark.parametrize("name", ["wan22_motion_gain", "wan22_motion_slider"])
def test_the_packs_graphs_with_a_node_in_the_first_stage(tiny_host, info, root, name):
    """Two stages as without it; the first, of shift 8, begins in pure noise."""
    shipped = json.loads((root / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    Image.new("RGB", (160, 144), (90, 60, 30)).save(tiny_host.base / "input" / "example.png")
    prompt = with_sigmas_shown(with_tiny_models(info, shipped, "Wan 2.2 14B I2V", {}))
    shifted = lambda t: 8 * t / (1 + 7 * t)
    high, low = sigmas_of(tiny_host, prompt)
    assert len(high) == len(low) == 10 and (high[0], low[0]) == (1.0, pytest.approx(shifted(0.5), rel=1e-3))


def test_the_packs_graph_of_the_dial(tiny_host, info, root):
    """Both stages are searched and sampled with; what is found, in words, stands at the dial, and a video comes out."""
    shipped = json.loads((root / "workflows" / "api" / "wan22_dial.json").read_text(encoding="utf-8"))
    Image.effect_noise((160, 144), 60).convert("RGB").save(tiny_host.base / "input" / "example.png")
    prompt = with_tiny_models(info, shipped, "Wan 2.2 14B I2V", {"CILMotionDial": {"budget": 2, "preview_size": 1.0}})
    for node in prompt.values():
        if node["class_type"] == "TinyModel":
            node["inputs"]["run"] = next(RUNS)
    entry = tiny_host.run(prompt)
    assert run.error_of(entry) is None, run.error_of(entry)
    at = {node["class_type"]: entry["outputs"].get(number) for number, node in prompt.items()}
    assert "2 previews of 4 steps" in at["CILMotionDial"]["text"][0] and at["SaveVideo"]["images"] and at["SaveImage"]["images"]
    assert "81 frames" in at["CILPreflight"]["text"][0]  # a clip made shorter for this test: the preflight says so


# ---- the pack's blueprints ----

BLUEPRINTS = {"More motion - SVD": "SVD", "More motion - Wan 2.2, two stages": "Wan 2.2 14B I2V", "More motion - LTX-Video": "LTXV"}


@pytest.fixture(scope="module")
def listed(tiny_host):
    """{name: entry} of the blueprints that the host lists, the pack's and its own, with their text."""
    try:
        entries = tiny_host.get("/global_subgraphs")
    except OSError:
        pytest.skip("this host lists no blueprints")
    wanted = {entry["name"]: number for number, entry in entries.items() if entry["name"] in (*BLUEPRINTS, "Image to Video (Wan 2.2)")}
    return {name: json.loads(tiny_host.get(f"/global_subgraphs/{number}")["data"]) for name, number in wanted.items()}


def opened(blueprint):
    """A blueprint's own nodes and links as a page's graph: the picture comes from LoadImage, the video goes to SaveVideo."""
    (inner,) = blueprint["definitions"]["subgraphs"]
    nodes, links = list(inner["nodes"]), []
    nodes.append({"id": 1000, "type": "LoadImage", "inputs": [], "outputs": [{"type": "IMAGE"}], "widgets_values": ["start.png"]})
    for link in inner["links"]:
        origin = 1000 if link["origin_id"] == -10 and link["type"] == "IMAGE" else link["origin_id"]
        if link["target_id"] == -20:
            slots = [{"name": "video", "type": "VIDEO", "link": link["id"]}]
            nodes.append({"id": 1001, "type": "SaveVideo", "inputs": slots, "outputs": [], "widgets_values": ["cil/blueprint", "mp4", "h264"]})
        links.append([link["id"], origin, 0 if origin == 1000 else link["origin_slot"], link["target_id"], link["target_slot"], link["type"]])
    return {"nodes": nodes, "links": links}


def test_blueprints_have_the_form_of_the_hosts_own(listed):
    if "Image to Video (Wan 2.2)" not in listed:
        pytest.skip("this host has no blueprint of its own to hold ours against")
    own = listed["Image to Video (Wan 2.2)"]
    (inner,) = own["definitions"]["subgraphs"]
    for name in BLUEPRINTS:
        (mine,) = listed[name]["definitions"]["subgraphs"]
        assert set(listed[name]) == set(own) and set(mine) == set(inner)
        assert set(mine["inputs"][0]) <= set(inner["inputs"][0]) and set(mine["links"][0]) == set(inner["links"][0])
        outside, (other,) = listed[name]["nodes"][0], own["nodes"]
        assert outside["type"] == mine["id"] and set(other) - set(outside) <= {"size", "order"}
        ids = {link["id"]: link for link in mine["links"]}
        assert all(ids[i]["origin_id"] == -10 and ids[i]["origin_slot"] == slot for slot, given in enumerate(mine["inputs"]) for i in given["linkIds"])
        for node in mine["nodes"]:
            for slot, one in enumerate(node["inputs"]):
                link = ids.get(one["link"])
                assert link is None or (link["target_id"], link["target_slot"]) == (node["id"], slot)


def assert_runs(tiny_host, info, prompt, name):
    """A blueprint's /prompt form on tiny models and a small clip; neither model nor text is anybody's file."""
    Image.effect_noise((160, 144), 60).convert("RGB").save(tiny_host.base / "input" / "start.png")
    levels = sigmas_of(tiny_host, with_sigmas_shown(with_tiny_models(info, prompt, BLUEPRINTS[name], {})))
    assert [len(of_stage) for of_stage in levels] == {"SVD": [20], "Wan 2.2 14B I2V": [10, 10], "LTXV": [30]}[BLUEPRINTS[name]]
    assert BLUEPRINTS[name] != "SVD" or levels[0][0] == 100.0


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_runs_on_tiny_models(tiny_host, info, listed, name):
    """What is inside, queued as it is."""
    assert_runs(tiny_host, info, prompt_of(info, opened(listed[name])), name)


# a picture before the blueprint and a file behind it, as a person would put them; -> what the page would queue
COMPLETED = """async () => {
    const graph = window.app.graph, [blueprint] = graph._nodes
    const [picture, file] = ["LoadImage", "SaveVideo"].map(type => { const node = LiteGraph.createNode(type); graph.add(node); return node })
    picture.widgets.find(w => w.name === "image").value = "start.png"
    picture.connect(0, blueprint, blueprint.inputs.findIndex(input => input.type === "IMAGE"))
    blueprint.connect(0, file, 0)
    return (await window.app.graphToPrompt()).output
}"""


@pytest.fixture(scope="module")
def dragged(tiny_host, listed, artifacts):
    """{name: what the page would queue}, each blueprint dragged out of the list of nodes into an empty graph."""
    pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    if not page_of.chromium():
        pytest.skip("the page's tests need Chromium")
    prompts = {}
    with page_of.browser() as browser:
        page = page_of.opened(browser, tiny_host.url)
        page.keyboard.press("n")
        for name, model in BLUEPRINTS.items():
            page.evaluate("() => window.app.graph.clear()")
            page.get_by_placeholder(re.compile(r"^Search( Nodes)?\.{3}$")).locator("visible=true").first.fill(name)
            page.get_by_text(name, exact=True).first.drag_to(page.locator("#graph-canvas"), target_position={"x": 1400, "y": 400})
            page.wait_for_function("() => window.app.graph._nodes.length === 1")
            page.screenshot(path=artifacts / f"blueprint-{model.replace(' ', '-')}.png")
            prompts[name] = page.evaluate(COMPLETED)
    return prompts


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_dragged_into_an_empty_graph_runs_on_tiny_models(tiny_host, info, dragged, name):
    assert_runs(tiny_host, info, dragged[name], name)
