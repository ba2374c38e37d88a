"""Staddle from Python: a real S3 server for the length of a `with` block.

    import staddle

    with staddle.Server() as s3:
        client = s3.client()
        client.create_bucket(Bucket="first")

The server is `staddle serve` with all its processes, on a free port of the loopback address, in a folder of its own that
is removed at the end, or in one that you give and keep. Nothing else of Staddle is meant to be imported.
"""

import contextlib
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Server", "ServerError"]

START_S_MAX = 30.0
STOP_S_MAX = 40.0
"""Requests under way may take 30 s to finish when the server stops."""

_PORTS = range(20_000, 32_000)
"""Below the range from which systems take ports for outgoing connections."""


class ServerError(RuntimeError):
    """The server did not start; the text has the end of its log."""


class Server:
    """A server that runs from `start` (or `with`) to `stop`.

    `folder` holds its data: a temporary one if None. `settings` are those of docs/CONFIGURATION.md. The keys are random
    unless given. After `start`: `endpoint_url`, `access_key`, `secret_key`, `region`.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, access_key: str | None = None, secret_key: str | None = None,
        region: str = "us-east-1", settings: Mapping[str, str] | None = None,
    ) -> None:
        self.access_key = access_key or "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(20))
        self.secret_key = secret_key or secrets.token_urlsafe(30)
        self.region = region
        self.endpoint_url = ""
        self._given, self._settings = folder, dict(settings or {})
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None

    def start(self) -> Self:
        """Returns once the server can read and write. Raises ServerError."""
        if self._given is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="staddle-")
            folder = Path(self._temporary.name)
        else:
            folder = Path(self._given)
            folder.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._log = folder / "server.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STADDLE_")}
        environment |= {f"STADDLE_{key.upper()}": value for key, value in self._settings.items()}
        environment |= {"STADDLE_REGION": self.region, "STADDLE_ROOT_ACCESS_KEY": self.access_key,
                        "STADDLE_ROOT_SECRET_KEY": self.secret_key}
        with self._log.open("ab") as log:
            # -P: a folder of yours that is called gateway is never picked up in place of ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gateway.cli", "serve", "--data", str(folder / "data"),
                 "--listen", f"127.0.0.1:{port}"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_ready(port)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_ready(self, port: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"the server ended with status {self._process.returncode}:\n{self._log_end()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                try:
                    connection.request("GET", "/-/health/ready")
                    if connection.getresponse().status == 200:
                        return
                finally:
                    connection.close()
            time.sleep(0.01)                       # there is nothing to wait on but the server's own answer
        raise ServerError(f"the server was not ready within {START_S_MAX:.0f} s:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "" if self._log is None else self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop it cleanly; a temporary folder goes. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def client(self, **options: Any) -> Any:
        """A boto3 S3 client of this server; `options` go to boto3."""
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint_url, region_name=self.region,
                            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, **options)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None",
    ) -> None:
        self.stop()


def _free_port() -> int:
    """A port on which nobody listens."""
    start = secrets.randbelow(len(_PORTS))
    for offset in range(len(_PORTS)):
        port = _PORTS[(start + offset) % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("no free port")
