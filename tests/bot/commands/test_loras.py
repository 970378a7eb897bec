import logging
from collections.abc import Callable

import pytest

from bot.__main__ import LogLines
from bot.commands.terminal import Terminal
from engine.errors import UnknownLora
from tests.bot.commands.conftest import Said

Atelier = Callable[..., Said]
SHAPE = {"name", "folder", "trigger", "kind", "base", "rank", "sha256"}


def test_list_has_the_promised_shape(atelier: Atelier) -> None:
    said = atelier("loras", "--json")
    assert (said.code, set(said.json)) == (0, {"loras"})
    assert [lora["name"] for lora in said.json["loras"]] == ["coral", "fold-mug", "mika"]
    assert all(set(lora) == SHAPE | {"what", "bases"} for lora in said.json["loras"])


def test_show_has_the_promised_shape(atelier: Atelier) -> None:
    said = atelier("loras", "show", "Mika", "--json")
    assert (said.code, set(said.json), said.json["trigger"]) == (0, SHAPE, "mka")


def test_what_a_terminal_would_obey_does_not_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.result({}, ["\x1b[2J"])
    terminal.say("\x1b[2J")
    terminal.note("\x1b[2J")
    terminal.fail(UnknownLora("\x1b[2J"))
    record = logging.LogRecord("x", logging.WARNING, "", 0, "left out: %s", ("\x1b[2J",), None)
    assert LogLines().format(record) == "left out: �[2J"
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert (said.out + said.err).count("�[2J") == 4


def test_the_list_for_people_names_trigger_and_kind(atelier: Atelier) -> None:
    lines = atelier("loras").out.splitlines()
    assert lines[2].split()[:4] == ["mika", "character", "mka", "paper"]
    assert atelier("loras", "list").out.splitlines() == lines
    assert "trigger" in atelier("loras", "show", "mika").out
