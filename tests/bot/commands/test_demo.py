from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bot import demo
from bot.message import Attachment
from engine import recipes
from engine.errors import OutOfMemory
from engine.plans import TrainPlan
from tests.bot.commands.conftest import Said, png
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Twelve pictures without the renderer; the demo's own home has the small base."""

    def drawn(subject: str, seed: int, folder: Path, side: int) -> tuple[Attachment, ...]:
        folder.mkdir()
        return tuple(Attachment(name=f"{k}.png", data=png(64, k)) for k in range(12))

    def prepare(folder: Path) -> Path:
        own = prepared(folder)
        (own / "bases").mkdir(parents=True)
        (own / "bases" / "paper").symlink_to(home / "bases" / "paper")
        return own

    prepared = demo.prepare
    monkeypatch.setattr(demo, "draw_training_pictures", drawn)
    monkeypatch.setattr(demo, "prepare", prepare)


@pytest.mark.usefixtures("scenes")
def test_demo_leaves_pictures_transcript_and_contact_sheet(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    said = atelier("demo", "--out", tmp_path / "demo", "--json")
    assert said.code == 0, said.err
    pictures = [Path(file) for file in said.json["pictures"]]
    assert len(pictures) == 6
    assert {file.parent for file in pictures} == {tmp_path / "demo"}
    transcript = (tmp_path / "demo" / "transcript.md").read_text()
    assert all(file.name in transcript for file in pictures)
    with Image.open(said.json["sheet"]) as sheet:
        assert sheet.width > 4 * 224
    assert len([plan for plan in executors[-1].plans if isinstance(plan, TrainPlan)]) == 1


@pytest.mark.usefixtures("scenes")
def test_the_new_lora_is_used_alone_and_stacked_with_a_brand(atelier: Atelier, tmp_path: Path) -> None:
    files = atelier("demo", "--out", tmp_path / "demo", "--json").json["pictures"]
    *_, alone, stacked = ([x["name"] for x in recipes.read_recipe(Path(f).read_bytes(), f)["loras"]] for f in files)
    assert len(alone) == 1
    assert sorted([*alone, "coral"]) == sorted(stacked)


@pytest.mark.usefixtures("scenes")
def test_one_seed_draws_the_same_pictures_and_another_seed_others(atelier: Atelier, tmp_path: Path) -> None:
    def pixels(seed: int) -> list[bytes]:
        made = atelier("demo", "--out", tmp_path / "demo", "--seed", seed, "--json").json
        return [Image.open(file).tobytes() for file in made["pictures"][:4]]

    first = pixels(1)
    assert pixels(1) == first
    assert all(a != b for a, b in zip(pixels(2), first, strict=True))


@pytest.mark.usefixtures("scenes")
def test_a_demo_that_does_not_work_ends_with_1(
    atelier: Atelier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeExecutor, "breaks_with", OutOfMemory("draw that"))
    said = atelier("demo", "--out", tmp_path / "demo", "--json")
    assert (said.code, said.error["code"]) == (1, "fault")
