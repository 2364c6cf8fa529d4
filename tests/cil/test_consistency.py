"""Consistent motion on clips whose motion is known, with and without flicker; VBench's rule on both sides of its limits."""

import pytest
import torch

from cil_pack.cil import consistency, flow
from cil_pack.cil.motion import SVD_SIZE

pytest.importorskip("cv2")
SIZE = (225, 400)  # half of what is used, for speed
PAIRS = 2


def texture(h, w, seed):
    generator, out = torch.Generator().manual_seed(seed), torch.zeros(3, h, w)
    for cell, share in ((4, 0.25), (12, 0.4), (40, 0.5)):
        out += share * torch.nn.functional.interpolate(torch.randn(1, 3, h // cell + 2, w // cell + 2, generator=generator), (h, w), mode="bicubic")[0]
    return (0.18 * out + 0.5).clamp(0, 1)


def pan(pixels):
    wide = texture(SIZE[0], SIZE[1] + 60, 0)
    return torch.stack([wide[:, :, i * pixels : i * pixels + SIZE[1]] for i in range(PAIRS + 1)]).movedim(1, -1)


def thing(pixels, size=120, picture=SIZE):
    """A square that moves over a still picture."""
    frames, piece = [], texture(size, size, 9)
    for i in range(PAIRS + 1):
        frames.append(texture(*picture, 5))
        frames[-1][:, 50 : 50 + size, 100 + i * pixels : 100 + i * pixels + size] = piece
    return torch.stack(frames).movedim(1, -1)


def grain(clip, strength):
    return (clip + strength * torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def brightness(clip, strength):
    return (clip * (1 + strength * torch.randn(len(clip), 1, 1, 1, generator=torch.Generator().manual_seed(2)))).clamp(0, 1)


def blotches(clip, strength):
    coarse = torch.randn(len(clip), 3, 9, 16, generator=torch.Generator().manual_seed(3))
    return (clip + strength * torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").movedim(1, -1)).clamp(0, 1)


def measured(clip, size=SIZE):
    found = list(consistency.pairs(clip, flow.dis(), size))
    return sum(p.speed() for p in found) / len(found), sum(p.flicker() for p in found) / len(found), found


@pytest.mark.parametrize("flicker, strength", [(grain, 0.03), (grain, 0.1), (brightness, 0.1), (blotches, 0.05)])
def test_the_flicker_of_a_still_is_no_motion(flicker, strength):
    clip = flicker(pan(0), strength)
    speed, left, _ = measured(clip)
    assert speed < 0.02
    assert left == pytest.approx(float((clip[1:] - clip[:-1]).abs().mean()), rel=0.1)


@pytest.mark.parametrize("flicker, strength, within", [(grain, 0.0, 0.03), (grain, 0.05, 0.03), (brightness, 0.1, 0.03), (blotches, 0.05, 0.06)])
def test_a_moving_clip_scores_its_motion_with_flicker_too(flicker, strength, within):
    assert measured(flicker(pan(3), strength))[0] == pytest.approx(3.0, rel=within)


def test_a_known_thing_and_its_share(within=0.03):
    """At the size that is used: flow spreads about a pixel over an edge, which counts twice as much at half of it."""
    speed, left, found = measured(thing(4, 240, SVD_SIZE), SVD_SIZE)
    assert speed == pytest.approx(4 * 240 * 240 / (SVD_SIZE[0] * SVD_SIZE[1]), rel=within) and left < 0.004
    assert all(float(consistency.camera(pair).norm(dim=-1).mean()) < 0.02 for pair in found)


def test_a_thing_of_more_than_half_the_frame_is_not_the_camera():
    clip = pan(0).clone()
    for i, piece in enumerate([texture(160, 300, 9)] * len(clip)):
        clip[i, 30:190, 40 + 4 * i : 340 + 4 * i] = piece.movedim(0, -1)
    _, _, found = measured(clip)
    assert float(consistency.camera(found[0]).norm(dim=-1).mean()) < 0.1 and found[0].speed() > 1.9
    pair = measured(pan(3))[2][0]
    assert float(consistency.camera(pair).norm(dim=-1).mean()) == pytest.approx(3.0, rel=0.03)


def test_likeness_does_not_mind_motion():
    clip, backend = thing(4), flow.dis()
    moved = consistency.likeness(clip, clip[:1], backend, SIZE)
    changed = consistency.likeness(torch.cat([clip[:1], 1 - clip[1:]]), clip[:1], backend, SIZE)
    assert moved > 0.985 and changed < 0.9


@pytest.mark.parametrize("speeds, begins", [([0.0, 0.0, 2.0, 2.0, 2.0], 2), ([1.0, 1.0], 0), ([0.0, 0.0, 0.0], 3), ([0.02, 0.01, 0.03], 3)])
def test_when_a_clip_begins_to_move(speeds, begins):
    assert consistency.first_moving(speeds) == begins


def constant(lengths):
    """A flow that is `lengths[i]` long in 5 % of the i-th pair, and still elsewhere."""
    pairs = iter(lengths)

    def backend(a, b):
        field = torch.zeros(*a.shape[:2], 2)
        field.view(-1, 2)[: int(0.05 * a.shape[0] * a.shape[1]), 0] = next(pairs)
        return field

    return backend


@pytest.mark.parametrize(
    "frames, fps, moving, dynamic",
    [(16, 8, 4, True), (16, 8, 3, False), (32, 16, 4, True), (32, 16, 3, False), (9, 8, 2, True), (9, 8, 1, False), (5, 24, 1, False)],
)
def test_vbenchs_rule_on_both_sides_of_its_limits(frames, fps, moving, dynamic):
    """The limit is 6 at 256 pixels; of 16 sampled frames 4 pairs must exceed it, of 9 two, of the 2 that 24 a second leave of 5, round(0.5) = 0."""
    clip = torch.zeros(frames, 256, 300, 3)
    sampled = len(clip[:: max(1, round(fps / 8))])
    lengths = [6.01] * moving + [5.99] * (sampled - 1)
    answer, scores, limit, needed = consistency.dynamic_degree(clip, fps, constant(lengths))
    assert limit == 6 and needed == round(4 * sampled / 16) and len(scores) == sampled - 1
    assert answer == (dynamic or needed == 0)


def test_bad_input():
    with pytest.raises(ValueError, match="only one frame came"):
        list(consistency.pairs(torch.zeros(1, 8, 8, 3), flow.dis()))
    with pytest.raises(ValueError, match="must be above 0, but 0"):
        consistency.dynamic_degree(torch.zeros(4, 8, 8, 3), 0, None)
