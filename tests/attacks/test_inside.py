"""Attacks from beside: whoever reaches the sockets between the processes, or the files of the data folder."""

import hashlib
import hmac
import os
import pickle
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from awscrt.checksums import crc32c

from tests import processes
from tests.attacks.attacker import VICTIM, Attacker
from tests.servers import SECRET_KEY

FRAME = struct.Struct("<IIHHQ")


def sockets(attacker: Attacker) -> list[Path]:
    found = sorted((attacker.server.data[0] / "run").glob("*.sock"))
    assert {path.name for path in found} == {"meta.sock", "node-1.sock", "gateway-1.sock"}
    return found


def talk(path: Path, answer_hello: Callable[[bytes], bytes], more: bytes = b"") -> bytes:
    """Everything that the other side says after its greeting, until it hangs up (or for a second)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        hello = b""
        while len(hello) < 38:
            hello += connection.recv(38 - len(hello))
        received = b""
        try:
            connection.sendall(answer_hello(hello))
            connection.sendall(more)
            while piece := connection.recv(65_536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


def signed_with(secret: bytes) -> Callable[[bytes], bytes]:
    def answer(hello: bytes) -> bytes:
        ours = bytes(32)
        return ours + hmac.digest(secret, b"client" + hello[6:] + ours, "sha256")

    return answer


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/staddle-was-here",)


STRANGERS: dict[str, Callable[[bytes], bytes]] = {
    "the secret of zeros": signed_with(bytes(32)), "no secret": signed_with(b""),
    "the root secret": signed_with(SECRET_KEY.encode()), "a common word": signed_with(b"staddle"),
    "the hash of nothing": signed_with(hashlib.sha256(b"").digest()),
    "zeros": lambda hello: bytes(64), "ones": lambda hello: b"\xff" * 64, "the greeting returned": lambda hello: hello * 2,
    "HTTP": lambda hello: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(64),
    "a pickle": lambda hello: pickle.dumps(Bomb()) + bytes(64),
    "a giant length": lambda hello: FRAME.pack(0xFFFFFFFF, 0, 1, 0, 1) + bytes(64),
    "a frame at once": lambda hello: FRAME.pack(0, 0, 1, 0, 1) * 4,
}


def test_25_to_27_strangers_at_the_inner_sockets(attacker: Attacker) -> None:
    """Nobody without the cluster's secret gets an answer, whatever he sends, and nothing he sends is kept."""
    pids = [pid for role in ("meta", "node") for pid in attacker.server.roles()[role]]
    before = {pid: processes.memory_now(pid)[0] for pid in pids}
    for path in sockets(attacker):
        for who, answer in STRANGERS.items():
            assert talk(path, answer, bytes(1 << 20)) == b"", who
    assert not Path("/tmp/staddle-was-here").exists()
    assert pids == [pid for role in ("meta", "node") for pid in attacker.server.roles()[role]], "a process died"
    for pid in pids:
        assert processes.memory_now(pid)[0] - before[pid] < 16 << 20


def test_26_many_strangers(attacker: Attacker) -> None:
    """300 connections that say nothing don't keep the owners out, and are closed after the handshake's time."""
    waiting = []
    for path in sockets(attacker):
        for _ in range(300):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            waiting.append(connection)
    began = time.monotonic()
    assert attacker.ask("PUT", f"{attacker.bucket}/a", body=b"x").status == 200
    attacker.stored.add("a")
    assert time.monotonic() - began < 2.0
    for connection in waiting:
        connection.close()


FRAMES = {
    "unknown operation": FRAME.pack(0, 0, 0xFFFF, 0, 1),
    "wrong checksum": FRAME.pack(4, 0, 1, 0, 1) + b"abcd",
    "giant length": FRAME.pack(0xFFFFFFFF, 0, 1, 0, 1),
    "longer than allowed": FRAME.pack((8 << 20) + 1, 0, 1, 0, 1),
}


def frame(operation: int, payload: bytes, request_id: int = 1) -> bytes:
    return FRAME.pack(len(payload), crc32c(payload), operation, 0, request_id) + payload


@pytest.mark.parametrize("name", ["meta.sock", "node-1.sock", "gateway-1.sock"])
def test_28_malformed_messages_of_one_who_knows_the_secret(attacker: Attacker, name: str) -> None:
    """A broken or newer peer: its link may end; the process lives on and serves all others."""
    data = attacker.server.data[0]
    knows = signed_with(bytes.fromhex((data / "secret").read_text()))
    pids = attacker.server.roles()
    for what, raw in FRAMES.items():
        talk(data / "run" / name, knows, raw)
        assert attacker.ask("GET", attacker.victim).body == VICTIM, what
    for operation in range(1, 26):
        for payload in (b"", b"\xff" * 100, b"\x90", b"\xdd\xff\xff\xff\xff"):
            talk_quickly(data / "run" / name, knows, frame(operation, payload))
    assert attacker.ask("PUT", f"{attacker.bucket}/a", body=b"x").status == 200
    attacker.stored.add("a")
    assert attacker.server.roles() == pids, "a process died of it"
    attacker.forget_log()       # what such a peer did is logged, and should be


def talk_quickly(path: Path, answer_hello: Callable[[bytes], bytes], more: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.02)
        connection.connect(str(path))
        try:
            connection.sendall(answer_hello(connection.recv(38)) + more)
            while connection.recv(65_536):
                pass
        except (TimeoutError, ConnectionError):
            pass


def test_secrets_and_sockets_belong_to_the_owner(attacker: Attacker) -> None:
    """No other user of the machine can read a secret or reach a socket."""
    data = attacker.server.data[0]
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    assert len((data / "secret").read_text().strip()) == 64
    reach = stat.S_IMODE((data / "run").stat().st_mode)
    for path in sockets(attacker):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or not reach & 0o077, f"others can reach {path}"
    for folder in (data / "meta", data / "chunks"):
        assert not (stat.S_IMODE(folder.stat().st_mode) | stat.S_IMODE(data.stat().st_mode) << 9) & 0o007 or \
            not stat.S_IMODE(data.stat().st_mode) & 0o077, f"others can read what is in {folder}"


def test_44_no_secret_in_arguments_environment_or_files(attacker: Attacker) -> None:
    """Others see command lines (ps), the owner's other programs the environment; neither may hold a key."""
    cluster = (attacker.server.data[0] / "secret").read_text().strip()
    for process in attacker.server.processes():
        line = " ".join(process.command)
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace")
        assert cluster not in line + environment
        assert SECRET_KEY not in line
        if process.pid != attacker.server.pid:
            assert SECRET_KEY not in environment
    for file in attacker.server.data[0].rglob("*"):
        if file.is_file() and file.stat().st_size < 1 << 20:
            content = file.read_bytes()
            assert SECRET_KEY.encode() not in content, file
            assert cluster.encode() not in content or file.name == "secret", file
