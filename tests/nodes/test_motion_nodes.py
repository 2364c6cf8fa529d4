"""Motion Score: what it holds in memory, and how it asks the host for room."""

import comfy.model_management
import torch

from cil_pack.cil import flow, motion
from cil_pack.nodes import motion as nodes_motion
from cil_pack.nodes import pictures


def test_a_clip_is_resized_and_scored_frame_by_frame(monkeypatch):
    sizes, resize, hsv = [], motion.F.interpolate, motion.hsv
    monkeypatch.setattr(motion.F, "interpolate", lambda x, *args, **kwargs: sizes.append(len(x)) or resize(x, *args, **kwargs))
    monkeypatch.setattr(motion, "hsv", lambda x: sizes.append(1 if x.ndim == 3 else len(x)) or hsv(x))
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 16, generator=torch.Generator().manual_seed(0)), (45, 80), mode="bicubic")
    frames = torch.stack([picture[0].movedim(0, -1).roll(t, 1) for t in range(5)])
    sizes.clear()
    node = nodes_motion.MotionScore.PREPARE_CLASS_CLONE(None)
    score, camera, subject, picture, _ = node.execute(frames, nodes_motion.DIS).args
    assert sizes == [1] * 11 and score > 0 and picture.shape == (4, 450, 800, 3)  # five sizes; the first frame and five for PIA's


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
