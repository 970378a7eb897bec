"""The command line on FLUX.1 and Stable Diffusion 3.5: a folder is added, checked and drawn on; refusals are told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from tests.end_to_end.test_offline import run
from tests.tiny import tiny_flux, tiny_sd3

COMMANDS = """
import os
os.environ["ATELIER_BASE"] = "mine"
size = ["--size", "128x128", "--steps", "2"]
assert atelier(["bases", "add", "model", "--name", "mine"]) == 0
assert atelier(["draw", "a (mug:1.2)", "--base", "mine", *size, "--seed", "1", "--out", "drawn"]) == 0
assert atelier(["draw", "--again", "drawn/1.png", "--out", "again"]) == 0
assert atelier(["edit", "drawn/1.png", "a red mug", "--base", "mine", "--out", "edited"]) == 0
assert atelier(["bases", "check", "mine"]) == 0
lora = ["--name", "crab", "--kind", "subject", "--trigger", "zqx", "--class", "crab", "--base", "mine"]
assert atelier(["train", "nowhere", *lora]) == 2
"""
FLUX = """
lora = ["--kind", "quality", "--trigger", "", "--base", "mine"]
assert atelier(["loras", "import", "kohya.safetensors", "--name", "ink", *lora]) == 0
assert atelier(["draw", "a (mug:1.2)", *size, "--seed", "1", "--lora", "ink:0.8", "--out", "with"]) == 0
assert atelier(["draw", "a mug", "--base", "mine", "--negative", "a cup", *size, "--out", "refused"]) == 2
"""


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_a_folder_is_added_checked_and_drawn_on_without_a_network(tmp_path: Path, family: str) -> None:
    make = {"flux": tiny_flux, "sd3": tiny_sd3}[family]
    folder = make(tmp_path, "model")
    (folder / "base.toml").unlink()
    folder.rename(tmp_path / "model")
    (tmp_path / "kohya.safetensors").write_bytes(kohya())
    code = COMMANDS + FLUX if family == "flux" else COMMANDS.replace("128x128", "64x64")
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "1.png").read_bytes() == (tmp_path / "again" / "1.png").read_bytes()
    assert list((tmp_path / "edited").glob("*.png"))
    assert "the same picture as plain diffusers" in done.stdout
    assert "cannot be trained on it yet" in done.stderr
    assert ("reads no negative prompt" in done.stderr) is (family == "flux")
    assert not (tmp_path / "refused").exists()
    if family == "flux":
        assert pixels(tmp_path / "with") != pixels(tmp_path / "drawn")


def kohya() -> bytes:
    """A LoRA of the fused q, k and v of the tiny transformer's first block, which is 32 wide."""
    rng, layer = np.random.default_rng(0), "lora_unet_double_blocks_0_img_attn_qkv"
    shapes = {"lora_down": (2, 32), "lora_up": (96, 2)}
    tensors = {f"{layer}.{part}.weight": rng.normal(size=shape).astype("f4") for part, shape in shapes.items()}
    return save(tensors, {"modelspec.architecture": "flux-1-dev/lora"})


def pixels(folder: Path) -> bytes:
    with Image.open(folder / "1.png") as picture:
        return picture.convert("RGB").tobytes()
