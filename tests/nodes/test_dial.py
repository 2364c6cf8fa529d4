"""CILMotionDial on tiny instances of the host's classes: its models to the bit, stopping, what it keeps, what it refuses."""

import json

import comfy.model_management
import comfy.patcher_extension
import family_models
import folder_paths
import lvdm_tiny
import pytest
import tiny
import torch
from node_calls import run

import nodes as host_nodes
from cil_pack.cil.amount import Amount
from cil_pack.nodes import dial, dial_memory, dial_search, fingerprint, levers, previews
from cil_pack.nodes.alg import AdaptiveLowPass
from cil_pack.nodes.dial import MotionDial
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.motion_bucket import CILMotionBucket
from cil_pack.nodes.motion_gain import CILMotionGain
from cil_pack.nodes.motion_slider import MotionSliderNode
from cil_pack.nodes.timenoise import TimeNoiseCondition

WIDGETS = {
    "want": dial_search.MORE, "amount": 1.5, "lever": levers.GAIN, "budget": 4, "seconds": 0, "most_price": 0.03, "seed": 3, "seeds": 1, "steps": 4, "cfg": 2.0,
    "sampler_name": "euler", "scheduler": "simple", "preview_steps": 0, "preview_size": 1.0, "flow": "DIS (OpenCV)",
}  # fmt: skip
FAMILIES = ["SVD", "DynamiCrafter", "Wan 2.1 I2V", "LTXV", "Hunyuan I2V concat"]


class Decoder:
    """A VAE that shows three channels of the latents."""

    def decode(self, samples):
        return torch.sigmoid(samples.movedim(1, -1)[..., :3])

    def encode(self, pixels):
        raise NotImplementedError


def made(name):
    """-> (MODEL, positive, negative, LATENT)."""
    if name == "DynamiCrafter":
        return lvdm_tiny.model("DynamiCrafter 512"), *lvdm_tiny.picture_conditioning()
    return family_models.model(name), *family_models.conditioning(name)


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """Folders of this test's own for what is kept and handed on, and what the node says; motion is read at a fifth of its usual size."""
    tiny.read_motion_small(monkeypatch)
    for kind in ("user", "output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    said = []
    for module in (dial, dial_search):
        monkeypatch.setattr(module, "say", lambda node, text: said.append(text))
    return said


@pytest.fixture
def measured(monkeypatch):
    """Amounts in place of measured ones, in the order of the settings that are looked at."""

    def set_to(*motions, price=0.0):
        left = list(motions)

        def read(frames, image, flow, tick):
            tick()
            amount = left.pop(0)
            if callable(amount):
                return amount()
            return Amount(amount, 1.0 - (price if len(left) < len(motions) - 1 else 0.0), 0.0)

        monkeypatch.setattr(dial_search.amounts, "read", read)
        return left

    return set_to


def given(name, **changes):
    model, positive, negative, latent = made(name)
    return {"model": model, "positive": positive, "negative": negative, "latent": latent, "vae": Decoder(), **WIDGETS, **changes}


def turned(**arguments):
    """-> (outputs, report)."""
    out = run(MotionDial, **arguments)
    return out, json.loads(out[7])


def clip(model, g, seed=9):
    with torch.inference_mode():
        return host_nodes.KSampler().sample(model, seed, 4, 2.0, "euler", "simple", g["positive"], g["negative"], g["latent"], 1.0)[0]["samples"]


def two_stages(high, low, g, seed=9):
    with torch.inference_mode():
        common = (4, 2.0, "euler", "simple", g["positive"], g["negative"])
        first = host_nodes.KSamplerAdvanced().sample(high, "enable", seed, *common, g["latent"], 0, 2, "enable")[0]
        return host_nodes.KSamplerAdvanced().sample(low, "disable", seed, *common, first, 2, 10000, "disable")[0]["samples"]


ORDINARY = {
    levers.GAIN: lambda model, x: run(CILMotionGain, model, x, "signal to noise", 3.2, "constant", "own first frame", "nothing", 1.0)[0],
    levers.SLIDER: lambda model, x: run(MotionSliderNode, model, x, 0.2, "noise level")[0],
    levers.LOW_PASS: lambda model, x: run(AdaptiveLowPass, model, "as set", "down and up", x, "noise level", 0.0, 0.2, "constant", 10.0)[0],
    levers.TIMENOISE: lambda model, x: run(TimeNoiseCondition, model, [], [], "time-dependent (median)", "as set", x, 5.0, 0, False, True)[0],
}


# ---- to the bit -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_the_ordinary_nodes_with_the_found_gain(name, measured):
    measured(1.0, 1.4, 2.0)
    g = given(name)
    out, report = turned(**g)
    assert report["kind"] == "found" and out[2] == report["setting"] != 1 and out[4] == 0.0 and out[8] == 0
    plain, found = clip(g["model"], g), clip(out[0], g)
    assert torch.equal(found, clip(ORDINARY[levers.GAIN](g["model"], out[2]), g)) and not torch.equal(found, plain)
    assert report["ordinary_node"]["widgets"]["gain"] == out[2]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_early_starts_with_the_found_start(name, measured):
    measured(1.0, 1.4, 2.0)
    g = given(name, lever=levers.START)
    out, report = turned(**g)
    assert report["kind"] == "found" and out[2] == 1.0 and out[3] == report["ordinary_node"]["widgets"]["start"]
    found = clip(out[0], g)
    assert torch.equal(found, clip(run(CILEarlyStart, g["model"], "sigma", out[3], True)[0], g)) and not torch.equal(found, clip(g["model"], g))


@pytest.mark.parametrize("lever", [levers.SLIDER, levers.LOW_PASS, levers.TIMENOISE])
def test_the_model_is_that_of_the_other_levers_nodes(lever, measured):
    measured(1.0, 1.4, 2.0)
    g = given("Wan 2.1 I2V", lever=lever)
    out, report = turned(**g)
    found = clip(out[0], g)
    assert torch.equal(found, clip(ORDINARY[lever](g["model"], report["setting"]), g)) and not torch.equal(found, clip(g["model"], g))
    assert out[4] == (report["setting"] if lever == levers.SLIDER else 0.0)


def test_the_motion_bucket_is_turned_from_what_the_conditioning_says(measured):
    """In whole numbers, and to the bit what the conditioning node would have told."""
    measured(1.0, 1.4, 2.0)
    g = given("SVD", lever=levers.BUCKET)
    g["positive"], g["negative"] = ([[e[0], {**e[1], "motion_bucket_id": 100}] for e in g[side]] for side in ("positive", "negative"))
    out, report = turned(**g)
    bucket = report["ordinary_node"]["widgets"]["motion_bucket_id"]
    assert report["readings"][0]["setting"] == 100 and isinstance(bucket, int) and bucket > 100 and out[2] == 1.0 and out[8] == bucket
    told = {**g} | {side: [[e[0], {**e[1], "motion_bucket_id": bucket}] for e in g[side]] for side in ("positive", "negative")}
    found = clip(out[0], g)
    assert torch.equal(found, clip(g["model"], told)) and not torch.equal(found, clip(g["model"], g))


def test_a_bucket_that_stands_on_the_model_is_where_the_search_begins(measured):
    measured(1.0, 1.4, 2.0)
    g = given("SVD", lever=levers.BUCKET)
    g["model"] = run(CILMotionBucket, g["model"], 180)[0]
    _, report = turned(**g)
    assert report["readings"][0]["setting"] == 180 and report["ordinary_node"]["widgets"]["motion_bucket_id"] > 180


@pytest.mark.parametrize("lever", [levers.GAIN, levers.SLIDER])
def test_both_stages_of_wan(lever, measured):
    measured(1.0, 1.4, 2.0)
    g = given("Wan 2.2 14B I2V", lever=lever)
    low = family_models.model("Wan 2.2 14B I2V")
    out, report = turned(**g, model_low=low, hand_over=2)
    by_hand = [ORDINARY[lever](m, report["setting"]) for m in (g["model"], low)]
    found = two_stages(*out[:2], g)
    assert torch.equal(found, two_stages(*by_hand, g)) and not torch.equal(found, two_stages(g["model"], low, g))


def test_an_early_start_goes_on_the_first_of_two_stages_alone(measured):
    measured(1.0, 2.0)
    g = given("Wan 2.2 14B I2V", lever=levers.START)
    low = family_models.model("Wan 2.2 14B I2V")
    out, _ = turned(**g, model_low=low, hand_over=2)
    assert out[1] is low
    by_hand = run(CILEarlyStart, g["model"], "sigma", out[3], True)[0]
    assert torch.equal(two_stages(*out[:2], g), two_stages(by_hand, low, g))


def test_a_model_that_needs_nothing_is_handed_on_as_it_came(measured):
    measured(1.0)
    g = given("SVD", want=dial_search.AS_IT_IS)
    out, report = turned(**g)
    assert out[0] is g["model"] and report["kind"] == "as it is" and report["previews"] == 1 and report["ordinary_node"] is None


def test_a_lever_that_helps_nothing_leaves_the_model(measured, places):
    measured(*[1.0] * 9)
    g = given("SVD", budget=9)
    out, report = turned(**g)
    assert out[0] is g["model"] and out[2] == 1.0 and report["kind"] == "cannot" and "moves nothing here" in places[-1].split("\n")[0]


def test_the_best_lever_of_a_family(measured):
    for name, lever in (("Wan 2.1 I2V", levers.GAIN), ("SVD", levers.BUCKET), ("LTXV", levers.GAIN)):
        measured(1.0, 2.0)
        assert turned(**given(name, lever=levers.BEST))[1]["lever"] == lever


BUCKETS = (1.0, 1.02, 1.04, 1.05)  # the motion of the plain clip, of bucket 175, 247 and 255: the model hardly heeds what it is told


def test_what_the_bucket_does_not_reach_is_asked_of_the_gain(measured, places):
    """One budget, one plain clip; the ordinary node of the lever that reached it; run again, nothing is sampled."""
    left = measured(*BUCKETS, 1.9)
    g = given("SVD", lever=levers.BEST, want="times the plain clip's motion", amount=2.0, budget=7)
    out, report = turned(**g)
    assert not left and (report["lever"], report["kind"], report["previews"]) == (levers.GAIN, "found", 5)
    assert report["ordinary_node"]["node"] == "CILMotionGain" and out[2] == report["setting"] > 1 and out[8] == 0
    assert [(o["lever"], [r["motion"] for r in o["readings"]]) for o in report["others"]] == [(levers.BUCKET, list(BUCKETS))]
    assert len(out[5]) > 1 and places[-1].split("\n")[1].startswith("motion bucket was turned too and came to motion 1: this lever moves nothing here")
    again, repeated = turned(**g)
    assert repeated["previews"] == 0 and again[2] == out[2] and "5 settings known" in places[-1]


def test_the_earlier_lever_stays_where_the_next_comes_no_nearer(measured, places):
    measured(1.0, 1.4, 1.5, 1.6, *[1.1] * 9)
    _, report = turned(**given("SVD", lever=levers.BEST, want="times the plain clip's motion", amount=2.0, budget=6))
    assert (report["lever"], report["kind"], report["setting"], report["previews"]) == (levers.BUCKET, "nearest", 255, 6)
    assert "motion gain was turned too and came to motion 1" in places[-1]


def test_a_spent_budget_asks_no_other_lever(measured, places):
    left = measured(*BUCKETS, 9.0)
    g = given("SVD", lever=levers.BEST, want="times the plain clip's motion", amount=2.0, budget=4)
    for previews_made in (4, 0):
        _, report = turned(**g)
        assert len(left) == 1 and report["kind"] == "cannot" and report["previews"] == previews_made
        assert "was turned too" not in places[-1]


def test_stopped_at_the_second_lever_the_best_of_both_is_kept(measured, places):
    def stop():
        raise comfy.model_management.InterruptProcessingException()

    measured(1.0, 1.4, 1.5, 1.6, stop)
    out, report = turned(**given("SVD", lever=levers.BEST, want="times the plain clip's motion", amount=2.0, budget=7))
    assert report["stopped"] and report["lever"] == levers.BUCKET and out[8] == 255 and places[-1].startswith("Stopped; best so far: ")


# ---- previews -------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preview_is_what_the_hosts_sampler_gives(name):
    g = given(name)
    one = previews.Run(g["positive"], g["negative"], g["latent"], 9, 4, 2.0, "euler", "simple")
    with torch.inference_mode():
        assert torch.equal(previews.sampled([g["model"]], one, 9), clip(g["model"], g))


def test_a_preview_of_two_stages_is_what_two_samplers_give():
    g, low = given("Wan 2.2 14B I2V"), family_models.model("Wan 2.2 14B I2V")
    one = previews.Run(g["positive"], g["negative"], g["latent"], 9, 4, 2.0, "euler", "simple", 2)
    with torch.inference_mode():
        assert torch.equal(previews.sampled([g["model"], low], one, 9), two_stages(g["model"], low, g))


@pytest.mark.parametrize(
    "steps, hand_over, asked, expected",
    [(20, 10, 0, (7, 4)), (8, 4, 0, (8, 4)), (4, 2, 0, (4, 2)), (30, 1, 6, (6, 1)), (20, 19, 6, (6, 5)), (20, 0, 0, (7, 0))],
)
def test_a_shorter_run_hands_over_at_the_same_share(steps, hand_over, asked, expected):
    short = previews.Run([], [], {}, 0, steps, 1.0, "euler", "simple", hand_over).shorter(asked)
    assert (short.steps, short.hand_over) == expected


def test_smaller_previews_where_the_latent_allows_it(models):
    model, _, _, latent = models("Wan 2.1 I2V")
    assert previews.smaller(model, latent, 0.5)[0]["samples"].shape[-2:] == (4, 4)
    assert previews.smaller(model, latent, 1.0)[0] is latent
    for name in ("LTXV", "Wan 2.2 5B"):  # which hold the picture in the latent
        model, _, _, latent = models(name)
        same, note = previews.smaller(model, latent, 0.5)
        assert same is latent and "full size" in note


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "Hunyuan I2V concat"])
def test_a_smaller_preview_runs_through(name, measured):
    measured(1.0, 2.0)
    out, _ = turned(**given(name, preview_size=0.5))
    assert torch.isfinite(out[5]).all()


def test_of_several_clips_the_first():
    latent = {"samples": torch.zeros(3, 16, 4, 8, 8), "noise_mask": torch.ones(3, 1, 4, 8, 8)}
    one = previews.one_clip(latent)
    assert one["samples"].shape[0] == one["noise_mask"].shape[0] == 1 and latent["samples"].shape[0] == 3


def test_no_clip_is_held(measured, monkeypatch):
    """Of a preview only its tile stays: frames and latents are gone before the next one is sampled."""
    import weakref

    measured(1.0, 1.2, 1.4, 1.5)
    alive, original = [], previews.decoded

    def seen(vae, samples):
        assert not [ref for ref in alive if ref() is not None]
        frames = original(vae, samples)
        alive.extend([weakref.ref(frames), weakref.ref(samples)])
        return frames

    monkeypatch.setattr(previews, "decoded", seen)
    turned(**given("SVD"))
    assert len(alive) == 8


# ---- wants, prices, refusals ----------------------------------------------------------


def test_what_is_asked_for():
    plain = Amount(10.0, 1.0, 0.0)
    asked = lambda want, number=1.5: dial_search.goal_of(want, number, plain, 12).amount
    assert [asked(w) for w in (dial_search.CALM, dial_search.AS_IT_IS, dial_search.MORE)] == [5.0, 10.0, 20.0]
    assert (asked(dial_search.TIMES, 0.7), asked(dial_search.SCORE, 33.0), asked(dial_search.FAITHFUL)) == (7.0, 33.0, None)
    assert dial_search.goal_of(dial_search.MORE, 1.5, Amount(0.0, 1.0, 0.0), 12).amount > 0  # of a still no multiple


def test_nothing_past_the_price(measured, places):
    """Whatever is looked at beyond plain costs more than is allowed: the model stays."""
    measured(1.0, *[9.0] * 8, price=0.5)
    g = given("SVD", budget=8)
    out, report = turned(**g)
    assert out[0] is g["model"] and report["kind"] == "cannot" and "breaks" in places[-1].split("\n")[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lever": levers.SLIDER}, "motion slider' cannot act here"),
        ({"lever": levers.LOW_PASS, "cfg": 1.0}, "at CFG 1 there is no guidance"),
        ({"hand_over": 2}, "no second stage is connected"),
        ({"measurements": "/etc/secret.json"}, "lies outside the folders"),
        ({"measurements": "nothing.json"}, "no file of measurements"),
        ({"export_as": "a/b"}, "cannot be the name"),
    ],
)
def test_it_refuses_in_words(changes, message, measured):
    measured(1.0, 2.0)
    with pytest.raises(ValueError, match=message):
        turned(**given("SVD", **changes))


def test_a_second_stage_needs_its_step(measured):
    with pytest.raises(ValueError, match="hand_over is the step at which it takes over, from 1 to 3"):
        turned(**given("Wan 2.2 14B I2V"), model_low=family_models.model("Wan 2.2 14B I2V"))


# ---- stop -----------------------------------------------------------------------------


def stop():
    comfy.model_management.interrupt_current_processing(True)
    comfy.model_management.throw_exception_if_processing_interrupted()


def test_stopped_it_keeps_the_best_so_far(measured, places):
    measured(1.0, 1.5, stop)
    g = given("SVD", budget=8)
    out, report = turned(**g)
    assert report["stopped"] and len(report["readings"]) == 2 and out[2] == report["setting"] != 1
    assert places[-1].startswith("Stopped; best so far") and "stop again" in places[-1] and "budget" not in places[-1].split("\n")[0]
    assert torch.equal(clip(out[0], g), clip(ORDINARY[levers.GAIN](g["model"], out[2]), g))


def test_stopped_before_anything_is_known_it_stops(measured):
    measured(stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        turned(**given("SVD"))


def test_stopped_in_the_middle_of_a_preview(measured, monkeypatch):
    """The host's own flag, set while a preview is sampled, ends the search at the next step."""
    measured(1.0, 1.5)
    original, looks = previews.sampled, []

    def second_is_stopped(models, run, seed, step):
        looks.append(0)
        if len(looks) == 2:
            comfy.model_management.interrupt_current_processing(True)
        return original(models, run, seed, step)

    monkeypatch.setattr(previews, "sampled", second_is_stopped)
    _, report = turned(**given("SVD"))
    assert report["stopped"] and len(report["readings"]) == 1


def test_the_time_is_up(measured, monkeypatch, places):
    measured(1.0, 1.2, 1.3)
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(dial_search.time, "monotonic", lambda: next(clock))
    _, report = turned(**given("SVD", seconds=50))
    assert report["previews"] == 1 and "the time, 50 s, was up" in places[-1]


# ---- what is kept ---------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Evaluations of any tiny SVD's network."""
    import comfy.ldm.modules.diffusionmodules.openaimodel as unet

    count, original = [], unet.UNetModel.forward
    monkeypatch.setattr(unet.UNetModel, "forward", lambda *args, **kwargs: count.append(1) or original(*args, **kwargs))
    return count


@pytest.mark.parametrize("motions", [(1.0, 2.0), (1.0, 1.1, 1.2, 1.3)], ids=["found", "budget spent"])
def test_the_same_queue_twice_costs_no_model_call(measured, calls, places, motions):
    measured(*motions)
    first, report = turned(**given("SVD"))
    made, calls[:] = len(calls), []
    again, second = turned(**given("SVD"))  # everything made anew
    assert made == 4 * 1 * len(motions) and not calls and second["previews"] == 0
    assert second["setting"] == report["setting"] and second["readings"] == report["readings"] and torch.equal(first[5], again[5])
    assert "all was measured before" in places[-1]


def test_another_amount_on_the_same_clip_goes_on_from_what_is_known(measured):
    measured(1.0, 2.0)
    turned(**given("SVD"))
    left = measured(3.0)
    _, report = turned(**given("SVD", want=dial_search.TIMES, amount=3.0))
    assert not left and report["previews"] == 1 and report["kind"] == "found" and len(report["readings"]) == 3


@pytest.mark.parametrize("change", ["seed", "cfg", "text", "picture", "weights", "node", "steps"])
def test_what_makes_another_clip_is_measured_anew(change, measured):
    measured(1.0, 2.0)
    turned(**given("SVD"))
    g = given("SVD")
    if change in ("seed", "cfg", "steps"):
        g[change] += 1
    elif change == "text":
        g["positive"][0][0] += 1
    elif change == "picture":
        g["positive"][0][1]["concat_latent_image"] = g["positive"][0][1]["concat_latent_image"] + 1
    elif change == "weights":
        next(g["model"].model.diffusion_model.parameters()).data.flatten()[0] += 1
    else:
        g["model"] = ORDINARY[levers.GAIN](g["model"], 1.2)
    left = measured(1.0, 2.0)
    turned(**g)
    assert not left


def test_a_models_fingerprint():
    model = family_models.model("SVD")
    of = fingerprint.of_anything
    assert of(model) == of(model.clone()) == of(family_models.model("SVD"))
    gains = [of(ORDINARY[levers.GAIN](model, x)) for x in (1.2, 1.3, 1.2)]
    assert gains[0] == gains[2] != gains[1] and of(model) not in gains
    patched = model.clone()
    weight = next(name for name in model.model.state_dict() if name.endswith("weight"))
    patched.add_patches({weight: (torch.ones_like(model.model.state_dict()[weight]),)}, 0.5)
    assert of(patched) not in (of(model), *gains)
    assert of({"a": 1, "b": [2.0]}) == of({"b": [2.0], "a": 1}) != of({"a": 1, "b": [2]})
    ring = []
    ring.append(ring)
    assert of(ring) == of(ring)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cil_dial": 1}', "[" * 100_000, '{"cil_dial": 1, "key": "KEY", "readings": [[1, "x", 0, 0], [1.0, NaN, 1, 0], 7, {}, [1.0, -1, 1, 0]], "done": [3]}']
)  # fmt: skip
def test_a_kept_file_that_is_none_is_measured_anew(text, measured):
    measured(1.0, 2.0)
    _, report = turned(**given("SVD"))
    path = dial_memory.own_file(report["key"])
    path.write_text(text.replace("KEY", report["key"]))
    left = measured(1.0, 2.0)
    _, again = turned(**given("SVD"))
    assert not left and again["setting"] == report["setting"]


def test_a_strip_that_is_none_is_no_tile():
    tile = previews.tile(torch.rand(30, 40, 500, 3))
    assert tile.shape == (12, 13, 160, 3)
    assert previews.tile_of(previews.strip_of(tile)).shape == tile.shape
    strip = previews.strip_of(tile).partition(":")[2]
    for text in ("", "12:", "x:" + strip, "5:" + strip, "99999:" + strip, "12:!!!", "12:" + "QUJD"):
        assert previews.tile_of(text) is None


@pytest.mark.parametrize("bad", [10**400, float("nan"), float("inf"), True, "1", None])
def test_numbers_of_a_file_are_numbers(bad):
    assert dial_memory.numbers([1, bad], 2) is None and dial_memory.numbers([1, 2.5], 2) == [1.0, 2.5]


@pytest.mark.parametrize("name", ["../mine", "CON", "a/b"])
def test_a_name_that_cannot_be_is_told_before_anything_is_measured(measured, name):
    measured()
    with pytest.raises(ValueError, match="cannot be the name of a file of measurements"):
        turned(**given("SVD", export_as=name))


def test_measurements_are_handed_on(measured, places):
    measured(1.0, 1.4, 2.0)
    g = given("SVD", export_as="mine")
    _, report = turned(**g)
    path = dial_memory.Path(folder_paths.get_output_directory()) / "cil_dial" / "mine.json"
    assert path.stat().st_size < 2000 and "written to output/cil_dial/mine.json" in places[-1]
    (curve,) = dial_memory.imported("cil_dial/mine.json")
    assert curve.key == report["key"] and len(curve.readings) == 3 and curve.setting_for(2.0, 1.0) == report["setting"]
    for own in dial_memory.own_file("x").parent.glob("*.json"):
        own.unlink()  # as on another machine
    measured()
    _, there = turned(**given("SVD", measurements="cil_dial/mine.json"))
    assert there["previews"] == 0 and there["setting"] == report["setting"]
    left = measured(1.0, 2.0)  # another picture: the same lever's curve is the first guess
    _, other = turned(**given("SVD", seed=77, measurements="cil_dial/mine.json", export_as="mine"))
    assert not left and other["setting"] == report["setting"] and "first guess from 1 measurements" in places[-1]
    assert len(dial_memory.imported("cil_dial/mine.json")) == 2


def test_a_file_that_is_no_measurements_is_not_written_over(measured):
    folder = dial_memory.Path(folder_paths.get_output_directory()) / "cil_dial"
    folder.mkdir()
    (folder / "other.json").write_text('{"mine": 1}')
    measured(1.0, 2.0)
    with pytest.raises(ValueError, match="is no file of measurements"):
        turned(**given("SVD", export_as="other"))
    assert (folder / "other.json").read_text() == '{"mine": 1}'
    with pytest.raises(ValueError, match="is no file of measurements that this node exported"):
        dial_memory.imported("cil_dial/other.json")


def test_a_folder_that_cannot_be_written_is_said_and_nothing_else(measured, places):
    """A file stands where the folder should be; root may write anywhere, so rights prove nothing."""
    dial_memory.own_file("x").parent.write_text("")
    measured(1.0, 2.0)
    _, report = turned(**given("SVD"))
    assert report["kind"] == "found" and "not kept for the next time" in places[-1]


# ---- the page's means -----------------------------------------------------------------


def test_the_tiles_run_in_the_hosts_progress(measured, monkeypatch):
    """From the second preview on every step shows the tiles, one frame further each time."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, node_id=None: shown.append((value, total, preview)))
    measured(1.0, 1.4, 2.0)
    turned(**given("SVD"))
    pictures = [p for _, _, p in shown if p is not None]
    assert pictures and all(kind == "JPEG" and most is None for kind, _, most in pictures)
    assert len({p[1].tobytes() for p in pictures}) > 3
    values = [v for v, total, _ in shown]
    assert values == sorted(values) and values[-1] <= shown[-1][1]


def test_the_nodes_own_picture_moves(measured, tmp_path):
    from PIL import Image

    measured(1.0, 2.0)
    node = MotionDial.PREPARE_CLASS_CLONE(None)
    result = node.execute(**given("SVD"))
    entry = result.ui
    assert entry["animated"] == (True,)
    picture = Image.open(tmp_path / "temp" / entry["images"][0]["filename"])
    assert picture.n_frames == len(result.args[5]) > 1
