"""Identities: arbitrary text, no two with one access key, no secret in what is printed."""

import dataclasses

import pytest

from gateway.identities import Identity, IdentityStore

MAIN = Identity(
    name="main", account="A", user_id="testid", access_key="key", secret_key="s/+=", display_name="M. Tester",
    email="Tester@example.com",
)
TENANT = Identity(name="tenant", account="testx", user_id="testx$98", access_key="k2", secret_key="o")


def test_found_by_key_id_and_email() -> None:
    store = IdentityStore([MAIN, TENANT])
    assert store.by_access_key("k2") is TENANT
    assert store.by_user_id("testx$98") is TENANT
    assert store.by_email("tester@EXAMPLE.com") is MAIN
    assert store.by_access_key("KEY") is None
    assert store.by_user_id("") is None
    assert store.by_email("") is None
    assert (len(store), list(store)) == (2, [MAIN, TENANT])


def test_two_identities_can_not_share_an_access_key() -> None:
    store = IdentityStore([MAIN])
    with pytest.raises(ValueError, match="'main' and 'twin' have the same access key"):
        store.replace([MAIN, dataclasses.replace(TENANT, name="twin", access_key="key")])
    assert list(store) == [MAIN]


def test_an_account_has_all_ids_of_its_users_and_one_that_owns() -> None:
    """The first who has all its rights owns what is made; one with policies never does, whoever stands before."""
    limited = dataclasses.replace(MAIN, name="limited", user_id="limited", access_key="k0", policies=("AmazonS3FullAccess",))
    second = dataclasses.replace(MAIN, name="second", user_id="second", access_key="k3")
    store = IdentityStore([limited, MAIN, second, TENANT])
    assert store.ids_of("A") == {"limited", "testid", "second"}
    assert store.ids_of("testx") == {"testx$98"}
    assert store.ids_of("nobody's") == frozenset()
    assert {store.stands_for(identity) for identity in (limited, MAIN, second)} == {"testid"}
    store.replace([limited])
    assert store.stands_for(limited) == "limited"
    assert store.stands_for(TENANT) == "testx$98", "who isn't in force yet stands for himself"


@pytest.mark.parametrize("field", ["name", "account", "user_id", "access_key", "secret_key"])
def test_nothing_needed_may_be_empty(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(MAIN, **{field: ""})


def test_a_secret_is_never_printed() -> None:
    assert "s/+=" not in repr(MAIN)
    assert "s/+=" not in str(IdentityStore([MAIN]).by_access_key("key"))
