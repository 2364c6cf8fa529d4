"""Measuring and showing motion: CILMotionScore, CILCompareClips."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..cil import consistency, flow, motion
from . import pictures, plots
from .host.notes import say
from .host.types import NodeIdLike

CATEGORY = "image-to-video motion/measure"
FLOW_FOLDER = "cil_flow"
RAFT_MEMORY = 2**31  # bytes that a pair at 800 x 450 takes at the most: correlation volume and encoders; an estimate
OpticalFlow = io.Custom("OPTICAL_FLOW")  # of newer hosts' Load Optical Flow Model: a patcher that holds torchvision's RAFT
DIS, RAFT_LARGE, RAFT_SMALL = "DIS (OpenCV)", "RAFT large (torchvision)", "RAFT small (torchvision)"


def flow_input() -> io.Input:
    """The widget by which every node of the pack chooses an optical flow."""
    options = [DIS, RAFT_LARGE, RAFT_SMALL, *folder_paths.get_filename_list(FLOW_FOLDER)]
    tooltip = "Which optical flow measures. DIS: quick on a CPU, no download (default). RAFT: the paper's, for a GPU; torchvision fetches its weights once, or choose a RAFT file from models/cil_flow. Scores of different flows are not comparable."
    return io.Combo.Input("flow", options=options, default=DIS, tooltip=tooltip)


def network_input() -> io.Input:
    """The socket for the host's own optical flow model, which then takes the place of the widget."""
    tooltip = "An optical flow model of the host's (Load Optical Flow Model: RAFT large), where the host has that node. Connected, it measures in the place of what flow says."
    return OpticalFlow.Input("optical_flow", optional=True, tooltip=tooltip)


def flow_backend(name: str, node_id: NodeIdLike | None = None, network: Any | None = None) -> Callable:
    """The function of cil/flow.py for a choice of `flow_input`, or for what came through `network_input`."""
    device = comfy.model_management.get_torch_device()
    if network is not None:
        comfy.model_management.load_model_gpu(network)
        return heeding(flow.of_network(network.model, device))
    if name == DIS:
        return heeding(flow.dis())
    if name in (RAFT_LARGE, RAFT_SMALL):
        say(node_id, "RAFT: torchvision fetches its weights if they are not there yet")
        engine = flow.raft("large" if name == RAFT_LARGE else "small", device=device)
    else:
        engine = flow.raft(weights=folder_paths.get_full_path_or_raise(FLOW_FOLDER, name), device=device)

    def making_room(a, b, **updates):
        """The host puts models that it holds out of the way, as for its own; nothing happens where there is room."""
        comfy.model_management.free_memory(RAFT_MEMORY, device)
        return engine(a, b, **updates)

    return heeding(making_room)


def heeding(engine: Callable) -> Callable:
    """A flow that looks at the host's interrupt before each pair of frames."""

    def of_pair(a, b, **updates):
        comfy.model_management.throw_exception_if_processing_interrupted()
        return engine(a, b, **updates)

    return of_pair


def flow_name(name: str, network: Any | None = None) -> str:
    """What measured, as reports name it."""
    return name if network is None else "the connected optical flow model"


def flow_of_vbench(backend: Callable, name: str, network: Any | None = None) -> Callable:
    """The backend with as many updates as VBench asks of RAFT; DIS has none."""
    return backend if name == DIS and network is None else partial(backend, updates=flow.VBENCH_UPDATES)


class MotionScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILMotionScore",
            display_name="Motion Score (CIL)",
            category=CATEGORY,
            description="How much a clip moves, and whether it holds together: SVD's motion score, which counts flicker too; consistent motion, which does not, split into camera and subject; flicker; likeness to the picture; VBench's dynamic degree; and the motion of every frame as a plot.",
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
                io.Image.Input("image", optional=True, tooltip="The picture that was animated, for the likeness. Unconnected: the clip's first frame."),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames a second of the clip, for VBench's dynamic degree alone, which looks at eight a second: Wan 16, HunyuanVideo and LTXV 24, SVD 6. Higher: fewer frames are looked at.",
                ),
                network_input(),
            ],
            outputs=[
                io.Float.Output(
                    display_name="score", tooltip="SVD's motion score in pixels at 800 x 450, summed over the frame pairs. 0 = a still. Flicker counts too."
                ),
                io.Float.Output(display_name="camera", tooltip="The part of it that one affine motion of the whole picture explains (pan, zoom, turn)."),
                io.Float.Output(
                    display_name="subject",
                    tooltip="What is left when that is taken away. 7 to 23 % high with DIS, and of the camera where a thing fills more than half the frame: consistent_subject is neither.",
                ),
                io.Image.Output(display_name="flow_picture", tooltip="The flow of each pair; the colour is the direction, its strength the speed."),
                io.String.Output(display_name="report", tooltip="All figures as JSON, with the flow that measured them."),
                io.Float.Output(
                    display_name="consistent",
                    tooltip="Motion that flicker cannot fake, in the score's units: only what forward and backward flow and three frames agree on. 0 = a still, flickering or not.",
                ),
                io.Float.Output(display_name="consistent_camera", tooltip="The camera's part of it: the affine motion that the border of the picture follows."),
                io.Float.Output(
                    display_name="consistent_subject",
                    tooltip="What moves otherwise than the camera, a large thing too, and what stands in the frame while the camera moves.",
                ),
                io.Float.Output(
                    display_name="flicker", tooltip="Mean change from frame to frame that no motion explains; the full range of a colour is 1. 0 = none."
                ),
                io.Float.Output(
                    display_name="likeness",
                    tooltip="1 less the mean difference to the picture after undoing the motion. 1 = every frame is the picture, moved.",
                ),
                io.Boolean.Output(
                    display_name="dynamic_degree",
                    tooltip="VBench's rule: true where enough pairs have flow above a limit. Camera and flicker count. Its own figures are RAFT's.",
                ),
                io.Image.Output(
                    display_name="plot", tooltip="Consistent motion of every pair of frames, camera and subject, and flicker: a dead beginning shows."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        frames: torch.Tensor,
        flow: str,
        requested: float = 0.0,
        pia_d_max: float = 1.0,
        image: torch.Tensor | None = None,
        fps: float = 16.0,
        optical_flow: Any | None = None,
    ) -> io.NodeOutput:
        motion.check_frames(frames)
        backend, name = flow_backend(flow, cls.hidden.unique_id, optical_flow), flow_name(flow, optical_flow)
        bar = comfy.utils.ProgressBar(2 * (len(frames) - 1))

        def step():
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)

        pairs, cameras, subjects, fields = [], [], [], []
        for field in motion.flows(frames, backend):
            step()
            camera, subject = motion.split_motion(field)
            pairs.append(float(field.norm(dim=-1).mean()))
            cameras.append(camera)
            subjects.append(subject)
            fields.append(field)
        score = sum(pairs)
        found = consistency.measured(frames, backend, image, between=step)
        dynamic, largest, limit, needed = consistency.dynamic_degree(frames, fps, flow_of_vbench(backend, flow, optical_flow))
        report = {
            "motion_score": score, "per_pair": pairs, "camera": sum(cameras), "subject": sum(subjects),
            "pia": motion.pia_motion(frames, pia_d_max).tolist(), "flow": name,
            "consistent": {"motion": found.motion, "camera": found.camera, "subject": found.subject, "flicker": found.flicker},
            "likeness": found.likeness, "still_pairs_first": found.first_moving,
            "vbench": {"dynamic": dynamic, "fps": fps, "per_pair": largest, "limit": limit, "needed": needed},
        }  # fmt: skip
        text = [f"motion score {score:.2f}: camera {sum(cameras):.2f}, subject {sum(subjects):.2f} ({name})", *told(found, report["vbench"])]
        if requested > 0:
            report["requested"], report["error"] = requested, abs(score - requested)
            text.append(f"{abs(score - requested):.2f} from the {requested:g} requested")
        picture, plot = pictures.flow_pictures(fields), plots.motion_plot(found)
        say(cls.hidden.unique_id, "\n".join(text))
        totals = [sum(part) for part in (found.motion, found.camera, found.subject)]
        measures = (*totals, sum(found.flicker) / len(found.flicker), found.likeness, dynamic, plot)
        return io.NodeOutput(score, sum(cameras), sum(subjects), picture, json.dumps(report), *measures, ui=ui.PreviewText("\n".join(text)))


def told(found: consistency.Measures, vbench: dict) -> list[str]:
    """consistency.Measures and VBench's rule in words, a line each."""
    total, first = sum(found.motion), found.first_moving
    begins = "stands still" if first == len(found.motion) else "moves from the start" if first == 0 else f"moves from frame {first + 1} on"
    above = sum(score > vbench["limit"] for score in vbench["per_pair"])
    return [
        f"consistent motion {total:.2f}: camera {sum(found.camera):.2f}, subject {sum(found.subject):.2f}; {begins}",
        f"flicker {sum(found.flicker) / len(found.flicker):.4f}, likeness {found.likeness:.3f}",
        f"{'dynamic' if vbench['dynamic'] else 'not dynamic'} by VBench's rule: {above} of {len(vbench['per_pair'])} pairs above {vbench['limit']:g} pixels, {vbench['needed']} needed",
    ]


class CompareClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
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
    def execute(
        cls,
        before: torch.Tensor,
        after: torch.Tensor,
        before_caption: str,
        after_caption: str,
        before_score: float | None = None,
        after_score: float | None = None,
    ) -> io.NodeOutput:
        scored = lambda text, score: text if score is None else f"{text}: motion {score:.1f}"
        captions = [scored(before_caption, before_score), scored(after_caption, after_score)]
        clips = [pictures.enlarged(before), pictures.enlarged(after)]
        return io.NodeOutput(pictures.even(pictures.side_by_side(clips, captions)), pictures.film_strips(clips, captions))


NODES = [MotionScore, CompareClips]
