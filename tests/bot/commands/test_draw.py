import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from engine import recipes
from engine.plans import ImagePlan
from tests.bot.commands.conftest import Said
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


def plan(executors: list[FakeExecutor]) -> ImagePlan:
    drawn = executors[-1].plans[-1]
    assert isinstance(drawn, ImagePlan)
    return drawn


def test_json_has_the_promised_shape(atelier: Atelier) -> None:
    said = atelier("draw", "a mug", "--lora", "coral:0.5", "--seed", 7, "-n", 2, "--json")
    assert said.code == 0
    assert set(said.json) == {"pictures"}
    first, second = said.json["pictures"]
    assert set(first) == {
        "file", "seed", "prompt", "negative", "base", "steps", "guidance", "width", "height", "upscale", "transparent",
        "upscaler", "detail", "loras",
    }  # fmt: skip
    assert (first["seed"], second["seed"]) == (7, 8)
    assert [set(lora) for lora in first["loras"]] == [{"name", "weight", "sha256"}]
    assert Path(first["file"]).is_file()


def test_stdout_is_one_path_a_line(atelier: Atelier, home: Path) -> None:
    said = atelier("draw", "a mug", "-n", 3)
    files = said.out.splitlines()
    assert len(files) == 3
    assert all(Path(file).is_file() and home in Path(file).parents for file in files)


def test_what_is_not_said_comes_from_the_base(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a mug")
    drawn = plan(executors)
    assert (drawn.base, drawn.width, drawn.height, drawn.steps, drawn.guidance) == ("paper", 64, 64, 3, 4.0)


def test_every_option_reaches_the_plan(atelier: Atelier, executors: list[FakeExecutor], pictures: Path) -> None:
    options = ["--negative", "red", "--steps", 9, "--guidance", 2.5, "--sampler", "euler", "--size", "96x128"]
    atelier("draw", "a mug", *options, "--image", pictures / "00.png", "--strength", 0.3, "--base", "paper")
    drawn = plan(executors)
    assert (drawn.negative, drawn.steps, drawn.guidance, drawn.sampler) == ("red", 9, 2.5, "euler")
    assert (drawn.width, drawn.height, drawn.strength) == (96, 128, 0.3)
    assert drawn.image is not None


def test_nothing_is_added_but_what_was_named(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a mug")
    assert (plan(executors).prompt, plan(executors).stack.refs) == ("a mug", ())


@pytest.mark.parametrize(
    ("prompt", "drawn"),
    [
        ("a teal fox", "a teal mka fox"),
        ("a mka fox", "a mka fox"),
        ("at the beach", "mka fox, at the beach"),
        ("MKA at the beach", "MKA at the beach"),
    ],
)
def test_the_trigger_is_put_in_where_it_is_absent(
    atelier: Atelier, executors: list[FakeExecutor], prompt: str, drawn: str
) -> None:
    atelier("draw", prompt, "--lora", "mika:1")
    assert plan(executors).prompt == drawn


def test_a_word_is_drawn_in_the_spelling_of_the_base(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    said = atelier("draw", "a gray fox on Teal", "--json")
    assert plan(executors).prompt == "a grey fox on Teal"
    assert "notes" not in said.json


def test_no_trigger_leaves_the_prompt_alone(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a fox", "--lora", "mika:1", "--no-trigger")
    assert plan(executors).prompt == "a fox"


def test_weight_0_is_the_same_as_no_lora(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a fox", "--lora", "mika:0", "--seed", 1)
    at_zero = plan(executors)
    atelier("draw", "a fox", "--seed", 1)
    assert at_zero == plan(executors)


def test_a_tag_names_a_lora_and_leaves_the_prompt(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a mug <lora:Coral:-0.5> at the beach", "--no-trigger")
    (ref,) = plan(executors).stack.refs
    assert (plan(executors).prompt, ref.name, ref.weight) == ("a mug at the beach", "coral", -0.5)


def test_a_lora_without_a_weight_has_its_cards(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    atelier("draw", "a mug", "--lora", "coral")
    assert plan(executors).stack.refs[0].weight == 0.8


def test_an_unknown_word_is_named_with_neighbours(atelier: Atelier) -> None:
    said = atelier("draw", "a zeppelin", "--json")
    assert said.json["notes"] == ["no “zeppelin” on Paper; nearest: airship, balloon, mug"]
    assert "zeppelin" in said.err


def test_again_draws_the_recipe_of_a_picture_pixel_for_pixel(atelier: Atelier, pictures: Path, tmp_path: Path) -> None:
    first = atelier("draw", "a fox", "--lora", "mika:0.7", "--image", pictures / "01.png", "-n", 2).out.splitlines()[1]
    second = atelier("draw", "--again", first, "--out", tmp_path / "again").out.strip()
    assert Path(second).parent == tmp_path / "again"
    with Image.open(first) as a, Image.open(second) as b:
        assert a.tobytes() == b.tobytes()
    assert recipes.read_recipe(Path(first).read_bytes(), "a") == recipes.read_recipe(Path(second).read_bytes(), "b")


def test_again_takes_no_options_that_would_change_the_picture(atelier: Atelier) -> None:
    said = atelier("draw", "--again", "x.png", "--seed", 3, "--lora", "mika:1")
    assert said.code == 2
    assert "lora, seed" in said.err


def test_again_on_a_picture_without_a_recipe_says_so(atelier: Atelier, pictures: Path) -> None:
    said = atelier("draw", "--again", pictures / "00.png", "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert "carries no recipe" in said.error["message"]


def test_edit_keeps_the_pictures_own_size(atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), "teal").save(tmp_path / "wide.png")
    Image.new("L", (200, 100), 255).save(tmp_path / "mask.png")
    said = atelier("edit", tmp_path / "wide.png", "a mug", "--mask", tmp_path / "mask.png", "--strength", 0.9)
    assert said.code == 0
    drawn = plan(executors)
    assert (drawn.width, drawn.height, drawn.strength) == (192, 96, 0.9)
    assert drawn.mask is not None


def test_edit_brings_a_large_picture_into_what_the_base_draws(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    Image.new("RGB", (1200, 900), "teal").save(tmp_path / "large.png")
    atelier("edit", tmp_path / "large.png", "a mug")
    assert (plan(executors).width, plan(executors).height) == (256, 192)


def test_grid_has_a_column_a_weight_and_a_row_a_seed(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheets" / "mika.png"
    said = atelier("grid", "a fox", "--lora", "mika:0,0.5,1", "--seeds", 5, "--out", sheet, "--json")
    assert (said.code, said.json["file"], len(said.json["pictures"])) == (0, str(sheet), 15)
    with Image.open(sheet) as image:
        assert image.width > 3 * 224
        assert image.height > 5 * 224
    prompts = {drawn.prompt for drawn in executors[-1].plans if isinstance(drawn, ImagePlan)}
    assert prompts == {"a mka fox"}  # the weight alone differs


def test_grid_varies_one_lora_and_holds_the_others(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    said = atelier("grid", "a fox", "--lora", "mika:0.5,1", "--lora", "coral:0.8", "--seeds", 1)
    assert said.code == 0
    stacks = [{r.name: r.weight for r in p.stack.refs} for p in executors[-1].plans if isinstance(p, ImagePlan)]
    assert stacks == [{"mika": 0.5, "coral": 0.8}, {"mika": 1.0, "coral": 0.8}]


def test_an_engine_that_fails_leaves_the_next_request_unaffected(
    atelier: Atelier, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr(FakeExecutor, "draw", lambda *_: 1 / 0)
    said = atelier("draw", "a mug", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (1, "fault")
    assert not list((home / "pictures").rglob("*"))
    monkeypatch.undo()
