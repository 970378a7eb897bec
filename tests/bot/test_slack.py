"""The door to Slack, with the real slack_bolt and slack_sdk on our side and a fake Slack on the other."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr, ValidationError
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry import builtin_async_handlers
from slack_sdk.models.blocks import Block
from yarl import URL

from bot.message import (
    Door,
    Full,
    House,
    Inbound,
    Press,
    Reply,
    Said,
    Sent,
    Shown,
    Stage,
    Trouble,
    Undeliverable,
)
from bot.platforms import slack as door_module
from bot.platforms.slack import (
    EVERY,
    HOLD,
    LACKS,
    LONGEST,
    MOST_FILES,
    NOT_HERE,
    PRESS_LOST,
    Settings,
    Slack,
    Slow,
    alt_text,
    is_for_us,
    open_door,
    to_inbound,
    to_plain,
    to_slack,
)
from tests.fakes.house import FakeHouse
from tests.fakes.slack import ME, FakeSlack

BOT_TOKEN, APP_TOKEN = "xoxb-1-canary-bot", "xapp-1-canary-app"


class Home(FakeHouse):
    """Has no LoRAs. `threads`: those that we were spoken to in."""

    def __init__(self) -> None:
        super().__init__(())
        self.threads: set[str] = set()

    async def past(self, thread: str) -> tuple[Said, ...]:
        said = Inbound(id="T1/C1/1.0", thread=thread, person="T1/U1", text="a cat")
        return (Said(inbound=said, reply=Reply(text="A cat.")),) if thread in self.threads else ()


class Inbox:
    """Satisfies `Receive`: one for each key, and a twin's files are given to the one that is there."""

    def __init__(self, slack: FakeSlack) -> None:
        self.stored: dict[str, Inbound] = {}
        self.holds: list[float] = []
        self.deliveries = 0
        self.raises: Exception | None = None
        self.gate: asyncio.Event | None = None
        self._slack = slack

    async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
        self.deliveries += 1
        if self.gate:
            await self.gate.wait()
        if self.raises:
            raise self.raises
        self.holds.append(hold)
        first = inbound.key not in self.stored
        if first or inbound.attachments:
            self.stored[inbound.key] = inbound
        self._slack.log.append(f"stored {inbound.id}")
        return first

    @property
    def all(self) -> list[Inbound]:
        return list(self.stored.values())


class World(SimpleNamespace):
    slack: FakeSlack
    inbox: Inbox
    home: Home
    door: Slack
    now: float

    async def said(self, event: dict[str, Any], **envelope: Any) -> None:
        """Delivered and acknowledged."""
        await self.slack.acked(await self.slack.event(event, **envelope))

    async def refused(self, event: dict[str, Any]) -> str:
        """Delivered, worked on to the end, and not acknowledged. An event after it is."""
        before = self.inbox.deliveries
        envelope = await self.slack.event(event)
        await self.slack.until(lambda: self.inbox.deliveries > before)
        await self.said({"type": "team_rename", "name": "x"})
        return envelope


def settings(slack: FakeSlack, **more: Any) -> Settings:
    return Settings(bot_token=SecretStr(BOT_TOKEN), app_token=SecretStr(APP_TOKEN), base_url=slack.base_url, **more)


@asynccontextmanager
async def a_world(patience: float = 30.0, **more: Any) -> AsyncGenerator[World]:
    """A door that is connected."""
    async with FakeSlack() as slack:
        world = World(slack=slack, inbox=Inbox(slack), home=Home(), now=100.0)
        world.door = Slack(settings(slack, **more), world.home, clock=lambda: world.now, patience=patience)
        world.door.mount(None, world.inbox)  # type: ignore[arg-type]
        running = asyncio.create_task(world.door.run())
        try:
            await slack.connected()
            yield world
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "SLACK_CLIENT_ID", "SLACK_BOT_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the SDK's retries, in seconds, none of which is waited for."""
    waits: list[float] = []

    async def nap(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(builtin_async_handlers, "asyncio", SimpleNamespace(sleep=nap))
    return waits


def mention(text: str = f"<@{ME}> a red cat", ts: str = "1.0", **more: Any) -> dict[str, Any]:
    """As `app_mention`."""
    return {"type": "app_mention", "user": "U1", "text": text, "ts": ts, "channel": "C1", **more}


def message(text: str = f"<@{ME}> a red cat", ts: str = "1.0", **more: Any) -> dict[str, Any]:
    """In a channel."""
    said = {"type": "message", "user": "U1", "text": text, "ts": ts, "channel": "C1", "channel_type": "channel"}
    return said | more


def direct(text: str = "a red cat", ts: str = "1.0", **more: Any) -> dict[str, Any]:
    return message(text, ts, **{"channel": "D1", "channel_type": "im", **more})


def asked(**more: Any) -> Inbound:
    return to_inbound(message(), "T1", ME).model_copy(update=more)


def drawing(step: int) -> Reply:
    return Reply(text=f"drawing {step}/8", progress=Stage(stage="drawing", step=step, steps=8), actions=("cancel",))


def drawn(tmp_path: Path, count: int = 1, **more: Any) -> Reply:
    shown: list[Shown] = []
    for k in range(count):
        file = tmp_path / f"{k}.png"
        file.write_bytes(f"picture {k}".encode())
        shown.append(Shown(file=file, recipe={"prompt": "a red cat"}, sha256=f"{k}" * 64))
    return Reply(**{"text": "Here.", "pictures": tuple(shown), "actions": ("vary", "why"), **more})


def names(slack: FakeSlack, channel: str = "C1", thread: str = "1.0") -> list[str]:
    """What is in the thread, file names shortened to their number."""
    return [re.sub(r"\[atelier-\w+-", "[", line) for line in slack.screen(channel, thread)]


# What is for us.


def test_a_dm_and_a_mention_are_for_us_and_talk_in_a_channel_is_not() -> None:
    assert is_for_us(direct(), ME)
    assert is_for_us(mention(), ME)
    assert is_for_us(message(), ME)
    assert is_for_us(message(f"look <@{ME}|atelier>"), ME)
    assert not is_for_us(message("a red cat"), ME)
    assert not is_for_us(message("<@U2> a red cat"), ME)


@pytest.mark.parametrize("subtype", ["file_share", "thread_broadcast"])
def test_files_and_broadcasts_are_talk(subtype: str) -> None:
    assert is_for_us(direct(subtype=subtype), ME)


@pytest.mark.parametrize(
    "more",
    [
        {"user": ME},
        {"bot_id": "B9"},
        {"subtype": "bot_message", "bot_id": "B9"},
        {"subtype": "message_changed"},
        {"subtype": "message_deleted"},
        {"subtype": "channel_join"},
        {"edited": {"user": "U1", "ts": "2.0"}},
        {"user": None},
        {"hidden": True},
    ],
)
def test_what_no_person_newly_says_is_not_for_us(more: dict[str, Any]) -> None:  # S6
    assert not is_for_us(direct(**more), ME)
    assert not is_for_us(mention(**more), ME)


async def test_own_bot_edited_and_deleted_messages_are_acknowledged_and_lead_to_nothing(world: World) -> None:  # S6
    for event in (direct(user=ME), direct(bot_id="B9"), direct(subtype="message_changed"), mention(edited={"ts": "2"})):
        await world.said(event)
    await world.said(direct("for us", ts="9.0"))
    assert [inbound.text for inbound in world.inbox.all] == ["for us"]
    assert world.inbox.holds == [0.0]


async def test_a_thread_that_we_are_in_needs_no_mention(world: World) -> None:
    world.home.threads.add("C1/1.0")
    await world.said(message("bluer", ts="5.0", thread_ts="1.0"))
    await world.said(message("a thread of others", ts="6.0", thread_ts="4.0"))
    await world.said(message("no thread", ts="7.0"))
    assert [(inbound.text, inbound.thread) for inbound in world.inbox.all] == [("bluer", "C1/1.0")]


# To plain data.


def test_a_mention_becomes_an_inbound() -> None:
    assert to_inbound(mention(f"<@{ME}> a red cat", ts="5.0", thread_ts="1.0"), "T1", ME) == Inbound(
        id="T1/C1/5.0", thread="C1/1.0", person="T1/U1", text="a red cat", platform="slack", channel="T1/C1"
    )


@pytest.mark.parametrize(
    ("marked_up", "plain"),
    [
        (f"<@{ME}> a cat", "a cat"),
        (f"draw <@{ME}|atelier> a cat", "draw a cat"),
        ("cats &amp; dogs &lt;3 &gt; all", "cats & dogs <3 > all"),
        ("&amp;lt;", "&lt;"),
        ("see <https://a.example/x|this page>", "see this page"),
        ("see <https://a.example/?a=1&amp;b=2>", "see https://a.example/?a=1&b=2"),
        ("ask <@U2> and <@U3|bo> in <#C2|general>", "ask @U2 and @bo in #general"),
        ("<!here> <!subteam^S1|@team> <!date^1^{date}|today>", "@here @team today"),
        ("one\ntwo   three", "one\ntwo three"),
    ],
)
def test_markup_of_slack_is_undone(marked_up: str, plain: str) -> None:
    assert to_plain(marked_up, ME) == plain


# To Slack.


def test_echoed_text_cannot_ping_or_link() -> None:  # S22
    body = to_slack(Reply(text="<!channel> <@U2> @here & <https://a.example|b>"), "slack:1")
    said = "&lt;!channel&gt; &lt;@U2&gt; @here &amp; &lt;https://a.example|b&gt;"
    assert body["text"] == said
    assert body["blocks"] == [{"type": "section", "text": {"type": "mrkdwn", "text": said, "verbatim": True}}]
    assert (body["parse"], body["link_names"]) == ("none", False)
    assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)


def test_each_picture_has_its_buttons_and_their_values_come_back_as_a_press(tmp_path: Path) -> None:
    body = to_slack(drawn(tmp_path, 2), "slack:T1/C1/1.0")
    buttons = body["blocks"][-1]["elements"]
    assert [button["text"]["text"] for button in buttons] == ["Vary 1", "Vary 2", "Why?"]
    assert Press.model_validate_json(buttons[1]["value"]) == Press(verb="vary", of="slack:T1/C1/1.0", picture=1)
    assert len({button["action_id"] for button in buttons}) == 3


REPLIES = [
    Reply(text=""),
    Reply(text="x" * 20_000),
    Reply(text="& <" * 9_000),
    Reply(text="word " * 9_000),
    Reply(text="It broke.", error=Trouble(code="internal", message="It broke.", incident="7f3a")),
    Reply(text="q", actions=("vary", "seed", "why", "recipe", "train", "cancel"),
          pictures=tuple(Shown(file=Path("x.png"), recipe={}) for _ in range(4))),
]  # fmt: skip


@pytest.mark.parametrize("reply", REPLIES)
def test_every_payload_is_valid_to_the_sdk_and_no_escape_is_cut_apart(reply: Reply) -> None:  # S17
    body = to_slack(reply, "slack:T1/C1/1.0")
    for block, parsed in zip(body["blocks"], Block.parse_all(body["blocks"]), strict=True):
        assert parsed.to_dict() == block
    sections = [block["text"]["text"] for block in body["blocks"] if block["type"] == "section"]
    assert "".join(sections) == body["text"]
    assert len(body["text"]) <= 40_000
    assert len(body["blocks"]) <= 50
    for section in sections:
        assert 0 < len(section) <= LONGEST
        assert section.replace("&amp;", "").replace("&lt;", "").count("&") == 0


def test_an_error_is_seen_as_one_and_names_its_incident() -> None:
    body = to_slack(REPLIES[4], "k")
    assert body["text"] == ":warning: It broke."
    assert body["blocks"][1]["elements"][0]["text"] == "Incident 7f3a"


def test_alt_text_is_the_prompt_within_slacks_limit() -> None:
    assert alt_text(Shown(file=Path("x"), recipe={"prompt": "a red cat"}), 1) == "Picture 2: a red cat"
    assert alt_text(Shown(file=Path("x"), recipe={}), 0) == "Picture 1"
    assert len(alt_text(Shown(file=Path("x"), recipe={"prompt": "x" * 2000}), 0)) == 1000


# Settings.


def test_the_token_goes_nowhere_in_the_clear() -> None:
    tokens = {"bot_token": SecretStr(BOT_TOKEN), "app_token": SecretStr(APP_TOKEN)}
    for url in ("http://slack.com/api/", "http://127.0.0.1.evil.example/", "ftp://slack.com/"):
        with pytest.raises(ValidationError):
            Settings(**tokens, base_url=url)
    assert Settings(**tokens, base_url="http://[::1]:80/api").base_url == "http://[::1]:80/api/"


def test_tokens_are_not_in_what_a_settings_error_says() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"bot_token": [BOT_TOKEN], "app_token": APP_TOKEN, "base_url": "http://x"})
    assert "canary" not in str(caught.value)


async def test_open_door_is_a_door() -> None:
    async with FakeSlack() as slack:
        house: House = Home()
        door: Door = open_door(settings(slack), house)
        assert door.name == "slack"


# Stored, then acknowledged.


async def test_a_message_is_acknowledged_only_after_it_is_stored(world: World) -> None:
    world.inbox.gate = asyncio.Event()
    envelope = await world.slack.event(direct())
    await world.slack.until(lambda: world.inbox.deliveries)
    await world.said({"type": "team_rename", "name": "x"})  # a whole turn of the socket later
    assert envelope not in world.slack.acks
    world.inbox.gate.set()
    await world.slack.acked(envelope)
    assert world.slack.log.index("stored T1/D1/1.0") < world.slack.log.index(f"ack {envelope}")


@pytest.mark.parametrize("error", [Full(30), OSError("disk full")])
async def test_what_cannot_be_stored_is_not_acknowledged_and_its_second_delivery_is(
    world: World, error: Exception
) -> None:  # S3: lost first delivery
    world.inbox.raises = error
    envelope = await world.refused(direct())
    assert envelope not in world.slack.acks
    world.inbox.raises = None
    await world.said(direct(), retry_attempt=1, retry_reason="timeout")
    assert [inbound.text for inbound in world.inbox.all] == ["a red cat"]


async def test_each_retry_has_the_id_of_the_first(world: World) -> None:  # S3
    for attempt in range(4):
        await world.said(direct(), retry_attempt=attempt)
    assert world.inbox.deliveries == 4
    assert [inbound.id for inbound in world.inbox.all] == ["T1/D1/1.0"]


async def test_what_nobody_listens_to_is_acknowledged(world: World) -> None:  # S2
    await world.said({"type": "channel_created", "channel": {"id": "C9"}})
    for kind, payload in (
        ("slash_commands", {"command": "/x", "text": "", "user_id": "U1", "team_id": "T1"}),
        ("interactive", {"type": "view_submission", "user": {"id": "U1"}, "team": {"id": "T1"},
                         "view": {"type": "modal", "callback_id": "v"}}),
    ):  # fmt: skip
        await world.slack.acked(await world.slack.envelope(kind, payload))
    assert not world.inbox.all


# Twins.


@pytest.mark.parametrize("order", ["message first", "mention first"])
async def test_a_mention_and_its_twin_are_one_message_with_the_files(world: World, order: str) -> None:  # S4
    picture = world.slack.keep("a.png", b"png")
    twins = [message(subtype="file_share", files=[picture]), mention()]
    for event in twins if order == "message first" else reversed(twins):
        await world.said(event)
    (inbound,) = world.inbox.all
    assert [file.data for file in inbound.attachments] == [b"png"]
    assert inbound.text == "a red cat"
    assert sorted(world.inbox.holds) == [0.0, HOLD]


async def test_a_mention_alone_waits_for_its_twin_and_one_with_files_does_not(world: World) -> None:
    await world.said(mention())
    await world.said(mention(ts="2.0", files=[world.slack.keep("a.png")]))
    assert world.inbox.holds == [HOLD, 0.0]


async def test_a_mention_joins_its_twin_whose_files_are_on_their_way(world: World) -> None:
    gate = asyncio.Event()
    event = message(files=[world.slack.keep("a.png", b"png", gate=gate)])
    first = await world.slack.event(event)
    await world.slack.until(lambda: world.slack.fetched)
    second = await world.slack.event(mention())
    await world.said({"type": "team_rename", "name": "x"})
    assert world.inbox.deliveries == 0
    gate.set()
    await world.slack.acked(first)
    await world.slack.acked(second)
    (inbound,) = world.inbox.all
    assert len(inbound.attachments) == 1
    assert len(world.slack.fetched) == 1


# Files.


async def test_twelve_files_come_in_order_with_the_token(world: World) -> None:  # S5
    files = [world.slack.keep(f"{k}.png", f"picture {k}".encode()) for k in range(12)]
    await world.said(direct("train on these", subtype="file_share", files=files))
    (inbound,) = world.inbox.all
    assert [file.name for file in inbound.attachments] == [f"{k}.png" for k in range(12)]
    assert [file.data for file in inbound.attachments] == [f"picture {k}".encode() for k in range(12)]
    assert {token for _, token in world.slack.fetched} == {f"Bearer {BOT_TOKEN}"}
    assert world.slack.screen("D1", "1.0") == []


async def test_slow_files_leave_a_message_unacknowledged_and_its_second_delivery_finds_it_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_world(patience=0.01) as world:
        gate = asyncio.Event()
        event = direct(files=[world.slack.keep("a.png", b"png", gate=gate)])
        first = await world.slack.event(event)
        again = await world.slack.event(event, retry_attempt=1)  # while they still come: it waits for the same
        await world.slack.until(lambda: caplog.text.count(f"not acknowledged: {Slow.__name__}") == 2)
        assert world.inbox.deliveries == 0
        gate.set()
        await world.slack.until(lambda: world.inbox.stored)  # though nobody waits any more
        await world.said(event, retry_attempt=2)
        assert first not in world.slack.acks
        assert again not in world.slack.acks
        (inbound,) = world.inbox.all
        assert [file.data for file in inbound.attachments] == [b"png"]


@pytest.mark.parametrize("how", ["page", "redirect", "forbidden"])
async def test_a_login_page_for_a_file_is_told_as_the_permission_that_lacks(world: World, how: str) -> None:  # S8
    lacks: dict[str, dict[str, Any]] = {
        "page": {"login": True},
        "redirect": {"redirect": "https://team.slack.com/?redir=x"},
        "forbidden": {"statuses": [403, 403]},
    }
    good, bad = world.slack.keep("good.png"), world.slack.keep("bad <!here>.png", **lacks[how])
    bad["url_private_download"] = bad["url_private_download"].replace(" ", "%20")
    for attempt in range(2):  # told once, though it came twice
        await world.said(direct(files=[bad, good]), retry_attempt=attempt)
    (inbound,) = world.inbox.all
    assert [file.name for file in inbound.attachments] == ["good.png"]
    assert world.slack.screen("D1", "1.0") == [f"I could not read bad &lt;!here&gt;.png: {LACKS}"]
    assert "files:read" in LACKS


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.png",
        "https://files.slack.com.evil.example/a.png",
        "https://evil.example/files.slack.com/a.png",
        "https://files.slack.com@evil.example/a.png",
        "https://user:pass@files.slack.com/a.png",
        "https://files.slack.com:8443/a.png",
        "http://files.slack.com/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//files.slack.com/a.png",
        "https://[",
        "https://xn--/a.png",
        "not an address",
    ],
)
async def test_no_host_but_slacks_is_asked_for_a_file(world: World, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    get = aiohttp.ClientSession.get

    def noted(self: Any, url: Any, **more: Any) -> Any:
        asked_for.append(str(url))
        return get(self, url, **more)

    monkeypatch.setattr(aiohttp.ClientSession, "get", noted)
    await world.said(direct(files=[{"id": "F1", "name": "a.png", "url_private": url}]))
    assert asked_for == []
    (inbound,) = world.inbox.all
    assert inbound.attachments == ()
    assert len(world.slack.screen("D1", "1.0")) == 1


async def test_the_token_does_not_follow_a_redirect_to_another_host(world: World) -> None:
    async with FakeSlack() as other:
        other.keep("a.png")
        first = world.slack.keep("a.png", redirect=f"http://{other.host}/files/a.png")
        await world.said(direct(files=[first]))
        assert len(world.slack.fetched) == 1
        assert other.fetched == []
        assert world.inbox.all[0].attachments == ()


async def test_the_token_does_not_follow_a_redirect_even_to_another_host_of_slack(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[tuple[str, bool]] = []
    get = aiohttp.ClientSession.get

    def noted(self: Any, url: URL, **more: Any) -> Any:
        asked_for.append((str(url.host), "Authorization" in more["headers"]))
        if url.host == "files.slack.com":
            raise aiohttp.ClientError("not from here")
        return get(self, url, **more)

    monkeypatch.setattr(aiohttp.ClientSession, "get", noted)
    monkeypatch.setattr(door_module, "TRIES", 1)
    await world.said(direct(files=[world.slack.keep("a.png", redirect="https://files.slack.com/a.png")]))
    assert asked_for == [("127.0.0.1", True), ("files.slack.com", False)]


async def test_a_redirect_on_the_same_host_is_followed(world: World) -> None:
    world.slack.keep("b.png", b"there")
    await world.said(direct(files=[world.slack.keep("a.png", redirect="/files/b.png")]))
    assert [file.data for file in world.inbox.all[0].attachments] == [b"there"]


async def test_a_thin_file_is_made_whole_by_files_info(world: World) -> None:  # S24
    world.slack.infos["F9"] = world.slack.keep("shared.png", b"shared")
    await world.said(direct(files=[{"id": "F9", "file_access": "check_file_info"}]))
    (inbound,) = world.inbox.all
    assert [(file.name, file.data) for file in inbound.attachments] == [("shared.png", b"shared")]


async def test_a_thin_file_without_the_permission_names_it(world: World) -> None:
    world.slack.fail("files.info", error="missing_scope")
    await world.said(direct(files=[{"id": "F9", "file_access": "check_file_info"}]))
    assert world.slack.screen("D1", "1.0") == [f"I could not read F9: {LACKS}"]


async def test_a_file_that_grows_beyond_the_limit_is_left_and_so_are_the_files_after_the_fortieth(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "LARGEST", 1000)
    lying = world.slack.keep("big.png", b"x" * 5000) | {"size": 10}
    honest = world.slack.keep("honest.png", b"x" * 5000)
    small = [world.slack.keep(f"{k}.png") for k in range(MOST_FILES)]
    await world.said(direct(files=[lying, honest, *small]))
    assert [file.name for file in world.inbox.all[0].attachments] == [f"{k}.png" for k in range(MOST_FILES - 2)]
    assert "honest.png" not in [name for name, _ in world.slack.fetched]
    (told,) = world.slack.screen("D1", "1.0")
    assert told.splitlines() == [
        "I could not read big.png, honest.png: larger than 0 MB.",
        f"38.png, 39.png: {door_module.TOO_MANY}",
    ]


async def test_a_file_that_fails_twice_is_there_at_the_third_try(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "BACKOFF", 0.0)
    await world.said(direct(files=[world.slack.keep("a.png", b"png", statuses=[500, 429])]))
    assert [file.data for file in world.inbox.all[0].attachments] == [b"png"]
    await world.said(direct(ts="2.0", files=[world.slack.keep("b.png", statuses=[500] * 3)]))
    assert world.slack.screen("D1", "2.0") == [f"I could not read b.png: {door_module.UNREACHED}"]


# Buttons.


async def test_a_press_is_a_message_of_its_presser(world: World) -> None:  # S15
    value = json.dumps({"verb": "cancel", "of": "slack:T1/C1/1.0", "picture": 0})
    await world.slack.acked(await world.slack.press(value, user="U2"))
    await world.slack.acked(await world.slack.press(value, user="U2"))  # the same press again
    (inbound,) = world.inbox.all
    assert inbound.id == "T1/C1/3.0/U2/cancel-0"
    assert (inbound.person, inbound.thread, inbound.channel) == ("T1/U2", "C1/1.0", "T1/C1")
    assert inbound.press == Press(verb="cancel", of="slack:T1/C1/1.0")


async def test_a_press_that_cannot_be_stored_is_acknowledged_and_told(world: World) -> None:
    world.inbox.raises = Full(5)
    await world.slack.acked(await world.slack.press(json.dumps({"verb": "cancel", "of": "k"})))
    assert world.slack.screen("C1", "1.0") == [PRESS_LOST]


@pytest.mark.parametrize(
    "value", ["", "[]", '{"verb": "delete", "of": "k"}', '{"verb": "vary", "of": "k", "picture": 9}']
)
async def test_a_button_that_is_not_ours_is_acknowledged_and_leads_to_nothing(world: World, value: str) -> None:
    await world.slack.acked(await world.slack.press(value))
    assert world.inbox.deliveries == 0


# Who may.


async def test_a_channel_that_is_not_allowed_is_told_once_and_asks_for_nothing() -> None:
    async with a_world(allow_channels=("C1",)) as world:
        await world.said(message(channel="C2"))
        await world.said(message(channel="C2", ts="2.0"))
        await world.said(message("not to us", channel="C3"))
        press = json.dumps({"verb": "vary", "of": "k"})
        await world.slack.acked(await world.slack.press(press, channel={"id": "C2"}))
        assert world.inbox.deliveries == 0
        assert [call["text"] for call in world.slack.called("chat.postMessage")] == [NOT_HERE]
        await world.said(message())
        assert [inbound.channel for inbound in world.inbox.all] == ["T1/C1"]


# Out.


async def test_a_mention_is_answered_with_a_picture_in_its_thread(world: World, tmp_path: Path) -> None:  # S7
    await world.said(mention())
    (inbound,) = world.inbox.all
    ref = await world.door.post(inbound, drawing(1), None)
    assert world.slack.screen("C1", "1.0") == ["drawing 1/8"]
    ref = await world.door.post(inbound, drawn(tmp_path, 2), ref)
    assert names(world.slack) == ["Here.", "[1.png] [2.png]"]
    uploads = list(world.slack.uploads.values())
    assert [upload["data"] for upload in uploads] == [b"picture 0", b"picture 1"]
    assert [upload["alt_txt"] for upload in uploads] == ["Picture 1: a red cat", "Picture 2: a red cat"]
    assert all(m["thread_ts"] == "1.0" for m in world.slack.messages.values())
    assert {call.token for call in world.slack.calls if call.method != "apps.connections.open"} == {BOT_TOKEN}
    assert {call.token for call in world.slack.calls if call.method == "apps.connections.open"} == {APP_TOKEN}
    assert world.slack.called("conversations.replies") == []  # nothing to look for: we stored it ourselves


async def test_a_picture_is_asked_of_the_house_first_and_one_that_is_lost_is_said_to_be(
    world: World, tmp_path: Path
) -> None:
    reply = drawn(tmp_path, 3)
    world.home.pictures["0" * 64] = b"of the house"
    reply.pictures[0].file.unlink()
    reply.pictures[2].file.unlink()
    await world.door.post(asked(), reply, None)
    assert [upload["data"] for upload in world.slack.uploads.values()] == [b"of the house", b"picture 1"]
    assert world.slack.screen("C1", "1.0")[0] == f"Here.\n{door_module.PICTURE_LOST}"


async def test_a_file_goes_into_the_thread_once_under_its_own_name(world: World) -> None:
    files = [
        Sent(name=name, file=Path("/secret") / name, sha256=digit * 64, size=4)
        for name, digit in (("inky.safetensors", "1"), ("inky.json", "2"))
    ]
    world.home.files = {"1" * 64: b"LORA"}
    ref = await world.door.post(asked(), Reply(text="Here.", files=tuple(files)), None)
    assert [(upload["name"], upload["data"]) for upload in world.slack.uploads.values()] == [
        ("inky.safetensors", b"LORA")
    ]
    assert world.slack.screen("C1", "1.0")[0] == f"Here.\n{door_module.PICTURE_LOST}"
    await world.door.post(asked(), Reply(text="Here.", files=tuple(files[:1])), ref)
    await world.door.post(asked(), Reply(text="Here.", files=tuple(files[:1])), None)  # its ref was lost: it looks
    assert len(world.slack.uploads) == 1


async def test_progress_is_edited_in_place_and_at_most_each_three_seconds(world: World) -> None:
    ref = await world.door.post(asked(), drawing(1), None)
    for seconds, step in ((0.0, 2), (EVERY - 0.1, 3), (EVERY, 4), (EVERY + 0.1, 5), (2 * EVERY, 6)):
        world.now = 100.0 + seconds
        assert await world.door.post(asked(), drawing(step), ref) == ref
    assert world.slack.screen("C1", "1.0") == ["drawing 6/8"]
    assert [call["text"] for call in world.slack.called("chat.update")] == ["drawing 4/8", "drawing 6/8"]
    await world.door.post(asked(), Reply(text="Done."), ref)  # a final one is not held up
    assert world.slack.screen("C1", "1.0") == ["Done."]


async def test_messages_have_their_own_three_seconds(world: World) -> None:
    other = asked(id="T1/C1/2.0", thread="C1/2.0")
    await world.door.post(asked(), drawing(1), None)
    await world.door.post(other, drawing(1), None)
    assert world.slack.screen("C1", "2.0") == ["drawing 1/8"]


async def test_progress_that_fails_is_dropped_and_keeps_its_ref(world: World) -> None:
    ref = await world.door.post(asked(), drawing(1), None)
    world.now += EVERY
    world.slack.fail("chat.update", retry_after=30)
    assert await world.door.post(asked(), drawing(2), ref) == ref
    assert len(world.slack.called("chat.update")) == 1  # and no waiting for half a minute


async def test_progress_whose_answer_was_lost_is_found_and_edited(world: World) -> None:
    await world.said(message())
    world.slack.fail("chat.postMessage", after=True, drop=True)
    assert await world.door.post(asked(), drawing(1), None) is None
    world.now += EVERY
    ref = await world.door.post(asked(), drawing(2), None)
    assert world.slack.screen("C1", "1.0") == ["drawing 2/8"]
    await world.door.post(asked(), Reply(text="Done."), ref)
    assert world.slack.screen("C1", "1.0") == ["Done."]


async def test_a_final_reply_finds_the_progress_whose_answer_was_lost(world: World) -> None:
    await world.said(message())
    world.slack.fail("chat.postMessage", after=True, drop=True)
    ref = await world.door.post(asked(), drawing(1), None)
    await world.door.post(asked(), Reply(text="Done."), ref)
    assert world.slack.screen("C1", "1.0") == ["Done."]


@pytest.mark.parametrize("with_ref", [True, False])
@pytest.mark.parametrize("broken", ["chat.postMessage", "files.getUploadURLExternal", "files.completeUploadExternal"])
@pytest.mark.parametrize("how", [{"status": 500}, {"status": 500, "after": True}, {"drop": True, "after": True}])
async def test_a_final_reply_that_is_tried_again_shows_nothing_twice(
    world: World, tmp_path: Path, with_ref: bool, broken: str, how: dict[str, Any], naps: list[float]
) -> None:
    await world.said(message())
    ref = await world.door.post(asked(), drawing(1), None) if with_ref else None
    world.slack.fail(broken, **how)
    reply = drawn(tmp_path)
    failed = 0
    try:
        ref = await world.door.post(asked(), reply, ref)
    except Exception:
        failed += 1
        ref = await world.door.post(asked(), reply, ref)
    assert failed == (0 if with_ref and broken == "chat.postMessage" else 1)
    assert names(world.slack) == ["Here.", "[1.png]"]


async def test_after_a_crash_between_upload_and_acknowledgement_nothing_is_shown_twice(
    world: World, tmp_path: Path
) -> None:
    await world.door.post(asked(), drawn(tmp_path, 2), None)
    once = world.slack.screen("C1", "1.0")
    again = Slack(settings(world.slack), world.home)  # a new process, told of no ref
    ref = await again.post(asked(), drawn(tmp_path, 2), None)
    assert world.slack.screen("C1", "1.0") == once
    calls = len(world.slack.calls)
    assert await again.post(asked(), drawn(tmp_path, 2), ref) == ref  # and with it, nothing but the text's own edit
    assert [call.method for call in world.slack.calls[calls:]] == ["chat.update"]
    assert world.slack.screen("C1", "1.0") == once


async def test_what_may_not_be_looked_up_is_posted(world: World) -> None:
    world.slack.fail("conversations.replies", error="missing_scope")
    await world.door.post(asked(), Reply(text="Here."), None)
    assert world.slack.screen("C1", "1.0") == ["Here."]


async def test_a_progress_message_that_a_person_deleted_is_replaced(world: World) -> None:
    ref = await world.door.post(asked(), drawing(1), None)
    world.slack.messages.clear()
    await world.door.post(asked(), Reply(text="Here."), ref)
    assert world.slack.screen("C1", "1.0") == ["Here."]


async def test_retry_after_is_waited_for(world: World, naps: list[float]) -> None:  # S11
    world.slack.fail("chat.postMessage", times=2, retry_after=7)
    await world.door.post(asked(), Reply(text="Here."), None)
    assert len(naps) == 2
    assert all(7 <= nap < 8 for nap in naps)
    assert world.slack.screen("C1", "1.0") == ["Here."]


@pytest.mark.parametrize("error", ["channel_not_found", "is_archived", "token_revoked", "account_inactive"])
async def test_where_nothing_can_arrive_any_more_it_ends(world: World, error: str) -> None:
    await world.said(message())
    world.slack.fail("chat.postMessage", error=error)
    with pytest.raises(Undeliverable, match=error):
        await world.door.post(asked(), Reply(text="Here."), None)


async def test_other_errors_are_raised_to_be_tried_again(world: World) -> None:
    world.slack.fail("chat.postMessage", error="fatal_error")
    with pytest.raises(SlackApiError):
        await world.door.post(asked(), Reply(text="Here."), None)
    await world.door.post(asked(), Reply(text="Here."), None)
    assert world.slack.screen("C1", "1.0") == ["Here."]


# The connection.


async def test_a_socket_that_is_closed_mid_job_is_opened_anew_and_the_answer_arrives(world: World) -> None:  # S16
    await world.said(message())
    ref = await world.door.post(asked(), drawing(1), None)
    await world.slack.disconnect()
    await world.slack.connected(2)
    await world.said(direct("after", ts="9.0"))
    await world.door.post(asked(), Reply(text="Here."), ref)
    assert world.slack.screen("C1", "1.0") == ["Here."]
    assert [inbound.text for inbound in world.inbox.all] == ["a red cat", "after"]


async def test_a_wrong_bot_token_ends_the_run() -> None:
    async with FakeSlack() as slack:
        slack.fail("auth.test", error="invalid_auth")
        with pytest.raises(SlackApiError, match="invalid_auth"):
            await Slack(settings(slack), Home()).run()


async def test_tokens_are_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:  # R48
    caplog.set_level(logging.DEBUG)
    async with a_world() as world:
        await world.said(direct(files=[world.slack.keep("a.png", statuses=[403])]))
        world.inbox.raises = OSError(f"no such thing: {BOT_TOKEN}")
        await world.refused(direct("secret words", ts="2.0"))
        world.slack.fail("chat.postMessage", error="fatal_error")
        with pytest.raises(SlackApiError) as caught:
            await world.door.post(asked(), drawn(tmp_path), None)
        await world.slack.disconnect()
        await world.slack.connected(2)
        door_module.sdk_log.error("lost %s at wss://x/?ticket=TICKET&a=1", APP_TOKEN, exc_info=ValueError(BOT_TOKEN))
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith("aiohttp.access"))
    assert "not acknowledged: OSError" in ours
    for secret in (BOT_TOKEN, APP_TOKEN, "TICKET", "secret words"):
        assert secret not in caplog.text.replace("GET /socket?ticket=TICKET", "")
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)


# The manifest.

HISTORIES = {"channels:history", "groups:history", "im:history", "mpim:history"}
NEEDS = {
    "auth_test": set[str](),
    "chat_postMessage": {"chat:write"},
    "chat_update": {"chat:write"},
    "conversations_replies": HISTORIES,
    "files_info": {"files:read"},
    "files_upload_v2": {"files:write"},
    "app_mention": {"app_mentions:read"},
    "message.channels": {"channels:history"},
    "message.groups": {"groups:history"},
    "message.im": {"im:history"},
    "message.mpim": {"mpim:history"},
}


def test_the_manifest_asks_for_the_scopes_that_are_used_and_no_others() -> None:  # S18
    root = Path(__file__).parents[2]
    manifest = (root / "docs" / "slack.md").read_text().split("```yaml")[1].split("```")[0]
    scopes = manifest.split("    bot:\n")[1].split("settings:")[0]
    events = manifest.split("bot_events:\n")[1].split("interactivity:")[0]
    listed = re.compile(r"- (\S+)")
    code = (root / "bot" / "platforms" / "slack.py").read_text()
    methods = set(re.findall(r"\.((?:auth|chat|conversations|files|users|reactions|views)_\w+)\(", code))
    assert methods >= {"chat_postMessage", "files_info"}
    needed = [NEEDS[name] for name in methods | set(listed.findall(events))]
    assert set(listed.findall(scopes)) == set().union(*needed)
    assert "socket_mode_enabled: true" in manifest
