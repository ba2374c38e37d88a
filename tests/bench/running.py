"""What the benchmarks of the whole server share: a server in a folder on a real disk, a bucket, and a signer.

STADDLE_BENCH_DIR names the disk to measure; by default it is the system's folder for temporary files.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import Load
from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess, serving


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder on the disk under measurement, removed at the end."""
    made = Path(tempfile.mkdtemp(prefix="staddle-bench-", dir=os.environ.get("STADDLE_BENCH_DIR")))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def server(where: Path, **options: object) -> Iterator[StaddleProcess]:
    """A ready server with a bucket called `bench`, as it is when nothing is set."""
    with serving(where / "server", **{"settings": {"workers": "0"}, **options}) as started:
        make_bucket(started, "bench")
        yield started


def make_bucket(started: StaddleProcess, name: str) -> None:
    with Load(started.address, 1) as load:
        load.run([signer(started).request("PUT", f"/{name}")]).all_succeeded()


def signer(started: StaddleProcess) -> Signer:
    return Signer(host=f"127.0.0.1:{started.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
