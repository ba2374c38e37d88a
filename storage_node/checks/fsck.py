"""fsck: metadata and chunks compared both ways, metadata with itself, indexes with files; and what can be repaired.

Works while the store is in use, and the same way on one that was opened for it (gateway/offline.py). Copies come and go while
it looks, so what seems wrong is looked at again, a few times with a pause: only what stays wrong is a finding. Copies whose
upload is under way, that wait for the node's next question or for readers that have begun, are counted as waiting.

Chunk rows and each node's inventory come in the same order (digest), page by page, so memory holds a page of each.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol
from urllib.parse import quote

from consensus import audit, holdings, queries
from consensus.audit import Affected
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import Digest, Generation, NodeId
from storage_node.care.examine import examine
from storage_node.checks import folder_check
from storage_node.checks.findings import Collector, Report
from storage_node.checks.judging import Problem, judge, listed
from storage_node.index import CONDEMNED, SETTLED, Copy

PAGE = 250
"""Rows and copies that are looked at in one turn of the loop: some 5 ms, for clients' requests share it."""

LOOKS = 4
PAUSE_S = 1.0
"""What seems wrong is looked at so often, with this pause before each look: longer than a node takes between two questions,
while it is not busy."""

SUSPECTS_MAX = 100_000
"""Chunks that are looked at again: 100 bytes each. With more wrong than that, the first ones tell enough."""

REPAIR_S_MAX = 60.0
"""How long a repair may take to show before what is left is reported."""

END = b"\xff" * 33

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much (0: not known)."""


class Metadata(Protocol):
    """What is needed of consensus.client.MetadataClient."""

    @property
    def file(self) -> str | None: ...

    async def read(self, query: Any, *arguments: Any) -> Any: ...

    async def recount(self) -> list[str]: ...


class Node(Protocol):
    """A storage node as fsck sees it. `folder`: its chunks on this machine, or None. All raise ClusterError."""

    @property
    def node(self) -> NodeId: ...

    @property
    def folder(self) -> str | None: ...

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]: ...

    async def find(self, digest: Digest, generation: bytes) -> Copy | None: ...

    async def damaged(self) -> dict[tuple[bytes, bytes], str]:
        """The copies that it knows to be damaged, and why."""

    async def look_again(self, digest: Digest, generation: bytes) -> bool:
        """Have it read this copy whole, and mend or withdraw it if it is not good. True if it is good."""

    async def compare(self) -> None:
        """Have it compare its inventory with the metadata, and act on what differs."""


async def run(metadata: Metadata, nodes: Sequence[Node], *, verify: bool = False, deep: bool = False, repair: bool = False,
              progress: Progress = lambda what, done, of: None, looks: int = LOOKS, pause_s: float = PAUSE_S) -> Report:
    """Check all of it. `verify` reads every byte, `deep` has SQLite check its files' structure, `repair` has nodes mend what
    they can and looks again. Raises Unavailable if the metadata can't be read."""
    async def look() -> Report:
        return await _Check(metadata, nodes, verify, deep, progress, looks, pause_s).run()

    report = await look()
    if not repair or report.clean:
        return report
    progress("repairing", 0, len(report.findings))
    await _repair(nodes, report, progress)
    until = asyncio.get_running_loop().time() + REPAIR_S_MAX
    verify = False                       # it has been found; whether it is mended shows without reading all again
    while True:
        after = await look()
        if after.clean or asyncio.get_running_loop().time() > until:
            break
    repaired = Counter(report.counts) - Counter(after.counts)
    return Report(**{field: getattr(after, field) for field in Report.__struct_fields__ if field != "repaired"},
                  repaired=dict(repaired))


async def _repair(nodes: Sequence[Node], report: Report, progress: Progress) -> None:
    by_name: dict[str, Node] = {node.node: node for node in nodes}
    for place, finding in enumerate(report.findings):
        node = by_name.get(finding.node)
        if node is not None and finding.kind in ("location", "damaged", "size", "place"):
            try:
                await node.look_again(Digest(bytes.fromhex(finding.digest)), bytes.fromhex(finding.generation))
            except ClusterError:
                continue                 # it stays a finding
        progress("repairing", place + 1, len(report.findings))
    for name in {finding.node for finding in report.findings if finding.kind in ("orphan", "location")}:
        node = by_name.get(name)
        if node is not None:
            try:
                await node.compare()
            except ClusterError:
                continue


class _Check:
    """One look at everything."""

    def __init__(self, metadata: Metadata, nodes: Sequence[Node], verify: bool, deep: bool, progress: Progress, looks: int,
                 pause_s: float) -> None:
        self._metadata, self._verify, self._deep = metadata, verify, deep
        self._nodes: dict[str, Node] = {node.node: node for node in nodes}
        self._progress, self._looks, self._pause_s = progress, looks, pause_s
        self._found = Collector()
        self._unreachable: dict[str, str] = {}
        self._damaged: dict[str, Mapping[tuple[bytes, bytes], str]] = {}
        self._suspects: set[Digest] = set()
        self._misplaced: dict[tuple[str, Digest, bytes], str] = {}
        self._waiting: Counter[str] = Counter()
        self._chunks = self._chunk_bytes = self._copies = self._verified = 0

    async def run(self) -> Report:
        self._progress("counting", 0, 0)
        try:
            for sentence in await self._metadata.recount():
                self._found.add("metadata", sentence)
        except Corrupt as error:
            self._found.add("sqlite", str(error))
        if self._deep:
            await self._check_sqlite()
        await self._ask_nodes()
        await self._compare()
        for node in self._nodes.values():
            if node.folder is not None and node.node not in self._unreachable:
                try:
                    await self._check_folder(node, node.folder)
                except ClusterError as error:
                    self._unreachable[node.node] = str(error)
                except sqlite3.Error as error:
                    self._found.add("index", f"{folder_check.index_of(node.folder)}: {error}", node=node.node)
        missing = await self._look_again()
        for name, why in self._unreachable.items():
            self._found.add("unreachable", f"storage node {name}: {why}", node=name)
        count, affected = await self._affected(missing)
        found = self._found
        return Report(clean=found.clean, chunks=self._chunks, chunk_bytes=self._chunk_bytes, copies=self._copies,
                      verified=self._verified, waiting=dict(self._waiting), counts=dict(found.counts),
                      findings=found.findings, affected_count=count, affected=affected)

    # Files of SQLite

    async def _check_sqlite(self) -> None:
        files = [("sqlite", self._metadata.file, "")]
        files += [("index", folder_check.index_of(node.folder), node.node) for node in self._nodes.values() if node.folder]
        for kind, path, node in files:
            if path is not None:
                self._progress("checking SQLite's files", 0, 0)
                for sentence in await asyncio.to_thread(_integrity, path):
                    self._found.add(kind, f"{path}: {sentence}", node=node)

    # The comparison

    async def _ask_nodes(self) -> None:
        for info in await self._metadata.read(queries.nodes):
            if info.node not in self._nodes:
                self._unreachable[info.node] = "the metadata knows it, and it is not here to be asked"
        for name, node in self._nodes.items():
            try:
                self._damaged[name] = await node.damaged()
            except ClusterError as error:
                self._unreachable[name] = str(error)

    async def _compare(self) -> None:
        streams = {name: _Stream(node) for name, node in self._nodes.items() if name not in self._unreachable}
        after = b""
        while True:
            rows: list[holdings.ChunkPlace] = await self._metadata.read(queries.chunk_places, after, PAGE)
            last = len(rows) < PAGE
            bound = END if last else rows[-1].digest
            copies: dict[Digest, dict[str, list[Copy]]] = {}
            async for name, copy in self._up_to(streams, bound):
                copies.setdefault(copy.digest, {}).setdefault(name, []).append(copy)
            await self._judge_page(rows, copies)
            self._progress("comparing", self._chunks, 0)
            if last:
                return
            after = bound
            await asyncio.sleep(0)       # reads of the local file don't suspend: clients come first

    async def _up_to(self, streams: dict[str, "_Stream"], bound: bytes) -> AsyncIterator[tuple[str, Copy]]:
        for name, stream in list(streams.items()):
            try:
                while (copy := await stream.next_up_to(bound)) is not None:
                    yield name, copy
            except ClusterError as error:
                self._unreachable[name] = str(error)
                del streams[name]

    async def _judge_page(self, rows: list[holdings.ChunkPlace], copies: dict[Digest, dict[str, list[Copy]]]) -> None:
        by_digest = {row.digest: row for row in rows}
        waiting: dict[str, list[Copy]] = {}
        away = set(self._unreachable)
        for digest in [*by_digest, *(digest for digest in copies if digest not in by_digest)]:
            row, held = by_digest.get(digest), copies.get(digest, {})
            if judge(digest, row, held, self._damaged, away) and len(self._suspects) < SUSPECTS_MAX:
                self._suspects.add(digest)
            for name, own in held.items():
                self._copies += len(own)
                waiting.setdefault(name, []).extend(
                    copy for copy in own if copy.state != SETTLED and not listed(row, name, copy))
        self._chunks += len(rows)
        self._chunk_bytes += sum(row.size for row in rows)
        for name, kept in waiting.items():
            for start in range(0, len(kept), PAGE):
                await self._count_waiting(NodeId(name), kept[start:start + PAGE])

    async def _count_waiting(self, node: NodeId, copies: list[Copy]) -> None:
        """By reason: storage_node.care.waiting has the words."""
        try:
            states = await self._metadata.read(queries.chunk_states, node, [
                (copy.digest, Generation.unpack(copy.generation)) for copy in copies])
        except Corrupt:                  # of a row whose seal does not fit: the recount has said which
            self._waiting["unknown"] += len(copies)
            return
        for copy, state in zip(copies, states, strict=True):
            reason = {"pending": "upload", "listed": "settling", "short": "announced"}.get(state)
            self._waiting[reason or ("grace" if copy.state == CONDEMNED else "unlisted")] += 1

    # Folders

    async def _check_folder(self, node: Node, folder: str) -> None:
        """Index against files; and all bytes, if asked for. A copy that can be read is where the index says."""
        def told(done: int, of: int) -> None:
            loop.call_soon_threadsafe(self._progress, f"checking the files of node {node.node}", done, of)

        loop = asyncio.get_running_loop()
        for copy, why in await asyncio.to_thread(folder_check.places, folder, told):
            self._misplaced[node.node, copy.digest, copy.generation] = why
        strays = set(await asyncio.to_thread(folder_check.strays, folder))
        for _ in range(self._looks):
            if strays:                   # a file has its name a moment before it is in the index
                await asyncio.sleep(self._pause_s)
                strays &= set(await asyncio.to_thread(folder_check.strays, folder))
        for path in sorted(strays):
            self._found.add("stray", f"{path} is not in the index of node {node.node}", node=node.node)
        if self._verify:
            await self._read_all(node, folder)

    async def _read_all(self, node: Node, folder: str) -> None:
        stream = _Stream(node)
        while (copy := await stream.next_up_to(END)) is not None:
            why = await asyncio.to_thread(examine, folder, copy)
            self._verified += 1
            if why is not None:
                self._misplaced[node.node, copy.digest, copy.generation] = why
            self._progress(f"reading the chunks of node {node.node}", self._verified, self._copies)

    # Second looks

    async def _look_again(self) -> set[Digest]:
        """What is still wrong becomes findings. Answers the digests that have no good copy."""
        problems: dict[Digest, list[Problem]] = {}
        suspects = self._suspects | {digest for _, digest, _ in self._misplaced}
        for look in range(self._looks):
            if not suspects:
                break
            await asyncio.sleep(self._pause_s)
            self._progress("looking again", look + 1, self._looks)
            await self._look_at_places()
            await self._ask_for_damage()
            for digest in suspects:
                problems[digest] = await self._judge_now(digest)
            await self._leave_out_released(problems)
            suspects = {digest for digest in suspects if problems[digest]}
            if all(problem.kind == "short" for digest in suspects for problem in problems[digest]):
                break                    # known to the metadata, and waited for by it
        for digest in sorted(suspects):
            for kind, text, _, generation, node in problems[digest]:
                self._found.add(kind, text, digest=digest, generation=generation, node=node)
        return {digest for digest in suspects if any(problem.kind == "missing" for problem in problems[digest])}

    async def _ask_for_damage(self) -> None:
        for name, node in self._nodes.items():
            if name not in self._unreachable:
                try:
                    known = dict(await node.damaged())
                except ClusterError as error:
                    self._unreachable[name] = str(error)
                    continue
                known.update({(digest, generation): why for (holder, digest, generation), why in self._misplaced.items()
                              if holder == name})
                self._damaged[name] = known

    async def _judge_now(self, digest: Digest) -> list[Problem]:
        row: holdings.ChunkPlace | None = await self._metadata.read(queries.chunk_place, digest)
        copies: dict[str, list[Copy]] = {}
        for name, node in self._nodes.items():
            if name not in self._unreachable:
                try:
                    page = await node.inventory((digest, b""), PAGE)
                except ClusterError as error:
                    self._unreachable[name] = str(error)
                    continue
                copies[name] = [copy for copy in page if copy.digest == digest]
        found = judge(digest, row, copies, self._damaged, set(self._unreachable))
        misplaced = {(holder, generation): why for (holder, raw, generation), why in self._misplaced.items() if raw == digest}
        found = [problem._replace(kind="place") if problem.kind == "damaged" and (problem.node, problem.generation) in misplaced
                 else problem for problem in found]
        told = {(problem.node, problem.generation) for problem in found}
        return found + [
            Problem("place", f"chunk {digest.hex()[:16]} on node {holder}: {why}", digest, generation, holder)
            for (holder, generation), why in misplaced.items() if (holder, generation) not in told]

    async def _leave_out_released(self, problems: dict[Digest, list[Problem]]) -> None:
        """Copies of which the node is still to be told that they are listed no more: it learns of them when it asks."""
        orphans = {(problem.node, problem.digest, problem.generation): problem
                   for found in problems.values() for problem in found if problem.kind == "orphan"}
        for name in {node for node, _, _ in orphans}:
            after = -1
            while True:
                hints: holdings.Released = await self._metadata.read(queries.released, NodeId(name), max(after, 0), PAGE)
                for digest, generation in hints.copies:
                    orphan = orphans.get((name, digest, generation.pack()))
                    if orphan is not None and orphan in problems[orphan.digest]:
                        problems[orphan.digest].remove(orphan)
                        self._waiting["released"] += 1
                if hints.after == max(after, 0):
                    break
                after = hints.after

    async def _look_at_places(self) -> None:
        """Copies that have been removed, moved, or put right since are no findings."""
        for key in list(self._misplaced):
            name, digest, generation = key
            node = self._nodes[name]
            try:
                copy = await node.find(digest, generation)
                if copy is None or node.folder is None or (await asyncio.to_thread(examine, node.folder, copy)) is None:
                    del self._misplaced[key]
            except ClusterError as error:
                self._unreachable[name] = str(error)

    async def _affected(self, missing: set[Digest]) -> tuple[int, list[Affected]]:
        path = self._metadata.file
        if not missing or path is None:
            return 0, []
        self._progress("finding what is affected", 0, 0)
        return await asyncio.to_thread(_affected, path, missing)


class _Stream:
    """A node's inventory, in order, a page at a time."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._page: list[Copy] = []
        self._at = 0
        self._after: tuple[bytes, bytes] | None = None
        self._ended = False

    async def next_up_to(self, bound: bytes) -> Copy | None:
        """The next copy whose digest is at most `bound`."""
        if self._at == len(self._page) and not self._ended:
            self._page, self._at = await self._node.inventory(self._after, PAGE), 0
            self._ended = len(self._page) < PAGE
            if self._page:
                self._after = self._page[-1][:2]
        if self._at == len(self._page) or self._page[self._at].digest > bound:
            return None
        self._at += 1
        return self._page[self._at - 1]


def _integrity(path: str) -> list[str]:
    """What SQLite says against this file."""
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db:
            rows = [str(row[0]) for row in db.execute("PRAGMA integrity_check(100)").fetchall()]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if rows == ["ok"] else rows


def _affected(path: str, digests: set[Digest]) -> tuple[int, list[Affected]]:
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as db:
        return audit.affected(db, digests)
