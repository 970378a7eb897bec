"""Grounds and looks: finite, in range, repeatable in every shape, and the same picture at four times the size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, COLOURED, HORIZON, SAID, SHADOWED, Ground, draw_backdrops, palette
from engine.pocket.looks import BRANDS, COLOURLESS, GROUNDLESS, LOOKS, NOWHERE, Layers, apply_looks

SHAPES = ((128, 128), (144, 112), (112, 144), (168, 96), (96, 168), (72, 216))  # the six, at half size


def ground(shape: tuple[int, int], n: int) -> Ground:
    generator = torch.Generator().manual_seed(4)
    colour = palette()[torch.arange(n) % 14][:, :, None, None]
    u, noise = torch.rand(n, 8, 1, 1, generator=generator), torch.randn(n, 1, 12, 36, generator=generator)
    return Ground.of(shape, colour, u, noise)


def grounds(shape: tuple[int, int]) -> Tensor:
    return draw_backdrops(torch.arange(len(BACKDROPS)), ground(shape, len(BACKDROPS)))


def look(index: int, shape: tuple[int, int]) -> Tensor:
    """A look over a landscape with a ball before it."""
    where = ground(shape, 1)
    backdrop = BACKDROPS["grass"](where)
    mask = where.cut(0.28 - ((where.x - 0.5) ** 2 + (where.y - 0.55) ** 2).sqrt())
    ball = where.rgb(0.8, 0.2, 0.3) * (1.1 - where.y)
    picture = backdrop + (ball - backdrop) * mask
    return apply_looks(torch.tensor([index]), Layers(picture, backdrop, mask, where))


def looks(shape: tuple[int, int]) -> Tensor:
    return torch.cat([look(index, shape) for index in range(len(LOOKS))])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_ground_is_a_picture_and_repeats(shape: tuple[int, int]) -> None:
    drawn = grounds(shape)
    assert drawn.shape == (26, 3, *shape)
    assert drawn.isfinite().all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, grounds(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_look_is_a_picture_and_repeats(shape: tuple[int, int]) -> None:
    drawn = looks(shape)
    assert drawn.shape == (len(LOOKS), 3, *shape)
    assert drawn.isfinite().all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert torch.equal(drawn, looks(shape))
    plain = drawn[0]
    assert all((drawn[at] - plain).abs().mean() > 0.01 for at in range(1, len(LOOKS)))


@pytest.mark.parametrize("name", BACKDROPS)
def test_a_larger_ground_is_the_same_but_sharper(name: str) -> None:
    small, large = (BACKDROPS[name](ground((size, size), 1)).clamp(0, 1) for size in (256, 1024))
    large = F.avg_pool2d(large.expand(1, 3, 1024, 1024), 4)
    assert (small - large).abs().mean() < 0.004


@pytest.mark.parametrize("name", LOOKS)
def test_a_larger_look_is_the_same(name: str) -> None:
    index = list(LOOKS).index(name)
    large = F.avg_pool2d(look(index, (512, 512)), 2)
    assert (look(index, (256, 256)) - large).abs().mean() < 0.02


def test_a_ground_is_drawn_in_heights_of_the_picture() -> None:
    wide = ground((144, 432), 1)
    assert wide.aspect == 3
    assert torch.allclose(wide.x[0, 0, 0, [0, -1]], torch.tensor([-1.0, 2.0]), atol=0.005)
    assert wide.grain.shape == (1, 1, 144, 432)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    every = ground((64, 64), 26)
    kinds = torch.arange(26)
    alone = draw_backdrops(kinds[7:8], every.rows(torch.tensor([7])))
    assert torch.allclose(alone[0], draw_backdrops(kinds, every)[7], atol=1e-6)


def test_what_is_said_fits_what_is_drawn() -> None:
    assert list(SAID) == list(BACKDROPS)
    for name, phrases in SAID.items():
        assert len(set(phrases)) == 3
        assert all(("{}" in phrase) == (name in COLOURED) for phrase in phrases)
        assert all(phrase.startswith((", ", "on ", "in ", "at ", "under", "with ")) for phrase in phrases)
    assert set(SHADOWED) <= set(HORIZON) <= set(BACKDROPS)


def test_what_looks_hide() -> None:
    assert set(NOWHERE) <= set(GROUNDLESS) <= set(LOOKS)
    assert set(BRANDS) <= set(COLOURLESS) <= set(LOOKS)
