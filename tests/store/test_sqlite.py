"""SQLite: one file, several processes, crashes at any moment."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from shardrt.errors import SchemaTooNew, StoreUnavailable
from shardrt.store.base import Append
from shardrt.store.sqlite.store import SqliteStore
from tests.store.hubs import appended, checkpoint, collect, keys, owned, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.store.hubs import Stores

# Appends and checkpoints as fast as it can, saying after each what is committed.
WRITER = """
import asyncio, sys
from shardrt.store.factory import make_store
from tests.store.hubs import checkpoint, owned, row
from shardrt.store.base import Append, HistoryChunk

async def main(url, partition):
    store = make_store(url)
    await store.open()
    await store.create(4)
    epoch = await owned(store, partition)
    for lsn in range(1, 100_000):
        done = await store.append([Append(partition, epoch, lsn, b"record %d" % lsn)])
        assert done == {partition}, done
        print(lsn, flush=True)
        if lsn % 10 == 0:
            chunks = [HistoryChunk("a", "e1", lsn, b"[]")]
            await store.checkpoint(checkpoint(epoch, lsn, partition=partition,
                upserts=[row(updated_at=lsn)], chunks=chunks, state=b"%d" % lsn))
            await store.truncate(partition, epoch, lsn - 5)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def start_writer(url: str, partition: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, str(partition)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said_before_killed(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    return max(int(line) for line in said.split())


@pytest.mark.proc
@pytest.mark.slow
def test_processes_share_the_file_and_a_killed_one_loses_nothing_it_said(sqlite: Stores):
    writers = [start_writer(sqlite.url, partition) for partition in (0, 1)]
    path = sqlite.url.removeprefix("sqlite:///")

    def both_are_past(lsn: int) -> bool:
        try:
            with closing(sqlite3.connect(path, timeout=5)) as connection:
                rows = connection.execute(
                    "SELECT count(*) FROM partitions WHERE commit_lsn > ?", (lsn,)
                )
                return bool(rows.fetchone() == (2,))
        except sqlite3.OperationalError:
            return False  # not created yet

    wait_until(lambda: both_are_past(25), within_s=30)
    lsns = [said_before_killed(writer) for writer in writers]

    async def main() -> None:
        store = await sqlite.open()
        for partition, lsn in enumerate(lsns):
            epoch, committed = await store.position(partition)
            assert committed in {lsn, lsn + 1}, "said after commit, killed before saying"
            head = await store.head(partition, epoch)
            assert head.checkpoint_lsn in range(lsn // 10 * 10 - 10, committed + 1)
            assert head.state == b"%d" % head.checkpoint_lsn
            (instance,) = await store.load(keys(partition, ["a"]))
            assert instance.updated_at == head.checkpoint_lsn
            tail = await collect(store.read(partition, head.checkpoint_lsn))
            expected = range(head.checkpoint_lsn + 1, committed + 1)
            assert tail == [(each, b"record %d" % each) for each in expected]
        await sqlite.close()

    asyncio.run(main())


async def test_the_directory_is_made(tmp_path: Path):
    store = SqliteStore(f"sqlite:///{tmp_path}/deep/er/hub.db")
    await store.open()
    await store.create(4)
    await store.close()
    assert (tmp_path / "deep" / "er" / "hub.db").exists()


async def test_a_relative_path_is_relative_to_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("sqlite:///hub%20one.db")
    monkeypatch.chdir("/")
    await store.open()
    await store.close()
    assert (tmp_path / "hub one.db").exists()


async def test_a_path_that_cannot_be_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("this is not a database, it is a text of some length" * 50)
    for name, reason in {
        "": "unable to open",
        "/file": "not a database",
        "/file/below": "cannot make its directory",
    }.items():
        store = SqliteStore(f"sqlite:///{tmp_path}{name}")
        with pytest.raises(StoreUnavailable, match=reason):
            await store.open()
        await store.close()


async def test_a_file_without_a_hub_says_so(sqlite: Stores):
    store = await sqlite.bare()
    with pytest.raises(StoreUnavailable, match="there is no hub in this file yet"):
        await store.view()


async def test_a_schema_or_format_of_a_newer_release_is_refused(sqlite: Stores, tmp_path: Path):
    store = await sqlite.open()
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as connection:
        connection.execute("UPDATE hub SET format = 99")
        with pytest.raises(SchemaTooNew, match="format 99"):
            await store.create(4)
        connection.execute("INSERT INTO migrations (version) VALUES (98)")
        with pytest.raises(SchemaTooNew, match="version 98"):
            await store.create(4)


async def test_a_hub_of_before_hubs_had_ids_gets_one(sqlite: Stores, tmp_path: Path):
    store = await sqlite.open()
    before = await store.create(4)
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as connection:
        connection.execute("ALTER TABLE hub DROP COLUMN id")
        connection.execute("DELETE FROM migrations WHERE version = 2")
    hub = await store.create(4)
    assert hub.id not in {"", before.id}
    assert await store.create(4) == hub


async def test_another_process_that_never_finishes_makes_it_unavailable(
    sqlite: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shardrt.store.sqlite.worker.BUSY_S", 0.05)
    store = await sqlite.open()
    epoch = await owned(store)
    with closing(sqlite3.connect(tmp_path / "hub.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another process"):
            await store.append([Append(0, epoch, 1, b"one")])
        assert (await store.view()).partitions[0].epoch == epoch, "reading goes on"
        other.execute("ROLLBACK")
    assert await appended(store, epoch, b"one") == 1


async def test_it_is_set_to_survive_a_crash_of_the_machine(sqlite: Stores):
    store = await sqlite.open()
    for name, value in {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1}.items():
        found = await store._writer.run(  # type: ignore[attr-defined]
            lambda connection, name=name: connection.execute(f"PRAGMA {name}").fetchone()
        )
        assert found == (value,)


async def test_a_failing_part_undoes_the_whole_checkpoint(sqlite: Stores):
    store = await sqlite.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    bad = row("b", status=None)
    with pytest.raises(StoreUnavailable, match="NOT NULL"):
        await store.checkpoint(checkpoint(epoch, 1, upserts=[row("a"), bad]))
    assert await store.load(keys(0, ["a"])) == []
    assert (await store.head(0, epoch)).checkpoint_lsn == 0


async def test_a_long_read_does_not_hold_up_a_commit(sqlite: Stores):
    store = await sqlite.open()
    epoch = await owned(store)
    await appended(store, epoch, b"one")
    rows = [row(f"i{number}", active=True) for number in range(100)]
    await store.checkpoint(checkpoint(epoch, 1, upserts=rows))
    stream = store.active(0)
    await anext(stream)
    assert await appended(store, epoch, b"two") == 2
    assert len(await collect(stream)) == 99
