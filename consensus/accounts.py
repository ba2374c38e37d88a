"""Questions about users, their access keys and policies, and what an account uses. Offered by name with those of queries.py."""

import sqlite3
from typing import Any, NamedTuple

from consensus.core.model import AccessKey, Quota, User

Database = sqlite3.Connection

PAGE_MAX = 1000

POLICIES_PAGE_MAX = 50
"""Users whose policies are read at once: 20 of 20 KiB each make 20 MB at most."""

_USER = "name, account, user_id, display_name, email, admin, disabled, created"
_KEY = "access_key, user, sealed, disabled, created"


class AccountUsage(NamedTuple):
    """What the buckets of an account hold: versions that are no delete markers, and their bytes."""

    buckets: int
    objects: int
    bytes: int


def identities_version(db: Database) -> int:
    """It moves with each change of a user or a key."""
    row = db.execute("SELECT v FROM meta WHERE k = 'identities'").fetchone()
    return row[0] if row is not None else 0


def users(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[User]:
    """In order of name, from after `after` on."""
    rows = db.execute(f"SELECT {_USER} FROM user WHERE name > ? ORDER BY name LIMIT ?", (after, min(limit, PAGE_MAX)))
    return [_user(row) for row in rows.fetchall()]


def user(db: Database, name: str) -> User | None:
    row = db.execute(f"SELECT {_USER} FROM user WHERE name = ?", (name,)).fetchone()
    return None if row is None else _user(row)


def access_keys(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[AccessKey]:
    """Of all users, in order of the key, from after `after` on."""
    rows = db.execute(f"SELECT {_KEY} FROM access_key WHERE access_key > ? ORDER BY access_key LIMIT ?",
                      (after, min(limit, PAGE_MAX)))
    return [_key(row) for row in rows.fetchall()]


def access_key(db: Database, name: str) -> AccessKey | None:
    row = db.execute(f"SELECT {_KEY} FROM access_key WHERE access_key = ?", (name,)).fetchone()
    return None if row is None else _key(row)


def keys_of(db: Database, name: str) -> list[AccessKey]:
    """Of one user: at most a hundred, oldest first."""
    rows = db.execute(f"SELECT {_KEY} FROM access_key WHERE user = ? ORDER BY created, access_key", (name,))
    return [_key(row) for row in rows.fetchall()]


def user_policies(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[tuple[str, str, bytes]]:
    """(user, name, document) of all users who have any and come after `after`: whole users, at most `limit` of them."""
    return db.execute(
        "SELECT user, name, document FROM user_policy WHERE user IN (SELECT DISTINCT user FROM user_policy WHERE user > ?"
        " ORDER BY user LIMIT ?) ORDER BY user, name", (after, min(limit, POLICIES_PAGE_MAX))).fetchall()


def policies_of(db: Database, name: str) -> list[tuple[str, bytes]]:
    """(name, document) of one user, in order of the name."""
    return db.execute("SELECT name, document FROM user_policy WHERE user = ? ORDER BY name", (name,)).fetchall()


def quota_room(db: Database, bucket: int) -> list[tuple[str, int]]:
    """How many bytes more the bucket and its account may hold, those of the two that have such a quota."""
    row = db.execute(
        "SELECT b.bytes_max - b.bytes - b.uploading, CASE WHEN a.bytes_max IS NOT NULL THEN"
        " a.bytes_max - (SELECT sum(bytes) + sum(uploading) FROM bucket WHERE account = a.name) END"
        " FROM bucket b LEFT JOIN account a ON a.name = b.account WHERE b.id = ?", (bucket,)).fetchone()
    return [] if row is None else [(whose, room) for whose, room in zip(("bucket", "account"), row, strict=True)
                                   if room is not None]


class Holding(NamedTuple):
    """What a bucket or an account (its name) holds: versions that are no delete markers, their bytes, and those of parts of
    uploads in progress. `buckets`: of an account."""

    name: str
    buckets: int
    objects: int
    bytes: int
    upload_bytes: int
    quota: Quota | None


_SUMS = "count(b.id), coalesce(sum(b.objects), 0), coalesce(sum(b.bytes), 0), coalesce(sum(b.uploading), 0)"
"""Of the buckets of an account: its rows of the bucket table are read, not what is in them."""


def account_usage(db: Database, account: str) -> AccountUsage:
    """Reads the account's rows of the bucket table, not its objects."""
    return AccountUsage(*db.execute(f"SELECT {_SUMS} FROM bucket b WHERE account = ?", (account,)).fetchone()[:3])


def account_holding(db: Database, name: str) -> Holding:
    return _holding(db.execute(f"SELECT ?1, {_SUMS}, a.objects_max, a.bytes_max FROM (SELECT ?1 AS name) n"
                               " LEFT JOIN account a ON a.name = n.name LEFT JOIN bucket b ON b.account = n.name",
                               (name,)).fetchone())


def holding_accounts(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[Holding]:
    """Accounts that have buckets or a quota, in order of name."""
    rows = db.execute(
        f"SELECT n.account, {_SUMS}, a.objects_max, a.bytes_max FROM (SELECT account FROM bucket WHERE account > ?1 UNION"
        " SELECT name FROM account WHERE name > ?1 ORDER BY 1 LIMIT ?2) n LEFT JOIN bucket b ON b.account = n.account"
        " LEFT JOIN account a ON a.name = n.account GROUP BY n.account ORDER BY 1", (after, min(limit, PAGE_MAX)))
    return [_holding(row) for row in rows.fetchall()]


def limited_buckets(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[Holding]:
    """Buckets with a quota, in order of name."""
    rows = db.execute(
        "SELECT name, 1, objects, bytes, uploading, objects_max, bytes_max FROM bucket"
        " WHERE (objects_max IS NOT NULL OR bytes_max IS NOT NULL) AND name > ? ORDER BY name LIMIT ?",
        (after, min(limit, PAGE_MAX)))
    return [_holding(row) for row in rows.fetchall()]


def limited_accounts(db: Database, after: str = "", limit: int = PAGE_MAX) -> list[Holding]:
    """Accounts with a quota, in order of name."""
    rows = db.execute(
        f"SELECT a.name, {_SUMS}, a.objects_max, a.bytes_max FROM account a LEFT JOIN bucket b ON b.account = a.name"
        " WHERE a.name > ? GROUP BY a.name ORDER BY a.name LIMIT ?", (after, min(limit, PAGE_MAX)))
    return [_holding(row) for row in rows.fetchall()]


def _holding(row: tuple[Any, ...]) -> Holding:
    quota = None if row[5] is None and row[6] is None else Quota(row[5], row[6])
    return Holding(row[0], row[1], row[2], row[3], row[4], quota)


def _user(row: tuple[Any, ...]) -> User:
    return User(name=row[0], account=row[1], user_id=row[2], display_name=row[3], email=row[4], admin=bool(row[5]),
                disabled=bool(row[6]), created_ms=row[7])


def _key(row: tuple[Any, ...]) -> AccessKey:
    return AccessKey(access_key=row[0], user=row[1], sealed=row[2], disabled=bool(row[3]), created_ms=row[4])
