"""Prompts with marks on the command line: what reaches the plan, and what is said of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.plans import ImagePlan
from engine.prompts import MARKED
from tests.bot.commands.conftest import Said
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]
CHOICE = "a {red|teal|grey} {mug|fox}"


def plan(executors: list[FakeExecutor]) -> ImagePlan:
    drawn = executors[-1].plans[-1]
    assert isinstance(drawn, ImagePlan)
    return drawn


def test_the_seed_chooses_the_words_and_the_recipe_holds_them(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    said = [atelier("draw", CHOICE, "--seed", 7, "--json").json for _ in range(2)]
    (prompt,) = {one["pictures"][0]["prompt"] for one in said}
    assert "{" not in prompt
    assert f"by seed 7: “{prompt}”" in said[0]["notes"]
    drawn = {atelier("draw", CHOICE, "--seed", seed, "--json").json["pictures"][0]["prompt"] for seed in range(12)}
    assert len(drawn) > 3
    assert plan(executors).syntax == MARKED


def test_a_seed_that_is_drawn_is_the_one_that_chose(atelier: Atelier) -> None:
    first = atelier("draw", CHOICE, "--json").json["pictures"][0]
    again = atelier("draw", CHOICE, "--seed", first["seed"], "--json").json["pictures"][0]
    assert again["prompt"] == first["prompt"]


def test_a_choice_may_name_loras(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    for seed in range(8):
        atelier("draw", "a mug {<lora:coral:0.5>|<lora:mika:1>}", "--seed", seed)
        assert [ref.name for ref in plan(executors).stack.refs] in (["coral"], ["mika"])
        assert "<" not in plan(executors).prompt


def test_wildcards_come_from_the_home_for_prompt_and_negative(
    atelier: Atelier, executors: list[FakeExecutor], home: Path
) -> None:
    (home / "wildcards").mkdir()
    (home / "wildcards" / "things.txt").write_text("mug\nfox\n")
    atelier("draw", "a __things__", "--negative", "{__things__|beach}", "--seed", 1)
    assert plan(executors).prompt in ("a mug", "a fox")
    assert plan(executors).negative in ("mug", "fox", "beach")
    said = atelier("draw", "a __nothing__", "--json")
    assert said.code == 2
    assert "wildcards/nothing.txt" in said.error["message"]


def test_a_grid_has_one_choice_for_all_its_pictures(atelier: Atelier) -> None:
    shown = atelier("grid", CHOICE, "--lora", "coral:0.4,0.8", "--seeds", 2, "--seed", 3, "--json").json["pictures"]
    assert len(shown) == 4
    assert len({picture["prompt"] for picture in shown}) == 1


def test_marks_are_no_words_that_the_base_does_not_know(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    said = atelier("draw", r"a (teal:1.4) fox BREAK [a mug:0.8], ((red)) \(grey\)", "--json").json
    assert "notes" not in said
    assert plan(executors).prompt == r"a (teal:1.4) fox BREAK [a mug:0.8], ((red)) \(grey\)"
    assert any("zeppelin" in note for note in atelier("draw", "a (zeppelin:1.4)", "--json").json["notes"])


def test_a_trigger_goes_into_the_brackets_of_its_word(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a (fox:1.3) at the beach", "--lora", "mika:1")
    assert plan(executors).prompt == "a (mka fox:1.3) at the beach"


@pytest.mark.parametrize("option", ["prompt", "--negative"])
def test_a_weight_out_of_range_is_refused_before_anything_is_drawn(
    atelier: Atelier, executors: list[FakeExecutor], option: str
) -> None:
    words = ["a (fox:9)"] if option == "prompt" else ["a fox", "--negative", "(fox:9)"]
    said = atelier("draw", *words, "--json")
    assert said.code == 2
    assert "weight 9 of “fox”" in said.error["message"]
    assert not executors[-1].plans
