"""`atelier init`, by hand on a terminal and line by line on a pipe."""

import asyncio
import fcntl
import io
import os
import pty
import signal
import subprocess
import sys
import termios
import tomllib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.settings import Settings
from tests.bot.commands.conftest import Said
from tests.fakes.openai import FakeOpenAI

Atelier = Callable[..., Said]
BOT, APP = "xoxb-canary-good", "xapp-canary-good"
KEY = "sk-canary"


class TokenOffice:
    """Slack's auth.test and apps.connections.open: two tokens are good; `error` is said in place of any answer."""

    def __init__(self) -> None:
        self.url = ""
        self.error = ""
        self.asked: list[tuple[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.asked.append((method, token))
        if self.error or token != {"auth.test": BOT, "apps.connections.open": APP}[method]:
            return web.json_response({"ok": False, "error": self.error or "invalid_auth"})
        return web.json_response({"ok": True, "user": "atelier", "team": "Acme", "url": "wss://x"})


@pytest.fixture
async def office(home: Path) -> AsyncGenerator[TokenOffice]:
    """The settings that are there name this place as Slack."""
    place = TokenOffice()
    app = web.Application()
    app.router.add_post("/api/{method}", place.answer)
    async with TestServer(app) as server:
        place.url = str(server.make_url("/api/"))
        (home / "settings.toml").write_text(f'[doors.slack]\nbase_url = "{place.url}"\n')
        yield place


@pytest.fixture
async def model() -> AsyncGenerator[FakeOpenAI]:
    async with FakeOpenAI().open() as fake:
        fake.answers = ['{"ready": true}']
        yield fake


@pytest.fixture
def answering(atelier: Atelier, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """`answering("", "paper")` gives init these lines and no more; beside the loop, which serves meanwhile."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> Said:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return atelier("init", *options)

    return run


def written(home: Path) -> dict:
    return tomllib.loads((home / "settings.toml").read_text())


def test_enter_all_the_way_writes_the_least(answering: Callable[..., Said], home: Path) -> None:
    said = answering("", "paper", "", "", "", "")
    assert said.code == 0, said.err
    assert written(home) == {"base": "paper", "doors": {"web": {}}}
    assert (home / "settings.toml").stat().st_mode & 0o777 == 0o600
    assert said.out.splitlines() == [f"Written: {home}/settings.toml", "Next: atelier run"]


def test_another_home_is_in_the_command_to_run(answering: Callable[..., Said], home: Path, tmp_path: Path) -> None:
    other = tmp_path / "an other"
    said = answering(str(other), "pocket", "", "", "", "", options=("--json",))
    assert said.json == {"file": f"{other}/settings.toml", "next": f"atelier run --home '{other}'"}
    assert not (home / "settings.toml").exists()


async def test_everything_is_asked_checked_and_written(
    answering: Callable[..., Said], home: Path, office: TokenOffice, model: FakeOpenAI
) -> None:
    lines = ["", "paper", "y", BOT, APP, "shop crm", "https://shop.example/a", "http://127.0.0.1:9/b"]
    lines += ["y", f"{model.url}/v1", "tiny", KEY, "y"]
    said = await asyncio.to_thread(answering, *lines)
    assert said.code == 0, said.err
    settings = Settings()
    assert settings.doors["slack"] == {"base_url": office.url, "bot_token": BOT, "app_token": APP}
    assert office.asked == [("auth.test", BOT), ("apps.connections.open", APP)]
    hooks = settings.doors["webhook"]["hooks"]
    assert {name: hook["reply_url"] for name, hook in hooks.items()} == {
        "shop": "https://shop.example/a",
        "crm": "http://127.0.0.1:9/b",
    }
    assert settings.llm == model.llm
    assert "which speaks as atelier in Acme" in said.err
    assert "The model answers." in said.err


async def test_the_only_secret_that_is_shown_is_a_new_webhooks_and_only_once(
    answering: Callable[..., Said], home: Path, office: TokenOffice, model: FakeOpenAI
) -> None:
    lines = ["", "paper", "y", BOT, APP, "shop", "https://shop.example/a", "y", f"{model.url}/v1", "tiny", KEY, "y"]
    said = await asyncio.to_thread(answering, *lines)
    (secret,) = written(home)["doors"]["webhook"]["hooks"]["shop"]["secrets"]
    assert secret.startswith("whsec_")
    assert said.err.count(secret) == 1
    assert "canary" not in said.out + said.err
    again = await asyncio.to_thread(answering, "", "", "", "", "", "", "", "", "", "", "", "")
    assert again.code == 0, again.err
    assert secret not in again.err


async def test_a_second_run_starts_from_what_is_there_and_keeps_what_it_does_not_know(
    answering: Callable[..., Said], home: Path, office: TokenOffice, model: FakeOpenAI
) -> None:
    before = f"""
base = "paper"
[doors.slack]
base_url = "{office.url}"
bot_token = "{BOT}"
app_token = "{APP}"
allow_channels = ["C1"]
[doors.mattermost]
url = "https://chat.example"
[doors.web]
hosts = ["studio.example"]
[doors.webhook]
max_bytes = 5
[doors.webhook.hooks.shop]
secrets = ["whsec_new", "whsec_old"]
reply_url = "https://shop.example/a"
[llm]
base_url = "{model.url}/v1"
model = "tiny"
key = "{KEY}"
"""
    (home / "settings.toml").write_text(before)
    said = await asyncio.to_thread(answering, *[""] * 12)
    assert said.code == 0, said.err
    assert written(home) == tomllib.loads(before)


async def test_what_is_answered_with_no_goes(
    answering: Callable[..., Said], home: Path, office: TokenOffice, model: FakeOpenAI
) -> None:
    await asyncio.to_thread(answering, "", "paper", "y", BOT, APP, "shop", "https://s.example", "n", "")
    assert set(written(home)["doors"]) == {"slack", "web", "webhook"}
    said = await asyncio.to_thread(answering, "", "", "n", "none", "n", "yes")
    assert said.code == 0, said.err
    assert written(home) == {"base": "paper", "doors": {"web": {}}}


async def test_a_wrong_token_is_told_with_slacks_reason_and_asked_again(
    answering: Callable[..., Said], home: Path, office: TokenOffice
) -> None:
    said = await asyncio.to_thread(answering, "", "paper", "y", APP, "xoxb-canary-bad", BOT, APP, "", "", "")
    assert said.code == 0, said.err
    assert "That is no bot token to be used: it does not begin with xoxb-." in said.err
    assert "That is no bot token to be used: invalid_auth." in said.err
    assert "canary" not in said.out + said.err
    assert written(home)["doors"]["slack"]["bot_token"] == BOT
    assert [token for _, token in office.asked] == ["xoxb-canary-bad", BOT, APP]


async def test_a_wrong_token_can_be_skipped(answering: Callable[..., Said], home: Path, office: TokenOffice) -> None:
    said = await asyncio.to_thread(answering, "", "paper", "y", "xoxb-bad", "", APP, "", "", "")
    assert said.code == 0, said.err
    assert "Slack stays as it was" in said.err
    assert written(home)["doors"]["slack"] == {"base_url": office.url}


@pytest.mark.parametrize(("keep", "kept"), [("", True), ("n", False)])
async def test_where_slack_cannot_be_asked_a_token_may_be_kept_unchecked(
    answering: Callable[..., Said], home: Path, office: TokenOffice, keep: str, kept: bool
) -> None:
    office.error = "internal_error"
    again = [] if kept else [""]
    said = await asyncio.to_thread(
        answering, "", "paper", "y", "xoxb-x", keep, *again, "xapp-x", keep, *again, "", "", ""
    )
    assert said.code == 0, said.err
    assert "Slack cannot be asked now: internal_error." in said.err
    assert ("bot_token" in written(home)["doors"]["slack"]) is kept


def test_no_network_is_told(answering: Callable[..., Said], home: Path) -> None:
    (home / "settings.toml").write_text('[doors.slack]\nbase_url = "http://127.0.0.1:9/api/"\n')
    said = answering("", "paper", "y", "xoxb-x", "y", "xapp-x", "y", "", "", "")
    assert said.code == 0, said.err
    assert said.err.count("Slack cannot be asked now: it cannot be reached (Client") == 2
    assert written(home)["doors"]["slack"]["app_token"] == "xapp-x"


def test_a_token_is_not_sent_to_an_address_that_the_door_would_refuse(
    answering: Callable[..., Said], home: Path
) -> None:
    (home / "settings.toml").write_text('[doors.slack]\nbase_url = "http://evil.example/"\n')
    said = answering("", "paper", "y", "xoxb-x")
    assert said.code == 2
    assert "doors.slack.base_url is not right" in said.err


async def test_a_model_that_does_not_answer_can_be_kept_said_again_or_left(
    answering: Callable[..., Said], home: Path, model: FakeOpenAI
) -> None:
    start, llm = ("", "paper", "", "", "y"), (f"{model.url}/v1", "tiny", KEY)
    model.answers = [401]
    said = await asyncio.to_thread(answering, *start, *llm, "n", "n", "")
    assert "The model is not to be used now: it answers with HTTP status 401." in said.err
    assert "llm" not in written(home)
    assert (await asyncio.to_thread(answering, *start, *llm, "y", "")).code == 0
    assert written(home)["llm"]["key"] == KEY
    model.answers = [401, '{"ready": true}']
    said = await asyncio.to_thread(answering, *start[:-1], "", "", "other", "sk-canary-2", "n", "", *llm, "")
    assert said.code == 0, said.err
    assert written(home)["llm"] == {"base_url": f"{model.url}/v1", "model": "tiny", "key": KEY}
    assert "canary" not in said.err


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("~nosuchuser/x", "", "paper"), "there is no user as in ~nosuchuser/x"),
        (("/proc/x", "", "paper"), "folder /proc/x: it cannot be written to."),
        (("", "papier", "paper"), "There is no base model named “papier”."),
        (("", "paper", "perhaps", "n"), "Answer yes or no."),
        (("", "paper", "", "a/b", "shop", "nowhere", "https://x.example"), "“a/b” is no name for one"),
        (("", "paper", "", "shop", "nowhere", "https://x.example"), "“nowhere” is no http or https URL"),
        (("", "paper", "", "", "y", "ftp://x", "", "", "m", "", "n"), "“ftp://x” is no http or https URL"),
    ],
)
def test_a_wrong_answer_is_told_and_asked_again(
    answering: Callable[..., Said], home: Path, lines: tuple[str, ...], sentence: str
) -> None:
    said = answering(*lines)
    assert sentence in said.err
    assert (said.code, "answers: they end before" in said.err) == (2, True)
    assert not (home / "settings.toml").exists()


def test_a_broken_file_is_told_and_left_as_it_is(answering: Callable[..., Said], home: Path, tmp_path: Path) -> None:
    (home / "settings.toml").write_text("base = [")
    said = answering("", str(tmp_path / "new"), "pocket", "", "", "", "")
    assert said.code == 0, said.err
    assert f"{home}/settings.toml: it cannot be read" in said.err
    assert (home / "settings.toml").read_text() == "base = ["
    assert written(tmp_path / "new")["base"] == "pocket"


def test_no_in_the_end_writes_nothing(answering: Callable[..., Said], home: Path) -> None:
    said = answering("", "paper", "", "", "", "n")
    assert (said.code, "Stopped; nothing was kept." in said.err) == (130, True)
    assert not (home / "settings.toml").exists()


def test_input_that_ends_early_writes_nothing(atelier: Atelier, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in ("", "\n", "\npaper\n", "\npaper\n\n\n\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        said = atelier("init", "--json")
        assert (said.code, said.error["code"]) == (2, "invalid")
    monkeypatch.setattr("sys.stdin", None)
    assert atelier("init").code == 2
    assert not (home / "settings.toml").exists()


def own_terminal() -> None:
    """In the child: the terminal is its own, and Ctrl-C reaches it, also where these tests run in the background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Keyboard:
    """`atelier init` on a terminal of its own. It needs base paper."""

    def __init__(self, home: Path) -> None:
        self._outside, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bot", "init"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "ATELIER_HOME": str(home), "PYTHONWARNINGS": "default"},
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(inside)
        self.seen = b""

    def read_to(self, end: bytes) -> None:
        while end not in self.seen[-2_000:]:
            self.seen += os.read(self._outside, 4_096)

    def answer(self, question: bytes, line: bytes) -> None:
        self.read_to(question)
        os.write(self._outside, line)

    def close(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            os.close(self._outside)


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
@pytest.mark.parametrize("hidden", [False, True])
def test_ctrl_c_and_ctrl_d_at_a_question_end_it_and_write_nothing(home: Path, key: bytes, hidden: bool) -> None:
    board = Keyboard(home)
    board.answer(b"Home, the folder", b"\n")
    board.answer(b"Base model", b"paper\n")
    if hidden:
        board.answer(b"Answer in Slack?", b"y\n")
        board.answer(b"Enter skips): ", key)
    else:
        board.answer(b"Answer in Slack?", key)
    board.read_to(b"nothing was kept")
    assert board.close() == 130
    assert not (home / "settings.toml").exists()


def test_a_token_is_typed_unseen(home: Path) -> None:
    (home / "settings.toml").write_text('[doors.slack]\nbase_url = "http://127.0.0.1:9/api/"\n')
    board = Keyboard(home)
    board.answer(b"Home, the folder", b"\n")
    board.answer(b"Base model", b"paper\n")
    board.answer(b"Answer in Slack?", b"y\n")
    board.answer(b"Enter skips): ", b"xoxb-canary\n")
    board.answer(b"Keep it unchecked?", b"\x03")
    board.read_to(b"nothing was kept")
    assert board.close() == 130
    assert b"canary" not in board.seen
