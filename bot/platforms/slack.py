"""Slack, over Socket Mode: a message is stored before it is acknowledged, and its answer goes into its thread.

Slack delivers a message again that was not acknowledged within about 3 s, and we lean on that: whatever goes wrong
before a message is stored leaves it unacknowledged. A mention comes twice, as `message` and as `app_mention`, in any
order; both have the same team, channel and ts, and so the same `Inbound.id`.
"""

import asyncio
import hashlib
import html
import ipaddress
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.async_handler import AsyncRetryHandler
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from yarl import URL

from bot.message import Attachment, Door, House, Inbound, Press, Receive, Reply, Shown, Undeliverable, Verb, printable

if TYPE_CHECKING:
    from aiohttp import web

NAME = "slack"
HOSTS = frozenset({"slack.com", "files.slack.com"})  # which may have the token of the bot
PATIENCE = 2.5  # seconds that a message may wait for its files before it is left unacknowledged
HOLD = 1.5  # seconds that a mention without files waits for its twin, which may have them
EVERY = 3.0  # seconds between two edits of a progress message
LARGEST = 20_000_000  # bytes of a file that is no LoRA
MOST_BYTES = 300_000_000  # of a message's files together, about
MOST_FILES = 40
AT_ONCE = 4  # files of a message that are fetched at a time
TRIES = 3  # of a file
BACKOFF = 0.5  # seconds before the second try, twice as many before the third
FETCHING = 60.0  # seconds for one try
LONGEST = 3000  # characters of a section
MOST_SECTIONS = 13  # 39 000 characters: Slack cuts a text at 40 000
REMEMBERED = 10_000

TALK = frozenset({None, "file_share", "thread_broadcast"})  # subtypes of `message` in which somebody says something new
LABELS: dict[Verb, str] = {
    "vary": "Vary",
    "seed": "Same seed",
    "why": "Why?",
    "recipe": "Recipe",
    "train": "Train",
    "cancel": "Cancel",
}
OF_ONE_PICTURE = frozenset({"vary", "seed", "recipe"})

# Answers of Slack: the reply will never arrive; the message that we would edit is no longer ours to edit; nothing to
# be looked up.
GONE = frozenset(
    {"account_inactive", "cannot_dm_bot", "channel_not_found", "is_archived", "not_in_channel", "restricted_action",
     "team_access_not_granted", "token_revoked", "user_disabled"}
)  # fmt: skip
LOST = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
BLIND = frozenset({"missing_scope", "thread_not_found"})
FAILURES = (SlackClientError, aiohttp.ClientError, TimeoutError, OSError)

LACKS = "this app lacks the permission files:read. Add it to the app, install the app anew, then send them again."
ELSEWHERE = "not kept at Slack. Send the picture itself."
NO_MORE = "no longer there."
TOO_MUCH = f"more than {MOST_BYTES // 1_000_000} MB together."
TOO_MANY = f"more than the {MOST_FILES} files that I take from one message."
UNREACHED = "Slack would not hand it over just now. Send it again."
NOT_HERE = "I am sorry: I do not work in this channel. Whoever runs me can open it to me."
PICTURE_LOST = "(A picture or a file of this is no longer kept.)"
PRESS_LOST = "I am sorry: that press was lost. Press again in a moment."

SECRET = re.compile(r"\bx(?:ox[a-z]|app)[-.][\w.-]+|(?<=ticket=)[^&\s'\"]+")
MARKUP = re.compile(r"<([^<>]*)>")

log = logging.getLogger(__name__)
sdk_log = logging.getLogger(f"{__name__}.sdk")
sdk_log.setLevel(logging.INFO)  # below that it writes down what people say


class Redacted(logging.Filter):
    """What Slack's packages log: without tokens, without the socket's ticket, and without tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = SECRET.sub("…", record.getMessage()), ()
        record.exc_info = record.exc_text = None
        return True


sdk_log.addFilter(Redacted())


class Settings(BaseModel):
    """The section [doors.slack]. `allow_channels`: ids of channels (and of DMs) to work in; empty: in all."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    bot_token: SecretStr
    app_token: SecretStr
    base_url: str = "https://slack.com/api/"
    allow_channels: tuple[str, ...] = ()

    @field_validator("base_url")
    @classmethod
    def _safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
            return url if url.endswith("/") else url + "/"
        raise ValueError("the token is sent there: it must be https, or http on this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Slow(Exception):
    """The files are not here yet, so the message is not acknowledged: the next delivery finds it stored."""


class Unreadable(Exception):
    """A file that will not be read; the text ends the sentence “I could not read it: …”."""


class Unread(NamedTuple):
    name: str
    why: str


class Posted(BaseModel):
    """What a ref says, as JSON: the `ts` of the message that holds the text, and whether the pictures went out."""

    ts: str | None = None
    sent: bool = False


# What comes in.


def is_talk(event: Mapping[str, Any], me: str) -> bool:
    """Whether somebody else says something new: no bot, and no message that is edited, deleted or about a channel."""
    return (
        event.get("type") in ("message", "app_mention")
        and event.get("subtype") in TALK
        and bool(event.get("user"))
        and event["user"] != me
        and not (event.get("bot_id") or event.get("edited") or event.get("hidden"))
    )


def is_for_us(event: Mapping[str, Any], me: str) -> bool:
    """Whether it addresses the bot, whose user id is `me`: a DM, or a mention. Threads that we are in: `House.past`."""
    addressed = event.get("type") == "app_mention" or event.get("channel_type") == "im"
    return is_talk(event, me) and (addressed or f"<@{me}" in str(event.get("text") or ""))


def to_inbound(event: Mapping[str, Any], team: str, me: str, attachments: Sequence[Attachment] = ()) -> Inbound:
    """What a `message` or `app_mention` says, in plain text without the mention of us."""
    channel, ts = event["channel"], event["ts"]
    return Inbound(
        id=f"{team}/{channel}/{ts}",
        thread=f"{channel}/{event.get('thread_ts') or ts}",
        person=f"{team}/{event['user']}",
        text=to_plain(str(event.get("text") or ""), me),
        attachments=tuple(attachments),
        platform=NAME,
        channel=f"{team}/{channel}",
    )


def pressed(body: Mapping[str, Any], team: str) -> Inbound | None:
    """What a `block_actions` means; None where the button is none of ours, or its message is not there to see."""
    action: dict[str, Any] = body["actions"][0]
    message: dict[str, Any] = body.get("message") or {}
    place: dict[str, Any] = body.get("channel") or {}
    channel, ts = place.get("id"), message.get("ts")
    try:
        press = Press.model_validate_json(str(action.get("value")))
    except ValidationError:
        return None
    if not (channel and ts):
        return None
    person, at = body["user"]["id"], action["action_ts"]
    return Inbound(
        id=f"{team}/{channel}/{at}/{person}/{action['action_id']}",
        thread=f"{channel}/{message.get('thread_ts') or ts}",
        person=f"{team}/{person}",
        text="",
        platform=NAME,
        channel=f"{team}/{channel}",
        press=press,
    )


def to_plain(text: str, me: str) -> str:
    """Slack's markup undone: `<url|label>` is its label, `<@U2>` is @U2, and the mention of `me` is nothing."""

    def plain(match: re.Match[str]) -> str:
        said, _, label = match[1].partition("|")
        if said == f"@{me}":
            return " "
        mark = said[:1] if said[:1] in "@#" else "@" if said.startswith("!") and "^" not in said else ""
        shown = label or said.removeprefix("!").removeprefix(mark)
        return mark + shown.removeprefix(mark) if mark else shown

    lines = html_undone(MARKUP.sub(plain, text)).splitlines()
    return "\n".join(re.sub(r"[ \t]{2,}", " ", line).strip() for line in lines).strip()


def html_undone(text: str) -> str:
    """Slack escapes these three and no others; `&amp;lt;` is a person's own `&lt;`."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


# What goes out.


def escaped(text: str) -> str:
    """`text` as it is read, in Slack's markup: it can neither ping nor link by <…>."""
    return html.escape(printable(text), quote=False)


def to_slack(reply: Reply, of: str) -> dict[str, Any]:
    """Arguments of chat.postMessage and chat.update, all blocks checked by the SDK. `of`: key of the message answered.

    `text` is what notifications show. A text beyond 39 000 characters is cut.
    """
    said = f":warning: {escaped(reply.text)}" if reply.error else escaped(reply.text)
    pieces = list(_pieces(said or "…"))[:MOST_SECTIONS]
    blocks: list[Block] = [SectionBlock(text=MarkdownTextObject(text=piece, verbatim=True)) for piece in pieces]
    if reply.error and reply.error.incident:
        incident = MarkdownTextObject(text=f"Incident {escaped(reply.error.incident)}", verbatim=True)
        blocks.append(ContextBlock(elements=[incident]))
    if buttons := list(_buttons(reply, of)):
        blocks.append(ActionsBlock(elements=buttons))
    return {
        "text": "".join(pieces),
        "blocks": [block.to_dict() for block in blocks],
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _pieces(text: str) -> Iterator[str]:
    """`text` in parts that each fit a section; none ends within an escaped character."""
    while len(text) > LONGEST:
        end = max(text.rfind("\n", 0, LONGEST) + 1, text.rfind(" ", 0, LONGEST) + 1)
        if not end:
            cut = text.rfind("&", LONGEST - 5, LONGEST)
            end = cut if cut > 0 and ";" not in text[cut:LONGEST] else LONGEST
        yield text[:end]
        text = text[end:]
    yield text


def _buttons(reply: Reply, of: str) -> Iterator[ButtonElement]:
    for verb in reply.actions:
        count = max(1, len(reply.pictures)) if verb in OF_ONE_PICTURE else 1
        for k in range(count):
            label = f"{LABELS[verb]} {k + 1}" if count > 1 else LABELS[verb]
            value = json.dumps({"verb": verb, "of": of, "picture": k})
            yield ButtonElement(text=PlainTextObject(text=label, emoji=False), action_id=f"{verb}-{k}", value=value)


def file_name(to: Inbound, index: int, suffix: str) -> str:
    """The name that a picture of this answer has at Slack: by it, a later try sees that it is there already."""
    return f"atelier-{hashlib.sha256(to.key.encode()).hexdigest()[:12]}-{index + 1}{suffix or '.png'}"


def alt_text(shown: Shown, index: int) -> str:
    prompt = printable(str(shown.recipe.get("prompt") or "")).strip()
    return f"Picture {index + 1}: {prompt}"[:1000] if prompt else f"Picture {index + 1}"


# Files.


class Fetching:
    """The files of one message. The token goes to `HOSTS` and to the host of `base_url`, and nowhere else."""

    def __init__(self, settings: Settings, client: AsyncWebClient) -> None:
        self._token = settings.bot_token
        self._home = URL(settings.base_url).origin()
        self._client = client
        self._few = asyncio.Semaphore(AT_ONCE)
        self._bytes = 0

    async def all(self, files: Sequence[Mapping[str, Any]]) -> list[Attachment | Unread]:
        """One for each file, in their order. What cannot be read says why, and does not keep the others."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCHING)) as session:
            got = await asyncio.gather(*(self._one(session, file) for file in files[:MOST_FILES]))
        return [*got, *(Unread(_name(file), TOO_MANY) for file in files[MOST_FILES:])]

    async def _one(self, session: aiohttp.ClientSession, file: Mapping[str, Any]) -> Attachment | Unread:
        try:
            async with self._few:
                whole = await self._whole(file)
                if int(whole.get("size") or 0) > _most(whole):
                    raise Unreadable(_too_large(whole))
                return Attachment(name=_name(whole), data=await self._tried(session, whole))
        except Unreadable as error:
            return Unread(_name(file), str(error))
        except ValueError:  # what should be an address, or a size, is none
            return Unread(_name(file), ELSEWHERE)

    async def _whole(self, file: Mapping[str, Any]) -> Mapping[str, Any]:
        """A thin file object (from Slack Connect) is made whole."""
        if file.get("file_access") != "check_file_info" and _address(file):
            return file
        if not file.get("id") or file.get("mode") in ("tombstone", "hidden_by_limit"):
            raise Unreadable(NO_MORE)
        try:
            return (await self._client.files_info(file=file["id"])).get("file") or {}
        except SlackApiError as error:
            raise Unreadable(LACKS if _code(error) == "missing_scope" else NO_MORE) from None
        except FAILURES:
            raise Unreadable(UNREACHED) from None

    async def _tried(self, session: aiohttp.ClientSession, file: Mapping[str, Any]) -> bytes:
        for attempt in range(TRIES):
            try:
                return await self._data(session, file)
            except (aiohttp.ClientError, TimeoutError):
                if attempt + 1 < TRIES:
                    await asyncio.sleep(BACKOFF * 2**attempt)
        raise Unreadable(UNREACHED)

    async def _data(self, session: aiohttp.ClientSession, file: Mapping[str, Any]) -> bytes:
        """Each hop is checked, and only the first host is shown the token."""
        url = first = URL(_address(file))
        for _ in range(4):
            if not self._is_ours(url):
                raise Unreadable(LACKS if (url.host or "").endswith(".slack.com") else ELSEWHERE)
            headers = {"Authorization": f"Bearer {self._token.get_secret_value()}"} if _same(url, first) else {}
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in (301, 302, 303, 307, 308):
                    return await self._body(answer, file)
                url = url.join(URL(answer.headers.get("Location", "")))
        raise Unreadable(ELSEWHERE)

    def _is_ours(self, url: URL) -> bool:
        if not url.absolute or url.user or url.password:
            return False
        return url.origin() == self._home or (url.scheme == "https" and url.host in HOSTS and url.port == 443)

    async def _body(self, answer: aiohttp.ClientResponse, file: Mapping[str, Any]) -> bytes:
        """Raises `Unreadable`; `ClientError` where another try may help. A login page comes with status 200."""
        if answer.status >= 500 or answer.status == 429:
            raise aiohttp.ClientError(f"status {answer.status}")
        if answer.status in (401, 403) or (answer.content_type == "text/html" and file.get("mimetype") != "text/html"):
            raise Unreadable(LACKS)
        if answer.status != 200:
            raise Unreadable(NO_MORE)
        data = bytearray()
        async for chunk in answer.content.iter_chunked(65_536):
            data += chunk
            self._bytes += len(chunk)
            if len(data) > _most(file):
                raise Unreadable(_too_large(file))
            if self._bytes > MOST_BYTES:
                raise Unreadable(TOO_MUCH)
        return bytes(data)


def _most(file: Mapping[str, Any]) -> int:
    """Bytes that a file may have: a LoRA has more than a picture."""
    return MOST_BYTES if _name(file).lower().endswith(".safetensors") else LARGEST


def _too_large(file: Mapping[str, Any]) -> str:
    return f"larger than {_most(file) // 1_000_000} MB."


def _address(file: Mapping[str, Any]) -> str:
    return str(file.get("url_private_download") or file.get("url_private") or "")


def _name(file: Mapping[str, Any]) -> str:
    return printable(str(file.get("name") or file.get("title") or file.get("id") or "a file"))


def _same(url: URL, other: URL) -> bool:
    return url.origin() == other.origin()


def complaint(unread: Iterable[Unread]) -> str:
    """What the person is told of files that could not be read: a line for each reason."""
    names: dict[str, list[str]] = {}
    for one in unread:
        names.setdefault(one.why, []).append(one.name)
    lines = (f"{', '.join(said[:5])}{f' and {len(said) - 5} more' * (len(said) > 5)}: {w}" for w, said in names.items())
    return "I could not read " + "\n".join(lines)


# The door.


class Slack:
    """Satisfies `Door`. `clock` counts seconds; `patience`: how many a message may wait for its files."""

    name: str = NAME

    def __init__(
        self, settings: Settings, house: House, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE
    ) -> None:
        self._settings = settings
        self._house = house
        self._clock = clock
        self._patience = patience
        self._receive: Receive | None = None
        limited = partial(AsyncRateLimitErrorRetryHandler, max_retry_count=3)
        # What may be done twice is tried again at once. What would show twice is only tried again where Slack said
        # that it was not done, and progress not at all.
        self._again = _web(settings, [limited(), AsyncServerErrorRetryHandler(2), AsyncConnectionErrorRetryHandler(2)])
        self._once = _web(settings, [limited()])
        self._quick = _web(settings, [])
        self._arriving: dict[str, asyncio.Task[None]] = {}  # by id, while files are fetched
        self._fresh: dict[str, float] = {}  # by key: stored by this process, nothing posted for it yet
        self._edited: dict[str, float] = {}  # by key: when progress was last shown
        self._told: dict[str, float] = {}  # what is said once: of a channel, or of a message's files
        self._app = AsyncApp(
            name=NAME,
            client=self._again,
            logger=sdk_log,
            process_before_response=True,  # else Bolt acknowledges an event before it is stored
            raise_error_for_unhandled_request=True,
            attaching_conversation_kwargs_enabled=False,
        )
        self._app.event(re.compile(".*"))(self._on_event)
        self._app.action(re.compile(".*"))(self._on_press)
        self._app.error(self._on_error)

    def mount(self, site: "web.Application", receive: Receive) -> None:  # noqa: ARG002
        """No routes: Slack is called, and does not call."""
        self._receive = receive

    async def run(self) -> None:
        """Hold the socket, and open it anew whenever Slack closes it. Raises `SlackApiError` for a wrong bot token."""
        await self._again.auth_test()
        handler = AsyncSocketModeHandler(self._app, self._settings.app_token.get_secret_value(), logger=sdk_log)
        try:
            await handler.connect_async()
            await asyncio.Event().wait()
        finally:
            for task in self._arriving.values():  # unacknowledged, so Slack delivers them again
                task.cancel()
            await handler.close_async()

    async def close(self) -> None:
        """`run` has let go of everything."""

    # In.

    async def _on_event(self, body: dict[str, Any], context: AsyncBoltContext) -> None:
        """Acknowledged when this returns; not acknowledged, and so delivered again, when it raises."""
        event, me = body["event"], context.bot_user_id or ""
        if not is_talk(event, me) or not (is_for_us(event, me) or await self._is_in(event)):
            return
        if not self._is_open(event["channel"]):
            thread = f"{event['channel']}/{event.get('thread_ts') or event['ts']}"
            await self._tell_once(f"closed {event['channel']}", thread, NOT_HERE)
            return
        message = to_inbound(event, body.get("team_id") or context.team_id or "", me)
        files: list[dict[str, Any]] = event.get("files") or []
        if files or message.id in self._arriving:
            await self._await_files(message, files)
        else:
            await self._store(message, HOLD if event["type"] == "app_mention" else 0.0)

    async def _is_in(self, event: Mapping[str, Any]) -> bool:
        """Whether it stands in a thread that we were spoken to in."""
        thread = event.get("thread_ts")
        return bool(thread) and bool(await self._house.past(f"{event['channel']}/{thread}"))

    def _is_open(self, channel: str) -> bool:
        return not self._settings.allow_channels or channel in self._settings.allow_channels

    async def _store(self, message: Inbound, hold: float = 0.0) -> None:
        if self._receive is None:
            raise RuntimeError("the door is not mounted")
        if await self._receive(message, hold):
            _remember(self._fresh, message.key)

    async def _await_files(self, message: Inbound, files: Sequence[Mapping[str, Any]]) -> None:
        """Wait a little until the message is stored. If that is too long it goes on, and is stored, without us.

        The twin of a message whose files are on their way waits for those, and so does a second delivery.
        """
        task = self._arriving.get(message.id)
        if task is None:
            task = self._arriving[message.id] = asyncio.create_task(self._arrive(message, files))
            task.add_done_callback(partial(self._arrived, message.id))
        done, _ = await asyncio.wait((task,), timeout=self._patience)
        if not done:
            raise Slow(message.id)
        await task

    async def _arrive(self, message: Inbound, files: Sequence[Mapping[str, Any]]) -> None:
        got = await Fetching(self._settings, self._again).all(files)
        attachments = tuple(one for one in got if isinstance(one, Attachment))
        await self._store(message.model_copy(update={"attachments": attachments}))
        if unread := [one for one in got if isinstance(one, Unread)]:
            await self._tell_once(f"unread {message.id}", message.thread, complaint(unread))

    def _arrived(self, id: str, task: asyncio.Task[None]) -> None:
        self._arriving.pop(id, None)
        if not task.cancelled() and (error := task.exception()):
            log.warning("message %s was not stored: %s", id, type(error).__name__)

    async def _on_press(self, body: dict[str, Any], ack: AsyncAck, context: AsyncBoltContext) -> None:
        """Always acknowledged: Slack delivers a press once. One that is lost is said to be."""
        team: dict[str, Any] = body.get("team") or {}
        message = pressed(body, str(team.get("id") or context.team_id or ""))
        if message and self._is_open(message.thread.partition("/")[0]):
            try:
                await self._store(message)
            except Exception as error:
                log.warning("press %s was not stored: %s", message.id, type(error).__name__)
                await self._tell(message.thread, PRESS_LOST)
        await ack()

    async def _on_error(self, error: Exception) -> BoltResponse | None:
        """What nobody listens to is acknowledged; what failed is not."""
        if isinstance(error, BoltUnhandledRequestError):
            return BoltResponse(status=200, body="")
        log.warning("not acknowledged: %s", type(error).__name__)
        return None

    async def _tell_once(self, what: str, thread: str, text: str) -> None:
        if what not in self._told:
            _remember(self._told, what)
            await self._tell(thread, text)

    async def _tell(self, thread: str, text: str) -> None:
        """Say it if it can be said."""
        channel, _, ts = thread.partition("/")
        try:
            await self._quick.chat_postMessage(channel=channel, thread_ts=ts, **to_slack(Reply(text=text), ""))
        except FAILURES as error:
            log.warning("a notice could not be posted: %s", type(error).__name__)

    # Out.

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:
        """As `Door.post` says. A ref is a `Posted` in JSON.

        Progress is shown at most once in `EVERY` seconds for a message; what comes in between, or fails, is dropped.
        A final reply that this process did not store itself, or that failed before, is looked for in the thread first,
        so that a crash between showing it and knowing so shows nothing twice.
        """
        posted = Posted.model_validate_json(ref) if ref else Posted()
        if reply.progress:
            return await self._progress(to, reply, posted) or ref
        try:
            return await self._finish(to, reply, posted)
        except SlackApiError as error:
            if (code := _code(error)) in GONE:
                raise Undeliverable(code) from None
            raise

    async def _progress(self, to: Inbound, reply: Reply, posted: Posted) -> str | None:
        """The new ref; None where nothing was shown."""
        now, last = self._clock(), self._edited.get(to.key)
        if last is not None and now - last < EVERY:
            return None
        _remember(self._edited, to.key, now)
        try:
            # an earlier one without a ref may have been shown, and only its answer lost
            ts = posted.ts or ((await self._look(self._quick, to))[0] if last is not None else None)
            ts = await self._say((self._quick, self._quick), to, reply, ts)
        except FAILURES as error:
            self._fresh.pop(to.key, None)  # for it may have been
            log.info("progress was not shown: %s", type(error).__name__)
            return None
        return Posted(ts=ts).model_dump_json()

    async def _finish(self, to: Inbound, reply: Reply, posted: Posted) -> str:
        ts, there = posted.ts, frozenset[str]()
        is_fresh = self._fresh.pop(to.key, None) is not None
        if not is_fresh and (ts is None or ((reply.pictures or reply.files) and not posted.sent)):
            found, there = await self._look(self._again, to)
            ts = found or ts
        uploads = [] if posted.sent else await self._uploads(to, reply, there)
        if None in uploads:
            reply = reply.model_copy(update={"text": f"{reply.text}\n{PICTURE_LOST}"})
        ts = await self._say((self._again, self._once), to, reply, ts)
        if kept := [upload for upload in uploads if upload]:
            channel, _, thread = to.thread.partition("/")
            await self._once.files_upload_v2(file_uploads=kept, channel=channel, thread_ts=thread)
        self._edited.pop(to.key, None)
        return Posted(ts=ts, sent=True).model_dump_json()

    async def _look(self, client: AsyncWebClient, to: Inbound) -> tuple[str | None, frozenset[str]]:
        """What was posted for `to`: the ts of its message, and the names of all files since. Nothing if we may not."""
        channel, _, thread = to.thread.partition("/")
        asked = to.id.split("/")[2]
        try:
            answer = await client.conversations_replies(
                channel=channel, ts=thread, oldest=asked, limit=200, include_all_metadata=True
            )
        except SlackApiError as error:
            if _code(error) in BLIND:
                return None, frozenset()
            raise
        messages: list[dict[str, Any]] = answer.get("messages") or []
        texts = [str(message["ts"]) for message in messages if _key(message) == to.key]
        names = frozenset(name for message in messages for name in _names(message))
        return texts[-1] if texts else None, names

    async def _say(
        self, clients: tuple[AsyncWebClient, AsyncWebClient], to: Inbound, reply: Reply, ts: str | None
    ) -> str:
        """The text, by the first client in place of message `ts`, or by the second as a new one. Returns its ts."""
        channel, _, thread = to.thread.partition("/")
        editing, posting = clients
        body = to_slack(reply, to.key)
        if ts:
            try:
                edit = {name: body[name] for name in ("text", "blocks", "parse", "link_names")}
                await editing.chat_update(channel=channel, ts=ts, **edit)
            except SlackApiError as error:
                if _code(error) not in LOST:
                    raise
            else:
                return ts
        mark = {"event_type": "atelier", "event_payload": {"key": to.key}}
        answer = await posting.chat_postMessage(channel=channel, thread_ts=thread, metadata=mark, **body)
        new: Any = answer.get("ts")
        return str(new)

    async def _uploads(self, to: Inbound, reply: Reply, there: frozenset[str]) -> list[dict[str, Any] | None]:
        """A `file_uploads` of `files_upload_v2` for each picture or file that is not there; None for one not kept."""
        uploads: list[dict[str, Any] | None] = []
        for k, shown in enumerate(reply.pictures):
            name = file_name(to, k, shown.file.suffix)
            if name in there:
                continue
            try:
                data = await self._house.picture(shown.sha256) if shown.sha256 else None
                data = data or await asyncio.to_thread(shown.file.read_bytes)
            except FileNotFoundError:
                uploads.append(None)
            else:
                title, alt = f"Picture {k + 1}", alt_text(shown, k)
                uploads.append({"file": data, "filename": name, "title": title, "alt_txt": alt})
        for sent in reply.files:
            if sent.name not in there:
                data = await self._house.file(sent.sha256)
                told = {"file": data, "filename": sent.name, "title": sent.name}
                uploads.append(None if data is None else told)
        return uploads


def _web(settings: Settings, handlers: list[AsyncRetryHandler]) -> AsyncWebClient:
    return AsyncWebClient(
        token=settings.bot_token.get_secret_value(), base_url=settings.base_url, logger=sdk_log, retry_handlers=handlers
    )


def _key(message: dict[str, Any]) -> str | None:
    """Of which message it is the answer, as we wrote into its metadata."""
    metadata: dict[str, Any] = message.get("metadata") or {}
    payload: dict[str, Any] = metadata.get("event_payload") or {}
    return payload.get("key")


def _names(message: dict[str, Any]) -> list[str]:
    files: list[dict[str, Any]] = message.get("files") or []
    return [str(file.get("name")) for file in files]


def _code(error: SlackApiError) -> str:
    """Slack's word for what is wrong; "" where the answer was none of Slack's."""
    response: Any = error.response
    return str(response.get("error") or "") if isinstance(response, AsyncSlackResponse) else ""


def _remember(where: dict[str, float], key: str, value: float = 0.0) -> None:
    """Keep `value` under `key`, and only the latest `REMEMBERED`."""
    where.pop(key, None)
    where[key] = value
    while len(where) > REMEMBERED:
        where.pop(next(iter(where)))


def open_door(settings: Settings, house: House) -> Door:
    return Slack(settings, house)
