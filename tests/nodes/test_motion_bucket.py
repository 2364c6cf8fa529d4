"""Motion Bucket: to the bit what the conditioning would have told, on the models that are told it, and nothing left behind."""

import family_models
import pytest
import torch
from network_inputs import sample
from node_calls import run

from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.families import FAMILIES
from cil_pack.nodes.host.models import model_family
from cil_pack.nodes.motion_bucket import CILMotionBucket
from cil_pack.nodes.motion_gain import CILMotionGain


def told(model, bucket):
    return run(CILMotionBucket, model=model, motion_bucket_id=bucket)[0]


def saying(conditioning, bucket):
    return [[tensor, {**rest, "motion_bucket_id": bucket}] for tensor, rest in conditioning]


def gained(model):
    return run(CILMotionGain, model, 1.4, "signal to noise", 3.2, "constant", "own first frame", "nothing", 1.0)[0]


def early(model):
    return run(CILEarlyStart, model, "sigma", 20.0, True)[0]


@pytest.fixture
def svd(models):
    model, positive, negative, latent = models("SVD")
    return model, saying(positive, 127), saying(negative, 127), latent


@pytest.mark.parametrize("around", [lambda m: m, gained, early], ids=["alone", "motion gain", "early start"])
def test_it_is_the_conditionings_own_number(svd, around):
    model, positive, negative, latent = svd
    plain = sample(around(model), positive, negative, latent)[0]
    wanted = sample(around(model), saying(positive, 200), saying(negative, 200), latent)[0]
    for made in (around(told(model, 200)), told(around(model), 200)):
        assert torch.equal(sample(made, positive, negative, latent)[0], wanted)
    assert not torch.equal(plain, wanted)


def test_neutral_is_the_model_itself_and_the_last_one_counts(svd):
    model, positive, negative, latent = svd
    options, before = repr(model.model_options), [dict(entry[1]) for entry in positive]
    assert told(model, 0) is model
    assert torch.equal(sample(told(told(model, 30), 200), positive, negative, latent)[0], sample(told(model, 200), positive, negative, latent)[0])
    assert repr(model.model_options) == options and [list(entry[1]) for entry in positive] == [list(b) for b in before]
    assert all(entry[1]["motion_bucket_id"] == 127 for entry in positive)


def test_models_that_are_told_none_refuse():
    refused = 0
    for name in family_models.TINY:
        model = family_models.model(name)
        if not model_family(model).bucket:
            refused += 1
            assert told(model, 0) is model
            with pytest.raises(ValueError, match="is told no motion bucket"):
                told(model, 200)
    assert refused > 5 and {f.key for f in FAMILIES if f.bucket} == {"SVD", "demo", "landscape"}
