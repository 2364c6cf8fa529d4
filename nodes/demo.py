"""The demo: small models of two kinds, and clips with a known truth."""

from comfy_api.latest import io

from ..cil.randomness import seeded
from ..demo import scenes
from ..demo.landscape import scenes as landscape
from .demo_leak import SceneType

DISKS, LANDSCAPE = "disks", "landscape"
SVD = ("svd_leaking", "svd_healthy")  # in demo/landscape
WAN = ("wan_leaking", "wan_healthy")  # in demo/landscape/wan


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILLoadDemoModel",
            display_name="Load Demo Model (CIL)",
            category="image-to-video motion/demo",
            description="A tiny image-to-video model of SVD's or of Wan's architecture, trained on moving disks or on a balloon over hills: to try the nodes in seconds, without a download. It is a demo and knows nothing else.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=["leaking", "healthy", *WAN, *SVD],
                    default="leaking",
                    tooltip="leaking: trained with the noise shifted up, which makes it read a little less motion out of the noisy video than healthy does. healthy: the same recipe with the training noise where motion is decided. wan_leaking: Wan's kind, in the landscape world, trained a short while, as many models are. wan_healthy: the same training, gone on with. svd_leaking, svd_healthy: the same of SVD's kind, in the landscape world too. Figures: demo/README.md.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The image-to-video model, for any sampler."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="Its image encoder, for SVD_img2vid_Conditioning. Wan's kind needs none."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE."),
                io.Conditioning.Output(
                    display_name="text", tooltip="The one text that Wan's kind knows: positive and negative of WanImageToVideo. SVD's kind needs none."
                ),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        from ..demo import model
        from ..demo.landscape import svd
        from ..demo.landscape.wan import model as wan

        if checkpoint in WAN:
            patcher, vae = wan.load(checkpoint)
            return io.NodeOutput(patcher, model.own_clip_vision(), vae, wan.text())
        return io.NodeOutput(*(svd if checkpoint in SVD else model).load(checkpoint), wan.text())


class DemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDemoScene",
            display_name="Demo Scene (CIL)",
            category="image-to-video motion/demo",
            description="A clip of one of the demo's worlds: its first frame, to animate, and how it truly goes on.",
            inputs=[
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=True, tooltip="Which scene. The same seed is the same scene."),
                io.Int.Input(
                    "motion_bucket_id",
                    default=200,
                    min=0,
                    max=scenes.MAX_BUCKET,
                    tooltip=f"How fast the subject moves in the true clip, 0 = still, 255 = {scenes.MAX_SPEED:g} pixels a frame (landscape: {landscape.pixels_of(landscape.MAX_BUCKET):.1f}). Give the conditioning of SVD's kind the same number; Wan's is not told.",
                ),
                io.Int.Input(
                    "frames",
                    default=scenes.FRAMES,
                    min=1,
                    max=64,
                    tooltip="Frames of the true clip. The demo models were trained on 12, those of Wan's kind on 13.",
                ),
                io.Combo.Input(
                    "world",
                    options=[DISKS, LANDSCAPE],
                    default=DISKS,
                    optional=True,
                    tooltip="disks: a disk over a patterned ground, the world of leaking and healthy. landscape: a red balloon over hills, that of wan_leaking, wan_healthy, svd_leaking and svd_healthy.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="first_frame", tooltip="The picture to animate, 128 x 128."),
                io.Image.Output(display_name="true_clip", tooltip="The clip from which it comes."),
                io.Image.Output(
                    display_name="other_clip",
                    tooltip="Just as true: the same first frame, but the subject goes off the other way. A second clip for Leakage Probe.",
                ),
                SceneType.Output(display_name="scene", tooltip="What the true clip is drawn from. Demo Compare takes that of a landscape."),
            ],
        )

    @classmethod
    def execute(cls, seed: int, motion_bucket_id: int, frames: int, world: str = DISKS) -> io.NodeOutput:
        g = seeded(seed)
        if world == LANDSCAPE:
            drawn, drawn_by = landscape.sample(1, g, alike=True), landscape
            ways = [landscape.gliding(drawn, landscape.pixels_of(motion_bucket_id), other, frames) for other in (False, True)]
        else:
            true, drawn_by = scenes.sample(1, g).replace(bucket=float(motion_bucket_id)), scenes
            ways = [true, true.replace(heading=(true.heading + scenes.HEADINGS // 2) % scenes.HEADINGS)]
        clip, other = (drawn_by.render(way, frames)[0].movedim(1, -1) for way in ways)
        return io.NodeOutput(clip[:1], clip, other, ways[0])


NODES = [LoadDemoModel, DemoScene]
