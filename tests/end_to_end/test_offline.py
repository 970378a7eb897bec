"""The whole program on a tiny base of the real architecture, in a process where any use of the network ends it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.bot.commands.conftest import png
from tests.tiny import tiny_sd

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        sys.stderr.write(f"network: {event} {arguments}\\n")
        raise SystemExit(99)

sys.addaudithook(refuse)
from bot.__main__ import main as atelier
"""
COMMANDS = """
assert atelier(["draw", "a mug", "--seed", "1", "--out", "drawn"]) == 0
assert atelier(["draw", "--again", "drawn/1.png", "--out", "again"]) == 0
lora = ["--name", "crab", "--kind", "subject", "--trigger", "zqx", "--class", "crab", "--steps", "2", "--rank", "4"]
assert atelier(["train", "pictures", *lora]) == 0
assert atelier(["draw", "a crab", "--lora", "crab:0.8", "--out", "with"]) == 0
assert atelier(["doctor"]) == 0
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    places = {"ATELIER_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "HOME": str(folder / "user")}
    given = {"PATH": os.environ["PATH"], "ATELIER_BASE": "tiny-sd"} | places
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + code], cwd=folder, env=given, capture_output=True, text=True, check=False
    )


def test_drawing_training_and_the_doctor_use_no_network_and_write_under_the_home_alone(tmp_path: Path) -> None:
    tiny_sd(tmp_path / "home")
    (tmp_path / "pictures").mkdir()
    for k in range(12):
        (tmp_path / "pictures" / f"{k}.png").write_bytes(png(64, k))
    done = run(COMMANDS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "1.png").read_bytes() == (tmp_path / "again" / "1.png").read_bytes()
    assert not (tmp_path / "user").exists()


def test_the_watch_itself_sees_a_connection(tmp_path: Path) -> None:
    done = run("import socket; socket.create_connection(('localhost', 9))", tmp_path)
    assert done.returncode == 99
    assert "network: socket.getaddrinfo" in done.stderr
