"""Folders of transformers become bases; and the table of what models are made of is diffusers' own."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from engine import bases
from engine.bases import Base, adding
from engine.bases.adding import Wanted
from engine.bases.models import MODELS, Model, licence_of, published
from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from tests.tiny import tiny_flux, tiny_sd3
from tests.tiny_more import tiny_klein, tiny_qwen, tiny_zimage


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Models as diffusers saves them, without our manifest: dev, schnell, 3.5 with and without T5."""
    made = {
        "my-dev": tiny_flux(tmp_path, "my-dev"), "FLUX.1-schnell": tiny_flux(tmp_path, "FLUX.1-schnell", guides=False),
        "sd3.5-medium": tiny_sd3(tmp_path, "sd3.5-medium"), "no-t5": tiny_sd3(tmp_path, "no-t5", t5=False),
    }  # fmt: skip
    for folder in made.values():
        (folder / "base.toml").unlink()
    return tmp_path / "bases"


@pytest.mark.parametrize(
    ("name", "family", "steps", "guidance", "licence", "sold"),
    [
        ("my-dev", "flux", 28, 3.5, "flux-1-dev-non-commercial-license", False),
        ("FLUX.1-schnell", "flux", 4, 1.0, "apache-2.0", True),
        ("sd3.5-medium", "sd3", 40, 4.5, "stabilityai-ai-community", False),
        ("no-t5", "sd3", 28, 3.5, "stabilityai-ai-community", False),
    ],
)
def test_a_folder_of_a_transformer_becomes_a_base_that_draws(
    folders: Path, tmp_path: Path, name: str, family: str, steps: int, guidance: float, licence: str, sold: bool
) -> None:
    base = adding.add(folders / name, Wanted(name="mine"), tmp_path / "home")
    assert (base.family, base.licence, base.commercial) == (family, licence, sold)
    assert (base.defaults.steps, base.defaults.guidance, base.defaults.sampler) == (steps, guidance, "euler")
    assert base.size.native == (32 if family == "sd3" else 256)  # 16 latents, or FLUX's 128, of 2 x 2 pixels each
    base.check_whole()
    resident = Resident(base, torch.device("cpu"), torch.float32)
    *_, last = draw(resident, Brush("a cat", "", 1, 32, 32, 2, guidance, "euler"))
    assert resident.decode(last.latents).shape == (1, 3, 32, 32)
    assert len(resident.parts.encoders) == (2 if name != "sd3.5-medium" else 3)


@pytest.mark.parametrize(
    ("make", "pipeline", "steps", "guidance"),
    [
        (lambda home: tiny_klein(home, True), "Flux2KleinPipeline", 4, 1.0),
        (lambda home: tiny_klein(home), "Flux2KleinPipeline", 50, 4.0),
        (tiny_zimage, "ZImagePipeline", 50, 4.0),
        (tiny_qwen, "QwenImagePipeline", 50, 4.0),
        (lambda home: tiny_qwen(home, "first"), "QwenImageEditPipeline", 50, 4.0),
        (lambda home: tiny_qwen(home, "later"), "QwenImageEditPlusPipeline", 50, 4.0),
    ],
    ids=["klein", "klein-base", "zimage", "qwen", "qwen-edit", "qwen-edit-plus"],
)
def test_a_folder_of_the_other_transformers_becomes_a_base_that_draws(
    tmp_path: Path, make: Callable[[Path], Base], pipeline: str, steps: int, guidance: float
) -> None:
    base = adding.add(make(tmp_path / "made").folder, Wanted(name="mine"), tmp_path / "home")
    assert (base.defaults.steps, base.defaults.guidance, base.defaults.sampler) == (steps, guidance, "euler")
    base.check_whole()
    resident = Resident(base, torch.device("cpu"), torch.float32)
    assert resident.parts.index["_class_name"] == pipeline
    *_, last = draw(resident, Brush("a cat", "", 1, 32, 32, 2, guidance, "euler"))
    assert resident.decode(last.latents).shape == (1, 3, 32, 32)


def test_the_persons_licence_goes_before_the_published_one(folders: Path, tmp_path: Path) -> None:
    wanted = Wanted(name="mine", licence="bought", commercial=True)
    base = adding.add(folders / "my-dev", wanted, tmp_path / "home")
    assert (base.licence, base.commercial) == ("bought", True)


def test_what_others_made_of_schnell_is_under_what_they_say(folders: Path, tmp_path: Path) -> None:
    (folders / "FLUX.1-schnell").rename(folders / "schnell-tuned")
    base = adding.add(folders / "schnell-tuned", Wanted(name="mine"), tmp_path / "home")
    assert (base.licence, base.commercial) == ("unknown", False)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("my-dev", "transformer/config.json"), ("my-dev", "text_encoder_2/config.json"), ("my-dev", "tokenizer_2"),
        ("sd3.5-medium", "text_encoder_3/model.safetensors"), ("sd3.5-medium", "tokenizer_3"),
    ],
)  # fmt: skip
def test_a_transformer_that_is_not_whole_is_refused_naming_what_it_lacks(
    folders: Path, tmp_path: Path, name: str, lost: str
) -> None:
    """T5 too, where the model's index says that it has it: it is left out only on purpose."""
    path = folders / name / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(Invalid, match=f"lacks {lost}"):
        adding.add(folders / name, Wanted(), tmp_path / "home")
    assert bases.names(tmp_path / "home") == bases.names()


def test_a_base_whose_transformer_was_lost_says_so(folders: Path, tmp_path: Path) -> None:
    base = adding.add(folders / "my-dev", Wanted(), tmp_path / "home")
    shutil.rmtree(base.folder / "transformer")
    with pytest.raises(Invalid, match=r"lacks transformer/config\.json"):
        base.check_whole()


def test_a_transformer_that_fills_masks_is_refused(folders: Path, tmp_path: Path) -> None:
    config = folders / "my-dev" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 64', '"in_channels": 384'))
    with pytest.raises(Invalid, match="transformer takes 384 channels"):
        adding.add(folders / "my-dev", Wanted(), tmp_path / "home")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "a FLUX transformer alone"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "a FLUX transformer alone"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "a Stable Diffusion 3 model"),
        ("transformer_blocks.0.attn.to_q.weight", "one part of a model"),
    ],
)
def test_a_transformers_single_file_is_refused_naming_the_way(tmp_path: Path, key: str, what: str) -> None:
    save_file({key: torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    with pytest.raises(Invalid, match=what) as caught:
        adding.add(tmp_path / "m.safetensors", Wanted(), tmp_path / "home")
    assert "bases get OWNER/NAME" in caught.value.hint


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.pipeline)
def test_the_table_has_the_parts_that_diffusers_own_pipelines_are_made_of(model: Model) -> None:
    """All that the pipeline asks for, but for the schedule and what looks at the finished picture."""
    asked = {
        name for name, one in inspect.signature(getattr(diffusers, model.pipeline).__init__).parameters.items()
        if one.default is inspect.Parameter.empty and name != "self"
    }  # fmt: skip
    said = {*model.parts, *model.tokenizers, *model.processors}
    assert said == asked - {"scheduler", "safety_checker", "feature_extractor"}
    assert model.denoiser in ("unet", "transformer")


def test_a_published_model_is_known_by_its_name_and_its_configuration() -> None:
    for family, name, config, wanted in (
        ("flux", "black-forest-labs--FLUX.1-dev-0", {"guidance_embeds": True}, (28, 3.5)),
        ("flux", "black-forest-labs--FLUX.1-schnell-0", {"guidance_embeds": False}, (4, 1.0)),
        ("sd3", "stable-diffusion-3.5-large", {}, (28, 3.5)), ("sd3", "stable-diffusion-3.5-medium", {}, (40, 4.5)),
        ("sd3", "stable-diffusion-3.5-large-turbo", {}, (4, 1.0)),
        ("flux2", "FLUX.2-klein-4B", {"is_distilled": True}, (4, 1.0)),
        ("flux2", "FLUX.2-klein-base-4B", {"is_distilled": False}, (50, 4.0)),
        ("flux2", "FLUX.2-klein-base-9B", {}, (50, 4.0)),
        ("zimage", "Z-Image-Turbo", {}, (9, 0.0)), ("qwen", "Qwen-Image-Edit-2509", {}, (50, 4.0)),
    ):  # fmt: skip
        known = published(family, name, config)
        assert known is not None
        assert (known.steps, known.guidance) == wanted
    assert published("sdxl", "any", {}) is None
    assert licence_of(published("flux2", "FLUX.2-klein-9B", {}), "FLUX.2-klein-9B") == "flux-non-commercial-license"
    assert licence_of(published("flux2", "FLUX.2-klein-4B", {}), "FLUX.2-klein-4B") == "apache-2.0"
