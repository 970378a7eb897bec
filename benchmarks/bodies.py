"""Bodies that must be refused, at the doors of a running service: `python -m benchmarks.bodies --url URL --hook NAME`.

Without --url it serves the two doors itself, in a process of its own, over an inbox that takes everything. Half of the
bodies go to POST /hooks/NAME, half to POST /api/chat, over keep-alive connections. Exit code 1 if one was accepted
(2xx) or answered with 5xx, or if a door never spoke. With --secret (whsec_…, of that hook) the bodies that a bit is
flipped in, or that come twice, late or malformed, are otherwise real ones; without it a secret of nobody signs them.
"""

import argparse
import asyncio
import base64
import contextlib
import datetime
import gzip
import json
import logging
import multiprocessing
import os
import platform
import random
import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from bot.message import Inbound
from bot.platforms import web as page
from bot.platforms import webhook
from tests.fakes.house import FakeHouse

PATIENCE = 10  # seconds for one answer
DEEP = b"[" * 100_000
BOMB = gzip.compress(bytes(20_000_000))  # 20 kB
LATE = 301  # seconds
DOORS = ("/hooks", "/api/chat")
Pairs = list[tuple[bytes, bytes]]
JUNK_TIMES = (b"", b"abc", b"1e9", b"-1", b"9" * 400, b"nan", b"0x10", b"1700000000.5", b"\xd9\xa1", b"0" * 300)
JUNK_SIGNATURES = (b"garbage", b"v1,zzz", b"v1", b"", b"\xff\xfe", b"v1,\xc3\xbc", b"v1," + b"A" * 5000, b"v1,A " * 900)
MALFORMED = (
    b"",
    b"null",
    b"[]",
    b'{"text": 3}',
    b'{"text": "a"',
    b'{"text": ["a"]}',
    b'{"text": "\\ud800"}',
    b'{"text": "a\\u0000"}',
    b'{"text": "\xff\xfe"}',
    b'{"text": "\xc3"}',
    b'{"text": "a", "text": 3}',
    b"{'text': 'a'}",
    b'{"text": 1e400}',
    b'{"text": ' + b"9" * 5000 + b"}",
    b'{"text": "a", "z": ' + DEEP,
    DEEP,
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request as sent. `is_last`: nothing may follow on its connection; `is_cut`: the rest of it does not come."""

    kind: str
    sent: bytes
    is_last: bool = False
    is_cut: bool = False


@dataclass
class Target:
    host: str
    port: int
    hook: str
    key: bytes
    dice: random.Random

    def request(self, path: str, headers: Pairs, body: bytes, length: bytes | None = None) -> bytes:
        named = {name.lower() for name, _ in headers}
        lines = [b"POST %b HTTP/1.1" % path.encode()]
        if b"host" not in named:
            lines.append(b"Host: %b:%d" % (self.host.encode(), self.port))
        if b"transfer-encoding" not in named:
            lines.append(b"Content-Length: " + (length if length is not None else b"%d" % len(body)))
        lines += [b"%b: %b" % header for header in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def signed(self, body: bytes, age: int = 0) -> Pairs:
        letter_id = b"msg_" + secrets.token_hex(8).encode()
        when = b"%d" % (int(time.time()) - age)
        names = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
        return list(zip(names, (letter_id, when, webhook.sign(self.key, letter_id, when, body)), strict=True))

    def a_body(self) -> bytes:
        return json.dumps({"text": f"draw fox {self.dice.random()}", "person": "ada"}).encode()

    def flipped(self, data: bytes) -> bytes:
        bits = bytearray(data)
        bits[self.dice.randrange(len(bits))] ^= 1 << self.dice.randrange(8)
        return bytes(bits)


def hook_shots(to: Target) -> dict[str, Callable[[], Shot]]:
    """By kind, each of which makes one anew: what POST /hooks/NAME must refuse."""
    path, dice = f"/hooks/{to.hook}", to.dice

    def plain(kind: str, headers: Pairs, body: bytes, path: str = path) -> Shot:
        return Shot(kind, to.request(path, headers, body))

    def changed(kind: str, which: int, value: bytes) -> Shot:
        body = to.a_body()
        headers = to.signed(body)
        headers[which] = (headers[which][0], value)
        return Shot(kind, to.request(path, headers, body), is_last=b"\0" in value)

    def packed() -> Shot:
        headers = [*to.signed(BOMB), (b"Content-Encoding", dice.choice((b"gzip", b"deflate", b"br", b"GZIP, gzip")))]
        return Shot("gzip bomb", to.request(path, headers, BOMB), is_last=True)

    return {
        "unsigned": lambda: plain("unsigned", [], to.a_body()),
        "malformed": lambda: plain("malformed", [], dice.choice(MALFORMED)),
        "junk time": lambda: changed("junk time", 1, dice.choice(JUNK_TIMES)),
        "junk signature": lambda: changed("junk signature", 2, dice.choice(JUNK_SIGNATURES)),
        "junk id": lambda: changed("junk id", 0, dice.choice((b"", b"a.b", b"\xff", b"x" * 900, b"a b"))),
        "nul": lambda: changed("nul", dice.randrange(3), b"a\0b"),
        "no such hook": lambda: plain("no such hook", to.signed(b"{}"), b"{}", "/hooks/%00" + secrets.token_hex(4)),
        "gzip bomb": packed,
        "wrong length": lambda: wrong_length(to, path, to.signed(b"{}")),
        **spoiled_shots(to, path),
    }


def spoiled_shots(to: Target, path: str) -> dict[str, Callable[[], Shot]]:
    """Messages as a sender would sign them, but for one thing."""
    dice = to.dice

    def flipped() -> Shot:
        body, which = to.a_body(), dice.randrange(4)
        headers = to.signed(body)
        if which == 3:
            return Shot("flipped bit", to.request(path, headers, to.flipped(body)))
        headers[which] = (headers[which][0], to.flipped(headers[which][1]))
        return Shot("flipped bit", to.request(path, headers, body), is_last=True)  # it may have become a line's end

    def twice() -> Shot:
        body = to.a_body()
        headers = to.signed(body)
        return Shot("header twice", to.request(path, [*headers, dice.choice(headers)], body))

    def late() -> Shot:
        body = to.a_body()
        headers = to.signed(body, dice.choice((LATE, -LATE - PATIENCE, 10**6)))
        return Shot("late or early", to.request(path, headers, body))

    def malformed() -> Shot:
        body = dice.choice(MALFORMED)
        return Shot("signed, malformed", to.request(path, to.signed(body), body))

    def truncated() -> Shot:
        body = to.a_body()
        return Shot("truncated", to.request(path, to.signed(body), body[: dice.randrange(len(body))]))

    return {f"signed, {shot.__name__}": shot for shot in (flipped, twice, late, malformed, truncated)}


def wrong_length(to: Target, path: str, headers: Pairs) -> Shot:
    """A length that is too large, junk, or said twice; or chunks that are none."""
    kind, body = "wrong length", b'{"text": 1}'
    if to.dice.random() < 0.3:
        chunks = to.dice.choice((b"zz\r\n\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n", b"f" * 20 + b"\r\n"))
        return Shot(kind, to.request(path, [*headers, (b"Transfer-Encoding", b"chunked")], chunks), is_last=True)
    length = to.dice.choice((b"500", b"999999999999", b"-1", b"1e3", b"", b"11\r\nContent-Length: 12", b"9" * 400))
    return Shot(kind, to.request(path, headers, body, length), is_last=True, is_cut=length == b"500")


def chat_shots(to: Target) -> dict[str, Callable[[], Shot]]:
    """What POST /api/chat must refuse: a plain message is none of these."""
    dice, path, good = to.dice, "/api/chat", b'{"text": "draw a fox"}'
    is_json = (b"Content-Type", b"application/json")
    sites = ((b"Sec-Fetch-Site", b"cross-site"), (b"Origin", b"http://evil.example"), (b"Origin", b"null"))
    hosts = (b"evil.example", b"127.0.0.1.evil.example", b"169.254.169.254", b"", b"a b", b"\xff", b"[::1")
    types = (b"text/plain", b"", b"application/x-www-form-urlencoded", b"application/json5", b"\xff", b"image/png")
    wrong = (b'{"text": 3}', b'{"text": "a", "chat": 1}', b'{"text": "a", "chat": "../x"}', b'{"text": "a", "id": [1]}')
    form = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\na'

    def plain(kind: str, headers: Pairs, body: bytes = good) -> Shot:
        return Shot(kind, to.request(path, headers, body))

    def long_id() -> Shot:
        field = dice.choice(("id", "chat"))
        return plain(
            "long id", [is_json], json.dumps({"text": "a", field: "x" * dice.choice((65, 5000, 90_000))}).encode()
        )

    def packed() -> Shot:
        headers = [is_json, (b"Content-Encoding", dice.choice((b"gzip", b"deflate", b"br")))]
        return Shot("gzip bomb", to.request(path, headers, BOMB), is_last=True)

    return {
        "malformed": lambda: plain("malformed", [is_json], dice.choice(MALFORMED)),
        "truncated": lambda: plain("truncated", [is_json], good[: dice.randrange(len(good))]),
        "wrong type": lambda: plain("wrong type", [is_json], dice.choice(wrong)),
        "wrong content type": lambda: plain("wrong content type", [(b"Content-Type", dice.choice(types))]),
        "another site": lambda: plain("another site", [is_json, dice.choice(sites)]),
        "another host": lambda: plain("another host", [is_json, (b"Host", dice.choice(hosts))]),
        "two hosts": lambda: plain("two hosts", [is_json, (b"Host", b"localhost"), (b"Host", b"127.0.0.1")]),
        "long id": long_id,
        "broken form": lambda: plain("broken form", [(b"Content-Type", b"multipart/form-data; boundary=x")], form),
        "gzip bomb": packed,
        "wrong length": lambda: wrong_length(to, path, [is_json]),
    }


@dataclass
class Tally:
    """`statuses`: by door and status, 0 for none; `seconds`: of each answer; `silent`: whole requests without one."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {door: [] for door in DOORS})
    wrong: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    silent: int = 0

    def add(self, door: str, shot: Shot, status: int, seconds: float) -> None:
        self.statuses[door, status] += 1
        if status:
            self.seconds[door].append(seconds)
        elif not shot.is_cut:
            self.silent += 1
        if 200 <= status < 300 or status >= 500:
            self.wrong[door, shot.kind, status] += 1


class Line:
    """One connection, opened anew whenever the last one ended."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, shot: Shot) -> tuple[int, float]:
        """The status, or 0 where none came; and the seconds until the answer was whole."""
        reader, writer = self.pair or await asyncio.open_connection(self.host, self.port)
        self.pair = reader, writer
        started, status, stays = time.perf_counter(), 0, False
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(shot.sent)
                if shot.is_cut:
                    writer.write_eof()
                status, stays = await self._answer(reader)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        seconds = time.perf_counter() - started
        if shot.is_last or not stays:
            self.close()
        return status, seconds

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status, length = int(head.split()[1]), 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        await reader.readexactly(length)
        return status, b"connection: close" not in head and b"http/1.0" not in head

    def close(self) -> None:
        if self.pair:
            self.pair[1].transport.abort()
        self.pair = None


async def fire(to: Target, count: int, lines: int, tally: Tally) -> None:
    """`count` shots over `lines` connections: the doors and their kinds in turn."""
    by_door = dict(zip(DOORS, (hook_shots(to), chat_shots(to)), strict=True))
    numbers = iter(range(count))

    async def one(line: Line) -> None:
        for number in numbers:
            door = DOORS[number % len(DOORS)]
            kinds = list(by_door[door])
            shot = by_door[door][kinds[number // len(DOORS) % len(kinds)]]()
            tally.add(door, shot, *await line.ask(shot))
        line.close()

    await asyncio.gather(*(one(Line(to.host, to.port)) for _ in range(lines)))


def rss(pid: int | None) -> float | None:
    """Megabytes of a process, where /proc has it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines() if pid else []
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000
    return None


async def watched(pid: int | None, peak: list[float]) -> None:
    while (now := rss(pid)) is not None:
        peak.append(now)
        await asyncio.sleep(0.2)


async def take(inbound: Inbound, hold: float = 0.0) -> bool:  # noqa: ARG001
    return True


def serve(hook: str, secret: str, tell: Connection) -> None:
    """Both doors at a port of the loopback, which is told; until killed."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it tells each request that is no HTTP at length

    async def run() -> None:
        site = web.Application()
        hooks = {hook: {"secrets": [secret], "reply_url": "http://127.0.0.1:9/"}}
        page.open_door(page.Settings(), FakeHouse(())).mount(site, take)
        webhook.open_door(webhook.Settings.model_validate({"hooks": hooks}), FakeHouse(())).mount(site, take)
        runner = web.AppRunner(site, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tell.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def served(args: argparse.Namespace) -> Iterator[tuple[str, int | None]]:
    """The URL and the process to look at: those that are given, or of a service of our own."""
    if args.url:
        yield args.url, args.pid
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(args.hook, args.secret, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv() if ours.poll(60) else sys.exit('it does not start')}", process.pid
    finally:
        process.kill()


def machine() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs"
    return f"{platform.machine()}, {os.cpu_count()} CPUs"


def report(tally: Tally, seconds: float, memory: list[float]) -> bool:
    """Print the figures; whether all was refused, and each door spoke."""
    print(
        f"{datetime.date.today()} · {machine()} · Python {platform.python_version()}, aiohttp {aiohttp.__version__}; "
        "client on the same machine"
    )
    total = tally.statuses.total()
    print(f"{total} bodies in {seconds:.1f} s: {total / seconds:.0f} a second")
    for door in DOORS:
        counts = {status or "no answer": n for (of, status), n in sorted(tally.statuses.items()) if of == door}
        print(f"  {door}: {', '.join(f'{status} × {n}' for status, n in counts.items())}")
        if len(tally.seconds[door]) > 1:
            cuts = statistics.quantiles(tally.seconds[door], n=100)
            print(f"    answered in: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms")
    accepted, faults = (
        sum(n for (_, _, status), n in tally.wrong.items() if status // 100 in hundreds)
        for hundreds in ((2,), range(5, 10))
    )
    print(f"accepted (2xx): {accepted}; 5xx: {faults}; whole requests without an answer: {tally.silent}")
    for (door, kind, status), count in tally.wrong.items():
        print(f"  WRONG: {door}, {kind}: {status} × {count}")
    if memory:
        after, most = memory[-1] - memory[0], max(memory) - memory[0]
        print(f"memory of the service: {memory[0]:.0f} MB, {after:+.0f} MB after, {most:+.0f} MB at most")
    return not tally.wrong and all(tally.seconds.values())


async def measure(url: str, pid: int | None, args: argparse.Namespace) -> bool:
    parts = urlsplit(url)
    key = webhook.Hook.model_validate({"secrets": [args.secret], "reply_url": url}).keys[0]
    to = Target(parts.hostname or "127.0.0.1", parts.port or 80, args.hook, key, random.Random(args.seed))
    tally, memory = Tally(), [now] if (now := rss(pid)) else []
    watch = asyncio.ensure_future(watched(pid, memory))
    started = time.perf_counter()
    await fire(to, args.count, args.connections, tally)
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.5)
    watch.cancel()
    return report(tally, seconds, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--url", help="of a running service, such as http://127.0.0.1:8765")
    parser.add_argument("--hook", default="bench", help="the name of a hook of that service")
    parser.add_argument("--secret", default=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    parser.add_argument("--pid", type=int, help="the service's process, to watch its memory")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with served(args) as (url, pid):
        try:
            sys.exit(0 if asyncio.run(measure(url, pid, args)) else 1)
        except ConnectionRefusedError:
            sys.exit(f"nobody is at {url}, or nobody is there any more")


if __name__ == "__main__":
    main()
