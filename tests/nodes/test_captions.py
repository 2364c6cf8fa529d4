"""Words in pictures: no boxes, no lines that run over the edge."""

from pathlib import Path

import matplotlib
import pytest
import torch

from cil_pack.nodes import captions, pictures

DEJAVU = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")  # Latin, Greek, Cyrillic; no Chinese


@pytest.fixture(params=[(), (DEJAVU,)], ids=["PIL's font alone", "DejaVu"])
def fonts(request, monkeypatch):
    monkeypatch.setattr(captions, "FONTS", request.param)
    return request.param


def name_of(font, size):
    return next(name for name in (None, *captions.FONTS) if captions.font_named(name, size) is font)


@pytest.mark.parametrize("text", ["plain: motion 3.1", "早期开始：motion 3.1", "naïve 12 × 8", "Ω", "全部"])
def test_every_character_that_is_drawn_has_a_glyph(fonts, text):
    drawn, font = captions.drawable(text, 16)
    assert all(captions.draws(name_of(font, 16), 16, c) for c in drawn)
    assert ("motion 3.1" in drawn) == ("motion 3.1" in text)  # what can be drawn stays


def test_another_font_is_taken_where_it_has_the_glyphs(fonts):
    drawn, _ = captions.drawable("naïve 12 × 8", 16)
    assert (drawn == "naïve 12 × 8") == bool(fonts) and (captions.UNDRAWN in drawn) != bool(fonts)


def test_what_no_font_has_is_said_once_a_run(fonts):
    assert captions.drawable("早期开始: 3.1", 16)[0] == f"{captions.UNDRAWN}: 3.1"


@pytest.mark.parametrize("text", ["x" * 300, "早期开始" * 60, "a word " * 40, f"short {'y' * 90} short"])
def test_long_captions_wrap(monkeypatch, text):
    """Also without a space to break at, as Chinese is written."""
    monkeypatch.setattr(captions, "draws", lambda name, size, c: True)  # where the font is there, that is
    picture = pictures.captioned(torch.zeros(10, 200, 3), text)
    bar = picture[10:]
    assert (bar[:, [0, -1]] == bar[0, 0]).all() and bar.std() > 0.01
    _, font = captions.drawable(text, 12)
    lines = captions.lines_of(text, font, 192)
    assert all(font.getlength(line) <= 192 for line in lines) and "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_words_that_fit_break_between_words():
    _, font = captions.drawable("motion 3.1, likeness 0.9", 12)
    assert all(set(line.split()) <= {"motion", "3.1,", "likeness", "0.9"} for line in captions.lines_of("motion 3.1, likeness 0.9", font, 70))
