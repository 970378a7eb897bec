"""engine/bases: a folder with base.toml is a base."""

import os
import shutil
from pathlib import Path

import pytest

from engine import bases
from engine.bases import Base
from engine.catalog import Catalog
from engine.errors import Invalid, UnknownBase
from engine.runners import Runners

MANIFEST = """
title = "Little"
family = "sd"
licence = "Apache-2.0"
commercial = true
[size]
native = 256
multiple = 32
min = 128
max = 512
[defaults]
steps = 12
guidance = 4.0
sampler = "ddim"
[preview]
matrix = [[0.1, 0.2, 0.3, 1], [0.0, 0.5, -0.5, 0], [1.0, 0.0, 0.0, 0.0]]
bias = [0.5, 0.5, 0.5]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "bases" / "little"
    (folder / "unet").mkdir(parents=True)
    (folder / "base.toml").write_text(MANIFEST, "utf-8")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_base_is_found_by_its_folder_in_any_case(home: Path) -> None:
    base = bases.find("Little", home)
    assert (base.name, base.family, base.size.native, base.defaults.sampler) == ("little", "sd", 256, "ddim")
    assert base.preview is not None
    matrix, bias = base.preview
    assert (len(matrix), len(matrix[0]), len(bias)) == (3, 4, 3)
    assert "little" in bases.names(home)


def test_a_base_without_a_preview_has_none(home: Path) -> None:
    path = home / "bases" / "little" / "base.toml"
    path.write_text(MANIFEST.partition("[preview]")[0], "utf-8")
    assert bases.find("little", home).preview is None


@pytest.mark.parametrize("name", ["huge", "", "../little", "/etc", "little/unet"])
def test_an_unknown_base_is_refused_naming_those_installed(home: Path, name: str) -> None:
    with pytest.raises(UnknownBase) as caught:
        bases.find(name, home)
    assert "little" in caught.value.near


@pytest.mark.parametrize(
    "text",
    [
        "title = ", "title = 3", MANIFEST.replace("multiple = 32", "multiple = 0"), "\0", "a=" + "[" * 20_000,
        MANIFEST + "#" * 64_000,
    ],
    ids=["half", "wrong", "zero", "binary", "deep", "long"],
)  # fmt: skip
def test_a_broken_manifest_is_a_clear_sentence(home: Path, text: str) -> None:
    (home / "bases" / "little" / "base.toml").write_text(text, "utf-8")
    with pytest.raises(Invalid, match=r"base\.toml cannot be read") as caught:
        bases.find("little", home)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_a_pipe_is_not_waited_for(home: Path) -> None:
    manifest = home / "bases" / "little" / "base.toml"
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(Invalid, match="not an ordinary file"):
        bases.find("little", home)


def test_a_base_without_its_weights_says_what_it_lacks(home: Path) -> None:
    for file in ("unet/config.json", "vae/config.json", "vae/a.safetensors", "text_encoder/config.json"):
        path = home / "bases" / "little" / file
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(Invalid, match=r"base little: it lacks text_encoder/\*\.safetensors\."):
        Runners(Catalog(home, home), home).resident("little")


@pytest.mark.parametrize("size", [(128, 512), (256, 256), (160, 480)])
def test_a_good_size_passes(home: Path, size: tuple[int, int]) -> None:
    bases.find("little", home).check_size(*size)


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((0, 0), "128x128"),
        ((-5, 256), "128x256"),
        ((200, 256), "192x256"),
        ((210, 250), "224x256"),
        ((100_000, 100_000), "512x512"),
        ((96, 500), "128x512"),
    ],
)
def test_another_size_is_refused_naming_the_nearest(home: Path, size: tuple[int, int], near: str) -> None:
    base = bases.find("little", home)
    with pytest.raises(Invalid) as caught:
        base.check_size(*size)
    assert near in caught.value.hint
    base.check_size(*(int(side) for side in near.split("x")))


BUCKETS = """multiple = 16
min = 128
max = 512
buckets = [[256, 256], [224, 288], [288, 224], [192, 336], [336, 192], [432, 144]]
[deliver]
upscale = 4
[defaults]"""


@pytest.fixture
def shaped(home: Path) -> Base:
    """A base that was trained in several shapes."""
    path = home / "bases" / "little" / "base.toml"
    path.write_text(MANIFEST.replace("multiple = 32\nmin = 128\nmax = 512\n[defaults]", BUCKETS), "utf-8")
    return bases.find("little", home)


def test_the_manifest_says_its_shapes_and_how_its_pictures_are_delivered(shaped: Base, home: Path) -> None:
    assert shaped.size.buckets[1] == (224, 288)
    assert shaped.deliver.upscale == 4
    for width, height in shaped.size.buckets:
        shaped.check_size(width, height)


@pytest.mark.parametrize(
    ("sides", "bucket"),
    [
        ((1, 1), (256, 256)), ((1080, 1080), (256, 256)), ((1080, 1350), (224, 288)), ((4, 3), (288, 224)),
        ((1080, 1920), (192, 336)), ((9, 21), (192, 336)), ((1920, 1080), (336, 192)), ((3, 2), (288, 224)),
        ((2, 3), (224, 288)), ((21, 9), (432, 144)), ((728, 90), (432, 144)), ((1, 10_000), (192, 336)),
    ],
)  # fmt: skip
def test_the_nearest_shape_is_the_one_whose_sides_are_in_the_nearest_ratio(
    shaped: Base, sides: tuple[int, int], bucket: tuple[int, int]
) -> None:
    assert shaped.size.bucket(*sides) == bucket
    assert shaped.size.fitting(*sides) == bucket


def test_without_shapes_a_picture_is_drawn_over_at_its_own_size_as_far_as_may_be(home: Path) -> None:
    size = bases.find("little", home).size
    assert size.fitting(256, 192) == (256, 192)
    assert size.fitting(1024, 768) == (512, 384)
    assert size.fitting(64, 96) == (128, 192)


@pytest.mark.parametrize("wrong", ["[[250, 256]]", "[[256]]", "[[1024, 64]]", "[[0, 256]]"])
def test_a_shape_that_the_base_cannot_draw_is_a_broken_manifest(home: Path, wrong: str) -> None:
    path = home / "bases" / "little" / "base.toml"
    path.write_text(MANIFEST.replace("max = 512", f"max = 512\nbuckets = {wrong}"), "utf-8")
    with pytest.raises(Invalid, match=r"base\.toml cannot be read"):
        bases.find("little", home)


def test_the_fingerprint_names_the_weights_and_nothing_else(home: Path, tmp_path: Path) -> None:
    first = bases.find("little", home).fingerprint()
    shutil.copytree(home / "bases" / "little", home / "bases" / "same")
    (home / "bases" / "same" / "README.md").write_text("hello", "utf-8")
    shutil.copytree(home / "bases" / "little", home / "bases" / "other")
    (home / "bases" / "other" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weightz")
    assert len(first) == 64
    assert bases.find("same", home).fingerprint() == first
    assert bases.find("other", home).fingerprint() != first
