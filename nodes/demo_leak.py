"""The simulated leak: a model that copies its picture by a known amount, and its clips beside the truth."""

import torch
from comfy_api.latest import io

from ..cil.randomness import seeded
from ..demo.landscape import scenes
from .host.notes import say

SceneType = io.Custom("CIL_DEMO_SCENE")
CATEGORY = "image-to-video motion/demo"
TRUE_SPEED = 2.4  # pixels a frame, of the true clip that is shown: a fifth of the frame in a clip


class SimulatedLeak(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILSimulatedLeak",
            display_name="Simulated Leak (CIL)",
            category=CATEGORY,
            description="What a leak is, without a download: the ideal image-to-video model of one small scene, of whose answer a share is replaced by the still picture. It needs no training and no graphics card, and the cures act on it as on any model.",
            inputs=[
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=True, tooltip="Which scene: a balloon or a kite over hills. The same seed is the same scene."),
                io.Float.Input("leak", default=0.7, min=0.0, max=0.95, step=0.05, tooltip="The share of the answer that is the still picture: 0 = an ideal model, 0.7 = it stands still. Motion Gain undoes it exactly at 1 / (1 - leak)."),
                io.Float.Input("above", default=3.0, min=0.0, max=1000.0, step=0.5, tooltip="The noise level, in sigma, above which it leaks. An early start from here leaves the leak out."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for any sampler: 12 frames of 128 x 128 of this scene, nothing else."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="An image encoder, for SVD_img2vid_Conditioning."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE."),
                io.Image.Output(display_name="first_frame", tooltip="The picture to animate, 128 x 128."),
                io.Image.Output(display_name="true_clip", tooltip="One of the clips that may follow from it: many ways and speeds are as true."),
                SceneType.Output(display_name="scene", tooltip="What is drawn here, for Demo Compare."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, seed: int, leak: float, above: float) -> io.NodeOutput:
        from ..demo.landscape import simulated

        scene = scenes.gliding(scenes.sample(1, seeded(seed)), TRUE_SPEED)
        clip = scenes.render(scene)[0].movedim(1, -1)  # [T, H, W, 3]
        return io.NodeOutput(*simulated.load(scene, leak, above), clip[:1], clip, scene)


class DemoCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDemoCompare",
            display_name="Demo Compare (CIL)",
            category=CATEGORY,
            description="Two or three clips of a scene beside a true one: a ring where the subject began, a trail behind it, and in words how far it gets. The subject is found by its looks, which flicker does not fool.",
            inputs=[
                SceneType.Input("scene", tooltip="From Simulated Leak, or from Demo Scene with world landscape: the scene whose first frame was animated."),
                io.Image.Input("before", tooltip="Frames of the first clip, 128 x 128, as the model of the scene makes them."),
                io.Image.Input("after", tooltip="Frames of the second clip."),
                io.String.Input("before_caption", default="plain", tooltip="Name of the first clip, under it."),
                io.String.Input("after_caption", default="with the node", tooltip="Name of the second clip."),
                io.Image.Input("third", optional=True, tooltip="Frames of a third clip."),
                io.String.Input("third_caption", default="with another", optional=True, tooltip="Name of the third clip."),
            ],
            outputs=[
                io.Image.Output(display_name="clip", tooltip="The true clip and the others side by side, frame by frame."),
                io.Image.Output(display_name="strips", tooltip="Six frames of each in rows, one picture."),
                io.Float.Output(display_name="before_travel", tooltip="How far the subject of the first clip gets, pixels of 128."),
                io.Float.Output(display_name="after_travel", tooltip="How far that of the second gets."),
                io.Float.Output(display_name="third_travel", tooltip="How far that of the third gets; 0 without one."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        scene: scenes.Scenes,
        before: torch.Tensor,
        after: torch.Tensor,
        before_caption: str,
        after_caption: str,
        third: torch.Tensor | None = None,
        third_caption: str = "with another",
    ) -> io.NodeOutput:
        from ..demo.landscape import panels
        from . import pictures

        given = [("before", before, before_caption), ("after", after, after_caption)]
        given += [("third", third, third_caption)] if third is not None else []
        size = scenes.SIZE
        for name, clip, caption in given:
            if tuple(clip.shape[1:3]) != (size, size):
                raise ValueError(
                    f"{name} has frames of {clip.shape[2]} x {clip.shape[1]}, but this world has {size} x {size}: connect clips of the scene's own model"
                )
            if [c for *_, c in given].count(caption) > 1:
                raise ValueError(f"two clips are called '{caption}': give each its own name, so that they can be told apart")
        clips, captions, tracks = panels.panels(scene, {caption: clip for _, clip, caption in given})
        travel = [float(found.travel) for found in tracks]
        say(cls.hidden.unique_id, f"{'; '.join(captions[1:])} (pixels: {', '.join(f'{t:.0f}' for t in travel[1:])}; the truth {travel[0]:.0f})")
        moved = [*travel[1:], 0.0][:3]
        return io.NodeOutput(pictures.even(pictures.side_by_side(clips, captions)), pictures.film_strips(clips, captions), *moved)


NODES = [SimulatedLeak, DemoCompare]
