"""Slack as our side sees it: the Web API, the upload host, the files of people, and the socket of Socket Mode.

It does what it is told only where a test says so: `fail` for a call, `Kept` for a file. `screen` is what people see.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

TEAM, ME, BOT = "T1", "UBOT", "B1"
LIMIT = 10  # seconds after which what is waited for does not come


@dataclass
class Call:
    """One request: its method, its arguments whichever way they came, and the token that it came with."""

    method: str
    args: dict[str, Any]
    token: str


@dataclass
class Failure:
    """What answers a call in place of the right answer. `after`: it is done all the same, and only its answer lost."""

    status: int = 200
    error: str = ""
    retry_after: int | None = None
    after: bool = False
    drop: bool = False


@dataclass
class Kept:
    """A person's file. `gate` keeps it back; `login` is the page that stands in for it without files:read."""

    data: bytes
    mimetype: str = "image/png"
    login: bool = False
    redirect: str = ""
    statuses: list[int] = field(default_factory=list)
    gate: asyncio.Event | None = None


class FakeSlack:
    """`async with FakeSlack() as slack`. Lists and dicts are its memory, to be read by tests."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.messages: dict[tuple[str, str], dict[str, Any]] = {}  # by channel and ts
        self.uploads: dict[str, dict[str, Any]] = {}
        self.files: dict[str, Kept] = {}
        self.infos: dict[str, dict[str, Any]] = {}
        self.fetched: list[tuple[str, str | None]] = []  # name of the file, and the Authorization it came with
        self.acks: list[str] = []
        self.log: list[str] = []  # in which order things happened
        self.sockets: list[web.WebSocketResponse] = []
        self._failures: dict[str, list[Failure]] = {}
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self.host = ""

    async def __aenter__(self) -> "FakeSlack":
        app = web.Application(client_max_size=64_000_000)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_post("/upload/{id}", self._upload)
        app.router.add_get("/files/{name}", self._file)
        app.router.add_get("/socket", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets:
            await socket.close()
        assert self._runner
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}/api/"

    # What tests say.

    def fail(self, method: str, times: int = 1, **how: Any) -> None:
        """The next `times` calls of `method` fail; see `Failure`."""
        self._failures.setdefault(method, []).extend([Failure(**how)] * times)

    def keep(self, name: str, data: bytes = b"picture", **how: Any) -> dict[str, Any]:
        """A file of a person; returns it as it stands in an event."""
        self.files[name] = Kept(data, **how)
        return {
            "id": f"F{name}",
            "name": name,
            "mimetype": self.files[name].mimetype,
            "size": len(data),
            "url_private_download": f"http://{self.host}/files/{name}",
        }

    async def event(self, event: dict[str, Any], **envelope: Any) -> str:
        """Send it; returns the envelope's id, which `acked` waits for."""
        number = next(self._numbers)
        payload = {"type": "event_callback", "team_id": TEAM, "event_id": f"Ev{number}", "event": event}
        return await self.envelope("events_api", payload, **envelope)

    async def press(self, value: str, user: str = "U1", **where: Any) -> str:
        """A button pressed under our message 2.0 in the thread 1.0 of C1, or `where` it is."""
        payload = {
            "type": "block_actions",
            "user": {"id": user, "team_id": TEAM},
            "team": {"id": TEAM},
            "channel": {"id": "C1"},
            "message": {"ts": "2.0", "thread_ts": "1.0"},
            "actions": [
                {"type": "button", "action_id": "cancel-0", "block_id": "b", "value": value, "action_ts": "3.0"}
            ],
        }
        return await self.envelope("interactive", payload | where)

    async def envelope(self, kind: str, payload: dict[str, Any], **more: Any) -> str:
        id = f"envelope-{next(self._numbers)}"
        await self.sockets[-1].send_json({"type": kind, "envelope_id": id, "payload": payload, **more})
        return id

    async def disconnect(self) -> None:
        await self.sockets[-1].send_json({"type": "disconnect", "reason": "refresh_requested"})

    async def until(self, holds: Callable[[], object]) -> None:
        """Return when `holds()`; an error if it does not within `LIMIT`."""
        async with asyncio.timeout(LIMIT):
            while not holds():
                await asyncio.sleep(0.002)

    async def acked(self, envelope: str) -> None:
        await self.until(lambda: envelope in self.acks)

    async def connected(self, times: int = 1) -> None:
        await self.until(lambda: len(self.sockets) >= times)

    # What people see.

    def screen(self, channel: str, thread: str) -> list[str]:
        """The replies of a thread, from the oldest: texts, and names of files in brackets."""
        said = [(m["order"], m) for (where, _), m in self.messages.items() if where == channel]
        return [_shown(m) for _, m in sorted(said, key=lambda one: one[0]) if m["thread_ts"] == thread]

    def called(self, method: str) -> list[dict[str, Any]]:
        return [call.args for call in self.calls if call.method == method]

    # What Slack does.

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method, args = request.match_info["method"], dict(request.query)
        if request.content_type == "application/json":
            args |= await request.json()
        else:
            args |= {name: str(value) for name, value in (await request.post()).items()}
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.calls.append(Call(method, args, token))
        self.log.append(method)
        failures = self._failures.get(method)
        failure = failures.pop(0) if failures else None
        if failure and not failure.after:
            return _failed(failure, request)
        answer = {"ok": True} | getattr(self, "_" + method.replace(".", "_"))(args)
        return _failed(failure, request) if failure else web.json_response(answer)

    def _auth_test(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"team_id": TEAM, "user_id": ME, "bot_id": BOT, "team": "Team", "user": "atelier", "url": "https://t/"}

    def _apps_connections_open(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"ws://{self.host}/socket?ticket=TICKET"}

    def _chat_postMessage(self, args: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        ts = f"1000.{number:06}"
        self.messages[args["channel"], ts] = {**args, "ts": ts, "order": number, "user": ME}
        return {"channel": args["channel"], "ts": ts}

    def _chat_update(self, args: dict[str, Any]) -> dict[str, Any]:
        message = self.messages.get((args["channel"], args["ts"]))
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        message.update(args)
        return {"channel": args["channel"], "ts": args["ts"]}

    def _conversations_replies(self, args: dict[str, Any]) -> dict[str, Any]:
        inside = [m for (c, _), m in self.messages.items() if c == args["channel"] and m["thread_ts"] == args["ts"]]
        return {"messages": [{"ts": args["ts"], "text": "", "user": "U1"}, *inside], "has_more": False}

    def _files_getUploadURLExternal(self, args: dict[str, Any]) -> dict[str, Any]:
        id = f"F{next(self._numbers)}"
        self.uploads[id] = {"id": id, "name": args["filename"], "alt_txt": args.get("alt_txt"), "data": b""}
        return {"file_id": id, "upload_url": f"http://{self.host}/upload/{id}"}

    async def _upload(self, request: web.Request) -> web.Response:
        self.uploads[request.match_info["id"]]["data"] = await request.read()
        return web.Response(text="OK")

    def _files_completeUploadExternal(self, args: dict[str, Any]) -> dict[str, Any]:
        number, shared = next(self._numbers), [self.uploads[file["id"]] for file in json.loads(args["files"])]
        ts = f"1000.{number:06}"
        self.messages[args["channel_id"], ts] = {
            "ts": ts,
            "order": number,
            "text": "",
            "thread_ts": args.get("thread_ts"),
            "files": [{"id": file["id"], "name": file["name"]} for file in shared],
        }
        return {"files": [{"id": file["id"]} for file in shared]}

    def _files_info(self, args: dict[str, Any]) -> dict[str, Any]:
        found = self.infos.get(args["file"])
        return {"file": found} if found else {"ok": False, "error": "file_not_found"}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        kept = self.files[name]
        self.fetched.append((name, request.headers.get("Authorization")))
        if kept.gate:
            await kept.gate.wait()
        if kept.statuses:
            return web.Response(status=kept.statuses.pop(0))
        if kept.redirect:
            return web.Response(status=302, headers={"Location": kept.redirect})
        if kept.login:
            return web.Response(text="<!DOCTYPE html><title>Sign in</title>", content_type="text/html")
        return web.Response(body=kept.data, content_type=kept.mimetype)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": 1})
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                id = json.loads(message.data)["envelope_id"]
                self.acks.append(id)
                self.log.append(f"ack {id}")
        return socket


def _failed(failure: Failure, request: web.Request) -> web.StreamResponse:
    if failure.drop:
        assert request.transport
        request.transport.abort()
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    status = 429 if headers else failure.status
    error = failure.error or ("ratelimited" if headers else "internal_error")
    return web.json_response({"ok": False, "error": error}, status=status, headers=headers)


def _shown(message: dict[str, Any]) -> str:
    return " ".join([message["text"], *(f"[{file['name']}]" for file in message.get("files", []))]).strip()
