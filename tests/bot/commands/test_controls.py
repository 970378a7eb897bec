"""Pictures to follow on the command line, and the ControlNets that read them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.plans import ImagePlan
from tests.bot.commands.conftest import Said
from tests.controls import control_folder
from tests.engine.test_reference import adapter_file, encoder_folder
from tests.fakes.executor import FakeExecutor
from tests.fakes.shelf import put_adapter, put_control
from tests.tiny import tiny_sdxl

Atelier = Callable[..., Said]


def plan(executors: list[FakeExecutor]) -> ImagePlan:
    drawn = executors[-1].plans[-1]
    assert isinstance(drawn, ImagePlan)
    return drawn


@pytest.fixture
def photo(pictures: Path) -> Path:
    return pictures / "00.png"


def test_every_control_and_reference_reaches_the_plan(
    atelier: Atelier, executors: list[FakeExecutor], home: Path, photo: Path
) -> None:
    put_control(home, "lines", "edge")
    put_control(home, "bones", "pose")
    put_adapter(home, "looks")
    said = ("--control", f"edge:{photo}:0.8", "--control", f"pose:{photo}", "--control-map", f"edge:{photo}:1.5")
    done = atelier("draw", "a mug", *said, "--control-until", 0.5, "--reference", photo, "--reference", f"{photo}:0.4")
    assert done.code == 0, done.err
    found = [(c.kind, c.weight, c.until, c.is_map) for c in plan(executors).controls]
    assert found == [("edge", 0.8, 0.5, False), ("pose", 1.0, 0.5, False), ("edge", 1.5, 0.5, True)]
    assert [r.weight for r in plan(executors).references] == [1.0, 0.4]


def test_an_edit_follows_pictures_too(atelier: Atelier, executors: list[FakeExecutor], home: Path, photo: Path) -> None:
    put_control(home, "lines", "sketch")
    assert atelier("edit", photo, "a mug", "--control", f"sketch:{photo}").code == 0
    assert [c.kind for c in plan(executors).controls] == ["sketch"]
    assert plan(executors).image is not None


def test_a_picture_is_drawn_again_with_its_controls_and_only_with_the_same_net(
    atelier: Atelier, executors: list[FakeExecutor], home: Path, photo: Path
) -> None:
    folder = put_control(home, "lines", "edge")
    first = atelier("draw", "a mug", "--control", f"edge:{photo}", "--json").json["pictures"][0]["file"]
    controls = plan(executors).controls
    assert atelier("draw", "--again", first).code == 0
    assert plan(executors).controls == controls
    folder.rename(folder.with_name("gone"))
    put_control(home, "aaa", "edge", b"another one")
    again = atelier("draw", "--again", first)
    assert again.code == 2
    assert "“lines” that it followed is not the one that is here now (aaa)" in again.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--control", "edge:{photo}"], "control edge: Paper has no ControlNet for it"),
        (["--control", "edge:{photo}"], "atelier controls add FOLDER --kind edge"),
        (["--control", "{photo}"], "does not begin with a kind (edge, pose, depth, sketch)"),
        (["--control", "lines:{photo}"], "does not begin with a kind"),
        (["--control", "edge:"], "does not begin with a kind"),
        (["--control", "edge:nothing.png"], "there is no such file"),
        (["--control", "edge:{photo}:3"], "weight of the control edge: 3 is out of range"),
        (["--control", "edge:{photo}:nan"], "out of range"),
        (["--control", "edge:{photo}", "--control-until", "0"], "until of the control edge: 0 is out of range"),
        (["--control-until", "0.5"], "there is no control that it belongs to"),
        (["--reference", "{photo}"], "Paper takes no reference pictures without an IP-Adapter"),
        (["--reference", "{photo}"], "atelier references add FILE --encoder FOLDER"),
        (["--reference", "nothing.png"], "there is no such file"),
        (["--reference", "{photo}:-1"], "weight of the reference: -1 is out of range"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_drawn(
    atelier: Atelier, executors: list[FakeExecutor], photo: Path, options: list[str], said: str
) -> None:
    done = atelier("draw", "a mug", *(option.format(photo=photo) for option in options))
    assert done.code == 2
    assert said in done.err
    assert not executors or not executors[-1].plans


def test_an_adapter_is_added_and_listed(atelier: Atelier, home: Path, tmp_path: Path) -> None:
    assert "No IP-Adapters yet" in atelier("references").out
    file = adapter_file(tiny_sdxl(tmp_path / "other"), tmp_path / "Looks.safetensors", "picture")
    encoder = encoder_folder(tmp_path / "encoder")
    assert atelier("references", "add", file).code == 2
    added = atelier("references", "add", file, "--encoder", encoder, "--licence", "Apache-2.0", "--json")
    assert added.code == 0, added.out
    assert (added.json["name"], added.json["width"], added.json["commercial"]) == ("looks", 32, True)
    assert atelier("references", "list").out.startswith("looks  texts 32 wide  Apache-2.0")


def test_pocket_says_how_to_add_one(atelier: Atelier, photo: Path) -> None:
    done = atelier("draw", "a mug", "--base", "pocket", "--control", f"pose:{photo}")
    assert done.code == 2
    assert "Pocket has no ControlNet for it" in done.err
    assert "atelier controls add" in done.err


def test_a_net_of_another_family_is_named(atelier: Atelier, home: Path, photo: Path) -> None:
    put_control(home, "big-lines", "edge", family="sdxl")
    done = atelier("draw", "a mug", "--control", f"edge:{photo}")
    assert "big-lines (made for sdxl) does not fit Paper, which is sd" in done.err


def test_a_folder_is_added_and_listed(atelier: Atelier, home: Path, tmp_path: Path) -> None:
    assert "No ControlNets yet" in atelier("controls").out
    source = control_folder(tiny_sdxl(tmp_path / "other"), tmp_path / "Canny XL")
    added = atelier("controls", "add", source, "--kind", "edge", "--licence", "Apache-2.0", "--json")
    assert added.code == 0, added.out
    wanted = {"name": "canny-xl", "kind": "edge", "family": "sdxl", "licence": "Apache-2.0", "commercial": True}
    assert added.json.items() >= wanted.items()
    assert (home / "controls" / "canny-xl" / "control.toml").is_file()
    assert atelier("controls", "list").out.split() == ["canny-xl", "edge", "sdxl", "Apache-2.0"]
    twice = atelier("controls", "add", source, "--kind", "edge")
    assert (twice.code, "--name N" in twice.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "which one is not said"),
        (["add", "{folder}"], "--kind: it is not said"),
        (["add", "{folder}", "--kind", "colour"], "none of edge, pose, depth, sketch"),
        (["add", "{folder}", "--kind", "edge"], "there is no config.json in it"),
        (["list", "x"], "it takes no name"),
    ],
)
def test_a_command_that_is_not_whole_says_what_is_missing(
    atelier: Atelier, tmp_path: Path, words: list[str], said: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors").write_bytes((2).to_bytes(8, "little") + json.dumps({}).encode())
    done = atelier("controls", *(word.format(folder=folder) for word in words))
    assert done.code == 2
    assert said in done.err


def test_a_broken_manifest_is_named(atelier: Atelier, home: Path) -> None:
    folder = put_control(home, "lines", "edge")
    (folder / "control.toml").write_text("kind = 3")
    done = atelier("controls")
    assert done.code == 2
    assert "control lines: its control.toml cannot be read" in done.err
