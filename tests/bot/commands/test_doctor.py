"""What the doctor says of the settings; test_chat.py has what it says of the machine."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import doctor
from bot.settings import Settings
from bot.wiring import open_studio
from tests.bot.commands.conftest import Said
from tests.fakes.openai import FakeOpenAI

Atelier = Callable[..., Said]
Found = dict[str, tuple[bool | None, str, str]]
SLACK = '[doors.slack]\nbot_token = "xoxb-canary"\napp_token = "xapp-canary"\n'
SECRET = f"whsec_canary{'A' * 26}"
HOOK = f'[doors.webhook.hooks.shop]\nsecrets = ["{SECRET}"]\nreply_url = "https://shop.example"\n'


@pytest.fixture
def examined(atelier: Atelier, home: Path) -> Callable[[str], Found]:
    """`examined(text)` is what the doctor finds where settings.toml says that."""

    def run(text: str, mode: int = 0o600) -> Found:
        (home / "settings.toml").write_text(text)
        (home / "settings.toml").chmod(mode)
        said = atelier("doctor", "--json")
        assert said.json["can_draw"] is True
        assert "canary" not in said.out + said.err
        return {one["what"]: (one["ok"], one["found"], one["todo"]) for one in said.json["findings"]}

    return run


def test_no_file_is_told_and_is_no_fault(atelier: Atelier, home: Path) -> None:
    (found,) = (one for one in atelier("doctor", "--json").json["findings"] if one["what"] == "settings")
    assert (found["ok"], "atelier init" in found["todo"]) == (None, True)


def test_sound_settings_are_ok(examined: Callable[..., Found], home: Path) -> None:
    found = examined(f"{SLACK}{HOOK}[doors.web]\n")
    assert found["settings"] == (True, f"{home}/settings.toml", "")
    assert [found[door][0] for door in ("slack", "webhook", "web")] == [True, True, True]


@pytest.mark.parametrize("text", ["base = [", "basee = 'paper'", "doors = 3", "home = '/x'", "[llm]\nmodel = 'm'"])
def test_settings_that_cannot_be_read_are_one_of_the_findings(
    atelier: Atelier, examined: Callable[..., Found], home: Path, text: str
) -> None:
    ok, found, todo = examined(text)["settings"]
    assert (ok, f"{home}/settings.toml" in found, bool(todo)) == (False, True, True)
    assert atelier("doctor").code == 2
    assert atelier("loras").code == 2


@pytest.mark.parametrize(
    ("text", "door", "said", "todo"),
    [
        ("[doors.slak]\n", "slak", "there is no door of that name", "Did you mean slack?"),
        ("[doors.console]\n", "console", "there is no door of that name", "there are slack, web, webhook"),
        ("[doors.zzzz]\n", "zzzz", "there is no door of that name", "Remove [doors.zzzz]"),
        ("[doors.slack]\n", "slack", "doors.slack.bot_token is missing; doors.slack.app_token is missing",
         "ATELIER_DOORS__SLACK__BOT_TOKEN"),
        (SLACK.replace("xapp-canary", ""), "slack", "doors.slack.app_token is empty", "atelier init"),
        (SLACK + 'base_url = "http://x.example"', "slack", "doors.slack.base_url is not right", "Correct it"),
        (HOOK.replace("https://", ""), "webhook", "doors.webhook.hooks.shop.reply_url is not right: it is no http",
         "Correct it"),
        (HOOK.partition("reply")[0], "webhook", "doors.webhook.hooks.shop.reply_url is missing", "Set it there"),
        (HOOK.replace(f'"{SECRET}"', ""), "webhook", "doors.webhook.hooks.shop.secrets is not right", "Correct it"),
        (HOOK.replace("A", ""), "webhook", "doors.webhook.hooks.shop.secrets is not right: secret 1", "Correct it"),
        (f'[doors.webhook]\npublic_url = "x"\n{HOOK}', "webhook", "doors.webhook.public_url is no http", "Correct it"),
        ("[doors.web]\nhost = 'x'\n", "web", "doors.web.host is no setting", "Did you mean hosts?"),
        ("[doors.web]\nmax_files = 0\n", "web", "doors.web.max_files is not right", "Correct it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_door_is_named_with_what_to_do(
    examined: Callable[..., Found], text: str, door: str, said: str, todo: str
) -> None:
    found = examined(text)
    assert found["settings"][0] is True
    assert found[door][0] is False
    assert said in found[door][1]
    assert todo in found[door][2]


def test_a_door_of_the_environment_is_named_by_its_variable(
    examined: Callable[..., Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_DOORS__WEB__MAX_TABS", "many")
    assert "ATELIER_DOORS__WEB__MAX_TABS is not right" in examined("")["web"][1]


@pytest.mark.parametrize(("mode", "ok"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_file_with_secrets_is_for_its_owner_alone(
    examined: Callable[..., Found], home: Path, mode: int, ok: bool
) -> None:
    found = examined(SLACK, mode)["settings"]
    assert found[0] is ok
    if not ok:
        assert f"(mode {mode:o})" in found[1]
        assert found[2] == f"chmod 600 {home}/settings.toml"


def test_a_file_without_secrets_may_be_read_by_all(examined: Callable[..., Found]) -> None:
    assert examined('base = "paper"\n', 0o644)["settings"][0] is True


async def test_a_language_model_is_asked_and_a_silent_one_is_named(examined: Callable[..., Found]) -> None:
    async with FakeOpenAI().open() as server:
        text = f'[llm]\nbase_url = "{server.url}/v1"\nmodel = "tiny"\nkey = "sk-canary"\n'
        server.answers = ['{"ready": true}']
        assert (await asyncio.to_thread(examined, text))["llm"] == (True, f"tiny at {server.url}/v1 answers", "")
        server.answers = [401]
        ok, found, todo = (await asyncio.to_thread(examined, text))["llm"]
    assert (ok, "HTTP status 401" in found, "rules read" in todo) == (False, True, True)


def test_a_gpu_with_nothing_but_pocket_is_told_of_the_base_that_suits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smi(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, "NVIDIA H100, 81559 MiB\n", "")

    monkeypatch.setattr(doctor.subprocess, "run", smi)
    monkeypatch.setattr(doctor, "version", lambda _: "2.11.0")
    look = vars(doctor)["_gpu"]
    studio = open_studio(Settings.bare(tmp_path))
    found = look(studio)
    assert (found.ok, found.found) == (True, "NVIDIA H100, 81559 MiB")
    assert "`atelier bases get black-forest-labs/FLUX.2-klein-4B --name klein`" in found.todo
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    (tmp_path / "bases" / "mine" / "base.toml").write_text("")
    assert look(studio).todo == ""
    monkeypatch.setattr(doctor, "version", lambda _: "2.11.0+cpu")
    assert look(studio).todo == "Run `make run TORCH=cuda`."
