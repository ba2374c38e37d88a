"""What people do to their own store: folders in the wrong place, moved, tidied up, half deleted; signals at bad moments."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests import signing
from tests.attacks.attacker import Attacker
from tests.clients.wire import Wire
from tests.servers import NotReady, StaddleProcess

EX_CONFIG = 78
DATA = b"kept" * 1000


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that has stored an object and was stopped cleanly. To be copied."""
    server = StaddleProcess(tmp_path_factory.mktemp("template")).start()
    wire = Attacker(server, "/bucket").wire
    assert wire.ask("PUT", "/bucket").status == 200
    assert wire.ask("PUT", "/bucket/kept", body=DATA).status == 200
    wire.close()
    assert server.stop() == 0
    return server.data[0]


@pytest.fixture
def stopped(template: Path, tmp_path: Path) -> StaddleProcess:
    """That server again, in a folder of the test's own: moved there, so to speak."""
    server = StaddleProcess(tmp_path / "server")
    shutil.copytree(template, server.data[0], ignore=shutil.ignore_patterns("*.sock"))
    return server


def refuses(server: StaddleProcess) -> str:
    """What it says when it does not start as it is set up."""
    written = server.log_path.stat().st_size if server.log_path.exists() else 0
    with pytest.raises(NotReady, match=f"ended with {EX_CONFIG}"):
        server.start()
    said = server.log_path.read_bytes()[written:].decode()
    assert "Traceback" not in said
    return said


def keeps(server: StaddleProcess) -> None:
    """It starts, has what was stored, and takes more."""
    server.start()
    wire = Attacker(server, "/bucket").wire
    got = wire.ask("GET", "/bucket/kept")
    assert (got.status, got.body) == (200, DATA)
    assert wire.ask("PUT", "/bucket/more", body=b"x").status == 200
    wire.close()
    assert server.stop() == 0


def test_a_file_or_nothing_where_the_folder_should_be(tmp_path: Path) -> None:
    server = StaddleProcess(tmp_path / "server")
    server.data[0].write_text("I am a file")
    assert f"the data folder {server.data[0]} is a file" in refuses(server)
    server.data = [server.folder / "no" / "such" / "folder"]
    assert f"cannot make the data folder {server.data[0]}" in refuses(server)
    server.data = [Path("/proc/staddle")]
    assert "cannot make the data folder /proc/staddle" in refuses(server)


def remove(data: Path, names: str) -> None:
    for name in names.split():
        found = list(data.glob(name))
        assert found, f"{name} is not there"
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("what", ["run secret nodes meta/CURRENT meta/lock chunks/lock",
                                  "meta/meta.*.sqlite chunks/index.sqlite"])
def test_what_can_be_made_anew_is(stopped: StaddleProcess, what: str) -> None:
    remove(stopped.data[0], what)
    keeps(stopped)


def test_lost_metadata_is_not_taken_for_a_new_store(stopped: StaddleProcess) -> None:
    """An empty store on top of chunks would call all of them garbage."""
    meta, aside = stopped.data[0] / "meta", stopped.folder / "aside"
    meta.rename(aside)
    assert f"the metadata in {meta} is gone" in refuses(stopped)
    shutil.rmtree(meta)
    aside.rename(meta)
    keeps(stopped)


def test_metadata_that_cannot_be_read(stopped: StaddleProcess) -> None:
    """It says what is wrong, tries again in case that was passing, and can be stopped at once while it waits."""
    journal, aside = stopped.data[0] / "meta" / "journal", stopped.folder / "aside"
    journal.rename(aside)
    journal.write_text("not a folder")
    stopped.start(wait=False)
    deadline = time.monotonic() + 20
    while "meta could not start" not in stopped.log():
        assert time.monotonic() < deadline, stopped.log()
        time.sleep(0.05)
    began = time.monotonic()
    assert stopped.stop() == 0
    assert time.monotonic() - began < 10, "processes that wait for the metadata held up the end"
    journal.unlink()
    aside.rename(journal)
    keeps(stopped)


def test_secrets_and_names_that_are_damaged(stopped: StaddleProcess) -> None:
    (stopped.data[0] / "secret").write_text("short")
    assert "secret" in refuses(stopped)
    (stopped.data[0] / "secret").write_text("zz" * 32)
    assert "secret" in refuses(stopped)
    (stopped.data[0] / "node-id").write_text("../../x")
    assert "node-id" in refuses(stopped)


def test_killed_and_started_again_at_once(stopped: StaddleProcess) -> None:
    """The children of a killed supervisor end by themselves, and whoever comes next waits for them."""
    for _ in range(2):
        stopped.start()
        os.kill(stopped.pid, signal.SIGKILL)
        stopped.wait_ended()
    keeps(stopped)


def test_a_second_signal_cuts_off_what_is_under_way(stopped: StaddleProcess) -> None:
    stopped.start()
    attacker = Attacker(stopped, "/bucket")
    wire = Wire(attacker.target)
    signed = wire.signed("PUT", "/bucket/slow", payload=signing.UNSIGNED)
    wire.begin("PUT", "/bucket/slow", {**signed, "content-length": "10000000", "expect": "100-continue"})
    assert b"100" in wire.line()
    os.kill(stopped.pid, signal.SIGINT)
    deadline = time.monotonic() + 10
    while "a second signal cuts them off" not in stopped.log():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert stopped.running
    os.kill(stopped.pid, signal.SIGINT)
    began = time.monotonic()
    assert stopped.wait_ended() == 0
    assert time.monotonic() - began < 10
    wire.close()
    keeps(stopped)
