import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from engine import bases
from engine.plans import ImagePlan
from tests.bot.commands.conftest import Said
from tests.fakes import executor as fakes
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


@pytest.fixture
def picture(atelier: Atelier) -> Path:
    """A mug in two LoRAs."""
    return Path(atelier("draw", "a mug", "--lora", "coral:0.5", "--lora", "fold-mug:1", "--seed", 7).out.strip())


def saved_again(picture: Path, to: Path, size: tuple[int, int]) -> Path:
    """The picture at another size, its recipe with it."""
    with Image.open(picture) as image:
        info = PngImagePlugin.PngInfo()
        for key, text in image.text.items():  # type: ignore[attr-defined]
            info.add_text(key, text)
        image.resize(size).save(to, pnginfo=info)
    return to


def test_json_has_the_promised_shape(atelier: Atelier, picture: Path, tmp_path: Path) -> None:
    said = atelier("why", picture, "--out", tmp_path / "new" / "why.png", "--json")
    assert (said.code, set(said.json)) == (0, {"file", "picture", "panels"})
    assert (said.json["file"], said.json["picture"]) == (str(tmp_path / "new" / "why.png"), str(picture))
    coral, mug = {"name": "coral", "weight": 0.5}, {"name": "fold-mug", "weight": 1.0}
    panels = [(p["label"], p["loras"], p["prompt"]) for p in said.json["panels"]]
    assert panels == [
        ("the base alone", [], "a mug"),
        ("without coral", [mug], "a fmg mug"),
        ("without fold-mug", [coral], "trc a mug"),
        ("all together", [coral, mug], "trc a fmg mug"),
    ]
    changes = [p["change"] for p in said.json["panels"]]
    assert all(0 < change <= 100 for change in changes[:-1])
    assert changes[-1] == 0
    with Image.open(said.json["file"]) as sheet:
        assert sheet.width > 4 * 256


def test_what_is_at_hand_is_not_drawn_again(atelier: Atelier, executors: list[FakeExecutor], picture: Path) -> None:
    assert atelier("why", picture).code == 0
    drawn = [plan for plan in executors[-1].plans if isinstance(plan, ImagePlan)]
    assert [[ref.name for ref in plan.stack.refs] for plan in drawn] == [[], ["fold-mug"], ["coral"]]
    assert {(plan.seed, plan.count) for plan in drawn} == {(7, 1)}


def test_the_sheet_lands_under_the_home_and_the_numbers_on_stderr(atelier: Atelier, picture: Path, home: Path) -> None:
    said = atelier("why", picture)
    assert Path(said.out.strip()).name == "why.png"
    assert home in Path(said.out.strip()).parents
    assert "without coral: mean difference " in said.err


def test_a_picture_of_another_size_or_machine_is_drawn_again_to_be_compared(
    atelier: Atelier, executors: list[FakeExecutor], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert atelier("why", saved_again(picture, tmp_path / "half.png", (32, 32))).code == 0
    assert len(executors[-1].plans) == 4
    monkeypatch.setitem(fakes.MADE_WITH, "device", "another")
    assert atelier("why", picture).code == 0
    assert len(executors[-1].plans) == 4


def test_an_edited_picture_is_explained_over_the_same_picture(
    atelier: Atelier, executors: list[FakeExecutor], pictures: Path
) -> None:
    edited = atelier("edit", pictures / "03.png", "a mug", "--lora", "coral:0.5", "--strength", 0.4).out.strip()
    assert atelier("why", edited).code == 0
    (alone,) = executors[-1].plans
    assert isinstance(alone, ImagePlan)
    assert (alone.strength, alone.stack.refs) == (0.4, ())
    assert alone.image is not None


def test_refusals_come_before_anything_is_drawn(
    atelier: Atelier, executors: list[FakeExecutor], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = atelier("draw", "a mug", "--seed", 8).out.strip()

    def refused(words: tuple[object, ...], code: str, sentence: str) -> None:
        said = atelier("why", *words, "--json")
        assert (said.code, said.error["code"]) == (2, code)
        assert sentence in said.error["message"]
        assert said.error["hint"]
        assert not executors[-1].plans

    refused((plain,), "invalid", "8.png: the base alone drew it: there is nothing to take away.")
    refused((picture, "--out", tmp_path), "invalid", "it is a folder")
    (tmp_path / "shipped" / "coral" / "weights.safetensors").write_bytes(b"other")
    refused((picture,), "unlike_its_card", "The LoRA “coral” is not as its card says")
    (tmp_path / "shipped" / "coral" / "lora.toml").unlink()
    refused((picture,), "unknown_lora", "There is no LoRA named “coral”.")
    monkeypatch.setattr(bases, "fingerprint", lambda _: "0" * 64)
    refused((picture,), "invalid", "7.png: the base “paper” is another one now than when it was drawn.")
    again = atelier("draw", "--again", picture, "--json")
    assert again.error["message"] == "7.png: the base “paper” is another one now than when it was drawn."


def test_a_failure_midway_leaves_no_sheet(
    atelier: Atelier, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeExecutor, "breaks_with", RuntimeError("broken"))
    said = atelier("why", picture, "--out", tmp_path / "why.png", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (1, "fault")
    assert not (tmp_path / "why.png").exists()
