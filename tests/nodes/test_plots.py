"""Plots without matplotlib, which a host need not have: a note in their place, the same from each of them."""

import sys

import torch

from cil_pack.nodes import plots


def test_without_matplotlib_there_is_a_note_of_how_to_have_it(monkeypatch):
    drawn = plots.loss_plot([3.0, 2.0, 1.0], "a training")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = []
    monkeypatch.setattr(plots, "captioned", lambda image, text: said.append(text) or image)
    note = plots.loss_plot([3.0, 2.0, 1.0], "a training")
    assert drawn.ndim == note.ndim == 4 and drawn.shape[1:] != note.shape[1:] and torch.isfinite(note).all()
    assert said[0].endswith("For a plot: pip install matplotlib in ComfyUI's Python")


def test_nobody_else_asks_for_matplotlib(root):
    asking = {
        path.name for path in (root / "nodes").rglob("*.py") if "import matplotlib" in (text := path.read_text(encoding="utf-8")) or "from matplotlib" in text
    }
    assert asking == {"plots.py"}
