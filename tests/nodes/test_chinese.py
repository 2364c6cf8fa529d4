"""What the pack says in Chinese while it runs: every error is there, and nothing that is no longer said."""

import ast
import re

import chinese
import pytest


@pytest.fixture(scope="module")
def entries():
    return chinese.known()


@pytest.fixture(scope="module")
def sources():
    return chinese.sources()


def literal(sentence):
    return chinese.HOLE.sub("", sentence)


def test_every_error_is_there(entries, sources):
    """All that is raised with a sentence; SystemExit is the commands', which speak English."""
    missing = []
    for path, tree in sources:
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or not call.args or getattr(call.func, "id", "") in ("SystemExit", "NoMatplotlib"):
                continue
            sentences = [line for line in chinese.said(call.args[0]) if len(re.findall("[A-Za-z]", literal(line))) >= 8 and " " in literal(line).strip()]
            missing += [f"{path.name}:{node.lineno}: {line}" for line in sentences if line not in entries]
    assert not missing, "add them to nodes/web/zh.json:\n" + "\n".join(missing)


def test_nothing_is_there_that_is_no_longer_said(entries, sources):
    said = {line for _, tree in sources for node in ast.walk(tree) for line in chinese.said(node)}
    gone = [english for english in entries if english not in said]
    assert not gone, "take them out of nodes/web/zh.json:\n" + "\n".join(gone)


def test_what_is_filled_in_stands_in_both(entries):
    holes = lambda text: sorted(chinese.HOLE.findall(text))
    assert not [english for english, told in entries.items() if holes(english) != holes(told)]


def test_every_sentence_is_chinese_and_plain_text(entries):
    assert not [told for told in entries.values() if not re.search("[\u4e00-\u9fff]", told) or re.search("[<>]\\w|\\{\\D", told)]


def test_sentences_are_found_with_what_is_filled_in(entries):
    """Each with numbers in its holes, alone and put together with another."""
    sentences = chinese.learnt(entries)
    other = "nothing is changed: 7"
    assert other.replace("7", "{0}") in entries
    for english in entries:
        numbers = {hole: str(10 + i) for i, hole in enumerate(chinese.HOLE.findall(english))}
        fill = lambda text, numbers=numbers: chinese.HOLE.sub(lambda hole: numbers[hole[0]], text)
        found = chinese.translated(fill(english), sentences)
        assert re.search("[\u4e00-\u9fff]", found), english
        both = chinese.translated(f"{other}\n{fill(english)}", sentences)
        assert both.split("\n")[0] == chinese.translated(other, sentences) or "\n" in english


def test_a_text_of_a_stranger_is_left_as_it_is(entries):
    for text in ("", "{0}", "Hello there; not ours. At all.", " of " * 1000):
        assert chinese.translated(text, chinese.learnt(entries)) == text
