"""Where a setting comes from, and what is said of one that cannot be taken."""

from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr, field_validator

from bot.settings import Settings, find_home, is_url, masked, read_settings, secrets_in, write_settings
from engine.errors import Invalid

TOKEN = "xoxb-canary-0123456789"
KEY = "sk-canary-0123456789"
LLM = f'[llm]\nbase_url = "http://localhost/v1"\nmodel = "m"\nkey = "{KEY}"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ATELIER_BASE", raising=False)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    return tmp_path


def say(home: Path, text: str) -> None:
    (home / "settings.toml").write_text(text)


def refused(home: Path, text: str | None = None) -> Invalid:
    if text is not None:
        say(home, text)
    with pytest.raises(Invalid) as caught:
        Settings()
    return caught.value


class Chat(BaseModel):
    bot_token: SecretStr
    port: int = 1

    @field_validator("port")
    @classmethod
    def _tells(cls, port: int) -> int:
        if port == 13:
            raise ValueError(f"no port for {TOKEN}")
        return port


def test_an_argument_beats_the_environment_which_beats_the_file_which_beats_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().base == "pocket"
    say(home, 'base = "of the file"')
    assert Settings().base == "of the file"
    monkeypatch.setenv("ATELIER_BASE", "of the environment")
    assert Settings().base == "of the environment"
    assert Settings(base="said").base == "said"


def test_the_file_is_the_one_in_the_home_that_was_found(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    say(home, 'base = "here"')
    say(other, 'base = "there"')
    assert [Settings().base, Settings(home=other).base] == ["here", "there"]


def test_a_door_of_the_environment_is_joined_with_the_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(home, '[doors.slack]\nbot_token = "old"\napp_token = "kept"\n[doors.web]\n')
    monkeypatch.setenv("ATELIER_DOORS__SLACK__BOT_TOKEN", TOKEN)
    monkeypatch.setenv("ATELIER_DOORS__WEBHOOK__HOOKS__SHOP__SECRETS", '["whsec_a", "whsec_b"]')
    assert Settings().doors == {
        "slack": {"bot_token": TOKEN, "app_token": "kept"},
        "web": {},
        "webhook": {"hooks": {"shop": {"secrets": ["whsec_a", "whsec_b"]}}},
    }


def test_a_value_of_digits_in_the_environment_stays_text(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_DOORS__SLACK__BOT_TOKEN", "0012")
    assert Settings().door("slack", Chat).bot_token.get_secret_value() == "0012"


def test_the_language_model_comes_from_either(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(home, LLM)
    monkeypatch.setenv("ATELIER_LLM__MODEL", "other")
    llm = Settings().llm
    assert llm
    assert (llm.base_url, llm.model, llm.key.get_secret_value()) == ("http://localhost/v1", "other", KEY)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("basee = 'x'", "basee is no setting", "Did you mean base?"),
        ("zzz = 'x'", "zzz is no setting", "there are home, base, doors, llm"),
        ("base = 3", "base is not right", "Correct it"),
        ("doors = 3", "doors is no table", "Correct it"),
        ("[doors]\nslack = 'x'", "doors.slack is no table", "Correct it"),
        ("[llm]\nmodel = 'm'", "llm.base_url is missing", "ATELIER_LLM__BASE_URL"),
        ("[llm]\nmodel = 'm'\nbase_url = 'nowhere'", "llm.base_url is not right: it is no http or https", "Correct it"),
        ("[llm]\nmodel = 'm'\nbase_url = 'http://x'\nkeey = 's'", "llm.keey is no setting", "Did you mean key?"),
        ("home = '/x'", "home cannot be set in it", "ATELIER_HOME"),
        ("base = pocket", "it cannot be read (Invalid value (at line 1", "Mend it by hand"),
        ("x = " + "[" * 5000, "it cannot be read", "Mend it by hand"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_what_to_do(home: Path, text: str, message: str, hint: str) -> None:
    error = refused(home, text)
    assert str(home / "settings.toml") in error.message
    assert message in error.message
    assert hint in error.hint


def test_what_is_wrong_in_the_environment_is_named_by_its_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(home, LLM)
    monkeypatch.setenv("ATELIER_LLM__BASE_URL", "nowhere")
    assert refused(home).message.startswith("settings: ATELIER_LLM__BASE_URL is not right")
    monkeypatch.delenv("ATELIER_LLM__BASE_URL")
    monkeypatch.setenv("ATELIER_DOORS", "slack")
    assert refused(home).message == "environment: ATELIER_DOORS is no table in JSON."


def test_a_file_that_is_a_folder_or_no_text_is_named(home: Path) -> None:
    (home / "settings.toml").mkdir()
    assert "it is not an ordinary file" in refused(home).message
    (home / "settings.toml").rmdir()
    (home / "settings.toml").write_bytes(b"\xff\xfe")
    assert "it cannot be read" in refused(home).message


@pytest.mark.parametrize(
    "text",
    [
        f"[doors.slack]\nbot_token = {TOKEN}\n",
        f"[llm]\nkey = ['{KEY}']\nmodel = ''\nbase_url = '{TOKEN}'\n",
        f"doors = '{TOKEN}'\nllm = '{KEY}'\n",
    ],
)
def test_no_error_says_a_secret(home: Path, text: str) -> None:
    error = refused(home, text)
    assert "canary" not in repr(error) + error.message + error.hint + repr(error.__cause__)


def test_no_secret_is_in_what_is_printed_of_settings(home: Path) -> None:
    say(home, f'{LLM}[doors.slack]\nbot_token = "{TOKEN}"\n')
    settings = Settings()
    assert settings.doors["slack"]["bot_token"] == TOKEN
    assert "canary" not in repr(settings) + str(settings) + repr(settings.llm)


def test_a_doors_section_is_checked_by_its_platforms_model(home: Path) -> None:
    say(home, f'[doors.slack]\nbot_token = "{TOKEN}"\nport = 2\n')
    chat = Settings().door("slack", Chat)
    assert (chat.bot_token.get_secret_value(), chat.port) == (TOKEN, 2)
    with pytest.raises(Invalid, match=r"doors\.mattermost\.bot_token is missing") as caught:
        Settings().door("mattermost", Chat)
    assert "ATELIER_DOORS__MATTERMOST__BOT_TOKEN" in caught.value.hint


def test_a_models_own_words_lose_the_secrets_of_its_section(home: Path) -> None:
    say(home, f'[doors.slack]\nbot_token = "{TOKEN}"\nport = 13\n')
    with pytest.raises(Invalid) as caught:
        Settings().door("slack", Chat)
    assert caught.value.message.endswith("doors.slack.port is not right: no port for ….")


def test_bare_settings_are_there_where_the_file_is_broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(home, "base = [")
    monkeypatch.setenv("ATELIER_BASE", "paper")
    bare = Settings.bare()
    assert (bare.home, bare.base, bare.doors, bare.llm) == (home, "paper", {}, None)


def test_what_is_written_is_read_again_and_is_for_its_owner_alone(home: Path) -> None:
    said = {"base": "paper", "doors": {"slack": {"bot_token": TOKEN}}}
    file = home / "new" / "settings.toml"
    write_settings(file, said)
    write_settings(file, said)
    assert read_settings(file) == said
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["settings.toml"]


def test_settings_that_cannot_be_written_are_refused_and_leave_nothing(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(Invalid, match="it cannot be written to"):
        write_settings(home / "file" / "settings.toml", {})
    (home / "settings.toml").mkdir()
    with pytest.raises(Invalid, match="it cannot be written to"):
        write_settings(home / "settings.toml", {})
    assert sorted(one.name for one in home.iterdir()) == ["file", "settings.toml"]


def test_secrets_are_found_by_the_name_that_they_stand_under() -> None:
    said = {"hooks": {"shop": {"secrets": ["a", "b"], "reply_url": "c"}}, "bot_token": "d", "empty_token": "", "n": 3}
    assert list(secrets_in(said)) == ["a", "b", "d"]
    assert masked(said) == {
        "hooks": {"shop": {"secrets": ["…", "…"], "reply_url": "c"}},
        "bot_token": "…",
        "empty_token": "",
        "n": 3,
    }


@pytest.mark.parametrize("text", ["", "x", "ftp://x", "http://", "http://x y", "http://x:port", "http://[::1", "//x"])
def test_what_is_no_url(text: str) -> None:
    assert not is_url(text)
    assert is_url("https://shop.example:8443/atelier?x=1")


def test_no_home_is_found_for_a_user_who_is_not_there() -> None:
    with pytest.raises(Invalid, match="there is no user as in ~nosuchuser/x"):
        find_home("~nosuchuser/x")
