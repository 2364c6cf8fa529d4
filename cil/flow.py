"""Dense optical flow by the libraries that do it well: OpenCV's DIS and torchvision's RAFT.

Each backend is a function of two frames [H, W, 3] in [0, 1] -> [H, W, 2] pixels (x, y).
The libraries are imported when a backend is made, and only then. Scores of different
backends are not comparable.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

UPDATES = 12  # of RAFT's flow, torchvision's own number
VBENCH_UPDATES = 20


def missing(library: str, purpose: str, package: str) -> ImportError:
    """An ImportError that says what to install."""
    return ImportError(f"{library}, which {purpose} needs, is not installed: run 'pip install {package}' in ComfyUI's Python and start ComfyUI again")


def opencv(purpose: str) -> ModuleType:
    """The module cv2; without it an ImportError in words."""
    try:
        import cv2
    except ImportError:
        raise missing("OpenCV", purpose, "opencv-python-headless") from None
    return cv2


def dis() -> Callable:
    """OpenCV's dense inverse search: fast on a CPU, needs no weights."""
    cv2 = opencv("DIS flow")
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(a, b):
        grey = [cv2.cvtColor((f.clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in (a, b)]
        return torch.from_numpy(engine.calc(*grey, None))

    return flow


def raft(size: str = "large", weights: str | None = None, device: torch.device | str = "cpu") -> Callable:
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


def of_network(model: torch.nn.Module, device: torch.device | str) -> Callable:
    """The backend of a RAFT network of torchvision's that is there already: flow(a, b, updates=UPDATES)."""

    @torch.no_grad()
    def flow(a, b, updates=UPDATES):
        pair = torch.stack([a, b]).movedim(-1, 1).to(device) * 2 - 1  # [2, 3, h, w] in [-1, 1]
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


# RAFT's original names -> torchvision's, one after the other. A shortcut's norm3 stands under `downsample` too.
RAFT_NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^fnet\.", "feature_encoder."), (r"^cnet\.", "context_encoder."),
        (r"(_encoder)\.conv1\.", r"\1.convnormrelu.0."), (r"(_encoder)\.norm1\.", r"\1.convnormrelu.1."), (r"(_encoder)\.conv2\.", r"\1.conv."),
        (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."), (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
        (r"\.encoder\.conv([cf])(\d)\.", r".motion_encoder.conv\1\2.0."), (r"\.convc(\d)\.", r".convcorr\1."), (r"\.convf(\d)\.", r".convflow\1."),
        (r"\.encoder\.conv\.", ".motion_encoder.conv.0."),
        (r"\.gru\.(conv[zrq])(\d)\.", r".recurrent_block.convgru\2.\1."), (r"\.gru\.(conv[zrq])\.", r".recurrent_block.convgru1.\1."),
        (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."), (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
    )
)  # fmt: skip
ALIAS = re.compile(r"layer\d\.\d\.norm3\.")


def torchvision_layout(state: dict) -> dict:
    """RAFT's original names (module.fnet.layer1.0.conv1 ...) -> torchvision's."""
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if not any(k.startswith("fnet.") for k in state):
        return state

    def renamed(name):
        for pattern, replacement in RAFT_NAMES:
            name = pattern.sub(replacement, name)
        return name

    return {renamed(k): v for k, v in state.items() if not ALIAS.search(k)}
