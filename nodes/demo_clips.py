"""CILDemoClips: clips of the demo's world as Prepare Clips would make them, for the probe and for training."""

from comfy_api.latest import io

from .host.types import ClipVision
from .training.nodes import ClipsType


class DemoClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDemoClips",
            display_name="Demo Clips (CIL)",
            category="image-to-video motion/demo",
            description="Several clips of the demo's world, a fair draw of what the demo models were trained on: in place of Prepare Clips, to try Leakage Probe and TimeNoise Train without videos.",
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="From Load Demo Model."),
                io.Int.Input(
                    "count",
                    default=16,
                    min=1,
                    max=10000,
                    tooltip="How many clips. More: a surer verdict, longer. Each is drawn when it is needed, so many cost no memory.",
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Which clips. The same seed gives the same clips; none of them was trained on."),
            ],
            outputs=[
                ClipsType.Output(
                    display_name="clips", tooltip="The data set, for Leakage Probe and TimeNoise Train; set their motion_bucket_id to 0, each clip's own."
                )
            ],
        )

    @classmethod
    def execute(cls, clip_vision: ClipVision, count: int, seed: int) -> io.NodeOutput:
        from ..demo import clips

        return io.NodeOutput(clips.DemoClips(clip_vision, count, seed))


NODES = [DemoClips]
