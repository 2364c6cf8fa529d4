"""What people's saved workflows and the two languages rely on, held for every node of the pack."""

import json
import re

import interface
import pytest


@pytest.fixture(scope="module")
def golden():
    return json.loads(interface.GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ours(info):
    return interface.ours(info)


def locale(root, name):
    return json.loads((root / "locales" / "zh" / f"{name}.json").read_text(encoding="utf-8"))


def test_no_interface_changed_by_accident(info, golden):
    found = interface.interface(info)
    for name in sorted({*found, *golden}):
        assert name in found, f"the node id {name} is gone: keep it as a deprecated node, shared workflows need it"
        assert name in golden, f"{name} is new: write it down by 'python run.py do tests.interface'"
        assert found[name] == golden[name], f"the interface of {name} changed; if that is meant: 'python run.py do tests.interface'"


def test_the_golden_file_sees_a_changed_default(info, golden):
    """The comparison above looks deep enough to fail."""
    changed = json.loads(json.dumps(info))
    changed["CILEarlyStart"]["input"]["required"]["start"][1]["default"] = 0.9
    assert interface.interface(changed)["CILEarlyStart"] != golden["CILEarlyStart"]


def test_every_node_has_a_help_page_in_both_languages(ours, root):
    docs = root / "nodes" / "web" / "docs"
    for name in ours:
        for page in (docs / f"{name}.md", docs / name / "zh.md"):
            assert page.is_file(), f"{page.relative_to(root)} is missing"
            assert page.read_text(encoding="utf-8").startswith("# "), f"{page.relative_to(root)} has no title"


def test_no_help_page_is_left_of_a_node_that_is_gone(ours, root):
    docs = root / "nodes" / "web" / "docs"
    assert {p.parent.name for p in docs.glob("*/zh.md")} <= set(ours)
    assert {p.stem for p in docs.glob("*.md")} - {"concept-leakage", "troubleshooting", "figures", "models"} <= set(ours)


def test_every_node_is_in_a_shipped_workflow(ours, root):
    used = set()
    for path in (*(root / "example_workflows").glob("*.json"), *(root / "workflows" / "graphs").glob("*.json")):
        used |= {node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]}
    assert set(ours) <= used


def missing(translated, kind, wanted):
    """Entries of `wanted` that lack a name or a tooltip, and entries too many."""
    given = translated.get(kind, {})
    lacking = [key for key in wanted if not (given.get(key, {}).get("name") and given[key].get("tooltip"))]
    return [f"{kind}.{key}" for key in [*lacking, *(set(given) - set(wanted))]]


def test_the_chinese_locale_is_complete(ours, root):
    defs = locale(root, "nodeDefs")
    assert set(defs) == set(ours)
    for name, node in ours.items():
        inputs = [key for group in ("required", "optional") for key in node["input"].get(group, {})]
        outputs = [str(i) for i in range(len(node["output"]))]
        assert defs[name].get("display_name") and defs[name].get("description"), name
        assert not missing(defs[name], "inputs", inputs) + missing(defs[name], "outputs", outputs), name


def test_the_chinese_locale_covers_categories_and_types(ours, root):
    main = locale(root, "main")
    categories = {part for node in ours.values() for part in node["category"].split("/")}
    kinds = {kind for node in ours.values() for kind in node["output"] if str(kind).startswith("CIL_")}
    assert categories <= set(main["nodeCategories"]) and kinds <= set(main["dataTypes"])


def texts(value):
    return [t for v in value.values() for t in texts(v)] if isinstance(value, dict) else [value]


def test_the_locale_holds_nothing_that_the_page_would_compile(root):
    """The page's translations are patterns: braces, @ and | have a meaning there."""
    for name in ("nodeDefs", "main"):
        for text in texts(locale(root, name)):
            assert not re.search(r"[{}@|$]", text), text


def test_the_host_serves_the_locale(host, root):
    served = host.get("/i18n")["zh"]
    assert served["nodeDefs"]["CILEarlyStart"] == locale(root, "nodeDefs")["CILEarlyStart"]
    assert served["nodeCategories"]["image-to-video motion"] == locale(root, "main")["nodeCategories"]["image-to-video motion"]


def test_help_pages_link_to_what_is_there(root):
    """The pages that a help page names are there, and its pictures, which the page looks for in docs/ whatever the language."""
    docs = root / "nodes" / "web" / "docs"
    for page in docs.rglob("*.md"):
        for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or ((docs if picture else page.parent) / target).exists(), f"{page.name} points to {target}"


def test_every_help_page_shows_its_node_in_a_graph(ours, root):
    docs = root / "nodes" / "web" / "docs"
    assert {p.stem.removeprefix("graph-") for p in docs.glob("graph-*")} == set(ours)
    for name in ours:
        assert (docs / f"graph-{name}.webp").stat().st_size < 60_000
        for page in (docs / f"{name}.md", docs / name / "zh.md"):
            assert f"](graph-{name}.webp)" in page.read_text(encoding="utf-8"), page
