"""loras port, partial imports and embeddings at the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from engine.bases.models import made_of
from engine.plans import ImagePlan, TrainPlan
from tests.bot.commands.conftest import BASE_TOML, Said
from tests.engine.test_partial import NOWHERE, THERE, lora
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]


@pytest.fixture
def xl(home: Path) -> str:
    """Another base, of another family."""
    folder = home / "bases" / "paper-xl"
    folder.mkdir()
    (folder / "base.toml").write_text(BASE_TOML.replace('"sd"', '"sdxl"'))
    return "paper-xl"


def test_a_lora_without_a_variant_says_how_to_have_one(atelier: Atelier, xl: str) -> None:
    said = atelier("draw", "a mug", "--lora", "coral:1", "--base", xl, "--json")
    assert (said.code, said.error["code"]) == (2, "no_variant")
    assert "`atelier loras port coral --base paper-xl`" in said.error["hint"]


def test_a_port_retrains_it_with_its_trigger_its_recipe_and_its_pictures(
    atelier: Atelier, pictures: Path, executors: list[FakeExecutor], xl: str, home: Path
) -> None:
    words = ("--name", "crab", "--kind", "subject", "--trigger", "zqx", "--class", "crab", "--rank", 8, "--seed", 5)
    atelier("train", pictures, *words, "--steps", 33)
    first = executors[-1].plans[-1]
    said = atelier("loras", "port", "crab", "--base", xl, "--json")
    second = executors[-1].plans[-1]
    assert isinstance(first, TrainPlan)
    assert isinstance(second, TrainPlan)
    assert (said.json["name"], said.json["base"], said.json["dataset"]) == ("crab", xl, "crab/v1")
    assert Path(said.json["folder"]) == home / "loras" / "crab@paper-xl"
    assert second.examples == first.examples
    assert (second.trigger, second.word, second.rank, second.seed, second.steps) == ("zqx", "crab", 8, 5, 33)
    assert sorted(path.name for path in (home / "datasets" / "crab").iterdir()) == ["v1.toml"]


def test_steps_are_the_persons_to_say_and_a_variant_is_replaced_on_request_alone(
    atelier: Atelier, executors: list[FakeExecutor], xl: str
) -> None:
    atelier("loras", "port", "coral", "--base", xl, "--steps", 9)
    plan = executors[-1].plans[-1]
    assert isinstance(plan, TrainPlan)
    assert plan.steps == 9
    said = atelier("loras", "port", "coral", "--base", xl, "--json")
    assert (said.code, executors[-1].plans) == (2, [])
    assert "--replace" in said.error["hint"]
    assert atelier("loras", "port", "coral", "--base", xl, "--replace").code == 0
    assert atelier("loras", "port", "coral", "--base", "paper", "--replace", "--json").code == 2


def test_listing_and_drawing_take_the_one_for_the_base(
    atelier: Atelier, executors: list[FakeExecutor], xl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    atelier("loras", "port", "coral", "--base", xl)
    listed = {lora["name"]: lora for lora in atelier("loras", "--json").json["loras"]}
    assert (listed["coral"]["base"], listed["coral"]["bases"]) == ("paper", ["paper", "paper-xl"])
    monkeypatch.setenv("ATELIER_BASE", xl)
    listed = {lora["name"]: lora for lora in atelier("loras", "--json").json["loras"]}
    assert listed["coral"]["base"] == xl
    monkeypatch.setenv("ATELIER_BASE", "paper")
    atelier("draw", "a mug", "--lora", "coral:1", "--base", xl)
    plan = executors[-1].plans[-1]
    assert isinstance(plan, ImagePlan)
    assert plan.stack.refs[0].sha256 == listed["coral"]["sha256"]


def test_what_came_without_its_pictures_cannot_be_ported(atelier: Atelier, xl: str, tmp_path: Path) -> None:
    (tmp_path / "some.safetensors").write_bytes(lora(THERE))
    atelier("loras", "import", tmp_path / "some.safetensors")
    said = atelier("loras", "port", "some", "--base", xl, "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert "are not here" in said.error["message"]
    said = atelier("draw", "a mug", "--lora", "some:1", "--base", xl, "--json")
    assert "port" not in said.error["hint"]


@pytest.mark.parametrize("command", ["train", "port"])
def test_a_flow_transformer_is_refused_before_anything_is_read(
    atelier: Atelier, executors: list[FakeExecutor], home: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.bases.made_of", lambda _: made_of("flux"))  # as if all bases were
    words = ("loras", "port", "coral", "--base", "paper") if command == "port" else (
        "train", home, "--name", "x", "--kind", "style", "--trigger", "zqx")  # fmt: skip
    said = atelier(*words, "--json")
    assert (said.code, executors[-1].plans) == (2, [])
    assert "cannot be trained on it yet" in said.error["message"]


def test_a_partial_import_says_what_is_left_out(
    atelier: Atelier, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_BASE", "tiny-sd")
    (tmp_path / "x.safetensors").write_bytes(lora(THERE, NOWHERE))
    words = ("loras", "import", tmp_path / "x.safetensors", "--json", "--home", tiny_home)
    said = atelier(*words)
    assert (said.code, said.error["code"]) == (2, "partial_match")
    said = atelier(*words, "--partial", "--name", "in-part")
    assert any("1 of its 2 weights" in note and "down_blocks_3" in note for note in said.json["notes"])
    said = atelier("loras", "inspect", tmp_path / "x.safetensors", "--json", "--home", tiny_home)
    assert said.json["left_out"]["tiny-sd"] == [NOWHERE.removeprefix("lora_unet_")]


def test_an_embedding_is_listed_shown_exported_and_drawn_with(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path
) -> None:
    data = save({"emb_params": np.ones((2, 16), "f4")})
    (tmp_path / "EasyWord.safetensors").write_bytes(data)
    said = atelier("loras", "import", tmp_path / "EasyWord.safetensors")
    assert (said.code, "EasyWord" in said.err) == (0, True)
    assert next(x for x in atelier("loras", "--json").json["loras"] if x["name"] == "easyword")["what"] == "embedding"
    assert "vectors" in atelier("loras", "show", "easyword").out
    atelier("loras", "export", "easyword", "--out", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == data
    said = atelier("draw", "a mug", "--lora", "easyword:1", "--json")
    assert (said.code, "Write its trigger" in said.error["hint"]) == (2, True)
    said = atelier("draw", "a mug, easyword", "--negative", "blur", "--json")
    plan = executors[-1].plans[-1]
    assert isinstance(plan, ImagePlan)
    assert [(one.name, one.trigger) for one in plan.embeddings] == [("easyword", "EasyWord")]
    assert json.dumps(said.json).count("no “easyword”") == 0  # it is no unknown word
    atelier("draw", "a mug", "--negative", "EasyWord")
    plan = executors[-1].plans[-1]
    assert isinstance(plan, ImagePlan)
    assert len(plan.embeddings) == 1
