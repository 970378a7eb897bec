"""Any program: what it POSTs to /hooks/NAME is a message, and its reply is POSTed back, both as Standard Webhooks 1.0.

We verify with our own lines and not with the `standardwebhooks` package, which signs in our tests. Its `verify` (1.1.0)
raises ValueError or binascii.Error on junk, gives up on a bad signature before a good one, decodes the body before it
trusts it, and signs the timestamp anew instead of as it was sent, so that "1700000000.9" passes for "1700000000".
"""

import asyncio
import base64
import hashlib
import hmac
import json
import math
import re
import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from bot.message import (
    Attachment,
    Door,
    Full,
    House,
    Inbound,
    Receive,
    Reply,
    RetryLater,
    Sent,
    Shown,
    Undeliverable,
    printable,
)

NAME = "webhook"
PREFIX = "whsec_"
SHORTEST = 24  # bytes of a secret
WINDOW = 300  # seconds that a timestamp may be off, either way
READING = 30  # seconds in which a body must be here
POSTING = 20  # seconds for a reply to be taken
AT_ONCE = 20  # replies on their way to one host: a slow one holds up its own alone
BODIES = 4  # largest bodies that are held at once, all requests together
LARGE = 1_000_000  # bytes of a body that a thread looks at, so that nobody else waits
LONGEST_WAIT = 86_400  # seconds of a Retry-After that are heeded
MOST_FILES = 200
LARGEST_FILE = 30_000_000  # bytes of a file that goes into a letter itself
HOOK = re.compile(r"[A-Za-z0-9_-]{1,64}")
ID = re.compile(rb"[!-\-/-~]{1,200}")  # any visible ASCII but the dot, which ends the id in what is signed
TIMESTAMP = re.compile(rb"[0-9]{1,12}")

Label = Annotated[str, Field(max_length=200, pattern=r"\A\P{C}*\z")]  # shown and stored, so nothing invisible


class Hook(BaseModel):
    """One sender: the secrets it may sign with, of which we sign with the first, and where its replies go."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    secrets: Annotated[tuple[SecretStr, ...], Field(min_length=1)]
    reply_url: str

    @field_validator("secrets")
    @classmethod
    def _are_keys(cls, said: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, secret in enumerate(said, 1):
            _key(secret, f"secret {number}")
        return said

    @field_validator("reply_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)  # ValueError for a bracket too few, as for a port that is no number
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("it is no http:// or https:// URL")
        return url

    @property
    def keys(self) -> tuple[bytes, ...]:
        return tuple(_key(secret, "a secret") for secret in self.secrets)


class Settings(BaseModel):
    """The section [doors.webhook]. `max_bytes`: of a body. `public_url`: where /pictures is served, "" if nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    hooks: dict[str, Hook] = {}
    max_bytes: int = Field(default=40_000_000, gt=0)
    public_url: str = ""

    @field_validator("hooks")
    @classmethod
    def _have_plain_names(cls, hooks: dict[str, Hook]) -> dict[str, Hook]:
        if not all(HOOK.fullmatch(name) for name in hooks):
            raise ValueError("a hook's name has 1 to 64 letters, digits, - and _")
        return hooks


class File(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")

    name: str = "file"
    data: bytes


class Letter(BaseModel):
    """The body of a request. What else stands in it is not read."""

    text: Annotated[str, Field(pattern=r"\A[^\x00]*\z")]
    thread: Label | None = None
    person: Label | None = None
    channel: Label | None = None
    files: Annotated[tuple[File, ...], Field(max_length=MOST_FILES)] | None = None


class Refused(Exception):
    """A request that is not taken: the HTTP status, why, and the seconds after which it may come again."""

    def __init__(self, status: int, error: str, after: float | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.after = status, error, after


def sign(key: bytes, letter_id: bytes, timestamp: bytes, body: bytes | bytearray) -> bytes:
    """v1,BASE64 of the HMAC-SHA256 of ID.TIMESTAMP.BODY."""
    mac = hmac.new(key, b"%b.%b." % (letter_id, timestamp), hashlib.sha256)
    mac.update(body)
    return b"v1," + base64.b64encode(mac.digest())


def is_signed(keys: Iterable[bytes], signed: tuple[bytes, bytes, bytes], body: bytes | bytearray) -> bool:
    """Whether one of the signatures in `signed` (id, timestamp, list of signatures) is by one of the keys.

    Each is compared with each, in constant time, as text: base64 that decodes to the same bytes will not do.
    """
    letter_id, timestamp, signatures = signed
    good = False
    for key in keys:
        wanted = sign(key, letter_id, timestamp, body)
        for given in signatures.split(b" "):
            good |= hmac.compare_digest(wanted, given)
    return good


def signed_headers(raw: Iterable[tuple[bytes, bytes]], now: float) -> tuple[bytes, bytes, bytes] | None:
    """The id, the timestamp and the signatures; None if one is missing, twice there, misshapen or out of time."""
    given: dict[bytes, list[bytes]] = {b"webhook-id": [], b"webhook-timestamp": [], b"webhook-signature": []}
    for name, value in raw:
        given.get(name.lower(), []).append(value)
    if any(len(values) != 1 for values in given.values()):
        return None
    letter_id, timestamp, signatures = (values[0] for values in given.values())
    if not ID.fullmatch(letter_id) or not TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > WINDOW:
        return None
    return letter_id, timestamp, signatures


def to_inbound(name: str, letter_id: str, body: bytes | bytearray) -> Inbound:
    """The message in a verified body. One that is no such JSON: `Refused` with 400, which says where."""
    try:
        letter = Letter.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise Refused(400, f"{where}: {first['msg']}") from None
    return Inbound(
        platform=NAME,
        id=f"{name}/{letter_id}",
        thread=f"{name}/{letter.thread or letter_id}",
        channel=f"{name}/{letter.channel}" if letter.channel else name,
        person=f"{name}/{letter.person or ''}",
        text=letter.text,
        attachments=tuple(Attachment(name=printable(file.name[:200]), data=file.data) for file in letter.files or ()),
    )


def to_letter(to: Inbound, reply: Reply, pictures: list[dict[str, Any]], files: list[dict[str, Any]]) -> dict[str, Any]:
    """What is POSTed to a reply_url. No path of ours is in it."""
    return {
        "type": "atelier.reply",
        "in_reply_to": to.id.partition("/")[2],
        "id": letter_id_for(to),
        "thread": to.thread.partition("/")[2],
        "text": reply.text,
        "intent": reply.intent,
        "error": reply.error and reply.error.model_dump(),
        "lora": reply.lora and reply.lora.model_dump(exclude={"folder"}),
        "pictures": pictures,
        "files": files,
    }


def letter_id_for(to: Inbound) -> str:
    """The webhook-id of the reply to a message: the same each time it is tried."""
    return f"msg_{hashlib.sha256(to.key.encode()).hexdigest()[:32]}"


def _key(secret: SecretStr, called: str) -> bytes:
    """Its bytes. Raises ValueError where it is none, which does not tell it."""
    said = secret.get_secret_value()
    coded = said.removeprefix(PREFIX)
    if said == coded:
        raise ValueError(f"{called} does not begin with {PREFIX}")
    try:
        key = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{called} is not base64 after {PREFIX}") from None
    if len(key) < SHORTEST:
        raise ValueError(f"{called} has {len(key)} bytes, and {SHORTEST} are the least")
    return key


def _seconds(retry_after: str) -> float | None:
    """A Retry-After in seconds; one that is a date counts as none."""
    return float(min(int(retry_after), LONGEST_WAIT)) if re.fullmatch(r"[0-9]{1,9}", retry_after) else None


class Webhook:
    """Satisfies `Door`."""

    name = NAME

    def __init__(self, settings: Settings, house: House) -> None:
        self._settings, self._house = settings, house
        self._keys = {name: hook.keys for name, hook in settings.hooks.items()}
        self._nobody = (secrets.token_bytes(32),)  # an unknown name is verified too, with what nobody can sign with
        self._held = 0  # bytes of the bodies that are being read and looked at
        self._session: aiohttp.ClientSession | None = None

    def mount(self, site: web.Application, receive: Receive) -> None:
        """Add POST /hooks/{name}."""

        async def on_post(request: web.Request) -> web.Response:
            if "Content-Encoding" in request.headers:  # what was signed is the bytes as sent, and aiohttp unpacks them
                return await _refuse_packed(request)
            try:
                inbound = await self._inbound(request)
                new = await receive(inbound)
            except Full as full:
                return _refusal(Refused(429, "busy", full.seconds))
            except Refused as refused:
                return _refusal(refused)
            _, _, letter_id = inbound.id.partition("/")
            _, _, thread = inbound.thread.partition("/")
            return web.json_response({"id": letter_id, "thread": thread, "new": new}, status=202)

        site.router.add_post("/hooks/{name}", on_post)

    async def run(self) -> None:
        """Nothing to hold: messages come by themselves."""

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:
        """POST a final reply to the hook's reply_url; returns its webhook-id, the same at every retry.

        Raises `Undeliverable` on 410 and for a hook that is gone from the settings, `RetryLater` on any other status
        but 2xx, and what aiohttp raises (`aiohttp.ClientError`, `TimeoutError`) where no answer comes within 20 s.
        """
        if reply.progress:
            return ref
        name = to.id.partition("/")[0]
        if name not in self._keys:
            raise Undeliverable(f"there is no hook {name} in the settings")
        pictures = [await self._picture(shown) for shown in reply.pictures]
        files = [await self._file(sent) for sent in reply.files]
        await self._send(name, letter_id_for(to), json.dumps(to_letter(to, reply, pictures, files)).encode())
        return letter_id_for(to)

    async def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        if self._session:
            await self._session.close()
            self._session = None

    async def _inbound(self, request: web.Request) -> Inbound:
        """The message of a request. Raises `Refused`; nothing of a body is parsed before its signature is verified."""
        if (request.content_length or 0) > self._settings.max_bytes:
            raise Refused(413, f"a body has at most {self._settings.max_bytes} bytes")
        signed = signed_headers(request.raw_headers, time.time())
        if signed is None:
            raise _unsigned()
        body = bytearray()
        try:
            await self._fill(body, request)
            args = (request.match_info["name"], signed, body)
            return await asyncio.to_thread(self._open, *args) if len(body) > LARGE else self._open(*args)
        finally:
            self._held -= len(body)

    def _open(self, name: str, signed: tuple[bytes, bytes, bytes], body: bytes | bytearray) -> Inbound:
        if not is_signed(self._keys.get(name, self._nobody), signed, body):
            raise _unsigned()
        return to_inbound(name, signed[0].decode("ascii"), body)

    async def _fill(self, body: bytearray, request: web.Request) -> None:
        """Read the raw bytes, counted in `_held`. Raises `Refused`: 413 too many, 408 too slow, 400 broken off."""
        most = self._settings.max_bytes
        try:
            async with asyncio.timeout(READING):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > most:
                        raise Refused(413, f"a body has at most {most} bytes")
                    if self._held > BODIES * most:
                        raise Refused(429, "busy", 5)
        except TimeoutError:
            raise Refused(408, f"the body took longer than {READING} s") from None
        except (web.RequestPayloadError, aiohttp.http.HttpProcessingError):
            raise Refused(400, "the body is broken") from None

    async def _picture(self, shown: Shown) -> dict[str, Any]:
        """By its link if our pictures have one, else its bytes; null where the file is gone."""
        told = {"sha256": shown.sha256, "recipe": shown.recipe}
        if base := self._settings.public_url.rstrip("/"):
            return {"url": f"{base}/pictures/{shown.sha256}.png", **told}
        png = await self._house.picture(shown.sha256)
        return {**told, "png": png and base64.b64encode(png).decode("ascii")}

    async def _file(self, sent: Sent) -> dict[str, Any]:
        """As a picture; one of more than `LARGEST_FILE` bytes only by its link."""
        told = {"name": sent.name, "size": sent.size, "sha256": sent.sha256}
        if base := self._settings.public_url.rstrip("/"):
            return {"url": f"{base}/files/{sent.sha256}/{sent.name}", **told}
        data = await self._house.file(sent.sha256) if sent.size <= LARGEST_FILE else None
        return {**told, "data": data and base64.b64encode(data).decode("ascii")}

    async def _send(self, name: str, letter_id: str, body: bytes) -> None:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "atelier",
            "webhook-id": letter_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(self._keys[name][0], letter_id.encode(), timestamp.encode(), body).decode(),
        }
        url = self._settings.hooks[name].reply_url
        async with self._client().post(url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status == 410:
                raise Undeliverable("the receiver answered 410: it wants no more")
            if not 200 <= answer.status < 300:
                raise RetryLater(
                    f"the receiver answered {answer.status}", _seconds(answer.headers.get("Retry-After", ""))
                )

    def _client(self) -> aiohttp.ClientSession:
        """Made at the first reply. Replies are rare: each has a connection of its own, and no cookie is kept."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0, limit_per_host=AT_ONCE),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=POSTING),
                auto_decompress=False,
            )
        return self._session


def _unsigned() -> Refused:
    """The one answer to all that does not verify, so that it tells neither the names of hooks nor what was wrong."""
    return Refused(401, f"no valid signature by Standard Webhooks 1.0, made within {WINDOW} s")


def _refusal(refused: Refused) -> web.Response:
    headers = {} if refused.after is None else {"Retry-After": str(max(1, math.ceil(refused.after)))}
    return web.json_response({"error": refused.error}, status=refused.status, headers=headers)


async def _refuse_packed(request: web.Request) -> web.Response:
    """Answer and hang up: aiohttp goes on unpacking what is still to come, which is a thousand times its size."""
    answer = _refusal(Refused(415, "send the body without a Content-Encoding"))
    if not request.content.is_eof():
        answer.force_close()
        await answer.prepare(request)
        await answer.write_eof()
        request.protocol.force_close()
    return answer


def open_door(settings: Settings, house: House) -> Door:
    return Webhook(settings, house)
