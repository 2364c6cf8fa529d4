"""Seconds a step and memory of training a LoRA at SVD's full size: `python run.py do bench.training`.

The host's own architecture with random weights in fp16, 14 frames, 320 x 512 and 576 x 1024,
rank 16, bf16, with and without gradient checkpointing. Needs a graphics card.
"""

import argparse
import time

import torch

from ..cil.timenoise import TimeNoise
from ..cil.training import Clip, Recipe
from ..nodes.training import train

SIZES = ((320, 512), (576, 1024))
FRAMES = 14
# what the host reads out of an SVD checkpoint
UNET = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "num_classes": "sequential", "adm_in_channels": 768,
    "in_channels": 8, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
    "use_linear_in_transformer": True, "context_dim": 1024, "use_temporal_attention": True, "use_temporal_resblock": True,
    "video_kernel_size": [3, 1, 1], "extra_ff_mix_layer": True, "use_spatial_context": True, "merge_strategy": "learned_with_images",
    "merge_factor": 0.0, "disable_temporal_crossattention": False, "max_ddpm_temb_period": 10000,
}  # fmt: skip


class RandomClips:
    """Clips of one size with nothing on them."""

    settings, motion, names = {"fps": 6.0}, [20.0], ["random"]

    def __init__(self, height, width):
        self.shape = (4, FRAMES, height // 8, width // 8)

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return Clip(torch.randn(self.shape), torch.randn(4, *self.shape[2:]), torch.randn(1, UNET["context_dim"]))


def random_svd():
    """The host's SVD, full size, random fp16 weights on the CPU -> MODEL."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SVD_img2vid(dict(UNET))
    config.set_inference_dtype(torch.float16, None)
    network = config.get_model({}).eval()
    g = torch.Generator().manual_seed(0)
    for p in network.diffusion_model.parameters():
        p.requires_grad_(False).normal_(0, 0.02, generator=g)
    devices = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(network, *devices)


def measured(model, height, width, checkpointing, steps):
    """-> (seconds a step after the first two, peak GiB)."""
    torch.cuda.reset_peak_memory_stats()
    times = []

    def progress(run):
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    recipe = Recipe(steps=steps, noise=TimeNoise(100.0), ema=0.9)
    train.tune(model, RandomClips(height, width), recipe, train.TrainConfig(checkpointing=checkpointing), progress=progress)
    return (times[-1] - times[1]) / (len(times) - 2), torch.cuda.max_memory_allocated() / 2**30


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="bench.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="updates of each run, at least 3")
    o = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark measures a graphics card, and PyTorch finds none here")
    model = random_svd()
    size = sum(p.numel() for p in model.model.diffusion_model.parameters())
    print(f"SVD, {size / 1e9:.2f} billion weights, random, on {torch.cuda.get_device_name()}; {FRAMES} frames, LoRA of rank 16, batch 1, bf16", flush=True)
    print("| size | gradient checkpointing | seconds a step | peak memory (GiB) |\n|---|---|---|---|", flush=True)
    for height, width in SIZES:
        for checkpointing in (True, False):
            try:
                seconds, peak = measured(model, height, width, checkpointing, max(3, o.steps))
                cells = f"{seconds:.2f} | {peak:.1f}"
            except torch.cuda.OutOfMemoryError:
                cells = "- | more than there is"
            print(f"| {height} x {width} | {'on' if checkpointing else 'off'} | {cells} |", flush=True)
