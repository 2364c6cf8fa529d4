"""The nodes: each file holds one family and lists it in NODES; host/ and families.py know the host."""

from . import (
    alg,
    analytic_init,
    demo,
    demo_clips,
    demo_leak,
    dial,
    dynamicrafter,
    early_start,
    estimate,
    low_pass,
    moments,
    motion,
    motion_bucket,
    motion_gain,
    motion_slider,
    preflight,
    probe,
    schedule,
    start_noise,
    sweep,
    timenoise,
    training,
)
from .host.inputs import checked
from .host.notes import kept
from .search import findable

NODES = [
    kept(checked(findable(node)))
    for module in (
        early_start,
        motion_gain,
        motion_bucket,
        dial,
        preflight,
        schedule,
        analytic_init,
        timenoise,
        low_pass,
        alg,
        motion_slider,
        start_noise,
        probe,
        sweep,
        motion,
        moments,
        estimate,
        training,
        dynamicrafter,
        demo,
        demo_clips,
        demo_leak,
    )
    for node in module.NODES
]
