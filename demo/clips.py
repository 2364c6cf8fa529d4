"""The demo's world as a prepared set of clips, for the probe and for training."""

import torch

from ..cil.training import Clip
from . import latents, scenes


class DemoClips:
    """A sequence of Clip like cil/prepared's ClipSet: each scene is drawn when it is asked for.

    A fair draw of what the demo models were trained on; motion: the bucket that each is told.
    """

    skipped, settings = (), {"fps": scenes.FPS}

    def __init__(self, clip_vision, n, seed):
        self.clip_vision = clip_vision
        self.scenes = scenes.sample(n, torch.Generator().manual_seed(3_000_000_019 + seed))
        self.names = [f"{seed}-{i}" for i in range(n)]
        self.motion = self.scenes.bucket.tolist()
        self.shape = tuple(self[0].latents.shape)

    def __len__(self):
        return len(self.names)

    @torch.no_grad()
    def __getitem__(self, i):
        pixels = scenes.render(self.scenes[i : i + 1])[0]
        code = latents.encode(pixels)
        embed = self.clip_vision.encode_image(pixels[:1].movedim(1, -1)).image_embeds.cpu()
        return Clip(code.movedim(0, 1), code[0] / latents.SCALE, embed, self.motion[i])
