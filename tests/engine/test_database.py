import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from engine.database import FILE, META, Database, artifacts, upsert, wal_is_sound
from engine.errors import DiskFull, HomeInUse, Invalid


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database(tmp_path)
    await database.open()
    yield database
    await database.close()


def files(connection: sa.Connection) -> dict[str, str]:
    return {row.sha256: row.file for row in connection.execute(sa.select(artifacts))}


@pytest.mark.parametrize(
    ("version", "is_sound"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 49, 9), False),
        ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 0), False), ((3, 51, 2), False), ((3, 51, 3), True),
        ((3, 52, 0), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_which_versions_lose_nothing_in_wal_mode_beside_a_second_connection(
    version: tuple[int, ...], is_sound: bool
) -> None:
    assert wal_is_sound(version) is is_sound


async def test_each_commit_is_on_the_disk_and_others_look_in_only_where_that_is_sound(database: Database) -> None:
    def pragmas(connection: sa.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "locking_mode")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await database.run(pragmas) == ["wal", 2, "normal" if wal_is_sound() else "exclusive"]
    with closing(sqlite3.connect(database.file, timeout=0)) as other:
        if wal_is_sound():
            other.execute("SELECT * FROM jobs")
        else:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("SELECT * FROM jobs")


async def test_a_home_has_one_service_at_a_time(tmp_path: Path) -> None:
    first, second = Database(tmp_path), Database(tmp_path)
    await first.open()
    with pytest.raises(HomeInUse) as caught:
        await second.open()
    assert caught.value.home == str(tmp_path)
    await first.close()
    await second.open()
    await second.close()


async def test_a_database_that_cannot_be_used_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 1_000)
    with pytest.raises(Invalid, match=r"atelier\.db: SQLite cannot use it"):
        await Database(tmp_path).open()
    assert (tmp_path / FILE).read_bytes().startswith(b"no database at all")


async def test_a_database_of_a_newer_atelier_is_said_to_be_one(tmp_path: Path) -> None:
    database = Database(tmp_path)
    await database.open()
    await database.run(lambda c: c.execute(sa.text("update alembic_version set version_num = '9999'")))
    await database.close()
    with pytest.raises(Invalid, match="a newer Atelier made it"):
        await Database(tmp_path).open()


async def test_nobody_else_on_the_machine_may_read_it(database: Database) -> None:
    await database.run(lambda c: upsert(c, artifacts, sha256="a", file="b"))
    assert {file.stat().st_mode & 0o077 for file in database.file.parent.glob("atelier.*")} == {0}


async def test_an_error_does_not_repeat_what_was_said(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        await database.run(lambda c: c.execute(sa.text("insert into nowhere values (:said)"), {"said": "a secret"}))
    assert "a secret" not in str(caught.value)


async def test_the_lock_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio,sys,pathlib; from engine.database import Database; "
        "asyncio.run(Database(pathlib.Path(sys.argv[1])).open()); print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(HomeInUse):
            await Database(tmp_path).open()
        child.kill()
    database = Database(tmp_path)
    await database.open()
    await database.close()


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        upsert(connection, artifacts, sha256="a", file="1")
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(work)
    assert await database.run(files) == {}


async def test_upsert_puts_a_row_in_the_place_of_another(database: Database) -> None:
    for file in ("1", "2"):
        await database.run(lambda c, file=file: upsert(c, artifacts, sha256="a", file=file))
    assert await database.run(files) == {"a": "2"}


async def test_a_transaction_that_reads_first_holds_the_file_from_its_beginning(database: Database) -> None:
    def meanwhile(connection: sa.Connection) -> str:
        with closing(sqlite3.connect(database.file, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return str(error)
        return "not held"

    assert await database.run(meanwhile) == "database is locked"


async def test_a_full_disk_is_said_and_rolled_back(database: Database) -> None:
    await database.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1").scalar())
    with pytest.raises(DiskFull):
        await database.run(lambda c: upsert(c, artifacts, sha256="a", file="x" * 1_000_000))
    assert await database.run(files) == {}
    await database.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000").scalar())
    await database.run(lambda c: upsert(c, artifacts, sha256="a", file="1"))
    assert await database.run(files) == {"a": "1"}


async def test_a_new_database_is_what_the_tables_say(database: Database) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), META)

    assert await database.run(differences) == []


async def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    for expected in ({}, {"a": "1"}):
        database = Database(tmp_path)
        await database.open()
        assert await database.run(files) == expected
        await database.run(lambda c: upsert(c, artifacts, sha256="a", file="1"))
        await database.close()


async def test_eight_writers_at_once_meet_no_lock_and_lose_no_count(database: Database) -> None:
    def count(connection: sa.Connection) -> None:
        so_far = files(connection).get("n", "0")
        upsert(connection, artifacts, sha256="n", file=str(int(so_far) + 1))

    async def writer() -> None:
        for _ in range(50):
            await database.run(count)

    await asyncio.gather(*(writer() for _ in range(8)))
    assert await database.run(files) == {"n": "400"}


async def test_eight_processes_at_once_and_one_has_the_home(tmp_path: Path) -> None:
    code = (
        "import asyncio,sys,pathlib; from engine.database import Database; from engine.errors import HomeInUse\n"
        "try: asyncio.run(Database(pathlib.Path(sys.argv[1])).open())\n"
        "except HomeInUse: print('in use', flush=True)\n"
        "else: print('open', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
        for _ in range(8)
    ]
    said = sorted(child.stdout.readline().strip() for child in children if child.stdout)
    for child in children:
        child.communicate("")
    assert said == ["in use"] * 7 + ["open"]


async def test_what_was_committed_is_there_after_a_kill(tmp_path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from engine.database import Database, artifacts, upsert

async def main():
    database = Database(Path(sys.argv[1]))
    await database.open()
    for number in range(40):
        await database.run(lambda c: upsert(c, artifacts, sha256=str(number), file="x"))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    database = Database(tmp_path)
    await database.open()
    assert len(await database.run(files)) == 40
    assert await database.run(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"
    await database.close()
