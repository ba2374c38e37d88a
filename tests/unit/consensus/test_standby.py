"""A member whose disk takes no writes: clients read all that was ever answered, or nothing; and it comes back by itself."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus import standby
from consensus.client import MetadataClient
from consensus.core.commands import CreateBucket
from consensus.core.errors import ClusterError, ReadOnly, Unavailable, UnknownOutcome
from consensus.core.results import BucketCreated, Committed
from consensus.recovery import distrust
from consensus.server import MetaServer
from consensus.standby import LOCK, Member, proof
from tests.unit.consensus.crash import Unsynced
from tests.unit.consensus.members import QUIET, SECRET, Place, put

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Fragile(Unsynced):
    """With `broken`, nothing can be made or written."""

    broken = False

    def _hurt(self) -> None:
        if self.broken:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open(self, path, flags, mode=0o600):  # type: ignore[no-untyped-def]
        self._hurt()
        return super().open(path, flags, mode)

    def write(self, fd, data, step):  # type: ignore[no-untyped-def]
        self._hurt()
        super().write(fd, data, step)

    def writev(self, fd, buffers, step):  # type: ignore[no-untyped-def]
        self._hurt()
        super().writev(fd, buffers, step)

    def unlink(self, path, step):  # type: ignore[no-untyped-def]
        self._hurt()
        super().unlink(path, step)


class Home:
    """A folder, its disk, and a member that comes and goes."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder, disk=Fragile())
        self.meta = self.place.meta
        self.member: Member | None = None

    @property
    def disk(self) -> Fragile:
        assert isinstance(self.place.disk, Fragile)
        return self.place.disk

    async def start(self) -> Member:
        place = self.place

        def make() -> MetaServer:
            return MetaServer(str(place.meta), place.address, SECRET, disk=place.disk, config=QUIET, copies=1,
                              on_failure=place.failures.append)

        member = Member(make, str(place.meta), place.address, SECRET, place.disk)
        await member.start()
        self.member = member
        return member

    async def stop(self) -> None:
        if self.member is not None:
            member, self.member = self.member, None
            await member.stop()
            await asyncio.sleep(0)

    async def lives(self) -> None:
        """It serves, has a bucket and an object in it, and ends."""
        await self.start()
        client = await self.place.client()
        created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
        assert isinstance(created, BucketCreated)
        self.bucket = created.bucket
        assert isinstance(await client.commit(put(self.bucket, "k")), Committed)
        await self.stop()


async def refusing(client: MetadataClient) -> str:
    """What the member says, once there is one to ask."""
    while True:
        try:
            return (await client.status()).refusing
        except ClusterError:
            await asyncio.sleep(0.01)


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setattr(standby, "PROBE_S", 0.05)
    home = Home(tmp_path)
    yield home
    home.disk.broken = False
    for client in home.place.clients:
        await client.stop()
    await home.stop()


async def test_reads_go_on_writes_are_refused_at_once_and_it_is_back_unaided(home: Home) -> None:
    await home.lives()
    home.disk.broken = True
    await home.start()
    client = home.place.clients[0]
    async with asyncio.timeout(5):
        assert await refusing(client) == "read-only"
        found = await client.bucket("b")
        assert found is not None
        assert found.id == home.bucket
        began = asyncio.get_running_loop().time()
        with pytest.raises(ReadOnly):
            await client.commit(put(home.bucket, "no"))
        assert asyncio.get_running_loop().time() - began < 1.0
    home.disk.broken = False
    async with asyncio.timeout(5):
        while await refusing(client):
            await asyncio.sleep(0.01)
        assert isinstance(await client.commit(put(home.bucket, "yes")), Committed)
    assert not home.place.failures


@pytest.mark.parametrize("doubt", ["another boot", "another file", "never served", "damaged"])
async def test_what_may_lack_something_that_was_answered_is_not_shown(home: Home, doubt: str) -> None:
    await home.lives()
    lock = home.meta / LOCK
    assert lock.read_bytes() == proof(1)
    if doubt == "another boot":
        lock.write_bytes(b"00000000-0000-0000-0000-000000000000 1\n")
    elif doubt == "another file":
        lock.write_bytes(proof(2))
    elif doubt == "never served":
        lock.write_bytes(b"")
    else:
        distrust(str(home.meta), 1, "a test", home.disk, 0)
    home.disk.broken = True
    with pytest.raises(ClusterError):
        await home.start()


async def test_a_fault_that_is_none_of_the_disk_is_raised(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    await home.lives()

    async def fail(self: MetaServer) -> None:
        raise Unavailable("for another reason")

    monkeypatch.setattr(MetaServer, "start", fail)
    with pytest.raises(Unavailable, match="another reason"):
        await home.start()


async def test_that_a_second_try_is_refused_says_nothing_of_the_first(home: Home) -> None:
    """Promise 6: a command was sent, the member ended, and the next one stands by: it may have been carried out."""
    await home.start()
    client = await home.place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    assert home.member is not None
    server = home.member._server
    assert isinstance(server, MetaServer)
    taken = asyncio.Event()
    server.submit = lambda *arguments: taken.set()  # type: ignore[method-assign]
    committing = asyncio.ensure_future(client.commit(put(created.bucket, "k")))
    await taken.wait()
    await home.stop()
    home.disk.broken = True
    await home.start()
    with pytest.raises(UnknownOutcome):
        async with asyncio.timeout(5):
            await committing
