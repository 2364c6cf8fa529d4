"""CILLowPassCondition: which steps see a filtered image, and that nothing else changes."""

import pytest
import torch
from network_inputs import PLACES, blanked, cut, sample

from cil_pack.cil.low_pass import FILTERS, down_up
from cil_pack.nodes import low_pass as nodes_low_pass
from cil_pack.nodes.host import notes as host_notes
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.low_pass import LowPassCondition
from cil_pack.nodes.timenoise import AS_SET, FIXED, TimeNoiseCondition

DOWN_UP, GAUSSIAN = FILTERS
SOME_OF_EACH_KIND = [
    "SVD",
    "Wan 2.1 I2V",
    "Wan 2.2 Fun control",
    "Wan VACE",
    "Wan 2.2 5B",
    "Hunyuan reference",
    "Hunyuan 1.5 I2V",
    "LTXV guide",
    "Cosmos Predict2",
]


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (nodes_low_pass, host_notes):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


def low_passed(model, positive, negative, kind=DOWN_UP, strength=2.0, start_at=1.0, end_at=0.5):
    return LowPassCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, kind, strength, start_at, end_at).args


def noised(model, positive, negative):
    return TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, FIXED, AS_SET, 0.3, 5.0, 1, False, True).args[0]


@pytest.mark.parametrize("name", SOME_OF_EACH_KIND)
def test_the_first_step_sees_the_filtered_image_and_nothing_else_changes(models, name):
    model, positive, negative, latent = models(name)
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(low_passed(model, positive, negative)[0], positive, negative, latent, steps=1)
    key, channels, frames = PLACES[name]
    before, after = plain.of(key, 0), seen.of(key, 0)
    assert torch.allclose(cut(after, channels, frames), down_up(cut(before, channels, frames), 2.0), atol=1e-5)
    assert not torch.equal(after, before)
    assert torch.equal(blanked(before, channels, frames), blanked(after, channels, frames))


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V"])
def test_only_the_steps_of_the_interval_are_filtered(models, name):
    model, positive, negative, latent = models(name)
    _, plain = sample(model, positive, negative, latent, steps=5)
    _, seen = sample(low_passed(model, positive, negative, GAUSSIAN, 1.0, 0.9, 0.45)[0], positive, negative, latent, steps=5)
    key, channels, frames = PLACES[name]
    image = cut(plain.of(key, 0), channels, frames)
    times = [Sampling.of(model).fraction(sigma) for sigma in seen.sigmas]
    filtered = [not torch.equal(cut(seen.of(key, 0, call), channels, frames), image) for call in range(len(times))]
    assert filtered == [0.45 < time <= 0.9 for time in times] and True in filtered and filtered[0] is False and filtered[-1] is False


def test_the_authors_interval_is_three_of_fifty_steps(models):
    """1 to 0.94 of T on a flow, with the host's plainest schedule."""
    run = nodes_low_pass.LowPassed(DOWN_UP, 4.0, 1.0, 0.94)
    sampling = Sampling.of(models("Wan 2.1 I2V")[0])
    sigmas = sampling.schedule("simple", 50, sampling.sigma_max)[:-1].tolist()
    acts = [run.at(sigma, sampling.fraction(sigma)) is not None for sigma in sigmas]
    assert acts == [True] * 3 + [False] * 47


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "Wan 2.2 5B"])
def test_neutral_settings_change_nothing_to_the_bit(models, name):
    model, positive, negative, latent = models(name)
    plain = sample(model, positive, negative, latent)[0]
    for kind, strength, start, end in ((DOWN_UP, 1.0, 1.0, 0.0), (GAUSSIAN, 0.0, 1.0, 0.0), (DOWN_UP, 4.0, 0.7, 0.7)):
        out, p, n = low_passed(model, positive, negative, kind, strength, start, end)
        assert p is positive and n is negative
        assert torch.equal(sample(out, p, n, latent)[0], plain)


def test_kept_frames_come_out_exactly_kept(models):
    model, positive, negative, latent = models("LTXV")
    plain, result = (sample(m, positive, negative, latent)[0] for m in (model, low_passed(model, positive, negative)[0]))
    assert torch.equal(result[:, :, :1], plain[:, :, :1]) and not torch.equal(result, plain)


def test_it_composes_with_time_noise(models):
    """The node nearer to the loader acts first."""
    model, positive, negative, latent = models("Wan 2.1 I2V")
    _, channels, frames = PLACES["Wan 2.1 I2V"]
    both, _, _ = low_passed(noised(model, positive, negative), positive, negative)
    _, seen = sample(both, positive, negative, latent, steps=1)
    _, only_noise = sample(noised(model, positive, negative), positive, negative, latent, steps=1)
    assert torch.allclose(cut(seen.of("x", 0), channels, frames), down_up(cut(only_noise.of("x", 0), channels, frames), 2.0), atol=1e-5)


def test_what_it_says(models, said):
    low_passed(*models("Wan 2.1 I2V")[:3])
    assert said[-1].startswith("Wan: down and up 2 from 1 to 0.5 of T on the image latents")
    low_passed(*models("Mochi")[:3])
    assert said[-1].startswith("nothing to do for Mochi")
    low_passed(*models("Wan 2.1 I2V")[:3], strength=1.0)
    assert said[-1] == "nothing is changed: the setting is neutral"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"start_at": 0.2, "end_at": 0.5}, "from 0.2 to 0.5 was given"),
        ({"strength": 0.5}, "of 'down and up' is 1 .nothing. or more, but 0.5"),
        ({"kind": GAUSSIAN, "strength": -1.0}, "strength takes numbers from 0 to 64, but -1"),
        ({"start_at": 2.0}, "start_at takes numbers from 0 to 1, but 2"),
    ],
)
def test_bad_values_are_errors(models, changes, message):
    with pytest.raises(ValueError, match=message):
        low_passed(*models("Wan 2.1 I2V")[:3], **changes)
