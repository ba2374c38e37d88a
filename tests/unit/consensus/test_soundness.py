"""SQLite's own check of the metadata's file: what it finds, when it runs, and that a stop does not wait for it."""

import asyncio
import os
import sqlite3
from pathlib import Path

from consensus.disk import Disk
from consensus.soundness import NAME, Check, findings
from tests.contract.chunk_store import StoppedClock
from tests.unit.consensus.metadata import Cluster


def filled(folder: Path) -> Cluster:
    cluster = Cluster(folder)
    bucket = cluster.bucket()
    for number in range(200):
        cluster.put(bucket, f"key {number}", b"%d" % number)
    return cluster


def hurt(path: str) -> None:
    with open(path, "r+b") as file:
        for page in range(3, os.stat(path).st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(64))


def test_a_sound_file_has_no_findings_and_a_damaged_one_has(tmp_path: Path) -> None:
    cluster = filled(tmp_path)
    assert findings(cluster.machine.path) == ()
    copy = str(tmp_path / "copy.sqlite")
    sqlite3.connect(cluster.machine.path).execute("VACUUM INTO ?", (copy,))
    assert findings(copy) == ()
    hurt(copy)
    assert findings(copy) != ()
    Path(copy).write_bytes(b"no database" * 1000)
    assert findings(copy) == ("file is not a database",)


def test_it_is_looked_over_when_its_time_has_come_and_that_is_remembered(tmp_path: Path) -> None:
    cluster, clock = filled(tmp_path), StoppedClock()

    def check() -> Check:
        return Check(str(tmp_path), lambda: cluster.machine.path, interval_s=3600, clock=clock, disk=Disk())

    async def main() -> None:
        first = check()
        clock.ms += 5_000_000
        await first.look()
        assert (first.last.at_ms, first.last.findings) == (clock.ms, ())
        assert check().last == first.last

    asyncio.run(main())


def test_what_cannot_be_read_of_the_last_look_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    for text in (b"{", b'{"at_ms":1,"findings":["\xff"]}'):
        (tmp_path / NAME).write_bytes(text)
        clock = StoppedClock()
        assert Check(str(tmp_path), str, interval_s=3600, clock=clock, disk=Disk()).last.at_ms == clock.ms


def test_a_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    cluster = filled(tmp_path)

    async def main() -> None:
        check = Check(str(tmp_path), lambda: cluster.machine.path, interval_s=3600, clock=StoppedClock(), disk=Disk())
        looking = asyncio.ensure_future(check.look())
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        assert looking.cancelled()
        assert check.last.findings == ()

    asyncio.run(main())
