"""LeakageProbe on several clips: what the network is shown, what is found, what is refused."""

import argparse
import json
import math

import comfy.model_management
import comfy.patcher_extension
import family_models
import lvdm_tiny
import lvdm_weights
import pytest
import torch

from cil_pack.cil import prepared, probe, training, verdict
from cil_pack.cil.training import Clip
from cil_pack.demo import latents, model, scenes
from cil_pack.nodes import calibrate
from cil_pack.nodes.demo_clips import DemoClips
from cil_pack.nodes.host.latents import clip_latents
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.motion import DIS
from cil_pack.nodes.probe import LeakageProbe
from cil_pack.nodes.probe_clip import FROZEN, check_picture
from cil_pack.nodes.training.conditions import Encoders, adapter_of
from cil_pack.nodes.training.model import Denoiser

FRAMES, SIDE = 6, 8
SHAPE = (4, FRAMES, SIDE, SIDE)
ENERGY = 0.05  # mean square of the motion


# ---- what the network is shown --------------------------------------------------------

LVDM, WAN = ["DynamiCrafter 512", "VideoCrafter1 512"], ["Wan 2.1 I2V", "Wan 2.2 14B I2V"]


def subject(name):
    """-> (MODEL, a random clip of its kind)."""
    draw = lambda k, *size: lvdm_weights.draw(size, k)
    with torch.inference_mode():
        if name in LVDM:
            width = lvdm_weights.RESAMPLER["embedding_dim"], lvdm_weights.UNET["context_dim"]
            return lvdm_tiny.model(name), Clip(draw(0, 4, lvdm_weights.FRAMES, 4, 6), draw(1, 4, 4, 6), draw(2, 5, width[0]), 0.0, draw(3, 7, width[1]))
        if name in WAN:
            made = family_models.model(name)
            return made, Clip(draw(0, 16, 3, 4, 6), draw(1, 16, 3, 4, 6), draw(2, 5, 1280) if adapter_of(made).vision else None, 0.0, draw(3, 7, 8))
        return svd(), Clip(draw(0, *SHAPE), 5 * draw(1, 4, SIDE, SIDE), draw(2, 1, model.CONTEXT), 60.0)


@torch.inference_mode()
def svd():
    """A small SVD of the host with random weights."""
    torch.manual_seed(0)
    small = model.UNET | {
        "channel_mult": (1,),
        "num_res_blocks": [1],
        "transformer_depth": [0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [0, 0],
    }
    config = model.SVDDemo(small)
    config.set_inference_dtype(torch.float32, None)
    made = config.get_model({})
    model.initialise(made.diffusion_model)
    for p in made.diffusion_model.parameters():
        if p.ndim == 1 and p.numel() == 1:
            p.zero_()  # mix factors, which the host leaves uninitialised
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(made.eval(), cpu, cpu)


@pytest.mark.parametrize("name", ["SVD", *LVDM, *WAN])
def test_the_probe_shows_the_network_what_training_shows_it(name):
    """The prediction for +eps equals the trainer's own denoiser on the same noisy clip, and there are no other calls."""
    patcher, clip = subject(name)
    adapter, seen = adapter_of(patcher), []
    sigmas = [Sampling.of(patcher).sigma(f) for f in (0.9, 0.5)]
    with torch.inference_mode():
        calibrate.probed(patcher, adapter, clip, sigmas, 1, 5, 60, 6.0, lambda level, predictions: seen.append(predictions[0]))
        process = Sampling.of(patcher).process
        for level, sigma in enumerate(sigmas):
            host = clip.latents.movedim(1, 0) if adapter.frames_as_batch else clip.latents[None]
            x = process.corrupt(host, probe.noise_for(host, 5, level, 0), sigma)
            whole = x.movedim(0, 1)[None] if adapter.frames_as_batch else x
            wanted = Denoiser(patcher, 6.0, 60)(whole, torch.tensor([sigma]), [training.Example(clip, None, 0.0)])
            got = seen[level].movedim(0, 1)[None] if adapter.frames_as_batch else seen[level]
            assert torch.allclose(got, wanted, rtol=1e-3, atol=2e-3 * float(wanted.std()))
    assert len(seen) == 2


# ---- what is found: a world whose exact denoiser is known, behind the model's own call --


class World:
    """Smooth pictures with random motions about a mean one, as a prepared set; and a MODEL that denoises them exactly, but for a leak."""

    def __init__(self, n, seed=0):
        g = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(4 * (FRAMES - 1) * SIDE * SIDE, 24, generator=g))[0].T  # [24, d], in all frames but the first
        self.axes = torch.cat([torch.zeros(24, 4, 1, SIDE, SIDE), axes.view(24, 4, FRAMES - 1, SIDE, SIDE)], 2)
        energy = ENERGY * 4 * FRAMES * SIDE * SIDE / 24
        self.mean, self.spread = (0.3 * energy) ** 0.5 * torch.ones(24), 0.7 * energy
        self.clips = []
        for _ in range(n):
            picture = torch.nn.functional.interpolate(torch.randn(1, 4, 3, 3, generator=g), (SIDE, SIDE), mode="bilinear")[0]
            motion = (self.mean + self.spread**0.5 * torch.randn(24, generator=g)) @ self.axes.flatten(1)
            self.clips.append(Clip(picture[:, None] + motion.view(SHAPE), picture / latents.SCALE, torch.zeros(1, model.CONTEXT), 40.0))

    def denoise(self, x, sigma, still):
        """x [T, 4, h, w], sigma a number, still [T, 4, h, w] -> the exact prediction."""
        axes = self.axes.movedim(1, 2).flatten(1)
        seen = axes @ (x - still).flatten() - self.mean
        return still + ((self.mean + self.spread / (self.spread + sigma**2) * seen) @ axes).view(x.shape)

    def model(self, leak):
        """leak(sigma) -> share of the motion that is left out."""
        patcher = svd().clone()

        def call(executor, x, sigma, c_concat=None, *args, **kwargs):
            s, out = float(sigma[0]), []
            for part, still in zip(x.split(FRAMES), (c_concat * latents.SCALE).split(FRAMES)):
                out.append(still + (1 - leak(s)) * (self.denoise(part, s, still) - still))
            return torch.cat(out)

        patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "world", call)
        return patcher

    def saved(self, folder):
        return prepared.prepare(folder, {"fps": 6.0}, range(len(self.clips)), lambda i: i, lambda i: self.clips[i])


@pytest.fixture(scope="module")
def world():
    return World(16)


@pytest.fixture(scope="module")
def clips(world, tmp_path_factory):
    return world.saved(tmp_path_factory.mktemp("set") / "clips")


@torch.inference_mode()
def probed(patcher, clips, **changes):
    given = {"control": FROZEN, "cfg": 1.0, "levels": 12, "from_fraction": 0.0, "to_fraction": 1.0, "draws": 2, "seed": 0, "flow": DIS, "clips": clips}
    plot, _, sigma, fraction, report, curve = LeakageProbe.PREPARE_CLASS_CLONE(None).execute(patcher, **(given | changes)).args
    return sigma, fraction, json.loads(report), json.loads(curve), plot


def test_an_exact_model_keeps_its_start(world, clips):
    _, fraction, report, curve, _ = probed(world.model(lambda s: 0.0), clips, most_clips=8)
    assert report["judged"] and report["leakage"] is None and fraction == 1.0 and report["clips"] == 8
    assert "No leak is seen in 8 clips" in report["verdict"] and set(curve["slope"]) == {1.0}
    assert report["evaluations"] == 4 and len(report["levels"]) == 12


def test_a_leak_is_found_with_its_edge_and_its_size(world, clips):
    sigma, fraction, report, curve, _ = probed(world.model(lambda s: 0.5 * (s > 10)), clips)
    assert 10 / 1.5 < sigma < 10 * 1.5 and sigma == report["edge_sigma"]
    assert report["leakage"] == pytest.approx(0.5, abs=0.1)  # of 16 clips: an error is 0.04
    assert all(level["low"] < 0.5 < level["high"] for level in report["levels"] if level["sigma"] > 20)
    assert f"Above sigma {sigma:.3g} this model copies your picture: start there." == report["verdict"]
    assert fraction == pytest.approx(Sampling.of(svd()).fraction(sigma))
    for s, slope in zip(curve["sigma"], curve["slope"]):
        assert slope == (pytest.approx(2, rel=0.3) if s > 10 else 1.0)


def test_a_model_that_copies_everywhere_is_told_to_start_where_it_can(world, clips):
    sigma, _, report, curve, _ = probed(world.model(lambda s: 1.0), clips)
    assert report["edge_sigma"] == 0 and report["leakage"] == pytest.approx(1, abs=1e-3) and "At every level" in report["verdict"]
    least = math.sqrt(report["variance"] / math.expm1(2 * verdict.CAREFUL))
    assert sigma == pytest.approx(least, rel=1e-3)
    # no more than 4 is handed on; above, half precision's rounding of the picture is more than could be read
    assert {slope for s, slope in zip(curve["sigma"], curve["slope"]) if s < 50} == {4.0} and set(curve["slope"]) <= {1.0, 4.0}


def test_two_runs_are_identical_and_another_seed_is_not(world, clips):
    leaking = world.model(lambda s: 0.3)
    run = lambda seed: probed(leaking, clips, most_clips=4, levels=4, seed=seed)[2]["levels"]
    assert run(0) == run(0) != run(1)


def test_the_sentence_and_the_line_of_the_plot_agree(world, clips, monkeypatch):
    """The suggested start is drawn at the level that the sentence names."""
    import matplotlib.axes

    lines = []
    original = matplotlib.axes.Axes.axvline
    monkeypatch.setattr(matplotlib.axes.Axes, "axvline", lambda self, x=0, *a, **k: lines.append((x, k.get("label"))) or original(self, x, *a, **k))
    sigma, _, report, _, plot = probed(world.model(lambda s: 0.5 * (s > 10)), clips)
    ((at, label),) = [line for line in lines if line[1]]
    assert at == pytest.approx(math.sqrt(report["variance"]) / sigma) and f"sigma {sigma:.3g}" in label and f"sigma {sigma:.3g}" in report["verdict"]
    assert plot.shape[1:3] > (600, 900)


def test_it_stops_on_cancel(world, clips, monkeypatch):
    stop = comfy.model_management.InterruptProcessingException

    def interrupted():
        raise stop

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(stop):
        probed(world.model(lambda s: 0.0), clips)


# ---- what is refused ------------------------------------------------------------------


class Fake(list):
    motion, settings, shape = [0.0], {"fps": 6.0}, SHAPE


def test_bad_sets_are_refused_in_words(world, clips):
    patcher = svd()
    with pytest.raises(ValueError, match="not both"):
        probed(patcher, clips, latent={"samples": torch.zeros(FRAMES, 4, SIDE, SIDE)})
    other = Fake([world.clips[0]])
    other.shape = (16, 3, 4, 6)
    with pytest.raises(ValueError, match="takes clips of 4 channels"):
        probed(patcher, other)
    other.shape, other.settings = SHAPE, {"fps": 6.0, "kind": "LVDM"}
    with pytest.raises(ValueError, match="prepared for LVDM"):
        probed(patcher, other)
    other.settings = {"fps": 6.0}
    with pytest.raises(ValueError, match="motion bucket 0"):
        probed(patcher, other, motion_bucket_id=0)
    with pytest.raises(ValueError, match="several clips can be probed on models that the pack can train"):
        probed(family_models.model("Mochi"), other)
    with pytest.raises(ValueError, match="0 <= from < to <= 1"):
        probed(patcher, clips, from_fraction=0.9, to_fraction=0.2)


def test_conditioning_of_another_length_size_or_picture_is_refused():
    """Of a family whose image has a time of its own; before the model is asked anything."""
    wan = family_models.model("Wan 2.1 I2V")
    clip = lvdm_weights.draw((1, 16, 3, 4, 6), 0)
    made_from = lambda image: [[None, {"concat_latent_image": image}]]
    first = torch.cat([clip[:, :, :1], torch.zeros(1, 16, 2, 4, 6)], 2)
    check_picture(wan, made_from(first), clip)
    check_picture(wan, [[None, {}]], clip)
    for image, message in (
        (first[:, :, :2], "made for 2 frames of latents, but the clip has 3"),
        (first[..., :4], "made for latents of 4 x 4 cells, but the clip has latents of 6 x 4"),
        (lvdm_weights.draw((1, 16, 3, 4, 6), 1), "made from another picture"),
    ):
        with pytest.raises(ValueError, match=message):
            check_picture(wan, made_from(image), clip)


def test_demo_clips_are_what_prepare_clips_makes_of_their_frames():
    patcher, clip_vision, vae = model.load("healthy")
    with torch.inference_mode():
        clips = DemoClips.PREPARE_CLASS_CLONE(None).execute(clip_vision, 3, 1).args[0]
        pixels = scenes.render(clips.scenes[1:2])[0].movedim(1, -1)
        adapter, clip = adapter_of(patcher), clips[1]
        seen = adapter.encode(pixels, Encoders(vae, clip_vision))
        assert torch.allclose(clip.latents, clip_latents(vae, patcher.get_model_object("process_latent_in"), pixels), atol=1e-3)
        assert torch.allclose(clip.image, seen["image"], atol=1e-2) and torch.allclose(clip.embed, seen["embed"], atol=1e-5)
    assert len(clips) == 3 and clip.motion == float(clips.scenes.bucket[1]) and clips.shape == tuple(clip.latents.shape)
    assert calibrate.checked_adapter(patcher, clips, 0).name == "SVD"


# ---- the command ----------------------------------------------------------------------


def test_the_command_says_what_the_node_says(world, clips, tmp_path, monkeypatch, capsys):
    leaking = world.model(lambda s: 0.5 * (s > 10))
    monkeypatch.setattr(calibrate, "load_checkpoint", lambda name, variant: (leaking, None))
    calibrate.main([str(clips.folder), "--model", "anything", "--clips", "8", "--out", str(tmp_path / "report.json")])
    report, node = json.loads((tmp_path / "report.json").read_text()), probed(leaking, clips, most_clips=8)[2]
    assert report["levels"] == node["levels"] and report["verdict"] == node["verdict"]
    out = capsys.readouterr().out
    assert node["verdict"] in out and out.count("| leaks |") == sum(level["proved"] for level in node["levels"])
    assert (tmp_path / "report.png").stat().st_size > 10000
    with pytest.raises(SystemExit, match="there is no prepared data set"):
        calibrate.main([str(tmp_path / "nothing"), "--model", "anything"])


def test_processes_share_the_clips(world, clips, monkeypatch):
    """Two processes' sums, put together, are those of one."""
    leaking, sigmas = world.model(lambda s: 0.3), [50.0, 5.0]
    with torch.inference_mode():
        part = lambda which: calibrate.calibrate(leaking, clips, which, sigmas, 1, 0, 127, lambda *a: None)
        whole, parts = part([0, 1, 2, 3]), [part([0, 2]), part([1, 3])]
    monkeypatch.setattr(calibrate.processes, "team", lambda: argparse.Namespace(world=2, rank=0))

    def gather(into, own):
        into[:] = [(p.products, p.dims, p.moments) for p in parts]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    together = calibrate.gathered(parts[0])
    assert together.clips == 4
    assert torch.allclose(together.curve("whole").leakage, whole.curve("whole").leakage, atol=1e-9)
