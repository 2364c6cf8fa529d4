"""The house itself: which room may look into which, what a room's walls say, and how large it is."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted(path for room in ("cil", "nodes") for path in (ROOT / room).rglob("*.py"))
KNOWN_TO_CIL = {"torch", "numpy", "safetensors", "filelock"} | {
    "av",
    "cv2",
    "torchvision",
    "scipy",
    "psutil",
}  # the latter where a function needs them


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def at_import(body):
    """The import statements that run when a module is loaded: those of functions and of TYPE_CHECKING do not."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)) and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from at_import(node.body)


def module(parts):
    place = ROOT.joinpath(*parts)
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def imported(path):
    """The pack's own modules that a module loads."""
    room = path.parent.relative_to(ROOT).parts
    for node in at_import(tree(path).body):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*room[: len(room) - node.level + 1], *(node.module.split(".") if node.module else ()))
            inside = [module((*base, alias.name)) for alias in node.names]
            yield from filter(None, [*inside, module(base) if base and None in inside else None])


def test_there_is_no_import_circle():
    graph, done, path_to = {path: set(imported(path)) - {path} for path in FILES}, set(), []

    def visit(path):
        assert path not in path_to, " -> ".join(p.name for p in [*path_to[path_to.index(path) :], path])
        if path in done:
            return
        path_to.append(path)
        for other in graph.get(path, ()):
            visit(other)
        done.add(path_to.pop())

    for path in FILES:
        visit(path)


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "cil")], ids=lambda p: p.name)
def test_cil_knows_no_host(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(path.relative_to(ROOT).parts) - 1, f"{ast.unparse(node)} looks out of cil/"
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in (name.split(".")[0] for name in names):
            assert name in sys.stdlib_module_names or name in KNOWN_TO_CIL, f"{path.name} imports {name}"


def public(body, room=""):
    """The functions and methods that others may call: (name, node, whether it is a method)."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{node.name}." if not node.name.startswith("_") else "_")
        elif isinstance(node, ast.FunctionDef) and not room.startswith("_") and (not node.name.startswith("_") or node.name in ("__init__", "__call__")):
            yield room + node.name, node, bool(room) and "staticmethod" not in map(ast.unparse, node.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_function_has_types(path):
    for name, node, method in public(tree(path).body):
        given = [*node.args.posonlyargs, *node.args.args][method:] + node.args.kwonlyargs
        without = [a.arg for a in given if a.annotation is None]
        assert not without, f"{name} does not say what {', '.join(without)} is"
        assert node.returns is not None or node.name == "__init__", f"{name} does not say what it gives"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_much_longer_than_250_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_the_list_of_cil_names_every_file():
    listed = ast.get_docstring(tree(ROOT / "cil" / "__init__.py"))
    rooms = {path.relative_to(ROOT / "cil").parts[0] for path in FILES if path.is_relative_to(ROOT / "cil")} - {"__init__.py"}
    assert not {room for room in rooms if room.removesuffix(".py") not in listed}


def calls(path):
    """The names of what a file calls, as they stand there: torch.Generator, dist.init_process_group."""
    return {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize(
    "home, only_there",
    [
        ("cil/randomness.py", {"torch.Generator", "random.Random", "np.random.default_rng", "np.random.SeedSequence"}),
        ("cil/processes.py", {"dist.init_process_group", "torch.distributed.init_process_group", "torch.cuda.set_device"}),
        ("cil/files.py", {"os.replace", "tempfile.mkstemp", "save_file", "safetensors.torch.save_file"}),
    ],
)
def test_each_of_these_is_done_in_one_file(home, only_there):
    """One scheme a kind of draw, one set-up of processes, one way of writing: whoever needs it calls it."""
    commands = [p for p in (ROOT / "moments").glob("*.py") if p.name != "make.py"]
    for path in [*FILES, *commands]:
        if path != ROOT / home:
            assert not calls(path) & only_there, f"{path.relative_to(ROOT)} does what {home} is for"
