"""Users and their keys as the metadata keeps them."""

from typing import Any

import msgspec
import pytest

from consensus import queries
from consensus.apply import identities
from consensus.core.commands import ChangeKey, ChangeUser, CreateKey, CreateUser, DeleteKey, DeleteUser
from consensus.core.model import AccessKey, User
from consensus.core.results import Done, KeyExists, Malformed, NoAccessKey, NoUser, UserExists
from tests.unit.consensus.metadata import Cluster

ANN = User(name="ann", account="111122223333", user_id="a" * 64, display_name="Ann", email="ann@example.com")


def key(name: str, user: str = "ann", sealed: bytes = b"sealed") -> AccessKey:
    return AccessKey(access_key=name, user=user, sealed=sealed)


def version(cluster: Cluster) -> int:
    return cluster.read(queries.identities_version)


def test_a_user_and_her_keys_from_first_to_last(cluster: Cluster) -> None:
    assert version(cluster) == 0
    assert cluster.run(CreateUser(user=ANN)) == Done()
    created = cluster.now
    assert cluster.run(CreateUser(user=ANN)) == UserExists()
    assert cluster.read(queries.user, "ann") == msgspec.structs.replace(ANN, created_ms=created)
    assert cluster.run(CreateKey(key=key("AK1"))) == Done()
    assert cluster.run(CreateKey(key=key("AK1"))) == KeyExists()
    assert cluster.run(CreateKey(key=key("AK2", "bob"))) == NoUser()
    assert cluster.run(ChangeKey(access_key="AK1", disabled=True)) == Done()
    assert cluster.read(queries.access_key, "AK1").disabled
    assert cluster.run(CreateKey(key=key("AK2", sealed=b"other"), replaces="AK1")) == Done()
    assert [(known.access_key, known.sealed) for known in cluster.read(queries.keys_of, "ann")] == [("AK2", b"other")]
    assert cluster.run(DeleteUser(name="ann")) == Done()
    assert cluster.read(queries.users) == cluster.read(queries.access_keys) == []
    assert version(cluster) == 5, "one for each change"
    assert cluster.run(DeleteUser(name="ann")) == NoUser()
    assert cluster.run(ChangeUser(name="ann", admin=True)) == NoUser()
    assert cluster.run(ChangeKey(access_key="AK2", disabled=True)) == NoAccessKey()
    assert cluster.run(DeleteKey(access_key="AK2")) == NoAccessKey()
    assert version(cluster) == 5, "and none for what changed nothing"


def test_a_change_leaves_alone_what_it_does_not_name(cluster: Cluster) -> None:
    cluster.run(CreateUser(user=ANN))
    before = cluster.read(queries.user, "ann")
    for change in ({"display_name": ""}, {"email": "other"}, {"admin": True}, {"disabled": True}, {"admin": False}, {}):
        assert cluster.run(ChangeUser(name="ann", **change)) == Done()  # type: ignore[arg-type]
        after = cluster.read(queries.user, "ann")
        assert after == msgspec.structs.replace(before, **change)  # type: ignore[arg-type]
        before = after


def test_a_key_is_replaced_only_by_its_owner(cluster: Cluster) -> None:
    cluster.run(CreateUser(user=ANN))
    cluster.run(CreateUser(user=msgspec.structs.replace(ANN, name="bob")))
    cluster.run(CreateKey(key=key("AK1")))
    assert cluster.run(CreateKey(key=key("AK2", "bob"), replaces="AK1")) == NoAccessKey()
    assert cluster.run(CreateKey(key=key("AK2"), replaces="AK3")) == NoAccessKey()
    assert cluster.run(CreateKey(key=key("AK1"), replaces="AK1")) == KeyExists()
    assert [known.access_key for known in cluster.read(queries.access_keys)] == ["AK1"]


@pytest.mark.parametrize("wrong", [
    {"name": ""}, {"account": ""}, {"user_id": ""}, {"name": "n" * 129}, {"name": "ü" * 65}, {"account": "1\n"},
    {"user_id": "\x7f"}, {"display_name": "d" * 257}, {"email": "a\0b"},
])
def test_what_a_user_may_not_be_called(cluster: Cluster, wrong: dict[str, str]) -> None:
    assert isinstance(cluster.run(CreateUser(user=msgspec.structs.replace(ANN, **wrong))), Malformed)
    assert cluster.rows("user") == 0


@pytest.mark.parametrize("name", ["", "ab", "a/b", "a,b", "a=b", "a b", "a\tb", "abc\n", "äöü", "k" * 129])
def test_what_an_access_key_may_not_be(cluster: Cluster, name: str) -> None:
    cluster.run(CreateUser(user=ANN))
    assert isinstance(cluster.run(CreateKey(key=key(name))), Malformed)


@pytest.mark.parametrize("name", ["abc", "k" * 128, "AKIA-with.other~characters!+*&'"])
def test_what_an_access_key_may_be(cluster: Cluster, name: str) -> None:
    cluster.run(CreateUser(user=ANN))
    assert cluster.run(CreateKey(key=key(name))) == Done()
    assert isinstance(cluster.run(CreateKey(key=key("other", sealed=b""))), Malformed)
    assert isinstance(cluster.run(CreateKey(key=key("other", sealed=b"s" * 1025))), Malformed)


def test_the_limits(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("USERS_MAX", 2), ("KEYS_PER_USER_MAX", 2), ("KEYS_MAX", 3)):
        monkeypatch.setattr(identities, name, most)
    for name in ("ann", "bob"):
        assert cluster.run(CreateUser(user=msgspec.structs.replace(ANN, name=name))) == Done()
    assert isinstance(cluster.run(CreateUser(user=msgspec.structs.replace(ANN, name="cyd"))), Malformed)
    assert cluster.run(CreateKey(key=key("AK1"))) == cluster.run(CreateKey(key=key("AK2"))) == Done()
    assert isinstance(cluster.run(CreateKey(key=key("AK3"))), Malformed), "two for each user"
    assert cluster.run(CreateKey(key=key("AK3"), replaces="AK1")) == Done()
    assert cluster.run(CreateKey(key=key("AK4", "bob"))) == Done()
    assert isinstance(cluster.run(CreateKey(key=key("AK5", "bob"))), Malformed), "three for all"
    assert cluster.run(CreateKey(key=key("AK5", "bob"), replaces="AK4")) == Done()


def test_a_user_goes_with_all_the_keys_that_a_user_may_have(cluster: Cluster) -> None:
    cluster.run(CreateUser(user=ANN))
    cluster.send(*(cluster.envelope(CreateKey(key=key(f"AK{number}")))
                   for number in range(identities.KEYS_PER_USER_MAX)))
    assert cluster.rows("access_key") == identities.KEYS_PER_USER_MAX
    assert cluster.run(DeleteUser(name="ann")) == Done()
    assert cluster.machine.state.touched > identities.KEYS_PER_USER_MAX
    assert cluster.rows("access_key") == 0


def test_lists_come_in_pages(cluster: Cluster) -> None:
    for number in range(5):
        user = msgspec.structs.replace(ANN, name=f"u{number}")
        cluster.run(CreateUser(user=user))
        cluster.run(CreateKey(key=key(f"AK{number}", user.name)))

    def pages(query: Any, name: str) -> list[str]:
        found: list[str] = []
        while page := cluster.read(query, found[-1] if found else "", 2):
            assert len(page) <= 2
            found += [getattr(row, name) for row in page]
        return found

    assert pages(queries.users, "name") == [f"u{number}" for number in range(5)]
    assert pages(queries.access_keys, "access_key") == [f"AK{number}" for number in range(5)]


def test_what_an_account_uses(cluster: Cluster) -> None:
    bucket = cluster.bucket("one")
    cluster.bucket("two")
    cluster.put(bucket, "k", b"12345")
    assert cluster.read(queries.account_usage, "a") == (2, 1, 5)
    assert cluster.read(queries.account_usage, "other") == (0, 0, 0)
