"""Moments files of the paper's authors, and the safetensors that others made of them."""

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .moments import Moments

MEAN_KEYS = ("Expectation_X0", "Expectation_x_0")  # DynamiCrafter and VideoCrafter [1, C, T, h, w]; SVD [(1,) T, C, h, w]
VARIANCE_KEYS = ("Tr_Cov_d", "trCov_d")
CHANNELS = 4  # all of them are of Stable Diffusion latents


def looks_like(tensors: Iterable[str]) -> bool:
    """Whether a file's names are those of the authors."""
    return any(k in tensors for k in MEAN_KEYS) and any(k in tensors for k in VARIANCE_KEYS)


def _tensors(path):
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path.name} cannot be read: {error}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # a class or function that unpickling would call
            raise ValueError(
                f"{path.name} is refused: it holds more than tensors, and reading it could run code. Ask its maker for a safetensors file"
            ) from None
        raise ValueError(f"{path.name} cannot be read as a PyTorch file: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the loader raises nearly anything on rubbish
        raise ValueError(f"{path.name} cannot be read as a PyTorch file: {error or type(error).__name__}") from None


def load(path: str | Path) -> Moments:
    """-> Moments in the space "sd". Raises ValueError for anything that is not such a file."""
    path = Path(path)
    tensors = _tensors(path)
    if not isinstance(tensors, dict) or not looks_like(tensors):
        raise ValueError(f"{path.name} is not a moments file of the paper's authors: it needs {' or '.join(MEAN_KEYS)} and {' or '.join(VARIANCE_KEYS)}")
    name = next(k for k in MEAN_KEYS if k in tensors)
    variance = next(tensors[k] for k in VARIANCE_KEYS if k in tensors)
    _check_stored(tensors[name], name, path)
    mean = _channels_first(torch.as_tensor(tensors[name]).float(), name, path)
    about = {
        "source": f"converted from {path.name}",
        "scale": "latents times 0.18215",
        "frames": mean.shape[1],
        "height": 8 * mean.shape[2],
        "width": 8 * mean.shape[3],
    }
    try:
        return Moments(mean, float(torch.as_tensor(variance).float().mean()), "sd", 0, about)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _check_stored(tensor, name, path):
    """Raise ValueError for a tensor that repeats its few stored values over a size that no memory holds."""
    if torch.is_tensor(tensor) and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"{path.name} is refused: its {name} claims the shape {tuple(tensor.shape)}, but the file holds {tensor.untyped_storage().nbytes()} bytes of it"
        )


def _channels_first(mean, name, path):
    """Either layout -> [C, T, h, w]."""
    shape = tuple(mean.shape)
    if mean.ndim == 5 and shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 4 or CHANNELS not in mean.shape[:2]:
        raise ValueError(f"{path.name}: {name} has the shape {shape}, but [1, 4, frames, h, w] or [frames, 4, h, w] is expected")
    frames_first = mean.shape[0] != CHANNELS or (mean.shape[1] == CHANNELS and name == MEAN_KEYS[1])
    return mean.transpose(0, 1).contiguous() if frames_first else mean
