"""Where conversations are kept between two messages: in memory, or in the database with what each message changed."""

import time
from collections import OrderedDict
from typing import Protocol

import sqlalchemy as sa

from bot.conversation import Conversation, Here
from bot.message import Inbound
from engine.database import Database, channels, talks, upsert
from engine.store import Store

TALKS = 100  # that are held in memory


class History(Protocol):
    async def open(self, inbound: Inbound) -> Conversation:
        """The conversation that a message belongs to, with the settings of its channel."""
        ...

    def keep(self, talk: Conversation) -> None:
        """As it is from now on; with it the settings of its channel, if they are others now."""
        ...


class Memory:
    """For a terminal: what is said ends with the process."""

    def __init__(self) -> None:
        self._talks: OrderedDict[str, Conversation] = OrderedDict()

    async def open(self, inbound: Inbound) -> Conversation:
        return self._talks.get(inbound.talk) or Conversation(inbound.talk, Here(inbound.channel))

    def keep(self, talk: Conversation) -> None:
        self._talks[talk.thread] = talk
        self._talks.move_to_end(talk.thread)
        if len(self._talks) > TALKS:
            self._talks.popitem(last=False)


class Kept:
    """In the database. `keep` changes only memory: `save` writes it in the transaction that the reply is stored in."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._talks: OrderedDict[str, Conversation] = OrderedDict()
        self._here: dict[str, Here] = {}
        self._unsaved: dict[str, Conversation] = {}

    async def open(self, inbound: Inbound) -> Conversation:
        place = f"{inbound.platform}:{inbound.channel}"
        talk = self._unsaved.get(inbound.talk) or self._talks.get(inbound.talk)
        here = self._here.get(place)
        if talk is None or here is None:
            found, said = await self._database.run(lambda c: self._read(c, inbound.talk, place))
            talk = self._unsaved.get(inbound.talk) or talk or found or Conversation(inbound.talk)
            here = self._here.setdefault(place, said or Here(place))
        return talk.at(here)

    def keep(self, talk: Conversation) -> None:
        self._unsaved[talk.thread] = talk
        self._here[talk.here.channel] = talk.here

    def save(self, connection: sa.Connection, thread: str) -> None:
        """What was kept of this conversation, if anything was."""
        talk = self._unsaved.get(thread)
        if talk is None:
            return
        upsert(connection, talks, thread=thread, body=self._store.pack(Conversation, talk), changed=time.time())
        if talk.here.channel:
            upsert(connection, channels, channel=talk.here.channel, body=self._store.pack(Here, talk.here))
        self._talks[thread] = talk
        self._talks.move_to_end(thread)
        if len(self._talks) > TALKS:
            self._talks.popitem(last=False)
        if self._unsaved.get(thread) is talk:
            del self._unsaved[thread]

    def forget(self, inbound: Inbound) -> None:
        """What was kept since the last save was not saved: its conversation is as the database has it."""
        self._unsaved.pop(inbound.talk, None)
        self._talks.pop(inbound.talk, None)
        self._here.pop(f"{inbound.platform}:{inbound.channel}", None)

    def _read(self, connection: sa.Connection, thread: str, place: str) -> tuple[Conversation | None, Here | None]:
        talk = connection.execute(sa.select(talks.c.body).where(talks.c.thread == thread)).scalar()
        here = connection.execute(sa.select(channels.c.body).where(channels.c.channel == place)).scalar()
        return (
            None if talk is None else self._store.unpack(Conversation, talk),
            None if here is None else self._store.unpack(Here, here),
        )
