"""fsck against a store in one process: each kind of damage is found and named, healthy stores are clean while they work, and
a repair mends what it says."""

import asyncio
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from consensus.core.commands import AbortUpload, CreateUpload, Drain, NewChunk, NewContent, PutPart
from consensus.core.ids import Digest, Generation, digest
from consensus.core.model import Attributes, Slice
from storage_node.checks import fsck
from storage_node.checks.findings import KINDS, Report
from storage_node.checks.fsck_nodes import OpenedNode, ServingNode
from storage_node.checks.judging import judge
from storage_node.chunk import SMALL_BYTES_MAX, file_name
from storage_node.client import NodeClient
from storage_node.index import SETTLED
from storage_node.segments import segment_path
from tests.unit.storage_node.cluster import SECRET
from tests.unit.storage_node.test_with_metadata import Machine, run

LARGE = SMALL_BYTES_MAX + 5000


async def check(machine: Machine, **options: Any) -> Report:
    nodes = [OpenedNode(name, node.store) for name, node in machine.nodes.items()]
    return await fsck.run(machine.metadata, nodes, **{"pause_s": 0.02, **options})


async def filled(machine: Machine) -> dict[str, bytes]:
    """Small and large objects, settled."""
    bodies = {"small": os.urandom(5000), "other": os.urandom(6000), "large": os.urandom(LARGE)}
    for key, data in bodies.items():
        await machine.put(key, data)
    for name in machine.nodes:
        await machine.holds(name, *bodies.values())
    return bodies


def change_index(machine: Machine, name: str, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(machine.folder / name / "chunks" / "index.sqlite", isolation_level=None)) as db:
        assert db.execute(statement, values).rowcount


def change_metadata(machine: Machine, statement: str, *values: Any) -> None:
    db = machine.meta._machine.db
    db.execute("BEGIN")
    assert db.execute(statement, values).rowcount
    db.execute("COMMIT")


async def copy_of(machine: Machine, data: bytes, name: str = "n1") -> Any:
    (copy,) = await machine.nodes[name].store.generations(digest(data))
    return copy


# The damage

async def a_large_file_goes(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["large"])
    (machine.folder / "n1" / "chunks" / file_name(copy.digest, copy.generation)).unlink()


async def a_large_file_is_cut(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["large"])
    os.truncate(machine.folder / "n1" / "chunks" / file_name(copy.digest, copy.generation), 100_000)


async def a_header_rots(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["small"])
    flip(segment_path(str(machine.folder / "n1" / "chunks"), copy.segment), copy.place + 20)


async def bytes_rot(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["small"])
    flip(segment_path(str(machine.folder / "n1" / "chunks"), copy.segment), copy.place + 2000)


async def a_segment_goes(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["small"])
    os.unlink(segment_path(str(machine.folder / "n1" / "chunks"), copy.segment))


async def an_index_row_goes(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_index(machine, "n1", "DELETE FROM chunk WHERE digest = ?", digest(bodies["small"]))


async def an_index_row_has_another_size(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_index(machine, "n1", "UPDATE chunk SET size = 4999 WHERE digest = ?", digest(bodies["small"]))


async def a_copy_is_noted_damaged(machine: Machine, bodies: dict[str, bytes]) -> None:
    copy = await copy_of(machine, bodies["small"])
    change_index(machine, "n1", "INSERT INTO damage (digest, generation, reason, found) VALUES (?, ?, 'rotten', 5)",
                 copy.digest, copy.generation)


async def a_settled_copy_that_nobody_knows(machine: Machine, bodies: dict[str, bytes]) -> None:
    data = os.urandom(4000)
    ticket, _ = await machine.upload(data)
    await copy_of(machine, data)                      # its row is in `chunk` then
    change_index(machine, "n1", "UPDATE chunk SET state = ? WHERE digest = ?", SETTLED, digest(data))
    machine.metadata.release(ticket)


async def a_row_of_the_metadata_goes(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "DELETE FROM chunk WHERE digest = ?", digest(bodies["small"]))


async def a_chunk_row_rots(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "UPDATE chunk SET locations = x'c1' WHERE digest = ?", digest(bodies["small"]))


async def slices_rot(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "UPDATE content SET slices = x'00' WHERE size = 5000")


async def a_counter_is_wrong(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "UPDATE chunk SET refs = 7 WHERE digest = ?", digest(bodies["small"]))


async def a_seal_does_not_fit(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "UPDATE object SET etag = 'other' WHERE key = CAST('small' AS BLOB)")


async def a_bucket_counts_wrongly(machine: Machine, bodies: dict[str, bytes]) -> None:
    change_metadata(machine, "UPDATE bucket SET bytes = bytes + 1")


async def a_file_that_the_index_lacks(machine: Machine, bodies: dict[str, bytes]) -> None:
    name = file_name(digest(b"stray"), Generation(1, 1).pack())  # type: ignore[arg-type]
    (machine.folder / "n1" / "chunks" / name).write_bytes(b"stray")


async def a_node_stops(machine: Machine, bodies: dict[str, bytes]) -> None:
    await machine.stop_node("n1")


def flip(path: str, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes((byte[0] ^ 1,)))


Damage = Callable[[Machine, dict[str, bytes]], Awaitable[None]]
SEEDED: list[tuple[Damage, set[str], list[str]]] = [
    (a_large_file_goes, {"place", "missing"}, ["large"]),
    (a_large_file_is_cut, {"place", "missing"}, ["large"]),
    (a_header_rots, {"place", "missing"}, ["small"]),
    (a_segment_goes, {"place", "missing"}, ["other", "small"]),
    (an_index_row_goes, {"location", "missing"}, ["small"]),
    (an_index_row_has_another_size, {"size", "missing"}, ["small"]),
    (a_copy_is_noted_damaged, {"damaged", "missing"}, ["small"]),
    (a_settled_copy_that_nobody_knows, {"orphan"}, []),
    (a_row_of_the_metadata_goes, {"metadata", "orphan"}, []),
    (a_chunk_row_rots, {"metadata", "missing", "orphan"}, ["small"]),
    (slices_rot, {"metadata"}, []),
    (a_counter_is_wrong, {"metadata"}, []),
    (a_seal_does_not_fit, {"metadata"}, []),
    (a_bucket_counts_wrongly, {"metadata"}, []),
    (a_file_that_the_index_lacks, {"stray"}, []),
    (a_node_stops, {"unreachable"}, []),
]


@pytest.mark.parametrize(("damage", "kinds", "keys"), SEEDED, ids=[damage.__name__ for damage, _, _ in SEEDED])
def test_damage_is_found_and_named(tmp_path: Path, damage: Damage, kinds: set[str], keys: list[str]) -> None:
    async def body(machine: Machine) -> None:
        bodies = await filled(machine)
        for node in machine.nodes.values():
            await node.settler.stop()
        await damage(machine, bodies)
        report = await check(machine, looks=2)
        assert set(report.counts) == kinds, report.findings
        assert not report.clean
        assert [affected.key for affected in report.affected] == keys
        assert report.affected_count == len(keys)
        assert all(finding.remedy and finding.severity == KINDS[finding.kind].severity for finding in report.findings)

    run(tmp_path, 1, body)


def test_rotten_bytes_are_found_when_all_are_read(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await filled(machine)
        await machine.nodes["n1"].settler.stop()
        await bytes_rot(machine, bodies)
        assert (await check(machine)).clean
        report = await check(machine, verify=True)
        assert set(report.counts) == {"place", "missing"}
        assert report.verified == 3

    run(tmp_path, 1, body)


def test_a_lost_copy_of_three_is_no_lost_object(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await filled(machine)
        for node in machine.nodes.values():
            await node.settler.stop()
        await an_index_row_goes(machine, bodies)
        report = await check(machine)
        assert set(report.counts) == {"location", "short"}
        assert report.affected == []

    run(tmp_path, 3, body)


def test_sqlite_files_are_checked_when_asked(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        await filled(machine)
        assert (await check(machine, deep=True)).clean
        index = machine.folder / "n1" / "chunks" / "index.sqlite"
        machine.nodes["n1"].store.index.checkpoint("TRUNCATE")  # type: ignore[attr-defined]
        with open(index, "r+b") as file:
            file.seek(4096 + 8)
            file.write(b"\xff" * 64)
        machine.nodes["n1"].settler.kick()
        report = await fsck.run(machine.metadata, [], deep=True, pause_s=0.02)
        assert set(report.counts) == {"unreachable"}
        assert fsck._integrity(str(index)) != []

    run(tmp_path, 1, body)


def test_uploads_under_way_are_no_fault(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await filled(machine)
        ticket, _ = await machine.upload(os.urandom(3000))
        report = await check(machine)
        assert report.clean, report.findings
        assert report.waiting == {"upload": 1}
        assert (report.chunks, report.copies) == (3, 4)
        assert report.chunk_bytes == sum(map(len, bodies.values()))
        machine.metadata.release(ticket)

    run(tmp_path, 1, body)


def test_a_busy_store_is_clean(tmp_path: Path) -> None:
    """Puts, deletes, duplicates, multipart and collection, as fast as they go, while fsck looks again and again."""
    async def body(machine: Machine) -> None:
        chance, busy, bodies = random.Random(3), True, [os.urandom(2000 + number) for number in range(6)]

        async def work(name: str) -> None:
            while busy:
                key = f"{name}{chance.randrange(4)}"
                await machine.put(key, chance.choice(bodies))
                if chance.random() < 0.5:
                    await machine.delete(key)
                if chance.random() < 0.2:
                    await part(machine, key, chance.choice(bodies))
                if chance.random() < 0.2:
                    await machine.metadata.commit(Drain())
                await asyncio.sleep(0)

        workers = [asyncio.create_task(work(name)) for name in "abc"]
        for _ in range(5):
            report = await check(machine, pause_s=0.1, looks=30)
            assert report.clean, report.findings
        busy = False
        await asyncio.gather(*workers)

    run(tmp_path, 1, body)


async def part(machine: Machine, key: str, data: bytes) -> None:
    """An upload with one part, aborted."""
    at: dict[str, Any] = {"bucket": machine.bucket, "key": key, "upload_id": os.urandom(8).hex()}
    await machine.metadata.commit(CreateUpload(**at, attributes=Attributes(), owner="1"))
    ticket, holders = await machine.upload(data)
    content = NewContent(size=len(data), etag="e", slices=(Slice(digest(data), 0, len(data)),),
                         chunks=(NewChunk(digest=digest(data), size=len(data), holders=holders),))
    await machine.metadata.commit(PutPart(**at, number=1, content=content), ticket)
    await machine.metadata.commit(AbortUpload(**at))


# Repair, by nodes that serve

MENDED: list[tuple[Damage, int]] = [
    (a_large_file_goes, 3), (bytes_rot, 3), (an_index_row_goes, 3), (a_header_rots, 3), (a_settled_copy_that_nobody_knows, 1),
]


@pytest.mark.parametrize(("damage", "count"), MENDED, ids=[damage.__name__ for damage, _ in MENDED])
def test_a_repair_mends_what_can_be_mended(tmp_path: Path, damage: Damage, count: int) -> None:
    async def body(machine: Machine) -> None:
        bodies = await filled(machine)
        for node in machine.nodes.values():
            await node.settler.stop()
        await damage(machine, bodies)
        for node in machine.nodes.values():
            node.settler.start()
        clients = {name: NodeClient(node.address, SECRET) for name, node in machine.nodes.items()}
        try:
            nodes = [ServingNode(name, client, str(machine.folder / name / "chunks")) for name, client in clients.items()]
            report = await fsck.run(machine.metadata, nodes, verify=True, repair=True, pause_s=0.1, looks=3)
        finally:
            for client in clients.values():
                client.close()
        assert report.clean, report.findings
        for key, data in bodies.items():
            assert await machine.get(key) == data

    run(tmp_path, count, body)


def test_two_looks_at_the_same_chunk_agree() -> None:
    """The judgement itself, where a whole store would be too much."""
    from consensus.holdings import ChunkPlace
    from storage_node.index import NEW, Copy

    name, generation = Digest(bytes(32)), Generation(5, 1)  # type: ignore[arg-type]
    row = ChunkPlace(name, generation, 10, ("n1", "n2"), 2)  # type: ignore[arg-type]
    good = Copy(name, generation.pack(), 10, 1, 64, SETTLED, 0)
    assert judge(name, row, {"n1": [good], "n2": [good]}, {}, set()) == []
    assert judge(name, row, {"n1": [good]}, {}, {"n2"}) == [], "a node that is away is not judged"
    assert judge(name, row, {}, {}, {"n1", "n2"}) == []
    assert [problem.kind for problem in judge(name, row, {"n1": [good]}, {}, set())] == ["location", "short"]
    other = good._replace(generation=Generation(6, 1).pack())  # type: ignore[arg-type]
    assert judge(name, row, {"n1": [good, other._replace(state=NEW)], "n2": [good]}, {}, set()) == []
    assert [problem.kind for problem in judge(name, row, {"n1": [good, other], "n2": [good]}, {}, set())] == ["orphan"]
    assert [problem.kind for problem in judge(name, None, {"n1": [good]}, {}, set())] == ["orphan"]
