"""Every setting of every node against its own schema, as it comes through a link, which no host checks."""

import math

import pytest
import torch

from cil_pack.nodes import NODES
from cil_pack.nodes.host import inputs

SETTINGS = [(node, one) for node in NODES for one in node.define_schema().inputs]
NAMES = [f"{node.define_schema().node_id}.{one.id}" for node, one in SETTINGS]


def kind_of(one):
    return one.get_io_type()


def refused(one, value):
    with pytest.raises(ValueError) as caught:
        inputs.accepted(one, value)
    words = str(caught.value)
    assert one.id in words and len(words) < 800, words
    return words


@pytest.mark.parametrize("node, one", SETTINGS, ids=NAMES)
def test_each_setting_takes_its_default_and_its_ends_and_nothing_else(node, one):
    kind = kind_of(one)
    if kind in ("INT", "FLOAT"):
        socket = getattr(one, "force_input", False)  # a number from another node, which needs no limits
        assert socket or (one.min is not None and one.max is not None), "a number without limits"
        for value in [0.5] if socket else (one.default, one.min, one.max):
            assert inputs.accepted(one, value) == value
        for value in () if socket else (one.min - 1, one.max * 2 + 1):
            refused(one, value)
        for value in (math.nan, math.inf, -math.inf, 10**400, "1", [1], torch.tensor([1.0]), 1j):
            refused(one, value)
        if kind == "INT":
            assert inputs.accepted(one, float(one.default)) == one.default
            refused(one, one.default + 0.5)
    elif kind == "COMBO":
        for value in one.options:
            assert inputs.accepted(one, value) == value
        for value in ("/etc/passwd", "", "../x", 0, 1.5, None, True, ["a"], "<img src=x>" * 50):
            refused(one, value)
    elif kind == "STRING":
        assert inputs.accepted(one, "a") == "a"
        refused(one, 3), refused(one, ["a"])
    elif kind == "BOOLEAN":
        assert inputs.accepted(one, True) is True and inputs.accepted(one, 0) is False
        refused(one, "yes"), refused(one, 2), refused(one, math.nan)


THINGS = {"IMAGE", "LATENT", "SIGMAS", "CONDITIONING", "MODEL", "VAE", "CLIP", "CLIP_VISION", "GUIDER", "SAMPLER", "OPTICAL_FLOW", "CIL_MOMENTS", "CIL_CLIPS"}


@pytest.mark.parametrize("node, one", [s for s in SETTINGS if kind_of(s[1]) in THINGS], ids=[n for n, s in zip(NAMES, SETTINGS) if kind_of(s[1]) in THINGS])
@pytest.mark.parametrize(
    "value", [5, "text", [], {}, object(), torch.zeros(2, 2), lambda: 1], ids=["number", "text", "list", "dict", "object", "matrix", "function"]
)
def test_a_thing_of_another_kind_is_told(node, one, value):
    if kind_of(one) == "CONDITIONING" and value == []:
        return  # no conditioning at all is one
    assert "came" in refused(one, value)


def of_kind(kind):
    return next(one for _, one in SETTINGS if kind_of(one) == kind)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_told(bad):
    picture, latent = torch.rand(2, 8, 8, 3), torch.randn(2, 4, 8, 8)
    picture[1, 2, 3, 0], latent[0, 1, 2, 3] = bad, bad
    assert "NaN or infinite" in refused(of_kind("IMAGE"), picture)
    assert "NaN or infinite" in refused(of_kind("LATENT"), {"samples": latent})
    assert "NaN or infinite" in refused(of_kind("SIGMAS"), torch.tensor([bad, 0.0]))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 8, 8, 1), (2, 0, 8, 3), (8, 8, 3), (1, 2, 8, 8, 3)])
def test_pictures_of_another_shape_are_told(shape):
    refused(of_kind("IMAGE"), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (1, 16, 0, 8, 8), (4, 8)])
def test_empty_latents_are_told(shape):
    refused(of_kind("LATENT"), {"samples": torch.zeros(shape)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pictures_of_half_precision_become_whole(dtype):
    picture = torch.rand(2, 8, 8, 3).to(dtype)
    taken = inputs.accepted(of_kind("IMAGE"), picture)
    assert taken.dtype == torch.float32 and torch.equal(taken, picture.float())


def test_what_is_right_goes_through_untouched():
    picture, latent = torch.rand(1, 8, 8, 3), {"samples": torch.zeros(1, 4, 8, 8)}
    assert inputs.accepted(of_kind("IMAGE"), picture) is picture
    assert inputs.accepted(of_kind("LATENT"), latent) is latent


@pytest.mark.parametrize("node", NODES, ids=[node.define_schema().node_id for node in NODES])
def test_a_required_input_that_got_nothing_is_named(node):
    first = next(one.id for one in node.define_schema().inputs if not getattr(one, "optional", False))
    with pytest.raises(ValueError, match=f"^{first} is needed, but nothing came"):
        node.execute(**{one.id: None for one in node.define_schema().inputs})


def test_every_node_is_wrapped_once():
    for node in NODES:
        written = node.execute.__func__.__wrapped__.__wrapped__  # inside what keeps its notes and what checks its inputs
        assert not hasattr(written, "__wrapped__")
        with pytest.raises((ValueError, TypeError)):
            node.execute(**{one.id: object() for one in node.define_schema().inputs})
