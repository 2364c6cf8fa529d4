"""Motion Score: what it finds in clips whose motion is known, what it holds in memory, and how it asks the host for room."""

import json

import comfy.model_management
import comfy.model_patcher
import pytest
import torch

from cil_pack.cil import flow, motion
from cil_pack.nodes import motion as nodes_motion
from cil_pack.nodes import pictures

pytest.importorskip("cv2")


def scored(frames, **settings):
    node = nodes_motion.MotionScore.PREPARE_CLASS_CLONE(None)
    names = [output.display_name for output in nodes_motion.MotionScore.define_schema().outputs]
    return dict(zip(names, node.execute(frames, nodes_motion.DIS, **settings).args, strict=True))


def texture(height, width, seed=0):
    """Structure of three sizes, [3, height, width]."""
    generator, out = torch.Generator().manual_seed(seed), torch.zeros(3, height, width)
    for cell, share in ((4, 0.25), (12, 0.4), (40, 0.5)):
        coarse = torch.randn(1, 3, height // cell + 2, width // cell + 2, generator=generator)
        out += share * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (0.18 * out + 0.5).clamp(0, 1)


def pan(pixels, frames=4):
    wide = texture(450, 800 + pixels * frames)
    return torch.stack([wide[:, :, i * pixels : i * pixels + 800] for i in range(frames)]).movedim(1, -1)


def grain(clip, strength):
    return (clip + strength * torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def test_a_clip_is_resized_and_scored_frame_by_frame(monkeypatch):
    sizes, resize, hsv = [], motion.F.interpolate, motion.hsv
    monkeypatch.setattr(motion.F, "interpolate", lambda x, *args, **kwargs: sizes.append(len(x)) or resize(x, *args, **kwargs))
    monkeypatch.setattr(motion, "hsv", lambda x: sizes.append(1 if x.ndim == 3 else len(x)) or hsv(x))
    frames = texture(90, 160)[None].movedim(1, -1)
    frames = torch.cat([frames.roll(t, 2) for t in range(5)])
    found = scored(frames)
    assert set(sizes) == {1} and found["score"] > 0 and found["flow_picture"].shape == (4, 450, 800, 3)


def test_a_flickering_still_has_a_score_and_no_consistent_motion():
    still = grain(pan(0), 0.1)
    found = scored(still)
    assert found["score"] > 1 and found["consistent"] < 0.03 * 3 and found["consistent_subject"] < 0.03 * 3
    assert found["flicker"] == pytest.approx(float((still[1:] - still[:-1]).abs().mean()), rel=0.1)
    assert json.loads(found["report"])["still_pairs_first"] == 3


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_a_known_pan_within_3_percent_flickering_or_not(strength):
    found = scored(grain(pan(4), strength))
    assert found["consistent"] == pytest.approx(12, rel=0.03) and found["consistent_camera"] == pytest.approx(12, rel=0.03)
    assert found["consistent_subject"] < 0.03 * 12


def test_a_known_thing_before_a_panning_camera():
    """A square that stands in the frame is the subject of a pan: it moves against the ground."""
    clip = pan(4)
    clip[:, 75:375, 175:625] = texture(300, 450, 5).movedim(0, -1)
    found = scored(clip)
    assert found["consistent_camera"] == pytest.approx(12, rel=0.03)
    assert found["consistent_subject"] == pytest.approx(12 * 300 * 450 / (450 * 800), rel=0.03)


def test_a_dead_beginning_shows():
    clip = pan(4)[[0, 0, 0, 0, 1, 2, 3]]
    found = scored(clip)
    assert json.loads(found["report"])["still_pairs_first"] == 3 and found["plot"].shape[0] == 1


def test_likeness_is_to_the_picture_and_minds_no_motion():
    clip = pan(4)
    assert scored(clip)["likeness"] > 0.98 and scored(clip, image=1 - clip[:1])["likeness"] < 0.9


def test_vbenchs_rule_by_the_frame_rate():
    """At 8 frames a second all four frames count and one pair must exceed 6 * 450 / 256 = 10.5 pixels; at 32 only the first is looked at, which needs none."""
    rule = lambda pixels, fps: json.loads(scored(pan(pixels), fps=fps)["report"])["vbench"]
    slow, fast = rule(8, 8.0), rule(14, 8.0)
    assert (slow["dynamic"], fast["dynamic"]) == (False, True) and fast["needed"] == 1 and fast["limit"] == pytest.approx(6 * 450 / 256)
    assert fast["per_pair"] == pytest.approx([14] * 3, rel=0.15)
    assert rule(14, 32.0)["per_pair"] == []


class Network(torch.nn.Module):
    """As torchvision's RAFT is called; it finds one pixel to the right and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.weight, self.asked = torch.nn.Parameter(torch.zeros(1)), []

    def forward(self, a, b, num_flow_updates=12):
        self.asked.append((tuple(a.shape), num_flow_updates, float(a.min()), float(a.max())))
        return [torch.stack([torch.ones_like(a[:, 0]), torch.zeros_like(a[:, 0])], 1)]


def test_the_hosts_own_optical_flow_takes_the_widgets_place():
    network = Network()
    patcher = comfy.model_patcher.ModelPatcher(network, comfy.model_management.get_torch_device(), torch.device("cpu"))
    clip = grain(torch.full((3, 160, 240, 3), 0.5), 0.2)
    found = scored(clip, optical_flow=patcher)
    assert found["score"] == pytest.approx(2.0) and json.loads(found["report"])["flow"] == "the connected optical flow model"
    assert {updates for shape, updates, *_ in network.asked if shape[2:] == (456, 800)} == {12}  # padded to multiples of 8
    assert {updates for shape, updates, *_ in network.asked if shape[2:] == (160, 240)} == {20}  # VBench's
    assert min(low for *_, low, _ in network.asked) < -0.5
    with pytest.raises(ValueError, match="an optical flow model, from Load Optical Flow Model, but"):
        scored(clip, optical_flow="RAFT")


def test_frame_by_frame_is_the_same_as_the_whole_clip_at_once():
    frames = torch.rand(4, 90, 120, 3, generator=torch.Generator().manual_seed(1))
    seen = []
    list(motion.flows(frames, lambda a, b: seen.append((a, b))))
    whole = torch.nn.functional.interpolate(frames.movedim(-1, 1), motion.SVD_SIZE, mode="bilinear", antialias=True).movedim(1, -1)
    for k, (a, b) in enumerate(seen):
        assert torch.equal(a, whole[k]) and torch.equal(b, whole[k + 1])


def test_flow_pictures_have_one_scale_for_the_clip():
    fast, slow = torch.zeros(6, 8, 2), torch.zeros(6, 8, 2)
    fast[..., 0], slow[..., 0] = 20.0, 2.0
    pictures_of = pictures.flow_pictures([fast, slow])
    assert pictures_of.shape == (2, 6, 8, 3)
    paleness = pictures_of.amin(-1).mean((1, 2))
    assert paleness[0] < 0.1 and paleness[1] > 0.8
    still = pictures.flow_pictures([torch.full((6, 8, 2), 0.01)])
    assert still.min() > 0.9  # a still clip's noise is not blown up


def test_raft_has_the_host_make_room_before_each_pair(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(flow, "raft", lambda *args, **kwargs: lambda a, b: torch.zeros(*a.shape[:2], 2))
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda memory, device: asked.append((memory, device)))
    backend = nodes_motion.flow_backend(nodes_motion.RAFT_SMALL)
    assert not asked
    assert motion.motion_score(torch.rand(3, 16, 16, 3), backend) == 0
    assert asked == [(nodes_motion.RAFT_MEMORY, comfy.model_management.get_torch_device())] * 2


def test_a_flow_stops_between_two_pairs(monkeypatch):
    monkeypatch.setattr(flow, "dis", lambda: lambda a, b: torch.zeros(*a.shape[:2], 2))
    backend, asked = nodes_motion.flow_backend(nodes_motion.DIS), []

    def interrupt():
        asked.append(1)
        if len(asked) == 3:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        motion.motion_score(torch.rand(9, 8, 8, 3), backend)
    assert len(asked) == 3
