"""Write the example workflows, both forms: `python run.py do workflows.make`."""

import json
from pathlib import Path

from .blueprints import BLUEPRINTS, CATEGORY
from .recipes import TEMPLATES, WORKFLOWS

ROOT = Path(__file__).parents[1]
NOTES = ROOT / "locales" / "zh" / "workflows.json"  # the notes of the graphs in Chinese: each stands beside the English one
MADE_ON = "0.3.75"  # what the graphs say of the host's own nodes is this ComfyUI's; every later page opens them


def page_file(name):
    """Where the page's form of a workflow stands: with the templates that the page lists, or with the other examples."""
    return ROOT / (f"example_workflows/{TEMPLATES[name]}.json" if name in TEMPLATES else f"workflows/graphs/{name}.json")


def api_file(name):
    """Where the /prompt form of a workflow stands."""
    return ROOT / f"workflows/api/{name}.json"


def blueprint_file(title):
    """Where the host looks for a blueprint; the page shows the file's name."""
    return ROOT / f"subgraphs/{title.replace(': ', ' - ')}.json"


def files(info):
    """All that is made of the recipes: {file: text}. info: the host's /object_info."""
    out, notes = {}, json.loads(NOTES.read_text(encoding="utf-8"))
    for recipe in WORKFLOWS:
        graph = recipe()
        graph.also(notes[graph.name])
        out[page_file(graph.name)], out[api_file(graph.name)] = graph.page(info), graph.api(info)
    for recipe in BLUEPRINTS:
        graph, output, words = recipe()
        out[blueprint_file(graph.title)] = graph.blueprint(info, output, CATEGORY, words)
    return {path: json.dumps(form, indent=1, ensure_ascii=False) + "\n" for path, form in out.items()}


def main(arguments=None):
    import cil_run as run

    with run.server() as host:
        version = host.get("/system_stats")["system"]["comfyui_version"]
        if version != MADE_ON:
            raise SystemExit(f"This is ComfyUI {version}, but the graphs are made on {MADE_ON}: leave --comfyui out, or give one of that version.")
        info = host.get("/object_info")
    for path, text in files(info).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
