"""The LVDM UNet: spatial blocks of the host with temporal layers between them.

Frames ride in the batch dimension, [b * frames, C, h, w]; only the temporal layers take them
apart. Module names are those of the released checkpoints, so that weights, LoRA and merges
find their places. Read from DynamiCrafter and VideoCrafter (lvdm/modules), written anew.
"""

from typing import Any

import comfy.ops
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample, apply_control
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import nn

from .resampler import Resampler

IMAGE_TOKENS = "cil_image_tokens"  # in transformer_options: how many tokens at the context's end are the picture's
INIT_HEADS = 8  # of the temporal layer after the first convolution, whatever the width


class ImageCrossAttention(CrossAttention):
    """Cross-attention to text and, by keys and values of its own, to the picture's tokens behind it.

    With `alpha` (DynamiCrafter 256) the picture's part is weighted by 1 + tanh(alpha), else by 1.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        heads: int,
        dim_head: int,
        alpha: bool = False,
        attn_precision: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        operations: Any | None = None,
    ):
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        super().__init__(query_dim, context_dim, heads, dim_head, attn_precision=attn_precision, operations=operations, **made)
        self.to_k_ip = operations.Linear(context_dim, heads * dim_head, bias=False, **made)
        self.to_v_ip = operations.Linear(context_dim, heads * dim_head, bias=False, **made)
        if alpha:
            self.alpha = nn.Parameter(torch.empty((), **made))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        transformer_options: dict = {},
    ) -> torch.Tensor:
        value = context if value is None else value
        tokens = transformer_options[IMAGE_TOKENS]
        (text, image), (text_value, image_value) = ((c[:, :-tokens], c[:, -tokens:]) for c in (context, value))  # [b t, tokens, context_dim] each
        attend = lambda q, k, v: optimized_attention(q, k, v, self.heads, attn_precision=self.attn_precision, transformer_options=transformer_options)
        q = self.to_q(x)  # [b t, h w, heads dim_head]
        seen = attend(q, self.to_k_ip(image), self.to_v_ip(image_value))
        if hasattr(self, "alpha"):
            seen = seen * (1 + torch.tanh(comfy.ops.cast_to_input(self.alpha, x)))
        return self.to_out(attend(q, self.to_k(text), self.to_v(text_value)) + seen)


class ImageTransformer(SpatialTransformer):
    """The host's spatial transformer, its cross-attention looking at text and picture."""

    def __init__(self, channels: int, heads: int, dim_head: int, context_dim: int, alpha: bool, attn_precision: torch.dtype | None, **made):
        super().__init__(channels, heads, dim_head, context_dim=context_dim, use_linear=True, attn_precision=attn_precision, **made)
        for block in self.transformer_blocks:
            block.attn2 = ImageCrossAttention(heads * dim_head, context_dim, heads, dim_head, alpha, attn_precision, **made)


class TemporalTransformer(nn.Module):
    """Self-attention over the frames, at each place by itself; both attentions of its block are such."""

    def __init__(
        self,
        channels: int,
        heads: int,
        dim_head: int,
        linear: bool = True,
        attn_precision: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        operations: Any | None = None,
    ):
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        inner = heads * dim_head
        project = operations.Linear if linear else lambda i, o, **kw: operations.Conv1d(i, o, 1, **kw)
        self.linear = linear
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **made)
        self.proj_in = project(channels, inner, **made)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(inner, heads, dim_head, attn_precision=attn_precision, operations=operations, **made)])
        self.proj_out = project(inner, channels, **made)

    def _project(self, layer, x):
        """A projection of the channels of [n, frames, channels]."""
        return layer(x) if self.linear else layer(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: torch.Tensor, frames: int, transformer_options: dict = {}) -> torch.Tensor:
        # patches are written for attention over places; here a sequence is the frames of one place
        options = {k: v for k, v in transformer_options.items() if k not in ("patches", "patches_replace")}
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # [b, c, t, h, w]
        b, c, t, h, w = clips.shape
        y = self.norm(clips).permute(0, 3, 4, 2, 1).reshape(b * h * w, t, c)  # a sequence is the frames of one place
        y = self._project(self.proj_in, y)
        for block in self.transformer_blocks:
            y = block(y, transformer_options=options)
        y = self._project(self.proj_out, y).reshape(b, h, w, t, c)  # [b, h, w, t, c]
        return x + y.permute(0, 3, 4, 1, 2).reshape(x.shape)


class TemporalConvolutions(nn.Module):
    """Four convolutions over three frames each, as a residue."""

    def __init__(self, channels: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None, operations: Any | None = None):
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        norm = lambda: operations.GroupNorm(32, channels, **made)
        conv = lambda: operations.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), **made)
        self.conv1 = nn.Sequential(norm(), nn.SiLU(), conv())
        # Identity where training has its dropout: it keeps the released numbering
        self.conv2, self.conv3, self.conv4 = (nn.Sequential(norm(), nn.SiLU(), nn.Identity(), conv()) for _ in range(3))

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # [b, c, t, h, w]
        y = self.conv4(self.conv3(self.conv2(self.conv1(clips))))
        return x + y.transpose(1, 2).reshape(x.shape)


class VideoResBlock(ResBlock):
    """The host's residual block, then the temporal convolutions."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, **made):
        super().__init__(channels, emb_channels, 0.0, out_channels=out_channels, **made)
        self.temopral_conv = TemporalConvolutions(out_channels, **made)  # sic: the checkpoints spell it so

    def forward(self, x: torch.Tensor, emb: torch.Tensor, frames: int) -> torch.Tensor:
        return self.temopral_conv(super().forward(x, emb), frames)


def run_block(
    layers: nn.ModuleList, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor, frames: int, options: dict, output_shape: torch.Size | None = None
) -> torch.Tensor:
    """One entry of input_blocks, middle_block or output_blocks."""
    for layer in layers:
        if isinstance(layer, VideoResBlock):
            x = layer(x, emb, frames)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context, options)
            options["transformer_index"] += 1
        elif isinstance(layer, TemporalTransformer):
            x = layer(x, frames, options)
        elif isinstance(layer, Upsample):
            x = layer(x, output_shape=output_shape)
        else:
            x = layer(x)
    return x


class LVDMUNet(nn.Module):
    """x and prediction: [b * frames, C, h, w].

    channel_mult, res_blocks: levels and residual blocks a level; all levels but the last have attention.
    alpha: whether the picture's attention has a learned weight.
    image_proj: arguments of the Resampler.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        channel_mult: tuple[int, ...],
        res_blocks: int,
        head_channels: int,
        context_dim: int,
        alpha: bool,
        image_proj: dict,
        attn_precision: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        operations: Any | None = None,
    ):
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.dtype, self.model_channels = dtype, model_channels
        emb = 4 * model_channels

        def embedding():
            linear = lambda i: operations.Linear(i, emb, dtype=dtype, device=device)
            return nn.Sequential(linear(model_channels), nn.SiLU(), linear(emb))

        def stage(ch, out, attention):
            layers = [VideoResBlock(ch, emb, out, **made)]
            if attention:
                heads = out // head_channels
                layers.append(ImageTransformer(out, heads, head_channels, context_dim, alpha, attn_precision, **made))
                layers.append(TemporalTransformer(out, heads, head_channels, attn_precision=attn_precision, **made))
            return nn.ModuleList(layers)

        conv = lambda i, o: operations.Conv2d(i, o, 3, padding=1, dtype=dtype, device=device)
        self.time_embed, self.fps_embedding = embedding(), embedding()
        self.image_proj_model = Resampler(**image_proj, **made)
        self.init_attn = nn.ModuleList([TemporalTransformer(model_channels, INIT_HEADS, head_channels, linear=False, attn_precision=attn_precision, **made)])

        self.input_blocks = nn.ModuleList([nn.ModuleList([conv(in_channels, model_channels)])])
        ch, skips, last = model_channels, [model_channels], len(channel_mult) - 1
        for level, mult in enumerate(channel_mult):
            for _ in range(res_blocks):
                self.input_blocks.append(stage(ch, mult * model_channels, level < last))
                ch = mult * model_channels
                skips.append(ch)
            if level < last:
                self.input_blocks.append(nn.ModuleList([Downsample(ch, True, **made)]))
                skips.append(ch)
        self.middle_block = stage(ch, ch, attention=True).append(VideoResBlock(ch, emb, ch, **made))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(res_blocks + 1):
                block = stage(ch + skips.pop(), mult * model_channels, level < last)
                ch = mult * model_channels
                if level and i == res_blocks:
                    block.append(Upsample(ch, True, **made))
                self.output_blocks.append(block)
        self.out = nn.Sequential(operations.GroupNorm(32, ch, dtype=dtype, device=device), nn.SiLU(), conv(ch, out_channels))

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        y: torch.Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict = {},
        **kwargs,
    ) -> torch.Tensor:
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, transformer_options, **kwargs)

    def image_tokens(self, clip_fea: torch.Tensor, frames: int) -> torch.Tensor:
        """[b, tokens, d] of CLIP -> [b * frames, n, context_dim]: each frame's own tokens, or all of them.

        The queries are of 16 frames (DynamiCrafter) or shared (VideoCrafter1). With another
        number of frames each frame looks at all of them, as the released code has it.
        """
        tokens = self.image_proj_model(clip_fea)  # [b, n, c]
        b, n, c = tokens.shape
        if n == 16 * frames:
            return tokens.reshape(b * frames, 16, c)
        return tokens.repeat_interleave(frames, 0)

    def _forward(self, x, timesteps, context, y, control, transformer_options, clip_fea, fps, num_video_frames, **kwargs):
        options, frames = transformer_options, num_video_frames
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        patches = options.get("patches", {})

        def patched(name, *values):
            for patch in patches.get(name, ()):
                values = patch(*values, options)
                values = values if isinstance(values, tuple) else (values,)
            return values if len(values) > 1 else values[0]

        picture = self.image_tokens(clip_fea[::frames], frames)  # [b t, n, context_dim]
        options[IMAGE_TOKENS] = picture.shape[1]
        context = torch.cat([context, picture.to(context)], dim=1)  # [b t, text and image tokens, context_dim]
        embed = lambda values: timestep_embedding(values, self.model_channels).to(x.dtype)
        emb = self.time_embed(embed(timesteps)) + self.fps_embedding(embed(fps))  # [b t, 4 model_channels]

        h, skips = x, []
        for number, block in enumerate(self.input_blocks):
            options["block"] = ("input", number)
            h = run_block(block, h, emb, context, frames, options)
            if number == 0:
                h = run_block(self.init_attn, h, emb, context, frames, options)
            h = patched("input_block_patch", apply_control(h, control, "input"))
            skips.append(h)
            h = patched("input_block_patch_after_skip", h)
        options["block"] = ("middle", 0)
        h = apply_control(run_block(self.middle_block, h, emb, context, frames, options), control, "middle")
        for number, block in enumerate(self.output_blocks):
            options["block"] = ("output", number)
            h, skip = patched("output_block_patch", h, apply_control(skips.pop(), control, "output"))
            h = run_block(block, torch.cat([h, skip], dim=1), emb, context, frames, options, skips[-1].shape if skips else None)
        return self.out(h)
