"""What doors may look up: the past of a conversation, pictures by their content, the LoRAs."""

import asyncio
from pathlib import Path

import sqlalchemy as sa

from bot.message import Inbound, OnShelf, Reply, Said
from engine.catalog import PICTURES, PREVIEW, Catalog
from engine.database import Database, artifacts, messages, replies
from engine.errors import UnknownLora
from engine.plain import no_bytes, unpack
from engine.store import Store

LATEST = 60  # messages of a conversation that are looked back on


class Lookup:
    """Satisfies `House` for the door of one platform."""

    def __init__(self, platform: str, database: Database, store: Store, catalog: Catalog) -> None:
        self._platform = platform
        self._database = database
        self._store = store
        self._catalog = catalog

    async def past(self, thread: str) -> tuple[Said, ...]:
        talk = f"{self._platform}:{thread}"

        def read(connection: sa.Connection) -> tuple[Said, ...]:
            joined = messages.join(replies, messages.c.key == replies.c.key, isouter=True)
            query = sa.select(messages.c.body, replies.c.body).select_from(joined).where(messages.c.thread == talk)
            rows = connection.execute(query.order_by(messages.c.received.desc()).limit(LATEST)).all()
            return tuple(
                Said(
                    inbound=unpack(Inbound, asked, no_bytes),
                    reply=None if answer is None else self._store.unpack(Reply, answer),
                )
                for asked, answer in reversed(rows)
            )

        return await self._database.run(read)

    async def picture(self, sha256: str) -> bytes | None:
        query = sa.select(artifacts.c.file).where(artifacts.c.sha256 == sha256)
        file = await self._database.run(lambda c: c.execute(query).scalar())
        return None if file is None else _bytes(Path(file))

    async def file(self, sha256: str) -> bytes | None:
        path = self._store.export(sha256)
        return None if path is None else await asyncio.to_thread(_bytes, path)

    def shelf(self) -> tuple[OnShelf, ...]:
        names = tuple(OnShelf.model_fields)
        return tuple(OnShelf(**{name: getattr(card, name) for name in names}) for card in self._catalog.list())

    def preview(self, name: str) -> bytes | None:
        folder = self._folder(name)
        return None if folder is None else _bytes(folder / PREVIEW)

    def training_pictures(self, name: str) -> tuple[bytes, ...]:
        folder = self._folder(name)
        files = sorted((folder / PICTURES).glob("*.png")) if folder else []
        return tuple(data for file in files if (data := _bytes(file)) is not None)

    def _folder(self, name: str) -> Path | None:
        try:
            return self._catalog.get(name).folder
        except UnknownLora:
            return None


def _bytes(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
