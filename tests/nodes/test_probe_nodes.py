"""LeakageProbe, CILMotionScore and CILStartSweep in the host, on the demo models."""

import json
import weakref

import comfy.model_management
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_video_model as video
import pytest
import tiny
import torch
from node_calls import run

from cil_pack.demo import latents, model, scenes
from cil_pack.nodes import probe as nodes_probe
from cil_pack.nodes import probe_clip
from cil_pack.nodes import sweep as nodes_sweep
from cil_pack.nodes.motion import DIS, MotionScore
from cil_pack.nodes.probe import LeakageProbe
from cil_pack.nodes.probe_clip import FROZEN, HALF_SPEED
from cil_pack.nodes.sweep import StartSweep, parse_starts

pytest.importorskip("cv2")
BUCKET = 200


@pytest.fixture(scope="module")
def scene():
    return scenes.sample(1, torch.Generator().manual_seed(11)).replace(bucket=float(BUCKET))


@pytest.fixture(scope="module")
def clip(scene):
    return scenes.render(scene)[0].movedim(1, -1)


@pytest.fixture(scope="module")
def demos(clip):
    """Both checkpoints with the conditioning of the clip's first frame."""
    out = {}
    for name in ("healthy", "leaking"):
        loaded = model.load(name)
        cond = video.SVD_img2vid_Conditioning().encode(loaded[1], clip[:1], loaded[2], 128, 128, scenes.FRAMES, BUCKET, scenes.FPS, 0.0)
        out[name] = (*loaded, cond)
    return out


@pytest.fixture(scope="module")
def encoded(demos, clip):
    """The clip as a LATENT; without a VAE the probe is quick."""
    return {"samples": demos["healthy"][2].encode(clip)}


@torch.inference_mode()
def probe(demo, **changes):
    patcher, _, vae, cond = demo
    given = {
        "model": patcher,
        "positive": cond[0],
        "control": HALF_SPEED,
        "cfg": 1.0,
        "levels": 4,
        "from_fraction": 0.5,
        "to_fraction": 1.0,
        "draws": 1,
        "seed": 0,
        "flow": DIS,
    }
    if "images" in changes or "second_images" in changes:
        given["vae"] = vae
    given |= changes
    plot, sheet, sigma, fraction, report, curve = run(LeakageProbe, **given)
    assert json.loads(curve) == json.loads(report)["curve"]
    return plot, sheet, sigma, fraction, json.loads(report)


def figures(report):
    return [value for level in report["levels"] for value in (level["read"], level["gain"], level["leakage"])]


def test_all_outputs(demos, clip):
    plot, sheet, sigma, fraction, report = probe(demos["healthy"], images=clip, draws=2, levels=3)
    for picture in (plot, sheet):
        assert picture.ndim == 4 and picture.shape[0] == 1 and picture.shape[-1] == 3 and picture.std() > 0.01
    assert 0 < fraction <= 1 and sigma <= 700.001
    assert len(report["levels"]) == 3 and report["levels"][0]["fraction"] == 1.0
    assert report["flow"] == DIS and report["true_motion_score"] > 1
    assert all(level["read_sd"] > 0 for level in report["levels"])
    assert report["levels"][-1]["readable"] > 0.9
    # one clip: a curve and no verdict
    assert report["clips"] == 1 and not report["judged"] and report["leakage"] is None and fraction == 1.0
    assert "proves nothing" in report["verdict"] and report["curve"]["slope"] == [1.0, 1.0, 1.0]
    assert [round(level["percent"] + level["fraction"], 6) for level in report["levels"]] == [1, 1, 1]
    ratios = [level["signal_to_noise"] * level["sigma"] for level in report["levels"]]
    assert ratios == pytest.approx([report["variance"] ** 0.5] * 3)


def test_images_and_latent_are_the_same_clip(demos, clip, encoded):
    a, b = probe(demos["healthy"], images=clip)[4], probe(demos["healthy"], latent=encoded)[4]
    assert figures(a) == pytest.approx(figures(b), abs=1e-5)


def test_two_runs_are_identical_and_another_seed_is_not(demos, encoded):
    once, twice, other = (probe(demos["healthy"], latent=encoded, seed=s)[4] for s in (0, 0, 1))
    assert once == twice and figures(once) != figures(other)


def test_one_step_predictions_are_the_hosts_own(demos, clip):
    """The probe's prediction against the host's `denoised` of the same x, by the sampler of the host."""
    patcher, _, vae, cond = demos["healthy"]
    samples = vae.encode(clip)
    found = probe_clip.measure(
        nodes_probe.SamplingContext(patcher, cond[0], None, 1.0, 0), nodes_probe.Sampling.of(patcher).process,
        samples, samples.flip(0), [(0.7, 30.0)], 5, 1, lambda: None,
    )  # fmt: skip
    x0 = samples * latents.SCALE
    x = x0 + 30.0 * probe_clip.probe.noise_for(x0, 5, 0, 0)
    spy = {}
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(cond[0], cond[1])
    take = lambda m, noise, sigmas, extra_args=None, callback=None, disable=None: spy.setdefault("d", m(x, torch.full((12,), 30.0), **extra_args))
    with torch.inference_mode():
        guider.sample(torch.zeros_like(x), samples, comfy.samplers.KSAMPLER(take), torch.tensor([30.0, 0.0]), disable_pbar=True, seed=0)
    assert torch.allclose(found.predictions[0].float(), spy["d"], rtol=1e-3, atol=1e-3)  # kept for the sheet in half precision


def test_patches_act(demos, encoded):
    """Guidance, VideoLinearCFGGuidance, a LoRA-like weight patch and a wrapper change the figures as they should."""
    patcher, _, _, cond = demos["healthy"]
    plain = figures(probe(demos["healthy"], latent=encoded)[4])
    guided = figures(probe(demos["healthy"], latent=encoded, negative=cond[1], cfg=3.0)[4])
    linear = video.VideoLinearCFGGuidance().patch(patcher, 1.0)[0]
    ramped = figures(probe(demos["healthy"], latent=encoded, model=linear, negative=cond[1], cfg=3.0)[4])
    assert plain != guided and guided != ramped
    unguided = figures(probe(demos["healthy"], latent=encoded, negative=cond[1], cfg=1.0)[4])
    assert unguided == pytest.approx(plain, abs=1e-5)
    lora = patcher.clone()
    key = "diffusion_model.middle_block.0.out_layers.3.weight"
    weight = patcher.get_model_object(key)
    lora.add_patches({key: (0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)),)}, 1.0)
    assert figures(probe(demos["healthy"], latent=encoded, model=lora)[4]) != plain
    assert figures(probe(demos["healthy"], latent=encoded)[4]) == plain  # and left nothing behind


def test_a_model_that_copies_its_image_reads_nothing(demos, encoded):
    """The model call replaced by copying: all of the motion is missing at every level."""
    import comfy.patcher_extension

    copying = demos["healthy"][0].clone()

    def copy(executor, x, sigma, c_concat=None, *args, **kwargs):
        return c_concat * latents.SCALE

    copying.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "copy", copy)
    report = probe(demos["healthy"], latent=encoded, model=copying, to_fraction=0.8)[4]
    assert all(level["leakage"] == pytest.approx(1, abs=1e-3) and level["read"] == pytest.approx(0, abs=1e-4) for level in report["levels"])


def test_the_static_models_answer_is_not_blamed_on_leakage(demos, encoded):
    """A model that answers noise even at the lowest level cannot take the clip at all."""
    import comfy.patcher_extension

    broken = demos["healthy"][0].clone()
    rubbish = lambda executor, x, *args, **kwargs: 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    broken.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "rubbish", rubbish)
    report = probe(demos["healthy"], latent=encoded, model=broken, from_fraction=0.0)[4]
    assert "cannot take these clips" in report["verdict"] and report["start_fraction"] == 1.0


def test_a_second_clip_of_ones_own(demos, clip, scene):
    other = scenes.render(scene.replace(heading=float((scene.heading[0] + 3) % 8)))[0].movedim(1, -1)
    encoded = {"samples": demos["healthy"][2].encode(clip)}
    report = probe(demos["healthy"], latent=encoded, second_images=other, levels=2)[4]
    assert report["second_clip"] == "connected"
    assert probe(demos["healthy"], latent=encoded, control=FROZEN, levels=2)[4]["second_clip"] == FROZEN


def test_without_a_vae_there_is_a_note_instead_of_a_sheet(demos, encoded):
    _, sheet, _, _, report = probe(demos["healthy"], latent=encoded)
    assert sheet.shape[1] < 120 and report["flow"] is None


def test_it_stops_on_cancel(demos, encoded, monkeypatch):
    stop = comfy.model_management.InterruptProcessingException

    def interrupted():
        raise stop

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(stop):
        probe(demos["healthy"], latent=encoded)


def still_clip(clip):
    return clip[:1].expand_as(clip)


@pytest.mark.parametrize(
    "changes, message",
    [
        (lambda c: {}, "give clips from Prepare Clips, or one clip"),
        (lambda c: {"images": c, "positive": None}, "one clip needs its conditioning"),
        (lambda c: {"images": c[:, ::2, ::2]}, "made for latents of 16 x 16 cells, but the clip has latents of 8 x 8"),
        (lambda c: {"images": 1 - c.flip(1)}, "made from another picture than the clip's first frame"),
        (lambda c: {"images": c, "latent": {"samples": torch.zeros(12, 4, 16, 16)}}, "give the clip once"),
        (lambda c: {"images": c, "vae": None}, "connect vae"),
        (lambda c: {"images": c[:1]}, "only one frame came"),
        (lambda c: {"images": c * float("nan")}, "NaN"),
        (lambda c: {"images": still_clip(c)}, "this clip does not move"),
        (lambda c: {"images": c, "from_fraction": 0.9, "to_fraction": 0.5}, "0 <= from < to <= 1, but 0.9 to 0.5"),
        (lambda c: {"latent": {"samples": torch.zeros(1, 16, 5, 8, 8)}}, "takes latents of 'demo', \\[frames, 4, h, w\\], but \\(1, 16, 5, 8, 8\\)"),
        (lambda c: {"latent": {"samples": torch.full((12, 4, 16, 16), float("nan"))}}, "no numbers .NaN or infinite."),
        (lambda c: {"latent": {"samples": torch.zeros(1, 4, 16, 16)}}, "at least two frames"),
        (lambda c: {"images": c, "second_images": c}, "the same as the first"),
        (lambda c: {"images": c, "second_images": c[:8]}, "one size and length"),
    ],
)
def test_bad_input_is_refused_in_words(demos, clip, changes, message):
    with pytest.raises(ValueError, match=message):
        probe(demos["healthy"], **changes(clip))


@pytest.mark.parametrize("kind", ["flow shift 8", "flux", "v zsnr", "continuous v", "Cosmos RFlow"])
def test_other_kinds_of_sampling(kind):
    """5-D latents and every forward process: a network that answers zeros reads nothing."""
    patcher, latent = tiny.model(kind)
    samples = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(0))
    plot, sheet, sigma, fraction, report, curve = run(
        LeakageProbe, model=patcher, positive=tiny.conditioning(), latent={"samples": samples},
        control=FROZEN, cfg=1.0, levels=3, from_fraction=0.0, to_fraction=0.9, draws=1, seed=0, flow=DIS,
    )  # fmt: skip
    assert len(json.loads(report)["levels"]) == 3


# ---- CILMotionScore -----------------------------------------------------------------


def test_motion_score_of_the_demo_world(clip):
    score, camera, subject, picture, report, consistent, *_ = run(MotionScore, frames=clip, flow=DIS, requested=10.0)
    report = json.loads(report)
    assert score == pytest.approx(sum(report["per_pair"])) and len(report["per_pair"]) == 11
    assert subject > 3 * camera  # the ground stands still
    assert 0 < consistent == pytest.approx(sum(report["consistent"]["motion"]))
    assert report["error"] == pytest.approx(abs(score - 10)) and report["flow"] == DIS
    assert picture.shape == (11, 450, 800, 3) and len(report["pia"]) == 12
    with pytest.raises(ValueError, match="only one frame"):
        run(MotionScore, frames=clip[:1], flow=DIS)


# ---- CILStartSweep ------------------------------------------------------------------


def sweep(demo, clip, **changes):
    patcher, _, vae, cond = demo
    guider = run(custom.CFGGuider, model=patcher, positive=cond[0], negative=cond[1], cfg=1.0)[0]
    sampler = run(custom.KSamplerSelect, sampler_name="euler")[0]
    given = {
        "guider": guider,
        "sampler": sampler,
        "latent": cond[2],
        "vae": vae,
        "starts": "700, 50",
        "start_as": "sigma",
        "analytic_init": True,
        "scheduler": "karras",
        "steps": 3,
        "seed": 0,
        "seeds": 2,
        "flow": DIS,
        "image": clip[:1],
    }
    with torch.inference_mode():  # as every node runs; old hosts decode with gradients else
        sheet, plot, report, _ = run(StartSweep, **(given | changes))
    return sheet, plot, json.loads(report)


def test_a_sweep(demos, clip):
    sheet, plot, report = sweep(demos["healthy"], clip)
    assert [(r["start"], r["seed"]) for r in report["runs"]] == [(700, 0), (50, 0), (700, 1), (50, 1)]
    assert all(0 < r["likeness"] < 1 and r["motion_score"] > 0 and r["consistent"] >= 0 for r in report["runs"])
    assert sheet.shape[0] == plot.shape[0] == 1 and not report["stopped"]


def column(start, *figures):
    return [{"start": start, "sigma": 700 * start, "consistent": c, "likeness": like, "flicker": f, "motion_score": c + 100 * f} for c, like, f in figures]


STARTS_OF = [*column(1, (2, 0.95, 0.01), (4, 0.95, 0.01)), *column(0.9, (9, 0.95, 0.01)), *column(0.8, (10, 0.94, 0.011)), *column(0.7, (11, 0.94, 0.012))]
BROKEN = [*column(0.6, (30, 0.90, 0.012)), *column(0.5, (5, 0.95, 0.05))]


@pytest.mark.parametrize(
    "runs, wanted, start, broken",
    [
        (STARTS_OF, 0, 0.9, []),  # 9 of the 11 at the most: not the maximum
        (STARTS_OF + BROKEN, 0, 0.9, [0.6, 0.5]),  # the most motion of all, and the most flicker, are broken clips
        (STARTS_OF[::-1], 9.5, 0.8, []),
        (STARTS_OF + BROKEN, 20, None, [0.6, 0.5]),
        (STARTS_OF[:2], 0, 1, []),
    ],
)
def test_a_sweep_names_the_highest_start_with_enough_steady_motion(runs, wanted, start, broken):
    found, _, marked = nodes_sweep.judged(runs, wanted)
    assert (found, marked) == (start, broken)
    words = nodes_sweep.advice(found, 1.0, marked, wanted)
    assert ("no start" in words[0]) == (start is None) and bool(words[1]) == bool(broken)


def test_a_sweeps_clip_is_the_one_that_the_graph_samples(demos, clip):
    """The ordinary start without Analytic-Init is the host's own sampling, to the bit."""
    patcher, _, vae, cond = demos["healthy"]
    import nodes as host_nodes

    frames = []
    original = StartSweep.sampled
    seen = staticmethod(lambda *a: frames.append(original(*a)) or frames[-1])
    try:
        StartSweep.sampled = seen
        sweep(demos["healthy"], clip, starts="1", start_as="fraction", analytic_init=False, seeds=1, seed=5)
    finally:
        StartSweep.sampled = staticmethod(original)
    with torch.inference_mode():
        out = host_nodes.KSampler().sample(patcher, 5, 3, 1.0, "euler", "karras", *cond, 1.0)[0]
        assert torch.equal(vae.decode(out["samples"]), frames[0])


def test_a_cancelled_sweep_returns_what_it_has(demos, clip, monkeypatch):
    original, done = StartSweep.sampled, []

    def second_is_cancelled(*args):
        if len(done) == 2:
            raise comfy.model_management.InterruptProcessingException
        done.append(1)
        return original(*args)

    monkeypatch.setattr(StartSweep, "sampled", staticmethod(second_is_cancelled))
    sheet, _, report = sweep(demos["healthy"], clip, starts="700, 50, 20")
    assert report["stopped"] and len(report["runs"]) == 2 and sheet.shape[0] == 1
    done += [1]
    done.clear()
    done.extend([1, 1])
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sweep(demos["healthy"], clip)


def test_a_sweep_holds_one_clip_however_many_it_samples(demos, clip, monkeypatch):
    original, clips = StartSweep.sampled, []

    def watched(*args):
        assert all(clip() is None for clip in clips), "an earlier clip is still held"
        frames = original(*args)
        clips.append(weakref.ref(frames))
        return frames

    monkeypatch.setattr(StartSweep, "sampled", staticmethod(watched))
    monkeypatch.setattr(nodes_sweep, "flow_backend", lambda *args: lambda a, b: torch.zeros(*a.shape[:2], 2))
    sheet, _, report = sweep(demos["healthy"], clip, seeds=1, steps=1)
    assert len(clips) == len(report["runs"]) == 2 and sheet.shape[0] == 1


def test_a_probes_sheet_holds_one_clip_however_many_levels_it_shows(demos, encoded, monkeypatch):
    """And the predictions themselves as latents in half precision."""
    vae, clips = demos["healthy"][2], []
    monkeypatch.setattr(nodes_probe, "flow_backend", lambda *args: lambda a, b: torch.zeros(*a.shape[:2], 2))

    class Watched:
        def decode(self, samples):
            assert all(clip() is None for clip in clips), "an earlier clip is still held"
            frames = vae.decode(samples)
            clips.append(weakref.ref(frames))
            return frames

    _, sheet, *_ = probe(demos["healthy"], latent=encoded, vae=Watched(), levels=2)
    assert len(clips) == 2 and sheet.shape[0] == 1


def test_seeds_of_a_sweep_go_round_after_the_last_of_64_bits(demos, clip):
    report = sweep(demos["healthy"], clip, starts="50", seed=2**64 - 1)[2]
    assert [run["seed"] for run in report["runs"]] == [2**64 - 1, 0]


def test_starts_in_words():
    assert parse_starts("1, 0.96,0.92") == [1, 0.96, 0.92]
    assert parse_starts("1:0.8:3") == pytest.approx([1, 0.9, 0.8])
    assert len(parse_starts("1:0.5:100")) == len(parse_starts("1," * 100)) == 100
    for bad in ("", ",", "one", "1:2", "1:0.5:1", "1:0.5:0", "nan", "1, inf", "1e999:0:3", "a" * 5000):
        with pytest.raises(ValueError, match="starts are numbers") as caught:
            parse_starts(bad)
        assert len(str(caught.value)) < 300
    for many in ("1:0.5:101", "1:0.5:100000000000", "1," * 101):
        with pytest.raises(ValueError, match="at most 100"):
            parse_starts(many)
