"""What starting the program costs, and where it reads and writes."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bot.settings import OFFLINE, Settings
from engine.recipes import VERSION

ROOT = Path(__file__).parents[3]
NO_TORCH = "; bad = {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules); assert not bad, bad"


@pytest.mark.parametrize(
    "code",
    [
        "import bot.assistant",
        "from bot.__main__ import main; assert main(['loras']) == 0",
        "from bot.__main__ import main; assert main(['draw', 'x', '--lora', 'nobody:1']) == 2",
        "from bot.__main__ import main; assert main(['draw', 'x' * 9999]) == 2",
        "from bot import __main__ as m\ntry: m.main(['--help'])\nexcept SystemExit as e: assert e.code == 0\npass",
    ],
)
def test_no_torch_is_imported(code: str, tmp_path: Path) -> None:
    script = f"import sys\n{code}{NO_TORCH}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"ATELIER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_ctrl_c_within_the_first_imports_ends_with_130_and_no_word(tmp_path: Path) -> None:
    script = """
import runpy, sys
class Pressed:
    def find_spec(self, name, *_):
        if name == "bot.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
runpy.run_module("bot", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_home_comes_from_the_option_then_the_environment_then_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_HOME", "/somewhere")
    assert Settings().home == Path("/somewhere")
    assert Settings(home=Path("~/else")).home == Path.home() / "else"
    monkeypatch.setenv("ATELIER_HOME", "")
    assert Settings().home == Path.home() / ".atelier"


def test_the_hub_is_offline_before_the_engine_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    from bot.wiring import open_studio

    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    open_studio(Settings(home=tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not list(tmp_path.iterdir())  # nothing is written before it is needed


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
