import io
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from bot.message import Inbound, Reply, Sent, Stage
from bot.platforms.console import LARGEST, CannotRead, Console, to_inbound, to_json, to_text


async def echo(inbound: Inbound) -> AsyncGenerator[Reply]:
    yield Reply(text="working", progress=Stage(stage="drawing", step=1, steps=3, preview=b"\x89PNG"))
    yield Reply(text=f"{inbound.text} [{', '.join(a.name for a in inbound.attachments)}]", intent="draw")


def test_a_path_is_attached_and_leaves_the_text(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"one")
    inbound = to_inbound(f'make "@{tmp_path}" blue @"{tmp_path}/a b.png"', 1)
    assert [a.name for a in inbound.attachments] == ["a b.png"]
    assert inbound.text == f'make "@{tmp_path}" blue'


def test_a_folder_gives_all_its_files_by_name(tmp_path: Path) -> None:
    for name in ("2.png", "1.png", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert [a.name for a in to_inbound(f"train @{tmp_path}", 1).attachments] == ["1.png", "2.png"]


def test_a_path_that_is_not_there_is_named_and_a_mention_stays_text() -> None:
    with pytest.raises(CannotRead, match=r"nowhere\.png"):
        to_inbound("look @nowhere.png", 1)
    assert to_inbound("ask @someone", 1).text == "ask @someone"


async def test_on_a_pipe_each_line_is_a_message_and_each_reply_a_line_of_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await Console(as_json=True, source=io.StringIO("a fox\n\n@gone.png\na mug\n")).serve(echo)
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["text"] for line in lines] == ["a fox []", " []", "There is no file gone.png.", "a mug []"]
    assert lines[2]["error"]["code"] == "invalid"
    assert "progress" not in lines[0]
    assert "working" in said.err


async def test_as_text_only_the_words_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    await Console(source=io.StringIO("a fox")).serve(echo)
    assert capsys.readouterr().out == "a fox []\n"


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(
    ("line", "answered"),
    [
        (b"@~nosuchuser hello", "There is no file ~nosuchuser."),
        (b"a mug \xff", "a mug \ufffd []"),
        (b"@a\xff/b.png", "There is no file a\ufffd/b.png."),
        (b"x" * 300_000, "x"),
    ],
    ids=["user", "latin", "path", "long"],
)
async def test_whatever_a_line_holds_it_is_answered_and_so_is_the_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, line: bytes, answered: str
) -> None:
    (tmp_path / "lines").write_bytes(line + b"\na fox\r\nthe end")
    with opened(tmp_path / "lines", kind) as source:
        await Console(as_json=True, source=source).serve(echo)
    first, *others = [json.loads(said)["text"] for said in capsys.readouterr().out.splitlines()]
    assert first.startswith(answered)
    assert others == ["a fox []", "the end []"]


@contextmanager
def opened(file: Path, kind: str) -> Iterator[TextIO]:
    if kind == "file":
        with file.open() as source:
            yield source
    else:
        with subprocess.Popen(["cat", file], stdout=subprocess.PIPE, text=True) as cat:
            assert cat.stdout
            yield cat.stdout


def test_a_folder_is_judged_before_it_is_read(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"{number}.png").touch()
        os.truncate(tmp_path / f"{number}.png", LARGEST + number)
    with pytest.raises(CannotRead, match="more than 300 MB together"):
        to_inbound(f"train @{tmp_path}", 1)


def test_what_a_terminal_would_obey_does_not_reach_it() -> None:
    reply = Reply(text="a\x1b[2J \u202eb\x9b \U0001f469\u200d\U0001f52c\u3000\nc")
    assert to_text(reply) == "a\ufffd[2J \ufffdb\ufffd \U0001f469\u200d\U0001f52c\u3000\nc"
    assert to_json(reply).isascii()
    assert json.loads(to_json(reply)) == {"text": reply.text, "pictures": [], "files": []}


async def test_a_closed_input_is_an_ended_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    await Console().serve(echo)


async def test_quit_ends_a_conversation_on_a_pipe_too(capsys: pytest.CaptureFixture[str]) -> None:
    await Console(source=io.StringIO("a fox\nquit\na mug\n")).serve(echo)
    assert capsys.readouterr().out == "a fox []\n"


def test_a_file_that_is_sent_is_named_by_where_it_lies() -> None:
    sent = Sent(name="inky.safetensors", file=Path("/home/exports/ab/inky.safetensors"), sha256="ab" * 32, size=3)
    reply = Reply(text="Here.", files=(sent,))
    assert to_text(reply) == "Here.\n  /home/exports/ab/inky.safetensors"
    assert json.loads(to_json(reply))["files"] == [
        {"name": "inky.safetensors", "file": str(sent.file), "sha256": sent.sha256, "size": 3}
    ]


def test_a_lora_is_read_whole_and_a_picture_no_further_than_it_may_be(tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.png"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(LARGEST + 5)
    lora = to_inbound(f"@{tmp_path}/x.safetensors", 1).attachments[0]
    picture = to_inbound(f"@{tmp_path}/x.png", 1).attachments[0]
    assert (len(lora.data), len(picture.data)) == (LARGEST + 5, LARGEST)
