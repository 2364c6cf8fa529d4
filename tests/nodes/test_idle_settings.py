"""A setting that cannot act says so in the node, and one that acts says nothing of the kind."""

from types import SimpleNamespace

import comfy_extras.nodes_custom_sampler as custom
import folder_paths
import pytest
import tiny
import torch
from node_calls import execute

from cil_pack.cil import moments as cil_moments
from cil_pack.cil.clips import ClipSpec
from cil_pack.nodes import estimate as nodes_estimate
from cil_pack.nodes import moments as nodes_moments
from cil_pack.nodes import probe_clip
from cil_pack.nodes import sweep as nodes_sweep
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.schedule import BY_SIGNAL, FROM_DIAL
from cil_pack.nodes.motion import DIS, RAFT_SMALL
from cil_pack.nodes.schedule import LAYOUTS, TruncatedSigmaSchedule


@pytest.fixture
def notes(caplog):
    """Run a node -> what it said."""
    caplog.set_level("INFO", "cil")

    def of(node, **arguments):
        caplog.clear()
        node.PREPARE_CLASS_CLONE(None).execute(**arguments)
        return "\n".join(record.getMessage() for record in caplog.records if record.name == "cil")

    return of


def some_moments(space="sd", channels=4, value=0.3):
    return cil_moments.Moments(torch.full((channels, 1, 1, 1), value), 0.8, space)


def early(kind, **changes):
    return {"model": tiny.model(kind)[0], "start_as": "sigma", "start": 5.0, "analytic_init": True} | changes


def test_a_start_beside_the_family_preset(notes):
    idle = "start 0.9 is not used with 'family preset'"
    assert idle in notes(CILEarlyStart, **early("SVD", start_as="family preset", start=0.9))
    assert idle not in notes(CILEarlyStart, **early("SVD", start_as="fraction", start=0.9))
    schedule = {"model": tiny.model("SVD")[0], "scheduler": "karras", "steps": 4, "layout": LAYOUTS[0]}
    assert idle in notes(TruncatedSigmaSchedule, **schedule, start_as="family preset", start=0.9)
    assert idle not in notes(TruncatedSigmaSchedule, **schedule, start_as="family preset", start=1.0)


@pytest.mark.parametrize("start_as, message", [("sigma", "the ordinary start as a fraction only"), (FROM_DIAL, "nothing seems to be connected")])
def test_start_1_as_a_sigma_is_refused(notes, start_as, message):
    """The fraction's neutral value, left in the widget, is the ruin of a clip as a sigma."""
    for kind in ("SVD", "eps"):
        with pytest.raises(ValueError, match=message):
            notes(CILEarlyStart, **early(kind, start_as=start_as, start=1.0))
        with pytest.raises(ValueError, match=message):
            notes(TruncatedSigmaSchedule, model=tiny.model(kind)[0], scheduler="karras", steps=4, layout=LAYOUTS[0], start_as=start_as, start=1.0)
        assert "sampling will start at sigma 1.001" in notes(CILEarlyStart, **early(kind, start_as=start_as, start=1.001))
    assert "sampling will start" in notes(CILEarlyStart, **early("SVD", start_as="fraction", start=1.0))
    assert "refused" not in notes(CILEarlyStart, **early("flow", start_as=start_as, start=1.0))  # where sigma 1 is the ordinary start


def test_a_start_from_the_dial_or_probe(notes):
    """As a sigma; the ordinary start means that nothing is to be done."""
    assert "sampling will start at sigma 5" in notes(CILEarlyStart, **early("SVD", start_as=FROM_DIAL))
    model = tiny.model("SVD")[0]
    out = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, FROM_DIAL, 700.0, True).args[0]
    assert not out.wrappers and "says the ordinary start" in notes(CILEarlyStart, **early("SVD", start_as=FROM_DIAL, start=700.0))


def test_what_cannot_act_is_said_last(notes):
    said = notes(CILEarlyStart, **early("SVD", start_as=BY_SIGNAL, start=0.9))
    assert said.split("\n")[0].startswith("sampling will start") and said.split("\n")[-1].startswith("start 0.9 is not used")


@pytest.mark.parametrize("kind, sigma", [("SVD", 100.0), ("flow", 100 / 101), ("flow shift 8", 100 / 101), ("eps", 14.6146)])
def test_the_papers_signal_to_noise(kind, sigma):
    """Signal over noise 0.01: SVD's sigma 100; (1 - s) / s for a flow; beyond Stable Diffusion's largest sigma."""
    model = tiny.model(kind)[0]
    schedule = {"scheduler": "simple", "steps": 4, "layout": LAYOUTS[0], "start_as": BY_SIGNAL, "start": 1.0}
    assert TruncatedSigmaSchedule.PREPARE_CLASS_CLONE(None).execute(model, **schedule).args[1] == pytest.approx(sigma, rel=1e-5)


def test_a_model_that_the_preset_leaves_alone(notes):
    assert "will be left alone: vendor: a model that this pack does not know" in notes(CILEarlyStart, **early("eps", start_as="family preset", start=1.0))
    assert "sampling will start at sigma 5" in notes(CILEarlyStart, **early("eps"))


def test_moments_without_analytic_init(notes):
    idle = "moments are not used while analytic_init is off"
    assert idle in notes(CILEarlyStart, **early("eps", moments=some_moments(), analytic_init=False))
    assert idle not in notes(CILEarlyStart, **early("eps", moments=some_moments()))
    assert nodes_sweep.idle_parts({"samples": torch.zeros(1)}, some_moments(), False) == ["the connected " + idle]
    assert not any(nodes_sweep.idle_parts({"samples": torch.zeros(1)}, some_moments(), True))


def test_moments_of_another_space_are_refused_by_early_start_itself():
    with pytest.raises(ValueError, match="latent space 'wan21' but the model works in 'sd'"):
        CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(**early("eps", moments=some_moments("wan21", 16)))


def test_cutting_where_nothing_is_above_the_start(notes):
    given = {"model": tiny.model("eps")[0], "scheduler": "simple", "steps": 4, "start_as": "fraction", "layout": LAYOUTS[1]}
    assert "nothing to cut" in notes(TruncatedSigmaSchedule, **given, start=1.0)
    assert "nothing to cut" not in notes(TruncatedSigmaSchedule, **given, start=0.5)


def test_mean_strength_without_a_mean(notes):
    model, latent = tiny.model("eps")
    given = {"model": model, "latent": latent, "sigmas": torch.tensor([5.0, 1.0, 0.0]), "seed": 0}
    idle = "mean_strength changes nothing"
    assert idle in notes(AnalyticInitLatent, **given, mean_strength=0.5, moments=some_moments(value=0.0))
    assert idle not in notes(AnalyticInitLatent, **given, mean_strength=0.5, moments=some_moments())
    assert idle not in notes(AnalyticInitLatent, **given, mean_strength=1.0, moments=some_moments(value=0.0))


def test_mean_strength_at_a_flows_first_sigma(notes):
    model, latent = tiny.model("flow")
    given = {"model": model, "latent": latent, "seed": 0, "mean_strength": 0.5, "moments": some_moments("wan21", 16)}
    assert "mean_strength changes nothing" in notes(AnalyticInitLatent, **given, sigmas=torch.tensor([1.0, 0.5, 0.0]))
    assert "mean_strength changes nothing" not in notes(AnalyticInitLatent, **given, sigmas=torch.tensor([0.9, 0.5, 0.0]))


def test_detail_of_a_file_without_detail(notes, tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "cil_moments", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    cil_moments.save(some_moments(), tmp_path / "plain.safetensors")
    cil_moments.save(cil_moments.Moments(torch.rand(4, 1, 8, 8), 0.8, "sd"), tmp_path / "rich.safetensors")
    idle = "so 'full' changes nothing"
    assert idle in notes(nodes_moments.LoadMoments, moments_name="plain.safetensors", detail="full")
    assert idle not in notes(nodes_moments.LoadMoments, moments_name="rich.safetensors", detail="full")


@pytest.mark.parametrize(
    "source, changes, idle",
    [
        ("folder", {"fps": 6.0, "flip": True}, ""),
        ("images", {"frames": 8}, ""),
        ("images", {"fps": 6.0, "flip": True}, "not used with images: fps, flip"),
        ("latents", {"frames": 8, "width": 256}, "not used with latents: frames, width"),
    ],
)
def test_settings_for_videos_on_other_clips(source, changes, idle):
    assert nodes_estimate.idle_settings(ClipSpec(**changes), source) == idle


def test_the_probes_idle_settings():
    acting = {"negative": None, "cfg": 1.0, "second_images": None, "control": probe_clip.HALF_SPEED, "vae": object(), "flow": RAFT_SMALL}
    assert probe_clip.idle_settings(**acting) == []
    for change, idle in (
        ({"cfg": 2.5}, "connect negative"),
        ({"negative": object()}, "not used at cfg 1"),
        ({"second_images": object()}, "a second clip is connected"),
        ({"vae": None}, "without vae"),
    ):
        (note,) = probe_clip.idle_settings(**(acting | change))
        assert idle in note
    assert probe_clip.idle_settings(None, 1.0, object(), probe_clip.FROZEN, None, DIS) == []


def test_a_sweep_over_a_model_with_early_start_is_refused():
    model = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(**early("eps")).args[0]
    cond = tiny.conditioning()
    guider = execute(custom.CFGGuider, model, cond, cond, 1.0).args[0]
    rest = {
        "sampler": execute(custom.KSamplerSelect, "euler").args[0],
        "latent": {"samples": torch.zeros(4, 4, 8, 8)},
        "vae": SimpleNamespace(decode=None),  # refused before it is used
        "starts": "1",
        "start_as": "fraction",
        "analytic_init": True,
        "scheduler": "karras",
        "steps": 2,
        "seed": 0,
        "seeds": 1,
        "flow": DIS,
    }
    with pytest.raises(ValueError, match="connect the model from before Early Start"):
        nodes_sweep.StartSweep.PREPARE_CLASS_CLONE(None).execute(guider, **rest)


def test_what_a_sweep_does_not_take_from_its_latent():
    empty = {"samples": torch.zeros(2, 4, 8, 8)}
    for latent in ({"samples": torch.ones(2, 4, 8, 8)}, {**empty, "noise_mask": torch.ones(1, 8, 8)}):
        assert any("every run starts from noise" in note for note in nodes_sweep.idle_parts(latent, None, True))
    assert not any(nodes_sweep.idle_parts(empty, None, True))
