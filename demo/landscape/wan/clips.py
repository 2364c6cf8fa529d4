"""The landscape's clips as a prepared set for Wan's kind."""

import torch

from ....cil.training import Clip
from .. import scenes
from . import latents, model

FRAMES = 13


class WanClips:
    """A sequence of Clip like cil/prepared's ClipSet: each scene, and then each mirrored. What was drawn once is kept, 33 KB a clip."""

    skipped, settings = (), {"fps": scenes.FPS, "kind": "Wan I2V"}

    def __init__(self, drawn, seed):
        self.scenes, self.kept = drawn, {}
        self.names = [f"{seed}-{i}" for i in range(2 * len(drawn))]
        self.motion = [0.0] * len(self.names)
        self.text = model.text()[0][0][0]
        self.gray = gray()
        self.shape = tuple(self[0].latents.shape)

    def __len__(self):
        return len(self.names)

    @torch.no_grad()
    def __getitem__(self, i):
        turned, k = divmod(i, len(self.scenes))
        if k not in self.kept:
            self.kept[k] = latents.cells(scenes.render(self.scenes[k : k + 1], FRAMES)).half()
        cells = self.kept[k].float()
        code = latents.encode_cells(mirrored(cells) if turned else cells)[0]
        return Clip(code, torch.cat([code[:, :1], self.gray], 1), None, text=self.text)


def mirrored(cells):
    """Left and right changed over: luminance then rises the other way."""
    return cells.flip(-1) * cells.new_tensor([1.0, 1, 1, -1, 1])[:, None, None]


def gray():
    """The code of the gray pictures that WanImageToVideo puts after the image: [16, t - 1, h, w]."""
    level = torch.full((1, FRAMES, 3, scenes.SIZE, scenes.SIZE), 0.5)
    return latents.encode(level)[0, :, 1:]


def fair(n, seed):
    """n clips of the world of Wan's kind, of which none was trained on."""
    return WanClips(drawn(n, torch.Generator().manual_seed(scenes.SEEN_BY_NO_TRAINING + seed)), seed)


def drawn(n, generator, alike=True):
    """n scenes whose subject stays in the frame for a clip, the amount of motion told by nobody. generator: a CPU torch.Generator; alike: see scenes.sample."""
    return scenes.sample(n, generator, told=0.0, frames=FRAMES, alike=alike)
