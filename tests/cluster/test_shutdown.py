"""Starting and stopping as an operator sees it: clean ends, restarts of what died, and refusals that say why."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import processes
from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, ROOT, SECRET_KEY, StaddleProcess, serving
from tests.talker import BUCKET, Talker, ask, make_bucket

PATIENCE_S = 10.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_sigterm_lets_requests_finish(server: StaddleProcess) -> None:
    server.start()
    make_bucket(server)
    body = os.urandom(300_000)
    request = Signer(host=f"127.0.0.1:{server.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY).request(
        "PUT", f"/{BUCKET}/slow", body=body)
    connection = server.connect()
    connection.connect()
    connection.sock.sendall(request[:-100_000])
    ask(server, "GET", f"/{BUCKET}/other")               # the first request has been taken up by now
    server.terminate()
    until(lambda: not listening(server), "the server still takes connections after SIGTERM")
    assert server.running
    connection.sock.sendall(request[-100_000:])
    assert b"HTTP/1.1 200" in connection.sock.recv(65536)
    connection.close()
    assert server.wait_ended() == 0
    server.start()
    status, stored = ask(server, "GET", f"/{BUCKET}/slow")
    assert (status, stored == body) == (200, True)


def test_idle_server_stops_at_once_and_leaves_no_process(server: StaddleProcess) -> None:
    server.start()
    pids = [process.pid for process in server.processes()]
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5
    assert [pid for pid in pids if (left := processes.read(pid)) and left.state != "Z"] == []


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_kept_connections_do_not_hold_up_the_end(tmp_path: Path, tls: bool) -> None:
    """Clients keep connections for later, and don't read from them until then: no answer to a goodbye can be awaited."""
    with serving(tmp_path / "server", tls=tls) as server, Talker(server) as talker:
        assert talker.ask("PUT", f"/{BUCKET}")[0] == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("role", ["gateway", "node", "meta"])
def test_dead_process_is_started_again(server: StaddleProcess, role: str) -> None:
    server.start()
    make_bucket(server)
    killed = server.kill(role)
    until(lambda: (now := server.roles()[role]) != [] and now != [killed], f"no new {role}")
    server.wait_ready()
    status, answer = ask(server, "PUT", f"/{BUCKET}/after", b"after")
    assert status == 200, answer


def test_children_end_with_their_supervisor(server: StaddleProcess) -> None:
    server.start()
    children = [process.pid for process in server.processes() if process.pid != server.pid]
    assert len(children) >= 3
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: all((left := processes.read(pid)) is None or left.state == "Z" for pid in children),
          "processes outlive their supervisor")


def serve(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and words of a server that is expected to refuse to start."""
    server = StaddleProcess(tmp_path / "refused", extra=arguments)
    try:
        done = subprocess.run(server.command(), capture_output=True, text=True, timeout=30, cwd=tmp_path,
                              env=server.environment() | environment, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"started with {arguments} {environment}")
    return done.returncode, done.stdout + done.stderr


def test_unknown_settings_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "staddle.toml").write_text('region = "eu-west-1"\nregoin = "typo"\n')
    status, said = serve(tmp_path, "--config", str(tmp_path / "staddle.toml"))
    assert status != 0
    assert "'regoin'" in said
    assert "Traceback" not in said
    status, said = serve(tmp_path, STADDLE_CHUNK_BITES="1MiB")
    assert status != 0
    assert "STADDLE_CHUNK_BITES" in said


def test_wrong_values_are_refused_by_name(tmp_path: Path) -> None:
    for name, value in (("chunk_bytes", "12 parsecs"), ("workers", "many"), ("copies", "0")):
        status, said = serve(tmp_path, **{f"STADDLE_{name.upper()}": value})
        assert status != 0, name
        assert name in said.lower()
        assert "Traceback" not in said
    status, said = serve(tmp_path, "--listen", "nowhere")
    assert status != 0
    assert "'nowhere'" in said


def test_second_server_on_the_same_folder_is_refused(server: StaddleProcess, tmp_path: Path) -> None:
    server.start()
    second = StaddleProcess(tmp_path / "second")
    second.data = server.data
    done = subprocess.run(second.command(), capture_output=True, text=True, timeout=30, cwd=ROOT,
                          env=second.environment(), check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "in use" in said or "another" in said.lower(), said
    assert "Traceback" not in said
    assert server.ready()


def test_second_server_on_the_same_port_is_refused(server: StaddleProcess, tmp_path: Path) -> None:
    server.start()
    second = StaddleProcess(tmp_path / "second", port=server.port)
    done = subprocess.run(second.command(), capture_output=True, text=True, timeout=30, cwd=ROOT,
                          env=second.environment(), check=False)
    assert done.returncode != 0
    assert f"127.0.0.1:{server.port}" in done.stdout + done.stderr
    assert server.ready()


def listening(server: StaddleProcess) -> bool:
    connection = server.connect(1.0)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
