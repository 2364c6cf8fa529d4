"""A pack for the campaign's host alone: a node that hands out things no graph should hold, and one that looks at what came out."""

import torch


class Anything(str):
    """A socket's type that fits every other."""

    def __ne__(self, other):
        return False


ANY = Anything("*")


def spoilt(shape, value, at=0):
    tensor = torch.rand(shape)
    tensor.view(-1)[at] = value
    return tensor


class Strange:
    """A thing without any attribute that a node asks for."""


NAN, INF = float("nan"), float("inf")
# name: (what is made, kinds of inputs that may take it, how it is called in messages)
THINGS = {
    "nothing": (lambda: None, {"OPTIONAL"}),
    "number": (lambda: 5, {"INT", "FLOAT"}),
    "half": (lambda: 0.5, {"FLOAT"}),
    "not a number": (lambda: NAN, set()),
    "infinity": (lambda: -INF, set()),
    "huge number": (lambda: 10**400, set()),
    "complex number": (lambda: 1j, set()),
    "text": (lambda: "a text", {"STRING"}),
    "bytes": (lambda: b"bytes", set()),
    "list": (lambda: [1, 2], set()),
    "empty list": (list, {"CONDITIONING"}),
    "dict": (lambda: {"a": 1}, set()),
    "object": (Strange, set()),
    "class": (lambda: Strange, set()),
    "one number in a tensor": (lambda: torch.tensor(1.0), set()),
    "picture with NaN": (lambda: spoilt((2, 64, 64, 3), NAN), set()),
    "picture with infinity": (lambda: spoilt((2, 64, 64, 3), INF, -1), set()),
    "no pictures": (lambda: torch.zeros(0, 64, 64, 3), set()),
    "picture of one channel": (lambda: torch.rand(2, 64, 64, 1), set()),
    "picture of five dimensions": (lambda: torch.rand(1, 2, 64, 64, 3), set()),
    "picture of half precision": (lambda: torch.rand(2, 64, 64, 3).half(), {"IMAGE"}),
    "picture of one pixel": (lambda: torch.rand(2, 1, 1, 3), {"IMAGE"}),
    "picture with alpha": (lambda: torch.rand(2, 64, 48, 4), {"IMAGE"}),
    "latent with NaN": (lambda: {"samples": spoilt((2, 4, 16, 16), NAN)}, set()),
    "latent of no frames": (lambda: {"samples": torch.zeros(0, 4, 16, 16)}, set()),
    "latent of other channels": (lambda: {"samples": torch.rand(2, 16, 16, 16)}, set()),
    "latent of five dimensions": (lambda: {"samples": torch.rand(1, 4, 2, 16, 16)}, {"ESTIMATE"}),
    "latent of two dimensions": (lambda: {"samples": torch.rand(4, 16)}, set()),
    "latent without samples": (lambda: {"noise_mask": torch.ones(1, 16, 16)}, set()),
    "latent of other frames": (lambda: {"samples": torch.rand(3, 4, 16, 16)}, {"LATENT"}),
    "schedule with NaN": (lambda: torch.tensor([NAN, 0.0]), set()),
    "rising schedule": (lambda: torch.tensor([1.0, 2.0, 0.0]), set()),
    "schedule of one": (lambda: torch.tensor([1.0]), set()),
    "empty schedule": (lambda: torch.zeros(0), set()),
    "schedule above the model's levels": (lambda: torch.tensor([1e6, 0.0]), set()),
    "schedule of two dimensions": (lambda: torch.tensor([[1.0, 0.0]]), set()),
    "conditioning of nothing": (lambda: [[None, None]], set()),
}


class CampaignThing:
    CATEGORY, FUNCTION, RETURN_TYPES = "campaign", "give", (ANY,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"what": (list(THINGS),)}}

    def give(self, what):
        return (THINGS[what][0](),)


def strange_numbers(value, depth=0):
    """Whether there is a NaN or an infinity in a value, however deep."""
    if isinstance(value, torch.Tensor):
        parts = value.unbind() if value.is_nested else [value]
        return any(p.is_floating_point() and not bool(torch.isfinite(p).all()) for p in parts)
    if isinstance(value, float):
        return value != value or value in (INF, -INF)
    if depth < 5 and isinstance(value, dict):
        return any(strange_numbers(v, depth + 1) for v in value.values())
    if depth < 5 and isinstance(value, (list, tuple)):
        return any(strange_numbers(v, depth + 1) for v in value)
    return depth < 5 and type(value).__name__ == "Moments" and strange_numbers(vars(value), depth + 1)


class CampaignLook:
    """Says which of its inputs hold numbers that are none."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "campaign", "look", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"optional": {f"value{i}": (ANY, {}) for i in range(8)}}

    def look(self, **values):
        return {"ui": {"strange": [name for name, value in values.items() if strange_numbers(value)]}}


NODE_CLASS_MAPPINGS = {"CampaignThing": CampaignThing, "CampaignLook": CampaignLook}
