"""engine/diffusion/compare.py: our picture beside plain diffusers'; and that it can tell two pictures apart."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import bases
from engine.bases import memory
from engine.catalog import Catalog
from engine.diffusion import compare
from engine.diffusion.compare import Task
from engine.errors import BaseTooLarge
from engine.runners import Runners

LAYER = "unet.{}.attentions.0.transformer_blocks.0.attn1.to_q.{}.weight"


@pytest.fixture
def lora(tiny_home: Path, base_name: str, tmp_path: Path) -> Path:
    """In the names that diffusers itself writes, for the one layer that each tiny base has in its middle."""
    torch.manual_seed(4)
    tensors = {
        LAYER.format("mid_block", "lora_A"): torch.randn(4, 16),
        LAYER.format("mid_block", "lora_B"): torch.randn(16, 4),
    }
    save_file(tensors, tmp_path / "one.safetensors")
    return tmp_path / "one.safetensors"


@pytest.mark.filterwarnings("ignore")
def test_our_picture_is_diffusers_own_with_and_without_a_lora(
    tiny_home: Path, base_name: str, lora: Path, tmp_path: Path
) -> None:
    report = compare.compare(Task(base_name, str(tiny_home), str(lora), str(tmp_path / "out"), steps=3))
    bare, with_lora = report["pictures"]
    assert report["alike"]
    assert max(bare["latents_relative_l2"], with_lora["latents_relative_l2"]) < 1e-4
    assert max(bare["pixels_max"], with_lora["pixels_max"]) <= 1
    assert with_lora["change"] > 1e-3  # the LoRA did something, in both alike
    assert report["base_sha256"] == bases.find(base_name, tiny_home).fingerprint()
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.filterwarnings("ignore")
def test_another_picture_is_told_apart(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = compare._noise
    monkeypatch.setattr(compare, "_noise", lambda *given: noise(*given) * 1.1)
    report = compare.compare(Task("tiny-sd", str(tiny_home), steps=3))
    assert not report["alike"]
    assert report["pictures"][0]["pixels_mean"] > 0


def test_a_base_that_cannot_fit_is_refused_before_it_is_loaded(
    tiny_home: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.diffusion.resident.free_memory", lambda _: 1000)
    runners = Runners(catalog, tiny_home, torch.device("cpu"))
    with pytest.raises(BaseTooLarge, match="tiny-sd"):
        runners.resident("tiny-sd")
    assert (memory.free_memory() or 0) > 1000
