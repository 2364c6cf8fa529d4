"""The pack's headless commands, as a person starts them: in a process of their own, or in this one."""

import importlib
import os
import sys

import torch


def command(root, *arguments, launcher=()):
    """The command line of `run.py do`. launcher: arguments of Python before it, such as torchrun's."""
    return [sys.executable, *launcher, str(root / "run.py"), "do", *map(str, arguments)]


def environment(**more):
    """Of such a process, which is inside the environment already."""
    return os.environ | {"CIL_INSIDE": "1", "OMP_NUM_THREADS": "1"} | more


def do(module, *arguments):
    """The command in this process, as run.py calls it; on one thread like the others, since sums differ with their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        importlib.import_module(f"cil_pack.{module}").main([str(a) for a in arguments])
    finally:
        torch.set_num_threads(threads)
