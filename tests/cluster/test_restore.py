"""A backup is taken while the server works; then much changes, is deleted and collected; the restored server gives every
object of the backup with its bytes."""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.client import MetadataClient
from consensus.core.errors import Refused
from consensus.core.ids import NodeId
from gateway import offline
from storage_node.client import NodeClient
from tests.fsck import config_of, offline_check, online, with_inside
from tests.servers import StaddleProcess
from tests.talker import BUCKET, Talker, make_bucket

SIZES = (0, 1, 5_000, 5_001, 300_000, 1_500_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaddleProcess]:
    server = StaddleProcess(tmp_path / "server", settings={"read_grace_seconds": "0"})
    yield server
    server.kill_all()


def put(talker: Talker, key: str, body: bytes) -> None:
    status, answer, _ = talker.ask("PUT", f"/{BUCKET}/{key}", body=body)
    assert status == 200, answer


def take_backup(server: StaddleProcess, name: str, target: Path) -> None:
    async def work(metadata: MetadataClient, clients: dict[NodeId, NodeClient]) -> None:
        await metadata.take_backup(name)
        with target.open("wb") as file:
            while page := await metadata.read_backup(name, file.tell()):
                file.write(page)

    with_inside(server, work)


def collect(server: StaddleProcess) -> None:
    """All that may go is gone on return."""
    async def work(metadata: MetadataClient, clients: dict[NodeId, NodeClient]) -> None:
        await metadata.housekeep(grace_s=0)
        for client in clients.values():
            await client.gc_run(no_grace=True)

    with_inside(server, work)


def change_much(talker: Talker, objects: dict[str, bytes], chance: random.Random) -> None:
    for key, body in objects.items():
        what = chance.choice(("delete", "overwrite", "again", "keep"))
        if what == "delete":
            talker.ask("DELETE", f"/{BUCKET}/{key}")
        elif what != "keep":
            put(talker, key, os.urandom(len(body)) if what == "overwrite" else body)
    for number in range(10):
        put(talker, f"new{number}", os.urandom(7_000))


@pytest.mark.slow
def test_a_restored_server_has_every_object_of_the_backup(server: StaddleProcess, tmp_path: Path) -> None:
    server.start()
    make_bucket(server)
    chance = random.Random(5)
    objects = {f"k{number}": os.urandom(SIZES[number % len(SIZES)]) for number in range(18)}
    objects["copy"] = objects["k3"]
    with Talker(server) as talker:
        for key, body in objects.items():
            put(talker, key, body)
        take_backup(server, "one", tmp_path / "backup")
        for _ in range(2):
            change_much(talker, objects, chance)
    delete_all(server, objects)
    report = online(server, pause_s=0.2)
    assert report.clean, report.findings
    config = config_of(server)
    with pytest.raises(Refused, match="another process"):
        asyncio.run(offline.restore(tmp_path / "backup", config, replace=True))
    server.stop()
    report = offline_check(server)
    assert report.clean, report.findings
    with pytest.raises(Refused, match="--replace"):
        asyncio.run(offline.restore(tmp_path / "backup", config))

    restored = asyncio.run(offline.restore(tmp_path / "backup", config, replace=True))
    assert restored.restored.old
    assert_whole(restored)
    assert restored.fsck.waiting["unlisted"] > 0, "what came after the backup"
    server.start()
    assert_there(server, objects)
    with Talker(server) as talker:
        assert talker.ask("GET", f"/{BUCKET}/new1")[0] == 404
        put(talker, "after", b"x" * 10_000)
        assert talker.ask("GET", f"/{BUCKET}/after")[1] == b"x" * 10_000
    report = online(server, repair=True, pause_s=0.2)
    assert report.clean, report.findings
    collect(server)
    assert_there(server, objects)

    # The backup has survived its own restore, so it can be restored again; this time because the metadata is lost.
    delete_all(server, objects)
    server.stop()
    (server.data[0] / "meta").rename(tmp_path / "lost")
    restored = asyncio.run(offline.restore(tmp_path / "backup", config))
    assert not restored.restored.old
    assert_whole(restored)
    server.start()
    assert_there(server, objects)


def delete_all(server: StaddleProcess, objects: dict[str, bytes]) -> None:
    with Talker(server) as talker:
        for key in objects:
            talker.ask("DELETE", f"/{BUCKET}/{key}")
    collect(server)


def assert_whole(restored: offline.RestoreReport) -> None:
    assert restored.restored.missing_count == restored.fsck.affected_count == 0
    assert restored.restored.problems == []
    assert restored.fsck.clean, restored.fsck.findings


def assert_there(server: StaddleProcess, objects: dict[str, bytes]) -> None:
    with Talker(server) as talker:
        for key, body in objects.items():
            status, found, _ = talker.ask("GET", f"/{BUCKET}/{key}")
            assert (status, found) == (200, body), key
