import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.doctor import Finding, can_draw
from tests.bot.commands.conftest import Said

Atelier = Callable[..., Said]


def _read_to(end: bytes, terminal: int) -> bytes:
    said = b""
    while not said.endswith(end):
        said += os.read(terminal, 4_096)
    return said


def test_ctrl_c_at_the_prompt_ends_the_conversation(home: Path) -> None:
    outside, inside = pty.openpty()
    chat = subprocess.Popen(
        [sys.executable, "-m", "bot", "--home", str(home), "chat"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, "ATELIER_BASE": "paper"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inside)
    try:
        _read_to(b"you> ", outside)
        os.write(outside, b"what can you draw?\n")
        assert b"Paper knows" in _read_to(b"you> ", outside)
        os.write(outside, b"\x03")
        assert chat.wait(60) == 130
    finally:
        chat.kill()
        os.close(outside)


def test_ctrl_c_ends_a_conversation_that_waits_on_an_open_pipe(home: Path) -> None:
    chat = subprocess.Popen(
        [sys.executable, "-m", "bot", "--home", str(home), "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "ATELIER_BASE": "paper"},
    )
    assert chat.stdin
    assert chat.stdout
    try:
        chat.stdin.write(b"what can you draw?\n")
        chat.stdin.flush()
        assert b"Paper knows" in chat.stdout.readline()
        chat.send_signal(signal.SIGINT)
        assert chat.wait(60) == 130
    finally:
        chat.kill()
        chat.stdin.close()
        chat.stdout.close()


def test_a_pipe_is_one_message_a_line_and_json_one_reply_a_line(
    atelier: Atelier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a red mug\n\na fox at the beach in coral style\n"))
    said = atelier("chat", "--json")
    drawn, empty, styled = (json.loads(line) for line in said.out.splitlines())
    assert said.code == 0
    assert len(drawn["pictures"]) == 1
    assert empty["error"]["code"] == "invalid"
    assert "coral" in styled["text"]


def test_twelve_pictures_dropped_become_a_lora_that_the_next_line_uses(
    atelier: Atelier, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    lines = f"Learn a new subject from these pictures: it is a crab. Call it Pip. @{pictures}\nPip on a podium\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    learnt, drawn = (json.loads(line) for line in atelier("chat", "--json").out.splitlines())
    assert learnt["lora"]["name"] == "pip"
    assert [lora["name"] for lora in drawn["pictures"][0]["recipe"]["loras"]] == ["pip"]


def test_doctor_says_that_it_can_draw(atelier: Atelier) -> None:
    said = atelier("doctor", "--json")
    assert (said.code, said.json["can_draw"]) == (0, True)
    assert {finding["what"] for finding in said.json["findings"]} >= {
        "python",
        "torch",
        "machine",
        "gpu",
        "home",
        "disk",
        "loras",
    }


def test_doctor_that_cannot_draw_says_why_and_ends_with_1(atelier: Atelier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_BASE", "nowhere")
    said = atelier("doctor")
    assert said.code == 1
    assert "There is no base model named “nowhere”." in said.out


def test_doctor_names_a_lora_that_is_not_as_its_card_says(atelier: Atelier, pictures: Path, home: Path) -> None:
    atelier("train", pictures, "--name", "crab", "--kind", "subject", "--trigger", "zqx")
    (home / "loras" / "crab" / "weights.safetensors").write_bytes(b"other")
    (found,) = (f for f in atelier("doctor", "--json").json["findings"] if f["what"] == "loras")
    assert (found["ok"], "crab" in found["found"]) == (False, True)


def test_doctor_leaves_nothing_behind(atelier: Atelier, home: Path) -> None:
    before = sorted(home.rglob("*"))
    atelier("doctor")
    assert sorted(home.rglob("*")) == before


def test_the_drawing_decides() -> None:
    assert can_draw((Finding("gpu", False, ""), Finding("drawing", True, "")))
    assert not can_draw((Finding("gpu", True, ""), Finding("drawing", False, "")))
