"""One conversation through the page, the terminal, Slack and a webhook: four ways in, and the same plans."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr
from standardwebhooks import Webhook as Signer

from bot.assistant import Assistant
from bot.conversation import Planned
from bot.desk import Desk
from bot.history import Kept, Memory
from bot.house import Lookup
from bot.interpreter import RuleInterpreter
from bot.message import Attachment, Door, House, Inbound
from bot.platforms import slack, webhook
from bot.platforms import web as page
from bot.platforms.console import Console
from engine.database import Database
from engine.durable import DurableQueue
from engine.plans import Plan
from engine.queue import JobQueue
from engine.store import Store
from tests.bot.talking import open_shelf, pictures
from tests.fakes.executor import FakeExecutor
from tests.fakes.slack import ME, FakeSlack

SECRET = f"whsec_{base64.b64encode(b'k' * 24).decode()}"
CHAT = "a-conversation-of-twenty-four-letters"
LINES: tuple[tuple[str, int], ...] = (
    ("Inky at the beach, seed 42", 0),
    ("same but on teal", 0),
    ("in our terracotta look", 0),
    ("here, always terracotta", 0),
    ("a red mug, seed 7", 0),
    ("train a character called Pip, trigger pqx, it is a penguin", 12),
    ("Pip at the beach, seed 9", 0),
)


def a_seed(_: Inbound) -> int:
    """For what nobody named a seed for: elsewhere it follows from the message's own key."""
    return 5


@dataclass
class Studio:
    """A desk with one door over the fake engine."""

    engine: FakeExecutor
    desk: Desk
    site: web.Application
    database: Database

    async def count(self, table: sa.Table, state: str | None = None) -> int:
        """Rows of a table, or those of them in a state."""
        query = sa.select(sa.func.count()).select_from(table)
        query = query if state is None else query.where(table.c.state == state)
        return await self.database.run(lambda c: c.execute(query).scalar_one())

    async def quiet(self, said: int) -> None:
        """Until that many messages have been answered."""
        async with asyncio.timeout(20):
            while self.desk.tally.answered.total() < said:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def studio(home: Path, name: str, make: Callable[[House], Door]) -> AsyncGenerator[Studio]:
    shelf = open_shelf(home)
    database, store = Database(home), Store(home)
    await database.open()
    engine = FakeExecutor(shelf.catalog, home)
    queue = DurableQueue(JobQueue(engine, store, shelf.catalog), database, store, shelf.catalog, Planned)
    history = Kept(database, store)
    door = make(Lookup(name, database, store, shelf.catalog))
    rules = RuleInterpreter(shelf.catalog, shelf.vocabulary)
    desk = Desk(database, store, history, Assistant(queue, shelf, rules, history, a_seed).answer, {name: door})
    site = web.Application()
    door.mount(site, desk.receive)
    await queue.start()
    await desk.start()
    running = asyncio.create_task(door.run())
    yield Studio(engine, desk, site, database)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await desk.close()
    await door.close()
    await queue.close()
    await database.close()


async def through_the_page(home: Path) -> Sequence[Plan]:
    async with studio(home, "web", lambda house: page.open_door(page.Settings(), house)) as made:
        async with TestClient(TestServer(made.site)) as client:
            for number, (text, files) in enumerate(LINES, 1):
                form: list[tuple[str, object]] = [
                    ("text", text),
                    ("chat", CHAT),
                    *(("files", _file(f)) for f in pictures(files)),
                ]
                said = {"data": form} if files else {"json": dict(form)}
                answer = await client.post("/api/chat", **said)
                assert answer.status == 202, await answer.text()
                await made.quiet(number)
        return made.engine.plans


def _file(attachment: Attachment) -> io.BytesIO:
    file = io.BytesIO(attachment.data)
    file.name = attachment.name
    return file


async def through_slack(home: Path) -> Sequence[Plan]:
    async with FakeSlack() as fake:
        said = slack.Settings(bot_token=SecretStr("xoxb-1"), app_token=SecretStr("xapp-1"), base_url=fake.base_url)
        async with studio(home, "slack", lambda house: slack.open_door(said, house)) as made:
            await fake.connected()
            for number, (text, files) in enumerate(LINES, 1):
                kept = [fake.keep(f.name, f.data) for f in pictures(files)]
                event = {
                    "type": "message",
                    "channel": "C1",
                    "channel_type": "channel",
                    "user": "U1",
                    "ts": f"{number}.0",
                }
                event |= {"thread_ts": "1.0"} if number > 1 else {}
                event |= {"text": f"<@{ME}> {text}", **({"files": kept, "subtype": "file_share"} if kept else {})}
                await fake.acked(await fake.event(event))
                await made.quiet(number)
            return made.engine.plans


async def through_a_webhook(home: Path) -> Sequence[Plan]:
    hooks = {"shop": {"secrets": (SECRET,), "reply_url": "http://127.0.0.1:9/"}}
    said = webhook.Settings.model_validate({"hooks": hooks})
    async with studio(home, "webhook", lambda house: webhook.open_door(said, house)) as made:
        async with TestClient(TestServer(made.site)) as client:
            for number, (text, files) in enumerate(LINES, 1):
                data = [{"name": f.name, "data": base64.b64encode(f.data).decode()} for f in pictures(files)]
                body = json.dumps({"text": text, "thread": "t", "files": data})
                now = datetime.now(UTC)
                headers = {
                    "webhook-id": str(number),
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": Signer(SECRET).sign(str(number), now, body),
                }
                answer = await client.post("/hooks/shop", data=body, headers=headers)
                assert answer.status == 202, await answer.text()
                await made.quiet(number)
        return made.engine.plans


async def through_the_terminal(home: Path) -> Sequence[Plan]:
    shelf = open_shelf(home)
    engine = FakeExecutor(shelf.catalog, home)
    queue = JobQueue(engine, Store(home), shelf.catalog)
    rules = RuleInterpreter(shelf.catalog, shelf.vocabulary)
    folder = home / "dropped"
    folder.mkdir()
    for file in pictures(12):
        (folder / file.name).write_bytes(file.data)
    lines = "".join(f"{text}{f' @{folder}' if files else ''}\n" for text, files in LINES)
    await Console(source=io.StringIO(lines)).serve(Assistant(queue, shelf, rules, Memory(), a_seed).answer)
    return engine.plans


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_one_conversation_gives_equal_plans_through_every_door(tmp_path: Path) -> None:
    ways = (through_the_terminal, through_the_page, through_slack, through_a_webhook)
    plans: list[list[Plan]] = []
    for number, way in enumerate(ways):
        home = tmp_path / str(number)
        home.mkdir()
        plans.append(list(await way(home)))
    assert len(plans[0]) == 6
    assert plans[1:] == [plans[0]] * 3
