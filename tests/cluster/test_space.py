"""What objects take on the disk: equal bytes once, and any chunk size beside any other."""

import os
import time
from pathlib import Path

import pytest

from tests.servers import StaddleProcess, serving
from tests.talker import BUCKET, Talker, make_bucket

OBJECT_BYTES = 100 << 20
PATIENCE_S = 40.0
"""A gateway that has nothing to do says so every 15 s; only then does a node know that a copy was passed over."""


def used_bytes(server: StaddleProcess) -> int:
    """Of the disk, by all data folders, as `du` counts it."""
    total = 0
    for data in server.data:
        for folder, _, names in os.walk(data):
            for name in names:
                try:
                    total += Path(folder, name).stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:       # a file that went meanwhile takes nothing
                    continue
    return total


def put(talker: Talker, key: str, body: bytes) -> None:
    status, answer, _ = talker.ask("PUT", f"/{BUCKET}/{key}", body=body)
    assert status == 200, answer


def get(talker: Talker, key: str) -> bytes:
    status, body, _ = talker.ask("GET", f"/{BUCKET}/{key}")
    assert status == 200, body
    return body


def settled(server: StaddleProcess, bytes_max: int) -> int:
    """Bytes in use once they are few enough: what was passed over goes within seconds, not at once."""
    deadline = time.monotonic() + PATIENCE_S
    while (used := used_bytes(server)) > bytes_max:
        assert time.monotonic() < deadline, f"{used:,} bytes are in use, {bytes_max:,} were expected"
        time.sleep(0.1)
    return used


@pytest.mark.slow
def test_equal_objects_take_the_space_of_one(server: StaddleProcess) -> None:
    server.start()
    make_bucket(server)
    empty = used_bytes(server)
    body = os.urandom(OBJECT_BYTES)
    with Talker(server) as talker:
        put(talker, "one", body)
        put(talker, "two", body)
        assert settled(server, empty + OBJECT_BYTES + OBJECT_BYTES // 20) > OBJECT_BYTES
        talker.ask("DELETE", f"/{BUCKET}/one")
        assert get(talker, "two") == body


@pytest.mark.slow
def test_objects_of_different_chunk_sizes_live_side_by_side(server: StaddleProcess) -> None:
    bodies = {}
    for number, size in enumerate(("1MiB", "64MiB", "3MiB")):
        with serving(server.folder, port=server.port, settings={"chunk_bytes": size}) as changed:
            if number == 0:
                make_bucket(changed)
            with Talker(changed) as talker:
                bodies[f"with {size}"] = os.urandom((5 << 20) + 12345)
                put(talker, f"with {size}", bodies[f"with {size}"])
                for key, body in bodies.items():
                    assert get(talker, key) == body
