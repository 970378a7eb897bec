"""The set-up says in one sentence what is missing, and what to do."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def setup(tmp_path: Path, **environment: str) -> str:
    """What it says on stderr, with each variable set; it must end with 1."""
    given = {"PATH": os.environ["PATH"], "VENV": str(tmp_path / "venv"), "TORCH": "cpu"} | environment
    done = subprocess.run(
        ["sh", ".ci/setup.sh", "run"], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout
    return done.stderr


def python_without(module: str, tmp_path: Path) -> str:
    """An interpreter that is new enough and lacks a module."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *{module}*) exit 1;; esac\nexit 0\n')
    fake.chmod(0o755)
    return str(fake)


def disk_of(gigabytes: int, tmp_path: Path) -> str:
    """A PATH on which `df` finds that many GB free."""
    fake = tmp_path / "bin" / "df"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho Filesystem\necho disk 0 0 {gigabytes * 1048576} 0 /\n")
    fake.chmod(0o755)
    return f"{fake.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("made", ["3.80", "3.79.1", "20240909"])
def test_an_old_or_another_make_is_named(tmp_path: Path, made: str) -> None:
    said = setup(tmp_path, MAKE_VERSION=made)
    assert f"this is make {made}: install GNU make" in said


def test_no_fitting_python_is_named(tmp_path: Path) -> None:
    assert "Python 3.11 or newer is needed" in setup(tmp_path, PYTHON="no-such-python")


def test_a_missing_venv_module_is_named(tmp_path: Path) -> None:
    said = setup(tmp_path, PYTHON=python_without("venv", tmp_path))
    assert "has no venv module: install it" in said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = setup(tmp_path, VENV=str(tmp_path / "file" / "venv"))
    assert "cannot be written: clone into a folder of your own" in said


def test_too_little_disk_is_named(tmp_path: Path) -> None:
    assert "3 GB of disk are needed" in setup(tmp_path, PATH=disk_of(2, tmp_path))


def test_an_unknown_torch_build_is_named(tmp_path: Path) -> None:
    assert "say TORCH=cpu or TORCH=cuda" in setup(tmp_path, TORCH="gpu")


def test_each_complaint_is_one_sentence_on_one_line(tmp_path: Path) -> None:
    said = setup(tmp_path, PYTHON="no-such-python")
    assert said.startswith("atelier: ")
    assert len(said.splitlines()) == 1


def test_the_makefile_keeps_to_what_make_3_81_knows() -> None:
    text = (ROOT / "Makefile").read_text()
    assert not any(word in text for word in (".ONESHELL", ".RECIPEPREFIX", "undefine", "!=", "::=", "$(file"))
