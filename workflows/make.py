"""Write the example workflows, both forms: `python run.py do workflows.make`."""

import json
from pathlib import Path

from .recipes import WORKFLOWS

FOLDER = Path(__file__).parent


def files(info):
    """What belongs into this folder: {relative name: text}. info: the host's /object_info."""
    out = {}
    for recipe in WORKFLOWS:
        graph = recipe()
        for name, form in ((f"{graph.name}.json", graph.page(info)), (f"api/{graph.name}.json", graph.api(info))):
            out[name] = json.dumps(form, indent=1, ensure_ascii=False) + "\n"
    return out


def main(arguments=None):
    import cil_run as run

    with run.server() as host:
        info = host.get("/object_info")
    (FOLDER / "api").mkdir(exist_ok=True)
    for name, text in files(info).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"workflows/{name}")
