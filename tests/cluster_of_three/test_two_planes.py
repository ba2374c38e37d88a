"""Bytes go between gateways and storage nodes; the metadata members see none of them, however large the object. And who waits
for whom: a storage node that stands still, or is full, holds nobody up."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import processes
from tests.admin.asking import done
from tests.cluster_of_three.conftest import BUCKET, POLL_S, ask, await_copies
from tests.servers import role_of
from tests.talker import Talker
from tests.trio import Machine, Trio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MIB = 1 << 20
OBJECT_BYTES = int(os.environ.get("STADDLE_PLANES_MIB", "64")) * MIB
META_BYTES_MAX = MIB
"""Of each member, for a GiB; the heartbeats of the time that it takes are in it."""

HELD_UP_S = 5.0
"""Far less than any time-out by which a request could get past a node that it waits for."""


def test_metadata_members_see_no_object_bytes(trio: Trio) -> None:
    body = os.urandom(MIB) * (OBJECT_BYTES // MIB)
    before = meta_bytes(trio)
    with Talker(trio.machines[0]) as talker:
        status, answer, _ = talker.ask("PUT", f"/{BUCKET}/large", body=body, digest=hashlib.sha256(body).hexdigest())
        assert status == 200, answer
    spent = {name: count - before[name] for name, count in meta_bytes(trio).items()}
    assert len(spent) == 3
    assert all(count < META_BYTES_MAX for count in spent.values()), spent
    assert any(spent.values()), "nothing was measured"
    with Talker(trio.machines[1]) as talker:
        status, found, _ = talker.ask("GET", f"/{BUCKET}/large")
    assert (status, len(found)) == (200, len(body))
    assert found == body


def meta_bytes(trio: Trio) -> dict[str, int]:
    """What each member has read and written so far: files, and sockets too, which libuv reads and writes like files."""
    return {machine.name: read_and_written(pid_of(machine, "meta")) for machine in trio.machines}


def read_and_written(pid: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"]) + int(fields["wchar"])


def pid_of(machine: Machine, role: str) -> int:
    [pid] = [process.pid for process in machine.processes() if (role_of(process) or "").startswith(role)]
    assert processes.read(pid) is not None
    return pid


@contextmanager
def standing_still(machine: Machine) -> Iterator[None]:
    pid = pid_of(machine, "node")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_storage_node_that_stands_still_holds_nobody_up(trio: Trio) -> None:
    bodies = {"small": os.urandom(5000), "middle": os.urandom(300_000), "large": os.urandom(5 * MIB)}
    for name, body in bodies.items():
        assert ask(trio.machines[0], "PUT", f"/{BUCKET}/before-{name}", body)[0] == 200
    with standing_still(trio.machines[1]):
        for round_ in range(3):
            for name, body in bodies.items():
                for machine in (trio.machines[0], trio.machines[2]):
                    began = time.monotonic()
                    status, answer = ask(machine, "PUT", f"/{BUCKET}/during-{name}", body)
                    assert status == 200, (answer, trio.logs(15))
                    assert ask(machine, "GET", f"/{BUCKET}/before-{name}") == (200, body)
                    took = time.monotonic() - began
                    assert took < HELD_UP_S, f"round {round_}: {name} through {machine.name}"
        # Reads around this host's own folder need no node at all.
        assert ask(trio.machines[1], "GET", f"/{BUCKET}/before-small") == (200, bodies["small"])
    for name, body in bodies.items():
        assert ask(trio.machines[1], "GET", f"/{BUCKET}/during-{name}") == (200, body)


@pytest.mark.timeout(240)
def test_an_asynchronous_bucket_takes_writes_with_one_node_of_three_and_the_others_get_them_later(trio: Trio) -> None:
    """Also when the gateway that acknowledged them is killed: nothing that has to be done is only in its memory. (That other
    buckets take none is in tests/s3/test_copies.py.)"""
    first = trio.machines[0]
    done(first, "POST", "bucket/create", name="behind", replication="async")
    bodies = {f"k{number}": os.urandom(5000 if number < 5 else 2 * MIB) for number in range(7)}
    with standing_still(trio.machines[1]), standing_still(trio.machines[2]):
        for key, body in bodies.items():
            began = time.monotonic()
            assert ask(first, "PUT", f"/behind/{key}", body)[0] == 200
            assert time.monotonic() - began < HELD_UP_S
        behind = await_lag(first, lambda short, oldest_s: short.get("1", 0) >= len(bodies) and oldest_s > 0)
        assert await_lag(first, lambda short, oldest_s: oldest_s > behind + 1) < 60
        os.kill(pid_of(first, "gateway"), signal.SIGKILL)
    await_copies(trio, 3, within_s=60)
    first.wait_ready()
    assert await_lag(first, lambda short, oldest_s: not short) == 0
    for key, body in bodies.items():
        assert ask(trio.machines[1], "GET", f"/behind/{key}") == (200, body)


def await_lag(machine: Machine, holds: Callable[[dict[str, int], float], bool], within_s: float = 20.0) -> float:
    """What an admin is shown: how many chunks have so few copies, and for how long that is known. Waits until `holds`."""
    end = time.monotonic() + within_s
    while True:
        status, answer = ask(machine, "GET", "/-/admin/node/list", query=f"node={machine.name}-1")
        assert status == 200, answer
        told = json.loads(answer)
        if holds(told["short"], told["oldest_seconds"]):
            return float(told["oldest_seconds"])
        assert time.monotonic() < end, answer
        time.sleep(POLL_S)
