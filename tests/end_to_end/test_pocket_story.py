"""Pocket and the shipped LoRAs through the command line, as a stranger uses them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin


def atelier(home: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bot", "--home", str(home), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def pixels(file: str) -> bytes:
    return Image.open(file).convert("RGB").tobytes()


def test_a_stack_is_drawn_with_its_triggers_and_drawn_again_to_the_pixel(tmp_path: Path) -> None:
    options = ["--lora", "inky:1.0", "--lora", "coral:0.6", "--seed", "3", "--steps", "6"]
    wish = ("draw", "an octopus in the snow", *options)
    (picture,) = atelier(tmp_path, *wish)["pictures"]
    assert "inkzo octopus" in picture["prompt"]
    assert "corvyl" in picture["prompt"]
    assert {(x["name"], x["weight"]) for x in picture["loras"]} == {("inky", 1.0), ("coral", 0.6)}
    (again,) = atelier(tmp_path, "draw", "--again", picture["file"])["pictures"]
    assert again["file"] != picture["file"]
    assert pixels(again["file"]) == pixels(picture["file"])


def test_an_edited_picture_is_drawn_again_to_the_pixel(tmp_path: Path) -> None:
    (picture,) = atelier(tmp_path, "draw", "a red mug on a podium", "--seed", "1", "--steps", "6")["pictures"]
    wish = ("edit", picture["file"], "a green mug on a podium", "--strength", "0.7")
    (edited,) = atelier(tmp_path, *wish)["pictures"]
    assert pixels(edited["file"]) != pixels(picture["file"])
    (again,) = atelier(tmp_path, "draw", "--again", edited["file"])["pictures"]
    assert pixels(again["file"]) == pixels(edited["file"])


def test_a_picture_of_another_base_is_not_passed_off_as_the_same(tmp_path: Path) -> None:
    (picture,) = atelier(tmp_path, "draw", "a red mug", "--seed", "1", "--steps", "2")["pictures"]
    with Image.open(picture["file"]) as image:
        recipe = json.loads(image.text["atelier"])  # pyright: ignore
        info = PngImagePlugin.PngInfo()
        info.add_text("atelier", json.dumps(recipe | {"base_sha256": "0" * 64}))
        image.save(tmp_path / "old.png", pnginfo=info)
    command = [sys.executable, "-m", "bot", "--home", str(tmp_path), "draw", "--again", str(tmp_path / "old.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "another one now" in done.stderr
