"""Users, their access keys and policies: who may ask, as far as the metadata knows.

A *user* has an account, which owns the buckets, and a canonical id. A *key* belongs to one user; its secret comes sealed
by the gateways, so that no file of the metadata shows it. Each change moves the meta row `identities`, by which
gateways see that theirs are old.

Texts that clients see are limited to what fits a header and an XML element: no control characters.
"""

import re

from consensus.apply.state import State
from consensus.core.commands import ChangeKey, ChangeUser, CreateKey, CreateUser, DeleteKey, DeleteUser, SetUserPolicy
from consensus.core.model import AccessKey, User
from consensus.core.results import AnyResult, Done, KeyExists, Malformed, NoAccessKey, NoUser, UserExists

USERS_MAX = 10_000

KEYS_PER_USER_MAX = 100
"""They go with their user in one command, and nobody rotates more than a few."""

KEYS_MAX = 20_000
"""Of all users. Every gateway process holds them in memory, opened: about 20 MB."""

NAME_BYTES_MAX = 128
"""Of names, accounts and canonical ids."""

TEXT_BYTES_MAX = 256
"""Of display names and e-mail addresses."""

SEALED_BYTES_MAX = 1024

POLICIES_PER_USER_MAX = 20
"""They go with their user in one command. AWS attaches 10, or 20 on request."""

POLICY_BYTES_MAX = 20 << 10
"""Of one document: S3's limit for a bucket's."""

_ACCESS_KEY = re.compile(r"[!-+\-.0-<>-~]{3,128}")
"""Printable ASCII without what separates it from the rest of a credential: slash, comma, equals sign, space."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def create_user(state: State, command: CreateUser) -> AnyResult:
    user = command.user
    wrong = _bad_user(user)
    if wrong is not None:
        return wrong
    if _user_exists(state, user.name):
        return UserExists()
    if state.execute("SELECT count(*) FROM user").fetchone()[0] >= USERS_MAX:
        return Malformed(reason=f"there are at most {USERS_MAX} users")
    state.touch()
    state.execute(
        "INSERT INTO user (name, account, user_id, display_name, email, admin, disabled, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (user.name, user.account, user.user_id, user.display_name, user.email, user.admin, user.disabled, state.now),
    )
    return _changed(state)


def change_user(state: State, command: ChangeUser) -> AnyResult:
    wrong = _bad_texts(TEXT_BYTES_MAX, command.display_name or "", command.email or "")
    if wrong is not None:
        return wrong
    state.touch()
    found = state.execute(
        "UPDATE user SET display_name = coalesce(?, display_name), email = coalesce(?, email),"
        " admin = coalesce(?, admin), disabled = coalesce(?, disabled) WHERE name = ?",
        (command.display_name, command.email, command.admin, command.disabled, command.name),
    ).rowcount
    return _changed(state) if found else NoUser()


def delete_user(state: State, command: DeleteUser) -> AnyResult:
    if not state.execute("DELETE FROM user WHERE name = ?", (command.name,)).rowcount:
        return NoUser()
    state.touch(1 + sum(state.execute(f"DELETE FROM {table} WHERE user = ?", (command.name,)).rowcount
                        for table in ("access_key", "user_policy")))
    return _changed(state)


def set_policy(state: State, command: SetUserPolicy) -> AnyResult:
    document = command.document
    wrong = _bad_texts(NAME_BYTES_MAX, command.policy)
    if wrong is not None or not command.policy or (document is not None and len(document) > POLICY_BYTES_MAX):
        return wrong or Malformed(reason=f"a policy has a name and at most {POLICY_BYTES_MAX} bytes")
    if not _user_exists(state, command.name):
        return NoUser()
    others = state.execute(
        "SELECT count(*) FROM user_policy WHERE user = ? AND name <> ?", (command.name, command.policy)).fetchone()[0]
    if document is not None and others >= POLICIES_PER_USER_MAX:
        return Malformed(reason=f"a user has at most {POLICIES_PER_USER_MAX} policies")
    state.touch()
    if document is None:
        state.execute("DELETE FROM user_policy WHERE user = ? AND name = ?", (command.name, command.policy))
    else:
        state.execute("INSERT OR REPLACE INTO user_policy (user, name, document) VALUES (?, ?, ?)",
                      (command.name, command.policy, document))
    return _changed(state)


def create_key(state: State, command: CreateKey) -> AnyResult:
    key, old = command.key, command.replaces
    wrong = _bad_key(key)
    if wrong is not None:
        return wrong
    if not _user_exists(state, key.user):
        return NoUser()
    if old and not state.execute(
        "SELECT 1 FROM access_key WHERE access_key = ? AND user = ?", (old, key.user)
    ).fetchone():
        return NoAccessKey()
    if state.execute("SELECT 1 FROM access_key WHERE access_key = ?", (key.access_key,)).fetchone():
        return KeyExists()
    held = state.execute("SELECT count(*) FROM access_key WHERE user = ?", (key.user,)).fetchone()[0]
    if held - bool(old) >= KEYS_PER_USER_MAX:
        return Malformed(reason=f"a user has at most {KEYS_PER_USER_MAX} keys")
    if not old and state.execute("SELECT count(*) FROM access_key").fetchone()[0] >= KEYS_MAX:
        return Malformed(reason=f"there are at most {KEYS_MAX} keys")
    state.touch(2 if old else 1)
    if old:
        state.execute("DELETE FROM access_key WHERE access_key = ?", (old,))
    state.execute("INSERT INTO access_key (access_key, user, sealed, disabled, created) VALUES (?, ?, ?, ?, ?)",
                  (key.access_key, key.user, key.sealed, key.disabled, state.now))
    return _changed(state)


def change_key(state: State, command: ChangeKey) -> AnyResult:
    state.touch()
    found = state.execute("UPDATE access_key SET disabled = ? WHERE access_key = ?",
                          (command.disabled, command.access_key)).rowcount
    return _changed(state) if found else NoAccessKey()


def delete_key(state: State, command: DeleteKey) -> AnyResult:
    state.touch()
    found = state.execute("DELETE FROM access_key WHERE access_key = ?", (command.access_key,)).rowcount
    return _changed(state) if found else NoAccessKey()


def _changed(state: State) -> Done:
    state.set_meta("identities", (state.get_meta("identities") or 0) + 1)
    return Done()


def _user_exists(state: State, name: str) -> bool:
    return state.execute("SELECT 1 FROM user WHERE name = ?", (name,)).fetchone() is not None


def _bad_user(user: User) -> Malformed | None:
    if not (user.name and user.account and user.user_id):
        return Malformed(reason="a user has a name, an account and a canonical id")
    return (_bad_texts(NAME_BYTES_MAX, user.name, user.account, user.user_id)
            or _bad_texts(TEXT_BYTES_MAX, user.display_name, user.email))


def _bad_texts(bytes_max: int, *texts: str) -> Malformed | None:
    for text in texts:
        if len(text.encode()) > bytes_max or _CONTROL.search(text):
            return Malformed(reason=f"{text[:40]!r} has control characters or more than {bytes_max} bytes")
    return None


def _bad_key(key: AccessKey) -> Malformed | None:
    if not _ACCESS_KEY.fullmatch(key.access_key):
        return Malformed(reason="an access key is 3 to 128 printable ASCII characters without '/', ',' and '='")
    if not 0 < len(key.sealed) <= SEALED_BYTES_MAX:
        return Malformed(reason=f"a sealed secret is 1 to {SEALED_BYTES_MAX} bytes")
    return None
