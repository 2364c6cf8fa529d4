"""Start Noise and FreeInit in the host: the x that the first call of the model sees, neutral settings, errors."""

import comfy.sample
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import pytest
import tiny
import torch
from node_calls import execute

from cil_pack.cil import initial_noise
from cil_pack.cil.randomness import generator_for
from cil_pack.nodes import start_noise
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.start_noise import FRAME_INIT, MIXED, PLAIN, PROGRESSIVE, FreeInit, StartNoiseNode

SEED = 3


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(start_noise, "say", lambda node, text: notes.append(text))
    return notes


def noise_of(model, method, image_latent=None, tau=0.85, a=1.0):
    return StartNoiseNode.PREPARE_CLASS_CLONE(None).execute(model, method, SEED, tau, 0.25, 0.25, a, image_latent).args[0]


def schedule(model, steps=2):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)


def guider(model):
    return execute(custom.CFGGuider, model, tiny.conditioning(), tiny.conditioning(), 1.0).args[0]


def sampled(model, noise, latent):
    return execute(custom.SamplerCustomAdvanced, noise, guider(model), comfy.samplers.sampler_object("euler"), schedule(model), latent).args[0]["samples"]


@pytest.mark.parametrize("kind", ["SVD", "eps", "flow"])
def test_plain_is_the_hosts_noise_to_the_bit(kind):
    model, latent = tiny.model(kind)
    host = custom.Noise_RandomNoise(SEED).generate_noise(latent)
    assert torch.equal(noise_of(model, PLAIN).generate_noise(latent), host)
    assert torch.equal(noise_of(model, PROGRESSIVE, a=0.0).generate_noise(latent), host)
    assert torch.equal(noise_of(model, MIXED, a=0.0).generate_noise(latent), host)


@pytest.mark.parametrize("kind", ["SVD", "eps", "v zsnr", "flow shift 8"])
def test_the_first_call_sees_frame_init(kind):
    """In a model's own units: the host's noise factor times the mix of the diffused picture and the noise."""
    model, latent = tiny.model(kind)
    frames = latent["samples"].ndim == 4
    shape = list(latent["samples"].shape)
    shape[0 if frames else 2] = 1
    picture = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    spy = tiny.Spy(model)
    sampled(spy.model, noise_of(model, FRAME_INIT, {"samples": picture}), latent)
    sampling, eps = Sampling.of(model), custom.Noise_RandomNoise(SEED).generate_noise(latent)
    sigma = sampling.sigma(0.85)
    alpha, noise = float(sampling.process.alpha(sigma)), float(sampling.process.sigma(sigma))
    still = model.get_model_object("process_latent_in")(picture)
    last = (lambda t: t.movedim(0, 1)) if frames else (lambda t: t)
    still, eps = last(still), last(eps)
    expected = initial_noise.mixed_frequencies((alpha * still + noise * eps) / (alpha**2 + noise**2) ** 0.5, eps, initial_noise.gaussian_filter(eps.shape[-3:]))
    expected = last(expected) * sampling.first_noise_factor(float(schedule(model)[0]))
    assert torch.allclose(spy.first_x, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_progressive_runs_over_the_frames_of_either_layout():
    for kind in ("SVD", "flow"):
        model, latent = tiny.model(kind)
        out, host = noise_of(model, PROGRESSIVE).generate_noise(latent), custom.Noise_RandomNoise(SEED).generate_noise(latent)
        time = 0 if host.ndim == 4 else 2
        assert torch.allclose(out.select(time, 1), (out.select(time, 0) + host.select(time, 1)) / 2**0.5)


def free_init(model, latent, runs):
    return (
        FreeInit.PREPARE_CLASS_CLONE(None)
        .execute(guider(model), comfy.samplers.sampler_object("euler"), schedule(model), latent, SEED, runs, 0.25, 0.25, 4)
        .args[0]["samples"]
    )


@pytest.mark.parametrize("kind", ["SVD", "eps", "flow"])
def test_one_run_of_free_init_is_the_plain_sampler_to_the_bit(kind):
    model, latent = tiny.model(kind)
    assert torch.equal(free_init(model, latent, 1), sampled(model, custom.Noise_RandomNoise(SEED), latent))


@pytest.mark.parametrize("kind", ["SVD", "eps", "flow"])
def test_free_init_hands_low_frequencies_on(kind, said):
    model, latent = tiny.model(kind)
    spy = tiny.Spy(model)
    free_init(spy.model, latent, 2)
    first_run = sampled(model, custom.Noise_RandomNoise(SEED), latent)
    sampling, sigma = Sampling.of(model), float(schedule(model)[0])
    ratio = float(sampling.process.signal(sigma) / sampling.process.noise(sigma))
    last = (lambda t: t.movedim(0, 1)) if first_run.ndim == 4 else (lambda t: t)
    first = custom.Noise_RandomNoise(SEED).generate_noise(latent)
    fresh = torch.randn(first.shape, generator=generator_for(SEED, "fresh", 0))
    x0 = model.get_model_object("process_latent_in")(first_run)
    expected = last(initial_noise.free_init(last(x0), last(first), last(fresh), ratio)) * sampling.first_noise_factor(sigma)
    assert torch.allclose(spy.x[2], expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
    assert said[-1].startswith("2 runs, 4 steps in all") and (start_noise.NO_SIGNAL in said[-1]) == (kind == "flow")


def test_errors_and_idle_inputs(said):
    model, latent = tiny.model("SVD")
    with pytest.raises(ValueError, match="connect image_latent"):
        noise_of(model, FRAME_INIT)
    with pytest.raises(ValueError, match="encode the picture at the video's size"):
        noise_of(model, FRAME_INIT, {"samples": torch.ones(1, 4, 8, 8)}).generate_noise(latent)
    with pytest.raises(ValueError, match="this latent has a mask"):
        free_init(model, {**latent, "noise_mask": torch.ones(6, 8, 12)}, 2)
    noise_of(model, PROGRESSIVE, {"samples": torch.ones(1, 4, 8, 12)})
    assert "image_latent does nothing" in said[-1]
