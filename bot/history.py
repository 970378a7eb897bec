"""Where conversations are kept between two messages: in memory, or in the database with what each message changed."""

import logging
import time
from collections import OrderedDict
from typing import Any, Protocol

import sqlalchemy as sa

from bot.conversation import Conversation, Here
from bot.message import Inbound
from engine.database import Database, channels, talks, upsert
from engine.errors import Invalid
from engine.store import Store

log = logging.getLogger(__name__)

TALKS = 100  # that are held in memory


class History(Protocol):
    async def open(self, inbound: Inbound) -> Conversation:
        """The conversation that a message belongs to, with the settings of its channel."""
        ...

    def keep(self, talk: Conversation, here: Here | None = None) -> None:
        """As it is from now on; with it the settings of its channel, if they are others now: `here`."""
        ...


class Memory:
    """For a terminal: what is said ends with the process."""

    def __init__(self) -> None:
        self._talks: OrderedDict[str, Conversation] = OrderedDict()

    async def open(self, inbound: Inbound) -> Conversation:
        return self._talks.get(inbound.talk) or Conversation(inbound.talk, Here(inbound.channel))

    def keep(self, talk: Conversation, here: Here | None = None) -> None:
        self._talks[talk.thread] = talk if here is None else talk.at(here)
        self._talks.move_to_end(talk.thread)
        if len(self._talks) > TALKS:
            self._talks.popitem(last=False)


class Kept:
    """In the database. `keep` changes only memory: `save` writes it in the transaction that the reply is stored in."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._talks: OrderedDict[str, Conversation] = OrderedDict()
        self._unsaved: dict[str, Conversation] = {}
        self._unsaved_here: dict[str, Here] = {}

    async def open(self, inbound: Inbound) -> Conversation:
        place = f"{inbound.platform}:{inbound.channel}"
        talk = self._unsaved.get(inbound.talk) or self._talks.get(inbound.talk)
        said = await self._database.run(lambda c: self._read(c, Here, channels, place))
        if talk is None:
            found: Conversation | None = await self._database.run(
                lambda c: self._read(c, Conversation, talks, inbound.talk)
            )
            talk = self._unsaved.get(inbound.talk) or (found.restored() if found else Conversation(inbound.talk))
        return talk.at(self._unsaved_here.get(place) or said or Here(place))

    def keep(self, talk: Conversation, here: Here | None = None) -> None:
        """What another conversation has set of their channel meanwhile stays, but for `here`."""
        self._unsaved[talk.thread] = talk
        if here is not None:
            self._unsaved_here[here.channel] = here

    def save(self, connection: sa.Connection, thread: str) -> None:
        """What was kept of this conversation, if anything was."""
        talk = self._unsaved.get(thread)
        if talk is None:
            return
        upsert(connection, talks, thread=thread, body=self._store.pack(Conversation, talk), changed=time.time())
        if (here := self._unsaved_here.get(talk.here.channel)) is not None:
            upsert(connection, channels, channel=here.channel, body=self._store.pack(Here, here))
            del self._unsaved_here[here.channel]
        self._talks.pop(thread, None)
        if not (talk.asked and talk.asked.about.attachments):  # a set in hand may be large: it stays on the disk
            self._talks[thread] = talk
        if len(self._talks) > TALKS:
            self._talks.popitem(last=False)
        if self._unsaved.get(thread) is talk:
            del self._unsaved[thread]

    def forget(self, inbound: Inbound) -> None:
        """What was kept since the last save was not saved: its conversation is as the database has it."""
        self._unsaved.pop(inbound.talk, None)
        self._talks.pop(inbound.talk, None)
        self._unsaved_here.pop(f"{inbound.platform}:{inbound.channel}", None)

    def _read(self, connection: sa.Connection, kind: Any, table: sa.Table, key: str) -> Any | None:
        """None also for what can no longer be read: it begins anew, as else each message of it would be refused."""
        body = connection.execute(sa.select(table.c.body).where(table.primary_key.columns[0] == key)).scalar()
        try:
            return None if body is None else self._store.unpack(kind, body)
        except (Invalid, ValueError) as error:
            log.warning("one of %s begins anew, as it cannot be read: %s", table.name, type(error).__name__)
            return None
