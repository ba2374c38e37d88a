"""fsck of a server that is stopped: it looks without changing anything, and mends counters, indexes and locations."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from consensus.core.errors import Refused
from gateway import offline
from storage_node.index import INDEX_NAME
from tests.fsck import config_of, offline_check, online
from tests.servers import StaddleProcess
from tests.talker import BUCKET, Talker, make_bucket


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaddleProcess]:
    server = StaddleProcess(tmp_path / "server", data_folders=2)
    yield server
    server.kill_all()


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(statement).rowcount


@pytest.mark.slow
def test_what_is_wrong_in_a_stopped_store_is_found_and_mended(server: StaddleProcess) -> None:
    server.start()
    make_bucket(server)
    bodies = {"small": os.urandom(5_000), "large": os.urandom(1_200_000), "other": os.urandom(2_000)}
    with Talker(server) as talker:
        for key, body in bodies.items():
            assert talker.ask("PUT", f"/{BUCKET}/{key}", body=body)[0] == 200
    report = online(server, deep=True, verify=True, pause_s=0.5)
    assert report.clean, report.findings
    assert (report.chunks, report.verified) == (3, report.copies)
    with pytest.raises(Refused):
        asyncio.run(offline.check(config_of(server)))
    server.stop()
    report = offline_check(server, deep=True, verify=True)
    assert report.clean, report.findings

    meta = server.data[0] / "meta" / f"meta.{(server.data[0] / 'meta' / 'CURRENT').read_text().strip()}.sqlite"
    index = server.data[0] / "chunks" / INDEX_NAME
    change(meta, "UPDATE bucket SET objects = 17")
    change(meta, "UPDATE content SET refs = refs + 1")
    change(index, "DELETE FROM chunk WHERE size = 1200000")          # its file is still there
    (second,) = [path for path in (server.data[1] / "chunks").glob("??/*") if path.is_file()]
    data = bytearray(second.read_bytes())
    data[500_000] ^= 1
    second.write_bytes(data)

    report = offline_check(server, verify=True)
    assert set(report.counts) == {"metadata", "location", "stray", "place", "missing"}, report.findings
    assert [affected.key for affected in report.affected] == ["large"]
    again = offline_check(server, verify=True)
    assert again.counts == report.counts, "looking changes nothing"
    report = offline_check(server, verify=True, repair=True)
    assert {finding.kind for finding in report.findings} <= {"short"}, report.findings
    assert report.clean
    assert report.repaired["metadata"] == 4
    server.start()
    with Talker(server) as talker:
        for key, body in bodies.items():
            assert talker.ask("GET", f"/{BUCKET}/{key}")[1] == body
