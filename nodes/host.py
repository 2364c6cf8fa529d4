"""The host's internals, all of them in this one place: spaces, scale factors, schedules, messages.

ComfyUI keeps x = latent + sigma * noise for most models (a VP model lives in x_t / alpha_t)
and sigma * noise + (1 - sigma) * latent for flows; at the model's largest sigma it scales
the noise differently again. `Sampling` asks the host's own functions rather than repeat them.
"""

import copy
import logging
import math
import sys
from types import MethodType, SimpleNamespace

import torch

import comfy.latent_formats
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import comfy.utils

from ..cil import forward, schedules
from .families import SPACES, family_of
from .lvdm.sampling import RescaledDiscrete

log = logging.getLogger("cil")

TRAILING = "trailing (paper)"  # the authors' spacing of DDIM timesteps, beside the host's schedulers


def loggable(text):
    """A text as the console can write it; the host's log raises on other characters, a file name's for example."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(node_id, text):
    """Show a note in the node and in the log. Never raises: a note must not stop a run."""
    log.info(loggable(text))
    try:
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, node_id)
    except (ImportError, AttributeError, TypeError):  # no page, or an older host
        pass


def scheduler_names():
    """Every scheduler that the host or another pack has registered, and the paper's."""
    return [*comfy.samplers.SCHEDULER_NAMES, TRAILING]


class Sampling:
    """A host's `model_sampling`, read as a forward process with a time that runs over (0, 1]."""

    def __init__(self, model_sampling):
        self.host = model_sampling
        self.sigma_min = float(model_sampling.sigma_min)
        self.sigma_max = float(model_sampling.sigma_max)

    @classmethod
    def of(cls, model):
        """Of a MODEL (ModelPatcher), with what other nodes patched into it."""
        return cls(checked(model).get_model_object("model_sampling"))

    @property
    def process(self):
        """The forward process, by the host's classes; one the pack does not know is measured."""
        kinds = comfy.model_sampling
        if isinstance(self.host, RescaledDiscrete):
            return forward.rescaled(self._rescale)
        if isinstance(self.host, kinds.CONST):
            return forward.FLOW
        if isinstance(self.host, kinds.COSMOS_RFLOW):
            return forward.RFLOW
        if isinstance(self.host, kinds.EPS):  # v-prediction, EDM and x_0-prediction derive from it
            edm = isinstance(self.host, kinds.ModelSamplingContinuousEDM) and not isinstance(self.host, kinds.ModelSamplingContinuousV)
            return forward.VE if edm else forward.VP
        return forward.ForwardProcess(
            "measured",
            alpha=lambda s: self._scaled(s, noise=0, latent=1),
            sigma=lambda s: self._scaled(s, noise=1, latent=0),
            scale=lambda s: 1.0,
        )

    def _rescale(self, sigma):
        """The dynamic rescale's s at a sigma, a number or a tensor."""
        if torch.is_tensor(sigma):
            return self.host.factor(sigma)
        return float(self.host.factor(torch.tensor(sigma, dtype=torch.float64)))

    def _scaled(self, sigma, noise, latent, max_denoise=False):
        """The host's `noise_scaling` of two numbers."""
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        sigma = torch.tensor(sigma, dtype=torch.float64)
        return float(self.host.noise_scaling(sigma, noise * one, latent * one, max_denoise))

    def starts_at_max(self, sigma):
        """Whether the host takes `sigma` for the start of a full run (its `max_denoise`)."""
        wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.host))
        return comfy.samplers.Sampler().max_denoise(wrap, [sigma])

    def first_noise_factor(self, sigma):
        """What the host will multiply a NOISE by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=1, latent=0, max_denoise=self.starts_at_max(sigma))

    def first_latent_factor(self, sigma):
        """What the host will multiply a LATENT by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=0, latent=1, max_denoise=self.starts_at_max(sigma))

    @property
    def _table(self):
        """The sigmas of a model with discrete timesteps, or None for a continuous one."""
        kinds = comfy.model_sampling
        continuous = (kinds.StableCascadeSampling, kinds.ModelSamplingDiscreteEDM)
        discrete = isinstance(self.host, kinds.ModelSamplingDiscrete) and not isinstance(self.host, continuous)
        return self.host.sigmas if discrete else None

    def sigma(self, fraction):
        """M as a fraction of T -> sigma_M.

        Discrete models: M T - 1 is the index into the table. Others: the host's own
        percent_to_sigma(1 - fraction), except that 1 is the model's largest sigma.
        """
        forward.check_fraction(fraction)
        if fraction == 1:
            return self.sigma_max
        if self._table is not None:
            return forward.table_sigma(self._table, fraction)
        return min(float(self.host.percent_to_sigma(1 - fraction)), self.sigma_max)

    def fraction(self, sigma):
        """The inverse of `sigma`."""
        if self._table is not None:
            return forward.table_fraction(self._table, sigma)
        return forward.curve_fraction(lambda f: 0.0 if f <= 0 else self.sigma(f), sigma)

    def check_start(self, sigma):
        """Raise ValueError unless a run can start at `sigma`."""
        if not math.isfinite(sigma) or sigma <= 0:
            raise ValueError(f"a start must be a sigma above 0, but {sigma} came")
        if sigma > self.sigma_max * (1 + 1e-4):
            raise ValueError(f"the start, sigma {sigma:g}, lies above the model's largest sigma, {self.sigma_max:g}: choose one at or below it")
        if sigma <= self.sigma_min:
            raise ValueError(f"the start, sigma {sigma:g}, lies at or below the model's smallest sigma, {self.sigma_min:g}: nothing would be sampled")

    def below(self, start):
        """A copy of the host's object whose schedule ends at `start`, for the host's schedulers.

        Discrete tables are cut, so that timesteps stay whole; continuous ones are drawn anew.
        """
        short = copy.copy(self.host)
        if self._table is not None:
            kept = self.host.sigmas[self.host.sigmas < start * (1 - 1e-6)]
            table = torch.cat([kept, kept.new_tensor([start])])
        else:
            n, low, top = len(self.host.sigmas), self.fraction(self.sigma_min), self.fraction(start)
            inner = [self.sigma(low + (top - low) * i / (n - 1)) for i in range(1, n - 1)]
            table = self.host.sigmas.new_tensor([self.sigma_min, *inner, start])
        short._buffers = {**self.host._buffers, "sigmas": table}
        if "log_sigmas" in short._buffers:
            short._buffers["log_sigmas"] = table.log()
        # a shifted flow's timestep() is not the inverse of its sigma(), except at the very start
        time = self.host.timestep(table[-1])
        if not math.isclose(float(self.host.sigma(time)), start, rel_tol=1e-2):
            time = self.fraction(start) * self.host.timestep(self.host.sigma_max)
            short.timestep = lambda sigma: time if float(sigma) == float(table[-1]) else self.host.timestep(sigma)
        return short

    def schedule(self, scheduler, steps, start):
        """`steps` steps of one of `scheduler_names`, laid over what lies below `start`: on the CPU."""
        if scheduler == TRAILING:
            return self._trailing(steps, start)
        if start >= self.sigma_max * (1 - 1e-6):
            sigmas = comfy.samplers.calculate_sigmas(self.host, scheduler, steps)
            return sigmas.cpu()
        sigmas = comfy.samplers.calculate_sigmas(self.below(start), scheduler, steps).cpu()
        return schedules.falling(torch.cat([sigmas.new_tensor([start]), sigmas[1:]]))

    def _trailing(self, steps, start):
        """Sigmas at the authors' trailing timesteps, with the final 0."""
        if self._table is None:
            raise ValueError(f"'{TRAILING}' spaces discrete timesteps, but this model's time is continuous: choose sgm_uniform or karras")
        timesteps = schedules.trailing(round(self.fraction(start) * len(self._table)), steps)
        return torch.cat([self._table[timesteps].cpu(), torch.zeros(1)])

    def relaid(self, sigmas, start):
        """A sampler's own schedule with its start moved to `start`, as many steps as before.

        A full schedule of a scheduler that the host knows is computed anew below the start.
        Another one is squeezed in time, its end staying where it was.
        """
        name, steps, discard = self._recognise(sigmas)
        if name is None:
            return schedules.squeeze(sigmas, start, self.fraction, self.sigma)
        anew = self.schedule(name, steps, start)
        return (_discard_penultimate(anew) if discard else anew).to(sigmas)

    def _recognise(self, sigmas):
        """The host's scheduler that made these sigmas -> (name, steps, penultimate discarded); name None if none did."""
        given, n = sigmas.detach().float().cpu(), len(sigmas) - 1
        exact = [(name, n, False) for name in comfy.samplers.SCHEDULER_NAMES]
        exact += [(name, n + 1, True) for name in comfy.samplers.SCHEDULER_NAMES]
        # this one counts its steps itself: what was asked for is near, but another number
        near = [("ddim_uniform", n + k, False) for k in range(-40, 41) if n + k > 0]
        for name, steps, discard in exact + near:
            try:
                full = comfy.samplers.calculate_sigmas(self.host, name, steps).float().cpu()
            except Exception:  # another pack's scheduler may want another model
                continue
            full = _discard_penultimate(full) if discard else full
            if full.shape == given.shape and torch.equal(full, given):
                return name, steps, discard
        return None, 0, False

    def is_full(self, sigmas):
        """Whether a schedule is a full run's: from the model's maximum, or all of a known scheduler's."""
        return float(sigmas[0]) >= self.sigma_max * (1 - 1e-3) or self._recognise(sigmas)[0] is not None


def _discard_penultimate(sigmas):
    """As the host does for the samplers that would stumble over it (dpm_2, uni_pc)."""
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def start_sigma(sampling, family, start_as, start):
    """The start as an artist sets it -> sigma_M. start_as: START_AS; raises ValueError."""
    if start_as == "family preset":
        start, start_as = family.start
    sigma = start if start_as == "sigma" else sampling.sigma(start)
    sampling.check_start(sigma)
    return min(sigma, sampling.sigma_max)


START_AS = ["family preset", "fraction", "sigma"]


def checked(model):
    """The MODEL. Raises ValueError where another pack passes something else under that type."""
    if not hasattr(model, "get_model_object"):
        raise ValueError(f"this MODEL is a {type(model).__name__} of another pack, which the host cannot sample: connect one that KSampler takes")
    return model


def model_family(model):
    """The family of a MODEL (ModelPatcher)."""
    motion = checked(model).additional_models.get("ADE", [])  # AnimateDiff-Evolved's motion modules
    formats = (getattr(getattr(module.model, "mm_info", None), "mm_format", None) for module in motion)
    return family_of(model.model, formats)


def cloned(model):
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


def to_latent(model, x):
    """The network's space -> a LATENT's, so that the host's `process_latent_in` brings it back.

    The host leaves a latent of only zeros as it is, so zeros stay zeros.
    """
    return x if not x.any() else model.get_model_object("process_latent_out")(x)


def parts_of(latent):
    """The tensors of a LATENT's samples or mask: [video], or [video, sound] where a model makes both."""
    return list(latent.unbind()) if latent.is_nested else [latent]


def like_parts(latent, parts):
    """Tensors as the samples of a LATENT of the same make as `latent`: the inverse of `parts_of`."""
    return type(latent)(parts) if latent.is_nested else parts[0]


def unpacked(flat, shapes):
    """`parts_of` what the host samples: it packs several parts into one flat tensor. shapes: theirs; None from an older host."""
    return list(comfy.utils.unpack_latents(flat, shapes)) if shapes is not None and len(shapes) > 1 else [flat]


def packed(parts):
    """The inverse of `unpacked`."""
    return comfy.utils.pack_latents(parts)[0] if len(parts) > 1 else parts[0]


def free_of(noise_mask, samples):
    """Where a LATENT's mask leaves sampling entirely free, like `samples`: bool.

    Where it is between 0 and 1 the host blends the picture in at every step, so that is kept.
    """
    return comfy.utils.reshape_mask(noise_mask, samples.shape).to(samples.device) > 1 - 1e-3


def latent_format_of(space):
    """The host's latent format of a latent space by its name, for work without a MODEL."""
    names = {value: key for key, value in SPACES.items()} | {"demo": "SD15"}
    if space not in names or not hasattr(comfy.latent_formats, names[space]):
        raise ValueError(f"'{space}' is not a latent space that this host knows; it knows {', '.join(sorted(names))}")
    return getattr(comfy.latent_formats, names[space])()


@torch.no_grad()  # the host switches gradients off for nodes, but not for commands
def clip_latents(vae, process_in, frames):
    """One clip through the host's VAE: IMAGE frames [T, H, W, 3] -> latents [C, T, h, w] as the network sees them."""
    latents = vae.encode(frames[..., :3])
    latents = latents[0] if latents.ndim == 5 else latents.movedim(0, 1)
    return process_in(latents[None])[0]


class SamplingContext:
    """Evaluate a MODEL inside the host's own sampling: its memory management, hooks, patches and guidance all act.

    Use: SamplingContext(model, positive, negative, cfg, seed).run(latent, sigmas, work), where
    work(denoise, x0) is called once; x0 is the latent as the network sees it and
    denoise(xs, sigma) gives the host's prediction of the clean clip for a list of noisy clips.
    """

    def __init__(self, model, positive, negative, cfg, seed):
        self.model, self.seed = model, seed
        self.guider = comfy.samplers.CFGGuider(model)
        self.guider.set_conds(positive, positive if negative is None else negative)
        self.guider.set_cfg(1.0 if negative is None else cfg)

    @torch.no_grad()
    def run(self, samples, sigmas, work):
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


def check_latent(model, samples):
    """Raise ValueError unless a clip's latents are what the model can take: channels, dimensions, frames, numbers."""
    if samples.is_nested:
        raise ValueError("this latent holds video and sound together, and a model of both cannot be asked about a clip alone: there is no probe for it")
    latent_format = model.get_model_object("latent_format")
    name, dimensions = model_family(model).space, latent_format.latent_dimensions + 2
    if samples.ndim != dimensions or samples.shape[1] != latent_format.latent_channels:
        wanted = "[frames, {}, h, w]" if dimensions == 4 else "[1, {}, frames, h, w]"
        raise ValueError(f"this model takes latents of '{name}', {wanted.format(latent_format.latent_channels)}, but {tuple(samples.shape)} came: encode the clip with the model's own VAE")
    if samples.shape[frames_dim(samples)] < 2:
        raise ValueError("a clip of at least two frames is needed, but one frame came: connect all the frames")
    if not torch.isfinite(samples).all():
        raise ValueError("the clip's latents have values that are not numbers (NaN): the picture or the VAE broke before they came here")


def frames_dim(samples):
    """Which dimension of a clip's latents is time."""
    return 0 if samples.ndim == 4 else 2
