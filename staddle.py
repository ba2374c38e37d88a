"""Staddle from Python: a real S3 server for the length of a `with` block, and for tests with pytest.

    import staddle

    with staddle.Server() as s3:
        client = s3.client()
        client.create_bucket(Bucket="first")

The server is the whole store in one process of its own (gateway/single.py), on a free port of the loopback address. Its
data lies in a temporary folder that is removed at the end, or in one that you give and keep; `staddle serve --data` opens
the same folder, and the other way round. docs/EMBEDDING.md has more examples, and the pytest fixtures `s3_server`,
`s3_client`, `s3_bucket` and `s3_env`. Nothing else of Staddle is meant to be imported.
"""

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Server", "ServerError"]

START_S_MAX = 30.0
STOP_S_MAX = 40.0
"""Requests under way may take 30 s to finish when the server stops."""

DELETE_AT_ONCE = 1000
"""S3's limit for one DeleteObjects."""

LOG_BYTES_SHOWN = 4000

_ARGUMENTS = {"data": "the folder", "listen": "port="}
"""Settings that are arguments of `Server`: among the others they would count for nothing."""

_PROGRAM = "import gc; gc.disable(); from gateway.single import main; raise SystemExit(main())"
"""`python -m gateway.single`, without looking for garbage among the modules that it loads: a sixth of its start. It is
looked for again once the server is ready."""


class ServerError(RuntimeError):
    """The server did not start; the text has the end of its log."""


class Server:
    """A server that runs from `start` (or `with`) to `stop`.

    `folder` is its data folder, or several of them, each a storage node: a temporary one if None. `settings` are those
    of docs/CONFIGURATION.md. The root key is `access_key` and `secret_key` if given, else the one that the folder has;
    a new folder gets a new one. `port` 0 takes a free port.

    After `start`: `endpoint_url`, `port`, `access_key`, `secret_key`, `region`.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None, *,
        access_key: str | None = None, secret_key: str | None = None, region: str | None = None, port: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, argument in _ARGUMENTS.items():
            if name in (settings or {}):
                raise ServerError(f"setting {name!r}: give it as {argument} of the server")
        self.access_key, self.secret_key = access_key or "", secret_key or ""
        self.region = region or str((settings or {}).get("region") or "us-east-1")
        self.port = port
        self.endpoint_url = ""
        self._asked_port = port
        self._given = [Path(folder)] if isinstance(folder, str | os.PathLike) else [Path(one) for one in folder or ()]
        # A line for each request is for operators; whoever wants it sets log_level to "info".
        self._settings = {"log_level": "warning", **(settings or {}), "region": self.region}
        self._temporary: Path | None = None
        self._started_by = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._log_from = 0                    # what lies before is of earlier starts on this folder
        self._session: Any = None             # boto3's, made when it is first needed

    # Its life

    def start(self) -> Self:
        """Returns once the server can read and write. Raises ServerError."""
        if self._process is not None:
            raise ServerError("the server is started already")
        folders = [folder.absolute() for folder in self._given]
        if not folders:
            self._temporary = Path(tempfile.mkdtemp(prefix="staddle-"))
            folders = [self._temporary / "data"]
        self._log = folders[0] / "run" / "server.log"
        self._started_by = os.getpid()
        try:
            folders[0].mkdir(exist_ok=True)                 # the server makes the others, and all their names durable
            self._log.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            self.stop()
            raise ServerError(f"cannot use the data folder {folders[0]}: {error.strerror}") from None
        orders = {"data": [str(folder) for folder in folders], "listen": f"127.0.0.1:{self._asked_port}",
                  "settings": self._settings, "access_key": self.access_key or None, "secret_key": self.secret_key or None,
                  "remove": None if self._temporary is None else str(self._temporary)}
        with self._log.open("ab") as log:
            self._log_from = log.tell()
            # -P: a folder of yours that is called gateway is never picked up in place of ours. A session of its own: a
            # Ctrl-C reaches you, and you stop the server when you are done.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM], env=_environment(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        atexit.register(self.stop)
        try:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):      # it has ended: the log says why
                self._process.stdin.write(json.dumps(orders).encode() + b"\n")
                self._process.stdin.flush()
            ready = self._said()
        except BaseException:
            self.stop()
            raise
        self.port, self.access_key, self.secret_key = ready["port"], ready["access_key"], ready["secret_key"]
        self.endpoint_url = f"{'https' if self._settings.get('tls_cert') else 'http'}://127.0.0.1:{self.port}"
        return self

    def _said(self) -> dict[str, Any]:
        """What the server says when it is ready. Raises ServerError."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        heard, deadline = b"", time.monotonic() + START_S_MAX
        waiting = select.poll()                             # select.select knows no descriptor above 1023
        waiting.register(process.stdout, select.POLLIN | select.POLLHUP)
        while not heard.endswith(b"\n"):
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ServerError(f"the server was not ready within {START_S_MAX:.0f} s:\n{self.log()}")
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                raise ServerError(f"the server ended with status {process.wait()}:\n{self.log()}")
            heard += piece
        said: dict[str, Any] = json.loads(heard)
        return said

    def stop(self) -> None:
        """Stop it; a temporary folder goes. May be called twice. A fork of the process that started it stops nothing.

        On a folder of yours requests under way are finished and everything is left in order. What lies in a temporary one is
        thrown away, so there the server just ends.
        """
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if os.getpid() != self._started_by:
            return
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()                       # that is how it is told
            # Told again, since a fork of this process may hold the pipe open.
            process.send_signal(signal.SIGTERM if self._temporary is None else signal.SIGKILL)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def log(self) -> str:
        """The end of the server's log, since it was started."""
        if self._log is None or not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(self._log_from, file.seek(0, os.SEEK_END) - LOG_BYTES_SHOWN))
            return file.read().decode(errors="replace")

    # Using it

    def client(self, **options: Any) -> Any:
        """A boto3 S3 client of this server; `options` go to boto3."""
        return self._boto3("client", options)

    def resource(self, **options: Any) -> Any:
        """A boto3 S3 resource of this server; `options` go to boto3."""
        return self._boto3("resource", options)

    def _boto3(self, kind: str, options: dict[str, Any]) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        # A proxy of this machine's environment does not lead to this machine.
        config = Config(proxies={})
        if (given := options.pop("config", None)) is not None:
            config = config.merge(given)
        ours = {"endpoint_url": self.endpoint_url, "region_name": self.region, "aws_access_key_id": self.access_key,
                "aws_secret_access_key": self.secret_key, "config": config}
        if self._session is None:
            # A profile that this machine's user has chosen has no say here, and may not even exist in a test's home.
            nobody = botocore.session.Session({"profile": (None, None, None, None)})
            self._session = boto3.Session(botocore_session=nobody)
        return getattr(self._session, kind)("s3", **{**ours, **options})

    def env(self) -> dict[str, str]:
        """Environment variables by which other programs (the aws CLI, SDKs of any language, `staddle`) find this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_SESSION_TOKEN": "",
            "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region, "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url, "AWS_EC2_METADATA_DISABLED": "true",
            "STADDLE_ENDPOINT": self.endpoint_url,
        }

    def url(self, bucket: str, key: str = "") -> str:
        """The address of a bucket or an object, without a signature."""
        return f"{self.endpoint_url}/{quote(bucket)}" + (f"/{quote(key)}" if key else "")

    def reset(self) -> None:
        """Delete all buckets with all that is in them: a clean server sooner than a new one."""
        client = self.client()
        for bucket in client.list_buckets()["Buckets"]:
            _remove(client, bucket["Name"])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None",
    ) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    """The server's: without settings of another one, and with the folder that this module was imported from."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STADDLE_")}
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.basename(here) not in ("site-packages", "dist-packages"):
        ours["PYTHONPATH"] = os.pathsep.join(filter(None, (here, ours.get("PYTHONPATH"))))
    return ours


def _remove(client: Any, bucket: str) -> None:
    """A bucket with its versions, objects and unfinished uploads. One that is gone already is no error."""
    try:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", ()):
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            named = [{"Key": one["Key"], "VersionId": one["VersionId"]}
                     for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
            for start in range(0, len(named), DELETE_AT_ONCE):
                _remove_versions(client, bucket, named[start:start + DELETE_AT_ONCE])
        client.delete_bucket(Bucket=bucket)
    except client.exceptions.NoSuchBucket:
        return


def _remove_versions(client: Any, bucket: str, named: list[dict[str, str]]) -> None:
    """All at once; those that cannot go so, one by one: keys that XML cannot hold, and versions that are locked."""
    try:
        failed = client.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True}).get("Errors", [])
        left = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in failed]
        locked = True
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "MalformedXML":
            raise
        left, locked = named, False
    for one in left:
        if locked:
            with contextlib.suppress(client.exceptions.ClientError):
                client.put_object_legal_hold(Bucket=bucket, **one, LegalHold={"Status": "OFF"})
        client.delete_object(Bucket=bucket, **one, **({"BypassGovernanceRetention": True} if locked else {}))


def __getattr__(name: str) -> Any:
    """`pytest_plugin` is what pytest loads (entry point `pytest11`). It is made when it is first asked for, so that
    nobody else imports pytest for it."""
    if name != "pytest_plugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    @pytest.fixture(scope="session")
    def s3_settings() -> Mapping[str, Any]:
        """Settings of `s3_server` (docs/CONFIGURATION.md). Override it in your conftest.py."""
        return {}

    @pytest.fixture(scope="session")
    def s3_server(s3_settings: Mapping[str, Any]) -> Iterator[Server]:
        """A Staddle server for the whole session (with pytest-xdist: one for each worker)."""
        with Server(settings=s3_settings) as server:
            yield server

    @pytest.fixture(scope="session")
    def s3_client(s3_server: Server) -> Any:
        """A boto3 client of `s3_server`."""
        return s3_server.client()

    @pytest.fixture
    def s3_bucket(s3_client: Any) -> Iterator[str]:
        """The name of a new, empty bucket, which is removed after the test with all that is in it."""
        name = f"test-{os.urandom(8).hex()}"
        s3_client.create_bucket(Bucket=name)
        yield name
        _remove(s3_client, name)

    @pytest.fixture
    def s3_env(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Sets the environment variables by which code under test, and programs that it starts, find `s3_server`."""
        for variable, value in s3_server.env().items():
            monkeypatch.setenv(variable, value)
        # A profile of the machine's user would have a say too.
        for variable in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            monkeypatch.delenv(variable, raising=False)
        return s3_server.env()

    # A module, since pytest takes fixtures from modules: those of instances are to go.
    plugin = types.ModuleType("staddle.pytest_plugin", "A server for tests.")
    for fixture_name, fixture in (("s3_settings", s3_settings), ("s3_server", s3_server), ("s3_client", s3_client),
                                  ("s3_bucket", s3_bucket), ("s3_env", s3_env)):
        setattr(plugin, fixture_name, fixture)
    globals()[name] = plugin
    return plugin
