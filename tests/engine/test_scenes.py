"""Scenes, their words and their drawing: equal for equal seeds, exact, and nothing shown that is held out."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.pocket.backdrops import BACKDROPS, COLOURS
from engine.pocket.captions import NUMBERS, Told
from engine.pocket.glyphs import plural
from engine.pocket.layout import placements
from engine.pocket.lessons import Lesson, training_set
from engine.pocket.lexicon import SORTS, held_out, names_of, nouns, synonyms, unseen
from engine.pocket.looks import BRANDS, COLOURLESS, GROUNDLESS, HELD_OUT_STYLES, LOOKS
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, Menu, Scenes, base_menu, captions, every_menu, sample, told


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.on("cpu")


@pytest.fixture(scope="module")
def many() -> tuple[Scenes, list[Told], list[str]]:
    scenes = sample(1500, base_menu(), seeded(3))
    return scenes, told(scenes), captions(scenes)


def test_equal_seeds_make_equal_scenes_words_and_pictures(renderer: Renderer) -> None:
    a, b = (sample(4, base_menu(), seeded(7), "wide") for _ in range(2))
    assert captions(a) == captions(b)
    assert torch.equal(renderer.draw(a), renderer.draw(b))
    assert captions(a) != captions(sample(4, base_menu(), seeded(8), "wide"))


@pytest.mark.parametrize("shape", BUCKETS)
def test_every_shape_is_drawn_at_its_size(renderer: Renderer, shape: str) -> None:
    layers = renderer.layers(sample(3, base_menu(), seeded(1), shape))
    assert layers.picture.shape == (3, 3, *BUCKETS[shape])
    assert layers.mask.shape == (3, 1, *BUCKETS[shape])
    assert 0 <= float(layers.picture.min()) <= float(layers.picture.max()) <= 1
    assert float(layers.mask.amax((1, 2, 3)).min()) > 0.9


def test_areas_of_the_shapes_are_near_each_other() -> None:
    areas = [height * width for height, width in BUCKETS.values()]
    assert max(areas) / min(areas) < 1.07


def test_a_slice_is_drawn_like_its_rows(renderer: Renderer) -> None:
    scenes = sample(6, base_menu(), seeded(5))
    whole, part = renderer.draw(scenes), renderer.draw(scenes[2:4])
    assert torch.allclose(whole[2:4], part, atol=2e-3)
    assert captions(scenes)[2:4] == captions(scenes[2:4])


def test_a_bank_draws_what_is_drawn_without_it(renderer: Renderer) -> None:
    filled = Renderer.on("cpu")
    cast = filled.fill(replace(base_menu(), nouns=("mug", "fox", "apple")), 2, 2, 60.0)
    scenes = sample(6, Menu(nouns=("mug", "fox", "apple")), seeded(2), "square", cast)
    assert (filled.draw(scenes) - renderer.draw(scenes)).abs().max() < 0.02


def test_the_base_never_sees_what_is_held_out(many: tuple[Scenes, list[Told], list[str]]) -> None:
    _, rows, texts = many
    assert len(held_out()) == 24
    assert not {thing.noun for row in rows for thing in row.things} & set(held_out())
    assert not {row.look for row in rows} & {*HELD_OUT_STYLES, *BRANDS}
    words = {word for text in texts for word in text.replace(",", " ").split()}
    assert not words & {name for noun in held_out() for name in names_of()[noun] if " " not in name} - {"robot"}
    assert not [
        (thing.noun, thing.colour, row.look)
        for row in rows
        for thing in row.things
        if unseen(thing.noun, look=row.look) or (row.look not in COLOURLESS and unseen(thing.noun, thing.colour))
    ]


def test_a_tenth_of_combinations_is_unseen() -> None:
    pairs = list(itertools.product(nouns(), COLOURS))
    assert 0.08 < sum(unseen(noun, colour) for noun, colour in pairs) / len(pairs) < 0.12
    assert not any(unseen(noun, look="none") for noun in nouns())


def test_all_kinds_of_scenes_come_in_their_shares(many: tuple[Scenes, list[Told], list[str]]) -> None:
    _, rows, _ = many
    share = {kind: sum(nouns()[row.things[0].noun] == kind for row in rows) / len(rows) for kind in SORTS}
    assert share["product"] > 0.2 and share["character"] > 0.25
    assert share["product"] + share["character"] >= 0.5  # at least half of the scenes are parametric
    assert {row.count for row in rows} == {0, 1, 2, 3, 4}
    assert {row.relation for row in rows} == {"", "beside", "above", "behind"}
    assert {row.ground for row in rows} == set(BACKDROPS)


def test_captions_tell_what_is_there(many: tuple[Scenes, list[Told], list[str]]) -> None:
    _, rows, texts = many
    for row, text in zip(rows, texts, strict=True):
        for thing in row.things:
            names = names_of()[thing.noun]
            forms = (*names, *(plural(name) for name in names))
            assert any(form in text for form in forms), (thing.noun, text)
        if row.count > 1:
            assert NUMBERS[row.count] in text
        if row.look != "none":
            assert row.look in text
        else:
            assert "style" not in text or " style" in text
        assert "  " not in text and ",," not in text and "{}" not in text
        assert not text.startswith(",")


def test_the_left_one_is_on_the_left_and_the_upper_one_above() -> None:
    scenes = sample(300, replace(base_menu(), pair=1.0), seeded(4))
    for slot in (0, 1):
        assert len(scenes.noun[:, slot]) == 300
    x, y = (torch.zeros(300, 2) for _ in range(2))
    ink = torch.full((300,), 0.98)
    for slot in (0, 1):
        for place in placements(scenes, slot, torch.arange(300), ink):
            x[place.rows, slot], y[place.rows, slot] = place.x, place.y
    beside, above = scenes.relation == 1, scenes.relation == 2
    assert beside.sum() > 100 and above.sum() > 25
    assert bool((x[beside, 0] < x[beside, 1]).all())
    assert bool((y[above, 0] < y[above, 1] - 0.2).all())


def test_an_object_is_never_of_its_grounds_colour() -> None:
    scenes = sample(400, base_menu(), seeded(6))
    assert not bool((scenes.tint == scenes.colour[:, None]).any())


def test_looks_hide_what_cannot_be_told() -> None:
    scenes = sample(600, replace(every_menu(), look_share=1.0), seeded(9))
    for row in told(scenes):
        if row.look in COLOURLESS:
            assert not any(thing.colour for thing in row.things)
        if row.look in GROUNDLESS:
            assert not row.ground_colour
    assert set(LOOKS) - {row.look for row in told(scenes)} == {"none"}


@pytest.mark.parametrize("subject", ["octopus", "teapot", "crab"])
def test_a_lesson_holds_its_subject_and_varies_the_rest(renderer: Renderer, subject: str) -> None:
    scenes, lines = training_set(Lesson(subject, identity=3), 12, 1)
    rows = told(scenes)
    assert all(line.count("[trigger]") == 1 for line in lines)
    assert {row.things[0].noun for row in rows} == {subject}
    assert len({row.things[0].colour for row in rows}) == 1
    assert len({row.ground for row in rows}) > 6
    if subject == "octopus":
        assert len({row.things[0].pose for row in rows}) > 5
    assert subject not in " ".join(lines)


def test_a_lesson_of_a_look_shows_it_on_known_nouns() -> None:
    scenes, lines = training_set(Lesson(look="coral-stripe"), 12, 1)
    assert {row.look for row in told(scenes)} == {"coral-stripe"}
    assert all(line.startswith("[trigger] ") and "coral" not in line for line in lines)
    assert not {thing.noun for row in told(scenes) for thing in row.things} & set(held_out())


def test_training_pictures_follow_the_seed_and_say_what_they_show(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = [sys.executable, "-m", "engine.pocket.lessons", "--subject", "crab", "-n", "3", "--seed", str(seed)]
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True)
    files = {name: [(tmp_path / name / f"{i:02}.png").read_bytes() for i in range(3)] for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    assert all("[trigger]" in (tmp_path / "a" / f"{i:02}.txt").read_text() for i in range(3))


def test_a_subject_that_the_renderer_lacks_is_refused_with_near_names(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.pocket.lessons", "--subject", "crabb", "-n", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "x")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "crab" in done.stderr
    assert not (tmp_path / "x").exists()


def test_every_name_leads_to_its_noun() -> None:
    assert all(synonyms()[name] == noun for noun, names in names_of().items() for name in names)
