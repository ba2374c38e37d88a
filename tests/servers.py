"""A whole server as users run it: `staddle serve` with all its processes, in a folder of its own.

`StaddleProcess` starts it, waits until it says that it is ready, kills any of its processes, stops and restarts it on
the same folder and port. Import the fixtures in the conftest.py of a folder that needs them.
"""

import collections
import contextlib
import ctypes
import datetime
import http.client
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import processes

ROOT = Path(__file__).resolve().parents[1]
ACCESS_KEY = "STADDLETESTACCESSKEY"
SECRET_KEY = "test/secret+key/of+forty+characters/12345"
REGION = "us-east-1"

READY_TIMEOUT_S = 30.0
"""A machine with two busy cores starts four Pythons in a few seconds; this is far more."""

STOP_TIMEOUT_S = 40.0
"""Requests in flight have 30 s to finish."""

POLL_S = 0.02

PORTS = range(20_000, 32_000)
"""Below the range from which the system takes ports for outgoing connections. Asking for port 0 would not do: the
server's sockets share their port (SO_REUSEPORT), so two servers on one port would not notice each other."""

ROLES = ("meta", "node", "gateway")


class NotReady(Exception):
    """The server did not become ready; the text has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    certificate: Path
    key: Path


def make_certificate(folder: Path, *addresses: str) -> Certificate:
    """A certificate for this machine's loopback names and these addresses, good for a day, with the one of its maker
    behind it in the same file. So the file is what the server sends and what clients are to trust; some (those in Rust)
    take no certificate that has signed itself."""
    now = datetime.datetime.now(datetime.UTC)

    def signed(of: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> bytes:
        builder = (
            x509.CertificateBuilder().subject_name(_name(of)).issuer_name(_name("Staddle test authority"))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None if names else 0), critical=True))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.DNSName("localhost"), x509.DNSName("*.localhost"),
             *(x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", *addresses))]
    made = Certificate(certificate=folder / "tls.crt", key=folder / "tls.key")
    made.certificate.write_bytes(
        signed("Staddle tests", key, authority, names) + signed("Staddle test authority", authority, authority, []))
    made.key.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    made.key.chmod(0o600)
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def free_port() -> int:
    """A port of the loopback address on which nobody listens."""
    start = (os.getpid() * 97 + time.monotonic_ns() // 1000) % len(PORTS)
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


class StaddleProcess:
    """One `staddle serve`. `folder` holds everything: data folders, log, certificate, configuration."""

    def __init__(self, folder: Path, *, tls: bool = False, data_folders: int = 1, port: int | None = None,
                 settings: Mapping[str, str] | None = None, extra: tuple[str, ...] = (),
                 variables: Mapping[str, str] | None = None) -> None:
        """`settings` are configuration keys with their values as text; `extra` are further arguments; `variables` of the
        environment reach all processes, and may be changed between two starts."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.data = [folder / f"data{number}" for number in range(data_folders)]
        self.log_path = folder / "server.log"
        self.certificate = make_certificate(folder) if tls else None
        self._settings = {"workers": "1", **(settings or {})}       # each more costs a start, and tests start hundreds
        self._extra = extra
        self.variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None

    # Where it is

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self, lines: int = 60) -> str:
        """The end of what the server has written, without its line for each request."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open(errors="replace") as file:
            return "".join(collections.deque((line for line in file if '"staddle.access"' not in line), lines))

    def connect(self, timeout_s: float = 10.0) -> http.client.HTTPConnection:
        """A new connection, which trusts the server's certificate."""
        if self.certificate is None:
            return http.client.HTTPConnection(*self.address, timeout=timeout_s)
        context = ssl.create_default_context(cafile=str(self.certificate.certificate))
        return http.client.HTTPSConnection(*self.address, timeout=timeout_s, context=context)

    # Its life

    def command(self) -> list[str]:
        command = [sys.executable, "-P", "-m", "gateway.cli", "serve"]
        for data in self.data:
            command += ["--data", str(data)]
        return [*command, "--listen", f"127.0.0.1:{self.port}", *self._extra]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STADDLE_", "AWS_"))}
        ours = {"STADDLE_ROOT_ACCESS_KEY": ACCESS_KEY, "STADDLE_ROOT_SECRET_KEY": SECRET_KEY, "PYTHONPATH": str(ROOT)}
        if self.certificate is not None:
            ours["STADDLE_TLS_CERT"] = str(self.certificate.certificate)
            ours["STADDLE_TLS_KEY"] = str(self.certificate.key)
        ours |= {f"STADDLE_{key.upper()}": value for key, value in self._settings.items()}
        return kept | ours | self.variables

    def start(self, *, wait: bool = True, prefix: tuple[str, ...] = ()) -> Self:
        """Start and, with `wait`, return when the server is ready. `prefix` runs it under another program."""
        assert not self.running, "already running"
        with self.log_path.open("ab") as log:
            # Its own group, so that a Ctrl-C at the tests does not reach it before they stop it.
            self._process = subprocess.Popen(
                [*prefix, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(), cwd=self.folder, start_new_session=True, preexec_fn=self.before_exec)
        if wait:
            self.wait_ready()
        return self

    def before_exec(self) -> None:
        """In the child that becomes the server. What the tests' shell ignores (nohup, a job in the background), it does not."""
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        end_with_parent()

    def ready(self) -> bool:
        """Whether the server says now that it can read and write."""
        connection = self.connect(timeout_s=2.0)
        try:
            connection.request("GET", "/-/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Seconds until it was ready. Raises NotReady with the log's end."""
        began = time.monotonic()
        while not self.ready():
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                raise NotReady(f"the server ended with {code}:\n{self.log()}")
            if time.monotonic() - began > timeout_s:
                raise NotReady(f"not ready after {timeout_s} s:\n{self.log()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def wait_ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """The exit status of the supervisor once it and all its processes are gone."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def terminate(self) -> None:
        """Ask for a clean end and don't wait for it."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> int:
        """A clean end; the exit status. A server that does not end is killed, and that is a failure."""
        if not self.running:
            return self.wait_ended()
        self.terminate()
        try:
            return self.wait_ended()
        except subprocess.TimeoutExpired:
            log = self.log()
            self.kill_all()
            raise AssertionError(f"the server did not stop within {STOP_TIMEOUT_S} s of SIGTERM:\n{log}") from None

    def kill_all(self) -> None:
        """What a power switch does to processes: all of them at once, none can react."""
        if self._process is None:
            return
        pids = [process.pid for process in self.processes()]
        for number in (signal.SIGSTOP, signal.SIGKILL):   # stopped first: the supervisor must not start new ones
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._process.wait()
        for pid in pids:
            while (left := processes.read(pid)) is not None and left.state != "Z":
                time.sleep(POLL_S)

    # Its processes

    def processes(self) -> list[processes.Process]:
        return processes.tree(self.pid) if self._process is not None else []

    def roles(self) -> dict[str, list[int]]:
        """Process ids by role: meta, node, gateway, and `supervisor`."""
        found: dict[str, list[int]] = {"supervisor": [self.pid], **{role: [] for role in ROLES}}
        for process in self.processes():
            role = role_of(process)
            if role is not None and process.pid != self.pid:
                found[role].append(process.pid)
        return found

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to the first process of a role; its id."""
        pids = self.roles()[role]
        assert pids, f"no {role} process among {[process.command for process in self.processes()]}"
        os.kill(pids[0], number)
        return pids[0]


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Tests that are killed must not leave servers behind: the kernel sends SIGTERM when the thread that started this
    process is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def role_of(process: processes.Process) -> str | None:
    """Which role a process plays: its command line ends with the role's name, as in `gateway-1`."""
    last = process.command[-1].partition("-")[0] if process.command else ""
    return last if last in ROLES else None


@contextlib.contextmanager
def serving(folder: Path, **options: object) -> Iterator[StaddleProcess]:
    """A started server that is stopped at the end."""
    server = StaddleProcess(folder, **options)  # type: ignore[arg-type]
    try:
        yield server.start()
    finally:
        if server.running:
            server.stop()


@pytest.fixture(scope="session", params=["http", "https"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaddleProcess]:
    """A server of its own for http and one for https, each shared by all tests of this pytest process."""
    with serving(tmp_path_factory.mktemp(request.param), tls=request.param == "https") as server:
        yield server
