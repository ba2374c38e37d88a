"""What fsck finds, as values: kinds with their weight and what to do about them, findings, and the report.

* *loss*: bytes that something refers to can't be had, or metadata is damaged;
* *wrong*: two records of one fact differ, and a repair can make them agree; nothing is lost by it;
* *note*: nothing is wrong, but the keeper of the store may want to know.
A store is clean when nothing is lost or wrong.
"""

from collections import Counter
from typing import Literal, NamedTuple

import msgspec

from consensus.audit import Affected

Severity = Literal["loss", "wrong", "note"]

FINDINGS_MAX = 10_000
"""Listed in a report; all are counted."""


class Kind(NamedTuple):
    severity: Severity
    what: str
    remedy: str


KINDS = {
    "sqlite": Kind("loss", "SQLite finds the metadata file damaged",
                   "a server that runs makes it anew from its snapshots and journal: look again in a minute, else restore"),
    "metadata": Kind("wrong", "rows of the metadata don't fit each other",
                     "counters are mended by `staddle fsck --repair` with the server stopped; a damaged row by a restore"),
    "missing": Kind("loss", "no good copy of a chunk is left",
                    "bring back the disk that held it, or upload the object again: backups hold no bytes"),
    "damaged": Kind("wrong", "a copy is damaged", "`--repair` has the node mend it or give it up"),
    "size": Kind("wrong", "a copy has another size than the metadata says", "`--repair` has the node look at it"),
    "location": Kind("wrong", "a copy that the metadata lists is not there", "`--repair` has the node withdraw it"),
    "orphan": Kind("wrong", "a copy that nothing lists and nothing waits for", "`--repair` hands it to collection"),
    "index": Kind("wrong", "SQLite finds the chunk index damaged",
                  "stop the server, move the file away and start again: it is rebuilt from segments and files"),
    "place": Kind("wrong", "the chunk index says a copy is where it is not", "`--repair` has the node mend it or give it up"),
    "stray": Kind("wrong", "a file that the chunk index doesn't know",
                  "`staddle fsck --repair` with the server stopped takes it into the index"),
    "unreachable": Kind("wrong", "a storage node can't be asked", "start it; what it holds has not been looked at"),
    "short": Kind("note", "chunks have fewer copies than wanted", "the nodes make them by themselves, if enough of them are up"),
    "over": Kind("note", "chunks have more copies than wanted", "the nodes give them back by themselves"),
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`text` says what is wrong with what. `digest` in hex and `node`, where it is about a chunk or a node."""

    kind: str
    severity: Severity
    text: str
    remedy: str
    digest: str = ""
    generation: str = ""
    node: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`clean`: nothing lost, nothing wrong. `counts`: findings by kind; `findings`: at most FINDINGS_MAX of them.
    `affected`: versions and parts that `missing` chunks belong to, at most audit.AFFECTED_MAX of `affected_count`.
    `waiting`: copies that don't count (yet, or any more), by reason; they are no fault. `repaired`: findings of a first look
    that a second one after the repair did not have any more, by kind."""

    clean: bool
    chunks: int
    chunk_bytes: int
    copies: int
    verified: int
    waiting: dict[str, int]
    counts: dict[str, int]
    findings: list[Finding]
    affected_count: int
    affected: list[Affected]
    repaired: dict[str, int] = {}


class Collector:
    """Gathers findings for a report."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[Finding] = []

    def add(self, kind: str, text: str, *, digest: bytes = b"", generation: bytes = b"", node: str = "") -> None:
        self.counts[kind] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind=kind, severity=KINDS[kind].severity, text=text, remedy=KINDS[kind].remedy,
                                         digest=digest.hex(), generation=generation.hex(), node=node))

    @property
    def clean(self) -> bool:
        return all(KINDS[kind].severity == "note" for kind in self.counts)
