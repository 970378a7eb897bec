"""The table of what was learnt: what counts as recognised, as followed and as near."""

import numpy as np

from benchmarks import heldout
from engine.evaluation.judge import Judgement
from engine.pocket.lexicon import held_out
from engine.pocket.looks import HELD_OUT_STYLES
from engine.pocket.scenes import base_menu, told

OWL = next(pupil for pupil in heldout.pupils() if pupil.name == "owl")


def judgement(**probability: list[list[float]]) -> Judgement:
    labels = {"object": ("fox", "owl"), "background": ("grass", "snow")}
    table = {head: np.array(rows) for head, rows in probability.items()}
    return Judgement(labels, {}, table, np.ones((len(next(iter(table.values()))), 1)))


def test_24_subjects_and_6_styles_are_learnt_each_with_seeds_of_its_own() -> None:
    pupils = heldout.pupils()
    assert {pupil.name for pupil in pupils} == {*held_out(), *HELD_OUT_STYLES}
    assert len(pupils) == 30 == len({pupil.seed for pupil in pupils})


def test_a_near_noun_is_one_that_the_base_knows() -> None:
    assert set(heldout.NEAR) == set(held_out())
    assert set(heldout.NEAR.values()) <= set(base_menu().nouns)


def test_recognised_is_more_than_a_half_or_more_than_any_other_noun() -> None:
    found = judgement(object=[[0.9, 0.6], [0.1, 0.2], [0.9, 0.4]])
    assert heldout.known(found, OWL).tolist() == [True, True, False]


def test_new_scenes_are_other_scenes_told_by_the_trigger() -> None:
    new = heldout.new_scenes(OWL)
    assert sum(len(lines) for _, lines in new.values()) >= 16
    assert all("[trigger]" in line for _, lines in new.values() for line in lines)
    assert not any("owl" in line for _, lines in new.values() for line in lines)
    assert "owl" in heldout.without_trigger("a [trigger] on the grass", OWL)


def test_what_a_scene_does_not_show_is_not_asked() -> None:
    scenes, _ = heldout.new_scenes(OWL)["square"]
    row = told(scenes)[0]._replace(look="none", ground="snow")
    hidden = row._replace(look="coral-stripe")
    found = judgement(background=[[0.1, 0.9], [0.1, 0.9]])
    assert heldout.follows(found, [row, hidden], "background") == (1, 1)


def test_the_table_has_a_line_for_each_and_the_totals() -> None:
    row = {
        "name": "owl", "sort": "character", "recognised": 0.75, "oracle": 1.0, "base": 0.0, "leak": 0.0, "drift": 0.01,
        "seconds": 15.0, "follows": dict.fromkeys(heldout.HEADS, (3, 4)), "kept": [1.0, 1.0],
        "oracle follows": dict.fromkeys(heldout.HEADS, (0, 0)),
    }  # fmt: skip
    text = heldout.markdown([row], heldout.summary([row, row | {"name": "robot"}]))
    assert "| owl | character | 75% | 100% | 0% | 75% |" in text
    assert "Recognised on 75.0%" in text
