"""Random draws: each follows from its key alone, and keeps the numbers that it has always had."""

from pathlib import Path

import torch

from cil_pack.cil.randomness import chance_of, generator, generator_for, noise_for, seeded


def test_the_numbers_are_those_of_every_version():
    """A seed in somebody's graph, a state on somebody's disk: all would become another clip, or be refused."""
    three = lambda g: torch.randint(10**6, (3,), generator=g).tolist()
    assert three(seeded(9)) == [556670, 348188, 534974]
    assert three(generator(3, 1, 7)) == [593881, 819851, 374898]
    assert three(generator_for(1, "image", 0.9)) == [188517, 336689, 704705]
    assert noise_for(torch.zeros(2), 5, 2, 1).tolist() == [-0.6663652062416077, 1.0439592599868774]
    assert chance_of(Path("anywhere/a clip.mp4"), 4, 2).randrange(10**6) == 93343


def test_a_draw_depends_on_its_key_alone():
    """A sigma counts to five digits, so devices that round it differently draw the same."""
    draw = lambda *key: torch.randn(4, generator=generator_for(*key))
    assert torch.equal(draw(1, "image", 0.9), draw(1, "image", 0.9 * (1 + 1e-7)))
    others = [(2, "image", 0.9), (1, "level", 0.9), (1, "image", 0.901), (1, "image"), (2**64 - 1, "image", 0.9)]
    assert len({tuple(draw(*key).tolist()) for key in [(1, "image", 0.9), *others]}) == 6
