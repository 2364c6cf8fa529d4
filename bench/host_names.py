"""What a ComfyUI lacks of nodes/host/needs.py, by reading its source: `python run.py do bench.host_names SOURCE`.

SOURCE is a checkout or a bare git directory; nothing of it is imported or run, so it needs no
environment. For the day on which a new ComfyUI is out: what it moved or renamed is named before
anybody meets it. Results in bench/results/hosts.md.
"""

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..nodes.host import needs


class Source:
    """The Python files of a ComfyUI, in a folder or as a revision of a git directory without one."""

    def __init__(self, place: Path, revision: str = "HEAD"):
        self.place, self.revision = place, revision
        self.bare = not (place / "comfy").is_dir()
        if self.bare and not self._git("cat-file", "-e", f"{revision}:comfy/samplers.py")[1]:
            raise SystemExit(f"{place} holds no ComfyUI: expected a folder with comfy/ in it, or a git directory whose {revision} has one")
        self.module = cache(self._module)

    def _git(self, *arguments: str) -> tuple[str, bool]:
        done = subprocess.run(["git", "-C", self.place, *arguments], capture_output=True, text=True, encoding="utf-8")
        return done.stdout, done.returncode == 0

    def _text(self, path: str) -> str | None:
        if self.bare:
            text, there = self._git("show", f"{self.revision}:{path}")
            return text if there else None
        file = self.place / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def _module(self, name: str) -> ast.Module | None:
        """A module by its dotted name, or None. A folder without __init__.py is an empty one."""
        path = name.replace(".", "/")
        for text in (self._text(f"{path}.py"), self._text(f"{path}/__init__.py")):
            if text is not None:
                return ast.parse(text)
        folder = self._git("ls-tree", self.revision, f"{path}/")[0] if self.bare else (self.place / path).is_dir()
        return ast.parse("") if folder else None

    @property
    def version(self) -> str:
        for node in (self.module("comfyui_version") or ast.parse("")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                return str(node.value.value)
        return "of unknown version"

    def has(self, name: str) -> bool:
        """Whether a dotted name leads to a module, or to what one defines or imports."""
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            home = ".".join(parts[:cut])
            if self.module(home) is not None:
                return self._within(home, self.module(home).body, parts[cut:])
        return False

    def _within(self, home: str, body: list, parts: list[str]) -> bool:
        if not parts:
            return True
        first, rest = parts[0], parts[1:]
        for node in statements(body):
            if isinstance(node, ast.ClassDef) and node.name == first:
                bases = [f"{home}.{ast.unparse(base)}" for base in node.bases]
                return self._within(home, node.body, rest) or any(self.has(".".join((base, *rest))) for base in bases)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == first:
                return not rest
            if isinstance(node, ast.Assign | ast.AnnAssign) and first in named(node):
                return True  # what an object has is not looked into
            if isinstance(node, ast.Import | ast.ImportFrom) and first in [a.asname or a.name.split(".")[0] for a in node.names]:
                return not rest or self.has(".".join((self._imported(home, node, first), *rest)))
        return False

    def _imported(self, home: str, node: ast.Import | ast.ImportFrom, name: str) -> str:
        """What a module's name stands for, as a dotted name from the source's root."""
        alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
        if isinstance(node, ast.Import):
            return alias.name if alias.asname else name
        package = home if self._is_package(home) else home.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        return ".".join(part for part in (package if node.level else "", node.module, alias.name) if part)

    def _is_package(self, name: str) -> bool:
        return self._text(f"{name.replace('.', '/')}/__init__.py") is not None


def statements(body: list) -> Iterable:
    """All statements of a body and of the branches in it, but not of its functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)


def named(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def missing(source: Source) -> dict[str, list[str]]:
    """{what does not work: names that the source lacks}, empty where all is there."""
    gone = {what: [name for name in names if not source.has(name)] for what, names in needs.NEEDS.items()}
    return {what: names for what, names in gone.items() if names}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a ComfyUI: its folder, or a git directory that holds it")
    parser.add_argument("--revision", default="HEAD", help="of a git directory without a work tree")
    options = parser.parse_args(argv)
    source = Source(options.source, options.revision)
    gone = missing(source)
    print(f"ComfyUI {source.version}: {sum(map(len, needs.NEEDS.values()))} names looked up, {sum(map(len, gone.values()))} not found")
    for what, names in gone.items():
        print(f"  {', '.join(names)}: {what}")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
