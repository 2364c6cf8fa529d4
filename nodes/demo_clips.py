"""CILDemoClips: clips of the demo's worlds as Prepare Clips would make them, for the probe and for training."""

from comfy_api.latest import io

from ..cil.randomness import seeded
from ..demo.landscape import scenes
from .demo_leak import SceneType
from .host.types import ClipVision
from .training.nodes import ClipsType

SVD, WAN, LANDSCAPE = "SVD", "Wan", "SVD, landscape"


class DemoClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDemoClips",
            display_name="Demo Clips (CIL)",
            category="image-to-video motion/demo",
            description="Several clips of the demo's world, a fair draw of what the demo models were trained on, or of the scene of a Simulated Leak: in place of Prepare Clips, to try Leakage Probe and TimeNoise Train without videos.",
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="From Load Demo Model or Simulated Leak."),
                io.Int.Input(
                    "count",
                    default=16,
                    min=1,
                    max=10000,
                    tooltip="How many clips. More: a surer verdict, longer. Each is drawn when it is needed, so many cost no memory.",
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Which clips. The same seed gives the same clips; none of them was trained on."),
                SceneType.Input(
                    "scene",
                    optional=True,
                    tooltip="From Simulated Leak, to probe its model: all clips begin with this scene's picture and go the ways that the model knows. Unconnected: clips for Load Demo Model.",
                ),
                io.Combo.Input(
                    "model_kind",
                    options=[SVD, WAN, LANDSCAPE],
                    default=SVD,
                    optional=True,
                    tooltip="For which of Load Demo Model's: SVD for leaking and healthy, Wan for wan_leaking and wan_healthy, whose clips have 13 frames and no image embedding; SVD, landscape for svd_leaking and svd_healthy. Not used while a scene is connected.",
                ),
            ],
            outputs=[
                ClipsType.Output(
                    display_name="clips", tooltip="The data set, for Leakage Probe and TimeNoise Train; set their motion_bucket_id to 0, each clip's own."
                )
            ],
        )

    @classmethod
    def execute(cls, clip_vision: ClipVision, count: int, seed: int, scene: scenes.Scenes | None = None, model_kind: str = SVD) -> io.NodeOutput:
        from ..demo import clips
        from ..demo.landscape import clips as landscape
        from ..demo.landscape.wan import clips as wan

        if scene is None:
            if model_kind == WAN:
                return io.NodeOutput(wan.fair(count, seed))
            return io.NodeOutput((landscape.of_training if model_kind == LANDSCAPE else clips.fair)(clip_vision, count, seed))
        drawn = landscape.fair(scene, count, seeded(seed))
        return io.NodeOutput(landscape.LandscapeClips(clip_vision, drawn, seed))


NODES = [DemoClips]
