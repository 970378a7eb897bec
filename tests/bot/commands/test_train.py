from collections.abc import Callable
from pathlib import Path

import pytest

from engine import catalog as catalogs
from engine.errors import DiskFull, OutOfMemory, TrainingDiverged
from engine.plans import TrainPlan
from tests.bot.commands.conftest import Said
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


def words(folder: Path, *more: object) -> tuple[object, ...]:
    return ("train", folder, "--name", "crab", "--kind", "subject", "--trigger", "zqx", "--class", "crab", *more)


def test_json_has_the_promised_shape(atelier: Atelier, pictures: Path, home: Path) -> None:
    said = atelier(*words(pictures, "--rank", 8, "--steps", 5, "--json"))
    assert said.code == 0
    names = {"name", "folder", "trigger", "kind", "base", "rank", "sha256", "steps", "seconds", "final_loss"}
    names |= {"dataset"}
    assert set(said.json) == names
    assert (said.json["rank"], said.json["steps"], said.json["trigger"]) == (8, 5, "zqx")
    assert Path(said.json["folder"]) == home / "loras" / "crab"


def test_step_and_loss_are_said_on_stderr(atelier: Atelier, pictures: Path) -> None:
    said = atelier(*words(pictures))
    assert "training 3/3, loss 0.1667" in said.err
    assert said.out.splitlines() == [str(Path(said.out.strip()))]


def test_every_option_reaches_the_plan(atelier: Atelier, pictures: Path, executors: list[FakeExecutor]) -> None:
    options = ("--caption", "[trigger], teal background", "--prior", "class", "--seed", 5, "--base", "paper")
    atelier(*words(pictures, *options))
    plan = executors[-1].plans[-1]
    assert isinstance(plan, TrainPlan)
    assert (plan.prior, plan.seed, plan.word, plan.kind, plan.base) == ("class", 5, "crab", "subject", "paper")
    assert {example.caption for example in plan.examples} == {"zqx crab, teal background"}


def test_the_new_lora_is_used_in_the_next_request(atelier: Atelier, pictures: Path) -> None:
    atelier(*words(pictures))
    assert atelier("draw", "a crab", "--lora", "crab:1", "--json").json["pictures"][0]["prompt"] == "a zqx crab"


@pytest.mark.parametrize("wrong", [("--trigger", "z" * 65), ("--trigger", "z\x1bx"), ("--caption", "a \udcff")])
def test_words_that_no_card_takes_are_refused_before_anything_is_trained(
    atelier: Atelier, pictures: Path, executors: list[FakeExecutor], wrong: tuple[str, str]
) -> None:
    said = atelier(*words(pictures, "--json", *wrong))
    assert (said.code, said.error["code"], executors[-1].plans) == (2, "invalid", [])


def test_a_taken_name_is_refused_before_anything_is_trained(
    atelier: Atelier, pictures: Path, executors: list[FakeExecutor]
) -> None:
    atelier(*words(pictures))
    said = atelier(*words(pictures, "--json"))
    assert (said.code, said.error["code"]) == (2, "name_taken")
    assert executors[-1].plans == []
    assert atelier(*words(pictures, "--replace")).code == 0


def test_a_shipped_name_cannot_be_replaced(atelier: Atelier, pictures: Path) -> None:
    said = atelier("train", pictures, "--name", "mika", "--kind", "style", "--trigger", "zqx", "--replace", "--json")
    assert (said.code, said.error["code"]) == (2, "shipped_name")


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (TrainingDiverged(2), 1, "training_diverged"),
        (OutOfMemory("train that"), 3, "out_of_memory"),
        (DiskFull("/home"), 3, "disk_full"),
        (KeyboardInterrupt(), 130, "cancelled"),
    ],
)
def test_a_training_that_ends_early_leaves_nothing(
    atelier: Atelier, pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch,
    error: BaseException, code: int, name: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(FakeExecutor, "breaks_with", error)
    said = atelier(*words(pictures, "--json"))
    assert (said.code, said.error["code"]) == (code, name)
    assert not (home / "loras").exists() or not list((home / "loras").glob("[!.]*"))
    monkeypatch.setattr(FakeExecutor, "breaks_with", None)
    assert atelier(*words(pictures)).code == 0


def test_ctrl_c_in_mid_training_leaves_nothing(
    atelier: Atelier, pictures: Path, home: Path, executors: list[FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeExecutor, "interrupted", True)
    said = atelier(*words(pictures, "--json"))
    assert (said.code, said.error["code"], executors[-1].ended) == (130, "cancelled", 1)
    assert not (home / "loras" / "crab").exists()
    monkeypatch.setattr(FakeExecutor, "interrupted", False)
    assert atelier(*words(pictures)).code == 0


def test_a_full_disk_while_saving_leaves_nothing_and_says_try_later(
    atelier: Atelier, pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(catalogs, "write_synced", full)
        said = atelier(*words(pictures, "--json"))
    assert (said.code, said.error["code"]) == (3, "disk_full")
    assert not list((home / "loras").glob("[!.]*"))
    assert atelier(*words(pictures)).code == 0


def test_bad_and_repeated_files_are_left_out_and_named(atelier: Atelier, pictures: Path) -> None:
    (pictures / "again.png").write_bytes((pictures / "03.png").read_bytes())
    (pictures / "text.png").write_text("not a picture")
    said = atelier(*words(pictures, "--json"))
    assert said.code == 0
    left_out = [note for note in said.json["notes"] if note.startswith("left out")]
    assert len(left_out) == 2
    assert all(any(name in note for note in left_out) for name in ("again.png", "text.png"))


def test_fewer_than_4_pictures_are_refused(atelier: Atelier, pictures: Path) -> None:
    for file in sorted(pictures.iterdir())[3:]:
        file.unlink()
    said = atelier(*words(pictures, "--json"))
    assert (said.code, said.error["code"]) == (2, "too_few_pictures")
    assert "1 more at least; 10 is better" in said.error["message"]
