"""Which identities are in force, on a metadata member in the same loop, and what the whole server makes of them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config

from consensus.client import MetadataClient
from consensus.core.commands import ChangeKey, ChangeUser, CreateKey, CreateUser, DeleteKey, DeleteUser
from consensus.core.model import AccessKey, User
from consensus.core.results import Done
from gateway import identity_keeper
from gateway.folders import Folders, cluster_secret
from gateway.identities import Identity, IdentityStore
from gateway.identity_keeper import IdentityKeeper
from gateway.sealing import seal
from tests.servers import REGION, StaddleProcess, serving
from tests.signing import Keys, sign_request
from tests.unit.consensus.members import SECRET, Place

pytestmark = pytest.mark.anyio

ANN = User(name="ann", account="111122223333", user_id="ann-id", display_name="Ann", email="a@b", admin=True)
ROOT = Identity(name="root", account="0", user_id="0", access_key="ROOT", secret_key="root-secret")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Kept:
    """A member, its client, and a keeper with its store."""

    def __init__(self, place: Place, client: MetadataClient) -> None:
        self.place, self.client = place, client
        self.store = IdentityStore((ROOT,))
        self.keeper = IdentityKeeper(self.store, client, SECRET, (ROOT,))

    async def do(self, command: Any) -> None:
        assert await self.client.commit(command) == Done()

    async def key(self, name: str, user: str = "ann", secret_key: str = "secret", **named: Any) -> None:
        key = AccessKey(access_key=name, user=user, sealed=seal(SECRET, name, secret_key))
        await self.do(CreateKey(key=key, **named))

    @property
    def names(self) -> list[str]:
        """Access keys in force, without a look at the metadata."""
        return sorted(identity.access_key for identity in self.store)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    place = Place(tmp_path)
    await place.serve()
    kept = Kept(place, await place.client())
    yield kept
    await kept.keeper.stop()
    await place.close()


async def test_users_with_enabled_keys_are_in_force(kept: Kept) -> None:
    await kept.do(CreateUser(user=ANN))
    await kept.key("AK1", secret_key="s/+=")
    await kept.key("AK2")
    await kept.do(ChangeKey(access_key="AK2", disabled=True))
    await kept.do(CreateUser(user=msgspec.structs.replace(ANN, name="bob", disabled=True)))
    await kept.key("AK3", "bob")
    await kept.keeper.start()
    assert kept.names == ["AK1", "ROOT"]
    assert kept.store.by_access_key("AK1") == Identity(
        name="ann", account="111122223333", user_id="ann-id", access_key="AK1", secret_key="s/+=", display_name="Ann",
        email="a@b", admin=True)


async def test_reload_brings_what_was_committed_before_it(kept: Kept) -> None:
    await kept.keeper.start()
    for command, names in (
        (CreateUser(user=ANN), ["ROOT"]), (None, ["AK1", "ROOT"]),
        (ChangeKey(access_key="AK1", disabled=True), ["ROOT"]), (ChangeKey(access_key="AK1", disabled=False), ["AK1", "ROOT"]),
        (ChangeUser(name="ann", disabled=True), ["ROOT"]), (ChangeUser(name="ann", disabled=False), ["AK1", "ROOT"]),
        (DeleteKey(access_key="AK1"), ["ROOT"]), (DeleteUser(name="ann"), ["ROOT"]),
    ):
        await (kept.key("AK1") if command is None else kept.do(command))
        await kept.keeper.reload()
        assert kept.names == names, command


async def test_changes_are_noticed_without_being_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_keeper, "LOOK_S", 0.01)
    await kept.keeper.start()
    await kept.do(CreateUser(user=ANN))
    await kept.key("AK1")
    async with asyncio.timeout(5):
        while kept.names != ["AK1", "ROOT"]:
            await asyncio.sleep(0.005)
    await kept.do(DeleteUser(name="ann"))
    async with asyncio.timeout(5):
        while kept.names != ["ROOT"]:
            await asyncio.sleep(0.005)


async def test_a_key_is_good_the_moment_it_is_made(kept: Kept) -> None:
    await kept.keeper.start()
    assert kept.store.by_access_key("AK1") is None
    await kept.do(CreateUser(user=ANN))
    await kept.key("AK1")
    assert kept.names == ["ROOT"], "nothing has been read again yet"
    found = kept.store.by_access_key("AK1")
    assert found is not None
    assert found.secret_key == "secret"
    async with asyncio.timeout(0.5):
        while kept.names != ["AK1", "ROOT"]:        # and all are read again at once
            await asyncio.sleep(0.005)
    await kept.do(ChangeUser(name="ann", disabled=True))
    await kept.key("AK2")
    assert kept.store.by_access_key("AK2") is None


async def test_made_up_keys_cost_one_small_question(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.keeper.start()
    asked: list[str] = []
    glance = kept.client.glance

    def counted(query: Any, *arguments: Any) -> Any:
        asked.append(query.__name__)
        return glance(query, *arguments)

    monkeypatch.setattr(kept.client, "glance", counted)
    for number in range(10):
        assert kept.store.by_access_key(f"made-up-{number}") is None
    assert asked == ["identities_version"] * 10
    assert kept.store.by_access_key("ROOT") is ROOT
    assert len(asked) == 10, "a known key asks nothing"


async def test_the_configuration_wins_and_the_clash_is_said_once(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    await kept.do(CreateUser(user=ANN))
    await kept.key("ROOT", secret_key="ann's")
    with caplog.at_level(logging.WARNING, "staddle.identities"):
        await kept.keeper.start()
        await kept.key("AK1")
        await kept.keeper.reload()
    assert kept.store.by_access_key("ROOT") is ROOT
    assert [record.getMessage() for record in caplog.records] == [
        "access key ROOT is 'root' of the configuration; the user 'ann' who was given the same one cannot use it"]


async def test_a_secret_that_cannot_be_opened_disables_its_key_only(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    await kept.do(CreateUser(user=ANN))
    await kept.do(CreateKey(key=AccessKey(access_key="BAD", user="ann", sealed=seal(b"x" * 32, "BAD", "s"))))
    await kept.key("AK1")
    await kept.keeper.start()
    assert kept.names == ["AK1", "ROOT"]
    assert "BAD was not sealed for it" in caplog.text
    assert kept.store.by_access_key("BAD") is None


async def test_without_metadata_what_was_read_stays_in_force(kept: Kept) -> None:
    await kept.do(CreateUser(user=ANN))
    await kept.key("AK1")
    await kept.keeper.start()
    await kept.place.kill()
    async with asyncio.timeout(5):
        while kept.client.serving:
            await asyncio.sleep(0.005)
    assert kept.store.by_access_key("other") is None
    assert kept.names == ["AK1", "ROOT"]
    await kept.place.serve()
    async with asyncio.timeout(5):
        while not kept.client.serving:
            await asyncio.sleep(0.005)
    await kept.do(DeleteKey(access_key="AK1"))
    await kept.keeper.reload()
    assert kept.names == ["ROOT"]


async def test_more_keys_than_a_page(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.accounts.PAGE_MAX", 3)
    for number in range(7):
        await kept.do(CreateUser(user=msgspec.structs.replace(ANN, name=f"u{number}")))
        await kept.key(f"AK{number}", f"u{number}")
    await kept.keeper.start()
    assert kept.names == [*(f"AK{number}" for number in range(7)), "ROOT"]


# The whole server

@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("users"), settings={"workers": "2"}) as server:
        yield server


SECRET_KEY = "a-secret-that-is-nowhere-in-clear/0123456789"


def client(server: StaddleProcess, access_key: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name=REGION, aws_access_key_id=access_key,
        aws_secret_access_key=SECRET_KEY, config=Config(retries={"max_attempts": 0}))


def refused(server: StaddleProcess) -> str:
    """The code with which ListBuckets is refused, "" if it is not. On a connection of its own: workers take turns."""
    keys = Keys(access_key="ANNSKEY", secret_key=SECRET_KEY)
    connection = server.connect()
    try:
        connection.request("GET", "/", headers=sign_request("GET", server.endpoint + "/", keys=keys, now_s=time.time()))
        answer = connection.getresponse()
        if answer.status == 200:
            return ""
        assert answer.status == 403
        return answer.read().decode().partition("<Code>")[2].partition("</Code>")[0]
    finally:
        connection.close()


async def test_a_user_of_the_metadata_from_first_to_last(server: StaddleProcess) -> None:
    """With two gateway workers that nobody tells: each must notice by itself."""
    folders = Folders(server.data[0])
    secret = cluster_secret(server.data[0])
    metadata = MetadataClient(folders.meta_address, secret, str(folders.meta))
    await metadata.start()
    loop = asyncio.get_running_loop()

    async def do(command: Any) -> None:
        assert await metadata.commit(command) == Done()

    async def outcomes(tries: int = 12) -> set[str]:
        """Of so many requests that both workers get some."""
        return {await loop.run_in_executor(None, refused, server) for _ in range(tries)}

    async def soon(wanted: str) -> None:
        until = loop.time() + 2.0
        while await outcomes() != {wanted}:
            assert loop.time() < until, f"not {wanted!r} within 2 s"
            await asyncio.sleep(0.05)

    try:
        assert await outcomes() == {"InvalidAccessKeyId"}
        await do(CreateUser(user=ANN))
        await do(CreateKey(key=AccessKey(access_key="ANNSKEY", user="ann", sealed=seal(secret, "ANNSKEY", SECRET_KEY))))
        assert await outcomes() == {""}, "at once, at both workers"
        s3 = client(server, "ANNSKEY")
        await loop.run_in_executor(None, lambda: s3.create_bucket(Bucket="annsbucket"))
        await loop.run_in_executor(None, lambda: s3.put_object(Bucket="annsbucket", Key="k", Body=b"bytes"))
        buckets = await loop.run_in_executor(None, s3.list_buckets)
        assert buckets["Owner"]["ID"] == "ann-id"
        assert await metadata.account_usage(ANN.account) == (1, 1, 5)
        await do(ChangeKey(access_key="ANNSKEY", disabled=True))
        await soon("InvalidAccessKeyId")
        await do(ChangeKey(access_key="ANNSKEY", disabled=False))
        await soon("")
        await do(ChangeUser(name="ann", disabled=True))
        await soon("InvalidAccessKeyId")
        await do(ChangeUser(name="ann", disabled=False))
        await soon("")
        await do(DeleteUser(name="ann"))
        await soon("InvalidAccessKeyId")
        assert (await metadata.account_usage(ANN.account)).buckets == 1, "what it made stays"
    finally:
        await metadata.stop()
    clear = SECRET_KEY.encode()
    looked_at = [path for path in server.folder.rglob("*") if path.is_file()]
    assert any(b"ANNSKEY" in path.read_bytes() for path in looked_at), "what we look for would be found"
    assert [path for path in looked_at if clear in path.read_bytes()] == [], "nowhere in clear"
