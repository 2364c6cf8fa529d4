"""The demo's worlds as prepared sets of clips, for the probe and for training."""

import torch

from ..cil.training import Clip
from . import latents, scenes


class DemoClips:
    """A sequence of Clip like cil/prepared's ClipSet: each scene is drawn when it is asked for.

    drawn: the Scenes of the world, a clip each; seed: names them; motion: the bucket that each is told.
    """

    skipped, settings = (), {"fps": scenes.FPS}
    render, encode = staticmethod(scenes.render), staticmethod(latents.encode)  # of the world

    def __init__(self, clip_vision, drawn, seed):
        self.clip_vision, self.scenes = clip_vision, drawn
        self.names = [f"{seed}-{i}" for i in range(len(drawn))]
        self.motion = drawn.bucket.tolist()
        self.shape = tuple(self[0].latents.shape)

    def __len__(self):
        return len(self.names)

    @torch.no_grad()
    def __getitem__(self, i):
        pixels = self.render(self.scenes[i : i + 1])[0]
        code = self.encode(pixels)
        embed = self.clip_vision.encode_image(pixels[:1].movedim(1, -1)).image_embeds.cpu()
        return Clip(code.movedim(0, 1), code[0] / latents.SCALE, embed, self.motion[i])


def fair(clip_vision, n, seed):
    """n clips of the demo models' world, of which none was trained on."""
    return DemoClips(clip_vision, scenes.sample(n, torch.Generator().manual_seed(3_000_000_019 + seed)), seed)
