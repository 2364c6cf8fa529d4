"""What a demo model does at a moment of its training: how much it moves, how clean it is, how much it leaks.

Four clips of each of sixteen held-out pictures, amount left open, by Euler on Karras' steps, in
the training's own process. The benches say it again through the host's samplers.
"""

import torch

from . import latents, measure, scenes

PICTURES, SEEDS, STEPS = 16, 4, 18
LEVELS = (300.0, 100.0, 30.0, 10.0, 5.0, 2.0)
WAYS = {"plain": (700.0, 1.0, 0.0), "gain": (700.0, 1.7, 5.0), "start 15": (15.0, 1.0, 0.0), "start 8": (8.0, 1.0, 0.0)}  # start, gain, its end


def held_out(n):
    """n scenes that no training or moments run has drawn, the amount left open."""
    return scenes.sample(n, torch.Generator().manual_seed(2_000_000_011), told=0.0)


def typical_travel():
    """The median way of a subject in the data, pixels."""
    some = scenes.sample(4096, torch.Generator().manual_seed(2_000_000_033))
    places = scenes.path(some)
    return float((places[:, -1] - places[:, 0]).norm(dim=-1).median())


def karras(start, steps, rho=7.0, low=0.002):
    ramp = torch.linspace(0, 1, steps)
    return torch.cat([(start ** (1 / rho) + ramp * (low ** (1 / rho) - start ** (1 / rho))) ** rho, torch.zeros(1)])


class Watch:
    def __init__(self, condition, device):
        self.condition, self.device = condition, device
        self.scenes = held_out(PICTURES).to(device)
        self.typical = typical_travel()
        self.still = latents.encode(scenes.render(self.scenes, 1)).float()  # [n, 1, 4, h, w]
        self.clips = held_out(4 * PICTURES).to(device)

    def conditions(self, scene):
        first = scenes.render(scene, 1)[:, 0]
        ones = torch.ones(len(scene), device=self.device)
        return self.condition(first, latents.encode(first).float(), scene.bucket, ones, scenes.FRAMES)

    def sample(self, denoise, start, gain, end):
        """Codes of PICTURES x SEEDS clips. The start is Analytic-Init for a code of mean 0 and variance 1; gain: cil/motion_gain.py."""
        many = self.scenes[torch.arange(PICTURES).repeat_interleave(SEEDS).to(self.device)]
        conds = self.conditions(many)
        noise = torch.randn(len(many), scenes.FRAMES, *self.still.shape[2:], generator=torch.Generator().manual_seed(17)).to(self.device)
        sigmas = karras(start, STEPS)
        x = noise * (start**2 + 1) ** 0.5
        for now, then in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
            predicted = denoise(x, torch.full((len(many),), now, device=self.device), *conds)
            if now > end:
                predicted = predicted[:, :1] + gain * (predicted - predicted[:, :1])
            x = predicted + (then / now) * (x - predicted)
        return x, many

    def leakage(self, denoise):
        """1 - E|D - y|^2 / E<X_0 - y, D - y> at LEVELS, y the still clip of the picture (cil/calibration.py)."""
        x0 = latents.encode(scenes.render(self.clips)).float()
        conds, y = self.conditions(self.clips), x0[:, :1]
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(19)).to(self.device)
        found = []
        for sigma in LEVELS:
            gone = denoise(x0 + sigma * noise, torch.full((len(x0),), sigma, device=self.device), *conds) - y
            found.append(round(float(1 - gone.square().sum() / ((x0 - y) * gone).sum()), 3))
        return found

    @torch.no_grad()
    def __call__(self, denoise, pictures=None):
        """denoise(x, sigma, *conds) -> a row for the log; pictures: a dict that takes frames 0, 4, 8 and 11 of some clips."""
        row = {"leakage": self.leakage(denoise)}
        for name, (start, gain, end) in WAYS.items():
            code, many = self.sample(denoise, start, gain, end)
            pixels = torch.cat([latents.decode(part).float() for part in code.split(16)])
            tracks = measure.track(pixels, many)
            travel = tracks.travel / self.typical
            row[name] = {
                "travel": round(float(travel.median()), 3),
                "still": round(float((travel < 0.25).float().mean()), 3),
                "error": round(float(tracks.errors.mean()), 4),
                "lost": round(float(tracks.lost.mean()), 3),
            }
            if pictures is not None:
                pictures[name] = pixels[::SEEDS][:8, [0, 4, 8, 11]].clamp(0, 1).cpu()
        return row
