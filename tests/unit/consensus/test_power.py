"""The whole member, stopped before each of its durable steps and robbed of power: what it answered is still there.

The steps are those of a start, of commits, of a snapshot, of a trim and of a stop; the list is printed (pytest -s).
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consensus.config import MetaConfig
from consensus.core.commands import CreateBucket
from consensus.core.errors import ClusterError
from consensus.core.ids import BucketId
from consensus.core.results import BucketCreated, Committed
from tests.unit.consensus.crash import FaultyDisk, Stopped, WalFloor
from tests.unit.consensus.members import Place, put

SMALL = MetaConfig(housekeeping_s=3600.0, segment_bytes=700)
PUTS = 5
"""In each of three rounds, with a snapshot after the first two: the second trims."""


@dataclass
class Life:
    """One run of the member on a faulty disk, and what it answered."""

    root: Path
    stop_at: int | None = None
    broken_sync: bool = False
    bucket: BucketId | None = None
    answered: dict[str, str] = field(default_factory=dict)
    finished: bool = False

    def run(self) -> None:
        (self.root / "meta").mkdir(parents=True)
        self.disk = FaultyDisk(str(self.root))
        self.disk.stop_at, self.disk.broken_sync = self.stop_at, self.broken_sync
        self.floor = WalFloor(str(self.root / "meta" / "meta.1.sqlite"))
        self.disk.on_step = self.floor.on_step
        asyncio.run(self._live())

    async def _live(self) -> None:
        place = Place(self.root, disk=self.disk, config=SMALL)
        stopped = asyncio.Event()
        place.failures = _Noticing(stopped)
        working = asyncio.ensure_future(self._work(place))
        dying = asyncio.ensure_future(stopped.wait())
        await asyncio.wait((working, dying), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        dying.cancel()
        with contextlib.suppress(asyncio.CancelledError, Stopped, ClusterError):
            await working
        self.disk.stop_at = -1                      # nothing more is written, as after the end of a process
        if place.server is not None and not self.finished:
            with contextlib.suppress(AssertionError, AttributeError):      # it may have come no further than its files
                await place.kill()
                await asyncio.sleep(0)
        for client in place.clients:
            await client.stop()

    async def _work(self, place: Place) -> None:
        server = await place.serve()
        client = await place.client()
        created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
        assert isinstance(created, BucketCreated)
        self.bucket = created.bucket
        for group in range(3):
            for number in range(PUTS):
                key, etag = f"k{number % 3}", f"{group}.{number}"
                done = await client.commit(put(created.bucket, key, etag))
                assert isinstance(done, Committed)
                self.answered[key] = etag
            if group < 2:
                await server.housekeeper.take_snapshot()
        await client.stop()
        await server.stop()
        self.finished = True

    def lost(self, seed: int, target: Path) -> str:
        """What a power cut now takes of the answered, in words; empty if nothing."""
        self.disk.power_cut(seed, str(target), also=lambda path: path.endswith((".sqlite", "-wal", "lock")))
        wal = target / "meta" / "meta.1.sqlite-wal"
        self.floor.cut(seed, str(wal))
        return asyncio.run(self._missing(target))

    async def _missing(self, target: Path) -> str:
        place = Place(target)
        try:
            await place.serve()
            client = await place.client()
            if self.bucket is None:
                return ""
            bucket = await client.bucket("b")
            if bucket is None:
                return "the bucket"
            for key, etag in self.answered.items():
                version = await client.current(bucket.id, key)
                # The put that was under way may have come after the last answered one.
                if version is None or version.etag < etag:
                    return f"{key} at {etag}, found {version and version.etag}"
            done = await client.commit(put(bucket.id, "after"))
            assert isinstance(done, Committed)
            assert await client.current(bucket.id, "after") is not None
        except ClusterError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await place.close()
        return ""


class _Noticing(list[BaseException]):
    """A list of failures that sets an event."""

    def __init__(self, event: asyncio.Event) -> None:
        super().__init__()
        self._event = event

    def append(self, error: BaseException) -> None:
        super().append(error)
        self._event.set()


@pytest.mark.slow
def test_a_power_cut_at_every_step_of_the_member_loses_nothing(tmp_path: Path) -> None:
    names: Counter[str] = Counter()
    number = 0
    while True:
        life = Life(tmp_path / f"{number}", stop_at=number)
        life.run()
        if life.finished:
            break
        step = life.disk.steps[number]
        names[step] += 1
        for seed in (number, number + 1):
            lost = life.lost(seed, tmp_path / "cut")
            assert not lost, f"step {number} ({step}), seed {seed}: {lost}"
        number += 1
    print(f"{2 * number} power cuts at {number} steps:", *(f"\n  {count:3} {name}" for name, count in names.items()))
    assert life.answered == {"k0": "2.3", "k1": "2.4", "k2": "2.2"}
    assert {"journal.fdatasync", "metadata.commit", "metadata.checkpoint", "snapshot.fsync",
            "snapshot.descriptor.rename", "journal.trim.unlink", "journal.trim.fsync_dir"} <= set(names)


def test_control_swallowed_syncs_lose_what_was_answered(tmp_path: Path) -> None:
    lost = []
    for number in range(6):
        life = Life(tmp_path / f"{number}", stop_at=60 + 3 * number, broken_sync=True)
        life.run()
        assert life.answered
        lost.append(life.lost(number, tmp_path / "cut"))
    assert any(lost)
