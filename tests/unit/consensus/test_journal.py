"""The journal keeps what it synced through every crash, power cut and failure, and says so when it cannot."""

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from consensus.config import MetaConfig
from consensus.core.errors import Corrupt
from consensus.disk import Buffer, Disk
from consensus.journal import CONFIGURATION, Journal, JournalFailed
from consensus.segment import HEAD_BYTES
from tests.unit.consensus.crash import FaultyDisk, Unsynced, every_step

SMALL = MetaConfig(segment_bytes=600)
"""A segment holds four or five entries."""


def open_journal(
    folder: str | Path, disk: Disk | None = None, *, applied: int = 0, keep_bytes: int = 1 << 30
) -> Journal:
    return Journal(os.path.join(folder, "journal"), disk or Unsynced(), SMALL, applied=applied,
                   applied_term=1 if applied else 0, keep_bytes=keep_bytes)


def payload(index: int) -> bytes:
    return b"\0" + f"entry {index} ".encode() * (1 + index % 7)


def fill(journal: Journal, last: int, *, group: int = 1) -> None:
    """Entries up to `last` of term 1, synced in groups."""
    first = journal.last_index + 1
    for index in range(first, last + 1):
        journal.add(payload(index), index, 1)
        if (index - first + 1) % group == 0:
            journal.sync()
    journal.sync()


def held(journal: Journal) -> dict[int, bytes]:
    return {index: command for command, index, _ in journal[:]}


def sent(journal: Journal) -> dict[int, bytes]:
    """What other members may get: all after the first one, which may stand for an entry that isn't here."""
    return {index: command for index, command in held(journal).items() if index > journal.first_index}


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "journal").glob("*.log"))


def test_what_was_synced_is_there_after_reopening(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(1, "me")
    fill(journal, 40, group=3)
    journal.setCurrentTerm(2, None)
    assert journal.segment_count > 3
    journal.close()

    journal = open_journal(tmp_path)
    assert held(journal) == {index: payload(index) for index in range(1, 41)}
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (2, None)


def test_only_what_sqlite_lacks_is_held_in_memory(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 40)
    journal.close()
    journal = open_journal(tmp_path, applied=35, keep_bytes=0)
    assert held(journal) == {index: payload(index) for index in range(35, 41)}
    journal.forget(40)
    assert held(journal) == {40: payload(40)}
    fill(journal, 41)
    assert journal.term_at(41) == 1
    assert journal.term_at(39) is None


def test_in_a_group_a_start_reads_some_more_for_others(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 40)
    journal.close()
    journal = open_journal(tmp_path, applied=35, keep_bytes=0)
    needed = journal.first_index                                    # or a little before, as segments go
    journal.close()
    journal = open_journal(tmp_path, applied=35, keep_bytes=1500)
    assert 5 < journal.first_index < needed - 10
    assert sent(journal) == {index: payload(index) for index in range(journal.first_index + 1, 41)}
    journal.close()
    older = next(path for path in reversed(segments(tmp_path)) if payload(needed - 10) in path.read_bytes())
    older.write_bytes(older.read_bytes().replace(payload(needed - 10), b"?" * len(payload(needed - 10))))
    journal = open_journal(tmp_path, applied=35, keep_bytes=1500)
    assert needed - 10 < journal.first_index <= 35, "what nobody here needs may be damaged"
    assert sent(journal) == {index: payload(index) for index in range(journal.first_index + 1, 41)}
    journal.close()


def test_an_entry_that_only_a_snapshot_holds_is_never_sent(tmp_path: Path) -> None:
    """Its term is known, its bytes are not: another member would carry out nothing in its place."""
    journal = open_journal(tmp_path)
    fill(journal, 40)
    journal.reset_to(60, 3)
    journal.add(payload(61), 61, 3)
    journal.sync()
    for _ in range(2):
        assert journal.term_at(59) is None
        assert journal.term_at(60) == 3
        assert sent(journal) == {61: payload(61)}
        journal.close()
        journal = open_journal(tmp_path, applied=60)
    journal.close()


def test_configurations_are_known_as_long_as_they_are_in_the_log(tmp_path: Path) -> None:
    """In force from when they are there, and no longer once they are cut off."""
    one, two, three = (bytes((CONFIGURATION,)) + name for name in (b"one", b"two", b"three"))
    journal = open_journal(tmp_path)
    fill(journal, 3)
    journal.add(one, 4, 1)
    fill(journal, 6)
    journal.add(two, 7, 1)
    journal.sync()
    assert journal.configurations == [(4, one), (7, two)]
    journal.deleteEntriesFrom(5)                                    # after entry 5
    assert journal.configurations == [(4, one)]
    journal.end_message()
    assert journal.configurations == [(4, one), (7, two)], "nothing has contradicted it"
    journal.deleteEntriesFrom(6)
    journal.add(two, 7, 1)
    assert journal.configurations == [(4, one), (7, two)], "the same again"
    journal.deleteEntriesFrom(6)
    journal.add(three, 7, 2)
    journal.end_message()
    assert journal.configurations == [(4, one), (7, three)]
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.configurations == [(4, one), (7, three)]
    journal.deleteEntriesFrom(3)
    journal.add(payload(4), 4, 3)
    journal.end_message()
    assert journal.configurations == []
    journal.reset_to(20, 3)
    assert journal.configurations == [], "a snapshot has it"
    journal.close()


def test_for_who_fetches_a_snapshot_entries_stay_in_memory(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, keep_bytes=100)
    fill(journal, 20)
    journal.keep_from = 10
    journal.forget(20)
    assert journal.first_index == 10
    journal.keep_from = None
    journal.forget(20)
    assert journal.first_index > 10
    journal.close()


def test_trim_removes_whole_segments_that_sqlite_has(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 40)
    before = len(segments(tmp_path))
    gone = journal.trim(20)
    assert gone > 0
    assert len(segments(tmp_path)) == before - gone == journal.segment_count
    assert journal.size_bytes == sum(path.stat().st_size for path in segments(tmp_path))
    journal.close()
    assert max(held(open_journal(tmp_path, applied=20))) == 40
    with pytest.raises(Corrupt, match="SQLite ends at 3"):
        open_journal(tmp_path, applied=3)


def test_a_log_that_sqlite_is_ahead_of_begins_anew(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(1, "me")
    fill(journal, 5)
    journal.close()
    journal = Journal(str(tmp_path / "journal"), Unsynced(), SMALL, applied=90, applied_term=7)
    assert (journal.last_index, journal.term_at(90)) == (90, 7)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, None)
    journal.add(b"\0next", 91, 8)
    journal.close()
    journal = Journal(str(tmp_path / "journal"), Unsynced(), SMALL, applied=90, applied_term=7)
    assert (journal.last_index, journal.term_at(91), journal.getCurrentTerm()) == (91, 8, 7)


def test_a_log_that_begins_after_sqlite_ends_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 5)
    journal.reset_to(90, 7)                     # a snapshot was installed, and SQLite was lost after that
    journal.close()
    for applied in (0, 5, 80):
        with pytest.raises(Corrupt, match="begins after entry"):
            open_journal(tmp_path, applied=applied)


def test_sqlite_of_another_history_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 5)
    journal.close()
    with pytest.raises(Corrupt, match="entry 4 is of term 1"):
        Journal(str(tmp_path / "journal"), Unsynced(), SMALL, applied=4, applied_term=3, keep_bytes=1 << 20)


# Zeros ahead of the end

class Measuring(Disk):
    """Remembers how long the newest segment was at each sync."""

    ahead_bytes = 40_000

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def fdatasync(self, fd: int, step: str) -> None:
        if step == "journal.fdatasync":
            self.lengths.append(os.fstat(fd).st_size)
        super().fdatasync(fd, step)


class NoRoomAhead(Unsynced):
    def pwrite(self, fd: int, data: Buffer, offset: int, step: str) -> None:
        if step == "journal.ahead":
            raise OSError(errno.ENOSPC, "no room")
        super().pwrite(fd, data, offset, step)


def test_records_are_written_over_zeros_that_lie_there_already(tmp_path: Path) -> None:
    """So that a sync need not make the file system write down a new length or new blocks."""
    disk = Measuring()
    journal = Journal(str(tmp_path / "journal"), disk, MetaConfig(segment_bytes=100_000), keep_bytes=1 << 20)
    fill(journal, 2000)
    grown = [length for before, length in zip(disk.lengths, disk.lengths[1:], strict=False) if length > before]
    assert len(disk.lengths) == 2000
    assert len(grown) <= 5, "each 40,000 bytes, and a short rest at the end of a segment"
    assert [path.stat().st_size for path in segments(tmp_path)][:-1] == journal._sizes[:-1]
    journal.close()
    assert [path.stat().st_size for path in segments(tmp_path)] == journal._sizes
    assert held(open_journal(tmp_path)) == {index: payload(index) for index in range(1, 2001)}


def test_a_crash_leaves_zeros_and_they_are_no_damage(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 3)
    newest = segments(tmp_path)[-1]
    assert newest.read_bytes().endswith(bytes(100))
    left = shutil.copytree(tmp_path, tmp_path / "left", ignore=shutil.ignore_patterns("left"))
    assert held(open_journal(left)) == {index: payload(index) for index in range(1, 4)}


def test_a_disk_without_room_for_zeros_still_takes_records(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, NoRoomAhead())
    fill(journal, 40)
    journal.close()
    assert held(open_journal(tmp_path)) == {index: payload(index) for index in range(1, 41)}


# Cutting the tail

def test_a_cut_that_nothing_contradicts_comes_back(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 9)
    syncs = journal.bytes_written
    journal.deleteEntriesFrom(4)
    assert journal.last_index == 4
    journal.add(payload(5), 5, 1)          # the same again, as a repeated message has it
    journal.end_message()
    assert journal.last_index == 9
    journal.sync()
    assert journal.bytes_written == syncs, "nothing had to be written again"


def test_a_contradicted_tail_is_gone_for_good(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 9)
    journal.deleteEntriesFrom(6)
    journal.add(payload(7), 7, 1)
    journal.add(b"\0other", 8, 2)
    journal.end_message()
    journal.sync()
    assert journal.last_index == 8
    journal.close()
    journal = open_journal(tmp_path)
    assert held(journal) == {**{index: payload(index) for index in range(1, 8)}, 8: b"\0other"}


def test_a_committed_entry_is_never_contradicted(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 9)
    journal.setRaftCommitIndex(8)
    journal.deleteEntriesFrom(6)
    with pytest.raises(Corrupt, match="committed entry 7"):
        journal.add(b"\0other", 7, 2)


# Damage

def damaged_journal(tmp_path: Path, entries: int = 7) -> tuple[bytes, list[int], Path]:
    """One segment's bytes, the offsets at which its groups of records begin, and its path."""
    journal = Journal(str(tmp_path / "journal"), Unsynced(), MetaConfig(), keep_bytes=1 << 20)
    offsets = []
    for index in range(1, entries + 1, 2):           # groups of two entries
        offsets.append(HEAD_BYTES + journal.bytes_written)
        journal.add(payload(index), index, 1)
        journal.add(payload(index + 1), index + 1, 1)
        journal.sync()
    journal.close()
    (path,) = segments(tmp_path)
    return path.read_bytes(), offsets, path


def reopened(path: Path, data: bytes) -> dict[int, bytes] | None:
    """What a journal with this one segment holds; None if it refuses."""
    path.write_bytes(data)
    try:
        journal = Journal(str(path.parent), Unsynced(), MetaConfig(), keep_bytes=1 << 20)
    except Corrupt:
        return None
    found = held(journal)
    journal.close()
    return found


def test_a_cut_at_every_byte_leaves_a_prefix(tmp_path: Path) -> None:
    data, _, path = damaged_journal(tmp_path)
    lengths = set()
    for length in range(HEAD_BYTES + 1, len(data)):
        found = reopened(path, data[:length])
        assert found == {index: payload(index) for index in range(1, len(found or ()) + 1)}
        lengths.add(len(found))
    assert lengths == set(range(8))


def test_a_flip_of_every_byte_is_refused_or_costs_only_the_last_group(tmp_path: Path) -> None:
    data, offsets, path = damaged_journal(tmp_path)
    refused = kept = 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        found = reopened(path, bytes(flipped))
        if place < offsets[-1]:
            assert found is None, f"byte {place} was durable before the last group and its damage must be seen"
            refused += 1
        else:
            assert found is not None
            assert 6 <= len(found) < 8
            assert found == {index: payload(index) for index in range(1, len(found) + 1)}
            kept += 1
    assert refused > 500
    assert kept > 50


def test_a_hole_in_the_last_group_is_torn_and_not_damage(tmp_path: Path) -> None:
    """The kernel may write a later page of an unsynced write and not an earlier one."""
    data, offsets, path = damaged_journal(tmp_path)
    hole = bytearray(data)
    hole[offsets[-1]:offsets[-1] + 20] = bytes(20)
    found = reopened(path, bytes(hole))
    assert found is not None
    assert set(found) == set(range(1, 7))


def test_damage_in_an_older_segment_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 30)
    journal.close()
    path = segments(tmp_path)[1]
    data = path.read_bytes()
    for broken in (data[:-1], data[:HEAD_BYTES], data[:50], data[:-1] + bytes((data[-1] ^ 1,))):
        path.write_bytes(broken)
        with pytest.raises(Corrupt):
            open_journal(tmp_path)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        open_journal(tmp_path)


def test_a_segment_under_another_name_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 30)
    journal.close()
    paths = segments(tmp_path)
    shutil.copyfile(paths[1], paths[2])
    with pytest.raises(Corrupt, match="holds segment 2"):
        open_journal(tmp_path)


def test_a_record_inside_a_command_is_not_mistaken_for_one(tmp_path: Path) -> None:
    """Clients choose keys and metadata: records of another journal in them must not make damage of a torn end."""
    data, offsets, path = damaged_journal(tmp_path)
    forged = data[offsets[1]:offsets[2]]
    path.unlink()
    journal = Journal(str(path.parent), Unsynced(), MetaConfig(), keep_bytes=1 << 20)
    fill(journal, 3)
    journal.add(b"\0" + forged * 3, 4, 1)
    journal.sync()
    journal.close()
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[len(whole) - 3 * len(forged) - 10] ^= 1
    found = reopened(path, bytes(torn))
    assert found is not None
    assert set(found) == {1, 2, 3}


# Crashes

class Work:
    """A journal's life: entries, votes, segments, trims. Knows what was promised."""

    def __init__(self) -> None:
        self.synced = 0
        self.applied = 0
        self.vote = (0, "")

    def run(self, disk: FaultyDisk) -> None:
        journal = open_journal(disk.root, disk)
        try:
            self._vote(journal, 1)
            for last in range(2, 24, 2):
                for index in (last - 1, last):
                    journal.add(payload(index), index, 1)
                journal.sync()
                self.synced = last
                if last == 16:
                    self.applied = 12               # SQLite has been checkpointed: nothing before is needed
                    journal.trim(12)
                if last == 18:
                    self._vote(journal, 2)
            journal.close()
            journal = open_journal(disk.root, disk, applied=self.applied)
            journal.add(payload(23), 23, 1)
            journal.sync()
            self.synced = 23
        finally:
            with contextlib.suppress(JournalFailed, OSError):
                os.close(journal._fd)

    def _vote(self, journal: Journal, term: int) -> None:
        journal.setCurrentTerm(term, "me")
        self.vote = (term, "me")

    def lost(self, folder: str) -> str:
        """What is missing of the promised, in words; empty if nothing is."""
        try:
            journal = open_journal(folder, applied=self.applied)
        except Corrupt as error:
            return f"refused: {error}"
        found = held(journal)
        missing = [index for index in range(self.applied + 1, self.synced + 1) if found.get(index) != payload(index)]
        if missing:
            return f"entries {missing} of {self.synced}"
        if (journal.getCurrentTerm(), journal.getVotedForNodeId() or "") < self.vote:
            return "the vote"
        journal.add(payload(journal.last_index + 1), journal.last_index + 1, 1)
        journal.close()
        return ""


def test_a_power_cut_at_every_step_loses_nothing(tmp_path: Path) -> None:
    names: dict[str, int] = {}
    work: list[Work] = []

    def run(disk: FaultyDisk) -> None:
        work.append(Work())
        work[-1].run(disk)

    def fresh(number: int) -> str:
        (tmp_path / str(number)).mkdir()
        return str(tmp_path / str(number))

    cuts = 0
    for number, disk in every_step(run, fresh):
        names[disk.steps[-1]] = names.get(disk.steps[-1], 0) + 1
        for seed in range(6):
            disk.power_cut(seed, str(tmp_path / "cut"))
            lost = work[-1].lost(str(tmp_path / "cut"))
            assert not lost, f"step {number} ({disk.steps[-1]}), seed {seed}: {lost}"
            cuts += 1
        assert not work[-1].lost(disk.root), f"killed at step {number} ({disk.steps[-1]})"
    print(f"{cuts} power cuts at {sum(names.values())} steps: {names}")
    assert {"journal.write", "journal.fdatasync", "journal.segment.write", "journal.segment.fsync_dir",
            "journal.trim.unlink", "journal.start.rename"} <= set(names)


def test_control_a_swallowed_sync_loses_entries(tmp_path: Path) -> None:
    lost = 0
    for seed in range(10):
        root = tmp_path / str(seed)
        root.mkdir()
        disk, work = FaultyDisk(str(root)), Work()
        disk.broken_sync = True
        work.run(disk)
        disk.power_cut(seed, str(tmp_path / "cut"))
        lost += bool(work.lost(str(tmp_path / "cut")))
    assert lost >= 9


@pytest.mark.parametrize("vouch", [True, False], ids=["as it is", "control: without writing the segment again"])
def test_after_a_failure_a_restart_and_a_power_cut_nothing_acknowledged_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vouch: bool
) -> None:
    """A failed sync leaves clean pages over lost bytes: what a restart reads may not be on the disk at all."""
    if not vouch:
        monkeypatch.setattr(Journal, "_vouch", lambda self, number, valid: None)
    lost, failures = [], 0
    for number in range(100):
        root = tmp_path / str(number)
        root.mkdir()
        disk, work = FaultyDisk(str(root)), Work()
        disk.fail_at = number
        try:
            work.run(disk)
        except (JournalFailed, OSError):
            failures += 1
        else:
            if number < len(disk.steps):
                assert disk.steps[number] in ("journal.ahead", "journal.close.truncate"), "only zeros may fail, or stay"
                continue
            break
        try:
            journal = open_journal(root, disk, applied=work.applied)      # the process starts again, not the machine
        except OSError:
            continue
        found = held(journal)
        journal.add(b"\0later", journal.last_index + 1, 1)
        journal.sync()                                                     # and vouches for what it found
        work.synced = max(found, default=0)
        journal.close()
        disk.power_cut(number, str(tmp_path / "cut"))
        try:
            after = held(open_journal(tmp_path / "cut", applied=work.applied))
        except Corrupt:
            after = {}
        if any(after.get(index) != command for index, command in found.items() if index > work.applied):
            lost.append(disk.steps[number])
    assert failures > 40
    assert bool(lost) != vouch, lost


def test_a_failed_journal_says_nothing_more(tmp_path: Path) -> None:
    disk = FaultyDisk(str(tmp_path))
    journal = open_journal(tmp_path, disk)
    fill(journal, 3)
    journal.add(payload(4), 4, 1)
    disk.fail_step = "journal.fdatasync"
    with pytest.raises(JournalFailed):
        journal.sync()
    steps = len(disk.steps)
    with pytest.raises(JournalFailed):
        journal.sync()
    with pytest.raises(JournalFailed):
        journal.setCurrentTerm(9, "me")
    journal.close()
    assert len(disk.steps) == steps, "a failed file is never written or synced again"


def test_random_lives(tmp_path: Path) -> None:
    """Open, write, cut tails, trim, lose power, again and again in the same folder."""
    chance = random.Random(4)
    root, target = tmp_path / "a", tmp_path / "b"
    root.mkdir()
    model: dict[int, tuple[bytes, int]] = {}
    applied = term = 0
    for life in range(60):
        disk = FaultyDisk(str(root))
        journal = Journal(str(root / "journal"), disk, SMALL, applied=applied,
                          applied_term=model[applied][1] if applied else 0, keep_bytes=chance.choice((0, 1 << 20)))
        for index, (command, of_term) in model.items():
            if index > applied:
                assert journal.term_at(index) == of_term
                assert held(journal)[index] == command
        # What was written and not synced may have survived, or not.
        for command, index, of_term in journal[:]:
            if index > max(model, default=0):
                model[index] = (command, of_term)
        term += 1
        journal.setCurrentTerm(term, "me")
        for _ in range(chance.randrange(12)):
            last = journal.last_index
            if last > applied + 1 and chance.random() < 0.3:
                cut = chance.randint(applied + 1, last)
                first = journal[0][1]
                if cut > first:
                    term += 1                   # (index, term) names one command for ever
                    journal.setCurrentTerm(term, None)
                    journal.deleteEntriesFrom(cut - first)
                    journal.add(f"\0{life}".encode(), cut, term)
                    journal.end_message()
                    model = {index: entry for index, entry in model.items() if index < cut}
                    model[cut] = (f"\0{life}".encode(), term)
            else:
                model[last + 1] = (b"\0" + chance.randbytes(chance.randrange(200)), term)
                journal.add(model[last + 1][0], last + 1, term)
            journal.sync()
        if model and chance.random() < 0.4:
            applied = chance.randint(max(applied, 1), max(model))
            journal.trim(applied)
        if chance.random() < 0.5:
            journal.add(b"\0unsynced", journal.last_index + 1, term)
            journal.close() if chance.random() < 0.3 else os.close(journal._fd)
            if journal._fd < 0:
                model[journal.last_index] = (b"\0unsynced", term)
        else:
            journal.close()
        disk.power_cut(life, str(target))
        root, target = target, root
    assert applied > 20
