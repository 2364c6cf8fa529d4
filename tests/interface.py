"""What a saved workflow relies on: ids, inputs and outputs of our nodes, held in golden/object_info.json.

    python run.py do tests.interface    writes the file anew, after a change that is meant

A node id never leaves the file: shared workflows must go on loading.
"""

import json
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden" / "object_info.json"
KEPT = ("default", "min", "max", "step", "round", "multiline", "forceInput", "control_after_generate")
OF_THE_MACHINE = ("scheduler", "sampler_name", "flow", "existing_lora")  # beside `..._name`: their options depend on the machine


def ours(info):
    """The host's /object_info -> that of this pack's nodes, under whatever folder name."""
    marks = {info["CILEarlyStart"]["python_module"]}
    return {name: node for name, node in info.items() if node["python_module"] in marks}


def interface(info):
    """{node id: what must not change by accident}."""
    return {name: _node(node) for name, node in sorted(ours(info).items())}


def _node(node):
    inputs = {
        group: {name: _input(name, *spec) for name, spec in node["input"][group].items()} for group in ("required", "optional") if node["input"].get(group)
    }
    outputs = [{"name": name, "type": kind} for name, kind in zip(node["output_name"], node["output"])]
    flags = {flag: True for flag in ("output_node", "deprecated", "experimental") if node.get(flag)}
    return {"display_name": node["display_name"], "category": node["category"], "inputs": inputs, "outputs": outputs, **flags}


def _input(name, kind, options=None):
    options = options or {}
    choices = kind if isinstance(kind, list) else options.get("options")
    described = {"type": "COMBO" if choices is not None else kind, **{key: options[key] for key in KEPT if key in options}}
    if choices is not None and name not in OF_THE_MACHINE and not name.endswith("_name"):
        described["options"] = choices
    return described


def main(arguments=None):
    import cil_run as run

    with run.server() as host:
        found = interface(host.get("/object_info"))
    known = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    gone = sorted(set(known) - set(found))
    if gone:
        raise SystemExit(f"these node ids are gone: {', '.join(gone)}. Keep them, as deprecated nodes: shared workflows need them")
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{GOLDEN.name}: {len(found)} nodes")
