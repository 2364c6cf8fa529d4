"""Dense optical flow by the libraries that do it well: OpenCV's DIS and torchvision's RAFT.

Each backend is a function of two frames [H, W, 3] in [0, 1] -> [H, W, 2] pixels (x, y).
The libraries are imported when a backend is made, and only then. Scores of different
backends are not comparable.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

UPDATES = 12  # of RAFT's flow, torchvision's own number
VBENCH_UPDATES = 20


def missing(library, purpose, package):
    """An ImportError that says what to install."""
    return ImportError(f"{library}, which {purpose} needs, is not installed: run 'pip install {package}' in ComfyUI's Python and start ComfyUI again")


def opencv(purpose):
    """The module cv2; without it an ImportError in words."""
    try:
        import cv2
    except ImportError:
        raise missing("OpenCV", purpose, "opencv-python-headless") from None
    return cv2


def dis():
    """OpenCV's dense inverse search: fast on a CPU, needs no weights."""
    cv2 = opencv("DIS flow")
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(a, b):
        grey = [cv2.cvtColor((f.clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in (a, b)]
        return torch.from_numpy(engine.calc(*grey, None))

    return flow


def raft(size="large", weights=None, device="cpu"):
    """torchvision's RAFT, as in the paper: flow(a, b, updates=UPDATES).

    weights: a file in torchvision's or in the original repository's layout; None lets
    torchvision fetch its own on first use. size ("large", "small") is read off a file.
    """
    try:
        from torchvision.models import optical_flow
    except ImportError:
        raise missing("torchvision", "RAFT flow", "torchvision") from None
    if weights is None:
        kinds = {"large": optical_flow.Raft_Large_Weights, "small": optical_flow.Raft_Small_Weights}
        make = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}[size]
        try:
            model = make(weights=kinds[size].DEFAULT)
        except OSError as error:
            raise ValueError(
                f"torchvision could not fetch RAFT's weights ({error}): put a RAFT .pth file into models/cil_flow and choose it, or choose DIS"
            ) from None
    else:
        state = torchvision_layout(_state_dict(weights))
        make = optical_flow.raft_large if "mask_predictor.conv.weight" in state else optical_flow.raft_small
        model = make(weights=None)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{Path(weights).name} is not a RAFT file: {str(error).splitlines()[-1].strip()}") from None
    return of_network(model.eval().to(device), device)


def of_network(model, device):
    """The backend of a RAFT network of torchvision's that is there already: flow(a, b, updates=UPDATES)."""

    @torch.no_grad()
    def flow(a, b, updates=UPDATES):
        pair = torch.stack([a, b]).movedim(-1, 1).to(device) * 2 - 1
        h, w = pair.shape[2:]
        bottom, right = -h % 8 if h >= 128 else 128 - h, -w % 8 if w >= 128 else 128 - w  # RAFT wants multiples of 8, 128 at least
        pair = F.pad(pair, (0, right, 0, bottom), mode="replicate")
        return model(pair[:1], pair[1:], num_flow_updates=updates)[-1][0, :, :h, :w].movedim(0, -1).cpu()

    return flow


def _state_dict(path):
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path.name} is refused: it holds more than weights") from None
    except Exception as error:  # the loaders raise nearly anything on rubbish
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def torchvision_layout(state):
    """RAFT's original names (module.fnet.layer1.0.conv1 ...) -> torchvision's."""
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if not any(k.startswith("fnet.") for k in state):
        return state
    return {_torchvision_name(k): v for k, v in state.items() if _torchvision_name(k)}


def _torchvision_name(name):
    """One original parameter's torchvision name, or None for an alias that torchvision has not."""
    part, rest = name.split(".", 1)
    if part in ("fnet", "cnet"):
        encoder = {"fnet": "feature_encoder", "cnet": "context_encoder"}[part]
        words = rest.split(".")
        if words[0] == "conv1":
            return f"{encoder}.convnormrelu.0.{words[1]}"
        if words[0] == "norm1":
            return f"{encoder}.convnormrelu.1.{words[1]}"
        if words[0] == "conv2":
            return f"{encoder}.conv.{words[1]}"
        layer, block, kind, *tail = words
        if kind == "downsample":
            return f"{encoder}.{layer}.{block}.downsample.{'.'.join(tail)}"
        number = kind[-1]
        if kind == "norm3":  # the shortcut's, which stands under `downsample` too
            return None
        if kind.startswith("norm"):
            return f"{encoder}.{layer}.{block}.convnormrelu{number}.1.{tail[0]}"
        return f"{encoder}.{layer}.{block}.convnormrelu{number}.0.{tail[0]}"
    words = rest.split(".")
    if words[0] == "encoder":
        layer = {"convc1": "convcorr1.0", "convc2": "convcorr2.0", "convf1": "convflow1.0", "convf2": "convflow2.0", "conv": "conv.0"}[words[1]]
        return f"update_block.motion_encoder.{layer}.{words[2]}"
    if words[0] == "gru":
        gate, unit = words[1][:5], words[1][5:] or "1"
        return f"update_block.recurrent_block.convgru{unit}.{gate}.{words[2]}"
    if words[0] == "mask":
        return f"mask_predictor.{ {'0': 'convrelu.0', '2': 'conv'}[words[1]] }.{words[2]}"
    return f"update_block.{rest}"
