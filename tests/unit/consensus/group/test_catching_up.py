"""A member that is further behind than the leader's memory reaches gets a snapshot, whatever happens to links, leaders and
itself meanwhile; then it goes on from there, and has lost and forgotten nothing."""

import asyncio
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from consensus import snapshot
from consensus.config import MetaConfig
from consensus.core.model import Member
from consensus.disk import Disk
from consensus.group import catching_up, members
from consensus.group.messages import Append, Behind, Message, Page, Paged
from consensus.journal import COMMANDS, CONFIGURATION, Journal, SqliteBehind
from consensus.raft import RaftNode
from tests.unit.consensus.crash import Stopped, Unsynced
from tests.unit.consensus.group.test_storms import storm
from tests.unit.consensus.group.world import Ledger, Seat, World

FILLER = random.Random(1).randbytes(5 << 20)
"""So that a snapshot has several pages."""

CONFIG = MetaConfig(segment_bytes=4000)


def folder_of(seat: Seat) -> str:
    return str(seat.folder)


def save(ledger: Ledger, path: str, filler: bytes = FILLER) -> None:
    """As SQLite would hold it."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE meta (k TEXT PRIMARY KEY, v)")
        db.execute("CREATE TABLE entry (i INTEGER PRIMARY KEY, e BLOB)")
        db.executemany("INSERT INTO meta VALUES (?, ?)", [
            ("applied", ledger.applied), ("term", ledger.applied_term), ("members", members.encode(ledger.members)),
            ("filler", filler)])
        db.executemany("INSERT INTO entry VALUES (?, ?)", list(ledger.entries.items()))


def load(ledger: Ledger, path: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        meta = dict(db.execute("SELECT k, v FROM meta WHERE k <> 'filler'"))
        ledger.applied, ledger.applied_term = meta["applied"], meta["term"]
        ledger.members = members.decode(meta["members"])
        ledger.entries = dict(db.execute("SELECT i, e FROM entry"))


class Library:
    """A world whose members serve and fetch snapshots; those that have fetched one start again."""

    def __init__(self, world: World) -> None:
        self.world, self.taken, self.installed = world, 0, 0
        world.make_node = self.make

    def make(self, seat: Seat) -> RaftNode:
        raft = RaftNode(seat.name, seat.journal, seat.machine, self.world.failures.append, group=seat.group,
                        on_restart=lambda: self.restart(seat))
        seat.group.serve_snapshots(folder_of(seat), seat.disk, lambda: self.take(seat))
        return raft

    async def take(self, seat: Seat) -> None:
        self.taken += 1
        folder = os.path.join(folder_of(seat), snapshot.FOLDER)
        os.makedirs(folder, exist_ok=True)
        fresh = os.path.join(folder, "taking.sqlite")
        save(seat.machine, fresh)
        index, term = snapshot.applied_in(fresh)
        await asyncio.sleep(0.5)                       # the log goes on meanwhile
        size, crc = snapshot.measure(fresh)
        snapshot.adopt(snapshot.Snapshot(index=index, term=term, size=size, crc32=crc, path=fresh), folder_of(seat), Unsynced())

    def restart(self, seat: Seat) -> None:
        self.installed += 1
        seat.kill()
        self.reload(seat)
        self.world.loop.call_soon(lambda: seat.start(wanted=self.world.wanted) if seat.raft is None else None)

    def reload(self, seat: Seat) -> None:
        load(seat.machine, snapshot.current_file(folder_of(seat), Unsynced())[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, 21) as world:
        world.keep_bytes = 500
        library = Library(world)
        world.library = library                        # type: ignore[attr-defined]
        world.run(world.begin())
        yield world


def library_of(world: World) -> Library:
    return world.library                               # type: ignore[attr-defined, no-any-return]


async def left_behind(world: World) -> tuple[Seat, Seat, Seat]:
    """(the leader, the member that is behind and not running, the other one)."""
    leader = await world.leader()
    behind, other = (seat for seat in world.seats.values() if seat is not leader)
    behind.kill()
    for number in range(60):
        await world.write(f"entry {number} while one is away".encode())
    assert leader.journal.first_index > behind.journal.last_index
    return leader, behind, other


async def busy(world: World, until: Any) -> None:
    number = 0
    while not until():
        number += 1
        await world.write(f"meanwhile {number}".encode())
        await asyncio.sleep(0.02)


def test_a_member_behind_fetches_a_snapshot_and_goes_on(world: World) -> None:
    async def run() -> None:
        _, behind, _ = await left_behind(world)
        behind.start()
        await busy(world, lambda: library_of(world).installed > 0)
        await world.settle()

    world.run(run())
    assert library_of(world).taken == 1, "the entries after it are kept until it has been fetched"


@pytest.mark.parametrize("trouble", ["lost", "late", "cut", "redial"])
def test_links_fail_in_the_middle(world: World, trouble: str) -> None:
    async def run() -> None:
        _, behind, _ = await left_behind(world)
        behind.start()
        pages = 0

        def spoil(source: str, target: str, message: Message) -> bool:
            nonlocal pages
            if not isinstance(message, Paged):
                return False
            pages += 1
            if trouble == "lost":
                return pages % 3 == 2
            if trouble == "cut" and pages == 3:
                world.net.partition({behind.name})
                world.loop.call_later(3.5, world.net.cut.clear)
            if trouble == "redial" and pages in (2, 3):
                behind.post.redial(source)
            return False

        world.net.on_frame = spoil
        if trouble == "late":
            world.net.delay = (0.001, 0.3)
        await world.until(lambda: library_of(world).installed > 0, 120)
        world.net.on_frame = None
        await world.settle()

    world.run(run())


def test_another_leader_in_the_middle(world: World) -> None:
    async def run() -> None:
        leader, behind, _ = await left_behind(world)
        behind.start()
        seen = asyncio.Event()

        def spoil(source: str, target: str, message: Message) -> bool:
            if isinstance(message, Page) and message.offset >= 2 << 20:
                seen.set()
                return True
            return False

        world.net.on_frame = spoil
        await seen.wait()
        leader.kill()
        world.net.on_frame = None
        await world.until(lambda: any(seat.leads for seat in world.seats.values()))
        await world.until(lambda: library_of(world).installed > 0, 120)
        await world.settle()

    world.run(run())


def test_a_damaged_page_is_fetched_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = catching_up._read
    damaged = []

    def read(path: str, offset: int) -> bytes:
        data = bytearray(whole(path, offset))
        if offset and not damaged:
            damaged.append(offset)
            data[100] ^= 1
        return bytes(data)

    monkeypatch.setattr(catching_up, "_read", read)

    async def run() -> None:
        _, behind, _ = await left_behind(world)
        behind.start()
        await world.until(lambda: library_of(world).installed > 0, 120)
        await world.settle()

    world.run(run())
    assert damaged
    assert library_of(world).installed == 1


def test_a_crash_at_any_step_of_the_installation_loses_nothing(tmp_path: Path) -> None:
    """Afterwards journal and SQLite either fit, or the journal begins after SQLite's last entry, and SQLite is made anew from
    the newest snapshot there (consensus.recovery)."""

    class Stopping(Unsynced):
        __slots__ = ("left",)

        def step_(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Stopped

        def write(self, fd: int, data: Any, step: str) -> None:
            self.step_()
            super().write(fd, data, step)

        def rename(self, old: str, new: str, step: str) -> None:
            self.step_()
            super().rename(old, new, step)

        def unlink(self, path: str, step: str) -> None:
            self.step_()
            super().unlink(path, step)

    ways = set()
    for stop_at in range(60):
        folder = str(tmp_path / f"{stop_at}")
        os.makedirs(os.path.join(folder, snapshot.FOLDER))
        disk = Stopping()
        disk.left = 10_000
        journal = Journal(os.path.join(folder, "journal"), disk, CONFIG)
        journal.setCurrentTerm(3, "a")
        for index in range(1, 9):                      # beyond 5, of a leader that was deposed: they lead nowhere
            journal.add(b"\x00old", index, 2)
        journal.sync()
        ledger = Ledger(cast(World, None))             # which is told what is applied: nothing here
        ledger.applied, ledger.applied_term, ledger.members = 5, 2, (Member(name="a", address="a:1", incarnation=b"a"),)
        save(ledger, snapshot.current_file(folder, Unsynced())[0], filler=b"")
        ledger.applied, ledger.applied_term = 7, 3
        fetched = os.path.join(folder, snapshot.FOLDER, catching_up.FETCHED)
        save(ledger, fetched, filler=b"")
        size, crc = snapshot.measure(fetched)
        disk.left = stop_at
        try:
            catching_up.install(snapshot.Snapshot(index=7, term=3, size=size, crc32=crc, path=fetched), folder, disk, journal)
        except Stopped:
            ended = False
        else:
            ended = True
        current = snapshot.current_file(folder, Unsynced())[0]
        applied, term = snapshot.applied_in(current)
        try:
            again = Journal(os.path.join(folder, "journal"), Disk(), CONFIG, applied=applied, applied_term=term)
        except SqliteBehind:
            ways.add("SQLite is made anew")
            newest = snapshot.listed(folder)[-1]
            snapshot.verify(newest)
            assert (newest.index, newest.term) == (7, 3)
            again = Journal(os.path.join(folder, "journal"), Disk(), CONFIG, applied=7, applied_term=3)
        else:
            ways.add(f"at {applied}, with a log to {again.last_index}")
        assert again.getCurrentTerm() == 3
        assert again.getVotedForNodeId() == "a"
        again.close()
        if ended:
            break
    assert ended
    assert ways == {"at 5, with a log to 8", "SQLite is made anew", "at 7, with a log to 7"}


def test_a_member_that_is_fetching_keeps_its_leader(world: World) -> None:
    """With the third one gone, the leader needs its answers: it does not take it for dead."""
    async def run() -> None:
        leader, behind, other = await left_behind(world)
        world.net.on_frame = lambda source, target, message: isinstance(message, Paged)       # it never comes to an end
        behind.start()
        await asyncio.sleep(0.5)
        other.kill()
        await asyncio.sleep(3 * world.timing.fallback_s)
        assert leader.leads
        assert behind.raft is not None
        assert behind.raft.leader == leader.name
        other.start()
        world.net.on_frame = None
        await world.until(lambda: library_of(world).installed > 0, 120)
        await world.settle()

    world.run(run())


def test_pages_that_nobody_asked_for_do_nothing(world: World) -> None:
    async def run() -> None:
        leader = await world.leader()
        one = next(seat for seat in world.seats.values() if seat is not leader)
        world.net.inject(leader.name, one.name, Paged(1, 99, 1, 100, 0, 0, b"x" * 100))
        await asyncio.sleep(1)
        assert not os.path.exists(os.path.join(folder_of(one), snapshot.FOLDER))

    world.run(run())


def test_entries_are_not_kept_for_ever(world: World) -> None:
    async def run() -> None:
        leader, behind, _ = await left_behind(world)
        behind.start()
        await world.until(lambda: library_of(world).installed > 0, 120)
        assert leader.journal.keep_from is not None
        await asyncio.sleep(catching_up.NEEDED_S + 1)
        assert leader.journal.keep_from is None

    world.run(run())


def test_the_entry_before_the_log_is_never_sent_in_its_place(world: World) -> None:
    """Who has begun at a snapshot knows the term of its last entry, but not its bytes. A member that lacks just that one gets
    a snapshot too (it got nothing in its place, and differed from then on)."""
    async def run() -> None:
        _, behind, other = await left_behind(world)
        behind.start()
        await world.until(lambda: library_of(world).installed > 0, 120)
        await world.settle()
        base = behind.journal.first_index
        behind.kill()
        behind.start()
        raft = behind.raft
        assert raft is not None
        assert behind.journal.first_index == base
        sent: list[Message] = []
        replication = behind.group.replication
        replication._send = lambda name, message: sent.append(message)
        core, node = behind.group._core, behind.group._peer(other.name)
        for following in (base, base + 1):
            core.next_index[node] = following
            replication.send_to(node, beat=True)
        assert isinstance(sent[0], Behind)
        assert isinstance(sent[1], Append)
        assert sent[1].previous == base
        assert [entry[1:] for _, entry in sent[1].entries if entry[0] == COMMANDS] == [
            entry for index, entry in sorted(world.committed.items()) if index > base and entry[0] != CONFIGURATION]
        behind.kill()
        behind.start()
        await world.settle()

    world.run(run())


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_over_members_that_remember_little(tmp_path: Path, seed: int) -> None:
    with World(tmp_path, 100 + seed) as world:
        world.keep_bytes = 300
        library = Library(world)
        world.run(storm(world, "pohkkssslg"))
        assert library.installed > 0
