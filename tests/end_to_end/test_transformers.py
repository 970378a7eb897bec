"""The command line on FLUX.1 and Stable Diffusion 3.5: a folder is added, checked and drawn on; refusals are told."""

from pathlib import Path

import pytest

from tests.end_to_end.test_offline import run
from tests.tiny import tiny_flux, tiny_sd3

COMMANDS = """
size = ["--size", "128x128", "--steps", "2"]
assert atelier(["bases", "add", "model", "--name", "mine"]) == 0
assert atelier(["draw", "a (mug:1.2)", "--base", "mine", *size, "--seed", "1", "--out", "drawn"]) == 0
assert atelier(["draw", "--again", "drawn/1.png", "--out", "again"]) == 0
assert atelier(["edit", "drawn/1.png", "a red mug", "--base", "mine", "--out", "edited"]) == 0
assert atelier(["bases", "check", "mine"]) == 0
lora = ["--name", "crab", "--kind", "subject", "--trigger", "zqx", "--class", "crab", "--base", "mine"]
assert atelier(["train", "nowhere", *lora]) == 2
"""
NEGATIVE = """
assert atelier(["draw", "a mug", "--base", "mine", "--negative", "a cup", *size, "--out", "refused"]) == 2
"""


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_a_folder_is_added_checked_and_drawn_on_without_a_network(tmp_path: Path, family: str) -> None:
    make = {"flux": tiny_flux, "sd3": tiny_sd3}[family]
    folder = make(tmp_path, "model")
    (folder / "base.toml").unlink()
    folder.rename(tmp_path / "model")
    code = COMMANDS + NEGATIVE if family == "flux" else COMMANDS.replace("128x128", "64x64")
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "1.png").read_bytes() == (tmp_path / "again" / "1.png").read_bytes()
    assert list((tmp_path / "edited").glob("*.png"))
    assert "the same picture as plain diffusers" in done.stdout
    assert "cannot be trained on it yet" in done.stderr
    assert ("reads no negative prompt" in done.stderr) is (family == "flux")
    assert not (tmp_path / "refused").exists()
