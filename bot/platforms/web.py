"""The web: a page, the few requests that it makes, and a stream of what is said in one conversation.

A conversation's id is the right to read it, so it is long and random; there is nothing else to log in with.
"""

import asyncio
import base64
import hashlib
import ipaddress
import logging
import math
import re
import secrets
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json, to_json

from bot.message import Attachment, Door, Full, House, Inbound, OnShelf, Press, Receive, Reply, Sent, Shown, printable

log = logging.getLogger(__name__)

NAME = "web"
PAGE = Path(__file__).parent / "page"
ASSETS = {"app.js": "text/javascript", "style.css": "text/css"}
CHAT = "[A-Za-z0-9_-]{24,64}"
ID = "[A-Za-z0-9_-]{1,64}"
COOKIE = "atelier"
YEAR = 365 * 24 * 3600  # seconds
LONGEST = 20_000  # characters of a message
FIELDS = ("text", "chat", "id", "press")
FIELD_BYTES = 200_000  # of a JSON body, or of one text field: LONGEST as escapes, and the rest
CHUNK = 65_536  # bytes
LATEST = 500  # messages whose last word is remembered
SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-cache"}
UNSTORED = {"Cache-Control": "no-store"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Data = dict[str, Any]


class Settings(BaseModel):
    """The section [doors.web]. `hosts`: names, without a port, that the page is reached by beside the loopback's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[str, ...] = ()
    max_bytes: int = Field(default=80_000_000, gt=0, description="of one message with its files")
    max_held: int = Field(default=400_000_000, gt=0, description="bytes of all messages that are being read")
    max_files: int = Field(default=40, gt=0)
    max_tabs: int = Field(default=1_000, gt=0, description="streams that are open")
    max_waiting: int = Field(default=256, gt=0, description="events that a slow page may be behind")
    upload_seconds: float = Field(default=300.0, gt=0, description="for one message to arrive")
    ping_seconds: float = Field(default=15.0, gt=0)


class Refused(Exception):
    """What a request is told instead of an answer. `retry`: seconds after which it may come again."""

    def __init__(self, status: int, code: str, message: str, hint: str = "", retry: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = UNSTORED if retry is None else {**UNSTORED, "Retry-After": str(max(1, math.ceil(retry)))}
        self.body: Data = {"error": {"code": code, "message": message, "hint": hint}}


def malformed(what: str) -> Refused:
    return Refused(400, "malformed", what, "Send the JSON or the form that the page sends.")


def too_large(what: str) -> Refused:
    return Refused(413, "too_large", what, "Send fewer or smaller files.")


def missing() -> Refused:
    return Refused(404, "not_found", "There is nothing here.")


def as_json(data: Data | list[Data], status: int = 200, headers: Mapping[str, str] = UNSTORED) -> web.Response:
    """NaN and the infinities become null, as JSON has none."""
    body = to_json(data, inf_nan_mode="null")
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def as_png(data: bytes | None, headers: Mapping[str, str]) -> web.Response:
    """Raises `Refused` where there is none."""
    if data is None:
        raise missing()
    return web.Response(body=data, content_type="image/png", headers=headers)


class Body(BaseModel):
    """What a message says, but its files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str = Field(default="", max_length=LONGEST)
    chat: str | None = Field(default=None, pattern=f"^{CHAT}$")
    id: str | None = Field(default=None, pattern=f"^{ID}$")
    press: Press | None = None

    @field_validator("text")
    @classmethod
    def _has_no_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("NUL is no character of a message")
        return text


def to_body(data: bytes) -> Body:
    """Raises `Refused` for what is no such JSON, without repeating it."""
    try:
        return Body.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise malformed(f"{where or 'The body'}: {first['msg'][:200]}.") from None


def to_inbound(body: Body, files: tuple[Attachment, ...], cookie: str) -> Inbound:
    """Makes what the page left out. Raises `Refused` for an empty message, and for a button of another conversation."""
    if not body.text.strip() and not files and body.press is None:
        raise Refused(400, "empty", "The message is empty.", "Say what to draw, for example: a red mug on a podium.")
    chat = body.chat or secrets.token_urlsafe(24)
    if body.press and not re.fullmatch(rf"{NAME}:{chat}\.{ID}", body.press.of):
        raise malformed("press.of: it is no message of this conversation.")
    person = hashlib.sha256(cookie.encode()).hexdigest()[:32] if re.fullmatch(CHAT, cookie) else chat
    return Inbound(
        id=f"{chat}.{body.id or secrets.token_urlsafe(12)}",
        thread=chat,
        person=person,
        text=body.text,
        attachments=files,
        platform=NAME,
        channel=chat,
        press=body.press,
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a page is told, about the message `key`."""

    kind: str
    key: str
    data: Data

    def encode(self) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (
            self.kind.encode(),
            to_json({"key": self.key, **self.data}, inf_nan_mode="null"),
        )


def message_event(inbound: Inbound) -> Event:
    press = inbound.press and inbound.press.model_dump()
    files = [file.name for file in inbound.attachments]
    return Event("message", inbound.key, {"text": inbound.text, "files": files, "press": press})


def reply_event(to: Inbound, reply: Reply) -> Event:
    """Progress, or the answer. No path of this machine is in it."""
    if stage := reply.progress:
        data = {**stage.model_dump(), "text": reply.text, "preview": stage.preview and data_uri(stage.preview)}
        return Event("progress", to.key, {**data, "samples": [data_uri(sample) for sample in stage.samples]})
    said = reply.model_dump(include={"text", "intent", "actions", "error"})
    lora = reply.lora and reply.lora.model_dump(include={"name", "kind", "trigger"})
    pictures, files = [picture_data(shown) for shown in reply.pictures], [file_data(sent) for sent in reply.files]
    return Event("reply", to.key, {**said, "lora": lora, "pictures": pictures, "files": files})


def picture_data(shown: Shown) -> Data:
    recipe = shown.recipe
    facts = {name: recipe.get(name) for name in ("width", "height", "seed")}
    return {"url": f"/pictures/{shown.sha256}.png" if shown.sha256 else None, **facts, "recipe": recipe}


def file_data(sent: Sent) -> Data:
    return {"name": sent.name, "size": sent.size, "url": f"/files/{sent.sha256}/{sent.name}"}


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@dataclass(eq=False)
class Tab:
    """A page that listens. Events wait here for it; when `most` do, it is dropped, and comes back for the whole."""

    most: int
    drop: Callable[[], None]
    told: set[str] = field(default_factory=set[str])
    waiting: deque[Event | None] = field(default_factory=deque[Event | None])
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: Event) -> None:
        """Progress that nobody has read yet gives way to what comes after it, but for its pictures."""
        last = self.waiting[-1] if self.waiting else None
        if last and (last.kind, event.kind, last.key) == ("progress", "progress", event.key):
            pictures = {name: event.data[name] or last.data[name] for name in ("preview", "samples")}
            self.waiting[-1] = Event("progress", event.key, {**event.data, **pictures})
        elif len(self.waiting) >= self.most:
            self.drop()
        else:
            self.waiting.append(event)
        self._more.set()

    def close(self) -> None:
        self.waiting.append(None)
        self._more.set()

    async def get(self) -> Event | None:
        """The next event; None at the end."""
        while not self.waiting:
            self._more.clear()
            await self._more.wait()
        return self.waiting.popleft()


class Room:
    """How many bytes may be held while messages are read: `each` of one, `together` of all."""

    def __init__(self, each: int, together: int) -> None:
        self.held = 0
        self._each = each
        self._together = together

    @contextmanager
    def take(self) -> Generator[Callable[[int], None]]:
        """Yields what counts the bytes of one message, and raises `Refused` at one too many."""
        mine = 0

        def count(size: int) -> None:
            nonlocal mine
            mine += size
            self.held += size
            if mine > self._each:
                raise too_large(f"A message may have {self._each / 1e6:g} MB.")
            if self.held > self._together:
                raise Refused(429, "full", "Too much is being uploaded.", "Try again in a moment.", retry=5)

        try:
            yield count
        finally:
            self.held -= mine


async def whole(chunks: AsyncIterable[bytes], count: Callable[[int], None], most: int | None = None) -> bytes:
    """Raises `Refused` beyond `most` bytes, having read no more of them than one chunk."""
    kept = bytearray()
    async for chunk in chunks:
        count(len(chunk))
        kept += chunk
        if most is not None and len(kept) > most:
            raise too_large(f"The words of a message may have {most:,} bytes.")
    return bytes(kept)


async def chunks_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    """As they came: an encoding of the part's own is refused, as it might unfold to anything."""
    encodings = (part.headers.get(name, "binary").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding"))
    if not {"identity", "binary", "7bit", "8bit"}.issuperset(encodings):
        raise Refused(415, "encoded", "A part of the form is encoded.", "Send the bytes of a file as they are.")
    while not part.at_eof():
        yield await part.read_chunk(CHUNK)


def label(name: str | None) -> str:
    """A file's name as a label: without a path, and with no character that commands a terminal."""
    plain = (name or "file").encode(errors="replace").decode()
    return printable(re.split(r"[/\\]", plain)[-1])[:200] or "file"


def is_ours(request: web.Request) -> bool:
    """Webhooks are guarded by their signature, and come by any name."""
    resource = request.match_info.route.resource
    return resource is None or not f"{resource.canonical}/".startswith("/hooks/")


class Web:
    """Satisfies `Door`."""

    name = NAME

    def __init__(self, settings: Settings, house: House) -> None:
        self._settings = settings
        self._house = house
        self._hosts = {"localhost", *(host.lower() for host in settings.hosts)}
        self._room = Room(settings.max_bytes, settings.max_held)
        self._tabs: defaultdict[str, set[Tab]] = defaultdict(set)
        self._latest: OrderedDict[str, Event] = OrderedDict()
        self._assets = {name: (PAGE / name).read_bytes() for name in ASSETS}
        self._page = (PAGE / "index.html").read_text(encoding="utf-8")
        for limit in ("max_files", "max_bytes"):
            self._page = self._page.replace(f"{{{limit}}}", str(getattr(settings, limit)))

    def mount(self, site: web.Application, receive: Receive) -> None:
        """Add the routes, and guard all that the site has but /hooks/."""
        site.middlewares.append(self._guard)
        site.on_response_prepare.append(self._dress)
        site.on_shutdown.append(self._close)
        site.router.add_get("/", self._index)
        site.router.add_get("/page/{file}", self._asset)
        site.router.add_post("/api/chat", partial(self._chat, receive))
        site.router.add_get(f"/api/chat/{{chat:{CHAT}}}/events", self._events, allow_head=False)
        site.router.add_get("/pictures/{sha256:[0-9a-f]{64}}.png", self._picture)
        site.router.add_get("/files/{sha256:[0-9a-f]{64}}/{name:[a-z0-9_-]{1,64}\\.(?:safetensors|json)}", self._file)
        site.router.add_get("/api/loras", self._shelf)
        site.router.add_get("/api/loras/{name}", self._lora)
        site.router.add_get("/api/loras/{name}/preview.png", self._preview)
        site.router.add_get("/api/loras/{name}/pictures/{n:[0-9]{1,4}}.png", self._training_picture)

    async def run(self) -> None:
        """Nothing is held: pages come to us."""

    async def close(self) -> None:
        """The same."""

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:  # noqa: ARG002
        """Tell the pages that are open. One that is not reads the answer from the past when it comes."""
        event = reply_event(to, reply)
        self._latest[to.key] = event
        self._latest.move_to_end(to.key)
        if len(self._latest) > LATEST:
            self._latest.popitem(last=False)
        self._tell(to, event)
        if reply.lora:
            for tab in [tab for tabs in self._tabs.values() for tab in tabs]:
                tab.put(Event("shelf", to.key, {"name": reply.lora.name}))
        return None

    def _tell(self, inbound: Inbound, *events: Event) -> None:
        """Each page hears of a message once, and before anything about it."""
        for tab in tuple(self._tabs.get(inbound.thread, ())):
            if inbound.key not in tab.told:
                tab.told.add(inbound.key)
                tab.put(message_event(inbound))
            for event in events:
                tab.put(event)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal is JSON, and so is a fault of ours."""
        if not is_ours(request):
            return await handler(request)
        try:
            self._check(request)
            return await handler(request)
        except Refused as refused:
            return as_json(refused.body, refused.status, refused.headers)
        except web.HTTPException as error:
            if request.match_info.http_exception is None:
                raise
            response = as_json(Refused(error.status, "not_found", "There is nothing here.").body, error.status)
            response.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
            return response
        except ConnectionError:  # the client has left
            raise
        except Exception:
            incident = secrets.token_hex(4)
            log.exception("incident %s: %s %s", incident, request.method, request.match_info.handler)
            refused = Refused(500, "fault", f"Something went wrong: incident {incident}.", "Please try again.")
            return as_json(refused.body, refused.status)

    def _check(self, request: web.Request) -> None:
        """A name that is not ours is a page of somebody else's that was pointed here (DNS rebinding)."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            hint = "Add it to hosts in [doors.web]."
            raise Refused(421, "unknown_host", "This is not the name of this studio.", hint)
        if request.method in SAFE:
            return
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and origin.lower().partition("://")[2] != hosts[0].lower()
        if is_foreign or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refused(403, "cross_site", "Another site may not speak here.", "Open the studio's own page.")

    def _is_known(self, host: str) -> bool:
        if not re.fullmatch(r"[A-Za-z0-9.:\[\]_-]+", host):
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._hosts or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    async def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        if is_ours(request):
            response.headers.update(HEADERS)

    async def _close(self, _site: web.Application) -> None:
        for tab in [tab for tabs in self._tabs.values() for tab in tabs]:
            tab.close()

    async def _index(self, request: web.Request) -> web.Response:
        response = web.Response(text=self._page, content_type="text/html", charset="utf-8", headers=FRESH)
        if not re.fullmatch(CHAT, request.cookies.get(COOKIE, "")):
            response.set_cookie(
                COOKIE,
                secrets.token_urlsafe(32),
                max_age=YEAR,
                httponly=True,
                samesite="Strict",
                secure=request.secure,
            )
        return response

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if name not in ASSETS:
            raise missing()
        return web.Response(body=self._assets[name], content_type=ASSETS[name], charset="utf-8", headers=FRESH)

    async def _chat(self, receive: Receive, request: web.Request) -> web.Response:
        with self._room.take() as count:
            body, files = await self._read(request, count)
            inbound = to_inbound(body, files, request.cookies.get(COOKIE, ""))
            try:
                new = await receive(inbound)
            except Full as full:
                hint = f"Try again in {full.seconds:.0f} s; the message was not taken."
                raise Refused(429, "full", "The studio is full.", hint, full.seconds) from None
        if new:
            self._tell(inbound)
        return as_json({"id": inbound.key, "chat": inbound.thread, "new": new}, 202)

    async def _read(self, request: web.Request, count: Callable[[int], None]) -> tuple[Body, tuple[Attachment, ...]]:
        """Raises `Refused` for whatever is wrong with a body: what a parser says of a client's bytes is no fault."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused(415, "encoded", "The body is encoded.", "Send it without Content-Encoding.")
        if (request.content_length or 0) > self._settings.max_bytes:
            raise too_large(f"A message may have {self._settings.max_bytes / 1e6:g} MB.")
        try:
            async with asyncio.timeout(self._settings.upload_seconds):
                match request.content_type:
                    case "application/json":
                        return to_body(await whole(request.content.iter_any(), count, FIELD_BYTES)), ()
                    case "multipart/form-data":
                        return await self._form(request, count)
                    case _:
                        raise Refused(415, "unknown_type", "The body is neither JSON nor a form.", "Send one of them.")
        except Refused:
            raise
        except TimeoutError:
            raise Refused(408, "slow", "The message took too long to arrive.", "Try again.") from None
        except Exception:
            raise malformed("The body cannot be read.") from None

    async def _form(self, request: web.Request, count: Callable[[int], None]) -> tuple[Body, tuple[Attachment, ...]]:
        """Part after part, each counted while it is read."""
        fields: dict[str, Any] = {}
        files: list[Attachment] = []
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise malformed("A form within a form.")
            name = part.name
            if name == "files":
                if len(files) == self._settings.max_files:
                    raise too_large(f"A message may have {self._settings.max_files} files.")
                files.append(Attachment(name=label(part.filename), data=await whole(chunks_of(part), count)))
            elif name in FIELDS and name not in fields:
                fields[name] = (await whole(chunks_of(part), count, FIELD_BYTES)).decode()
            else:
                raise malformed("The form has a field that is not asked for, or one twice.")
        if "press" in fields:
            fields["press"] = from_json(fields["press"])
        return to_body(to_json(fields)), tuple(files)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """The past, then what comes. Listening starts first, so that nothing falls between the two."""
        chat = request.match_info["chat"]
        response = web.StreamResponse(
            headers={**UNSTORED, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        with self._listening(chat, request) as tab:
            past = await self._house.past(chat)
            try:
                await response.prepare(request)
                for said in past:
                    tab.told.add(said.inbound.key)
                    await response.write(message_event(said.inbound).encode())
                    latest = self._latest.get(said.inbound.key)
                    if event := reply_event(said.inbound, said.reply) if said.reply else latest:
                        await response.write(event.encode())
                await response.write(b"event: ready\ndata: {}\n\n")
                await self._stream(tab, response)
            except ConnectionError:
                log.debug("a page has left")
        return response

    @contextmanager
    def _listening(self, chat: str, request: web.Request) -> Generator[Tab]:
        if sum(map(len, self._tabs.values())) >= self._settings.max_tabs:
            raise Refused(429, "full", "Too many pages are open.", "Close one, or try again later.", retry=10)
        if request.transport is None:
            raise ConnectionResetError
        tab = Tab(self._settings.max_waiting, request.transport.abort)
        self._tabs[chat].add(tab)
        try:
            yield tab
        finally:
            self._tabs[chat].discard(tab)
            if not self._tabs[chat]:
                del self._tabs[chat]

    async def _stream(self, tab: Tab, response: web.StreamResponse) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.ping_seconds):
                    event = await tab.get()
            except TimeoutError:
                await response.write(b": ping\n\n")
                continue
            if event is None:
                return
            await response.write(event.encode())

    async def _picture(self, request: web.Request) -> web.Response:
        return as_png(await self._house.picture(request.match_info["sha256"]), FOREVER)

    async def _file(self, request: web.Request) -> web.Response:
        data = await self._house.file(request.match_info["sha256"])
        if data is None:
            raise missing()
        named = {"Content-Disposition": f'attachment; filename="{request.match_info["name"]}"'}
        return web.Response(body=data, content_type="application/octet-stream", headers={**FOREVER, **named})

    async def _shelf(self, _request: web.Request) -> web.Response:
        return as_json([self._card(lora) for lora in self._house.shelf()])

    async def _lora(self, request: web.Request) -> web.Response:
        lora = self._named(request)
        pictures = self._house.training_pictures(lora.name)
        urls = [f"/api/loras/{lora.name}/pictures/{n}.png{version(png)}" for n, png in enumerate(pictures)]
        return as_json({**self._card(lora), "pictures": urls})

    async def _preview(self, request: web.Request) -> web.Response:
        return as_png(self._house.preview(self._named(request).name), FRESH)

    async def _training_picture(self, request: web.Request) -> web.Response:
        pictures = self._house.training_pictures(self._named(request).name)
        n = int(request.match_info["n"])
        return as_png(pictures[n] if n < len(pictures) else None, FRESH)

    def _named(self, request: web.Request) -> OnShelf:
        """Nothing but a name on the shelf reaches the house. Raises `Refused`."""
        for lora in self._house.shelf():
            if lora.name == request.match_info["name"]:
                return lora
        raise missing()

    def _card(self, lora: OnShelf) -> Data:
        png = self._house.preview(lora.name)
        url = f"/api/loras/{lora.name}/preview.png{version(png)}" if png else None
        return {**lora.model_dump(), "preview": url}


def version(png: bytes) -> str:
    """So that a page that holds on to an old picture asks for the new one."""
    return f"?v={hashlib.sha256(png).hexdigest()[:12]}"


def open_door(settings: Settings, house: House) -> Door:
    return Web(settings, house)
