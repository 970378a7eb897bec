"""The webhook door over real sockets; the `standardwebhooks` package signs what goes in and verifies what comes out."""

import asyncio
import base64
import gzip
import io
import json
import random
import sys
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError
from standardwebhooks import Webhook as Signer
from yarl import URL

from bot.message import Full, Inbound, NewLora, Reply, RetryLater, Sent, Shown, Stage, Trouble, Undeliverable
from bot.platforms import webhook
from bot.platforms.webhook import Hook, Settings, Webhook, is_signed, signed_headers
from tests.fakes.house import FakeHouse

OLD, NEW, OTHERS = (f"whsec_{base64.b64encode(bytes([byte]) * 24).decode()}" for byte in (1, 2, 3))
BODY = b'{"text": "draw a fox", "person": "ada", "thread": "t1"}'
PNG = b"\x89PNG picture"
Headers = list[tuple[str, str]]


def small_house() -> FakeHouse:
    """Has one picture, and nothing else."""
    house = FakeHouse(())
    house.pictures["ab"] = PNG
    return house


class Inbox:
    """Stores what it is given, each id once, and says what it did in `log`."""

    def __init__(self) -> None:
        self.kept: list[Inbound] = []
        self.log: list[str] = []
        self.fails_with: Exception | None = None

    async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
        self.log.append("receive")
        await asyncio.sleep(0.01)
        if self.fails_with:
            raise self.fails_with
        self.log.append("stored")
        if inbound.key in {kept.key for kept in self.kept}:
            return False
        self.kept.append(inbound)
        return True


def settings_for(*secrets: str, reply_url: str = "http://127.0.0.1:9/", **more: Any) -> Settings:
    return Settings.model_validate({"hooks": {"shop": {"secrets": secrets, "reply_url": reply_url}}, **more})


class Outside:
    """A running door, and what a sender needs."""

    def __init__(self, server: TestServer, session: aiohttp.ClientSession, inbox: Inbox) -> None:
        self.server, self.session, self.inbox = server, session, inbox

    async def send(self, body: bytes = BODY, name: str = "shop", **signing: Any) -> tuple[int, dict[str, Any]]:
        """Signed by the package; `headers` in `signing` takes the place of what it made."""
        headers = signing.pop("headers", None)
        return await self.send_raw(body, signed(body, **signing) if headers is None else headers, name)

    async def send_raw(self, body: Any, headers: Headers, name: str = "shop") -> tuple[int, dict[str, Any]]:
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        url = URL(str(self.server.make_url("/hooks/")) + name, encoded=True)
        async with self.session.post(url, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def send_bytes(self, request: bytes) -> int:
        """The status of what is answered to a request that no client would write."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(request)
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
        finally:
            writer.close()
        return int(line.split()[1])


def signed(body: bytes, secret: str = NEW, letter_id: str = "msg_1", age: float = 0, bad: str = "") -> Headers:
    """The three headers by the package's signer; `bad` stands in the list before the good signature."""
    when = datetime.now(UTC) - timedelta(seconds=age)
    signature = Signer(secret).sign(letter_id, when, body.decode())
    return [
        ("webhook-id", letter_id),
        ("webhook-timestamp", str(int(when.timestamp()))),
        ("webhook-signature", f"{bad} {signature}".strip()),
    ]


def replaced(headers: Headers, name: str, value: str) -> Headers:
    return [(given, value if given == name else was) for given, was in headers]


def on_wire(headers: list[tuple[bytes, bytes]], body: bytes = BODY, name: bytes = b"shop") -> bytes:
    lines = [b"POST /hooks/%b HTTP/1.1" % name, b"Host: x", b"Content-Length: %d" % len(body)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Outside]:
    inbox, site = Inbox(), web.Application()
    webhook.open_door(settings, small_house()).mount(site, inbox)
    async with TestServer(site) as server, aiohttp.ClientSession() as session:
        yield Outside(server, session, inbox)


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async with opened(settings_for(NEW)) as outside:
        yield outside


async def test_what_the_package_signs_is_taken_and_becomes_a_message(outside: Outside) -> None:
    file = base64.b64encode(b"\x89PNG").decode()
    body = json.dumps(
        {"text": "train", "person": "ada", "files": [{"name": "a\u202eb.png", "data": file}], "later": [1e3]}
    ).encode()
    assert await outside.send(body, letter_id="msg_9") == (202, {"id": "msg_9", "thread": "msg_9", "new": True})
    (inbound,) = outside.inbox.kept
    assert (inbound.platform, inbound.id, inbound.key) == ("webhook", "shop/msg_9", "webhook:shop/msg_9")
    assert (inbound.thread, inbound.channel, inbound.person) == ("shop/msg_9", "shop", "shop/ada")
    assert [(attached.name, attached.data) for attached in inbound.attachments] == [("a�b.png", b"\x89PNG")]


async def test_the_signer_in_the_docs_is_taken(outside: Outside) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    code = code.replace("whsec_…", NEW).replace("http://127.0.0.1:8765/", str(outside.server.make_url("/")))
    asking = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await asking.communicate()
    assert b'"thread": "order-17", "new": true' in said
    assert outside.inbox.kept[0].text == "draw a red mug"


async def test_a_thread_and_a_channel_are_those_of_the_hook_and_come_back_as_sent(outside: Outside) -> None:
    status, said = await outside.send(b'{"text": "", "thread": "../t1", "channel": "art", "person": null}')
    assert (status, said["thread"]) == (202, "../t1")
    (inbound,) = outside.inbox.kept
    assert (inbound.thread, inbound.channel, inbound.person) == ("shop/../t1", "shop/art", "shop/")


@pytest.mark.parametrize("age", [-290, 290])
async def test_a_clock_may_be_off_by_less_than_300_s(outside: Outside, age: float) -> None:
    assert (await outside.send(age=age))[0] == 202


@pytest.mark.parametrize("age", [-310, 310, 1e8])
async def test_a_stale_and_a_future_timestamp_are_refused(outside: Outside, age: float) -> None:
    assert (await outside.send(age=age))[0] == 401
    assert not outside.inbox.log


@pytest.mark.parametrize("bad", ["garbage", "v1,zzz", "v1,", "v1", ",", "v1a,AAAA", "v1,AAAA,BBBB", "v1,ü", "  "])
async def test_a_bad_signature_before_a_good_one_does_no_harm_and_alone_does_no_good(
    outside: Outside, bad: str
) -> None:
    assert (await outside.send(bad=bad))[0] == 202
    alone = replaced(signed(BODY, letter_id="msg_2"), "webhook-signature", bad)
    assert (await outside.send(headers=alone))[0] == 401
    assert len(outside.inbox.kept) == 1


async def test_both_secrets_of_a_rotation_are_good_and_a_retired_one_is_not() -> None:
    async with opened(settings_for(NEW, OLD)) as outside:
        sent = [await outside.send(secret=secret, letter_id=f"m{n}") for n, secret in enumerate((NEW, OLD, OTHERS))]
        assert [status for status, _ in sent] == [202, 202, 401]
        elsewhere = signed(BODY, OTHERS)[2][1]
        assert (await outside.send(secret=OLD, bad=elsewhere, letter_id="m9"))[0] == 202
    async with opened(settings_for(NEW)) as outside:
        sent = [await outside.send(secret=secret) for secret in (OLD, NEW)]
        assert [status for status, _ in sent] == [401, 202]


@pytest.mark.parametrize(
    "junk",
    ["", "abc", "1e9", "-1", "+{now}", "{now}.0", "{now}.9", "0x{now}", "١٢٣", "9" * 400, "nan", "inf", "{now} 1"],
)
async def test_a_timestamp_that_is_no_whole_number_is_refused_even_where_it_is_signed(
    outside: Outside, junk: str
) -> None:
    said = junk.format(now=int(time.time())).encode()
    signature = webhook.sign(bytes([2]) * 24, b"m", said, BODY)
    headers = [(b"webhook-id", b"m"), (b"webhook-timestamp", said), (b"webhook-signature", signature)]
    assert await outside.send_bytes(on_wire(headers)) == 401
    assert not outside.inbox.log


@pytest.mark.parametrize("letter_id", [b"", b"a.b", b"a b", b"\xc3\xbc", b"\xff", b"x" * 201, b"msg_\x80"])
async def test_an_id_that_is_no_plain_word_is_refused_even_where_it_is_signed(
    outside: Outside, letter_id: bytes
) -> None:
    now = str(int(time.time())).encode()
    signature = webhook.sign(bytes([2]) * 24, letter_id, now, BODY)
    headers = [(b"webhook-id", letter_id), (b"webhook-timestamp", now), (b"webhook-signature", signature)]
    assert await outside.send_bytes(on_wire(headers)) == 401


async def test_a_header_that_is_missing_or_there_twice_is_refused(outside: Outside) -> None:
    good = [(name.encode(), value.encode()) for name, value in signed(BODY)]
    assert await outside.send_bytes(on_wire(good)) == 202
    for one in good:
        assert await outside.send_bytes(on_wire([header for header in good if header != one])) == 401
        assert await outside.send_bytes(on_wire([*good, one])) == 401
        assert await outside.send_bytes(on_wire([(one[0].upper(), b"x"), *good])) == 401


@pytest.mark.parametrize("value", [b"\xff\xfe", b"v1,\xc3\xbc", b"v1," + b"A" * 8000, b"v1,A " * 1500, b"a\x00b"])
async def test_a_signature_of_any_bytes_is_refused_and_nothing_breaks(outside: Outside, value: bytes) -> None:
    headers = [(name.encode(), text.encode()) for name, text in signed(BODY)]
    headers[2] = (b"webhook-signature", value)
    assert await outside.send_bytes(on_wire(headers)) in (400, 401)
    assert (await outside.send())[0] == 202


async def test_an_unknown_hook_is_answered_like_a_bad_signature(outside: Outside) -> None:
    unknown = await outside.send(name="nobody")
    assert unknown[0] == 401
    assert unknown == await outside.send(secret=OTHERS) == await outside.send(headers=[])
    assert (await outside.send(name="sh%00p"))[0] == 401


def test_no_single_flipped_bit_of_what_is_signed_passes() -> None:
    keys, now = (bytes([2]) * 24,), int(time.time())
    said = [value.encode() for _, value in signed(BODY)]
    raw_names = [b"webhook-id", b"webhook-timestamp", b"webhook-signature"]
    passed = tried = 0
    for part, value in enumerate([*said, BODY]):
        for bit in range(len(value) * 8):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            parts = [*said, BODY]
            parts[part] = bytes(flipped)
            found = signed_headers(zip(raw_names, parts[:3], strict=True), now)
            tried += 1
            passed += found is not None and is_signed(keys, found, parts[3])
    assert tried > 900
    assert not passed
    whole = signed_headers(zip(raw_names, said, strict=True), now)
    assert whole
    assert is_signed(keys, whole, BODY)


def test_of_some_thousand_flips_in_random_bodies_none_passes() -> None:
    dice, key = random.Random(7), bytes([2]) * 24
    for number in range(3000):
        body = dice.randbytes(dice.randint(1, 300))
        name, when = b"m%d" % number, b"1700000000"
        signature = webhook.sign(key, name, when, body)
        assert is_signed((key,), (name, when, signature), body)
        flipped = bytearray(body)
        flipped[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        assert not is_signed((key,), (name, when, signature), bytes(flipped))
        assert not is_signed((key,), (name, when, signature), body[:-1])


def test_our_signature_is_the_package_s() -> None:
    when = datetime.now(UTC)
    ours = webhook.sign(bytes([2]) * 24, b"msg_1", str(int(when.timestamp())).encode(), BODY)
    assert ours.decode() == Signer(NEW).sign("msg_1", when, BODY.decode())


MALFORMED = [
    b"",
    b"null",
    b"[]",
    b'{"text": 3}',
    b'{"text": "a"',
    b'{"tex": "a"}',
    b'{"text": "a", "thread": 4}',
    b'{"text": "a", "thread": "\\u0007"}',
    b'{"text": "a", "person": "' + b"x" * 201 + b'"}',
    b'{"text": "a\\u0000"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\xff"}',
    b'{"text": "a", "files": {}}',
    b'{"text": "a", "files": [{"name": "b", "data": "a=="}]}',
    b'{"text": "a", "files": [{"name": "b"}]}',
    b'{"text": "a", "files": [' + b'{"data": ""},' * 200 + b'{"data": ""}]}',
    b"[" * 100_000,
    b'{"text": "a", "z": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'{"text": "a", "n": ' + b"9" * 10_000 + b"}",
    "{'text': 1}".encode("utf-16"),
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_body_is_refused_with_a_reason_only_where_it_is_signed(outside: Outside, body: bytes) -> None:
    now = str(int(time.time()))
    signature = webhook.sign(bytes([2]) * 24, b"m", now.encode(), body).decode()
    headers = [("webhook-id", "m"), ("webhook-timestamp", now), ("webhook-signature", signature)]
    status, said = await outside.send(body, headers=headers)
    assert status == 400
    assert said["error"]
    unsigned = replaced(headers, "webhook-id", "n")
    assert (await outside.send(body, headers=unsigned))[0] == 401
    assert not outside.inbox.log


async def test_numbers_that_overflow_in_a_field_we_do_not_know_are_not_read(outside: Outside) -> None:
    assert (await outside.send(b'{"text": "a", "n": 1e400, "m": -1e-999, "o": NaN}'))[0] == 202


async def test_nothing_is_parsed_before_it_is_verified(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []

    def parse(*args: Any) -> Inbound:
        parsed.append(args)
        raise webhook.Refused(400, "parsed")

    monkeypatch.setattr(webhook, "to_inbound", parse)
    assert (await outside.send(secret=OTHERS))[0] == 401
    assert not parsed
    assert (await outside.send())[0] == 400
    assert len(parsed) == 1


async def test_a_message_is_stored_before_it_is_acknowledged(outside: Outside) -> None:
    asking = asyncio.ensure_future(outside.send())
    asking.add_done_callback(lambda _: outside.inbox.log.append("acknowledged"))
    await asking
    await asyncio.sleep(0)
    assert outside.inbox.log == ["receive", "stored", "acknowledged"]


async def test_what_cannot_be_stored_is_not_acknowledged(outside: Outside) -> None:
    outside.inbox.fails_with = OSError("disk")
    request = on_wire([(name.encode(), value.encode()) for name, value in signed(BODY)])
    assert await outside.send_bytes(request) == 500  # the sender's retry is what saves it


async def test_a_redelivery_is_the_same_message_and_other_hooks_may_use_its_id() -> None:
    one = {"secrets": (NEW,), "reply_url": "http://127.0.0.1:9/"}
    async with opened(Settings.model_validate({"hooks": {"shop": one, "blog": one}})) as outside:
        first = await outside.send()
        again = await asyncio.gather(*(outside.send(age=age) for age in range(4)))
        assert first == (202, {"id": "msg_1", "thread": "t1", "new": True})
        assert again == [(202, {"id": "msg_1", "thread": "t1", "new": False})] * 4
        assert (await outside.send(name="blog"))[1]["new"]
        assert [kept.key for kept in outside.inbox.kept] == ["webhook:shop/msg_1", "webhook:blog/msg_1"]


async def test_no_room_is_429_and_says_when_to_come_again(outside: Outside) -> None:
    for seconds, said in ((12.2, "13"), (0.0, "1")):
        outside.inbox.fails_with = Full(seconds)
        url = outside.server.make_url("/hooks/shop")
        async with outside.session.post(url, data=BODY, headers=signed(BODY)) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, said)


async def chunks(count: int, size: int) -> AsyncGenerator[bytes]:
    for _ in range(count):
        yield b" " * size


async def test_a_body_has_a_cap_whether_or_not_its_length_is_said() -> None:
    async with opened(settings_for(NEW, max_bytes=100_000)) as outside:
        for size, status in ((100_000, 202), (100_001, 413)):
            body = BODY + b" " * (size - len(BODY))
            assert (await outside.send(body, letter_id=f"m{size}"))[0] == status
        assert (await outside.send_raw(chunks(20, 10_000), signed(BODY)))[0] == 413
        head = on_wire([(name.encode(), value.encode()) for name, value in signed(BODY)], b" " * 100_001)[:-100_001]
        assert await outside.send_bytes(head) == 413  # before any of it came
        assert len(outside.inbox.kept) == 1


async def test_bodies_together_have_a_cap_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(settings_for(NEW, max_bytes=1000)) as outside:
        held: list[asyncio.StreamWriter] = []
        for _ in range(webhook.BODIES):
            _, writer = await asyncio.open_connection("127.0.0.1", outside.server.port)
            whole = on_wire([(n.encode(), v.encode()) for n, v in signed(BODY)], b" " * 1000)
            writer.write(whole[:-1])  # and the last byte does not come
            held.append(writer)
        await asyncio.sleep(0.1)
        assert (await outside.send())[0] == 429
        for writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert (await outside.send())[0] == 202


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "READING", 0.05)
    async with opened(settings_for(NEW)) as outside:
        whole = on_wire([(n.encode(), v.encode()) for n, v in signed(BODY)])
        assert await outside.send_bytes(whole[:-1]) == 408


async def test_a_large_body_is_looked_at_too(outside: Outside) -> None:
    data = base64.b64encode(b"x" * webhook.LARGE).decode()
    assert (await outside.send(json.dumps({"text": "a", "files": [{"data": data}]}).encode()))[0] == 202
    assert len(outside.inbox.kept[0].attachments[0].data) == webhook.LARGE
    assert (await outside.send(b"[" * (webhook.LARGE + 1)))[0] == 400


async def test_a_bomb_is_not_unpacked_while_we_say_no(outside: Outside) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = head + (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 3000  # of 3 GB
    headers = [(name.encode(), value.encode()) for name, value in signed(BODY)]
    started = time.process_time()
    assert await outside.send_bytes(on_wire([*headers, (b"Content-Encoding", b"gzip")], bomb)) == 415
    await asyncio.sleep(0.2)
    assert time.process_time() - started < 0.4  # unpacking it takes more than a second


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity", "x"])
async def test_a_body_with_a_content_encoding_is_refused(outside: Outside, coding: str) -> None:
    packed = gzip.compress(BODY)
    headers = [(name.encode(), value.encode()) for name, value in signed(BODY)]
    status = await outside.send_bytes(on_wire([*headers, (b"Content-Encoding", coding.encode())], packed))
    assert status in (400, 415)
    assert not outside.inbox.log


async def test_broken_chunks_are_refused(outside: Outside) -> None:
    headers = b"\r\n".join(f"{name}: {value}".encode() for name, value in signed(BODY))
    start = b"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n\r\n"
    for rest in (b"zz\r\n\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n", b"fffffffffffffffffff\r\n"):
        assert await outside.send_bytes(start + rest) == 400


@pytest.mark.parametrize("broken", [b"zz\r\n", b"5\r\nabcdefgh\r\n"])
@pytest.mark.parametrize(("parser", "statuses"), [("HttpRequestParser", (400, 408)), ("HttpRequestParserPy", (400,))])
async def test_chunks_that_break_later_are_refused(
    monkeypatch: pytest.MonkeyPatch, broken: bytes, parser: str, statuses: tuple[int, ...]
) -> None:
    monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", getattr(aiohttp.http_parser, parser))
    monkeypatch.setattr(webhook, "READING", 0.3)  # the parser in C does not tell us, and we wait in vain
    headers = b"\r\n".join(f"{name}: {value}".encode() for name, value in signed(BODY))
    start = b"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n\r\n"
    async with opened(settings_for(NEW)) as outside:
        reader, writer = await asyncio.open_connection("127.0.0.1", outside.server.port)
        writer.write(start + b"3\r\nabc\r\n")
        await asyncio.sleep(0.1)
        writer.write(broken)
        status = int((await asyncio.wait_for(reader.readline(), 5)).split()[1])
        writer.close()
        assert status in statuses


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("hello", "does not begin with whsec_"),
        ("whsec_a!b", "is not base64"),
        ("whsec_üü", "is not base64"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "has 23 bytes"),
        ("whsec_", "has 0 bytes"),
    ],
)
def test_a_secret_that_is_none_stops_the_start_and_is_not_told(secret: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        settings_for(NEW, secret)
    assert "hooks.shop.secrets" in str(caught.value)
    assert "secret 2" in str(caught.value)
    assert len(secret) < 8 or secret[6:] not in str(caught.value)


def test_a_hook_needs_a_secret_a_plain_name_and_an_http_url() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        settings_for()
    for url in ("ftp://x", "x", "", "http://", "http://x:port/", "http://x:0/", "http://[::1", "file:///etc/passwd"):
        with pytest.raises(ValidationError, match="reply_url"):
            settings_for(NEW, reply_url=url)
    hook = {"secrets": [NEW], "reply_url": "http://x"}
    for name in ("a/b", "", "a b", "ü", "a\n"):
        with pytest.raises(ValidationError, match="letters"):
            Settings.model_validate({"hooks": {name: hook}})


def test_settings_do_not_show_a_secret() -> None:
    assert NEW[6:] not in repr(settings_for(NEW))
    with pytest.raises(ValidationError) as caught:
        Hook.model_validate({"secrets": NEW, "reply_url": "http://x"})
    assert NEW[6:] not in str(caught.value)


def test_a_secret_may_lack_its_padding() -> None:
    bare = "whsec_" + base64.b64encode(b"x" * 25).decode().rstrip("=")
    assert Hook.model_validate({"secrets": [bare], "reply_url": "http://x"}).keys == (b"x" * 25,)


class Receiver:
    """A program at a reply_url: it remembers the requests, and answers with what is next in `answers`."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self.answers: list[Callable[[web.Request], Awaitable[web.Response]] | web.Response] = []

    async def on_request(self, request: web.Request) -> web.Response:
        self.got.append((await request.read(), dict(request.headers)))
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        return answer if isinstance(answer, web.Response) else await answer(request)


@asynccontextmanager
async def replying(receiver: Receiver, **more: Any) -> AsyncGenerator[Webhook]:
    site = web.Application()
    site.router.add_route("*", "/{rest:.*}", receiver.on_request)
    async with TestServer(site) as server:
        door = Webhook(settings_for(NEW, OLD, reply_url=str(server.make_url("/replies?k=1")), **more), small_house())
        try:
            yield door
        finally:
            await door.close()


TO = Inbound(platform="webhook", id="shop/msg_1", thread="shop/t1", person="shop/ada", text="draw", channel="shop")
DRAWN = Reply(
    text="Here it is — “so”.",
    intent="draw",
    pictures=(Shown(file=Path("/home/a.png"), recipe={"seed": 7}, sha256="ab"),),
    actions=("vary",),
)


async def test_a_reply_verifies_with_the_package_by_the_first_secret() -> None:
    receiver = Receiver()
    async with replying(receiver) as door:
        ref = await door.post(TO, DRAWN, None)
    ((body, headers),) = receiver.got
    said = Signer(NEW).verify(body, headers)
    assert said == {
        "type": "atelier.reply",
        "in_reply_to": "msg_1",
        "id": headers["webhook-id"],
        "thread": "t1",
        "text": "Here it is — “so”.",
        "intent": "draw",
        "error": None,
        "lora": None,
        "pictures": [{"sha256": "ab", "png": base64.b64encode(PNG).decode(), "recipe": {"seed": 7}}],
        "files": [],
    }
    assert ref == headers["webhook-id"]
    assert headers["Content-Type"] == "application/json"
    with pytest.raises(Exception, match="No matching signature"):
        Signer(OLD).verify(body, headers)


async def test_with_a_public_url_a_picture_is_a_link_and_no_bytes() -> None:
    receiver = Receiver()
    async with replying(receiver, public_url="https://studio.example/") as door:
        await door.post(TO, DRAWN, None)
    (picture,) = json.loads(receiver.got[0][0])["pictures"]
    assert picture == {"url": "https://studio.example/pictures/ab.png", "sha256": "ab", "recipe": {"seed": 7}}


SENT = Sent(name="inky.safetensors", file=Path("/secret/inky.safetensors"), sha256="cd" * 32, size=4)


async def test_a_file_goes_along_and_one_that_is_too_large_or_gone_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver()
    async with replying(receiver) as door:
        door._house.files = {SENT.sha256: b"LORA"}  # type: ignore[attr-defined]
        await door.post(TO, Reply(text="Here.", files=(SENT,)), None)
        monkeypatch.setattr("bot.platforms.webhook.LARGEST_FILE", 3)
        await door.post(TO, Reply(text="Here.", files=(SENT,)), None)
    told = {"name": "inky.safetensors", "size": 4, "sha256": SENT.sha256}
    letters = [json.loads(body)["files"] for body, _ in receiver.got]
    assert letters == [[{**told, "data": base64.b64encode(b"LORA").decode()}], [{**told, "data": None}]]
    assert b"secret" not in receiver.got[0][0]


async def test_with_a_public_url_a_file_is_a_link() -> None:
    receiver = Receiver()
    async with replying(receiver, public_url="https://studio.example/") as door:
        await door.post(TO, Reply(text="Here.", files=(SENT,)), None)
    (file,) = json.loads(receiver.got[0][0])["files"]
    assert file["url"] == f"https://studio.example/files/{SENT.sha256}/inky.safetensors"
    assert "data" not in file


async def test_trouble_and_a_lora_are_told_without_our_paths_and_a_lost_picture_is_null() -> None:
    receiver = Receiver()
    trouble = Trouble(code="invalid", message="No.", hint="Try.")
    lora = NewLora(name="fox", kind="subject", trigger="a fx", folder=Path("/secret/fox"))
    lost = Shown(file=Path("/secret/b.png"), recipe={}, sha256="gone")
    async with replying(receiver) as door:
        await door.post(TO, Reply(text="", error=trouble, lora=lora, pictures=(lost,)), None)
    body = receiver.got[0][0]
    said = json.loads(body)
    assert b"secret" not in body
    assert said["error"] == {"code": "invalid", "message": "No.", "hint": "Try.", "incident": None}
    assert said["lora"] == {"name": "fox", "kind": "subject", "trigger": "a fx"}
    assert said["pictures"] == [{"sha256": "gone", "png": None, "recipe": {}}]


async def test_progress_is_not_posted() -> None:
    receiver = Receiver()
    async with replying(receiver) as door:
        stage = Stage(stage="drawing", step=1, steps=3)
        assert await door.post(TO, Reply(text="…", progress=stage), "ref") == "ref"
    assert not receiver.got


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def test_each_retry_has_the_same_id_and_body_and_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, clock = Receiver(), iter([time.time() - 100, time.time() - 50, time.time()])
    receiver.answers = [web.Response(status=503, headers={"Retry-After": "7"}), hang_up]
    monkeypatch.setattr(webhook, "time", SimpleNamespace(time=lambda: next(clock)))
    async with replying(receiver) as door:
        with pytest.raises(RetryLater, match="503") as caught:
            await door.post(TO, DRAWN, None)
        assert caught.value.after == 7.0
        with pytest.raises(aiohttp.ClientError):
            await door.post(TO, DRAWN, None)
        monkeypatch.undo()
        await door.post(TO, DRAWN, None)
        await door.post(TO.model_copy(update={"id": "shop/msg_2"}), DRAWN, None)
    assert len({body for body, _ in receiver.got[:3]}) == 1
    first, second, third, other = (headers["webhook-id"] for _, headers in receiver.got)
    assert first == second == third != other
    assert len({headers["webhook-timestamp"] for _, headers in receiver.got[:3]}) == 3
    for body, headers in receiver.got:
        Signer(NEW).verify(body, headers)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500])
@pytest.mark.parametrize("asked", ["", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 9])
async def test_what_is_no_2xx_is_tried_again_and_no_redirect_is_followed(status: int, asked: str) -> None:
    receiver = Receiver()
    receiver.answers = [web.Response(status=status, headers={"Location": "/elsewhere", "Retry-After": asked})]
    async with replying(receiver) as door:
        with pytest.raises(RetryLater, match=str(status)) as caught:
            await door.post(TO, DRAWN, None)
    assert caught.value.after == (86_400 if asked.isdigit() else None)
    assert len(receiver.got) == 1


async def test_a_receiver_that_is_gone_ends_it() -> None:
    receiver = Receiver()
    receiver.answers = [web.Response(status=410)]
    async with replying(receiver) as door:
        with pytest.raises(Undeliverable, match="410"):
            await door.post(TO, DRAWN, None)
        with pytest.raises(Undeliverable, match="removed"):
            await door.post(TO.model_copy(update={"id": "removed/msg_1"}), DRAWN, None)
    assert len(receiver.got) == 1


async def test_a_receiver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    receiver = Receiver()
    receiver.answers = [sleep]
    monkeypatch.setattr(webhook, "POSTING", 0.1)
    async with replying(receiver) as door:
        with pytest.raises(TimeoutError):
            await door.post(TO, DRAWN, None)


async def test_a_slow_receiver_holds_up_its_own_replies_alone() -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    slow, quick = Receiver(), Receiver()
    slow.answers = [never] * 150
    async with replying(slow) as one, replying(quick) as two:
        urls = [door._settings.hooks["shop"].reply_url for door in (one, two)]  # pyright: ignore[reportPrivateUsage]
        hooks = {name: {"secrets": [NEW], "reply_url": url} for name, url in zip(("slow", "shop"), urls, strict=True)}
        door = Webhook(Settings.model_validate({"hooks": hooks}), small_house())
        held = [
            asyncio.create_task(door.post(TO.model_copy(update={"id": f"slow/{k}"}), DRAWN, None)) for k in range(150)
        ]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(3):
            await door.post(TO, DRAWN, None)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await door.close()
    assert len(quick.got) == 1


async def test_no_one_there_is_tried_again_and_close_may_be_called_twice() -> None:
    door = Webhook(settings_for(NEW, reply_url="http://127.0.0.1:1/"), small_house())
    with pytest.raises(aiohttp.ClientError):
        await door.post(TO, DRAWN, None)
    await door.close()
    await door.close()


async def test_run_returns_at_once() -> None:
    await asyncio.wait_for(Webhook(settings_for(NEW), small_house()).run(), 1)
