"""The memory mode reaches the engine from the command line, the environment and the settings file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bot.commands.conftest import Said
from tests.fakes.executor import FakeExecutor


@pytest.fixture(autouse=True)
def _three_ways(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)


def test_the_mode_is_that_of_the_option_else_the_environment_else_the_file(
    atelier: Callable[..., Said], executors: list[FakeExecutor], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atelier("draw", "a mug")
    assert executors[-1].memory == "auto"
    (home / "settings.toml").write_text('memory = "pinned"\n')
    atelier("draw", "a mug")
    assert executors[-1].memory == "pinned"
    monkeypatch.setenv("ATELIER_MEMORY", "offload")
    atelier("draw", "a mug")
    assert executors[-1].memory == "offload"
    atelier("draw", "a mug", "--memory", "small")
    assert executors[-1].memory == "small"


def test_another_word_is_refused_and_the_modes_are_named(
    atelier: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = atelier("draw", "a mug", "--memory", "tiny")
    assert said.code == 2
    assert "offload" in said.err
    monkeypatch.setenv("ATELIER_MEMORY", "tiny")
    said = atelier("draw", "a mug")
    assert said.code == 2
    assert "ATELIER_MEMORY" in said.err
    assert "offload" in said.err
