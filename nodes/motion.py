"""Measuring and showing motion: CILMotionScore, CILCompareClips."""

import json

import comfy.model_management
import folder_paths
from comfy_api.latest import io, ui

from ..cil import flow, motion
from . import pictures
from .host.notes import say

CATEGORY = "image-to-video motion/measure"
FLOW_FOLDER = "cil_flow"
RAFT_MEMORY = 2**31  # bytes that a pair at 800 x 450 takes at the most: correlation volume and encoders; an estimate
DIS, RAFT_LARGE, RAFT_SMALL = "DIS (OpenCV)", "RAFT large (torchvision)", "RAFT small (torchvision)"


def flow_input():
    """The widget by which every node of the pack chooses an optical flow."""
    options = [DIS, RAFT_LARGE, RAFT_SMALL, *folder_paths.get_filename_list(FLOW_FOLDER)]
    tooltip = "Which optical flow measures. DIS: quick on a CPU, no download (default). RAFT: the paper's, for a GPU; torchvision fetches its weights once, or choose a RAFT file from models/cil_flow. Scores of different flows are not comparable."
    return io.Combo.Input("flow", options=options, default=DIS, tooltip=tooltip)


def flow_backend(name, node_id=None):
    """The function of cil/flow.py for a choice of `flow_input`."""
    if name == DIS:
        return flow.dis()
    device = comfy.model_management.get_torch_device()
    if name in (RAFT_LARGE, RAFT_SMALL):
        say(node_id, "RAFT: torchvision fetches its weights if they are not there yet")
        engine = flow.raft("large" if name == RAFT_LARGE else "small", device=device)
    else:
        engine = flow.raft(weights=folder_paths.get_full_path_or_raise(FLOW_FOLDER, name), device=device)

    def making_room(a, b):
        """The host puts models that it holds out of the way, as for its own; nothing happens where there is room."""
        comfy.model_management.free_memory(RAFT_MEMORY, device)
        return engine(a, b)

    return making_room


class MotionScore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CILMotionScore",
            display_name="Motion Score (CIL)",
            category=CATEGORY,
            description="How much a clip moves: SVD's motion score (the mean length of the optical flow at 800 x 450, added up over neighbouring frames), the camera's and the subject's share of it, and PIA's score.",
            inputs=[
                io.Image.Input("frames", tooltip="All the frames of one clip, at least two."),
                flow_input(),
                io.Float.Input(
                    "requested",
                    default=0.0,
                    min=0.0,
                    max=100000.0,
                    step=0.1,
                    tooltip="A motion score you wanted, to get the error |score - requested|. 0 = none, changes nothing.",
                ),
                io.Float.Input(
                    "pia_d_max",
                    default=1.0,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    tooltip="The largest HSV distance in the data set, by which PIA's score is normalised. 1 = no data set.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="score", tooltip="SVD's motion score in pixels at 800 x 450, summed over the frame pairs. 0 = a still."),
                io.Float.Output(display_name="camera", tooltip="The part of it that one affine motion of the whole picture explains (pan, zoom, turn)."),
                io.Float.Output(display_name="subject", tooltip="What is left when that is taken away: things that move by themselves."),
                io.Image.Output(display_name="flow_picture", tooltip="The flow of each pair; the colour is the direction, its strength the speed."),
                io.String.Output(display_name="report", tooltip="All figures as JSON, with the flow that measured them."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, frames, flow, requested=0.0, pia_d_max=1.0):
        motion.check_frames(frames)
        backend = flow_backend(flow, cls.hidden.unique_id)
        pairs, cameras, subjects, fields = [], [], [], []
        for field in motion.flows(frames, backend):
            comfy.model_management.throw_exception_if_processing_interrupted()
            camera, subject = motion.split_motion(field)
            pairs.append(float(field.norm(dim=-1).mean()))
            cameras.append(camera)
            subjects.append(subject)
            fields.append(field)
        score = sum(pairs)
        report = {
            "motion_score": score, "per_pair": pairs, "camera": sum(cameras), "subject": sum(subjects),
            "pia": motion.pia_motion(frames, pia_d_max).tolist(), "flow": flow,
        }  # fmt: skip
        text = f"motion score {score:.2f}: camera {sum(cameras):.2f}, subject {sum(subjects):.2f} ({flow})"
        if requested > 0:
            report["requested"], report["error"] = requested, abs(score - requested)
            text += f"\n{abs(score - requested):.2f} from the {requested:g} requested"
        picture = pictures.flow_pictures(fields)
        say(cls.hidden.unique_id, text)
        return io.NodeOutput(score, sum(cameras), sum(subjects), picture, json.dumps(report), ui=ui.PreviewText(text))


class CompareClips(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CILCompareClips",
            display_name="Compare Clips (CIL)",
            category=CATEGORY,
            description="Two clips side by side as one, with a caption and, if connected, the motion score under each.",
            inputs=[
                io.Image.Input("before", tooltip="Frames of the first clip."),
                io.Image.Input("after", tooltip="Frames of the second clip; brought to the size of the first."),
                io.String.Input("before_caption", default="before", tooltip="Text under the first clip."),
                io.String.Input("after_caption", default="after", tooltip="Text under the second clip."),
                io.Float.Input("before_score", optional=True, force_input=True, tooltip="Motion score to print under the first clip."),
                io.Float.Input("after_score", optional=True, force_input=True, tooltip="Motion score to print under the second clip."),
            ],
            outputs=[
                io.Image.Output(display_name="clip", tooltip="The clips side by side, frame by frame."),
                io.Image.Output(display_name="strips", tooltip="Six frames of each in two rows, one picture."),
            ],
        )

    @classmethod
    def execute(cls, before, after, before_caption, after_caption, before_score=None, after_score=None):
        scored = lambda text, score: text if score is None else f"{text}: motion {score:.1f}"
        captions = [scored(before_caption, before_score), scored(after_caption, after_score)]
        clips = [pictures.enlarged(before), pictures.enlarged(after)]
        return io.NodeOutput(pictures.even(pictures.side_by_side(clips, captions)), pictures.film_strips(clips, captions))


NODES = [MotionScore, CompareClips]
