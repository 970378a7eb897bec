"""Pocket as shipped: what its folder promises, and that it draws what it is asked for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from engine import bases
from engine.bases.vocabulary import Vocabulary
from engine.diffusion.render import Brush, drawn
from engine.diffusion.resident import Resident
from engine.evaluation.judge import Judge
from engine.pocket.glyphs import load_atlas

FOLDER = bases.SHIPPED / "pocket"


@pytest.fixture(scope="module")
def pocket() -> Resident:
    return Resident(bases.find("pocket"), torch.device("cpu"), torch.float32)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 56e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".toml", ".txt", ".md"}


def test_plain_diffusers_loads_it_and_draws_the_same_picture(pocket: Resident) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(4)
    wanted = pipe(
        "a red car on a beach", num_inference_steps=4, guidance_scale=4.0, generator=seed, output_type="np"
    ).images[0]
    ours = array(drawn(pocket, Brush("a red car on a beach", "", 4, 256, 256, 4, 4.0, "dpm++")))
    assert np.abs(ours / 255 - wanted).max() < 0.02


def test_it_names_at_least_300_nouns_and_what_was_held_out() -> None:
    said = json.loads((FOLDER / "vocabulary.json").read_text())
    assert len(said["nouns"]) >= 300
    assert not set(said["nouns"]) & set(said["held_out"])
    assert said["held_out_styles"]
    card = (FOLDER / "README.md").read_text()
    assert all(noun in card for noun in (*said["nouns"], *said["held_out"], *said["held_out_styles"]))


def test_a_zeppelin_is_named_with_things_it_can_draw() -> None:
    words = Vocabulary.of(bases.find("pocket"))
    assert words is not None
    (unknown,) = words.unknown("a zeppelin over a city")
    assert unknown.word == "zeppelin"
    assert set(unknown.near) <= set(words.nouns)
    assert unknown.near


def test_most_pictures_show_the_object_and_ground_that_were_asked_for(pocket: Resident) -> None:
    """Sixteen prompts, seed 0, none picked: the judge must find most objects and nearly all grounds."""
    nouns = ("fox", "car", "cake", "guitar", "tree", "burger", "umbrella", "dog")
    grounds = ("beach", "snow")
    prompts = [f"a {noun}, {ground}" for noun in nouns for ground in grounds]
    pictures = np.stack([array(drawn(pocket, Brush.plain(pocket.base, prompt, 0))) for prompt in prompts])
    found = Judge.load()(pictures)
    objects = sum(label == noun for label, noun in zip(found.best("object"), np.repeat(nouns, 2), strict=True))
    places = sum(label == ground for label, ground in zip(found.best("background"), grounds * 8, strict=True))
    assert objects >= 12
    assert places >= 14


def test_training_pictures_follow_the_seed_and_say_what_they_show(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = [sys.executable, "-m", "engine.pocket.scenes", "--subject", "crab", "-n", "3", "--seed", str(seed)]
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True)
    files = {name: [(tmp_path / name / f"{i:02}.png").read_bytes() for i in range(3)] for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    assert all("[trigger]" in (tmp_path / "a" / f"{i:02}.txt").read_text() for i in range(3))


def test_a_subject_that_the_renderer_lacks_is_refused_with_near_names(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "engine.pocket.scenes",
        "--subject",
        "crabb",
        "-n",
        "1",
        "--out",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "crab" in done.stderr
    assert not (tmp_path / "x").exists()


def test_held_out_subjects_are_in_no_training_word() -> None:
    said = json.loads((FOLDER / "vocabulary.json").read_text())
    words = set(said["words"])
    assert not {noun for noun in load_atlas().held_out if noun in words}
