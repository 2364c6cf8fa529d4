"""The host's own patches on a MODEL, beside which ours must work."""

import comfy_extras.nodes_easycache as easycache
from comfy_api.torch_helpers import set_torch_compile_wrapper


def easy(model):
    return easycache.EasyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0]


def lazy(model):
    return easycache.LazyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0]


def compiled(model):
    out = model.clone()
    set_torch_compile_wrapper(out, backend="eager")
    return out
