"""Motion scores on clips whose motion is known."""

import pytest
import torch

from cil_pack.cil import flow, motion


def texture(h, w, seed=0):
    """A picture with detail at several scales, [h, w, 3]."""
    g = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, h, w)
    for cells in (4, 8, 16, 32):
        noise = torch.rand(1, 3, cells, cells, generator=g)
        picture += torch.nn.functional.interpolate(noise, (h, w), mode="bicubic") / 4
    return picture[0].movedim(0, -1).clamp(0, 1)


def panned(dx, dy, frames=4, h=225, w=400):
    """A view that glides over a larger picture by (dx, dy) pixels a frame."""
    big = texture(h + 80, w + 80)
    return torch.stack([big[40 + t * dy : 40 + t * dy + h, 40 + t * dx : 40 + t * dx + w] for t in range(frames)])


@pytest.fixture(scope="module")
def dis():
    pytest.importorskip("cv2")
    return flow.dis()


@pytest.mark.parametrize("dx, dy", [(2, 0), (0, 3), (3, 4), (-2, 1), (6, -5)])
def test_a_shifted_clip_scores_its_shift(dis, dx, dy):
    """Scaled to 800 x 450, within 3 %."""
    pairs = motion.motion_per_pair(panned(dx, dy), dis)
    expected = ((2 * dx) ** 2 + (2 * dy) ** 2) ** 0.5  # 400 x 225 is enlarged twice
    assert pairs.mean() == pytest.approx(expected, rel=0.03)
    assert motion.motion_score(panned(dx, dy), dis) == pytest.approx(3 * expected, rel=0.03)


def test_a_still_scores_zero(dis):
    still = texture(90, 160).expand(5, -1, -1, -1)
    assert motion.motion_score(still, dis) == pytest.approx(0, abs=1e-3)
    assert motion.pia_motion(still).tolist() == [0] * 5


def test_a_pan_is_the_cameras(dis):
    for field in motion.flows(panned(4, 2), dis):
        camera, subject = motion.split_motion(field)
        assert camera == pytest.approx(80**0.5, rel=0.05) and subject < 0.1 * camera


def test_a_zoom_is_the_cameras(dis):
    big = texture(450, 800).movedim(-1, 0)[None]
    frames = torch.stack(
        [torch.nn.functional.interpolate(big[..., 4 * t : 450 - 4 * t, 7 * t : 800 - 7 * t], (450, 800), mode="bilinear")[0].movedim(0, -1) for t in range(3)]
    )
    for field in motion.flows(frames, dis):
        camera, subject = motion.split_motion(field)
        assert subject < 0.2 * camera and camera > 2


def test_an_object_over_a_still_ground_is_the_subjects(dis):
    ground, thing = texture(225, 400), texture(60, 60, seed=1)
    frames = ground.repeat(4, 1, 1, 1)
    for t in range(4):
        frames[t, 80:140, 100 + 5 * t : 160 + 5 * t] = thing
    camera = subject = 0.0
    for field in motion.flows(frames, dis):
        c, s = motion.split_motion(field)
        camera, subject = camera + c, subject + s
    assert subject > 5 * camera


def test_the_split_is_the_same_twice(dis):
    field = next(motion.flows(panned(4, 2), dis))
    assert motion.split_motion(field) == motion.split_motion(field)


def test_pia_by_hand():
    """From black to full red: hue 0 -> 0, saturation 0 -> 1, value 0 -> 1, so d = 2/3; half of it halfway in value."""
    frames = torch.zeros(3, 2, 2, 3)
    frames[1, ..., 0], frames[2, ..., 0] = 0.5, 1.0
    assert motion.pia_motion(frames).tolist() == pytest.approx([0, 0.5 * 0.8, 2 / 3 * 0.8])
    assert motion.pia_motion(frames, d_max=2 / 3).tolist() == pytest.approx([0, 0.75 * 0.8, 0.8])


def test_hsv_against_the_standard_library():
    import colorsys

    colours = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([colorsys.rgb_to_hsv(*c) for c in colours.tolist()])
    assert torch.allclose(motion.hsv(colours), expected, atol=1e-5)


@pytest.mark.parametrize(
    "frames, message",
    [
        (torch.zeros(1, 8, 8, 3), "only one frame"),
        (torch.full((3, 8, 8, 3), float("nan")), "NaN"),
        (torch.zeros(3, 8, 8), "a clip is"),
    ],
)
def test_bad_clips_are_refused_in_words(frames, message):
    for measure in (lambda f: list(motion.flows(f, None)), motion.pia_motion):
        with pytest.raises(ValueError, match=message):
            measure(frames)


def test_bad_d_max():
    with pytest.raises(ValueError, match="d_max"):
        motion.pia_motion(torch.zeros(2, 8, 8, 3), d_max=0)


def test_a_missing_library_is_explained(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("cv2", "torchvision"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install opencv-python-headless"):
        flow.dis()
    with pytest.raises(ImportError, match="pip install torchvision"):
        flow.raft()
    with pytest.raises(ImportError, match="the split into camera and subject needs"):
        motion.split_motion(torch.zeros(4, 4, 2))


# ---- RAFT with real weights ---------------------------------------------------------


@pytest.fixture(scope="module")
def raft_weights():
    import raft_weights

    return raft_weights.folder()


@pytest.mark.parametrize("name", ["raft-small.pth", "raft-sintel.pth"])
def test_raft_in_the_original_layout_measures_the_shift(raft_weights, name):
    """The same clip as above at 256 x 144, within 3 %."""
    engine = flow.raft(weights=raft_weights / name)
    frames = panned(3, 4, frames=2, h=144, w=256)
    field = next(motion.flows(frames, engine, size=(144, 256)))
    inner = field[16:-16, 16:-16].norm(dim=-1)
    assert inner.mean() == pytest.approx(5, rel=0.03)


def test_both_layouts_are_the_same_network(raft_weights, tmp_path):
    state = flow._state_dict(raft_weights / "raft-small.pth")
    torch.save(flow.torchvision_layout(state), tmp_path / "theirs.pth")
    frames = panned(2, 1, frames=2, h=128, w=160)
    fields = [flow.raft(weights=path)(frames[0], frames[1]) for path in (raft_weights / "raft-small.pth", tmp_path / "theirs.pth")]
    assert torch.equal(*fields)


def test_files_that_are_not_raft_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth is not a RAFT file"):
        flow.raft(weights=tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="b.pth"):
        flow.raft(weights=tmp_path / "b.pth")
