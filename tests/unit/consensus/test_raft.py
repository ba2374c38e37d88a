"""A member answers an entry after it is in the journal and in the machine, in that order, and never otherwise."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pysyncobj.syncobj
import pytest

from consensus import raft, raft_library
from consensus.config import MetaConfig
from consensus.core.errors import Unavailable
from consensus.core.results import AnyResult, Drained
from consensus.disk import Disk
from consensus.journal import Journal, JournalFailed
from consensus.raft import RaftNode
from consensus.raft_library import check_library
from tests.unit.consensus.crash import FaultyDisk, Stopped, Unsynced, every_step

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Tally:
    """A machine in memory: the list of entries. `saved` is what it finds when it is opened again."""

    def __init__(self, events: list[str] | None = None) -> None:
        self.applied = self.applied_term = 0
        self.entries: list[tuple[int, bytes]] = []
        self.open: list[tuple[int, bytes]] = []
        self.events = events if events is not None else []
        self.commits: list[int] = []
        self.decoded: list[Any] = []

    def apply(self, entry: bytes, index: int, decoded: Any = None) -> list[AnyResult]:
        assert index > self.applied
        self.decoded.append(decoded)
        self.open.append((index, entry))
        self.events.append(f"apply {entry.decode()}")
        return [Drained(released=index, more=False)]

    def commit(self, applied: int, term: int) -> None:
        assert applied >= self.applied
        self.entries += self.open
        self.open = []
        self.applied, self.applied_term = applied, term
        self.commits.append(applied)
        self.events.append("commit")


class Member:
    """A member on a folder, with a machine that survives restarts."""

    def __init__(self, folder: Path | str, machine: Tally | None = None, disk: Disk | None = None) -> None:
        self.failures: list[BaseException] = []
        self.machine = machine or Tally()
        self.journal = Journal(f"{folder}/journal", disk or Unsynced(), MetaConfig(segment_bytes=2000),
                               applied=self.machine.applied, applied_term=self.machine.applied_term)
        self.raft = RaftNode("one", self.journal, self.machine, self.failures.append)
        self.raft.start()

    async def submit(self, text: str) -> int:
        (result,) = await self.raft.submit(text.encode())
        assert isinstance(result, Drained)
        return result.released

    def stop(self) -> None:
        self.raft.stop()
        self.journal.close()


def test_the_library_is_the_audited_one() -> None:
    check_library()


@pytest.mark.parametrize("name", raft_library.PRIVATE_METHODS)
def test_a_missing_private_name_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(pysyncobj.syncobj.SyncObj, name)
    with pytest.raises(RuntimeError, match=name):
        check_library()


def test_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft_library, "VERSION", "0.3.18")
    with pytest.raises(RuntimeError, match=r"0\.3\.18"):
        check_library()


async def test_a_group_of_one_leads_at_once(tmp_path: Path) -> None:
    member = Member(tmp_path)
    status = member.raft.status()
    assert (status.role, status.term, status.leader) == ("leader", 1, "one")
    assert await member.raft.read_index() == status.commit_index == status.applied_index == 2
    member.stop()


async def test_the_term_never_decreases(tmp_path: Path) -> None:
    machine = Tally()
    for term in range(1, 6):
        member = Member(tmp_path, machine)
        assert member.raft.status().term == term
        member.stop()


async def test_the_order_within_a_tick(tmp_path: Path) -> None:
    events: list[str] = []
    disk = FaultyDisk(str(tmp_path))
    disk.on_step = lambda step, path: events.append(step)
    member = Member(tmp_path, Tally(events), disk)
    events.clear()
    futures = [member.raft.submit(text) for text in (b"a", b"b")]
    for future in futures:
        future.add_done_callback(lambda future: events.append("answer"))
    await asyncio.gather(*futures)
    assert events == ["journal.write", "journal.fdatasync", "apply a", "apply b", "commit", "answer", "answer"]
    member.stop()


async def test_what_queues_in_one_turn_shares_a_sync_and_a_transaction(tmp_path: Path) -> None:
    member = Member(tmp_path)
    syncs, commits = member.journal.syncs, len(member.machine.commits)
    indices = await asyncio.gather(*(member.submit(str(number)) for number in range(100)))
    assert indices == list(range(indices[0], indices[0] + 100))
    assert (member.journal.syncs - syncs, len(member.machine.commits) - commits) == (1, 1)
    assert len(member.journal) == 1, "applied entries aren't held in memory"
    member.stop()


async def test_an_entry_is_not_decoded_again_where_its_bytes_are_the_same(tmp_path: Path) -> None:
    member = Member(tmp_path)
    given: list[Any] = ["what a decodes to"]
    member.raft.propose(b"a", lambda results, error: None, given)
    await member.submit("b")
    # As if another leader's entry had come in the place of one of ours.
    member.raft._decoded[member.journal.last_index + 1] = (b"\0c", given)
    await member.submit("c")
    assert member.machine.decoded == [given, None, None]
    assert member.raft._decoded == {}, "nothing is kept of what is applied"
    member.stop()


async def test_entries_that_the_machine_lost_are_applied_again_and_no_others(tmp_path: Path) -> None:
    member = Member(tmp_path)
    for number in range(200):
        await member.submit(str(number))
    member.stop()
    whole = member.machine.entries

    older = Tally()                                    # SQLite after a power cut: an earlier state
    older.entries, older.applied, older.applied_term = whole[:50], whole[49][0], 1
    member = Member(tmp_path, older)
    assert member.machine.entries == whole
    assert max(b - a for a, b in zip(older.commits, older.commits[1:], strict=False)) <= raft.REPLAY_COMMIT_ENTRIES + 2
    member.stop()

    again = Member(tmp_path, older)
    assert again.machine.entries == whole
    again.stop()


async def test_equal_logs_give_equal_states(tmp_path: Path) -> None:
    """Replays that stop and start anywhere end where an undisturbed one does."""
    member = Member(tmp_path)
    for number in range(60):
        await member.submit(str(number))
    member.stop()
    chance = random.Random(1)
    for _ in range(10):
        machine = Tally()
        place = chance.randrange(60)
        machine.entries, machine.applied, machine.applied_term = (
            member.machine.entries[:place], member.machine.entries[place][0] - 1, 1)
        other = Member(tmp_path, machine)
        assert machine.entries == member.machine.entries
        other.stop()


@pytest.mark.parametrize("step", ["journal.write", "journal.fdatasync"])
async def test_a_failing_journal_answers_nobody(tmp_path: Path, step: str) -> None:
    disk = FaultyDisk(str(tmp_path))
    member = Member(tmp_path, disk=disk)
    disk.fail_step = step
    lost = member.raft.submit(b"lost")
    later = asyncio.ensure_future(asyncio.sleep(0, "turn"))
    await later
    await asyncio.sleep(0)
    assert [type(failure) for failure in member.failures] == [JournalFailed]
    assert not lost.done()
    assert member.machine.entries == []
    after = member.raft.submit(b"after")
    await asyncio.sleep(0)
    assert not after.done()
    with pytest.raises(Unavailable):
        await member.raft.read_index()


async def test_a_failing_machine_answers_nobody_and_is_not_asked_again(tmp_path: Path) -> None:
    class Broken(Tally):
        calls = 0

        def apply(self, entry: bytes, index: int) -> list[AnyResult]:
            self.calls += 1
            raise RuntimeError("SQLite says no")

    machine = Broken()
    member = Member(tmp_path, machine)
    future = member.raft.submit(b"x")
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(member.failures) == machine.calls == 1
    assert not future.done()


async def test_stop_answers_what_has_queued(tmp_path: Path) -> None:
    member = Member(tmp_path)
    future = member.raft.submit(b"last")
    member.stop()
    assert future.done()
    assert [entry for _, entry in member.machine.entries] == [b"last"]


def test_a_power_cut_at_every_step_loses_no_answered_entry(tmp_path: Path) -> None:
    """Start, election, entries, new segments, trim: stopped before each durable step, power lost, started again."""
    answered: list[str] = []
    durable: list[Tally] = []

    def work(disk: FaultyDisk) -> None:
        answered.clear()
        durable.clear()
        durable.append(Tally())

        async def live() -> None:
            def stop(error: BaseException) -> None:
                raise error

            machine = Tally()
            member = Member.__new__(Member)
            member.machine = machine
            member.journal = Journal(f"{disk.root}/journal", disk, MetaConfig(segment_bytes=500))
            member.raft = RaftNode("one", member.journal, machine, stop)
            member.raft.start()
            for number in range(12):
                future = member.raft.submit(f"{number}".encode() * 9)
                member.raft._tick()                       # in place of the loop's turn, so that Stopped comes out here
                await future
                answered.append(f"{number}" * 9)
                if number == 7:                           # SQLite is checkpointed
                    durable[0] = Tally()
                    durable[0].entries, durable[0].applied = list(machine.entries), machine.applied
                    durable[0].applied_term = machine.applied_term
                    member.journal.trim(machine.applied)

        asyncio.run(live())

    def fresh(number: int) -> str:
        (tmp_path / f"{number}").mkdir()
        return str(tmp_path / f"{number}")

    async def recovered(folder: str) -> list[str]:
        machine = Tally()
        kept = durable[0]
        machine.entries, machine.applied, machine.applied_term = list(kept.entries), kept.applied, kept.applied_term
        member = Member(folder, machine)
        await member.submit("more")
        member.stop()
        return [entry.decode() for _, entry in machine.entries]

    steps = []
    for number, disk in every_step(work, fresh):
        steps.append(disk.steps[-1])
        for seed in range(3):
            disk.power_cut(seed, str(tmp_path / "cut"))
            found = asyncio.run(recovered(str(tmp_path / "cut")))
            assert found[:len(answered)] == answered, f"step {number} ({steps[-1]}), seed {seed}"
            assert len(found) <= len(answered) + 2        # one entry may have been under way
    assert len(steps) > 35
    assert {"journal.trim.unlink", "journal.segment.fdatasync"} <= set(steps)
    with pytest.raises(Stopped):
        disk.step("after", "")
