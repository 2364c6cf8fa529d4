"""Properties of the early start over schedulers, samplers, steps, starts, noise processes and routes.

Every noise process under every scheduler; the other axes are drawn with a seed. All combinations, by hand: CIL_FULL_CROSS=1 (hours).
What a scheduler lays on the truncated process, which needs no sampler, is looked at for each number of steps.
"""

import itertools
import os
import random
from dataclasses import dataclass

import comfy.patcher_extension
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import pytest
import tiny
import torch
from node_calls import execute

import nodes as host_nodes
from cil_pack.cil import schedules
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.schedule import ANEW, AUTO, HAND_OVER

COUNTS_ITSELF = ("ddim_uniform", "beta")
KINDS = ["SVD", "eps", "v zsnr", "eps rescaled", "v rescaled zsnr", "flow", *tiny.SHIFTED, "flow shift 8", "flux", "Cosmos RFlow"]
SCHEDULERS, SAMPLERS = comfy.samplers.SCHEDULER_NAMES, comfy.samplers.SAMPLER_NAMES
STEPS = range(1, 51)
STARTS = [0.98, 0.96, 0.94, 0.92, 0.9, 0.875, 0.7533, 0.5]
FULL = bool(os.environ.get("CIL_FULL_CROSS"))
MODELS = {}


@dataclass(frozen=True)
class Case:
    kind: str
    scheduler: str
    sampler: str
    steps: int
    start: float


def cases(count, seed, schedulers=SCHEDULERS, steps=STEPS):
    """`count` of them, None = one for each noise process under each scheduler; no number of steps, sampler or start comes twice before all have come."""
    if FULL:
        return [Case(*c) for c in itertools.product(KINDS, schedulers, SAMPLERS, steps, STARTS)]
    draw = random.Random(seed)
    shuffled = lambda axis: draw.sample(list(axis), len(axis))
    pairs = shuffled(list(itertools.product(KINDS, schedulers)))[:count]
    axes = zip(*(itertools.cycle(shuffled(axis)) for axis in (SAMPLERS, steps, STARTS)))
    return [Case(*pair, *others) for pair, others in zip(pairs, axes)]


def recorder(model):
    """A clone whose sampler only notes its sigmas and its first x."""
    out, seen = model.clone(), []

    def note(executor, wrapped, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        at_max = executor.class_obj.max_denoise(wrapped, sigmas)
        seen.append((sigmas.clone(), wrapped.inner_model.model_sampling.noise_scaling(sigmas[0], noise.clone(), latent_image, at_max)))
        return torch.ones_like(noise)

    out.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "recorder", note)
    return out, seen


def early(model, start, layout=AUTO, analytic=False):
    return CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "fraction", start, analytic, None, layout).args[0]


def setup(case, layout=AUTO):
    """-> (plain MODEL, patched MODEL, empty LATENT, Sampling, sigma_M as the host's float32)."""
    if case.kind not in MODELS:
        MODELS[case.kind] = tiny.model(case.kind)
    model, latent = MODELS[case.kind]
    sampling = Sampling.of(model)
    return model, early(model, case.start, layout), latent, sampling, torch.tensor(sampling.sigma(case.start), dtype=torch.float32)


def advanced(model, latent, case, first=0, last=10000, noise="enable", leftover="disable"):
    out, seen = recorder(model)
    cond = tiny.conditioning()
    host_nodes.KSamplerAdvanced().sample(out, noise, 1, case.steps, 1.0, case.sampler, case.scheduler, cond, cond, latent, first, last, leftover)
    return seen[0][0]


def ksampler(model, latent, case, denoise=1.0):
    out, seen = recorder(model)
    cond = tiny.conditioning()
    host_nodes.KSampler().sample(out, 1, case.steps, 1.0, case.sampler, case.scheduler, cond, cond, latent, denoise)
    return seen[0][0]


def sampler_custom(model, latent, sigmas):
    out, seen = recorder(model)
    cond = tiny.conditioning()
    execute(custom.SamplerCustom, out, True, 1, 1.0, cond, cond, comfy.samplers.sampler_object("euler"), sigmas, latent)
    return seen[0][0]


def custom_advanced(model, latent, sigmas):
    out, seen = recorder(model)
    guider = execute(custom.BasicGuider, out, tiny.conditioning()).args[0]
    execute(custom.SamplerCustomAdvanced, execute(custom.RandomNoise, 1).args[0], guider, comfy.samplers.sampler_object("euler"), sigmas, latent)
    return seen[0][0]


def laid_on(process, case, sampler=None):
    """What the host's KSampler lays on a noise process."""
    discards = (sampler or case.sampler) in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    sigmas = comfy.samplers.calculate_sigmas(process, case.scheduler, case.steps + discards)
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if discards else sigmas


def alike(a, b):
    """Equal but for the host's float32, whose vectorised powers and tangents differ by where a tensor lies in memory."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-4, atol=0)


def is_whole_run(sigmas, plain, expected, start, case):
    schedules.check(sigmas)
    if case.scheduler == "kl_optimal" and not torch.isfinite(expected).all():
        assert torch.equal(sigmas, torch.stack([start, start.new_zeros(())]))  # the host's own single step is 0 / 0
        return
    assert alike(sigmas, schedules.falling(expected)), case
    assert sigmas[-1] == plain[-1]
    if case.scheduler != "ddim_uniform":  # which begins up to a step below its model's largest sigma, here as everywhere
        assert sigmas[0] == start
    if case.scheduler not in COUNTS_ITSELF:
        assert len(sigmas) == len(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_steps_fills_what_lies_below_the_start(kind):
    """No step is lost or doubled, the first sigma is the start, the last 0; each of 1 to 50 steps, with one start after the other."""
    sampling = Sampling.of(tiny.model(kind)[0])
    processes = [(torch.tensor(sampling.sigma(fraction)), sampling.truncated(sampling.sigma(fraction))) for fraction in STARTS]
    for (row, scheduler), steps in itertools.product(enumerate(SCHEDULERS), STEPS):
        start, process = processes[(row + steps) % len(STARTS)]
        sigmas = comfy.samplers.calculate_sigmas(process, scheduler, steps)
        if scheduler == "kl_optimal" and steps == 1:
            continue  # the host's own is 0 / 0
        if scheduler not in COUNTS_ITSELF:
            assert len(sigmas) == steps + 1, (scheduler, steps)
            schedules.check(torch.cat([start.reshape(1), sigmas[1:]]))
        assert sigmas[-1] == 0 and (scheduler == "ddim_uniform" or sigmas[0] == pytest.approx(float(start), rel=1e-6 * (1 + float(start)))), (scheduler, steps)


def test_whole_runs_are_what_the_scheduler_lays_on_the_truncated_process():
    for number, case in enumerate(cases(None, 1)):
        model, patched, latent, sampling, start = setup(case)
        process = sampling.truncated(sampling.sigma(case.start))
        expected, plain = laid_on(process, case), laid_on(sampling.host, case)
        is_whole_run((ksampler, advanced)[number % 2](patched, latent, case), plain, expected, start, case)
        euler = [laid_on(of, case, "euler")[-(case.steps + 1) :] for of in (process, sampling.host)]  # BasicScheduler gives no more
        basic = execute(custom.BasicScheduler, patched, case.scheduler, case.steps, 1.0).args[0]
        is_whole_run((sampler_custom, custom_advanced)[number // 2 % 2](patched, latent, basic), euler[1], euler[0], start, case)


def test_two_stages_on_the_truncated_process_meet_at_one_sigma():
    for case in cases(40, 2, steps=range(3, 51)):
        model, patched, latent, sampling, start = setup(case, ANEW)
        expected = laid_on(sampling.truncated(sampling.sigma(case.start)), case)
        middle = len(expected) // 2
        if middle < 1 or not (expected[1:] < expected[:-1]).all():
            continue
        first = advanced(patched, latent, case, 0, middle, leftover="enable")
        later = advanced(patched, {"samples": torch.ones_like(latent["samples"])}, case, middle, 10000, noise="disable")
        assert alike(first, expected[: middle + 1]) and alike(later, expected[middle:]) and (first[0] == start or case.scheduler == "ddim_uniform"), case
        assert case.scheduler == "kl_optimal" or torch.isclose(first[-1], later[0], rtol=1e-6), case


def test_a_kept_hand_over_stays_where_it_was_and_the_later_stage_too():
    for case in cases(60, 3, steps=range(3, 51)):
        model, patched, latent, sampling, start = setup(case, HAND_OVER)
        plain = laid_on(sampling.host, case)
        below = (plain < start * (1 - 1e-3)).nonzero().flatten()
        middle = max(int(below[0]), len(plain) // 2)
        if middle >= len(plain) - 1 or not (plain[1:] < plain[:-1]).all():
            continue
        first = advanced(patched, latent, case, 0, middle, leftover="enable")
        schedules.check(first)
        # ddim_uniform may begin below the start by itself, and is left so
        assert len(first) == middle + 1 and first[0] == torch.minimum(start, plain[0]) and first[-1] == plain[middle], case
        later = advanced(patched, {"samples": torch.ones_like(latent["samples"])}, case, middle, 10000, noise="disable")
        assert torch.equal(later, plain[middle:]), case


def test_sigmas_of_the_unpatched_model_keep_their_number_and_their_end():
    for number, case in enumerate(cases(None, 4)):
        model, patched, latent, sampling, start = setup(case)
        route = (sampler_custom, custom_advanced)[number % 2]
        plain = execute(custom.BasicScheduler, model, case.scheduler, case.steps, 1.0).args[0]
        if not (plain[1:] < plain[:-1]).all() or plain[0] <= start:
            continue
        sigmas = route(patched, latent, plain)
        schedules.check(sigmas)
        assert len(sigmas) == len(plain) and sigmas[0] == start and sigmas[-1] == plain[-1], case
        if case.steps > 1 and plain[-2] < start:
            assert torch.isclose(sigmas[-2], plain[-2], rtol=1e-6), case
        if case.scheduler == "normal" and case.kind != "Cosmos RFlow":  # even in time down to the smallest sigma; Cosmos' M / T is even in ln sigma
            assert torch.allclose(sigmas, laid_on(sampling.truncated(sampling.sigma(case.start)), case, "euler"), rtol=2e-3), case
        nudged = torch.nextafter(plain, torch.where(plain > 0, torch.inf, 0.0) if number // 2 % 2 else plain.new_zeros(()))
        assert torch.allclose(route(patched, latent, nudged), sigmas, rtol=2e-5), case


def test_denoise_below_1_is_the_last_part_of_the_truncated_run():
    for case in cases(25, 5, steps=range(4, 51)):
        model, patched, latent, sampling, start = setup(case)
        longer = Case(case.kind, case.scheduler, case.sampler, int(case.steps / 0.5), case.start)
        expected = laid_on(sampling.truncated(sampling.sigma(case.start)), longer)[-(case.steps + 1) :]
        if not (expected[1:] < expected[:-1]).all():
            continue
        assert alike(ksampler(patched, latent, case, denoise=0.5), expected), case


def first_x(model, latent, case, **options):
    """The first x of a KSampler, or with noise="disable" of a KSamplerAdvanced."""
    out, seen = recorder(model)
    cond = tiny.conditioning()
    settings = (1, case.steps, 1.0, case.sampler, case.scheduler, cond, cond, latent)
    host_nodes.KSamplerAdvanced().sample(out, "disable", *settings, 0, 10000, "disable") if options else host_nodes.KSampler().sample(out, *settings, 1.0)
    return seen[0]


@pytest.mark.parametrize("kind", KINDS)
def test_given_latents_and_switched_off_noise(kind):
    """A picture in the latent is what the start is drawn around; without noise the run goes on from it as it is."""
    case = Case(kind, "simple", "euler", 4, 0.9)
    model, patched, latent, sampling, start = setup(case)
    held = {"samples": torch.ones_like(latent["samples"])}
    inside, process = model.get_model_object("process_latent_in")(held["samples"]), sampling.process
    eps = torch.randn(inside.shape, generator=torch.manual_seed(1))
    sigmas, x = first_x(patched, held, case)
    level = float(start)
    assert sigmas[0] == start and torch.allclose(x, process.signal(level) * inside + process.noise(level) * eps, rtol=1e-4, atol=1e-4)
    sigmas, x = first_x(patched, held, case, noise="disable")
    assert sigmas[0] == start and torch.allclose(x, process.signal(level) * inside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["SVD", "eps", "v zsnr", "v rescaled zsnr", "flow shift 8", "Cosmos RFlow"])
def test_what_a_mask_gives_free_starts_as_without_it_and_what_it_keeps_comes_out(kind):
    case = Case(kind, "simple", "euler", 2, 0.9)
    model, patched, latent, sampling, start = setup(case)
    picture = torch.ones_like(latent["samples"])
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 6:] = 1
    cond, runs = tiny.conditioning(), []
    for given in (latent, {"samples": picture, "noise_mask": mask}):
        spy = tiny.Spy(patched)
        out = host_nodes.KSampler().sample(spy.model, 1, 2, 1.0, "euler", "simple", cond, cond, given, 1.0)[0]["samples"]
        runs.append((spy.first_x, out))
    (anew, _), (x, out) = runs
    assert torch.allclose(x[..., 6:], anew[..., 6:], rtol=1e-5, atol=1e-5) and torch.allclose(out[..., :6], picture[..., :6], atol=1e-5)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s not in ("dpm_adaptive",)])  # which chooses its steps itself
def test_every_sampler_calls_the_model_as_often_as_without(sampler):
    """Really sampled, a few combinations each."""
    draw = random.Random(sampler)
    for _ in range(40 if FULL else 1):
        case = Case(draw.choice(KINDS), draw.choice([s for s in SCHEDULERS if s not in COUNTS_ITSELF]), sampler, draw.choice([2, 6]), draw.choice(STARTS))
        model, patched, latent, sampling, start = setup(case)
        calls = []
        for m in (model, patched):
            spy = tiny.Spy(m)
            cond = tiny.conditioning()
            out = host_nodes.KSampler().sample(spy.model, 1, case.steps, 1.0, sampler, case.scheduler, cond, cond, latent, 1.0)[0]["samples"]
            calls.append(len(spy.sigmas))
        assert calls[0] == calls[1] and spy.sigmas[0] == start and torch.isfinite(out).all(), case
