"""Short names for the weights of the host's models, by which kept work is found again."""

import hashlib
from collections.abc import Callable, Iterable

import torch

NETWORKS = ("first_stage_model", "cond_stage_model", "model")  # of a VAE, a CLIP, a CLIP_VISION


def of_weights(named: Iterable[tuple[str, torch.Tensor]], gather: Callable = lambda weight: weight) -> str:
    """Of named weights, by their shapes and first values. gather(weight): all of one of which this process holds a share."""
    digest = hashlib.sha256()
    for name, weight in named:
        digest.update(f"{name} {tuple(weight.shape)} {gather(weight.detach()).flatten()[:8].float().tolist()}".encode())
    return digest.hexdigest()[:16]


def of_encoder(encoder: object) -> str | None:
    """Of a host's VAE, CLIP or CLIP_VISION; of one without weights of its own its kind, of None None."""
    if encoder is None:
        return None
    network = next((part for part in (getattr(encoder, name, None) for name in NETWORKS) if isinstance(part, torch.nn.Module)), None)
    if network is None:
        return type(encoder).__name__
    return of_weights((name, weight) for name, weight in network.state_dict().items())


def of_anything(*things: object) -> str:
    """Of what a graph hands to a node, by content: numbers, texts, tensors, and objects by their class and what they hold.

    A MODEL is known by its weights, its patches (a LoRA's) and whatever other nodes put on it. What cannot be told apart by
    content counts as different, never as the same: at worst, work is done again.
    """
    digest = hashlib.sha256()
    _add(digest, things, {}, 0)
    return digest.hexdigest()[:32]


DEEPEST = 12  # objects within objects; what lies deeper is known by its address


def _add(digest, thing, seen, depth):
    """Feed a thing to the digest."""
    note = lambda text: digest.update(f"|{text}".encode())
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
        return note(f"{type(thing).__name__} {thing!r}")
    if id(thing) in seen:
        return note(f"again {seen[id(thing)]}")
    seen[id(thing)] = len(seen)
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if depth > DEEPEST:
        return note(f"{kind} {id(thing)}")
    if isinstance(thing, torch.Tensor):
        parts = thing.unbind() if thing.is_nested else [thing]
        note([(str(part.dtype), tuple(part.shape)) for part in parts])
        return [digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()) for part in parts if part.numel()]
    note(kind)
    if isinstance(thing, torch.nn.Module):
        return note(of_weights(thing.state_dict().items()))
    if isinstance(thing, (list, tuple)):
        inside = list(enumerate(thing))
    elif isinstance(thing, dict):
        inside = sorted(thing.items(), key=lambda item: str(item[0]))
    elif isinstance(thing, (set, frozenset)):
        inside = list(enumerate(sorted(thing, key=repr)))
    elif hasattr(thing, "patches") and hasattr(thing, "model_options"):  # a MODEL, or what is made like one
        inside = [(name, getattr(thing, name, None)) for name in ("patches", "model_options", "object_patches", "wrappers", "callbacks")]
        inside.append(("model", of_weights(thing.model.state_dict().items())))
        inside.append(("sampling", vars(thing.get_model_object("model_sampling"))))
    elif callable(thing) and hasattr(thing, "__code__"):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        inside = [("code", thing.__code__.co_code), ("constants", repr(thing.__code__.co_consts)), ("cells", cells), ("defaults", thing.__defaults__)]
        note(f"{thing.__module__}.{thing.__qualname__}")
    elif hasattr(thing, "__func__"):
        inside = [("function", thing.__func__), ("self", thing.__self__)]
    elif isinstance(thing, type):
        return note(f"{thing.__module__}.{thing.__qualname__}")
    elif hasattr(thing, "__dict__") or hasattr(type(thing), "__slots__"):
        names = [*getattr(thing, "__dict__", ()), *(n for cls in type(thing).__mro__ for n in getattr(cls, "__slots__", ()))]
        inside = [(name, getattr(thing, name, None)) for name in sorted(set(names) - {"__weakref__", "__dict__"} - PASSING)]
    else:
        return note(repr(thing))
    for name, value in inside:
        note(name if isinstance(name, str) else repr(name))
        _add(digest, value, seen, depth + 1)


PASSING = {"node_id", "device", "load_device", "offload_device", "output_device", "parent"}  # say nothing of what comes out
