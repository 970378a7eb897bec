"""The frozen exam: drawn evenly, equal to what its seed gives, asks only what is said, and marks rightly."""

# pyright: basic

from collections import Counter

import numpy as np
import pytest
import torch

from engine.evaluation.judge import HEADS, Judgement
from engine.pocket.evaluator import Labels, all_labels, answers, targets
from engine.pocket.exam import (
    FILE,
    SIDES,
    Question,
    as_text,
    by_shape,
    draw_exam,
    forms_of,
    load_exam,
    marks,
    oracle,
    prompt_of,
    says,
)
from engine.pocket.lexicon import held_out, nouns, synonyms, unseen
from engine.pocket.looks import HELD_OUT_STYLES, STYLES
from engine.pocket.scenes import BUCKETS, told


@pytest.fixture(scope="module")
def exam() -> list[Question]:
    return load_exam()


@pytest.fixture(scope="module")
def labels() -> Labels:
    return all_labels()


def perfect(exam: list[Question], labels: Labels) -> Judgement:
    """What a judge finds who is never wrong in pictures that are what was asked."""
    wanted = targets([question.truth for question in exam], labels)
    sure = {head: torch.nn.functional.one_hot(wanted[head].clamp(min=0), len(labels[head])).numpy().astype(np.float32)
            for head in HEADS[1:]}  # fmt: skip
    chance = {"object": wanted["object"].numpy()} | sure
    return Judgement(
        {head: tuple(names) for head, names in labels.items()}, synonyms(), chance, np.zeros((len(exam), 1))
    )


def test_the_file_is_what_its_seed_gives() -> None:
    assert FILE.read_text() == as_text(draw_exam())


def test_it_is_large_and_asks_every_known_noun_and_no_other(exam: list[Question]) -> None:
    assert len(exam) >= 560
    known = set(nouns()) - set(held_out())
    assert {q.truth.things[0].noun for q in exam if q.section == "single"} == known
    assert {thing.noun for q in exam for thing in q.truth.things} <= known
    assert {q.truth.look for q in exam} == {"none", *STYLES}
    assert not any(f" {style}" in q.prompt for q in exam for style in HELD_OUT_STYLES)


def test_it_is_even_over_shapes_grounds_colours_styles_and_counts(exam: list[Question]) -> None:
    shapes = Counter(q.truth.shape for q in exam)
    assert set(shapes) == set(BUCKETS)
    assert 0.4 < shapes["square"] / len(exam) < 0.6
    grounds = Counter(q.truth.ground for q in exam)
    assert max(grounds.values()) < 3 * min(grounds.values())
    for section, head, each in (("colour", "colour", 3), ("style", "style", 4), ("count", "count", 12),
                                ("expression", "expression", 4), ("pose", "pose", 3)):  # fmt: skip
        labels = Counter(answers(q.truth)[head] for q in exam if q.section == section)
        assert set(labels.values()) == {each}


def test_new_combinations_are_those_that_training_leaves_out(exam: list[Question]) -> None:
    new = [q for q in exam if q.section == "new"]
    assert len(new) >= 40
    for q in new:
        thing = q.truth.things[0]
        assert unseen(thing.noun, colour=thing.colour) or unseen(thing.noun, look=q.truth.look)
    assert not any(q.new for q in exam if q.section != "new")


def test_only_what_a_prompt_says_is_asked(exam: list[Question]) -> None:
    for q in exam:
        said = answers(q.truth)
        if "style" in q.asked:
            assert q.truth.look in q.prompt
        if "colour" in q.asked:
            assert f"{said['colour']} " in q.prompt
        for head in {"expression", "pose", "view", "light"} & set(q.asked):
            assert any(words in q.prompt for words in forms_of(head, said[head]))
        assert ("order" in q.asked) <= (len(q.truth.things) == 2)
        assert "count" not in q.asked or q.section == "count"


def test_the_oracle_is_the_scene_that_the_words_were_taken_from(exam: list[Question]) -> None:
    for _, rows in by_shape(exam):
        some = rows[:3]
        scenes = oracle(exam, some)
        for row, dice, place in zip(told(scenes), scenes.words.tolist(), some, strict=True):
            assert prompt_of(row, dice)[0] == exam[place].prompt
            assert answers(row) == answers(exam[place].truth)


def test_a_perfect_judge_finds_the_oracle_right_in_everything(exam: list[Question], labels: Labels) -> None:
    found = marks(perfect(exam, labels), exam)
    assert {
        "object",
        "pair",
        *SIDES.values(),
        "pattern",
        "count",
        "binding",
        "relation",
        "colour and object",
        "style and object",
    } <= set(found)
    assert all(np.nanmean(values) == 1 for values in found.values())


def test_shuffled_prompts_are_answered_by_chance(exam: list[Question], labels: Labels) -> None:
    mixed = np.random.default_rng(0).permutation(len(exam))
    found = marks(perfect(exam, labels)[mixed], exam)
    assert np.nanmean(found["object"]) < 0.03
    assert np.nanmean(found["pair"]) < 0.05
    assert np.nanmean(found["background"]) < 0.15
    assert np.nanmean(found["binding"]) < 0.05


def test_swapped_things_are_found_but_in_the_wrong_order(exam: list[Question], labels: Labels) -> None:
    pairs = [q for q in exam if "order" in q.asked]
    right = perfect(pairs, labels)
    swap = {"first": "second", "second": "first", "first_colour": "second_colour", "second_colour": "first_colour"}
    other = {head: right.probability[swap.get(head, head)] for head in right.probability}
    found = marks(Judgement(right.labels, right.synonyms, other, right.embedding), pairs)
    assert np.nanmean(found["pair"]) == 1
    assert all(np.nanmean(found[side]) == 0 for side in SIDES.values())
    assert np.nanmean(found["binding"]) == 1


def test_swapped_colours_are_no_binding(exam: list[Question], labels: Labels) -> None:
    pairs = [q for q in exam if q.section == "binding" and len({thing.colour for thing in q.truth.things}) == 2]
    right = perfect(pairs, labels)
    swap = {"first_colour": "second_colour", "second_colour": "first_colour"}
    other = {head: right.probability[swap.get(head, head)] for head in right.probability}
    assert np.nanmean(marks(Judgement(right.labels, right.synonyms, other, right.embedding), pairs)["binding"]) == 0


def test_a_ground_that_goes_without_saying_is_not_asked(exam: list[Question]) -> None:
    row = exam[0].truth
    assert not says(row, "background", row.ground, "a fox")
