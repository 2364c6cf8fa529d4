"""A host's MODEL: what it is, and a copy of it that shares its network."""

import copy
from types import MethodType

from ..families import Family, family_of
from .types import Model


def sampleable(model: Model) -> Model:
    """The MODEL. Raises ValueError where another pack passes something else under that type."""
    if not hasattr(model, "get_model_object"):
        raise ValueError(f"this MODEL is a {type(model).__name__} of another pack, which the host cannot sample: connect one that KSampler takes")
    return model


def model_family(model: Model) -> Family:
    """The family of a MODEL (ModelPatcher)."""
    motion = sampleable(model).additional_models.get("ADE", [])  # AnimateDiff-Evolved's motion modules
    formats = (getattr(getattr(module.model, "mm_info", None), "mm_format", None) for module in motion)
    return family_of(model.model, formats)


def cloned(model: Model) -> Model:
    """MODEL.clone(), but never with a second network in it.

    The host copies `model_options` deeply, a bound `model_function_wrapper` with all that it
    is bound to. ComfyUI_Native_DynamiCrafter's is bound to a node that holds the MODEL, so
    every clone would copy the UNet. Here the function is set aside meanwhile, and the clone's
    is bound to a copy of that node which holds the clone, whose options it then reads.
    """
    options, key = model.model_options, "model_function_wrapper"
    holder = getattr(options.get(key), "__self__", None)
    holds = [name for name, value in getattr(holder, "__dict__", {}).items() if getattr(value, "model_options", None) is options]
    if not holds:
        return model.clone()
    model.model_options = {name: value for name, value in options.items() if name != key}
    try:
        out = model.clone()
    finally:
        model.model_options = options
    holder = copy.copy(holder)
    vars(holder).update(dict.fromkeys(holds, out))
    out.model_options[key] = MethodType(options[key].__func__, holder)
    return out
