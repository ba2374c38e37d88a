"""What the metadata says against what the storage nodes hold, read from their files beside them: an oracle of its own,
which shares no code with `staddle fsck`.

*Missing*: a copy that metadata lists at a node whose index does not have it. *Orphan*: a copy that a node holds and
metadata does not list there; there are some until collection has been round.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from consensus.audit import recount
from consensus.core.ids import Generation, SessionId
from consensus.rows import decode_locations
from storage_node.young import beyond
from tests.servers import StaddleProcess

POLL_S = 0.2

Name = tuple[str, bytes, bytes]
"""Node, digest, packed generation."""


class Found(NamedTuple):
    listed: frozenset[Name]
    held: dict[Name, int]
    """With the segment's number, 0 for a file."""

    wrong: list[str]
    """What does not fit within the metadata."""

    queued: int
    """Things in the metadata that wait to be taken apart."""

    @property
    def missing(self) -> list[Name]:
        return sorted(self.listed - self.held.keys())

    def copies(self) -> Counter[bytes]:
        """How many nodes are listed for each digest and hold it."""
        return Counter({digest: 0 for _, digest, _ in self.listed}
                       | Counter(name[1] for name in self.listed if name in self.held))

    @property
    def orphans(self) -> list[Name]:
        return sorted(self.held.keys() - self.listed)


def look(server: StaddleProcess, others: Sequence[StaddleProcess] = ()) -> Found:
    """At a running server (whose state changes meanwhile) or one that has stopped. In a cluster its metadata is compared
    with what its nodes and those of the `others` hold."""
    root = server.data[0]
    # Held first: what is stored and listed in between would else be missing.
    held = {name: segment for machine in (server, *others) for data in machine.data
            for name, segment in _held(data)}
    generation = int((root / "meta" / "CURRENT").read_text().strip())
    with closing(_open(root / "meta" / f"meta.{generation}.sqlite")) as db:
        db.execute("BEGIN")
        nodes = dict(db.execute("SELECT number, id FROM node").fetchall())
        listed = frozenset((nodes[number], digest, Generation(SessionId(session), sequence).pack())
                           for digest, session, sequence, locations in
                           db.execute("SELECT digest, session, sequence, locations FROM chunk")
                           for number in decode_locations(locations) if number in nodes)
        (queued,) = db.execute("SELECT count(*) FROM queue").fetchone()
        wrong = recount(db)
    return Found(listed, held, wrong, queued)


def _held(data: Path) -> list[tuple[Name, int]]:
    node = (data / "node-id").read_text().strip()
    with closing(_open(data / "chunks" / "index.sqlite")) as db:
        young = [(row.digest, row.generation, row.segment) for _, rows in beyond(db, 0) for row in rows]
        chunks = {*db.execute("SELECT digest, generation, segment FROM chunk"), *young}
        return [((node, digest, generation), segment)
                for digest, generation, segment in chunks]


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)


def check_listed(server: StaddleProcess, others: Sequence[StaddleProcess] = ()) -> list[str]:
    """While no client runs, before anything is collected: counts are right, and every listed copy is held."""
    found = look(server, others)
    return [*found.wrong, *(f"chunk {digest.hex()[:12]} is listed at {node}, which does not hold it"
                            for node, digest, _ in found.missing)]


def await_collected(server: StaddleProcess, patience_s: float) -> list[str]:
    """While no client runs: wait until nothing is left over, then compare everything, files on the disk too."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look(server)
        files = [sentence for data in server.data for sentence in _stray_files(data, found)]
        if found.queued == 0 and not found.orphans and not files:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    wrong = check_listed(server)
    if found.queued:
        wrong.append(f"{found.queued} things are still in the metadata's queue after {patience_s} s")
    wrong += [f"chunk {digest.hex()[:12]} on {node} is an orphan after {patience_s} s"
              for node, digest, _ in found.orphans]
    return wrong + files


def _stray_files(data: Path, found: Found) -> list[str]:
    """Files and segments in which no copy lies. The newest segment may be empty: it is written to."""
    node = (data / "node-id").read_text().strip()
    held = [(name, segment) for name, segment in found.held.items() if name[0] == node]
    chunks = data / "chunks"
    expected = {f"{digest.hex()}.{generation.hex()}" for (_, digest, generation), segment in held if not segment}
    there = {file.name for folder in chunks.iterdir() if len(folder.name) == 2 for file in folder.iterdir()}
    wrong = [f"file {name[:12]}… of {node} belongs to no copy" for name in sorted(there - expected)]
    wrong += [f"file {name[:12]}… of {node} is gone" for name in sorted(expected - there)]
    wrong += [f"{file} is half written" for file in (chunks / "incoming").iterdir()]
    segments = sorted(int(file.stem, 16) for file in (chunks / "segments").iterdir() if file.suffix != ".tmp")
    used = {segment for _, segment in held if segment}
    wrong += [f"segment {number:x} of {node} holds nothing" for number in segments[:-1] if number not in used]
    return wrong
