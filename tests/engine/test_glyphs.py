"""The picture book: its nouns, their plurals, and that every cell holds the picture of its word."""

import json
import re
from functools import cache

import pytest
import torch
from torch import Tensor

from engine.pocket.backdrops import COLOURS
from engine.pocket.cast import SPECIES
from engine.pocket.glyphs import (
    CELL,
    COUNTABLE,
    FOLDER,
    GLYPHS,
    MASS,
    SINGULAR_S,
    Atlas,
    is_countable,
    load_atlas,
    plural,
    rasterise,
)
from engine.pocket.solids import KINDS

HELD_OUT = {
    "crab", "ghost", "lobster", "beaver", "dodo", "handbag", "telescope", "lotion bottle", "roller skate", "hiking boot",
    "flying saucer", "nesting doll", "lunch box", "oil lamp", "kitchen timer", "mammoth",
}  # fmt: skip
NOUNS = [name for glyph in GLYPHS for name in glyph.names]
DRAWABLE = (*NOUNS, *KINDS, *SPECIES)


@cache
def atlas() -> Atlas:
    return load_atlas()


def over_gray(pictures: Tensor) -> Tensor:
    colour, alpha = pictures[:, :3].float(), pictures[:, 3:].float() / 255
    return 128 + (colour - 128) * alpha


def test_a_noun_and_an_icon_stand_once() -> None:
    icons = [glyph.icon for glyph in GLYPHS]
    assert len(set(NOUNS)) == len(NOUNS)
    assert len(set(icons)) == len(icons)


def test_a_noun_has_one_look_and_is_no_colour() -> None:
    assert not set(NOUNS) & {*KINDS, *SPECIES, *COLOURS}


def test_nouns_are_plain_lower_case_words() -> None:
    assert all(re.fullmatch(r"[a-z]+([ -][a-z]+)*", noun) for noun in NOUNS)


def test_the_atlas_holds_every_noun_of_the_tables() -> None:
    assert list(atlas().cell) == NOUNS
    assert atlas().pictures.shape == (len(GLYPHS), 4, CELL, CELL)
    assert [atlas().cell[glyph.names[-1]] for glyph in GLYPHS] == list(range(len(GLYPHS)))


def test_sixteen_whole_subjects_are_held_out() -> None:
    assert set(atlas().held_out) == HELD_OUT
    assert not set(atlas().known) & HELD_OUT


def test_every_picture_fills_its_cell_and_leaves_a_margin() -> None:
    inked = atlas().pictures[:, 3] > 16
    for extent in (inked.any(2), inked.any(1)):
        assert not extent[:, [0, -1]].any()
    reach = torch.stack([inked.any(2).sum(1), inked.any(1).sum(1)], 1).amax(1)
    assert reach.min() >= 0.94 * CELL
    assert inked.float().mean((1, 2)).min() > 0.05


def test_no_two_pictures_are_nearly_the_same() -> None:
    small = over_gray(atlas().pictures[..., ::8, ::8]).flatten(1) / 255
    apart = torch.cdist(small, small) / small.shape[1] ** 0.5
    assert apart.fill_diagonal_(1).min() > 0.04


def test_the_licence_and_the_copyright_stand_beside_the_pictures() -> None:
    text = (FOLDER / "LICENSE").read_text()
    assert "MIT License" in text
    assert "Copyright (c) Microsoft Corporation" in text
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 6e6


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("box", "boxes"), ("wine bottle", "wine bottles"), ("fox", "foxes"), ("child", "children"), ("mouse", "mice"),
        ("lunch box", "lunch boxes"), ("maple leaf", "maple leaves"), ("kitchen knife", "kitchen knives"),
        ("fish", "fish"), ("toothbrush", "toothbrushes"), ("cactus", "cacti"), ("bus", "buses"), ("ferry", "ferries"),
        ("monkey", "monkeys"), ("key", "keys"), ("octopus", "octopuses"), ("tomato", "tomatoes"), ("piano", "pianos"),
        ("avocado", "avocados"), ("bow and arrow", "bows and arrows"), ("hourglass", "hourglasses"),
        ("dodo", "dodos"), ("headphones", "headphones"), ("scissors", "scissors"), ("coffee", "coffee"),
        ("thumbs up", "thumbs up"), ("snowman", "snowmen"), ("wine glass", "wine glasses"), ("watch", "watches"),
    ],
)  # fmt: skip
def test_plurals(noun: str, many: str) -> None:
    assert noun in DRAWABLE
    assert plural(noun) == many


def test_what_can_be_counted_has_a_plural_of_its_own() -> None:
    same = {noun for noun in DRAWABLE if is_countable(noun) and plural(noun) == noun}
    assert same == {"fish", "jellyfish", "sheep", "deer", "shrimp", "dice", "thumbs up"}
    assert set(NOUNS) & {noun for noun in DRAWABLE if is_countable(noun)} == COUNTABLE
    assert {"rice", "glasses", "grapes", "jeans"}.isdisjoint(COUNTABLE)


def test_exceptions_name_nothing_that_is_not_drawn() -> None:
    assert not MASS - set(NOUNS)
    assert not set(SINGULAR_S) - set(DRAWABLE)


def test_vectors_draw_what_the_atlas_holds() -> None:
    pytest.importorskip("resvg_py", reason="resvg_py draws the vectors; it is in the dev extra")
    chosen = [0, len(GLYPHS) - 1]
    drawn = rasterise(CELL, [GLYPHS[cell] for cell in chosen])
    difference = (over_gray(drawn) - over_gray(atlas().pictures[chosen])).abs()
    assert difference.mean((1, 2, 3)).max() < 4
    large = rasterise(2 * CELL, [GLYPHS[0]])
    assert large.shape == (1, 4, 2 * CELL, 2 * CELL)
    halved = torch.nn.functional.avg_pool2d(over_gray(large), 2)
    assert (halved - over_gray(drawn[:1])).abs().mean() < 4


def test_glyphs_json_says_what_is_held_out() -> None:
    entries = json.loads((FOLDER / "glyphs.json").read_text())
    assert {noun for noun, entry in entries.items() if entry["held_out"]} == HELD_OUT
