"""docs/ARCHITECTURE.md lists the calls of a PUT, a GET and a LIST in order; real requests show whether that is so.

All roles of a machine run in one event loop, as gateway/roles.py puts them together; boto3 asks; every call of ours is
recorded in all threads (tests/tracing.py). A page that is wrong in one place must be noticed, so each swapped pair of
lines and each other name is tried too.
"""

import asyncio
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
import uvloop
from botocore.client import BaseClient
from botocore.config import Config as ClientConfig

from gateway.config import Config, Size
from gateway.folders import cluster_secret, name_nodes, prepare, root_identity
from gateway.gateway_role import GatewayRole
from gateway.launch import Launch, Role, launches
from gateway.roles import build
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY
from tests.tracing import ROOT, Call, Recorder

PAGE = ROOT / "docs" / "ARCHITECTURE.md"
ROW = re.compile(r"\| *(\d+) \| (gateway|node|meta) \| `([\w/.]+)` \| `([^`]+)` \| [^|]* *\|")
PACKAGES_OF = {
    "gateway": {"gateway", "storage_node", "consensus"}, "node": {"storage_node", "consensus"}, "meta": {"consensus"},
}

TRIES = 3
"""Housekeeping of a role (every few seconds) may come between a request's calls: then it is made again."""

FIRST = Call("gateway/http/protocol.py", "Connection.data_received")
MIB = 1 << 20
BUCKET = "traced"


class Listed(NamedTuple):
    number: int
    process: str
    call: Call


Request = Callable[[BaseClient], object]

REQUESTS: dict[str, Request] = {
    "A small PUT": lambda s3: s3.put_object(Bucket=BUCKET, Key="small", Body=os.urandom(4096)),
    "A large PUT": lambda s3: s3.put_object(Bucket=BUCKET, Key="large", Body=os.urandom(2 * MIB)),
    "A small GET": lambda s3: s3.get_object(Bucket=BUCKET, Key="small-kept")["Body"].read(),
    "A large GET": lambda s3: s3.get_object(Bucket=BUCKET, Key="large-kept")["Body"].read(),
    "A LIST": lambda s3: s3.list_objects_v2(Bucket=BUCKET, Delimiter="/"),
}
"""By the heading under which the page lists the calls."""


def paths(page: str) -> dict[str, list[Listed]]:
    """The tables of calls by their headings."""
    found: dict[str, list[Listed]] = {}
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        rows = [Listed(int(number), process, Call(file, function))
                for number, process, file, function in ROW.findall(section)]
        if rows:
            found[section.partition("\n")[0]] = rows
    return found


def faults(listed: list[Listed], recorded: list[Call]) -> list[str]:
    """What is wrong with a list, in sentences. Each call counts where it came first."""
    place = {call: number for number, call in enumerate(recorded)}
    wrong = [f"{row.number}. {row.call} is never called" for row in listed if row.call not in place]
    there = [row for row in listed if row.call in place]
    wrong += [f"{later.number}. {later.call} is called before {earlier.number}. {earlier.call}"
              for earlier, later in itertools.pairwise(there) if place[later.call] <= place[earlier.call]]
    return wrong


class OneLoop:
    """A machine's roles in one event loop, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        config = Config(data=(folder / "data",), chunk_bytes=Size(MIB), workers=1)
        folders = prepare(config.data)
        name_nodes(folders.root, config.data)
        root, _ = root_identity(folders.root, ACCESS_KEY, SECRET_KEY)
        self._launches = launches(config, folders, cluster_secret(folders.root), root, "127.0.0.1", 0)
        self._roles: list[Role] = []
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="one loop")
        self.endpoint = ""

    async def _start(self, launch: Launch) -> None:
        role = build(launch)
        await role.start()
        self._roles.append(role)
        if isinstance(role, GatewayRole):
            self.endpoint = f"http://127.0.0.1:{role.server.port}"

    def start(self) -> None:
        self._thread.start()
        for launch in self._launches:
            asyncio.run_coroutine_threadsafe(self._start(launch), self._loop).result(30)

    def stop(self) -> None:
        for role in reversed(self._roles):
            asyncio.run_coroutine_threadsafe(role.stop(), self._loop).result(40)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


Traced = Callable[[str], list[Call]]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Makes the request of a heading and answers the calls. The first of its kind goes before: what is made once
    (connections, a segment, open files) is there then."""
    recorder = Recorder()
    with recorder.installed():
        server = OneLoop(tmp_path_factory.mktemp("one-loop"))
        server.start()
        try:
            s3 = boto3.client(
                "s3", endpoint_url=server.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                config=ClientConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))
            s3.create_bucket(Bucket=BUCKET)
            s3.put_object(Bucket=BUCKET, Key="small-kept", Body=os.urandom(4096))
            s3.put_object(Bucket=BUCKET, Key="large-kept", Body=os.urandom(2 * MIB))

            def record(heading: str) -> list[Call]:
                REQUESTS[heading](s3)
                with recorder.record(armed_by=FIRST) as calls:
                    REQUESTS[heading](s3)
                return calls

            yield record
        finally:
            server.stop()


def test_the_page_lists_each_path_once_and_in_numbers() -> None:
    page = paths(PAGE.read_text())
    assert list(page) == list(REQUESTS)
    for heading, listed in page.items():
        assert [row.number for row in listed] == list(range(1, len(listed) + 1)), heading
        assert len({row.call for row in listed}) == len(listed), f"{heading}: a call is listed twice"
        assert len(listed) >= 10, heading
        for row in listed:
            assert row.call.file.partition("/")[0] in PACKAGES_OF[row.process], f"{heading}: {row}"


def recorded_as_listed(heading: str, traced: Traced) -> tuple[list[Listed], list[Call]]:
    """The page's list, and a recording in which it holds. Fails if there is none."""
    listed = paths(PAGE.read_text())[heading]
    for _ in range(TRIES):
        recorded = traced(heading)
        wrong = faults(listed, recorded)
        if not wrong:
            return listed, recorded
    pytest.fail("\n".join([f"{heading}, as docs/ARCHITECTURE.md has it:", *wrong]))


@pytest.mark.parametrize("heading", list(REQUESTS))
def test_the_listed_calls_happen_in_that_order(heading: str, traced: Traced) -> None:
    recorded_as_listed(heading, traced)


@pytest.mark.parametrize("heading", list(REQUESTS))
def test_a_page_that_is_wrong_in_one_place_is_noticed(heading: str, traced: Traced) -> None:
    """Any two neighbours swapped, any function renamed, any function moved to another file."""
    listed, recorded = recorded_as_listed(heading, traced)
    for place, (row, following) in enumerate(itertools.pairwise(listed)):
        swapped = [*listed[:place], following, row, *listed[place + 2:]]
        assert faults(swapped, recorded), f"{row.call} and {following.call} may be swapped unnoticed"
    for place, row in enumerate(listed):
        renamed = row.call._replace(function=row.call.function + "_once")
        for call in (renamed, row.call._replace(file="gateway/gone.py")):
            changed = [*listed[:place], row._replace(call=call), *listed[place + 1:]]
            assert faults(changed, recorded) == [f"{row.number}. {call} is never called"]


def test_a_copy_of_the_page_with_two_lines_swapped_is_refused(traced: Traced) -> None:
    """The same through the page's text: the journal's sync before the chunk's."""
    page = PAGE.read_text()
    _, recorded = recorded_as_listed("A small PUT", traced)
    chunk, journal = "`Disk.fdatasync(\"segment.fdatasync\")`", "`Disk.fdatasync(\"journal.fdatasync\")`"
    mutated = page.replace(chunk, "?", 1).replace(journal, chunk, 1).replace("?", journal, 1)
    assert not faults(paths(page)["A small PUT"], recorded)
    assert faults(paths(mutated)["A small PUT"], recorded)


def test_durable_steps_are_in_the_order_of_the_first_promise(traced: Traced) -> None:
    """Whatever the page says: the chunk, then the journal, then SQLite's commit, then the answer."""
    disk, answer = "consensus/disk.py", Call("gateway/http/exchange.py", "Exchange.reply")
    decided = [Call(disk, 'Disk.fdatasync("journal.fdatasync")'), Call(disk, 'Disk.step("metadata.commit")'), answer]
    for heading, chunk in (
        ("A small PUT", Call(disk, 'Disk.fdatasync("segment.fdatasync")')),
        ("A large PUT", Call(disk, 'Disk.fsync_dir("file.fsync_dir")')),
    ):
        _, recorded = recorded_as_listed(heading, traced)
        places = [recorded.index(step) for step in (chunk, *decided)]
        assert places == sorted(places), heading
