"""init: asks what it has to know, one question at a time, and writes settings.toml.

It holds no event loop while it asks, so that Ctrl-C ends it at any question; nothing is written before the last one.
"""

import asyncio
import base64
import getpass
import re
import secrets
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp
import tomli_w
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.commands.terminal import Terminal
from bot.llm import check
from bot.message import printable
from bot.platforms import slack
from bot.settings import FILE, Llm, Settings, find_home, is_url, masked, read_settings, write_settings
from engine import bases
from engine.errors import Cancelled, Invalid, UserError
from engine.files import check_writable

SLACK_TIMEOUT = 10  # seconds
NO_REASON = "it answers with no reason"
OF_SLACK = (NO_REASON, "ratelimited", "fatal_error", "internal_error", "service_unavailable", "request_timeout")
OPENAI = "https://api.openai.com/v1"
HOOK = re.compile(r"[A-Za-z0-9_-]{1,64}")
NONE = "none"
Value = TypeVar("Value")
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """One of Slack's two: the key of the section that it stands under, how it begins, and where Slack shows it."""

    key: str
    prefix: str
    title: str
    where: str


BOT = Token("bot_token", "xoxb-", "bot token", "OAuth & Permissions")
APP = Token("app_token", "xapp-", "app-level token", "Basic Information, App-Level Tokens, with connections:write")


class Refused(Exception):
    """Slack does not take a token; says why in Slack's word."""


class Unreachable(Exception):
    """Nobody could be asked."""


class Answers:
    """Questions go to stderr; an answer is typed, or on a pipe the next line."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._by_hand = bool(sys.stdin and sys.stdin.isatty())

    def note(self, text: str) -> None:
        self._terminal.note(text)

    def text(self, question: str, default: str = "") -> str:
        return self._line(f"{question} [{default}]" if default else question) or default

    def hidden(self, question: str) -> str:
        """What is typed unseen."""
        if not self._by_hand:
            return self._line(question)
        try:
            return getpass.getpass(printable(f"{question}: "), stream=sys.stderr).strip()
        except EOFError:
            raise Cancelled from None

    def yes(self, question: str, default: bool) -> bool:
        while (said := self._line(f"{question} [{'Y/n' if default else 'y/N'}]").lower()) not in (
            "",
            *"yn",
            "yes",
            "no",
        ):
            self.note("Answer yes or no.")
        return said.startswith("y") if said else default

    def until(self, question: str, default: str, checked: Callable[[str], Value]) -> Value:
        """The first answer that passes; what is wrong with the others is said."""
        while True:
            said = self.text(question, default)
            try:
                return checked(said)
            except UserError as error:
                self.note(f"{error.message} {error.hint}")

    def _line(self, question: str) -> str:
        sys.stderr.write(printable(f"{question}: "))
        sys.stderr.flush()
        line = sys.stdin.readline() if sys.stdin else ""
        if not self._by_hand:
            self.note("")  # nobody pressed Enter
        if not line:
            if self._by_hand:
                raise Cancelled
            raise Invalid("answers", f"they end before “{question}”", "Give a line for each question.")
        return line.strip()


def init(home: Path | None, terminal: Terminal) -> None:
    """Ask everything, show what comes of it, and write it. Raises `Cancelled` with nothing written."""
    ask = Answers(terminal)
    ask.note("Enter takes what stands in brackets. Nothing is written before the end.")
    place = ask.until("Home, the folder where everything is kept", str(find_home(home)), _home)
    said = read_settings(place / FILE)
    wanted = said | {"base": ask.until("Base model", said.get("base", "pocket"), lambda name: _base(name, place))}
    doors: Table = dict(said.get("doors", {}))
    doors.setdefault("web", {})
    _put(doors, "slack", _slack(ask, place, doors.get("slack", {})))
    webhook: Table = doors.get("webhook", {})
    hooks, fresh = _hooks(ask, webhook.get("hooks", {}))
    _put(doors, "webhook", webhook | {"hooks": hooks} if hooks else None)
    wanted["doors"] = doors
    _put(wanted, "llm", _model(ask, said.get("llm", {})))
    _write(ask, place / FILE, wanted)
    for name, secret in fresh.items():
        ask.note(f"The secret of the webhook {name}, shown this once: {secret}")
    run = "atelier run" if place == find_home() else f"atelier run --home {shlex.quote(str(place))}"
    terminal.result({"file": str(place / FILE), "next": run}, [f"Written: {place / FILE}", f"Next: {run}"])


def _put(table: Table, key: str, value: Table | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _write(ask: Answers, file: Path, wanted: Table) -> None:
    ask.note(f"\n{file} will say:\n\n{tomli_w.dumps(masked(wanted))}")
    over = file.exists()
    if not ask.yes("Write it over the one there is? Its comments are not kept" if over else "Write it?", True):
        raise Cancelled
    write_settings(file, wanted)


def _home(said: str) -> Path:
    """A home whose settings are sound, or that has none, and that can be written to."""
    home = Settings(home=said).home
    check_writable(home)
    return home


def _base(name: str, home: Path) -> str:
    return bases.find(name, home).name


# Slack


def _slack(ask: Answers, home: Path, before: Table) -> Table | None:
    """The section; None for none."""
    if not ask.yes("Answer in Slack? (the web page is always there)", bool(before)):
        return None
    some: Table = {token.key: "?" for token in (BOT, APP)}  # the address is checked with no token yet
    url = Settings(home=home, doors={"slack": some}).door("slack", slack.Settings).base_url
    found = {token.key: _token(ask, token, before.get(token.key), url) for token in (BOT, APP)}
    if not all(found.values()):
        ask.note("Slack stays as it was, as it takes both tokens. Run this again when you have them.")
        return before or None
    return before | found


def _token(ask: Answers, token: Token, before: str | None, url: str) -> str | None:
    """A token that Slack takes, or that is kept unchecked; `before` if nothing is said."""
    instead = "Enter keeps the one there is" if before else "Enter skips"
    while said := ask.hidden(f"Slack {token.title}, {token.prefix}… (in Slack: {token.where}; {instead})"):
        try:
            if not said.startswith(token.prefix):
                raise Refused(f"it does not begin with {token.prefix}")
            ask.note(f"Slack takes the {token.title}{asyncio.run(_try(token, said, url))}.")
            return said
        except Refused as error:
            ask.note(f"That is no {token.title} to be used: {error}.")
        except Unreachable as error:
            ask.note(f"Slack cannot be asked now: {error}.")
            if ask.yes("Keep it unchecked?", True):
                return said
    return before


async def _try(token: Token, said: str, url: str) -> str:
    """Whom it speaks for, if Slack says so. Raises `Refused`, `Unreachable`."""
    client = AsyncWebClient(said, base_url=url, timeout=SLACK_TIMEOUT)
    try:
        if token is APP:
            await client.apps_connections_open(app_token=said)
            return ""
        found = await client.auth_test()
        return f", which speaks as {found.get('user')} in {found.get('team')}"
    except SlackApiError as error:
        answer = cast(Table, error.response)
        why = str(answer.get("error") or NO_REASON)
        raise (Unreachable if why in OF_SLACK else Refused)(why) from None
    except (SlackClientError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unreachable(f"it cannot be reached ({type(error).__name__})") from None


# Webhooks


def _hooks(ask: Answers, before: Table) -> tuple[Table, dict[str, str]]:
    """The hooks by name, and the secrets that were made for the new ones."""
    names = ask.until("Webhooks, by name, with spaces between", " ".join(before) or NONE, _names)
    hooks: Table = {}
    fresh: dict[str, str] = {}
    for name in names:
        hook: Table = before.get(name, {})
        url = ask.until(f"Where the replies of {name} are POSTed, a URL", hook.get("reply_url", ""), _reply_url)
        if not hook.get("secrets"):
            fresh[name] = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
            hook = hook | {"secrets": [fresh[name]]}
        hooks[name] = hook | {"reply_url": url}
    return hooks, fresh


def _names(said: str) -> tuple[str, ...]:
    names = () if said.lower() == NONE else tuple(dict.fromkeys(said.replace(",", " ").split()))
    for name in names:
        if not HOOK.fullmatch(name):
            raise Invalid("webhook", f"“{name}” is no name for one", "Use letters, digits, - and _, for example shop.")
    return names


def _reply_url(said: str) -> str:
    if not is_url(said):
        raise Invalid("address", f"“{said}” is no http or https URL", "Say for example https://shop.example/atelier.")
    return said


# The language model


def _model(ask: Answers, before: Table) -> Table | None:
    """The section; None where rules read."""
    wanted = ask.yes("Read messages with a language model? (without one, rules read them)", bool(before))
    while wanted:
        llm = before | {
            "base_url": ask.until("Its base URL", before.get("base_url", OPENAI), _reply_url),
            "model": ask.until("Its model", before.get("model", ""), _said),
        }
        if key := ask.hidden(f"Its key (Enter {'keeps the one there is' if 'key' in before else 'for none'})"):
            llm["key"] = key
        why = asyncio.run(check(Llm.model_validate(llm)))
        if why is None:
            ask.note("The model answers.")
            return llm
        ask.note(f"The model is not to be used now: {why}.")
        if ask.yes("Keep it all the same?", False):
            return llm
        wanted = ask.yes("Say it again? (else rules read)", True)
    return None


def _said(text: str) -> str:
    if not text:
        raise Invalid("model", "it is empty", "Say its name, for example gpt-5-mini.")
    return text
