"""CILMotionBucket: another amount of motion told to a model that is told one, as a patch on the MODEL."""

import comfy.patcher_extension
import torch
from comfy_api.latest import io

from .host.models import cloned, model_family
from .host.notes import say, unchanged
from .host.types import Conditioning, Executor, Model

WRAPPER = "cil_motion_bucket"
TOLD = "motion_bucket_id"  # the host's entry of a conditioning
AS_IT_IS = 0  # the widget's neutral value
USUAL, LARGEST = 127, 1023  # the host's default and largest
REFUSED = "this model is told no motion bucket: among the host's models Stable Video Diffusion alone is"


def told(model: Model, positive: Conditioning) -> int:
    """The motion bucket that a MODEL is told: by a Motion Bucket on it, or else by the conditioning; the host's default where neither says one."""
    for wrapper in model.get_wrappers(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER):
        return wrapper.bucket
    return next((int(entry[1][TOLD]) for entry in positive if TOLD in entry[1]), USUAL)


class Told:
    """Wraps the host's OUTER_SAMPLE: every conditioning of the run tells this bucket. The guider's own lists are left as they came."""

    def __init__(self, bucket: int):
        self.bucket = bucket

    def __call__(self, executor: Executor, *args, **kwargs) -> torch.Tensor:
        guider = executor.class_obj
        before = guider.conds
        guider.conds = {name: [{**cond, TOLD: self.bucket} for cond in conds] for name, conds in before.items()}
        try:
            return executor(*args, **kwargs)
        finally:
            guider.conds = before


class CILMotionBucket(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILMotionBucket",
            display_name="More Motion: Motion Bucket (CIL)",
            category="image-to-video motion",
            description="The amount of motion that Stable Video Diffusion is told, set on the MODEL, whatever the conditioning says: what Motion Dial turns first for such models. Other models are told none, and an error says so.",
            inputs=[
                io.Model.Input("model", tooltip="The SVD model, anywhere between its loader and the sampler."),
                io.Int.Input(
                    "motion_bucket_id",
                    default=AS_IT_IS,
                    min=AS_IT_IS,
                    max=LARGEST,
                    tooltip="The motion bucket that the model is told instead of the conditioning's. 0 = the conditioning's own, nothing is changed. 127 is usual, 255 the most of its training; lower is calmer. A model that leaks makes less of it than it is told.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model that is told this bucket; with 0 the model as it came.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Model, motion_bucket_id: int) -> io.NodeOutput:
        if motion_bucket_id == AS_IT_IS:
            return unchanged(cls.hidden.unique_id, "the setting is neutral", model)
        if not model_family(model).bucket:
            raise ValueError(f"{REFUSED}. Take Motion Gain or Motion Dial for this one")
        patched = cloned(model)
        patched.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER)  # the last such node counts
        patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER, Told(motion_bucket_id))
        say(cls.hidden.unique_id, f"the model is told motion bucket {motion_bucket_id}")
        return io.NodeOutput(patched)


NODES = [CILMotionBucket]
