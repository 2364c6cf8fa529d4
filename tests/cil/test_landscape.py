"""The landscape world: its motions stay in the frame, its exact denoiser is the posterior mean, its tracker is not fooled."""

import pytest
import torch

from cil_pack.demo.landscape import measure, panels, scenes


def drawn(n, seed=3, alike=False):
    return scenes.sample(n, torch.Generator().manual_seed(seed), alike=alike)


def still(scene):
    return scene.replace(motion=0.0)


def test_every_subject_stays_in_the_frame_in_every_frame():
    places = scenes.path(drawn(2000))
    assert places.min() >= scenes.MARGIN - 1e-3 and places.max() <= scenes.SIZE - scenes.MARGIN + 1e-3


def test_shares_and_buckets():
    many = drawn(4000)
    amounts = scenes.amount(many.motion)
    assert scenes.SHARES.sum() == pytest.approx(1) and 0.1 < (amounts == 0).float().mean() < 0.3
    told = many.bucket == scenes.bucket(many.motion)
    assert 0.45 < told.float().mean() < 0.56 and (many.bucket[~told] == scenes.OPEN).all()


def test_the_first_frame_does_not_tell_the_motion():
    scene = drawn(4)
    assert torch.equal(scenes.render(scene, 1), scenes.render(still(scene), 1))


def test_a_glide_is_as_fast_as_asked_and_the_other_goes_elsewhere():
    scene = drawn(64)
    for pixels in (0.0, 2.4, scenes.MAX_SPEED):
        one, other = (scenes.gliding(scene, pixels, back) for back in (False, True))
        for made in (one, other):
            places = scenes.path(made)
            way = places[:, -1] - places[:, 0]
            assert torch.allclose(way.norm(dim=-1), torch.tensor(pixels * (scenes.FRAMES - 1)), atol=1e-3)
            assert places.min() >= scenes.MARGIN - 1e-3 and places.max() <= scenes.SIZE - scenes.MARGIN + 1e-3
        if pixels == 2.4:
            apart = torch.nn.functional.cosine_similarity(one.motion[:, :2], other.motion[:, :2])
            assert apart.max() < 0.8 and apart.median() < -0.5
    assert torch.equal(scenes.render(scenes.gliding(scene[:4], 2.4), 1), scenes.render(still(scene[:4]), 1))


def test_the_window_holds_all_of_a_subject():
    """However it is placed and grown, what is drawn in the window is the subject drawn in the whole frame."""
    scene = drawn(12, seed=5).replace(radius=18.0)
    scene = scene.replace(motion=torch.cat([scene.motion[:, :4], torch.full((12, 1), scenes.ZOOM)], 1))
    k = torch.arange(scenes.FRAMES)
    cover, colour = scenes.subject(scene, scenes.path(scene), (scene.motion[:, 4:5] * k).exp())
    ground = scenes._landscape(scene, k)
    assert torch.allclose(scenes.render(scene), ground + (colour - ground) * cover, atol=1e-5)


def test_the_last_frame_alone_is_the_clips_last_frame():
    scene = drawn(6)
    assert torch.allclose(scenes.render(scene, 5)[:, -1:], scenes.render(scene, 5, only_last=True), atol=1e-5)


def test_exact_denoised_is_the_posterior_mean():
    scene = drawn(1, seed=8)
    all_, shares = scenes.candidates(scene)
    few = torch.arange(0, len(shares), 23)
    clips = torch.nn.functional.avg_pool2d(scenes.render(all_[few], 4).flatten(0, 1), 16).unflatten(0, (len(few), 4))
    shares = shares[few] / shares[few].sum()
    assert torch.allclose(scenes.exact_denoised(clips[2], 1e-3, clips, shares), clips[2], atol=1e-5)
    assert torch.allclose(scenes.exact_denoised(clips[2], 1e5, clips, shares), torch.einsum("m,m...->...", shares, clips), atol=1e-4)
    # by importance: draws (clip, noise) whose noisy clip is x, weighted by the density of the noise
    x, sigma = clips[5] + 0.3 * torch.randn(clips[5].shape, generator=torch.Generator().manual_seed(0)), 0.3
    density = torch.distributions.Normal(0, sigma).log_prob((x - clips).double()).flatten(1).sum(1)
    weight = shares.double() * (density - density.max()).exp()
    mean = torch.einsum("m,m...->...", (weight / weight.sum()).float(), clips)
    assert torch.allclose(scenes.exact_denoised(x, sigma, clips, shares), mean, atol=1e-5)


@pytest.mark.parametrize("flicker", [0.0, 0.08])
def test_tracks_find_the_way_and_flicker_is_none(flicker):
    scene = drawn(12, seed=7)
    for truth in (scene, still(scene)):
        clips = scenes.render(truth)
        noise = torch.Generator().manual_seed(1)
        clips = (clips + flicker * torch.randn(*clips.shape[:2], 1, 1, 1, generator=noise) + 0.03 * torch.randn(clips.shape, generator=noise)).clamp(0, 1)
        tracks, places = measure.track(clips, scene), scenes.path(truth)
        asked = (places[:, -1] - places[:, 0]).norm(dim=-1)
        assert (tracks.travel - asked).abs().max() < 2 and tracks.lost.max() == 0


def test_a_clip_without_its_subject_is_lost():
    scene = drawn(3, seed=7)
    assert measure.track(scenes.render(scene.replace(radius=0.01), 2), scene).lost.min() > 0


def test_frames_without_the_subject_do_not_make_a_way():
    scene = scenes.gliding(drawn(6, seed=7, alike=True), 2.4)
    clips, gone = scenes.render(scene), scenes.render(scene.replace(radius=0.01))
    clips[:, 7:] = gone[:, 7:].roll(9, -1)
    tracks = measure.track(clips, scene)
    assert tracks.lost.median() > 0.3 and (tracks.travel / (2.4 * 11) - 1).abs().max() < 0.1
    assert panels.told(measure.Tracks(*(v[:1] for v in (tracks.places, tracks.errors, tracks.velocity))), 2.4 * 11).endswith(" of 12 frames")
    assert (measure.track(gone.roll(9, -1), scene).travel == 0).any()


def test_a_subject_that_jumps_at_the_end_did_not_stand_still():
    """Its way, a median, does not count one frame; the furthest place does, and one where it is not seen counts for nothing."""
    scene = scenes.gliding(drawn(1, seed=7, alike=True), 2.4)
    clip, true = scenes.render(still(scene)), scenes.render(scene)
    clip[:, -1] = true[:, -1]
    jumps = measure.track(clip, scene)
    assert jumps.travel < 2 and float(jumps.furthest) == pytest.approx(2.4 * 11, abs=2)
    clip[:, -1] = scenes.render(scene.replace(radius=0.01), 1)[:, 0]
    assert measure.track(clip, scene).furthest < 2


def test_the_nearest_clip_has_the_camera_too():
    camera = torch.tensor([[0.0, 0.0, scenes.PAN, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, scenes.ZOOM]])
    scene = drawn(2, seed=4).replace(start=scenes.SIZE / 2 - 6.0)
    moved = scene.replace(motion=camera)
    nearest, distance = measure.nearest_clip(scenes.render(moved), scene)
    assert torch.allclose(nearest.motion[:, 2:], camera[:, 2:]) and distance.max() < 0.06
