"""The durable log of a metadata member: append-only segments with a checksum per record, synced in groups.

Nouns: an *entry* is (command bytes, index, term), as PySyncObj keeps it; a *record* is an entry, a term-and-vote or a
base on disk; a *segment* is a file of records (docs/format/journal.md); the *tail* is the end of the log that is also
held in memory.

Rules:
* nothing that `add` or `setCurrentTerm` was given counts as durable before `sync` has returned;
* a write or sync that fails makes this journal unusable for good: JournalFailed, and the process must end;
* PySyncObj cuts the tail after `prevLogIdx` even when nothing conflicts, so `deleteEntriesFrom` only hides it; an equal
  entry added again restores it, and what nothing contradicted by the end of the message comes back (`end_message`);
* only whole segments go, oldest first, when SQLite holds all of their entries durably.

* it remembers where configurations of the group are, since one is in force from when it is in the log, and no longer once
  it is cut off.

It knows nothing of commands, results or SQLite.
"""

import contextlib
import os
import time
from typing import overload

from awscrt.checksums import crc32c
from pysyncobj.journal import Journal as PysyncobjJournal

from consensus.config import MetaConfig
from consensus.core.errors import Corrupt
from consensus.disk import CREATE, Disk, make_folder
from consensus.segment import (
    BASE,
    ENTRY,
    HEAD_BYTES,
    VOTE,
    Head,
    pack_record,
    read_head,
    records,
    segment_name,
    segment_numbers,
)

Entry = tuple[bytes, int, int]
NO_OP = b"\x01"
"""What PySyncObj calls a command without effect; also stands for an entry that only a snapshot holds."""

KEPT_BYTES_MAX = 256 << 20
"""Even for who fetches a snapshot, no more than this stays in memory."""

REREAD_BYTES_MAX = 16 << 20
"""A start reads no more of what SQLite has already than this: about half a second."""

COMMANDS, CONFIGURATION = 0, 4
"""First bytes of entries, beside NO_OP: 2 and 3 are PySyncObj's own, which nobody here writes or carries out."""


class JournalFailed(Exception):
    """A durable step failed. What was not yet synced is in doubt, so this process must end without another word."""


class SqliteBehind(Corrupt):
    """The journal begins after SQLite's last entry: SQLite, not the journal, is what was lost."""


class Journal(PysyncobjJournal):  # type: ignore[misc]  # the library has no types
    """See the module. Not thread-safe: lives in the loop's thread."""

    def __init__(self, folder: str, disk: Disk, config: MetaConfig, *, applied: int = 0, applied_term: int = 0,
                 keep_bytes: int = 0) -> None:
        """Open or create the journal in `folder`, whose parent exists.

        `applied` is the last entry that SQLite holds (as read, durable or not), so older ones need not be read.
        `keep_bytes` of applied entries stay in memory, for followers that lag; a group of one needs none.

        Raises Corrupt when durable records are damaged or missing, JournalFailed when the disk fails.
        """
        self._folder, self._disk, self._config, self._keep_bytes = folder, disk, config, keep_bytes
        self._log: list[Entry] = []
        self._tail_bytes = 0
        self.keep_from: int | None = None
        """Entries from here on stay in memory though SQLite has them: somebody fetches a snapshot and needs them next."""
        self.configurations: list[tuple[int, bytes]] = []
        """(index, entry) of the configurations in the tail and the last one before it, as far as was read."""
        self._hidden: list[Entry] = []
        self._hidden_at = 0
        self._term, self._vote = 0, ""
        self._commit = max(1, applied)
        self._pending: list[tuple[int, int, int, bytes]] = []       # not yet written: kind, index, term, payload
        self._heads: list[Head] = []
        self._sizes: list[int] = []                                 # bytes of each segment, the last one's is growing
        self._fd = -1
        self._zeros_end = 0                                         # of the newest segment: zeros lie behind its records
        self.failed = False
        self.syncs = 0
        self.bytes_written = 0
        self.sync_seconds = 0.0
        self.last_sync_s = 0.0
        try:
            self._load(applied, applied_term)
        except OSError as error:
            raise JournalFailed(f"cannot open the journal in {folder}: {error}") from error

    # What PySyncObj's core asks for

    def __len__(self) -> int:
        return len(self._log)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        return self._log[place]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        if self._hidden_at < len(self._hidden):
            hidden = self._hidden[self._hidden_at]
            if hidden[1] == idx and hidden[2] == term:              # the same entry again: it is on disk already
                self._log.append(hidden)
                self._hidden_at += 1
                if command[0] == CONFIGURATION:
                    self.configurations.append((idx, command))
                return
            if idx <= self._commit:
                raise Corrupt(f"committed entry {idx} of term {hidden[2]} is contradicted by one of term {term}")
            self._drop_hidden()                                     # on disk, the new record at idx cuts them off
        self._log.append((command, idx, term))
        self._tail_bytes += len(command)
        if command[0] == CONFIGURATION:
            self.configurations.append((idx, command))
        self._put(ENTRY, idx, term, command)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self._hidden = self._log[entryFrom:] + self._hidden[self._hidden_at:]
        self._hidden_at = 0
        del self._log[entryFrom:]
        self._cut_configurations(self.last_index)

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise AssertionError("the library's compaction is off; see trim and forget")

    def clear(self) -> None:
        raise AssertionError("only reset_to voids the log")

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Durable on return: a vote, or a request for votes, may leave only then."""
        vote = votedForNodeId or ""
        if (term, vote) == (self._term, self._vote):
            return
        self._term, self._vote = term, vote
        self._put(VOTE, 0, term, vote.encode())
        self.sync()

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote or None

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        """Not stored: what SQLite has applied was committed, and the leader tells the rest."""
        return self._commit

    def _destroy(self) -> None:
        self.close()

    # What ours asks for

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, all segments, with the zeros behind the newest one's records."""
        return sum(self._sizes) + max(self._zeros_end - self._sizes[-1], 0)

    @property
    def segment_count(self) -> int:
        return len(self._heads)

    def bytes_after(self, index: int) -> int:
        """Bytes of the segments that hold entries after `index`, and so have to stay without a newer snapshot."""
        sizes = self._sizes
        first = next((place for place in range(len(sizes) - 1, 0, -1) if self._heads[place].base_index <= index), 0)
        return sum(sizes[first:])

    @property
    def first_index(self) -> int:
        """Of the tail in memory."""
        return self._log[0][1]

    @property
    def last_term(self) -> int:
        return self._log[-1][2]

    @property
    def last_index(self) -> int:
        return self._log[-1][1] if self._log else 0

    def term_at(self, index: int) -> int | None:
        """The term of an entry in the tail; None if it isn't there."""
        place = index - self._log[0][1] if self._log else -1
        return self._log[place][2] if 0 <= place < len(self._log) else None

    def sync(self) -> bool:
        """Make everything given so far durable. True if there was anything. Raises JournalFailed."""
        if not self._pending:
            return False
        if self.failed:
            raise JournalFailed("this journal has failed before")
        head, size = self._heads[-1], self._sizes[-1]
        seed, crc, pack = head.seed, crc32c, pack_record
        data = b"".join([pack(crc, seed, size, *record) for record in self._pending])
        began = time.perf_counter()
        end = size + len(data)
        try:
            self._disk.pwrite(self._fd, data, size, "journal.write")
            if end > self._zeros_end:
                self._zeros_end = self._disk.write_ahead(self._fd, end, self._config.segment_bytes, "journal.ahead")
            self._disk.fdatasync(self._fd, "journal.fdatasync")
        except OSError as error:
            self._fail(f"segment {head.number}", error)
        self.last_sync_s = time.perf_counter() - began
        self.sync_seconds += self.last_sync_s
        self.syncs += 1
        self.bytes_written += len(data)
        self._pending.clear()
        self._sizes[-1] = end
        if end >= self._config.segment_bytes and self._hidden_at >= len(self._hidden):
            self._begin_segment(head.number + 1)
        return True

    def end_message(self) -> None:
        """An AppendEntries message is done: what it cut but did not contradict stays (Raft cuts on conflict only)."""
        if self._hidden:
            back = self._hidden[self._hidden_at:]
            self._log.extend(back)
            self.configurations += [(index, command) for command, index, _ in back if command[0] == CONFIGURATION]
            self._hidden, self._hidden_at = [], 0

    def forget(self, index: int) -> None:
        """Drop entries before `index` from memory, as far as the tail is larger than it may be. Disk stays."""
        if self._tail_bytes <= self._keep_bytes * 5 // 4 or self._hidden:      # a quarter at a time: each costs O(tail)
            return
        log, place, dropped = self._log, 0, 0
        if self.keep_from is not None and self._tail_bytes <= KEPT_BYTES_MAX:
            index = min(index, self.keep_from)
        while place < len(log) - 1 and log[place][1] < index and self._tail_bytes - dropped > self._keep_bytes:
            dropped += len(log[place][0])
            place += 1
        del log[:place]
        self._tail_bytes -= dropped
        while len(self.configurations) > 1 and self.configurations[1][0] < index:
            del self.configurations[0]

    def trim(self, index: int) -> int:
        """Unlink segments that hold no live entry after `index`, which SQLite must hold durably. Returns how many."""
        gone = 0
        try:
            while len(self._heads) > 1 and self._heads[1].base_index <= index:
                self._disk.unlink(self._path(self._heads[0].number), "journal.trim.unlink")
                del self._heads[0], self._sizes[0]
                gone += 1
            if gone:
                self._disk.fsync_dir(self._folder, "journal.trim.fsync_dir")
        except OSError as error:
            self._fail("trimming", error)
        return gone

    def reset_to(self, index: int, term: int) -> None:
        """Everything before is void: a snapshot holds all up to `index` of `term`. Durable on return."""
        self._hidden, self._hidden_at, self._pending = [], 0, []
        self._restart_log(index, term)
        self._commit = max(self._commit, index)
        if term > self._term:
            self._term, self._vote = term, ""
        self._put(VOTE, 0, self._term, self._vote.encode())         # of a term that may be newer than the segment's
        self._put(BASE, index, term, b"")
        self.sync()

    def close(self) -> None:
        if self._fd >= 0:
            if not self.failed:
                self.sync()
                if self._zeros_end > self._sizes[-1]:
                    with contextlib.suppress(OSError):              # zeros at the newest segment's end do no harm
                        self._disk.truncate(self._fd, self._sizes[-1], "journal.close.truncate")
            self._disk.close(self._fd)
            self._fd = -1

    # Inside

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, segment_name(number))

    def _put(self, kind: int, index: int, term: int, payload: bytes) -> None:
        self._pending.append((kind, index, term, payload))

    def _fail(self, what: str, error: OSError) -> None:
        self.failed = True
        raise JournalFailed(f"journal {self._folder}, {what}: {error}") from error

    def _drop_hidden(self) -> None:
        self._tail_bytes -= sum(len(entry[0]) for entry in self._hidden[self._hidden_at:])
        self._hidden, self._hidden_at = [], 0

    def _cut_configurations(self, index: int) -> None:
        while self.configurations and self.configurations[-1][0] > index:
            del self.configurations[-1]

    def _restart_log(self, index: int, term: int) -> None:
        # Stands for an entry whose term is known, but not its bytes: the first of a tail is never sent to anybody.
        self._log = [(NO_OP, index, term)]
        self._tail_bytes = len(self._log)
        self.configurations = []

    def _begin_segment(self, number: int) -> None:
        """Everything before is synced, so damage in an older segment can never be a torn write."""
        assert not self._pending
        last = self._log[-1] if self._log else (b"", 0, 0)
        head = Head(number, os.urandom(8), self._term, self._vote, base_index=last[1], base_term=last[2])
        assert not self._sizes or self._zeros_end <= self._sizes[-1], "only the newest segment may end with zeros"
        old, self._fd, self._zeros_end = self._fd, -1, 0
        try:
            if old >= 0:
                self._disk.close(old)
            path = self._path(number)
            fd = self._disk.open(path, CREATE)
            self._fd = fd
            self._disk.write(fd, head.pack(), "journal.segment.write")
            self._disk.fdatasync(fd, "journal.segment.fdatasync")
            self._disk.fsync_dir(self._folder, "journal.segment.fsync_dir")
        except OSError as error:
            self._fail(f"beginning segment {number}", error)
        self._heads.append(head)
        self._sizes.append(HEAD_BYTES)

    # Opening

    def _load(self, applied: int, applied_term: int) -> None:
        make_folder(self._disk, self._folder, "journal.mkdir")
        numbers = segment_numbers(self._folder)
        for name in os.listdir(self._folder):
            if name.endswith(".new"):                               # a copy that an earlier start did not finish
                self._disk.unlink(os.path.join(self._folder, name), "journal.start.unlink")
        numbers = self._drop_unborn(numbers)
        heads = self._needed(numbers, applied)
        tail = b""
        for place, head in enumerate(heads):
            with open(self._path(head.number), "rb") as file:
                data = file.read()
            try:
                end = self._replay(head, data, applied, last=place == len(heads) - 1)
            except Corrupt:
                if place + 1 >= len(heads) or heads[place + 1].base_index > applied:
                    raise
                end = len(data)                                     # only read for others, who get a snapshot instead
                self._log, self._tail_bytes, self.configurations = [], 0, []
            self._heads.append(head)
            self._sizes.append(end)
            tail = data[:end]
        if heads:
            self._vouch(heads[-1].number, tail)
            self._fd = self._disk.open(self._path(heads[-1].number), os.O_WRONLY | os.O_CLOEXEC)
            if self._sizes[-1] >= self._config.segment_bytes:
                self._begin_segment(heads[-1].number + 1)
        else:
            self._begin_segment(1)
        self._join(applied, applied_term)

    def _join(self, applied: int, applied_term: int) -> None:
        """Let the log and SQLite agree on the last applied entry."""
        known = self.term_at(applied)
        if self._log and applied < self._log[0][1] > 1:
            raise SqliteBehind(f"{self._folder} begins after entry {self._log[0][1]}, but SQLite ends at {applied}")
        if applied and known is None:
            # SQLite is ahead: a snapshot was just installed, or the torn last group had already been applied.
            self.reset_to(applied, applied_term)
        elif applied and known != applied_term and applied > self._log[0][1]:
            raise Corrupt(f"{self._folder}: entry {applied} is of term {known}, SQLite's is of {applied_term}")

    def _drop_unborn(self, numbers: list[int]) -> list[int]:
        """Remove a newest segment that was being created: its head is torn, and nothing can have followed."""
        if numbers and os.path.getsize(self._path(numbers[-1])) <= HEAD_BYTES:
            with open(self._path(numbers[-1]), "rb") as file:
                try:
                    read_head(file.read(), numbers[-1])
                except Corrupt:
                    self._disk.unlink(self._path(numbers[-1]), "journal.start.unlink")
                    self._disk.fsync_dir(self._folder, "journal.start.fsync_dir")
                    return numbers[:-1]
        return numbers

    def _needed(self, numbers: list[int], applied: int) -> list[Head]:
        """The heads of the segments that must be read; older ones hold only what SQLite has, and stay for trim. In a group
        some more are read, so that a member that has missed little can be given it."""
        heads: list[Head] = []
        kept = 0
        for number in reversed(numbers):
            with open(self._path(number), "rb") as file:
                head = read_head(file.read(HEAD_BYTES), number)
            if heads and heads[0].number != number + 1:
                if heads[0].base_index <= applied:
                    break                                           # what is missing isn't needed
                raise Corrupt(f"journal segment {number + 1} in {self._folder} is missing")
            heads.insert(0, head)
            kept += os.path.getsize(self._path(number))
            if head.base_index <= applied and kept >= min(self._keep_bytes, REREAD_BYTES_MAX):
                break
        for number in numbers[:len(numbers) - len(heads)]:
            with open(self._path(number), "rb") as file:            # leftovers of a trim may lie before a gap
                self._heads.append(read_head(file.read(HEAD_BYTES), number))
            self._sizes.append(os.path.getsize(self._path(number)))
        return heads

    def _replay(self, head: Head, data: bytes, applied: int, *, last: bool) -> int:
        """Take one segment's records into the tail. Returns where its valid part ends."""
        self._term, self._vote = head.term, head.vote
        if not self._log and head.base_index:
            self._restart_log(head.base_index, head.base_term)
        end = HEAD_BYTES
        for record in records(head, data, torn_end=last, where=self._path(head.number)):
            if record.kind == ENTRY:
                self._replay_entry(record.payload, record.log_index, record.term, applied, head.number)
                self.forget(applied)
            elif record.kind == VOTE:
                self._term, self._vote = record.term, record.payload.decode()
            else:
                self._restart_log(record.log_index, record.term)
            end = record.end
        return end

    def _replay_entry(self, command: bytes, index: int, term: int, applied: int, segment: int) -> None:
        log = self._log
        if index > (log[-1][1] if log else 0) + 1:
            raise Corrupt(f"journal segment {segment} in {self._folder}: entry {index} follows {self.last_index}")
        place = index - log[0][1] if log else 0
        if place > 0:
            for dropped in log[place:]:
                self._tail_bytes -= len(dropped[0])
            del log[place:]
        else:
            # What it replaces has been forgotten, or is in a segment that is not needed.
            if index > max(applied, 1):
                raise Corrupt(f"journal segment {segment} in {self._folder}: entry {index} precedes the log's first")
            log.clear()
            self._tail_bytes = 0
        log.append((command, index, term))
        self._tail_bytes += len(command)
        self._cut_configurations(index - 1)
        if command[:1] == bytes((CONFIGURATION,)):
            self.configurations.append((index, command))

    def _vouch(self, number: int, valid: bytes) -> None:
        """Write the newest segment again before anyone relies on it: its pages may be clean over lost bytes."""
        path, copy = self._path(number), self._path(number)[:-4] + ".new"
        fd = self._disk.open(copy, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._disk.write(fd, valid, "journal.start.write")
            self._disk.fdatasync(fd, "journal.start.fdatasync")
        finally:
            self._disk.close(fd)
        self._disk.rename(copy, path, "journal.start.rename")
        self._disk.fsync_dir(self._folder, "journal.start.fsync_dir")

