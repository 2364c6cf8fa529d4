"""Simulated Leak and Demo Compare, through the host's sampler: what is said of them is what happens."""

import json

import pytest
import torch
from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning
from node_calls import run

import nodes as host
from cil_pack.demo.landscape import latents, measure, panels, picture, scenes
from cil_pack.nodes.demo_clips import DemoClips
from cil_pack.nodes.demo_leak import TRUE_SPEED, DemoCompare, SimulatedLeak
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.motion import DIS
from cil_pack.nodes.motion_gain import CILMotionGain
from cil_pack.nodes.probe import LeakageProbe
from cil_pack.nodes.probe_clip import FROZEN

ASKED = TRUE_SPEED * (scenes.FRAMES - 1)


@torch.inference_mode()
def sampled(made, model=None, steps=12):
    patcher, clip_vision, vae, first, *_ = made
    positive, negative, latent = SVD_img2vid_Conditioning().encode(clip_vision, first, vae, 128, 128, 12, 127, 6, 0.0)
    return host.KSampler().sample(model or patcher, 1, steps, 1.0, "euler", "karras", positive, negative, latent, 1.0)[0]["samples"]


def gained(model, leak, above):
    return run(CILMotionGain, model, 1 / (1 - leak), "sigma", above, "constant", "own first frame", "nothing", 1.0)[0]


@pytest.fixture(scope="module")
def ideal():
    made = run(SimulatedLeak, 1, 0.0, 3.0)
    return sampled(made)


@pytest.fixture(scope="module")
def leaking():
    return run(SimulatedLeak, 1, 0.7, 3.0)


def travel(samples, scene):
    return float(measure.track(latents.decode(samples[None] * latents.SCALE), scene).travel)


def test_a_leak_stands_still_and_both_cures_move(ideal, leaking):
    scene = leaking[5]
    assert travel(ideal, scene) > 20
    assert travel(sampled(leaking), scene) < 2
    assert travel(sampled(leaking, run(CILEarlyStart, leaking[0], "family preset", 1.0, True)[0]), scene) > 20


def test_motion_gain_gives_the_ideal_models_clip_back(ideal, leaking):
    """The exact inverse, by the host's sampler and our own node: the same clip from the same seed."""
    back = sampled(leaking, gained(leaking[0], 0.7, 3.0))
    assert (back - ideal).abs().max() < 0.05
    assert (sampled(leaking) - ideal).abs().max() > 3


@pytest.mark.parametrize("leak", [0.7, 0.0])
@torch.inference_mode()
def test_the_probe_finds_the_leak_that_was_set(leaking, leak):
    """On eight clips of the scene, a fair draw of what its model was made for; none where there is none."""
    patcher = leaking[0] if leak else run(SimulatedLeak, 1, 0.0, 3.0)[0]
    clips = run(DemoClips, leaking[1], 8, 0, leaking[5])[0]
    assert torch.equal(clips[0].image, clips[7].image) and not torch.equal(clips[0].latents, clips[7].latents)
    _, _, start, _, report, _ = run(LeakageProbe, patcher, FROZEN, 1.0, 10, 0.0, 1.0, 1, 0, DIS, None, None, None, None, None, None, clips)
    report = json.loads(report)
    if leak:
        assert 3 / 1.5 < report["edge_sigma"] < 3 * 1.5 and report["leakage"] == pytest.approx(leak, abs=0.15)
        assert report["edge_sigma"] <= start < 10
    else:
        assert report["edge_sigma"] is None and start == report["levels"][0]["sigma"]


def test_no_leak_is_the_ideal_model_and_another_size_is_told(ideal):
    made = run(SimulatedLeak, 1, 0.0, 500.0)
    assert torch.equal(sampled(made), ideal)
    patcher, clip_vision, vae, first, *_ = made
    positive, negative, latent = SVD_img2vid_Conditioning().encode(clip_vision, first, vae, 128, 128, 10, 127, 6, 0.0)
    with pytest.raises(ValueError, match="knows 12 frames of 128 x 128"):
        host.KSampler().sample(patcher, 1, 2, 1.0, "euler", "karras", positive, negative, latent, 1.0)


def test_the_vae_is_the_decoder_that_was_trained(leaking, ideal):
    with torch.inference_mode():
        assert torch.allclose(leaking[2].decode(ideal), latents.decode(ideal[None] * latents.SCALE)[0].movedim(1, -1), atol=2e-3)
        clip = leaking[4]
        code = leaking[2].encode(clip) * latents.SCALE
    assert torch.allclose(code, latents.encode(clip.movedim(-1, 1)), atol=1e-3)


def test_a_still_and_a_true_clip_are_told_apart(leaking):
    first, true, scene = leaking[3:]
    still = first.expand_as(true)
    flicker = 0.08 * torch.randn(len(true), 1, 1, 1, generator=torch.Generator().manual_seed(0))
    clip, strips, before, after, third = run(DemoCompare, scene, (still + flicker).clamp(0, 1), true, "plain", "cured", still, "third")
    assert before < 2 and after == pytest.approx(ASKED, abs=1.5) and third < 2
    assert clip.shape[0] == len(true) and clip.shape[2] == 4 * 2 * scenes.SIZE and strips.shape[0] == 1
    assert run(DemoCompare, scene, still, true, "plain", "cured")[4] == 0


def test_the_panels_say_it_in_words(leaking):
    first, true, scene = leaking[3:]
    half = true[torch.arange(len(true)) // 2]
    _, captions, _ = panels.panels(scene, {"plain": first.expand_as(true), "cured": half})
    assert captions[:2] == ["a true clip: what was possible", "plain: stands still"]
    assert 38 <= int(captions[2].removeprefix("cured: goes ").removesuffix(" % of the true way")) <= 52


def test_a_trail_is_drawn_only_where_the_subject_was(leaking):
    _, true, scene = leaking[3:]
    tracks = measure.track(true.movedim(-1, 1)[None], scene)
    marked = (panels.trailed(true, tracks, 0)[-1] - true[-1]).abs().amax(-1) > 0.05
    places = tracks.places[0].round().long()
    assert marked[places[:, 1], places[:, 0]].float().mean() > 0.9
    assert marked.float().mean() < 0.03


def test_the_ring_is_where_the_subject_began(leaking):
    first, true, scene = leaking[3:]
    tracks, radius = measure.track(true.movedim(-1, 1)[None], scene), 12
    drawn = panels.trailed(torch.zeros_like(true), tracks, radius)[-1].amax(-1) > 0.5
    x, y = tracks.places[0, 0].tolist()
    turn = torch.linspace(0, 6.28, 33)
    around = torch.stack([y + radius * turn.sin(), x + radius * turn.cos()]).round().long()
    near = torch.nn.functional.max_pool2d(drawn[None, None].float(), 5, 1, 2)[0, 0]
    assert near[around[0], around[1]].all() and drawn.float().mean() < 0.05


def test_the_pictures_are_made_in_the_graphs_own_settings():
    nodes = picture.wired("demo")
    assert nodes["KSampler"]["cfg"] == 2 and nodes["CILLoadDemoModel"]["checkpoint"] == "svd_leaking"
    scene, clips = picture.animated("demo_simulated_leak")
    assert list(clips) == ["plain", "Early Start", "Motion Gain"] and scene.start.shape == (1, 2)
    shown = picture.Animated(6, *panels.panels(scene, clips))
    assert shown.still and shown.whole and shown.gain > 15 and str(shown).endswith(", still")


def test_what_cannot_be_compared_is_told(leaking):
    _, true, scene = leaking[3:]
    with pytest.raises(ValueError, match="after has frames of 64 x 64"):
        run(DemoCompare, scene, true, true[:, :64, :64], "a", "b")
    with pytest.raises(ValueError, match="two clips are called 'a'"):
        run(DemoCompare, scene, true, true, "a", "a")
