"""The probe's verdict on denoisers that are exact in closed form, and on leaks of known size: `python run.py do bench.exact`.

Writes bench/results/probe_exact.md. The worlds are Gaussian videos of a rank and mixtures of a few
clips, in the forward processes of five families; each cell is 100 seeded probes. Needs no host.
"""

import argparse
import math
from pathlib import Path

import torch

from ..cil import forward, levels, verdict
from ..cil.calibration import Evidence, inner_products
from ..cil.views import WHOLE

DIM, ENERGY = 288, 0.05  # of the made videos: values, and mean square of their motion
RUNS, CLIPS, PAIRS = 100, 8, 2
RESULT = Path(__file__).parent / "results" / "probe_exact.md"


def log_even(low, high):
    return lambda f: low * (high / low) ** f


def discrete(zero_snr):
    """SD's noise levels, with SVD's successors' zero terminal SNR or without -> sigma(fraction)."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).sqrt()
    if zero_snr:
        alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
        alphas[-1] = 2.2e-4
    table = (1 - alphas**2).sqrt() / alphas
    return lambda f: forward.table_sigma(table, max(f, 1e-3))


def shifted(shift):
    return lambda f: shift * f / (1 + (shift - 1) * f)


MODELS = {
    "EDM": (forward.VE, log_even(0.002, 700)),
    "eps": (forward.VP, discrete(False)),
    "zero-SNR v": (forward.VP, discrete(True)),
    "flow shift 1": (forward.FLOW, shifted(1)),
    "flow shift 8": (forward.FLOW, shifted(8)),
}


# ---- worlds, each with its exact denoiser ---------------------------------------------


class Gaussian:
    """Motions N(mean, covariance of a rank), and their exact denoiser. share: of the energy that lies in the mean."""

    def __init__(self, rank, share=0.0, energy=ENERGY, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.axes = torch.linalg.qr(torch.randn(DIM, DIM, generator=g))[0][:, :rank]
        falling = 1 / torch.arange(1, rank + 1).float()
        self.spread = falling * (1 - share) * energy * DIM / falling.sum()
        self.mean = torch.randn(DIM, generator=g)
        self.mean *= math.sqrt(share * energy * DIM) / self.mean.norm()

    def sample(self, shape, g):
        return self.mean + (torch.randn(*shape, len(self.spread), generator=g) * self.spread.sqrt()) @ self.axes.T

    def denoise(self, x, signal, noise):
        shrink = signal * self.spread / (signal**2 * self.spread + noise**2)
        return self.mean + ((x - signal * self.mean) @ self.axes * shrink) @ self.axes.T


class Mixture:
    """One of a few motions, and the exact denoiser of that."""

    def __init__(self, count, seed=0):
        self.motions = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)) * ENERGY**0.5

    def sample(self, shape, g):
        return self.motions[torch.randint(len(self.motions), shape, generator=g)]

    def denoise(self, x, signal, noise):
        gap = (x @ self.motions.T) * signal - signal**2 * self.motions.square().sum(1) / 2
        return torch.softmax(gap / noise**2, -1) @ self.motions


class Told(Gaussian):
    """Motions whose amount is told: from hardly any to much. Its picture is 0 and its amount goes with the clip."""

    AMOUNTS = torch.tensor([0.05, 0.3, 0.6, 1.0])

    def sample(self, shape, g):
        self.amount = self.AMOUNTS[torch.randint(4, shape, generator=g)][..., None]
        return self.amount * super().sample(shape, g)

    def denoise(self, x, signal, noise):
        return self.amount * super().denoise(x / self.amount, signal, noise / self.amount)


WORLDS = (
    {f"rank {r}": Gaussian(r) for r in (1, 5, 20, 80, DIM)}
    | {"rank 5, moved mean": Gaussian(5, 0.3)}
    | {"told amounts": Told(20, 0.3)}
    | {f"{n} clips": Mixture(n) for n in (2, 10, 100)}
)
FAIR = Gaussian(20, 0.2)  # for made leaks


def fading(edge, size=1.0):
    """A leak that is half of `size` at the edge; from nothing to all of it over a decade."""
    return lambda sigma: size * min(1.0, max(0.0, 0.5 + math.log10(sigma / edge)))


# ---- many probes at once --------------------------------------------------------------


def probed(world, model, leak=lambda sigma: 0.0, seed=0, runs=RUNS, clips=CLIPS, pairs=PAIRS, count=12, error=0.0):
    """-> a list of Evidence, one a run. The still picture is 0. error: of a model's own, a standard deviation."""
    process, sigma_of = MODELS[model]
    sigmas = [s for _, s in levels.evenly(process, sigma_of, count, 0.0, 1.0)]
    g = torch.Generator().manual_seed(seed)
    x0 = world.sample((runs, clips), g)
    products = torch.zeros(len(sigmas), runs, clips, 5, dtype=torch.float64)
    for k, sigma in enumerate(sigmas):
        signal, noise = float(process.signal(sigma)), float(process.noise(sigma))
        for _ in range(pairs):
            eps = torch.randn(x0.shape, generator=g)
            for sign in (1, -1):
                x = signal * x0 + sign * noise * eps
                predicted = (1 - leak(sigma)) * world.denoise(x, signal, noise)
                predicted = predicted + error * torch.randn(x0.shape, generator=g) if error else predicted
                products[k] += inner_products(x0, predicted, x).double() / (2 * pairs)
    moments = [(0.0, ENERGY * DIM, DIM)] * clips
    return [Evidence(process, sigmas, 2 * pairs, {WHOLE: list(products[:, r].unbind(1))}, {WHOLE: DIM}, moments) for r in range(runs)]


def within(curve):
    """At which levels the band holds 0; a band that is not there excludes nothing."""
    return ~((curve.low > 0) | (curve.high < 0))


# ---- the tables -----------------------------------------------------------------------

LEAKS = {  # name: (share of the motion that is missing at a noise over signal, that size or None, the edge)
    "0.2 at all levels": (lambda r: 0.2, 0.2, 0),
    "0.5 at all levels": (lambda r: 0.5, 0.5, 0),
    **{f"1 above {e}": (lambda r, e=e: float(r > e), 1.0, e) for e in (20, 5, 2)},
    **{f"to 1, over a decade about {e}": (fading(e), None, e) for e in (20, 5, 2)},
}
MANY = (8, 32)  # clips
FACTOR = 1.5  # to which an edge is to be found


def noise_to_signal(process, sigma):
    signal = float(process.signal(sigma))
    return float(process.noise(sigma)) / signal if signal else math.inf


def exact_cell(world, model, runs):
    """-> starts suggested, the fewest runs at any level whose band holds 0, those in which all bands do, and those that cannot be judged."""
    evidence = probed(world, model, runs=runs)
    found = [verdict.verdict(e) for e in evidence]
    held = torch.stack([within(e.curve(WHOLE)) for e in evidence])  # [runs, levels]
    return sum(v.start is not None for v in found), int(held.sum(0).min()), int(held.all(1).sum()), sum(not v.judged for v in found)


def leak_cell(model, leak, size, edge, clips, runs):
    """-> of 100 probes: a leak proved; its size to 0.05; its edge to FACTOR, and the suggested start there or at the least one."""
    process, sigma_of = MODELS[model]
    if edge * FACTOR > noise_to_signal(process, sigma_of(1.0)):
        return ""
    evidence = probed(FAIR, model, lambda sigma: leak(noise_to_signal(process, sigma)), runs=runs, clips=clips)
    good = [0, 0, 0]
    for e in evidence:
        v = verdict.verdict(e)
        if v.edge is None:
            continue
        at = noise_to_signal(process, v.edge) if v.edge else 0
        right = edge / FACTOR <= at <= edge * FACTOR and v.start == max(v.edge, verdict.least_start(e, v.edge))
        good = [a + b for a, b in zip(good, (1, size is not None and abs(v.leakage - size) < 0.05, right))]
    counts = [round(100 * n / runs) for n in good]
    return " / ".join(str(n) for n in (counts if size is not None else counts[::2]))


def table(first, columns, rows):
    return [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)]


def write(exact, made, runs):
    """The rows so far -> RESULT."""
    lines = [
        "# The probe on exact denoisers and on leaks of known size",
        "",
        f"`python run.py do bench.exact`: {runs} seeded probes a cell, 12 levels, {PAIRS} antithetic pairs; videos of {DIM} values.",
        "",
        f"## Exact denoisers, {CLIPS} clips",
        "",
        f'Of {runs} probes: how many suggest a start / in how many the band holds 0, at the level where fewest do / in how many all twelve bands do / how many answer "cannot be judged". '
        "The band is what the verdict goes by: Student's t over the clips, 3.0 standard errors of 8 clips to each side. (Two would leave out the truth at 9 levels in 100, by the same t, and of twelve levels at some more often yet. A start is suggested only where two neighbours prove a leak.)",
        "",
        *table("world", MODELS, exact),
    ]
    if made:
        lines += [
            "",
            "## Made leaks, on Gaussian video of rank 20 with a fifth of its energy in the mean",
            "",
            f"The levels are noise over signal, which is SVD's sigma. Of 100 probes: leak proved / its size to within 0.05 (leaks of one size) / its edge to within a factor of {FACTOR} (none, for a leak at all levels) and the suggested start there, "
            "or at the lowest start that the verdict allows where that is higher. Empty: this family has no such level.",
            "",
            *table("leak", MODELS, made),
        ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="seeded probes a cell")
    o = parser.parse_args(arguments)
    exact, made = [], []
    for name, world in WORLDS.items():
        exact.append((name, [" / ".join(map(str, exact_cell(world, model, o.runs))) for model in MODELS]))
        print(*exact[-1], flush=True)
        write(exact, made, o.runs)
    for name, (leak, size, edge) in LEAKS.items():
        for clips in MANY:
            made.append((f"{name}, {clips} clips", [leak_cell(model, leak, size, edge, clips, o.runs) for model in MODELS]))
            print(*made[-1], flush=True)
            write(exact, made, o.runs)
