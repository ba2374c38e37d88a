"""Real clients against one server, set up as their users do: endpoint, keys and, for https, whom to trust.

A `Target` is the server; a `Shell` runs clients against it from a home folder of its own, so that settings don't mix.
"""

import hashlib
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from tests.clients import install
from tests.servers import end_with_parent

HTTP_ONLY = pytest.mark.parametrize("target", ["http"], indirect=True)
"""Of long tests whose subject does not depend on the scheme: each has a shorter one beside it that runs over both."""

PIECE_BYTES = 1 << 20


class ClientFailed(AssertionError):
    """A client ended with an error; the text has all that it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    ca: Path | None = None       # the certificate to trust

    @property
    def netloc(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")


class Shell:
    def __init__(self, target: Target, home: Path) -> None:
        self.target, self.home = target, home
        home.mkdir(parents=True, exist_ok=True)
        self._write_s3cmd_settings()

    def run(self, client: str, *arguments: str | Path, ok: bool = True, timeout_s: float = 100.0,
            environment: dict[str, str] | None = None) -> str:
        """What the client printed. Raises ClientFailed if it fails (with `ok` false: if it doesn't)."""
        program = install.find(client)
        if program is None:
            pytest.skip(f"{client} is not installed")
        done = subprocess.run(
            [str(program), *map(str, arguments)], capture_output=True, text=True, errors="surrogateescape",
            timeout=timeout_s, cwd=self.home, env=self.environment() | (environment or {}), check=False)
        if (done.returncode == 0) != ok:
            raise ClientFailed(f"{client} {' '.join(map(str, arguments))}\nended with {done.returncode}\n"
                               f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout if ok else done.stdout + done.stderr

    def script(self, text: str, **names: str | Path) -> str:
        """What a bash script printed. A name is put in, quoted, where the text has it in braces; the name of a client
        stands for its program. A failing command, also inside a pipe, fails the script."""
        programs: dict[str, str | Path] = {}
        for client in install.CLIENTS:
            if f"{{{client}}}" in text:
                program = install.find(client)
                if program is None:
                    pytest.skip(f"{client} is not installed")
                programs[client] = program
        filled = text.format(**{name: shlex.quote(str(value)) for name, value in {**programs, **names}.items()})
        done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", filled], capture_output=True, text=True,
                              timeout=100, env=self.environment(), cwd=self.home, check=False)
        if done.returncode:
            raise ClientFailed(f"{filled}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def program(self, name: str, bucket: str, *, python: str, **environment: str) -> str:
        """Run one of `programs/` with the Python of an environment; the bucket is its own to make."""
        program = install.HERE / "programs" / name
        if program.suffix == ".mjs":
            if not (install.NODE / "node_modules").exists():
                pytest.skip("the npm packages are not installed")
            program = Path(shutil.copy(program, install.NODE))          # node looks for packages from where a program lies
        return self.run(python, program, environment={"BUCKET": bucket, **environment})

    def start(self, client: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> "Running":
        """A client that goes on until the block ends."""
        program = install.find(client)
        if program is None:
            pytest.skip(f"{client} is not installed")
        return Running([str(program), *map(str, arguments)], self.home, self.environment() | (environment or {}))

    def fetch(self, url: str) -> bytes:
        """A plain GET, as a browser would do it. Raises HTTPError."""
        context = ssl.create_default_context(cafile=str(self.target.ca)) if self.target.ca else None
        with urllib.request.urlopen(url, context=context, timeout=20) as answer:
            body: bytes = answer.read()
        return body

    def environment(self) -> dict[str, str]:
        target = self.target
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "LANG": "C.UTF-8", "TZ": "UTC",
            # aws, s5cmd, restic
            "AWS_ACCESS_KEY_ID": target.access_key, "AWS_SECRET_ACCESS_KEY": target.secret_key,
            "AWS_DEFAULT_REGION": target.region, "AWS_REGION": target.region,
            "AWS_ENDPOINT_URL": target.url, "S3_ENDPOINT_URL": target.url,
            "AWS_EC2_METADATA_DISABLED": "true",         # else a client without keys would ask the network
            "RESTIC_PASSWORD": "a password for tests", "RESTIC_CACHE_DIR": str(self.home / "restic-cache"),
            # rclone: a remote called `staddle`
            "RCLONE_CONFIG": str(self.home / "rclone.conf"), "RCLONE_CONFIG_STADDLE_TYPE": "s3",
            "RCLONE_CONFIG_STADDLE_PROVIDER": "Other", "RCLONE_CONFIG_STADDLE_ENDPOINT": target.url,
            "RCLONE_CONFIG_STADDLE_ACCESS_KEY_ID": target.access_key,
            "RCLONE_CONFIG_STADDLE_SECRET_ACCESS_KEY": target.secret_key,
        }
        if target.ca is not None:
            environment |= {"AWS_CA_BUNDLE": str(target.ca), "SSL_CERT_FILE": str(target.ca),
                            "NODE_EXTRA_CA_CERTS": str(target.ca)}
        return environment

    def _write_s3cmd_settings(self) -> None:
        target = self.target
        lines = ["[default]", f"access_key = {target.access_key}", f"secret_key = {target.secret_key}",
                 f"host_base = {target.netloc}", f"host_bucket = {target.netloc}", f"use_https = {target.secure}"]
        if target.ca is not None:
            lines.append(f"ca_certs_file = {target.ca}")
        (self.home / ".s3cfg").write_text("\n".join(lines) + "\n")


class Running:
    """A program in the background; what it says goes to a file."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._command, self._log = command, folder / f"{Path(command[0]).name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, start_new_session=True, preexec_fn=end_with_parent)

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Raises ClientFailed with what it said, if it ends before or takes too long."""
        until = time.monotonic() + timeout_s
        while not done():
            if self._process.poll() is not None or time.monotonic() > until:
                raise ClientFailed(f"{' '.join(self._command)}\nended or took too long\n{self.said()[-4000:]}")
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ClientFailed(f"{' '.join(self._command)}\ndid not stop\n{self.said()[-4000:]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of_error: object) -> None:
        self.stop()


def sha256(path: Path) -> str:
    """Of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path: Path, size: int) -> Path:
    """A file of bytes that nothing can compress or deduplicate."""
    with path.open("wb") as file:
        for piece in _pieces(size):
            file.write(piece)
    return path


def _pieces(size: int) -> Iterator[bytes]:
    while size > 0:
        yield os.urandom(min(size, PIECE_BYTES))
        size -= PIECE_BYTES


def small_files(folder: Path, count: int) -> Path:
    """`count` files of up to 2 KiB in ten folders, with names that need encoding here and there, and an hour old: objects tell
    their time in whole seconds, so one that is stored within the second of its file seems older to who compares."""
    made = time.time() - 3600
    for number in range(count):
        name = f"{number:04}.bin" if number % 50 else f"{number:04} ä+&=%.bin"
        path = folder / f"d{number % 10}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 2048 + 1))
        os.utime(path, (made, made))
    return folder


def same_tree(first: Path, second: Path) -> None:
    """Both folders hold the same files with the same bytes."""
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
             for folder in (first, second)]
    assert names[0] == names[1]
    differing = [name for name in names[0] if (first / name).read_bytes() != (second / name).read_bytes()]
    assert not differing
