import io
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bot.message import Inbound, Reply, Stage
from bot.platforms.console import CannotRead, Console, to_inbound


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
