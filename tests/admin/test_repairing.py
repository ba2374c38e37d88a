"""`staddle fsck` online and offline, and `staddle restore`, on a server of their own that may be stopped and damaged."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.running import Staddle
from tests.servers import StaddleProcess


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaddleProcess]:
    """The tests here go through one life of it, in their order."""
    server = StaddleProcess(tmp_path_factory.mktemp("store")).start()
    yield server
    if server.running:
        server.stop()


@pytest.fixture(scope="module")
def staddle(store: StaddleProcess) -> Staddle:
    return Staddle(store.endpoint)


@pytest.fixture(scope="module")
def backup(store: StaddleProcess, staddle: Staddle) -> Path:
    """Of a store with two objects; a third one came afterwards."""
    file = store.folder / "file"
    file.write_bytes(os.urandom(2 << 20))
    staddle.done("bucket", "create", "kept")
    staddle.done("object", "put", str(file), "s3://kept/large")
    staddle.done("object", "put", "-", "s3://kept/small", input=b"small")
    staddle.done("backup", "create", "first", "--file", str(store.folder / "first.backup"))
    staddle.done("object", "put", "-", "s3://kept/after", input=b"after")
    return store.folder / "first.backup"


def test_a_server_that_runs_checks_itself(store: StaddleProcess, staddle: Staddle, backup: Path) -> None:
    assert "Clean." in staddle.done("fsck").out
    report = staddle.json("fsck", "--verify", "--deep", "--repair")
    assert report["clean"]
    assert report["verified"] == report["copies"] >= 3
    data = str(store.data[0])
    assert "Is a server running?" in staddle.refused("fsck", "--offline", "--data", data)
    assert "Is a server running?" in staddle.refused("restore", str(backup), "--data", data, "--replace", "--yes")


@pytest.mark.slow
def test_a_store_that_no_server_runs_is_checked_restored_and_mended(
    store: StaddleProcess, staddle: Staddle, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.stop()
    data = ("--data", str(store.data[0]))
    assert "Clean." in staddle.done("fsck", *data).out, "offline by itself, since no server answers"
    with monkeypatch.context() as here:
        here.chdir(tmp_path)                            # where the tests run there may be a ./data, as `make run` makes it
        assert "no server answers" in staddle.refused("fsck")

    assert "--replace" in staddle.refused("restore", str(backup), *data)
    assert "is not a backup" in staddle.refused("restore", str(store.folder / "file"), *data, "--replace", "--yes")
    assert "--yes" in staddle.refused("restore", str(backup), *data, "--replace", status=2)
    shown = staddle.done("restore", str(backup), *data, "--replace", "--yes").out
    assert "1 copies were stored after the backup" in shown
    assert "do not start one if this may be the wrong backup" in shown
    restored = staddle.json("restore", str(backup), *data, "--replace", "--yes")
    assert restored["fsck"]["clean"]
    assert restored["fsck"]["waiting"] == {"stored after the backup": 1}
    assert restored["restored"]["lost"] == 0
    assert os.path.isdir(restored["restored"]["old"])

    assert "Clean." in staddle.done("fsck", *data, "--repair").out

    (large,) = [path for path in (store.data[0] / "chunks").rglob("*") if path.is_file() and path.stat().st_size >= 2 << 20]
    with large.open("r+b") as chunk:
        chunk.seek(300_000)
        chunk.write(b"rotten")
    found = staddle("fsck", *data, "--verify")
    assert found.status == 1
    assert "s3://kept/large" in found.out
    assert "upload the object again" in found.out
    assert "NOT clean." in found.out

    store.start()
    listed = staddle.json("object", "ls", "s3://kept", "-r")["objects"]
    assert [entry["key"] for entry in listed] == ["large", "small"], "what came after the backup is not seen any more"
    assert staddle.done("object", "cat", "s3://kept/small").raw == b"small"
    verified = staddle("object", "verify", "s3://kept/large")
    assert verified.status == 1
    assert "no good copy left" in verified.out
    assert "damaged" in staddle.refused("object", "get", "s3://kept/large", str(store.folder / "back"))
    assert not (store.folder / "back").exists()
    staddle.done("object", "put", str(store.folder / "file"), "s3://kept/large")
    staddle.done("object", "get", "s3://kept/large", str(store.folder / "back"))
    assert (store.folder / "back").read_bytes() == (store.folder / "file").read_bytes(), "the same bytes heal it"
