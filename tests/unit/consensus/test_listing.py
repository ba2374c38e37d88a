"""Listings against a plain model of sorted keys, with odd keys and delimiters; and what a page costs."""

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus import listing
from consensus.core.commands import CreateUpload, DeleteVersion
from consensus.core.model import Attributes
from consensus.rows import encode
from consensus.tables import open_database
from tests.unit.consensus.metadata import PLAIN, Cluster

BUCKET = 7
ATTRIBUTES = encode(Attributes())


def fill(path: Path, keys: Iterable[str], versions: int = 0) -> sqlite3.Connection:
    """A database with these objects (straight into the tables: the machine's part is tested elsewhere)."""
    database = open_database(str(path))
    db: sqlite3.Connection = database.connection()
    rows = [(BUCKET, key.encode(), 1 << 40, "v", 1, 5, 1, "e" * 32, None, 0, "STANDARD", "o" * 64, ATTRIBUTES, 0)
            for key in keys]
    db.execute("BEGIN")
    db.executemany("INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    for number in range(versions):
        db.executemany(
            "INSERT INTO history (bucket, key, ord, version_id, modified, content, size, etag, checksum, parts,"
            " storage_class, owner, attributes, crc, marker) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            [(row[0], row[1], number + 1, f"h{number}", *row[4:]) for row in rows],
        )
    db.execute("COMMIT")
    return db


Entry = tuple[str, bool]        # a key, or a common prefix (True)


def expected(keys: Iterable[str], prefix: str, delimiter: str) -> list[Entry]:
    """All entries of a listing, from S3's words: each common prefix once, everything in byte order."""
    entries: set[Entry] = set()
    for key in keys:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            entries.add((key, False) if at < 0 else (key[:at + len(delimiter)], True))
    return sorted(entries, key=lambda entry: entry[0].encode())


def paged(page_of: Callable[[str], Any]) -> list[Entry]:
    """All pages together, each in order and joined to the last by `next_after` alone."""
    entries: list[Entry] = []
    after = ""
    while True:
        page = page_of(after)
        found = [(entry.key, False) for entry in page.objects] + [(prefix, True) for prefix in page.common_prefixes]
        entries += sorted(found, key=lambda entry: entry[0].encode())
        if page.next_after is None:
            return entries
        assert found, "a page that isn't the last has an entry"
        assert page.next_after == entries[-1][0]
        after = page.next_after


LETTERS = st.text(st.sampled_from("ab/-\0\x01~é\ud7ff\U0010ffff"), max_size=6)
KEYS = st.sets(LETTERS.filter(bool), max_size=30)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, prefix=st.text(st.sampled_from("ab/\0\U0010ffff"), max_size=2),
       delimiter=st.sampled_from(["", "/", "a", "//", "/a", "\0", "é", "\U0010ffff", "ab/"]), limit=st.integers(1, 5))
def test_pages_join_to_the_whole_listing(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str, delimiter: str, limit: int
) -> None:
    db = _emptied(tmp_path_factory, keys)
    wanted = expected(keys, prefix, delimiter)
    assert paged(lambda after: listing.list_objects(db, BUCKET, prefix, delimiter, after, limit)) == wanted
    assert paged(lambda after: listing.list_versions(db, BUCKET, prefix, delimiter, after, None, limit)) == wanted


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, prefix=st.text(st.sampled_from("ab/"), max_size=2), delimiter=st.sampled_from(["", "/", "//", "a"]),
       after=LETTERS)
def test_any_marker_goes_on_after_it_and_after_the_common_prefix_it_is_in(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str, delimiter: str, after: str
) -> None:
    db = _emptied(tmp_path_factory, keys)
    page = listing.list_objects(db, BUCKET, prefix, delimiter, after, 1000)
    wanted = [entry for entry in expected(keys, prefix, delimiter)
              if entry[0].encode() > after.encode() and not (entry[1] and after.startswith(entry[0]))]
    found = [(entry.key, False) for entry in page.objects] + [(prefix, True) for prefix in page.common_prefixes]
    assert sorted(found, key=lambda entry: entry[0].encode()) == wanted
    assert page.next_after is None


_opened: list[sqlite3.Connection] = []


def _emptied(factory: pytest.TempPathFactory, keys: set[str]) -> sqlite3.Connection:
    """One database for all examples: making the tables costs more than an example."""
    if not _opened:
        _opened.append(fill(factory.mktemp("listing") / "db", []))
    (db,) = _opened
    db.execute("DELETE FROM object")
    db.executemany("INSERT INTO object VALUES (7, ?, 9, 'v', 1, 5, 1, 'e', NULL, 0, 'S', 'o', x'', 0)",
                   [(key.encode(),) for key in keys])
    return db


@pytest.mark.parametrize(("prefix", "found"), [("\U0010ffff", 3), ("\U0010ffff\U0010ffff", 1), ("\U0010fffe", 0)])
def test_a_prefix_may_end_in_the_greatest_character(tmp_path: Path, prefix: str, found: int) -> None:
    db = fill(tmp_path / "db", ["a", "\U0010ffff", "\U0010ffffa", "\U0010ffff\U0010ffff", "\U00010000"])
    assert len(listing.list_objects(db, BUCKET, prefix, "", "", 10).objects) == found
    db.close()


def test_a_page_of_nothing_is_the_last(tmp_path: Path) -> None:
    db = fill(tmp_path / "db", ["a", "b"])
    for arguments in (("", "", "b", 5), ("x", "", "", 5), ("a", "", "b", 5), ("", "/", "zz", 5), ("", "", "", 0)):
        assert listing.list_objects(db, BUCKET, *arguments) == ((), (), None, None)
    db.close()


def test_other_buckets_are_not_seen(tmp_path: Path) -> None:
    db = fill(tmp_path / "db", ["a"])
    for bucket in (BUCKET - 1, BUCKET + 1):
        assert listing.list_objects(db, bucket, "", "/", "", 5).objects == ()  # type: ignore[arg-type]
    db.close()


# Versions

def versions(cluster: Cluster, bucket: int, limit: int, prefix: str = "", delimiter: str = "") -> list[str]:
    """All pages of a listing by version, as key:version with ! for markers and * for the latest."""
    found: list[str] = []
    key, version = "", None
    while True:
        page = cluster.read(listing.list_versions, bucket, prefix, delimiter, key, version, limit)
        found += [f"{entry.key}:{entry.version_id}" + "!" * entry.delete_marker + "*" * entry.latest
                  for entry in page.objects]
        found += page.common_prefixes
        if page.next_after is None:
            return found
        key, version = page.next_after, page.next_version


@pytest.mark.parametrize("limit", range(1, 12))
def test_versions_are_newest_first_within_a_key_and_pages_join(cluster: Cluster, limit: int) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    for number, key in enumerate(("b", "a", "b", "p/1", "b", "p/2", "c", "p/1"), 1):
        cluster.put(bucket, key, b"x", version=f"v{number}")
    for number, key in enumerate(("a", "d", "a"), 1):
        cluster.run(DeleteVersion(bucket=bucket, key=key, marker_id=f"m{number}"))  # type: ignore[arg-type]
    whole = ["a:m3!*", "a:m1!", "a:v2", "b:v5*", "b:v3", "b:v1", "c:v7*", "d:m2!*", "p/1:v8*", "p/1:v4", "p/2:v6*"]
    assert versions(cluster, bucket, limit) == whole
    assert versions(cluster, bucket, limit, "", "/") == [*whole[:8], "p/"]
    assert versions(cluster, bucket, limit, "p/", "/") == whole[8:]
    assert versions(cluster, bucket, limit, "b") == whole[3:6]


def test_a_key_marker_alone_goes_on_after_all_versions_of_that_key(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    for number, key in enumerate(("a", "a", "b"), 1):
        cluster.put(bucket, key, b"x", version=f"v{number}")
    page = cluster.read(listing.list_versions, bucket, "", "", "a", None, 9)
    assert [entry.version_id for entry in page.objects] == ["v3"]


def test_deleting_page_by_page_misses_nothing(cluster: Cluster) -> None:
    """Tools that empty a versioned bucket delete each page before they ask for the next: its marker is gone then."""
    bucket = cluster.bucket(versioning="Enabled")
    for number in range(10):
        cluster.put(bucket, f"k{number % 2}", b"x", version=f"v{number}")
    key, version, pages = "", None, 0
    while True:
        page = cluster.read(listing.list_versions, bucket, "", "", key, version, 3)
        for entry in page.objects:
            cluster.run(DeleteVersion(bucket=bucket, key=entry.key, version_id=entry.version_id))
        pages += 1
        if page.next_after is None:
            break
        key, version = page.next_after, page.next_version
    assert cluster.rows("object") == cluster.rows("history") == 0
    assert pages <= 6


def test_a_bucket_without_versions_lists_its_objects_as_null(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    assert versions(cluster, bucket, 5) == ["k:null*"]


# Uploads

@pytest.mark.parametrize("limit", range(1, 6))
def test_uploads_are_listed_by_key_and_id_and_pages_join(cluster: Cluster, limit: int) -> None:
    bucket = cluster.bucket()
    for key, id in (("b", "2"), ("a", "9"), ("b", "1"), ("p/1", "x"), ("p/2", "y"), ("c", "0")):
        cluster.run(CreateUpload(bucket=bucket, key=key, upload_id=id, attributes=PLAIN, owner="o"))  # type: ignore[arg-type]
    def listed(prefix: str, delimiter: str) -> list[str]:
        found: list[str] = []
        key, id = "", None
        while True:
            page = cluster.read(listing.uploads, bucket, prefix, delimiter, key, id, limit)
            found += [f"{upload.key}:{upload.upload_id}" for upload in page.uploads] + list(page.common_prefixes)
            if page.next_key is None:
                return found
            key, id = page.next_key, page.next_upload
    assert listed("", "") == ["a:9", "b:1", "b:2", "c:0", "p/1:x", "p/2:y"]
    assert listed("", "/") == ["a:9", "b:1", "b:2", "c:0", "p/"]
    assert listed("p/", "/") == ["p/1:x", "p/2:y"]
    page = cluster.read(listing.uploads, bucket, "", "", "b", None, 9)
    assert [upload.key for upload in page.uploads] == ["c", "p/1", "p/2"], "with a key marker alone: greater keys"
    page = cluster.read(listing.uploads, bucket, "", "", "", "9", 9)
    assert len(page.uploads) == 6, "an upload marker without a key marker is ignored"


# Cost

def steps(db: sqlite3.Connection, query: Callable[[], Any]) -> int:
    """Steps of SQLite's machine: unlike time, the same on every computer."""
    count = 0
    def tick() -> int:
        nonlocal count
        count += 1
        return 0
    db.set_progress_handler(tick, 10)
    query()
    db.set_progress_handler(None, 10)
    return count * 10


def page_costs(path: Path, keys: int, limit: int) -> dict[str, int]:
    """Keys in 100 folders, and one folder with all the rest under it."""
    names = [f"folder{number % 100:02}/{number:07}" for number in range(keys)]
    db = fill(path, names, versions=1)
    middle = names[keys // 2]
    costs = {
        "plain": steps(db, lambda: listing.list_objects(db, BUCKET, "", "", middle, limit)),
        "folders": steps(db, lambda: listing.list_objects(db, BUCKET, "", "/", "", limit)),
        "inside": steps(db, lambda: listing.list_objects(db, BUCKET, "folder50/", "/", middle, limit)),
        "versions": steps(db, lambda: listing.list_versions(db, BUCKET, "", "", middle, None, limit)),
        "folders of versions": steps(db, lambda: listing.list_versions(db, BUCKET, "", "/", "", None, limit)),
        "one folder": steps(db, lambda: listing.list_objects(db, BUCKET, "folder50", "/", "", limit)),
    }
    db.close()
    return costs


def test_a_page_costs_what_it_returns_and_not_what_the_bucket_holds(tmp_path: Path) -> None:
    small, large = page_costs(tmp_path / "small", 6_000, 50), page_costs(tmp_path / "large", 60_000, 50)
    print(small, large)
    for name, cost in large.items():
        assert cost <= 1.2 * small[name] + 100, name
    assert large["one folder"] < 500, "a folder of any size is one step"
    assert large["folders"] < 51 * 200
