import asyncio
import gzip
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.message import Inbound, NewLora, Reply, Said, Sent, Stage, Trouble
from bot.platforms.web import HEADERS, NAME, Event, Settings, Tab, Web, open_door, reply_event
from tests.fakes.house import LORAS, FakeHouse, png

CHAT = "c" * 32
OTHER = "o" * 32
SCRIPT = "<script>alert(1)</script>\"'>&"


@dataclass
class Site:
    """A door that is open: what it serves, and who stands behind it."""

    client: TestClient[web.Request, web.Application]
    door: Web
    house: FakeHouse

    async def say(self, **said: Any) -> aiohttp.ClientResponse:
        return await self.client.post("/api/chat", json={"chat": CHAT, **said})

    async def raw(self, data: bytes, kind: str = "application/json", **headers: str) -> aiohttp.ClientResponse:
        return await self.client.post("/api/chat", data=data, headers={"Content-Type": kind, **headers})


Opening = Callable[..., Awaitable[Site]]


@pytest.fixture
async def opening() -> AsyncGenerator[Opening]:
    clients: list[TestClient[web.Request, web.Application]] = []

    async def open_site(house: FakeHouse | None = None, unfolds: bool = True, **chosen: Any) -> Site:
        house = house or FakeHouse()
        door = open_door(Settings(**chosen), house)
        assert isinstance(door, Web)
        site = web.Application()
        door.mount(site, house)
        site.router.add_post("/hooks/slack", hooked)
        server = TestServer(site)
        await server.start_server(auto_decompress=unfolds)
        client = TestClient(server)
        await client.start_server()
        clients.append(client)
        return Site(client, door, house)

    yield open_site
    for client in clients:
        await client.close()


@pytest.fixture
async def site(opening: Opening) -> Site:
    return await opening()


async def hooked(request: web.Request) -> web.Response:
    return web.Response(text="signed")


async def refusal(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    """The error of a response that must be a refusal, in the one form that they all have."""
    assert response.status == status, await response.text()
    assert response.content_type == "application/json"
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "hint"}
    assert body["error"]["message"]
    return body["error"]


class Listener:
    """What a page hears. `next` skips pings and the mark between the past and what is live, unless they are asked."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, *skipped: str) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(5):
            while True:
                block = (await self.response.content.readuntil(b"\n\n")).decode()
                if block.startswith(":"):
                    continue
                kind, data = re.fullmatch(r"event: (\w+)\ndata: (.*)\n\n", block, re.DOTALL).groups()  # pyright: ignore
                if kind not in skipped:
                    return kind, json.loads(data)

    async def past(self) -> list[tuple[str, dict[str, Any]]]:
        heard: list[tuple[str, dict[str, Any]]] = []
        while (event := await self.next())[0] != "ready":
            heard.append(event)
        return heard


@asynccontextmanager
async def listening(site: Site, chat: str = CHAT) -> AsyncIterator[Listener]:
    async with site.client.get(f"/api/chat/{chat}/events") as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Listener(response)


def inbound(id: str = "m1", chat: str = CHAT, text: str = "a fox") -> Inbound:
    return Inbound(id=f"{chat}.{id}", thread=chat, channel=chat, person="p", text=text, platform=NAME)


# --- messages


async def test_a_message_is_stored_before_it_is_acknowledged(opening: Opening) -> None:
    class Slow(FakeHouse):
        async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
            await asyncio.sleep(0.05)
            return await super().__call__(inbound, hold)

    site = await opening(Slow())
    response = await site.say(id="m1", text="a fox")
    assert response.status == 202
    (taken,) = site.house.taken
    assert await response.json() == {"id": f"web:{CHAT}.m1", "chat": CHAT, "new": True}
    assert (taken.key, taken.thread, taken.channel, taken.text) == (f"web:{CHAT}.m1", CHAT, CHAT, "a fox")


async def test_the_server_makes_what_the_client_leaves_out(site: Site) -> None:
    said = [await (await site.client.post("/api/chat", json={"text": "a fox"})).json() for _ in range(2)]
    assert said[0]["chat"] != said[1]["chat"]
    assert all(re.fullmatch("[A-Za-z0-9_-]{24,64}", one["chat"]) for one in said)
    assert all(one["id"].startswith(f"web:{one['chat']}.") for one in said)


async def test_the_same_id_twice_is_one_message_even_at_once_and_in_another_chat_it_is_another(site: Site) -> None:
    async with listening(site) as page:
        await page.past()
        twins = [await (await site.say(id="m1", text="a fox")).json()]
        twins += [await r.json() for r in await asyncio.gather(*(site.say(id="m1", text="a fox") for _ in range(5)))]
        assert [twin["new"] for twin in twins] == [True, False, False, False, False, False]
        assert (await (await site.say(id="m1", chat=OTHER, text="a fox")).json())["new"]
        await site.say(id="m2", text="a mug")
        heard = [await page.next() for _ in range(2)]
    assert [data["text"] for _, data in heard] == ["a fox", "a mug"]
    assert [taken.id for taken in site.house.taken] == [f"{CHAT}.m1", f"{OTHER}.m1", f"{CHAT}.m2"]


async def test_a_form_brings_files_in_their_order_and_their_names_are_labels(site: Site) -> None:
    names = ["../../a.png", "dir/b.png", "c‮d.png", "é.txt"]
    files = [f'Content-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() for name in names]
    said = [part("text", "train a character called Pip, é".encode()), part("chat", CHAT.encode()), part("id", b"m1")]
    body = form(*said, *(head + png(k) for k, head in enumerate(files)))
    assert (await site.raw(body, FORM)).status == 202
    (taken,) = site.house.taken
    assert (taken.id, taken.text) == (f"{CHAT}.m1", "train a character called Pip, é")
    assert [file.data for file in taken.attachments] == [png(k) for k in range(4)]
    assert [file.name for file in taken.attachments] == ["a.png", "b.png", "c�d.png", "é.txt"]


async def test_a_button_of_this_conversation_is_pressed_and_one_of_another_is_refused(site: Site) -> None:
    press = {"verb": "vary", "of": f"web:{CHAT}.m1", "picture": 2}
    assert (await site.say(text="", press=press)).status == 202
    form = FormData(default_to_multipart=True)
    form.add_field("chat", CHAT)
    form.add_field("press", json.dumps(press))
    assert (await site.client.post("/api/chat", data=form)).status == 202
    assert [taken.press and taken.press.model_dump() for taken in site.house.taken] == [press, press]
    for of in (f"web:{OTHER}.m1", f"slack:{CHAT}.m1", "", f"web:{CHAT}.", f"web:{CHAT}.m1\n"):
        await refusal(await site.say(text="", press={**press, "of": of}), 400)
    assert len(site.house.taken) == 2


async def test_no_room_is_said_with_the_time_to_come_again(opening: Opening) -> None:
    site = await opening(FakeHouse(room=1))
    assert (await site.say(id="m1", text="a fox")).status == 202
    response = await site.say(id="m2", text="a mug")
    assert (await refusal(response, 429))["code"] == "full"
    assert response.headers["Retry-After"] == "8"


async def test_a_person_is_a_cookie_that_no_script_reads_and_without_it_the_conversation(site: Site) -> None:
    first = await site.client.get("/")
    cookie = first.cookies["atelier"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
    assert "atelier" not in (await site.client.get("/")).cookies
    await site.say(text="a fox")
    await site.say(text="a mug", chat=OTHER)
    site.client.session.cookie_jar.clear()
    await site.say(text="a cat")
    await site.client.post(
        "/api/chat", json={"chat": OTHER, "text": "a dog"}, headers={"Cookie": "atelier=\xff; x=;;="}
    )
    one, same, bare, odd = (taken.person for taken in site.house.taken)
    assert one == same != bare
    assert cookie.value not in one
    assert (bare, odd) == (CHAT, OTHER)


# --- malformed


DEEP = b'{"text":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
BAD_JSON = {
    "empty": b"",
    "cut": b'{"text": "a fo',
    "latin": b'{"text": "\xff\xfe"}',
    "list": b"[1]",
    "null": b"null",
    "deep": DEEP,
    "no text": b"{}",
    "blank": b'{"text": "  \\n"}',
    "number": b'{"text": 1}',
    "nul": b'{"text": "a\\u0000b"}',
    "half a pair": b'{"text": "\\ud800"}',
    "unknown": b'{"text": "a", "admin": true}',
    "short chat": b'{"text": "a", "chat": "abc"}',
    "path as chat": b'{"text": "a", "chat": "../../../../../../../../etc/passwd"}',
    "chat with an end": b'{"text": "a", "chat": "' + b"c" * 32 + b'\\n"}',
    "huge id": b'{"text": "a", "id": "' + b"i" * 65 + b'"}',
    "id as a number": b'{"text": "a", "id": 7}',
    "press as text": b'{"text": "a", "press": "vary"}',
    "unknown verb": b'{"text": "a", "press": {"verb": "rm", "of": "x"}}',
    "picture": b'{"text": "a", "press": {"verb": "vary", "of": "x", "picture": 1e400}}',
    "nan": b'{"text": NaN}',
    "long": b'{"text": "' + b"x" * 20_001 + b'"}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_what_is_no_message_is_refused_as_malformed(site: Site, body: bytes) -> None:
    await refusal(await site.raw(body), 400)
    assert not site.house.taken


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str, data: bytes, *headers: str) -> bytes:
    return "\r\n".join([f'Content-Disposition: form-data; name="{name}"', *headers, "", ""]).encode() + data


FORM = "multipart/form-data; boundary=B"
BAD_FORMS = {
    "nothing": (b"", FORM, 400),
    "no boundary": (form(part("text", b"a")), "multipart/form-data", 400),
    "another boundary": (form(part("text", b"a")), "multipart/form-data; boundary=X", 400),
    "long boundary": (form(part("text", b"a")), f"multipart/form-data; boundary={'x' * 500}", 400),
    "cut": (form(part("text", b"a fox"), end=b"")[:-9], FORM, 400),
    "cut in a file": (form(part("text", b"a fox"), part("files", b"x" * 100), end=b"")[:-9], FORM, 400),
    "latin": (form(part("text", b"\xff")), FORM, 400),
    "nul": (form(part("text", b"a\0b")), FORM, 400),
    "twice": (form(part("text", b"a"), part("text", b"b")), FORM, 400),
    "unknown": (form(part("text", b"a"), part("path", b"/etc")), FORM, 400),
    "nameless": (form(b"Content-Type: text/plain\r\n\r\na"), FORM, 400),
    "deep press": (form(part("press", b"[" * 50_000)), FORM, 400),
    "no headers": (form(b"\r\n"), FORM, 400),
    "bad headers": (form(b"\xff\xff: \xff\r\n\r\na"), FORM, 400),
    "long headers": (form(b"A: " + b"x" * 100_000 + b"\r\n\r\na"), FORM, 400),
    "nested": (
        form(b"Content-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\na\r\n--C--\r\n"),
        FORM,
        400,
    ),
    "encoded part": (form(part("files", b"eA==", "Content-Transfer-Encoding: base64")), FORM, 415),
    "zipped part": (form(part("files", gzip.compress(b"x"), "Content-Encoding: gzip")), FORM, 415),
    "not a form": (b"text=a", "application/x-www-form-urlencoded", 415),
    "bare": (b"a fox", "text/plain", 415),
    "no type": (b"a fox", ";;;", 415),
}


@pytest.mark.parametrize(("body", "kind", "status"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
async def test_what_is_no_form_is_refused(site: Site, body: bytes, kind: str, status: int) -> None:
    await refusal(await site.raw(body, kind), status)
    assert not site.house.taken


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_makes_a_fault(data: st.DataObject) -> None:
    """Bytes of all kinds, and a good form with some of its bytes changed."""
    good = form(part("text", b"a fox"), part("files", b"x" * 50, "Content-Type: image/png"))

    async def check() -> None:
        house = FakeHouse()
        site = web.Application()
        open_door(Settings(), house).mount(site, house)
        async with TestClient(TestServer(site)) as client:
            for _ in range(8):
                mangled = bytearray(good)
                for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)))):
                    mangled[at] = byte
                body = bytes(mangled) if data.draw(st.booleans()) else data.draw(st.binary(max_size=300))
                kind = data.draw(st.sampled_from([FORM, "application/json"]))
                async with client.post("/api/chat", data=body, headers={"Content-Type": kind}) as response:
                    assert response.status in (202, 400, 413, 415), (body, kind)

    asyncio.run(check())


async def test_a_message_that_is_too_large_is_refused_whatever_it_says_of_its_length(opening: Opening) -> None:
    site = await opening(max_bytes=300_000)
    large = form(part("text", b"a"), part("files", b"x" * 400_000))

    async def unsaid() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 10_000):
            yield large[at : at + 10_000]

    await refusal(await site.raw(large, FORM), 413)
    await refusal(await site.client.post("/api/chat", data=unsaid(), headers={"Content-Type": FORM}), 413)
    await refusal(await site.raw(form(*(part("files", b"x" * 9_000) for _ in range(40))), FORM), 413)
    await refusal(await site.raw(b'{"text": "' + b"x" * 250_000 + b'"}'), 413)
    assert not site.house.taken
    assert (await site.say(text="a fox")).status == 202


async def test_forty_files_are_taken_and_one_more_is_not(site: Site) -> None:
    assert (await site.raw(form(*(part("files", b"x") for _ in range(40))), FORM)).status == 202
    await refusal(await site.raw(form(*(part("files", b"x") for _ in range(41))), FORM), 413)


@pytest.mark.parametrize(("encoding", "unfolds"), [("gzip", True), ("gzip", False), ("deflate", False), ("br", False)])
async def test_an_encoded_body_is_refused(opening: Opening, encoding: str, unfolds: bool) -> None:
    site = await opening(unfolds=unfolds)
    body = gzip.compress(b'{"text": "' + b"x" * 5_000_000 + b'"}')
    await refusal(await site.raw(body, **{"Content-Encoding": encoding}), 415)
    assert not site.house.taken


async def test_uploads_that_stand_still_give_their_place_back(opening: Opening) -> None:
    site = await opening(max_held=100_000, upload_seconds=0.3)
    going = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"--B\r\n" + part("files", b"x" * 80_000)
        going.set()
        await asyncio.sleep(5)

    slow = asyncio.create_task(site.client.post("/api/chat", data=stalling(), headers={"Content-Type": FORM}))
    await going.wait()
    await asyncio.sleep(0.1)
    full = await site.raw(form(part("files", b"x" * 60_000)), FORM)
    assert (await refusal(full, 429))["code"] == "full"
    assert int(full.headers["Retry-After"]) > 0
    await refusal(await slow, 408)
    assert (await site.raw(form(part("files", b"x" * 60_000)), FORM)).status == 202


async def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing(site: Site) -> None:
    assert site.client.port
    _, writer = await asyncio.open_connection("127.0.0.1", site.client.port)
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 90000\r\n\r\n"
    writer.write(head.encode() + b"--B\r\n" + part("files", b"x" * 40_000))
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(5):
        while site.door._room.held:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.01)
    assert not site.house.taken
    assert (await site.say(text="a fox")).status == 202


async def test_a_fault_of_ours_is_json_and_tells_nothing_of_itself(opening: Opening) -> None:
    class Broken(FakeHouse):
        async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
            raise OSError("the disk at /secret/place is full")

    site = await opening(Broken())
    error = await refusal(await site.say(text="a fox"), 500)
    assert "incident" in error["message"]
    assert "/secret" not in json.dumps(error)


# --- who may speak


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "LOCALHOST", "studio.example:443"]
)
async def test_a_loopback_name_and_a_listed_one_are_served(opening: Opening, host: str) -> None:
    site = await opening(hosts=("Studio.example",))
    assert (await site.client.get("/", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "192.168.0.1",
        "",
        "localhost.",
        "[::1",
        "[",
        "localhost/x",
        "a:b:c",
        "::ffff:127.0.0.1",
        "①②⑦.0.0.1".encode().decode("latin-1"),
    ],
)
async def test_any_other_name_is_refused_everywhere_but_at_the_hooks(site: Site, host: str) -> None:
    await refusal(await site.client.get("/api/loras", headers={"Host": host}), 421)
    await refusal(await site.client.get("/nowhere", headers={"Host": host}), 421)
    await refusal(await site.client.post("/api/chat", json={"text": "a"}, headers={"Host": host}), 421)
    assert (await site.client.post("/hooks/slack", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost:8000.evil.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_another_site_cannot_speak_here_but_a_hook_is_not_asked(site: Site, headers: dict[str, str]) -> None:
    headers = {"Host": "localhost:8000", **headers}
    await refusal(await site.client.post("/api/chat", json={"text": "a"}, headers=headers), 403)
    await refusal(await site.raw(form(part("text", b"a")), FORM, **headers), 403)
    assert not site.house.taken
    assert await (await site.client.post("/hooks/slack", headers=headers)).text() == "signed"


async def test_the_pages_own_requests_pass(site: Site) -> None:
    for origin in ("http://localhost:8000", "https://localhost:8000"):
        headers = {"Host": "localhost:8000", "Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert (await site.client.post("/api/chat", json={"text": "a"}, headers=headers)).status == 202


async def test_every_answer_has_the_headers_that_make_a_script_inert_and_hooks_are_left_alone(site: Site) -> None:
    shown = site.house.shown(1)
    paths = ["/", "/page/app.js", "/page/style.css", "/nowhere", "/api/loras", f"/pictures/{shown.sha256}.png"]
    for path in [*paths, "/api/loras/inky/preview.png", f"/api/chat/{CHAT}/events"]:
        async with site.client.get(path) as response:
            assert {name: response.headers.get(name) for name in HEADERS} == HEADERS, path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert not HEADERS.keys() & (await site.client.post("/hooks/slack")).headers.keys()


async def test_the_page_has_no_script_or_style_of_its_own_and_nothing_from_elsewhere(site: Site) -> None:
    page = await (await site.client.get("/")).text()
    script = await (await site.client.get("/page/app.js")).text()
    style = await (await site.client.get("/page/style.css")).text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=\"/page/app.js\"></script>)", page)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser", script)
    assert not re.search(r"url\(|@import", style)
    assert 'data-max-files="40" data-max-bytes="80000000"' in page


async def test_nothing_but_the_two_assets_is_served(site: Site) -> None:
    for path in ("index.html", "../web.py", "..%2fweb.py", "%2e%2e/web.py", "app.js%00", "app.js/", ".", "%ff"):
        response = await site.client.get(f"/page/{path}")
        assert response.status == 404, path
    await refusal(await site.client.get("/page/web.py"), 404)
    response = await site.client.put("/api/chat")
    assert response.headers["Allow"] == "POST"
    await refusal(response, 405)


# --- events


async def test_a_page_hears_a_message_its_progress_and_its_answer_in_order(site: Site) -> None:
    shown = site.house.shown(3)
    async with listening(site) as page, listening(site) as other, listening(site, OTHER) as stranger:
        for one in (page, other, stranger):
            assert await one.past() == []
        await site.say(id="m1", text="a fox")
        to = inbound()
        queued = Stage(stage="queued", step=0, steps=0, place=3, left=12.0)
        assert await site.door.post(to, Reply(text="waiting", progress=queued), None) is None
        heard = [await page.next() for _ in range(2)]
        drawing = Stage(stage="drawing", step=3, steps=12, preview=b"\x89PNG", samples=(b"a", b"b"), loss=float("nan"))
        await site.door.post(to, Reply(text="drawing", progress=drawing), None)
        heard.append(await page.next())
        reply = Reply(text="Here it is.", intent="draw", pictures=(shown,), actions=("vary", "why"))
        await site.door.post(to, reply, None)
        heard.append(await page.next())
        assert [await other.next() for _ in range(4)] == heard
        await site.door.post(inbound(chat=OTHER), Reply(text="for the stranger"), None)
        assert [(await stranger.next())[1]["key"] for _ in range(2)] == [f"web:{OTHER}.m1"] * 2
    check_heard(heard, shown.recipe)
    picture = heard[3][1]["pictures"][0]
    assert (picture["url"], picture["seed"], picture["width"]) == (f"/pictures/{shown.sha256}.png", 3, 64)
    response = await site.client.get(picture["url"])
    assert (response.status, response.content_type, await response.read()) == (200, "image/png", png(3))
    assert "immutable" in response.headers["Cache-Control"]


def check_heard(heard: list[tuple[str, dict[str, Any]]], recipe: dict[str, Any]) -> None:
    assert [kind for kind, _ in heard] == ["message", "progress", "progress", "reply"]
    assert {data["key"] for _, data in heard} == {f"web:{CHAT}.m1"}
    assert heard[0][1] == {"key": f"web:{CHAT}.m1", "text": "a fox", "files": [], "press": None}
    assert (heard[1][1]["stage"], heard[1][1]["place"], heard[1][1]["left"]) == ("queued", 3, 12.0)
    assert heard[1][1]["preview"] is None
    assert heard[2][1]["preview"] == "data:image/png;base64,iVBORw=="
    assert heard[2][1]["samples"] == ["data:image/png;base64,YQ==", "data:image/png;base64,Yg=="]
    assert heard[2][1]["loss"] is None
    assert heard[3][1]["actions"] == ["vary", "why"]
    assert heard[3][1]["pictures"][0]["recipe"] == recipe
    assert "/secret" not in json.dumps(heard)


async def test_the_past_comes_first_and_what_is_said_while_it_is_read_comes_after_it(opening: Opening) -> None:
    class Slow(FakeHouse):
        reads = asyncio.Event()
        may_end = asyncio.Event()

        async def past(self, thread: str) -> tuple[Said, ...]:
            said = await super().past(thread)
            self.reads.set()
            await self.may_end.wait()
            return said

    house = Slow()
    site = await opening(house)
    await site.say(id="m1", text="a fox")
    await site.say(id="m2", text="a mug")
    house.answers[f"web:{CHAT}.m1"] = Reply(text="A fox.")
    opened = asyncio.create_task(site.client.get(f"/api/chat/{CHAT}/events"))
    await house.reads.wait()
    await site.door.post(inbound("m2", text="a mug"), Reply(text="A mug."), None)
    await site.say(id="m3", text="a cat")
    house.may_end.set()
    async with await opened as response:
        page = Listener(response)
        heard = [await page.next("ready") for _ in range(3)]
        while heard[-1][1].get("text") != "a cat":
            heard.append(await page.next("ready"))
    final: dict[tuple[str, str], str] = {(kind, data["key"][-2:]): data["text"] for kind, data in heard}
    assert final == {
        ("message", "m1"): "a fox",
        ("reply", "m1"): "A fox.",
        ("message", "m2"): "a mug",
        ("reply", "m2"): "A mug.",
        ("message", "m3"): "a cat",
    }
    assert [data["text"] for _, data in heard][:3] == ["a fox", "A fox.", "a mug"]


async def test_a_page_that_comes_back_in_the_middle_sees_how_far_the_job_is(site: Site) -> None:
    await site.say(id="m1", text="a fox")
    for step in (1, 5):
        await site.door.post(inbound(), Reply(text="", progress=Stage(stage="drawing", step=step, steps=12)), None)
    async with listening(site) as page:
        assert [(kind, data.get("step")) for kind, data in await page.past()] == [("message", None), ("progress", 5)]


async def test_an_answer_that_the_house_has_not_kept_yet_is_told_all_the_same(site: Site) -> None:
    await site.say(id="m1", text="a fox")
    await site.door.post(inbound(), Reply(text="A fox."), None)
    async with listening(site) as page:
        assert [data["text"] for _, data in await page.past()] == ["a fox", "A fox."]


async def test_over_many_reconnects_nothing_is_lost_and_each_key_has_one_answer(site: Site) -> None:
    """R32: a page that drops again and again, while answers come, has in the end what one has that stayed."""
    kept: dict[tuple[str, str], str] = {}

    async def work() -> None:
        for n in range(60):
            await site.say(id=f"m{n}", text=f"say {n}")
            reply = Reply(text=f"said {n}")
            site.house.answers[f"web:{CHAT}.m{n}"] = reply
            await site.door.post(inbound(f"m{n}", text=f"say {n}"), reply, None)

    working = asyncio.create_task(work())
    while len(kept) < 120:
        async with listening(site) as page:
            enough = min(120, len(kept) + 7)
            while len(kept) < enough:
                kind, data = await page.next("ready")
                assert kept.setdefault((kind, data["key"]), data["text"]) == data["text"]
    await working
    assert {text for (kind, _), text in kept.items() if kind == "reply"} == {f"said {n}" for n in range(60)}


async def test_the_end_of_a_training_has_every_page_read_the_shelf_again(site: Site) -> None:
    lora = NewLora(name="pip", kind="character", trigger="pqx", folder="/secret/loras/pip")  # pyright: ignore
    async with listening(site) as page, listening(site, OTHER) as other:
        await page.past()
        await other.past()
        await site.door.post(inbound(), Reply(text="Learnt.", lora=lora), None)
        heard = [await page.next() for _ in range(3)]
        assert [kind for kind, _ in heard] == ["message", "reply", "shelf"]
        assert heard[1][1]["lora"] == {"name": "pip", "kind": "character", "trigger": "pqx"}
        assert (await other.next())[0] == "shelf"


async def test_an_error_has_its_hint_and_names_that_are_scripts_are_data(site: Site) -> None:
    trouble = Trouble(code="unknown_lora", message=SCRIPT, hint="Look at the shelf.", incident="ab12")
    site.house.loras = [LORAS[0].model_copy(update={"title": SCRIPT, "summary": SCRIPT})]
    async with listening(site) as page:
        await page.past()
        await site.say(id="m1", text=SCRIPT)
        await site.door.post(inbound(text=SCRIPT), Reply(text=f"{SCRIPT}\r\n\r\nevent: x\u2028", error=trouble), None)
        assert (await page.next())[1]["text"] == SCRIPT
        kind, data = await page.next()
    assert kind == "reply"
    assert data["error"] == trouble.model_dump()
    assert data["text"] == f"{SCRIPT}\r\n\r\nevent: x\u2028"
    response = await site.client.get("/api/loras")
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (await response.json())[0]["title"] == SCRIPT


async def test_a_stream_pings_and_one_too_many_is_told_when_to_come_again(opening: Opening) -> None:
    site = await opening(ping_seconds=0.05, max_tabs=1)
    async with listening(site) as page:
        await page.past()
        async with asyncio.timeout(5):
            assert await page.response.content.readuntil(b"\n\n") == b": ping\n\n"
        response = await site.client.get(f"/api/chat/{CHAT}/events")
        await refusal(response, 429)
        assert int(response.headers["Retry-After"]) > 0


async def test_a_page_that_left_is_forgotten(opening: Opening) -> None:
    site = await opening(ping_seconds=0.02)
    for _ in range(3):
        async with listening(site) as page:
            await page.past()
            page.response.close()
    async with asyncio.timeout(5):
        while site.door._tabs:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.01)
    await site.door.post(inbound(), Reply(text="to nobody"), None)


async def test_a_page_that_does_not_read_is_dropped_and_the_others_hear_everything(opening: Opening) -> None:
    site = await opening(max_waiting=20)
    assert site.client.port
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.port, limit=1_000)
    writer.write(f"GET /api/chat/{CHAT}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"ready")
    async with listening(site) as page:
        await page.past()
        for n in range(150):
            await site.door.post(inbound(f"m{n}"), Reply(text="x" * 100_000), None)
            assert [(await page.next())[0] for _ in range(2)] == ["message", "reply"]
        assert len(site.door._tabs[CHAT]) == 1  # pyright: ignore[reportPrivateUsage]
    writer.close()


async def test_a_tab_keeps_the_latest_progress_with_the_latest_picture_and_is_dropped_when_full() -> None:
    dropped: list[bool] = []
    tab = Tab(2, lambda: dropped.append(True))
    for step, preview in ((1, None), (2, "data:old"), (3, None)):
        tab.put(Event("progress", "k", {"step": step, "preview": preview, "samples": []}))
    assert await tab.get() == Event("progress", "k", {"step": 3, "preview": "data:old", "samples": []})
    tab.put(Event("reply", "k", {}))
    tab.put(Event("reply", "l", {}))
    assert not dropped
    tab.put(Event("reply", "m", {}))
    assert dropped
    tab.close()
    assert [await tab.get() for _ in range(3)][-1] is None


async def test_a_server_that_ends_does_not_wait_for_its_pages(opening: Opening) -> None:
    site = await opening()
    async with listening(site) as page:
        await page.past()
        async with asyncio.timeout(5):
            await site.client.server.close()
            assert await page.response.content.read() == b""


async def test_the_id_of_a_conversation_is_long_or_there_is_no_such_place(site: Site) -> None:
    for chat in ("short", "c" * 65, "c" * 30 + "%2f..", "c" * 30 + "%00"):
        assert (await site.client.get(f"/api/chat/{chat}/events")).status == 404


# --- pictures and the shelf


async def test_a_picture_that_is_not_ours_is_not_found(site: Site) -> None:
    for name in ("0" * 64, "0" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd", "0" * 64 + "%00"):
        await refusal(await site.client.get(f"/pictures/{name}.png"), 404)


async def test_a_file_that_is_sent_is_a_download(site: Site) -> None:
    sent = Sent(name="inky.safetensors", file=Path("/secret/inky.safetensors"), sha256="ab" * 32, size=4)
    site.house.files[sent.sha256] = b"LORA"
    (told,) = reply_event(inbound(), Reply(text="Here.", files=(sent,))).data["files"]
    assert told == {"name": "inky.safetensors", "size": 4, "url": f"/files/{sent.sha256}/inky.safetensors"}
    response = await site.client.get(told["url"])
    assert (response.status, await response.read()) == (200, b"LORA")
    assert response.headers["Content-Disposition"] == 'attachment; filename="inky.safetensors"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.content_type == "application/octet-stream"


async def test_a_file_that_is_not_sent_or_has_another_name_is_not_found(site: Site) -> None:
    site.house.files["ab" * 32] = b"LORA"
    for name in ("x.html", "X.safetensors", "a%22b.json", "..%2Fx.json", "x.safetensors%0d%0aA:b.json"):
        await refusal(await site.client.get(f"/files/{'ab' * 32}/{name}"), 404)
    for sha in ("cd" * 32, "AB" * 32, "..", "ab"):
        await refusal(await site.client.get(f"/files/{sha}/x.json"), 404)


async def test_the_shelf_has_previews_and_a_lora_its_training_pictures(site: Site) -> None:
    shelf = await (await site.client.get("/api/loras")).json()
    assert [{**lora, "preview": None} for lora in shelf] == [{**one.model_dump(), "preview": None} for one in LORAS]
    details = await (await site.client.get("/api/loras/inky")).json()
    assert details.items() >= shelf[1].items()
    assert len(details["pictures"]) == 4
    for url, data in zip(
        [shelf[1]["preview"], *details["pictures"]],
        [site.house.preview("inky"), *site.house.training_pictures("inky")],
        strict=True,
    ):
        response = await site.client.get(url)
        assert (response.content_type, await response.read()) == ("image/png", data)


async def test_only_a_name_on_the_shelf_reaches_the_house(opening: Opening) -> None:
    class Strict(FakeHouse):
        def preview(self, name: str) -> bytes | None:
            assert name in {lora.name for lora in self.loras}
            return None

        def training_pictures(self, name: str) -> tuple[bytes, ...]:
            assert name in {lora.name for lora in self.loras}
            return ()

    site = await opening(Strict())
    for name in ("nobody", "..%2f..%2fetc", "%00", "%ff", "a" * 5_000, "%3Cscript%3E"):
        for rest in ("", "/preview.png", "/pictures/0.png"):
            await refusal(await site.client.get(f"/api/loras/{name}{rest}"), 404)
    for path in ("preview.png", "pictures/0.png", "pictures/9999.png", "pictures/-1.png", "pictures/99999.png"):
        await refusal(await site.client.get(f"/api/loras/inky/{path}"), 404)
    assert [lora["preview"] for lora in await (await site.client.get("/api/loras")).json()] == [None] * 3


async def test_the_door_runs_nothing(site: Site) -> None:
    await asyncio.wait_for(site.door.run(), 1)
