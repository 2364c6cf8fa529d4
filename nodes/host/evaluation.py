"""A MODEL's prediction of the clean clip, inside the host's own sampling."""

from collections.abc import Callable

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import torch

from .types import Conditioning, Model


class SamplingContext:
    """Evaluate a MODEL inside the host's own sampling: its memory management, hooks, patches and guidance all act.

    Use: SamplingContext(model, positive, negative, cfg, seed).run(latent, sigmas, work), where
    work(denoise, x0) is called once; x0 is the latent as the network sees it and
    denoise(xs, sigma) gives the host's prediction of the clean clip for a list of noisy clips.
    """

    def __init__(self, model: Model, positive: Conditioning, negative: Conditioning | None, cfg: float, seed: int):
        self.model, self.seed = model, seed
        self.guider = comfy.samplers.CFGGuider(model)
        self.guider.set_conds(positive, positive if negative is None else negative)
        self.guider.set_cfg(1.0 if negative is None else cfg)

    @torch.no_grad()
    def run(self, samples: torch.Tensor, sigmas: list[float], work: Callable) -> None:
        def sampler(wrapped, x, sigmas, extra_args=None, callback=None, disable=None):
            def denoise(xs, sigma):
                together = self._together(len(xs), x)
                parts = [torch.cat(xs)] if together else xs
                out = [wrapped(part, part.new_full([part.shape[0]], sigma), **(extra_args or {})) for part in parts]
                return list(out[0].chunk(len(xs))) if together else out

            work(denoise, wrapped.latent_image)
            return x

        schedule = torch.tensor([*sorted(sigmas, reverse=True), 0.0])
        zeros = torch.zeros_like(samples)
        self.guider.sample(zeros, samples, comfy.samplers.KSAMPLER(sampler), schedule, disable_pbar=True, seed=self.seed)

    def _together(self, clips, x):
        """Whether several clips may go through the network as one batch: it fits, and no patch counts the frames."""
        options = self.model.model_options
        keys = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "model_function_wrapper", "context_handler")
        windows = self.model.wrappers.get(comfy.patcher_extension.WrappersMP.CALC_COND_BATCH)  # AnimateDiff-Evolved's
        counts_frames = x.ndim == 4 and (windows or any(options.get(k) for k in keys))
        needed = self.model.model.memory_required([clips * x.shape[0], *x.shape[1:]])
        return clips > 1 and not counts_frames and needed * 1.5 < comfy.model_management.get_free_memory(x.device)
