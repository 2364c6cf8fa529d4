"""Calibration against denoisers that are exact in closed form, and against leaks of known size."""

import math
import weakref

import pytest
import torch

from cil_pack.bench.exact import CLIPS, DIM, FAIR, MODELS, RUNS, WORLDS, Gaussian, Told, fading, probed, within
from cil_pack.cil import calibration, forward, levels, verdict, views
from cil_pack.cil.calibration import Evidence
from cil_pack.cil.views import MOTIONS, WHOLE


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("model", MODELS)
def test_an_exact_denoiser_does_not_leak(model, world):
    """Whatever the data and the forward process: no start is suggested, and 0 lies in the band of each level."""
    evidence = probed(WORLDS[world], model)
    curves = [e.curve(WHOLE) for e in evidence]
    held = torch.stack([within(c) for c in curves]).sum(0)
    started = sum(verdict.verdict(e).start is not None for e in evidence)
    assert started <= 5
    assert held.min() >= 95


# ---- leaks of known size --------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [0.2, 0.5])
def test_a_leak_at_all_levels_is_found_to_a_twentieth(model, size):
    evidence = probed(FAIR, model, lambda sigma: size, runs=20, clips=64)
    found = [verdict.verdict(e) for e in evidence]
    assert all(abs(v.leakage - size) < 0.05 for v in found)
    assert all(v.edge == 0 and v.start == pytest.approx(verdict.least_start(e, 0)) for v, e in zip(found, evidence))
    assert max(float((e.curve(WHOLE).leakage - size).abs().max()) for e in evidence) < 0.1
    assert abs(float(torch.stack([e.curve(WHOLE).leakage for e in evidence]).mean()) - size) < 0.01


@pytest.mark.parametrize("rank", [1, 5, 20, 80, DIM])
def test_eight_clips_find_a_leak_of_one_half(rank):
    found = [verdict.verdict(e) for e in probed(Gaussian(rank, 0.2), "EDM", lambda sigma: 0.5)]
    assert sum(v.start is not None and abs(v.leakage - 0.5) < 0.05 for v in found) >= 95


def test_clips_with_much_motion_are_not_the_only_voters():
    """Of amounts that the model is told a leak of 0.3 is proved with 8 clips nearly always; all counted alike, in a fifth of the runs."""
    evidence = probed(Told(20, 0.3), "EDM", lambda sigma: 0.3)
    found = [verdict.verdict(e) for e in evidence]
    assert sum(v.start is not None and abs(v.leakage - 0.3) < 0.05 for v in found) >= 85


@pytest.mark.parametrize("edge", [20, 5, 2])
@pytest.mark.parametrize("shape, clips", [("a step", 8), ("fading", 8), ("fading to half", 64)])
def test_the_edge_of_a_leak_is_found(edge, shape, clips):
    leak = {"a step": lambda sigma: float(sigma > edge), "fading": fading(edge), "fading to half": fading(edge, 0.5)}[shape]
    found = [verdict.verdict(e) for e in probed(FAIR, "EDM", leak, clips=clips, runs=RUNS * 8 // clips)]
    assert sum(v.edge is not None and edge / 1.5 < v.edge < edge * 1.5 for v in found) >= 0.95 * len(found)
    assert all(abs(v.start / v.edge - 1) < 1e-6 or (edge == 2 and v.start < 1.5 * edge) for v in found)
    assert all(
        v.start == max(v.edge, least)
        for v, least in ((v, verdict.least_start(e, v.edge)) for v, e in zip(found, probed(FAIR, "EDM", leak, clips=clips, runs=RUNS * 8 // clips)))
    )


# ---- errors of a model's own ----------------------------------------------------------

C, T, H, W = 3, 12, 16, 16


class Moving:
    """Clips of smooth pictures whose parts move a little, to first order, and the exact denoiser given the picture."""

    def __init__(self, seed, energy=0.2, share=0.3):
        g = torch.Generator().manual_seed(seed)
        picture = torch.nn.functional.interpolate(torch.randn(1, C, 5, 5, generator=g, dtype=torch.float64), (H, W), mode="bicubic", align_corners=True)[0]
        space, time = views.motions_of(picture, T)
        axes = torch.einsum("ms,kt->mkts", space, time).flatten(0, 1).unflatten(-1, (C, H, W))  # [m, T, C, H, W]
        self.axes = axes.movedim(1, 2).flatten(1)  # their time begins at 0, so the first frame stays
        number = len(self.axes)
        self.spread = (1 - share) * energy * C * T * H * W / number
        mean = torch.ones(number, dtype=torch.float64) * (share * energy * C * T * H * W / number) ** 0.5
        self.mean = mean @ self.axes
        self.still = picture[:, None].expand(C, T, H, W)
        moved = torch.randn(number, generator=g, dtype=torch.float64) * self.spread**0.5 @ self.axes
        self.clip = self.still + (self.mean + moved).view(C, T, H, W)

    def denoise(self, x, signal, noise):
        seen = self.axes @ ((x - signal * self.still).flatten() - signal * self.mean)
        shrink = signal * self.spread / (signal**2 * self.spread + noise**2)
        return self.still + (self.mean + shrink * seen @ self.axes).view(C, T, H, W)


def probed_clips(leak, error, clips=16, seed=0):
    """A probe by `measure`, clip by clip. error(generator): what the model adds to its prediction [C, T, H, W]."""
    process, sigma_of = MODELS["flow shift 8"]
    sigmas = [s for _, s in levels.evenly(process, sigma_of, 8, 0.0, 1.0)]
    evidence, g = Evidence(process, sigmas, 4), torch.Generator().manual_seed(seed)
    for n in range(clips):
        scene = Moving(seed + n)

        def model(xs, sigma, scene=scene):
            signal, noise = process.signal(sigma), process.noise(sigma)
            return [scene.still + (1 - leak) * (scene.denoise(x, signal, noise) - scene.still) + error(g) for x in xs]

        evidence.add(*calibration.measure(model, process, scene.clip, sigmas, 2, seed + n))
    return evidence


def flicker(energy):
    """Noise of its own in every frame but the first, of a mean square."""
    first = (torch.arange(T) > 0).double().view(T, 1, 1)
    return lambda g: energy**0.5 * first * torch.randn(C, T, H, W, generator=g, dtype=torch.float64)


def drift(energy):
    """A brightness that rises over the clip, of a mean square."""
    ramp = torch.linspace(0, 1, T, dtype=torch.float64)
    return lambda g: (energy / ramp.square().mean()).sqrt() * ramp.view(T, 1, 1).expand(C, T, H, W)


NONE = lambda g: 0.0


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize("error", [NONE, flicker(0.1), drift(0.1)], ids=["clean", "flicker", "drift"])
def test_a_models_own_errors_hide_a_leak_from_the_whole_but_not_from_the_motions(leak, error):
    evidence = probed_clips(leak, error)
    whole, motions = evidence.curve(WHOLE), evidence.curve(MOTIONS)
    assert evidence.judges() == [MOTIONS, WHOLE] and verdict.judge(evidence) == MOTIONS
    assert (motions.leakage - leak).abs().max() < 0.05
    found = verdict.verdict(evidence)
    assert found.judged and (found.edge == 0 and abs(found.leakage - leak) < 0.05 if leak else found.start is None)
    if error is not NONE:
        assert whole.high.max() < 0  # all of it together: more motion than there should be, and no leak to be seen
    bands = {name: evidence.curve(name) for name in views.BANDS}
    assert verdict.excess(bands["fast"]) == (error is not NONE and error.__qualname__.startswith("flicker"))
    if leak and error is NONE:
        assert min(verdict.leaking(bands["slow"]))


# ---- a code whose first latent is of another kind -------------------------------------


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_a_first_latent_of_another_kind_does_not_hide_a_leak(leak):
    """Its distance from the rest is no motion: counted as such, every model knows it and no leak is seen."""
    process, sigma_of = MODELS["flow shift 8"]
    sigmas = [s for _, s in levels.evenly(process, sigma_of, 8, 0.0, 1.0)]
    found = {apart: Evidence(process, sigmas, 4) for apart in (False, True)}
    for n in range(16):
        scene = Moving(n)
        first = 3.0 - 2.0 * scene.still[:, :1].flip(0)

        def model(xs, sigma, scene=scene, first=first):
            exact = [scene.denoise(x[:, 1:], process.signal(sigma), process.noise(sigma)) for x in xs]
            return [torch.cat([first, scene.still + (1 - leak) * (d - scene.still)], 1) for d in exact]

        for apart, evidence in found.items():
            evidence.add(*calibration.measure(model, process, torch.cat([first, scene.clip], 1), sigmas, 2, n, apart=apart))
    hidden, seen = (verdict.verdict(found[apart]) for apart in (False, True))
    assert found[False].curve(WHOLE).leakage.max() < 0.05 and hidden.start is None
    assert (found[True].curve(WHOLE).leakage - leak).abs().max() < 0.05
    assert seen.judged and (seen.edge == 0 and abs(seen.leakage - leak) < 0.05 if leak else seen.start is None)


# ---- the parts ------------------------------------------------------------------------


def test_the_band_of_the_bootstrap_would_be_too_narrow():
    """Why the band is Fieller's: at 8 clips, 98 % of the percentile bootstrap hold the truth clearly less often."""
    evidence, g = probed(Gaussian(20), "EDM"), torch.Generator().manual_seed(0)
    outside = 0
    for e in evidence:
        products = e.view(WHOLE)[..., :2]
        drawn = products[:, torch.randint(CLIPS, (500, CLIPS), generator=g)].sum(2)  # [levels, 500, 2]
        low, high = (1 - drawn[..., 1] / drawn[..., 0]).quantile(torch.tensor([0.01, 0.99], dtype=torch.float64), dim=1)
        outside += int(((low > 0) | (high < 0)).sum())
    ours = sum(int((~within(e.curve(WHOLE))).sum()) for e in evidence)
    assert ours <= 0.03 * RUNS * 12 < outside


def test_one_clip_gives_a_curve_without_a_band_and_no_verdict():
    evidence = probed(FAIR, "EDM", lambda sigma: 0.5, clips=1, runs=1)[0]
    curve = evidence.curve(WHOLE)
    assert torch.isfinite(curve.leakage).all() and curve.low.isnan().all() and curve.high.isnan().all()
    found = verdict.verdict(evidence)
    assert not found.judged and found.start is None


def test_what_cannot_be_judged_is_not_judged():
    """Motions without a mean, in one direction, at high levels alone: nothing is predicted there, rightly, so nothing is proved."""
    found = [verdict.verdict(e) for e in probed(Gaussian(1), "EDM", lambda sigma: 0.3, clips=5, runs=50)]
    assert sum(not v.judged for v in found) > 25
    assert all(v.start is None for v in found if not v.judged)


def test_clips_chosen_for_much_motion_look_like_a_leak():
    """The bias that the help warns of: of 64 clips the 8 that move most, on an exact model."""

    class Chosen(Gaussian):
        def sample(self, shape, g):
            many = super().sample((shape[0], 64), g)
            most = many.square().sum(-1).topk(shape[1], dim=1).indices
            return many.gather(1, most[..., None].expand(-1, -1, DIM))

    found = [verdict.verdict(e) for e in probed(Chosen(5, 0.3), "EDM", runs=50)]
    assert sum(v.start is not None for v in found) > 25


def test_the_model_is_called_for_each_level_pair_and_sign_and_nothing_is_kept():
    scene, calls, held = Moving(0), [], []

    def model(xs, sigma):
        calls.append((sigma, len(xs)))
        out = [scene.denoise(x, 1.0, sigma) for x in xs]
        held.append([weakref.ref(x) for x in out])
        assert not any(ref() is not None for earlier in held[:-2] for ref in earlier)  # the last pair's names are still bound
        return out

    calibration.measure(model, forward.VE, scene.clip, [10.0, 1.0, 0.5], 2, 0)
    assert calls == [(s, 2) for s in (10.0, 10.0, 1.0, 1.0, 0.5, 0.5)]


def test_the_same_seed_gives_the_same_sums_and_another_does_not():
    scene = Moving(0)
    run = lambda seed: calibration.measure(lambda xs, s: [scene.denoise(x, 1.0, s) for x in xs], forward.VE, scene.clip, [5.0, 0.5], 1, seed)[0]
    assert all(torch.equal(a, b) for a, b in zip(run(3).values(), run(3).values()))
    assert not torch.equal(run(3)[WHOLE], run(4)[WHOLE])


def test_the_motions_of_a_picture_are_orthonormal_and_blind_to_brightness():
    picture = torch.randn(C, H, W, generator=torch.Generator().manual_seed(0))
    space, time = views.motions_of(picture, T)
    assert torch.allclose(space @ space.T, torch.eye(len(space), dtype=torch.float64), atol=1e-8)
    assert torch.allclose(time @ time.T, torch.eye(2, dtype=torch.float64), atol=1e-12)
    brighter = torch.ones(C, H, W, dtype=torch.float64) * torch.tensor([0.3, -1.0, 2.0]).view(-1, 1, 1)
    assert (space @ brighter.flatten()).abs().max() < 1e-9
    assert views.motions_of(torch.ones(C, H, W), T) is None
    # a small shift of the whole picture lies in the span, nearly all of it
    shifted = 0.01 * torch.gradient(picture.double(), dim=2)[0]
    shifted = shifted - shifted.mean((1, 2), keepdim=True)
    assert float((space @ shifted.flatten()).square().sum() / shifted.square().sum()) > 0.999


def test_the_views_of_a_clip_split_its_energy():
    still = torch.randn(C, 1, H, W, generator=torch.Generator().manual_seed(0)).expand(C, T, H, W)
    clip = torch.randn(C, T, H, W, generator=torch.Generator().manual_seed(1))
    parts = views.Views(still)(clip)
    energy = {name: float(v.square().sum()) for name, v in parts.items()}
    assert sum(energy[b] for b in views.BANDS) == pytest.approx(energy[WHOLE])
    assert energy[MOTIONS] < energy[WHOLE]
    turning = torch.ones(C, T, H, W) * (-1.0) ** torch.arange(T).view(T, 1, 1)
    parts = views.Views(still)(turning)
    assert float(parts["fast"].square().sum()) > 0.9 * turning.numel()


@pytest.mark.parametrize("frames", [2, 3, 5, 14])
def test_few_frames_have_fewer_bands(frames):
    parts = views.Views(torch.randn(2, 1, 4, 4).expand(2, frames, 4, 4))(torch.randn(2, frames, 4, 4))
    assert sum(parts[b].numel() for b in views.BANDS if b in parts) == 2 * frames * 16
    assert parts[MOTIONS].numel() <= min(2, frames - 1) * 32


def test_start_cost_is_the_kl_of_prop_1_for_data_without_spread():
    """The toy with all its variance in the scalar: KL(N(m, b^2) || N(m, a^2 v + b^2)) a value is what it tends to, and never more."""
    from toy import Toy

    toy = Toy()
    for sigma in (0.5, 5.0, 100.0):
        mean, _ = toy.marginal(forward.VE, sigma)
        std = math.sqrt(toy.variance + sigma**2)
        assert float(toy.kl(forward.VE, sigma, mean, std)) / len(toy.mean) <= verdict.start_cost(forward.VE, sigma, toy.variance)
    # E ||x - mean||^2 / d = v + sigma^2 whatever the spread, so of the KL the logarithm is left
    assert verdict.start_cost(forward.VE, 2.0, 0.8) == pytest.approx(0.5 * math.log((0.8 + 4) / 4))
