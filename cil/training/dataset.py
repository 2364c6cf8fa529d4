"""What a training shows a model: clips, and the examples that are drawn from them (Alg. 2).

Everything random about the n-th example of a run follows from (seed, n) alone. So a run that
was killed and resumed equals one that was not, and the number of processes does not matter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from .. import timenoise
from ..randomness import generator
from .recipe import Recipe

if TYPE_CHECKING:
    from .losses import Objective


@dataclass(frozen=True)
class Clip:
    """One prepared clip.

    latents [C, T, h, w] as the network sees them. image: the conditional image's latents
    [C, h, w] in the scale in which the network takes them, or [C, T, h, w] with the image as
    the first frame and padding behind it. embed: the image embedding or tokens, any shape;
    None where the network takes none. motion: motion score or bucket, 0 where there is none.
    text: the text's embedding [tokens, d], None where the network reads none. dropped: {field:
    what stands there in the unconditional branch}, None = zeros for image and embed.
    """

    latents: torch.Tensor
    image: torch.Tensor
    embed: torch.Tensor | None
    motion: float = 0.0
    text: torch.Tensor | None = None
    dropped: dict | None = None


@dataclass(frozen=True)
class Example:
    """A clip as it is shown to the model: noise, its sigma, and the condition with its level.

    token_seed: of TimeNoise's noise on tokens that the network makes of `embed` itself, see `noise_on_tokens`; None = none.
    """

    clip: Clip
    eps: torch.Tensor
    sigma: float
    level: float = 0.0
    token_seed: int | None = None


def clip_of(seed: int, number: int, clips: int) -> int:
    """Which of `clips` clips the number-th example shows: each once before any comes again."""
    turn, place = divmod(number, clips)
    return int(torch.randperm(clips, generator=generator(seed, 1, turn))[place])


def unit_noise(condition: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Unit noise on an image's latents or tokens; none on the padding behind the image of [C, T, h, w]."""
    if condition.ndim < 4:
        return torch.randn(condition.shape, generator=g)
    eps = torch.zeros(condition.shape)
    eps[:, :1] = torch.randn(eps[:, :1].shape, generator=g)
    return eps


def noised(clip: Clip, fields: Iterable[str], level: float, g: torch.Generator) -> Clip:
    """The clip with TimeNoise on its image: y_s = y_0 + beta_s eps, in each of `fields`."""
    noisy: dict[str, Any] = {f: timenoise.add_noise(getattr(clip, f), level, unit_noise(getattr(clip, f), g)) for f in fields}
    return replace(clip, **noisy)


TOKENS = "tokens"  # among an Objective's `noised`: what the network's own resampler or projection makes of `embed`, which no Clip holds


def noise_on_tokens(examples: list[Example], tokens: torch.Tensor) -> torch.Tensor:
    """TimeNoise on the output of a resampler or projection, which attention sees: [n, queries, d], one noise for each example's clip.

    As the authors train it; on its input a LayerNorm would bound any level.
    """
    return torch.stack(
        [
            y if e.token_seed is None else timenoise.add_noise(y, e.level, torch.randn(y.shape, generator=generator(e.token_seed)).to(y))
            for e, y in zip(examples, tokens, strict=True)
        ]
    )


def without_condition(clip: Clip) -> Clip:
    """The clip as the unconditional branch sees it."""
    if clip.dropped is not None:
        return replace(clip, **clip.dropped)
    return replace(clip, image=torch.zeros_like(clip.image), embed=None if clip.embed is None else torch.zeros_like(clip.embed))


def example(recipe: Recipe, objective: "Objective", clips: Sequence[Clip], number: int) -> Example:
    """The number-th example of a run (Alg. 2). clips: a sequence of Clip.

    TimeNoise's own draws come last: naive and TimeNoise tuning of one seed see the same
    clips, noise and dropped conditions.
    """
    g = generator(recipe.seed, 0, number)
    clip = clips[clip_of(recipe.seed, number, len(clips))]
    sigma = objective.draw_sigma(g)
    dropped = float(torch.rand((), generator=g)) < recipe.dropout
    eps, level, token_seed = torch.randn(clip.latents.shape, generator=g), 0.0, None
    if recipe.noise is not None:
        t = torch.tensor(objective.fraction(sigma), dtype=torch.float64)
        level = float(recipe.noise.sample(t, g))
        clip = noised(clip, [field for field in objective.noised if field != TOKENS], level, g)
        if TOKENS in objective.noised and not dropped:
            token_seed = int(torch.randint(2**63 - 1, (), generator=g))
    return Example(without_condition(clip) if dropped else clip, eps, sigma, level, token_seed)


def batch_of(recipe: Recipe, objective: "Objective", clips: Sequence[Clip], step: int, part: int = 0, rank: int = 0, world: int = 1) -> list[Example]:
    """The examples of one forward pass: of an update's `part`, in process `rank` of `world`."""
    first = ((step * recipe.accumulation + part) * world + rank) * recipe.batch
    return [example(recipe, objective, clips, first + i) for i in range(recipe.batch)]


@contextmanager
def prefetched(make: Callable, recipe: Recipe) -> Iterator[Callable]:
    """make(step, part) -> the same function, which makes the next batch in a thread while this one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="cil-batches") as thread:
        waiting: dict[tuple[int, int], Future] = {}

        def batch(step, part):
            mine = waiting.pop((step, part), None) or thread.submit(make, step, part)
            following = (step, part + 1) if part + 1 < recipe.accumulation else (step + 1, 0)
            if following[0] < recipe.steps and following not in waiting:
                waiting[following] = thread.submit(make, *following)
            return mine.result()

        try:
            yield batch
        finally:
            for future in waiting.values():
                future.cancel()
