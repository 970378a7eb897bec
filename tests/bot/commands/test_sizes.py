"""--size, --upscale and --transparent on a base that has shapes and delivers four times as large."""

from pathlib import Path

import pytest
from PIL import Image

from engine import recipes
from engine.plans import ImagePlan
from tests.bot.commands.conftest import BASE_TOML, Said
from tests.bot.commands.test_mistakes import Atelier
from tests.fakes.executor import FakeExecutor

SHAPED = BASE_TOML.replace("multiple = 32\nmin = 64\nmax = 256\n", """multiple = 16
min = 48
max = 256
buckets = [[64, 64], [48, 80], [80, 48], [144, 48]]
[deliver]
upscale = 4
""")  # fmt: skip


@pytest.fixture(autouse=True)
def shaped(home: Path) -> None:
    assert SHAPED != BASE_TOML
    (home / "bases" / "paper" / "base.toml").write_text(SHAPED)


def plan(executors: list[FakeExecutor]) -> ImagePlan:
    found = executors[-1].plans[-1]
    assert isinstance(found, ImagePlan)
    return found


@pytest.mark.parametrize(
    ("options", "size", "upscale"),
    [
        ((), (64, 64), 4),
        (("--size", "story"), (48, 80), 4),
        (("--size", "9:16"), (48, 80), 4),
        (("--size", "Banner"), (144, 48), 4),
        (("--size", "1080x1080"), (64, 64), 4),
        (("--size", "64"), (64, 64), 1),
        (("--size", "64", "--upscale", "4"), (64, 64), 4),
        (("--upscale", "1"), (64, 64), 1),
    ],
)
def test_a_shape_a_ratio_or_pixels_and_how_large_a_file(
    atelier: Atelier, executors: list[FakeExecutor], options: tuple[str, ...], size: tuple[int, int], upscale: int
) -> None:
    said = atelier("draw", "a mug", *options, "--json")
    assert said.code == 0
    drawn = plan(executors)
    assert (drawn.width, drawn.height, drawn.upscale) == (*size, upscale)
    (facts,) = said.json["pictures"]
    assert (facts["width"], facts["height"], facts["upscale"]) == (size[0] * upscale, size[1] * upscale, upscale)


def test_what_is_not_as_asked_for_is_noted(atelier: Atelier) -> None:
    said = atelier("draw", "a mug", "--size", "728x90", "--json")
    assert said.json["notes"] == ["Paper draws no 728x90: its nearest shape is 3:1, delivered at 576x192."]


def test_a_transparent_picture_is_asked_for_and_said(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    said = atelier("draw", "a mug", "--transparent", "--json")
    assert plan(executors).transparent
    assert said.json["pictures"][0]["transparent"]


def test_a_grid_is_drawn_small(atelier: Atelier, executors: list[FakeExecutor]) -> None:
    assert atelier("grid", "a fox", "--lora", "mika:0.5,1").code == 0
    assert plan(executors).upscale == 1


def edited(atelier: Atelier, folder: Path, size: tuple[int, int], *, mask: bool) -> Said:
    Image.new("RGB", size, "teal").save(folder / "a.png")
    Image.new("L", size, 255).save(folder / "mask.png")
    return atelier("edit", folder / "a.png", "a mug", *(("--mask", folder / "mask.png") if mask else ()), "--json")


def test_a_delivered_picture_is_edited_at_its_own_size(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    for size, mask, upscale in (
        ((256, 256), True, 4),
        ((64, 64), True, 1),
        ((64, 64), False, 4),
        ((256, 256), False, 4),
    ):
        assert edited(atelier, tmp_path, size, mask=mask).code == 0
        assert (plan(executors).width, plan(executors).height, plan(executors).upscale) == (64, 64, upscale)


def test_what_is_cut_off_is_said(atelier: Atelier, tmp_path: Path) -> None:
    said = edited(atelier, tmp_path, (400, 200), mask=False)
    assert said.json["notes"] == ["The picture is drawn as 5:3, so 17 % of it, at its edges, is left out."]


def test_a_delivered_picture_is_drawn_again_as_it_was(
    atelier: Atelier, executors: list[FakeExecutor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = atelier("draw", "a mug", "--size", "story", "--transparent").out.strip()
    first = plan(executors)
    assert atelier("draw", "--again", file).code == 0
    assert plan(executors) == first
    monkeypatch.setattr(recipes, "COMPANIONS", tmp_path)
    (tmp_path / "upscaler").mkdir()
    (tmp_path / "upscaler" / "weights.safetensors").write_bytes(b"other")
    said = atelier("draw", "--again", file, "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert "the upscaler that worked on it is another one now" in said.error["message"]


def test_why_compares_delivered_pictures(atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path) -> None:
    for option in ((), ("--transparent",)):
        file = atelier("draw", "a fox", "--lora", "mika:1", "--seed", 3, *option).out.strip()
        said = atelier("why", file, "--out", tmp_path / "why.png", "--json")
        assert said.code == 0
        assert [drawn.upscale for drawn in executors[-1].plans if isinstance(drawn, ImagePlan)] == [4]  # the base alone
        assert (said.json["panels"][0]["change"] == 0) is bool(option)  # what is transparent is white in both
