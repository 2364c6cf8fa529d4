"""What the tables animate: pictures with a model that is conditioned on them, and where the truth is known, what it says of a clip.

Each source has the MODEL and VAE of the picture that was asked for last, `picture(k)` -> positive, negative,
latent, image, and `judged(samples, frames, k)` -> figures, of which `motion` and `distance` name two (None: there is no truth).
"""

import torch

from ..demo import latents, scenes
from ..demo.landscape import graph, measure, panels, simulated, trained
from ..demo.landscape import scenes as landscape
from ..nodes.demo_leak import SimulatedLeak
from . import motion_gain, sampling

SIMULATED = "simulated"  # as a table's checkpoint is called

STEADY = ("consistent motion", "flicker", "likeness", "dynamic degree")
COST = ("evaluations", "seconds")
STILL, TRAVEL, NEAREST = "still clips", "travel, pixels", "distance to the nearest true clip"


@torch.inference_mode()
def decoded(source, samples):
    """-> frames [t, H, W, 3]."""
    frames = source.vae.decode(samples).cpu()
    return frames.reshape(-1, *frames.shape[-3:])


class DemoSource(sampling.Demo):
    """A demo checkpoint and held-out scenes: the truth is known."""

    motion, distance = "speed / asked", NEAREST
    columns = (motion, STILL, distance, *STEADY, *COST)
    price = 0.1  # of distance, in units of the latents: a clip that is this much further from a true one than the plain one is broken
    scheduler = "karras"
    name = "the demo model *{}*, trained on disks that glide over a ground"

    def __init__(self, checkpoint, count, bucket):
        super().__init__(checkpoint)
        self.scenes, self.fps = sampling.held_out(count, bucket), scenes.FPS

    def __len__(self):
        return len(self.scenes)

    def picture(self, k):
        """-> positive, negative, latent, image [1, H, W, 3]. The model is that of the picture from here on."""
        scene = self.scenes[k : k + 1]
        return *self.conditioning(scene), scenes.render(scene, 1)[0].movedim(1, -1)

    def judged(self, samples, frames, k):
        speed, _, distance = sampling.judge((samples * latents.SCALE)[None], self.scenes[k : k + 1])
        return {self.motion: speed, STILL: float(speed < motion_gain.STILL), self.distance: distance}

    def median(self, k):
        """The data's median motion, as `motion` counts it. Buckets are drawn evenly."""
        return float(scenes.speed(torch.tensor(scenes.MAX_BUCKET / 2)) / scenes.speed(self.scenes.bucket[k]))

    def true_clip(self, k, draw):
        """A clip that picture k allows, frames [t, H, W, 3]; draw: another number, another clip."""
        scene = self.scenes[k : k + 1]
        return scenes.render(scene.replace(heading=float((draw * 3 + k) % scenes.HEADINGS)), scenes.FRAMES)[0].movedim(1, -1)


def tracked(frames, scene, still):
    """Figures of a clip of the landscape, frames [t, H, W, 3]. still: pixels of travel below which it stands."""
    pixels = frames.movedim(-1, 1)[None].float()
    tracks = measure.track(pixels, scene)
    return {TRAVEL: float(tracks.travel), STILL: float(tracks.travel < still), NEAREST: float(measure.nearest_clip(pixels, scene, tracks)[1])}


class LeakSource:
    """The simulated leak: a scene of the landscape a picture, and the exact denoiser of it, which copies its picture by a known amount."""

    motion, distance = TRAVEL, NEAREST
    columns = (motion, STILL, distance, *STEADY, *COST)
    price = 0.02  # as above, in RGB
    scheduler = "karras"
    name = "the *simulated leak*: the exact denoiser of one landscape a picture, 70 % of whose answer is the still picture above sigma 3"
    early = sampling.Demo.early

    def __init__(self, count, bucket, leak=0.7):
        self.count, self.fps, self.bucket, self.leak, self.loaded = count, landscape.FPS, bucket, leak, {}

    def __len__(self):
        return self.count

    def scene(self, k):
        if k not in self.loaded:
            self.loaded[k] = sampling.node(SimulatedLeak, seed=k, leak=self.leak)
        return self.loaded[k]

    def picture(self, k):
        self.model, vision, self.vae, first, *_ = self.scene(k)
        return *graph.conditioned(vision, self.vae, first, self.bucket), first

    def judged(self, samples, frames, k):
        scene = self.scene(k)[-1]
        return tracked(frames, scene, panels.STILL * float(scene.motion[0, :2].norm()) * (landscape.FRAMES - 1))

    def median(self, k):
        """The median travel of the clips that picture k allows and the model knows, pixels."""
        clips, shares = simulated.known(self.scene(k)[-1])
        travel, order = (clips.motion[:, :2].norm(dim=1) * (landscape.FRAMES - 1)).sort()
        return float(travel[(shares[order].cumsum(0) < 0.5).sum()])

    def true_clip(self, k, draw):
        allowed, shares = landscape.candidates(self.scene(k)[-1])
        chosen = torch.multinomial(shares, 1, generator=torch.Generator().manual_seed(draw))
        return landscape.render(allowed[chosen])[0].movedim(1, -1)


class TrainedSource:
    """A model trained in the landscape world, of SVD's or of Wan's kind, and held-out scenes: the amount of motion is left open."""

    motion, distance = TRAVEL, NEAREST
    columns = (motion, STILL, distance, *STEADY, *COST)
    price = 0.02  # as above, in RGB
    early = sampling.Demo.early

    def __init__(self, checkpoint, count):
        self.made = trained.of(checkpoint)
        self.model, self.vae, self.scheduler = self.made.model, self.made.vae, self.made.scheduler
        self.scenes, self.fps, self.typical = trained.held_out(count, self.made.frames), landscape.FPS, trained.typical_travel(self.made.frames)
        self.name = f"the demo model *{{}}*, of {self.made.kind} kind, trained on a balloon over hills"

    def __len__(self):
        return len(self.scenes)

    def picture(self, k):
        first = landscape.render(self.scenes[k : k + 1], 1)[0].movedim(1, -1)
        return *self.made.conditioned(first), first

    def judged(self, samples, frames, k):
        return tracked(frames, self.scenes[k : k + 1], panels.STILL * self.typical)

    def median(self, k):
        """The data's median travel, pixels."""
        return self.typical

    def true_clip(self, k, draw):
        allowed, shares = landscape.candidates(self.scenes[k : k + 1], self.made.frames)
        chosen = torch.multinomial(shares, 1, generator=torch.Generator().manual_seed(draw))
        return landscape.render(allowed[chosen], self.made.frames)[0].movedim(1, -1)


class FileSource:
    """An image-only checkpoint (SVD, SVD-XT and their tunings) and the pictures of a folder."""

    motion, distance = "consistent motion", None
    columns = (*STEADY, *COST)
    name, scheduler = "{}", "karras"

    def __init__(self, o):
        import comfy.sd

        self.o, self.fps, self.files = o, o.fps, pictures_of(o)
        self.model, _, self.vae, self.clip_vision = comfy.sd.load_checkpoint_guess_config(
            str(o.checkpoint), output_vae=True, output_clip=False, output_clipvision=True
        )
        if self.clip_vision is None:
            raise SystemExit(f"{o.checkpoint} brings no image encoder: an image-only checkpoint, of SVD's kind, is wanted")

    early = sampling.Demo.early

    def __len__(self):
        return len(self.files)

    def picture(self, k):
        from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

        o, image = self.o, picture_of(self.files[k], self.o)
        return *SVD_img2vid_Conditioning().encode(self.clip_vision, image, self.vae, o.width, o.height, o.frames, o.bucket, round(o.fps), 0.0), image

    def judged(self, samples, frames, k):
        return {}


class WanSource(FileSource):
    """An image-to-video model of Wan 2.1's kind: network, VAE and text encoder in files of their own."""

    scheduler = "simple"

    def __init__(self, o, network=None, vae=None, texts=None, vision=None):
        """texts: positive and negative CONDITIONING. What is not given is loaded."""
        self.o, self.fps, self.files = o, o.fps, pictures_of(o)
        self.model, self.vae, self.vision = network, vae, vision
        if network is None:
            import comfy.clip_vision
            import comfy.sd
            import comfy.utils

            self.model = comfy.sd.load_diffusion_model(str(o.checkpoint))
            self.vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(o.vae)))
            self.vision = comfy.clip_vision.load(str(o.clip_vision)) if o.clip_vision else None
            encoder = comfy.sd.load_clip([str(o.text_encoder)], clip_type=comfy.sd.CLIPType.WAN)
            texts = [encoder.encode_from_tokens_scheduled(encoder.tokenize(text)) for text in (o.prompt, o.negative)]
        self.texts = texts

    def picture(self, k):
        from comfy_extras.nodes_wan import WanImageToVideo

        o, image = self.o, picture_of(self.files[k], self.o)
        seen = self.vision.encode_image(image) if self.vision is not None else None
        made = WanImageToVideo.execute(*self.texts, self.vae, o.width, o.height, o.frames, 1, start_image=image, clip_vision_output=seen)
        return *made.args, image


def pictures_of(o):
    """The files in --pictures, at most --images. Ends in a sentence where there are none."""
    if o.pictures is None:
        raise SystemExit(f"{o.checkpoint} is a file: --pictures FOLDER says what to animate")
    files = sorted(p for p in o.pictures.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))[: o.images]
    if not files:
        raise SystemExit(f"there are no pictures (.png, .jpg, .webp) in {o.pictures}")
    return files


def picture_of(file, o):
    """-> IMAGE [1, o.height, o.width, 3], cut to the shape."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(file) as picture:
        return torch.from_numpy(np.asarray(ImageOps.fit(picture.convert("RGB"), (o.width, o.height))).copy()).float()[None] / 255
