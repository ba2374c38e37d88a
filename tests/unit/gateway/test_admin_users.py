"""Users over the admin API where the configuration has users too, and where a worker does not answer."""

import asyncio
from typing import Any, cast

import pytest

from consensus.core.commands import ChangeUser, CreateKey, DeleteKey, DeleteUser
from consensus.core.errors import Unavailable
from consensus.core.model import AccessKey, User
from consensus.core.results import Done, NoAccessKey, NoUser
from gateway.admin import users, values
from gateway.admin.context import AdminContext, AdminServices
from gateway.admin.errors import AdminError
from gateway.auth import Principal, Settings
from gateway.config import Config
from gateway.identities import Identity
from gateway.ops.context import Services
from gateway.sealing import Sealer

SECRET = b"s" * 32
CONFIGURED = Identity(name="bob", account="1", user_id="config", access_key="CONFIGKEY", secret_key="secret")


class Metadata:
    """One user of the metadata, who may have the name and the key of one of the configuration."""

    def __init__(self, name: str = "", key: str = "METAKEY") -> None:
        self.by_name = {name: User(name=name, account="2", user_id="meta")} if name else {}
        self.keys = {key: AccessKey(access_key=key, user=name, sealed=b"x")} if name else {}
        self.committed: list[Any] = []

    async def user(self, name: str) -> User | None:
        return self.by_name.get(name)

    async def keys_of(self, name: str) -> list[AccessKey]:
        return [key for key in self.keys.values() if key.user == name]

    async def access_key(self, name: str) -> AccessKey | None:
        return self.keys.get(name)

    async def commit(self, command: Any) -> Any:
        match command:
            case ChangeUser(name=name) | DeleteUser(name=name) if name not in self.by_name:
                return NoUser()
            case CreateKey(key=key) if key.user not in self.by_name:
                return NoUser()
            case DeleteKey(access_key=key) if key not in self.keys:
                return NoAccessKey()
        self.committed.append(command)
        return Done()


def context(metadata: Metadata, *, answering: bool = True) -> AdminContext:
    async def reload() -> None:
        if not answering:
            raise Unavailable("not every gateway worker has read the identities again: gateway-2")

    services = Services(metadata=cast(Any, metadata), replicas=cast(Any, None), clock=cast(Any, None), settings=cast(Any, None),
                        identities=cast(Any, None))
    admin = AdminServices(services=services, auth=Settings(), config=Config(identity=(CONFIGURED,)), secret=SECRET, reload=reload)
    return AdminContext(admin=admin, principal=Principal(), request_id="ID")


def refused(work: Any) -> str:
    with pytest.raises(AdminError) as refusal:
        asyncio.run(work)
    return refusal.value.code


def test_users_of_the_configuration_are_shown_and_left_alone() -> None:
    ctx = context(Metadata())
    assert asyncio.run(users.show_user(ctx, values.OneUser(name="bob"))).source == "configuration"
    assert refused(users.change_user(ctx, values.ChangeUser(name="bob", disabled=True))) == "ConfiguredIdentity"
    assert refused(users.delete_user(ctx, values.OneUser(name="bob"))) == "ConfiguredIdentity"
    assert refused(users.create_key(ctx, values.CreateKey(user="bob"))) == "ConfiguredIdentity"
    assert refused(users.delete_key(ctx, values.OneKey(access_key="CONFIGKEY"))) == "ConfiguredIdentity"
    assert refused(users.create_user(ctx, values.CreateUser(name="bob"))) == "UserExists"


def test_a_user_whose_name_the_configuration_has_taken_since_can_still_be_disabled_and_deleted() -> None:
    """Else nobody could take from such a user what it may do."""
    metadata = Metadata("bob", key="CONFIGKEY")
    ctx = context(metadata)
    assert asyncio.run(users.change_user(ctx, values.ChangeUser(name="bob", disabled=True))).user_id == "meta"
    asyncio.run(users.delete_key(ctx, values.OneKey(access_key="CONFIGKEY")))
    asyncio.run(users.delete_user(ctx, values.OneUser(name="bob")))
    assert [type(command) for command in metadata.committed] == [ChangeUser, DeleteKey, DeleteUser]


def test_a_key_that_may_still_be_valid_somewhere_is_not_reported_as_refused() -> None:
    metadata = Metadata("ann")
    ctx = context(metadata, answering=False)
    assert refused(users.change_user(ctx, values.ChangeUser(name="ann", disabled=True))) == "NotYetEverywhere"
    assert refused(users.delete_key(ctx, values.OneKey(access_key="METAKEY"))) == "NotYetEverywhere"
    assert len(metadata.committed) == 2, "it is done all the same"


def test_the_secret_of_a_new_key_is_not_lost_because_a_worker_does_not_answer() -> None:
    metadata = Metadata("ann")
    made = asyncio.run(users.create_key(context(metadata, answering=False), values.CreateKey(user="ann")))
    (command,) = metadata.committed
    assert Sealer(SECRET).open(made.access_key, command.key.sealed) == made.secret_key
    assert made.secret_key.encode() not in command.key.sealed
