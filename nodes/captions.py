"""Words in pictures: in a font that has their glyphs, broken to fit, and never as empty boxes."""

import functools
import itertools
from typing import Any

# By name, as PIL looks them up in the system's folders: of Linux, Windows and macOS; those with Chinese glyphs hold the others too.
FONTS: tuple[str, ...] = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf", "msyh.ttc", "msyh.ttf", "simhei.ttf", "simsun.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "Arial Unicode.ttf",
)  # fmt: skip
NOBODYS = chr(0xFFFF)  # a code point that is no character: every font draws its box, or nothing, for it
UNDRAWN = "[no font for this]"


@functools.cache
def font_named(name: str | None, size: int) -> Any:
    """A font, None = the one that PIL brings; None for one that is not here."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def draws(name: str | None, size: int, character: str) -> bool:
    """Whether a font has a glyph for a character."""
    font = font_named(name, size)
    glyph = lambda c: (font.getbbox(c), bytes(font.getmask(c)))
    return character.isspace() or glyph(character) != glyph(NOBODYS)


def drawable(text: str, size: int) -> tuple[str, Any]:
    """-> (the text, a font that draws it). Where none here draws all of it, words stand for what the best one cannot."""
    names = [name for name in (None, *FONTS) if font_named(name, size) is not None]
    lacks = lambda name: sum(not draws(name, size, c) for c in set(text))
    name = next((n for n in names if lacks(n) == 0), None) or min(names, key=lacks)
    runs = itertools.groupby(text, lambda c: draws(name, size, c))
    return "".join("".join(run) if whole else UNDRAWN for whole, run in runs), font_named(name, size)


def lines_of(text: str, font: Any, width: float) -> list[str]:
    """The text broken into lines of at most `width` pixels, between words where they fit, else between characters, as Chinese is."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        line = word
        while len(line) > 1 and font.getlength(line) > width:
            fits = next((n for n in range(len(line) - 1, 1, -1) if font.getlength(line[:n]) <= width), 1)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line]
