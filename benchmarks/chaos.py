"""Does it lose anything? `python -m benchmarks.chaos [--kills 100] [--worker-kills 25] [--seed 0] [--real]`.

People post messages over HTTP until they are acknowledged, while the service, or its worker alone, is killed with
SIGKILL at random moments and started again. In the end everything that was acknowledged is answered, once, and what
was kept is whole; each thing that is not so is printed, and the exit code is 1. Without `--real` nothing draws: the
worker is tests/fakes/child.py.
"""

import argparse
import asyncio
import datetime
import hashlib
import io
import json
import os
import platform
import random
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from PIL import Image

from bot.conversation import SHOTS, Planned
from bot.message import Inbound, Reply
from bot.service import seed_of
from engine.catalog import MANIFEST, PREVIEW, STAGING, WEIGHTS, Catalog
from engine.files import read_manifest
from engine.plans import ImagePlan, Plan
from engine.recipes import read_recipe
from engine.store import Store

ROOT = Path(__file__).resolve().parents[1]
DRAW = ("Inky at the beach", "Bolt in the snow", "Carryall on a podium", "a red mug in coral", "Brewster on a table")
CHANGE = ("make the background teal", "another one", "in the forest look")
TRAIN = "train a subject called {name}, 6 steps"
PER_CHAT = 40  # messages; a page looks back on 60
QUIET = ("env", "OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE")
ENDS_WITHIN = 20.0  # seconds that a worker may live on when its parent is gone
ANSWERED_WITHIN = 600.0  # seconds for everything that is left, when the last kill is done


@dataclass
class Post:
    """A message that was acknowledged."""

    key: str
    chat: str
    text: str
    is_training: bool


class Left(NamedTuple):
    """What a kill fell into, the jobs that were not done, and the most deaths of the worker that one of them has had.

    between: a message or an answer was in hand, and no job.
    """

    phase: str
    jobs: tuple[str, ...]
    deaths: int


Health = dict[str, Any]


@dataclass
class World:
    """The service under test, and what has happened to it."""

    home: Path
    command: tuple[str, ...]
    dice: random.Random
    process: subprocess.Popen[bytes] | None = None
    posts: dict[str, Post] = field(default_factory=dict)
    phases: Counter[str] = field(default_factory=Counter)
    worker_phases: Counter[str] = field(default_factory=Counter)
    interrupted: set[str] = field(default_factory=set)
    deaths: int = 0  # that a job has had at the most
    wrong: list[str] = field(default_factory=list)
    orphans: list[float] = field(default_factory=list)
    ups: list[float] = field(default_factory=list)
    watches: list[asyncio.Task[None]] = field(default_factory=list)
    is_over: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.home.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                (*self.command, "--home", str(self.home), "run", "--port", str(self.port)),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def left(self, health: Health) -> Left:
        """What a killed service left: read in a copy, so that the next one finds its files as they were."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.home.glob("atelier.db*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder) / "atelier.db")) as connection:
                try:
                    jobs = connection.execute("select key, plan, attempts from jobs where state = 'queued'").fetchall()
                    open_ = connection.execute(OPEN).fetchall()
                except sqlite3.OperationalError:  # killed before it had made its tables
                    return Left("starting", (), 0)
        trainings = sum("examples" in json.loads(plan) for _, plan, _ in jobs)
        phase = (
            "training" if trainings > health["waiting"]["training"]
            else "running" if len(jobs) - trainings > health["waiting"]["picture"]
            else "queued" if jobs
            else "between" if open_
            else "idle"
        )  # fmt: skip
        return Left(phase, tuple(key for key, _, _ in jobs), max((tries for _, _, tries in jobs), default=0))


OPEN = "select key from messages where state = 'new' union all select key from replies where state = 'waiting'"


async def main() -> int:
    args = _arguments()
    before = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        closing(socket.create_server(("127.0.0.1", 0))) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        module = ("bot",) if args.real else ("tests.fakes.service",)
        world = World(
            Path(folder) / "home", (*QUIET, sys.executable, "-m", *module), random.Random(args.seed), port=port
        )  # fmt: skip
        print(f"{_machine()} · {'real' if args.real else 'fake'} engine · seed {args.seed} · {folder}", flush=True)
        world.start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            people = [asyncio.create_task(_person(world, client, n, args.real)) for n in range(args.people)]
            try:
                await _storm(world, client, args)
                world.is_over = True
                await asyncio.gather(*people)
                events = await _all_answered(world, client)
                await asyncio.gather(*world.watches)
            finally:
                for person in people:
                    person.cancel()
                _end(world, signal.SIGTERM)
        check = Check(world, events)
        check.all()
        _report(world, check, time.monotonic() - before)
        if world.wrong:
            print(f"the log's end:\n{(Path(folder) / 'log').read_text()[-3000:]}")
    return 1 if world.wrong else 0


async def _storm(world: World, client: aiohttp.ClientSession, args: argparse.Namespace) -> None:
    kills = ["service"] * args.kills + ["worker"] * args.worker_kills
    world.dice.shuffle(kills)
    ends = time.monotonic() + args.minutes * 60
    spans = (8.0, 24.0, 48.0) if args.real else (0.3, 1.0, 4.0)  # seconds that it lives, at most
    for number, what in enumerate(kills, 1):
        if time.monotonic() > ends:
            print(f"out of time after {number - 1} kills", flush=True)
            break
        up = await _up(world, client)
        await asyncio.sleep(world.dice.uniform(0, world.dice.choice(spans)))
        if what == "worker":
            await _kill_worker(world, client)
        else:
            await _kill_service(world, client)
            world.start()
            if world.dice.random() < 0.1:  # and once more before it is up
                await asyncio.sleep(world.dice.uniform(0, up))
                world.phases["starting"] += 1
                _end(world, signal.SIGKILL)
                world.start()
        if number % 10 == 0:
            print(f"{number} kills, {len(world.posts)} messages acknowledged, {dict(world.phases)}", flush=True)


async def _up(world: World, client: aiohttp.ClientSession) -> float:
    """Seconds until it answers."""
    began = time.monotonic()
    while True:
        assert world.process is not None
        if world.process.poll() is not None:
            world.wrong.append(f"the service ended by itself with {world.process.returncode}")
            world.start()
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with client.get(f"{world.url}/health"):
                world.ups.append(time.monotonic() - began)
                return world.ups[-1]
        await asyncio.sleep(0.05)


async def _health(world: World, client: aiohttp.ClientSession) -> Health:
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with client.get(f"{world.url}/health") as said:
            return await said.json()
    return {"worker": {"pid": None, "state": "gone"}, "waiting": {"picture": 0, "training": 0}, "unanswered": 0}


async def _kill_service(world: World, client: aiohttp.ClientSession) -> None:
    health = await _health(world, client)
    _end(world, signal.SIGKILL)
    if (worker := health["worker"]["pid"]) is not None:
        world.watches.append(asyncio.create_task(_gone(world, worker)))
        await asyncio.sleep(0)
    left = world.left(health)
    world.phases[left.phase] += 1
    world.deaths = left.deaths
    world.interrupted.update(left.jobs)


def _end(world: World, how: signal.Signals) -> None:
    assert world.process is not None
    world.process.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        world.process.wait(timeout=60)
        return
    world.wrong.append("the service did not end within 60 s of SIGTERM")
    world.process.kill()
    world.process.wait()


async def _gone(world: World, pid: int) -> None:
    """A worker ends by itself when its parent has."""
    began = time.monotonic()
    while time.monotonic() - began < ENDS_WITHIN:
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[-1][:3]:
            world.orphans.append(time.monotonic() - began)
            return
        await asyncio.sleep(0.05)
    world.wrong.append(f"worker {pid} outlived its service by {ENDS_WITHIN:g} s")


async def _kill_worker(world: World, client: aiohttp.ClientSession) -> None:
    """Only while no job has lost two: three are a reason to give it up."""
    health = await _health(world, client)
    if world.deaths < 2 and (pid := health["worker"]["pid"]) is not None:
        world.deaths += 1
        world.worker_phases[health["worker"]["state"]] += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _person(world: World, client: aiohttp.ClientSession, number: int, is_real: bool) -> None:
    """Says something, most often waits for the answer, and says the next thing."""
    dice = random.Random(f"{world.dice.random()} {number}")
    chat, said = "", PER_CHAT
    while not world.is_over:
        if said >= PER_CHAT:
            chat, said = secrets.token_urlsafe(24), 0
        is_training = dice.random() < (0.06 if is_real else 0.1)
        text = (
            TRAIN.format(name=f"Zed{secrets.token_hex(4)}")
            if is_training
            else dice.choice(DRAW if said == 0 or dice.random() < 0.6 else CHANGE)
        )
        post = Post("", chat, text, is_training)
        await _posted(world, client, post, dice)
        said += 1
        while not world.is_over and len(await _open(world, client, chat)) > dice.choice((0, 0, 1, 2)):
            await asyncio.sleep(0.5)
        await asyncio.sleep(dice.uniform(0, 1.0))


async def _posted(world: World, client: aiohttp.ClientSession, post: Post, dice: random.Random) -> None:
    """Until it is acknowledged, and now and then once more: an acknowledgement may be lost as well."""
    message = secrets.token_hex(8)
    files = [_png(dice.randrange(256), shade) for shade in range(5)] if post.is_training else []
    while True:
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in (("text", post.text), ("chat", post.chat), ("id", message)):
            form.add_field(name, value)
        for name, data in enumerate(files):
            form.add_field("files", data, filename=f"{name}.png", content_type="image/png")
        try:
            async with client.post(f"{world.url}/api/chat", data=form) as answer:
                if answer.status == 202:
                    post.key = (await answer.json())["id"]
                    world.posts[post.key] = post
                    if dice.random() < 0.9:
                        return
                elif answer.status < 500 and answer.status != 429:
                    world.wrong.append(f"{post.text}: refused with {answer.status}: {await answer.text()}")
                    return
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        await asyncio.sleep(0.1)


def _png(red: int, shade: int) -> bytes:
    image = Image.new("RGB", (96, 96), (red, 40 * shade, 120))
    image.paste((255 - red, 90, 30 * shade), (20 + shade, 20, 60, 60 + shade))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def _past(world: World, client: aiohttp.ClientSession, chat: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The events of a conversation until now; None where the service is down."""
    events: list[tuple[str, dict[str, Any]]] = []
    try:
        async with client.get(f"{world.url}/api/chat/{chat}/events") as stream:
            kind = ""
            while line := (await stream.content.readline()).decode().rstrip("\n"):
                kind = line.removeprefix("event: ")
                if kind == "ready":
                    return events
                events.append((kind, json.loads((await stream.content.readline()).decode().removeprefix("data: "))))
                await stream.content.readline()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        pass
    return None


async def _open(world: World, client: aiohttp.ClientSession, chat: str) -> set[str]:
    """Messages of a conversation that are not answered yet, as far as can be seen."""
    mine = {post.key for post in world.posts.values() if post.chat == chat}
    events = await _past(world, client, chat)
    return mine if events is None else mine - {data["key"] for kind, data in events if kind == "reply"}


async def _all_answered(world: World, client: aiohttp.ClientSession) -> list[tuple[str, dict[str, Any]]]:
    began = time.monotonic()
    chats = sorted({post.chat for post in world.posts.values()})
    while True:
        await _up(world, client)
        events: list[tuple[str, dict[str, Any]]] = []
        for chat in chats:
            events += await _past(world, client, chat) or []
        left = world.posts.keys() - {data["key"] for kind, data in events if kind == "reply"}
        if not left:
            await asyncio.sleep(2)  # until it is noted that they are
            return events
        if time.monotonic() - began > ANSWERED_WITHIN:
            world.wrong += [f"never answered: {world.posts[key].text} ({key})" for key in left]
            return events
        print(f"{len(left)} left to be answered", flush=True)
        await asyncio.sleep(2)


class Check:
    """What has to be so in the end. Each thing that is not is a line in `world.wrong`."""

    def __init__(self, world: World, events: list[tuple[str, dict[str, Any]]]) -> None:
        self.world = world
        self.home = world.home
        self.store = Store(world.home)
        self.events = events
        self.connection = sqlite3.connect(world.home / "atelier.db")
        self.counts: Counter[str] = Counter()
        self.shown: dict[Path, str] = {}

    def all(self) -> None:
        for check in (self._rows, self._events, self._replies, self._talks, self._pictures, self._loras):
            try:
                check()
            except Exception as error:  # what the others find is told all the same
                self._wrong(f"{check.__name__} broke off: {type(error).__name__}: {str(error)[:300]}")
        if (said := self.connection.execute("pragma integrity_check").fetchone()[0]) != "ok":
            self._wrong(f"integrity_check: {said}")

    def _wrong(self, what: str) -> None:
        self.world.wrong.append(what)

    def _rows(self) -> None:
        """Each acknowledged message is there, done, with one reply that was sent; its job is done, with its seed."""
        posts = self.world.posts
        states = dict(self.connection.execute("select key, state from messages").fetchall())
        sent = dict(self.connection.execute("select key, state from replies").fetchall())
        for what, found, state in (("message", states, "done"), ("reply", sent, "sent")):
            for key in posts.keys() ^ found.keys():
                self._wrong(f"{what} {key}: {'is not there' if key in posts else 'nobody sent it'}")
            for key in (key for key, now in found.items() if now != state):
                self._wrong(f"{what} {key} is {found[key]}")
        jobs = {row[0]: row[1:] for row in self.connection.execute("select key, state, plan, memo, attempts from jobs")}
        for key in posts.keys() ^ jobs.keys():
            self._wrong(f"job {key}: {'is not there' if key in posts else 'nobody asked for it'}")
        self.plans: dict[str, Plan] = {}
        for key, (state, plan, memo, attempts) in jobs.items():
            self.counts["jobs that a kill fell into"] += key in self.world.interrupted or attempts > 0
            self.plans[key] = self.store.unpack(Plan, plan)
            if state != "done":
                self._wrong(f"job {key} is {state}")
            if self.store.unpack(Planned, memo).plan != self.plans[key]:
                self._wrong(f"job {key}: the memo has another plan")

    def _events(self) -> None:
        for wanted in ("message", "reply"):
            told = Counter(data["key"] for kind, data in self.events if kind == wanted)
            for key, count in told.items():
                if count != 1:
                    self._wrong(f"{count} {wanted} events of {key}")
            for key in self.world.posts.keys() - told.keys():
                self._wrong(f"no {wanted} event of {key}")

    def _replies(self) -> None:
        """No error; pictures as planned, seeds those of the message, each file as it was said to be."""
        rows = self.connection.execute("select m.body, r.body from messages m join replies r on m.key = r.key")
        for asked, answered in rows.fetchall():
            inbound: Inbound = self.store.unpack(Inbound, asked)
            reply: Reply = self.store.unpack(Reply, answered)
            plan = self.plans.get(inbound.key)
            if reply.error is not None or plan is None:
                self._wrong(f"“{inbound.text}”: {reply.text}")
            elif not isinstance(plan, ImagePlan):
                self._learnt(inbound, reply)
            elif len(reply.pictures) != plan.count:
                self._wrong(f"“{inbound.text}”: {len(reply.pictures)} pictures, not {plan.count}")
            else:
                self._drawn(inbound, reply, plan)

    def _learnt(self, inbound: Inbound, reply: Reply) -> None:
        self.counts["LoRAs trained"] += 1
        if reply.lora is None or not (reply.lora.folder / MANIFEST).is_file():
            self._wrong(f"“{inbound.text}”: no LoRA is there")

    def _drawn(self, inbound: Inbound, reply: Reply, plan: ImagePlan) -> None:
        again = inbound.text not in CHANGE or inbound.text == "another one"
        if again and plan.seed != seed_of(inbound):
            self._wrong(f"“{inbound.text}” has seed {plan.seed}, not that of its message")
        for number, shown in enumerate(reply.pictures):
            self.counts["pictures shown"] += 1
            try:
                data = shown.file.read_bytes()
                recipe = read_recipe(data, shown.file.name)
            except Exception as error:
                self._wrong(f"{shown.file}: {error}")
                continue
            self.shown[shown.file] = hashlib.sha256(data).hexdigest()
            if (shown.sha256, shown.recipe) != (self.shown[shown.file], recipe):
                self._wrong(f"{shown.file} is not what the reply says of it")
            if (recipe["prompt"], recipe["seed"]) != (plan.prompt, plan.seed + number):
                self._wrong(f"{shown.file} is not what was planned")
            known = self.connection.execute("select file from artifacts where sha256 = ?", (shown.sha256,)).fetchone()
            if known is None or hashlib.sha256(Path(known[0]).read_bytes()).hexdigest() != shown.sha256:
                self._wrong(f"{shown.file} is not among the artifacts")

    def _talks(self) -> None:
        """A conversation has its latest pictures once each, in the order in which they were asked for."""
        order = [key for (key,) in self.connection.execute("select key from messages order by received, rowid")]
        for (body,) in self.connection.execute("select body from talks").fetchall():
            talk = json.loads(body)
            shots = [shot["key"] for shot in talk.get("shots", ())]
            drawn = [key for key in order if f"web:{self._chat(key)}" == talk["thread"] and self._is_picture(key)]
            if shots != drawn[-SHOTS:]:
                self._wrong(f"conversation {talk['thread']} remembers {len(shots)} pictures, not its {len(drawn)}")

    def _chat(self, key: str) -> str:
        return self.world.posts[key].chat if key in self.world.posts else ""

    def _is_picture(self, key: str) -> bool:
        return isinstance(self.plans.get(key), ImagePlan)

    def _pictures(self) -> None:
        """Whatever has a picture's name is one. What was drawn twice is the same, byte for byte."""
        known = set(self.shown.values())
        for file in sorted((self.home / "pictures").rglob("*")):
            if file.is_dir():
                continue
            if file.name.startswith("."):
                self.counts["hidden drafts left behind"] += 1
            elif not file.stat().st_size:
                self.counts["empty names left behind in pictures/"] += 1
            elif file not in self.shown:
                self.counts["pictures that no reply names"] += 1
                with suppress(Exception):
                    read_recipe(file.read_bytes(), file.name)
                    self.counts["… that are byte for byte one that a reply names"] += (
                        hashlib.sha256(file.read_bytes()).hexdigest() in known
                    )
                    continue
                self._wrong(f"{file} is half a picture")
        for file in self._inputs():
            if hashlib.sha256(file.read_bytes()).hexdigest() != file.name:
                self._wrong(f"{file} is not what its name says")

    def _inputs(self) -> Iterator[Path]:
        folder = self.home / "inputs"
        for file in folder.iterdir() if folder.is_dir() else ():
            if file.name.startswith("."):
                self.counts["hidden drafts left behind"] += 1
            else:
                yield file

    def _loras(self) -> None:
        own = self.home / "loras"
        staging = own / STAGING
        self.counts["stagings left behind"] = len(list(staging.iterdir())) if staging.is_dir() else 0
        cards = Catalog(ROOT / "loras", own).list()
        for folder in (one for one in sorted(own.iterdir()) if not one.name.startswith(".")) if own.is_dir() else ():
            card = next((card for card in cards if card.folder == folder), None)
            if card is None:
                self._wrong(f"{folder} is no whole LoRA")
                continue
            Image.open(folder / PREVIEW).load()
            found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
            if found != card.sha256 or read_manifest(folder / MANIFEST)["sha256"] != found:
                self._wrong(f"{folder}: the weights are not those of the card")
            if len(list((folder / "pictures").glob("*.png"))) != 5:
                self._wrong(f"{folder}: it has not its 5 pictures")
        wanted = sum(post.is_training for post in self.world.posts.values())
        if len([card for card in cards if not card.shipped]) != wanted:
            self._wrong(f"{wanted} trainings, {len([card for card in cards if not card.shipped])} LoRAs")


def _report(world: World, check: Check, seconds: float) -> None:
    killed = world.phases.total()
    print(f"killed the service {killed} times: {dict(world.phases)}")
    print(f"killed the worker alone {world.worker_phases.total()} times: {dict(world.worker_phases)}")
    trainings = sum(post.is_training for post in world.posts.values())
    print(f"{len(world.posts)} messages acknowledged, {trainings} of them trainings")
    for what, count in check.counts.items():
        print(f"{count} {what}")
    if world.orphans:
        print(f"a worker outlived its service by {sorted(world.orphans)[len(world.orphans) // 2]:.2f} s in the median, "
              f"{max(world.orphans):.2f} s at most ({len(world.orphans)} seen)")  # fmt: skip
    if world.ups:
        print(f"up again after {sorted(world.ups)[len(world.ups) // 2]:.1f} s in the median")
    print(f"{seconds:.0f} s in all; {len(world.wrong)} violations")
    for wrong in world.wrong[:40]:
        print(f"WRONG: {wrong}")


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return (f"{datetime.date.today()} · {names[0] if names else platform.machine()}, {os.cpu_count()} cores · "
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="of the whole service")
    parser.add_argument("--worker-kills", type=int, default=25, help="of the worker alone")
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="after which no more is killed")
    parser.add_argument(
        "--real", action=argparse.BooleanOptionalAction, default=False, help="draw with the real engine"
    )
    parser.add_argument("--fake", dest="real", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
