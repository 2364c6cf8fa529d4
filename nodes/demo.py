"""The demo: two small SVDs that differ in their training noise, and clips with a known truth."""

from comfy_api.latest import io

from ..cil.randomness import seeded
from ..demo import scenes


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILLoadDemoModel",
            display_name="Load Demo Model (CIL)",
            category="image-to-video motion/demo",
            description="A tiny image-to-video model of SVD's architecture, trained on moving disks: to try the nodes in seconds, without a download. It is a demo and knows nothing else.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=["leaking", "healthy"],
                    default="leaking",
                    tooltip="leaking: trained with the noise shifted up, which makes it read a little less motion out of the noisy video than healthy does. healthy: the same recipe with the training noise where motion is decided. Figures: demo/README.md.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The image-to-video model, for any sampler."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="Its image encoder, for SVD_img2vid_Conditioning."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE."),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str) -> io.NodeOutput:
        from ..demo import model

        return io.NodeOutput(*model.load(checkpoint))


class DemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDemoScene",
            display_name="Demo Scene (CIL)",
            category="image-to-video motion/demo",
            description="A clip of the demo's world: its first frame, to animate, and how it truly goes on.",
            inputs=[
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=True, tooltip="Which scene. The same seed is the same scene."),
                io.Int.Input(
                    "motion_bucket_id",
                    default=200,
                    min=0,
                    max=scenes.MAX_BUCKET,
                    tooltip=f"How fast the disk moves in the true clip, 0 = still, 255 = {scenes.MAX_SPEED:g} pixels a frame. Give the conditioning the same number.",
                ),
                io.Int.Input("frames", default=scenes.FRAMES, min=1, max=64, tooltip="Frames of the true clip. The demo model was trained on 12."),
            ],
            outputs=[
                io.Image.Output(display_name="first_frame", tooltip="The picture to animate, 128 x 128."),
                io.Image.Output(display_name="true_clip", tooltip="The clip from which it comes."),
                io.Image.Output(
                    display_name="other_clip",
                    tooltip="Just as true: the same first frame, but the disk goes off the other way. A second clip for Leakage Probe.",
                ),
            ],
        )

    @classmethod
    def execute(cls, seed: int, motion_bucket_id: int, frames: int) -> io.NodeOutput:
        scene = scenes.sample(1, seeded(seed)).replace(bucket=float(motion_bucket_id))
        other = scene.replace(heading=(scene.heading + scenes.HEADINGS // 2) % scenes.HEADINGS)
        clip, other = (scenes.render(s, frames)[0].movedim(1, -1) for s in (scene, other))
        return io.NodeOutput(clip[:1], clip, other)


NODES = [LoadDemoModel, DemoScene]
