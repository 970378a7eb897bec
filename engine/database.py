"""One database for all that must outlive the process: SQLite under the home, through SQLAlchemy Core.

One connection, in one thread, and each piece of work is one transaction: nobody meets a lock, and the event loop never
waits for the disk. `synchronous=FULL`: what is committed is on the disk.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import StaticPool

from engine.errors import DiskFull, HomeInUse, Invalid
from engine.files import writing

T = TypeVar("T")
FILE, LOCK = "atelier.db", "atelier.lock"
UNUSABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN)
META = sa.MetaData()

messages = sa.Table(  # the inbox: stored before they are acknowledged
    "messages", META,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("thread", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),  # new, done
    sa.Column("received", sa.Float, nullable=False),
    sa.Column("due", sa.Float, nullable=False),
)  # fmt: skip
jobs = sa.Table(
    "jobs", META,
    sa.Column("key", sa.Text, primary_key=True),  # that of the message it is for
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("thread", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("memo", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),  # queued (also while it runs), done, failed, cancelled
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("submitted", sa.Float, nullable=False),
    sa.Column("outcome", sa.Text),
)  # fmt: skip
replies = sa.Table(  # the outbox: stored with what they change, delivered until it passes
    "replies", META,
    sa.Column("key", sa.Text, primary_key=True),  # that of the message it answers
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),  # waiting, sent, dead
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.Float, nullable=False),
)  # fmt: skip
refs = sa.Table(  # what a door has put there already for a message, so that it edits that
    "refs", META,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("ref", sa.Text, nullable=False),
)  # fmt: skip
talks = sa.Table(
    "talks", META,
    sa.Column("thread", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("changed", sa.Float, nullable=False),
)  # fmt: skip
channels = sa.Table(
    "channels", META,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
artifacts = sa.Table(
    "artifacts", META,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, nullable=False),
)  # fmt: skip


def wal_is_sound(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether others may look in meanwhile: SQLite 3.7.0 to 3.51.2 (3.44.6 and 3.50.7 have the fix) may lose commits in
    WAL mode while a second connection is there (sqlite.org/wal.html#walresetbug), so ours is made the only one."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


class Database:
    """`home`/atelier.db. `HomeInUse` if another service holds this home."""

    def __init__(self, home: Path) -> None:
        self.file = home / FILE
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._engine: sa.Engine | None = None
        self._lock: int | None = None

    async def open(self) -> None:
        """Take the home, make the database or bring it up to date."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """`work` in one transaction, rolled back if it raises. `DiskFull` where the disk is."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _open(self) -> None:
        with writing(self.file.parent):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _take(self.file.with_name(LOCK))
            self.file.touch(mode=0o600)  # whoever may read it may read every conversation, and go on with it
            self._engine = _engine(self.file)
            try:
                with self._engine.begin() as connection:
                    _migrate(connection)
            except CommandError:
                todo = "Start that one, or name another home with --home DIR."
                raise Invalid(str(self.file), "a newer Atelier made it", todo) from None
            except DatabaseError as error:
                if getattr(error.orig, "sqlite_errorcode", None) not in UNUSABLE:
                    raise
                todo = "Put a copy of it back, or move it away: then what was said begins anew."
                raise Invalid(str(self.file), f"SQLite cannot use it ({error.orig})", todo) from None

    def _transact(self, work: Callable[[sa.Connection], T]) -> T:
        if self._engine is None:
            raise RuntimeError("the database is closed")
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFull(str(self.file.parent)) from error
            raise

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None  # it would connect anew for whoever is late
        if self._lock is not None:
            os.close(self._lock)


def upsert(connection: sa.Connection, table: sa.Table, **row: Any) -> None:
    """Insert the row, or put it in the place of the one with its primary key."""
    key = next(iter(table.primary_key)).name
    if not connection.execute(table.update().where(table.c[key] == row[key]).values(**row)).rowcount:
        connection.execute(table.insert().values(**row))


def _take(path: Path) -> int:
    """A lock that goes with this process, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise HomeInUse(str(path.parent)) from None
    return handle


def _engine(file: Path) -> sa.Engine:
    engine = sa.create_engine(
        f"sqlite:///{file}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": 10},
        hide_parameters=True,  # of its errors, which are logged: they are what people said
    )

    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        locking = "NORMAL" if wal_is_sound() else "EXCLUSIVE"
        for pragma in (f"locking_mode={locking}", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a lock that is upgraded later fails at once

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _migrate(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
