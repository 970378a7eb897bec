"""Characters are drawn as they are told, whole and inside their frame, the same each time."""

import itertools
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from engine.pocket.backdrops import COLOURS
from engine.pocket.cast import (
    DEFAULTS,
    EXPRESSION_DEFAULTS,
    EXPRESSIONS,
    IDENTITY,
    ITEM_TOLD,
    OUTFITS,
    POSE_DEFAULTS,
    POSES,
    SPECIES,
    VIEWS,
    Characters,
    Held,
    identity,
    sample_characters,
)
from engine.pocket.characters import draw_characters, shown, told

SIZE = 64


def some(n: int, seed: int = 0, /, **held: Held) -> Characters:
    return sample_characters(n, torch.Generator().manual_seed(seed), **held)


def picture(characters: Characters, size: int = SIZE) -> Tensor:
    sprite = draw_characters(characters, size)
    return sprite.over(torch.ones_like(sprite.rgb))


def columns(*names: str) -> dict[str, Tensor]:
    """All combinations of the tables' rows, as columns."""
    tables = {"pose": POSES, "view": VIEWS, "expression": EXPRESSIONS, "species": SPECIES, "outfit": OUTFITS}
    rows = list(itertools.product(*(range(len(tables[name])) for name in names)))
    return dict(zip(names, torch.tensor(rows).T, strict=True))


def test_tables_name_only_what_a_default_has() -> None:
    assert all(row.keys() <= DEFAULTS.keys() for row in SPECIES.values())
    assert all(row.keys() <= EXPRESSION_DEFAULTS.keys() for row in EXPRESSIONS.values())
    assert all(row.keys() <= POSE_DEFAULTS.keys() for pair in POSES.values() for row in pair)


def test_equal_seeds_draw_equal_pictures_and_words() -> None:
    one, two, other = some(6, 3), some(6, 3), some(6, 4)
    assert torch.equal(picture(one), picture(two))
    assert told(one) == told(two) != told(other)


def test_a_character_is_drawn_alike_alone_and_in_a_batch() -> None:
    batch = some(5, 8)
    alone = torch.cat([picture(batch[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(picture(batch), alone, atol=2e-3, rtol=0)


@pytest.mark.parametrize("species", ["cat", "rabbit", "octopus", "dragon"])
def test_every_pose_and_view_stays_inside_the_frame(species: str) -> None:
    chosen = columns("pose", "view")
    sprite = draw_characters(some(len(chosen["pose"]), species=species, **chosen), SIZE)
    alpha = sprite.alpha
    assert 0 <= float(alpha.min()) <= float(alpha.max()) <= 1
    assert 0 <= float(sprite.rgb.min()) <= float(sprite.rgb.max()) <= 1
    assert 0 <= float(sprite.shadow.min()) <= float(sprite.shadow.max()) <= 1
    rim = torch.cat([alpha[:, 0, 0], alpha[:, 0, -1], alpha[:, 0, :, 0], alpha[:, 0, :, -1]], 1)
    assert float(rim.max()) == 0
    assert float(alpha.mean((1, 2, 3)).min()) > 0.12  # nobody is lost


@pytest.mark.parametrize("name", ["expression", "pose", "view", "outfit", "species"])
def test_rows_of_a_table_look_different(name: str) -> None:
    chosen = columns(name)
    held: dict[str, Held] = identity(5, species="cat", outfit="none") | {
        "view": "front", "pose": "standing", "expression": "happy", "facing": 1,
    } | chosen  # fmt: skip
    pictures = picture(some(len(chosen[name]), **held), 128)
    for one, two in itertools.combinations(pictures, 2):
        changed = ((one - two).abs().amax(0) > 0.15).sum()
        assert changed > 40  # of 16,384 pixels


def test_every_expression_is_seen_from_the_side_too() -> None:
    held = identity(5, species="bear", outfit="none")
    pictures = picture(
        some(len(EXPRESSIONS), **held, view="side", pose="standing", facing=1, **columns("expression")), 128
    )
    for one, two in itertools.combinations(pictures, 2):
        assert ((one - two).abs().amax(0) > 0.15).sum() > 25


def test_an_identity_keeps_its_looks_while_it_moves() -> None:
    held = identity(7)
    rows = some(12, 1, **held)
    for name in IDENTITY:
        column = getattr(rows, name)
        assert torch.equal(column, column[:1].expand_as(column))
    assert all(len(getattr(rows, name).unique()) > 1 for name in ("expression", "pose", "view"))
    pictures = picture(rows)
    fur = torch.tensor(list(COLOURS.values())[int(rows.fur[0])])
    near = ((pictures - fur[:, None, None]).abs().amax(1) < 0.12).float().mean((1, 2))
    assert float(near.min()) > 0.02


def test_facing_left_is_facing_right_in_a_mirror() -> None:
    right, left = (draw_characters(some(4, 2, facing=facing, view="side")) for facing in (1, -1))
    torch.testing.assert_close(right.alpha, left.alpha.flip(3), atol=1e-3, rtol=0)


def test_pointing_goes_where_it_is_told() -> None:
    for side, ahead in (("left", slice(0, 20)), ("right", slice(-20, None))):
        rows = some(1, 0, species="cat", pose=f"pointing {side}", view="front", outfit="none")
        assert shown(rows)[0].pose == f"pointing {side}"
        alpha = draw_characters(rows, 128).alpha[0, 0, 64:]
        assert alpha[:, ahead].sum() > alpha.flip(1)[:, ahead].sum()


def test_words_name_what_is_there_and_nothing_else() -> None:
    rows = some(300, 6)
    for show, line in zip(shown(rows), told(rows), strict=True):
        words = line.replace(",", "").split()
        colours = [word for word in words if word in COLOURS]
        held = [word for word in show.item.split() if word in COLOURS]
        assert sorted(colours) == sorted([show.fur, *([show.accent] if show.accent else []), *held])
        assert [word for word in words if word in SPECIES] == [show.species]
        worn = "shirt" if show.species == "child" and show.outfit == "none" else show.outfit
        assert [word for word in words if word in (*OUTFITS, "shirt")] == ([worn] if worn != "none" else [])
        assert (show.item in ITEM_TOLD and show.item in line) or not show.item
        assert "  " not in line
        assert " ," not in line


def test_a_slice_keeps_all_columns() -> None:
    rows = some(6)[2:4]
    assert {len(getattr(rows, f.name)) for f in fields(Characters)} == {2}
