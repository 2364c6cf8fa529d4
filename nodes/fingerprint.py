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
