"""What a page finds our nodes by: the words that a user types, on hosts that know them and on hosts that do not."""

import pytest
from comfy_api.latest import io

from cil_pack.nodes import NODES, search

SCHEMAS = {node.define_schema().node_id: node.define_schema() for node in NODES}
# of the ten words of somebody whose clip stands still: nodes that must be among the answers
WANTED = {
    "motion": {"CILMotionGain", "CILMotionDial", "CILEarlyStart"},
    **{word: {"CILEarlyStart", "CILMotionGain", "CILMotionDial", "CILPreflight"} for word in ("still", "static", "frozen", "slow")},
    "leak": {"LeakageProbe", "TimeNoiseCondition", "CILEarlyStart"},
    "wan": {"CILMotionGain", "CILMotionSlider", "CILMotionDial"},
    "svd": {"CILEarlyStart", "AnalyticInitLatent"},
    "lightx2v": {"CILMotionDial", "CILMotionSlider", "CILMotionGain"},
    "dial": {"CILMotionDial"},
}
HAS_WORDS = "search_aliases" in io.Schema.__dataclass_fields__


def test_every_node_has_words_and_every_word_a_node():
    assert set(SCHEMAS) <= set(search.WORDS)
    assert all(len(set(words)) == len(words) for words in search.WORDS.values())


def test_what_is_folded_away_is_there():
    for node, names in search.ADVANCED.items():
        inputs = {one.id: one for one in SCHEMAS[node].inputs}
        assert set(names) <= set(inputs)
        assert all(getattr(inputs[name], "advanced", True) is True for name in names)
    assert set(search.ESSENTIALS) <= set(SCHEMAS)


@pytest.mark.skipif(not HAS_WORDS, reason="this host's schemas have no search_aliases: its page finds names alone")
@pytest.mark.parametrize("word", WANTED)
def test_a_word_finds_the_right_nodes(word):
    found = {name for name, schema in SCHEMAS.items() if any(word in text.lower() for text in (schema.display_name, *schema.search_aliases))}
    assert WANTED[word] <= found
    assert {"still": 9, "dial": 1}.get(word, 14) >= len(found)  # a word that finds everything finds nothing


@pytest.mark.skipif(HAS_WORDS, reason="this host knows the fields")
def test_a_host_without_the_fields_is_not_given_them():
    assert all(not hasattr(schema, "search_aliases") and not hasattr(schema, "essentials_category") for schema in SCHEMAS.values())


@pytest.mark.skipif(not HAS_WORDS, reason="this host's schemas have no search_aliases")
def test_the_page_is_told():
    told = {node.GET_NODE_INFO_V1()["name"]: node.GET_NODE_INFO_V1() for node in NODES}
    assert "lightx2v" in told["CILMotionDial"]["search_aliases"] and told["CILEarlyStart"]["essentials_category"] == "Video Tools"
    assert told["CILEarlyStart"]["input"]["optional"]["layout"][1]["advanced"] is True
