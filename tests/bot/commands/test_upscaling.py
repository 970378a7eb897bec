"""upscalers, upscale, and draw with an upscaler of one's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.plans import ImagePlan
from tests.bot.commands.conftest import Said
from tests.engine.studio import png
from tests.engine.test_upscalers import rrdb_state, saved
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


def plan(executors: list[FakeExecutor]) -> ImagePlan:
    drawn = executors[-1].plans[-1]
    assert isinstance(drawn, ImagePlan)
    return drawn


@pytest.fixture
def own(atelier: Atelier, tmp_path: Path) -> str:
    assert atelier("upscalers", "add", saved(rrdb_state(), tmp_path / "Ultra.safetensors")).code == 0
    twice = saved(rrdb_state(fold=2), tmp_path / "b.safetensors")
    assert atelier("upscalers", "add", twice, "--name", "twice").code == 0
    return "ultra"


def test_upscalers_are_listed_with_what_they_are(atelier: Atelier, own: str) -> None:
    listed = atelier("upscalers", "--json").json
    assert [(one["name"], one["scale"], one["blocks"]) for one in listed["upscalers"]] == [("twice", 2, 2), (own, 4, 2)]
    assert "RRDBNet, 8 channels, 2 blocks" in atelier("upscalers").out
    for words in (("add",), ("list", "a.safetensors"), ("list", "--name", "a")):
        assert atelier("upscalers", *words).code == 2


def test_draw_with_an_upscaler_and_detail(atelier: Atelier, executors: list[FakeExecutor], own: str) -> None:
    said = atelier("draw", "a mug", "--upscaler", "ULTRA", "--detail", "0.2", "--json")
    assert (plan(executors).upscaler, plan(executors).upscale, plan(executors).detail) == (own, 4, 0.2)
    (facts,) = said.json["pictures"]
    assert (facts["width"], facts["upscaler"], facts["detail"]) == (256, own, 0.2)
    atelier("draw", "a mug", "--upscaler", "twice")
    assert plan(executors).upscale == 2
    for words in (("--upscaler", "none"), ("--upscaler", "twice", "--upscale", "4"), ("--detail", "2"),
                  ("--upscaler", own, "--upscale", "1")):  # fmt: skip
        assert atelier("draw", "a mug", *words).code == 2


def test_a_picture_of_ours_brings_its_recipe(atelier: Atelier, executors: list[FakeExecutor], own: str) -> None:
    picture = atelier("draw", "a mug", "--lora", "coral:0.5", "--seed", "7").out.strip()
    first = plan(executors)
    said = atelier("upscale", picture, "--upscaler", own, "--detail", "0.2")
    assert said.code == 0
    made = plan(executors)
    assert (made.prompt, made.seed, made.stack, made.base) == (first.prompt, 7, first.stack, first.base)
    assert (made.strength, made.upscale, made.delivered, made.count) == (0, 4, (256, 256), 1)
    again = atelier("upscale", said.out.strip(), "--scale", "2")
    assert again.code == 0
    assert plan(executors).delivered == (512, 512)
    assert plan(executors).upscaler == ""


def test_any_other_picture_needs_a_prompt_for_detail_alone(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(size=(50, 41)))
    assert atelier("upscale", tmp_path / "a.png", "--scale", "2").code == 0
    assert (plan(executors).delivered, plan(executors).prompt) == ((100, 82), "")
    said = atelier("upscale", tmp_path / "a.png", "--detail", "0.2", "--json")
    assert (said.code, "--prompt" in said.error["message"]) == (2, True)
    assert atelier("upscale", tmp_path / "a.png", "--detail", "0.2", "--prompt", "a mug").code == 0
    assert (plan(executors).prompt, plan(executors).detail) == ("a mug", 0.2)


def test_the_same_file_is_needed_to_draw_it_again(atelier: Atelier, own: str, home: Path, tmp_path: Path) -> None:
    """The recipe of the fake pins no file, so that any is another one."""
    picture = atelier("draw", "a mug", "--upscaler", own).out.strip()
    said = atelier("draw", "--again", picture, "--json")
    assert (said.code, "another file now" in said.error["message"]) == (2, True)
