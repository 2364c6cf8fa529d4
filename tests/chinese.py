"""nodes/web/chinese.js once more, for tests without a page, and what it leaves in English."""

import ast
import itertools
import json
import re
from pathlib import Path

PACK = Path(__file__).parent.parent
FILE = PACK / "nodes" / "web" / "zh.json"
JOINTS = (("; ", "；"), (". ", "。"), (": ", "："))
DEEPEST = 4
HOLE = re.compile(r"\{\d+\}")
ENGLISH = re.compile(r"[a-z]{2,}( [a-z]{2,}){2}")  # three words in a row


def known():
    """zh.json: {English: Chinese}."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def learnt(entries):
    """[(literal parts, numbers, translation)], the more literal first."""
    ordered = sorted(entries.items(), key=lambda item: (-len(HOLE.sub("", item[0])), item[0]))
    return [(HOLE.split(english), re.findall(r"\{(\d+)\}", english), chinese) for english, chinese in ordered]


def filling(parts, text):
    """What is filled in, if a text is this sentence, or None."""
    first, *others = parts
    if not others:
        return [] if text == first else None
    if not text.startswith(first):
        return None
    found, last, at = [], others.pop(), len(first)
    for part in others:
        following = text.find(part, at)
        if following < 0:
            return None
        found.append(text[at:following])
        at = following + len(part)
    if not text.endswith(last) or len(text) - len(last) < at:
        return None
    return [*found, text[at : len(text) - len(last)]]


def as_one(text, sentences, depth, joined):
    """The text as one sentence, or None. joined: whether what is filled in may itself be sentences."""
    for parts, numbers, chinese in sentences:
        found = filling(parts, text)
        if found is None or (not joined and any(joint in value for value in found for joint, _ in JOINTS)):
            continue
        of = {number: translated(value, sentences, depth + 1) for number, value in zip(numbers, found)}
        return re.sub(r"\{(\d+)\}", lambda hole: of.get(hole[1], hole[0]), chinese)
    return None


def translated(text, sentences, depth=0, left=None):
    """-> the text in Chinese. left: a list that takes the sentences which nothing translates."""
    if depth > DEEPEST or not re.search("[a-z]", text):
        return text
    if "\n" in text:
        return "\n".join(translated(line, sentences, depth, left) for line in text.split("\n"))
    one = as_one(text, sentences, depth, False)
    if one is not None:
        return one
    joint, between = next((pair for pair in JOINTS if pair[0] in text), (None, None))
    if joint:
        before, unknown = text.split(joint), []
        after = [translated(part, sentences, depth, unknown) for part in before]
        kept = sum(a == b for a, b in zip(after, before))
        one = as_one(text, sentences, depth, True) if kept else None
        if one is not None:
            return one
        if left is not None:
            left += unknown
        return text if kept == len(after) else between.join(after)
    whole = translated(text[:-1], sentences, depth, left) if text.endswith(".") else text[:-1]
    if whole == text[:-1]:
        if left is not None and not text.endswith("."):
            left.append(text)
        return text
    return whole + "。"


def template(node):
    """A string of the source -> it with {0}, {1} ... for what is filled in; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def said(node):
    """What a string of the source says: its lines, the holes of each numbered from 0, without the joint before them."""
    lines = (template(node) or "").split("\n")
    numbered = []
    for line in lines:
        holes = itertools.count()
        numbered.append(re.sub(r"^(; |\. |: )", "", re.sub(r"\{\d*\}", lambda hole, holes=holes: f"{{{next(holes)}}}", line)))
    return [line for line in numbered if line]


def sources():
    """The modules of the pack, parsed: (path, tree)."""
    files = sorted(path for folder in ("nodes", "cil") for path in (PACK / folder).rglob("*.py"))
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in files]
