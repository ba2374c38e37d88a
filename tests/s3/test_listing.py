"""Listings, v1 and v2, against a model: a sorted set of keys, grouped by hand (S3_SEMANTICS §13)."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.client import BaseClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.s3.errors import refused

KEYS = sorted(
    ["a", "a/", "a/b", "a/b/c", "a/b/d", "a-b", "a0", "b//c", "b/c", "c", "ü", "ü/x", "日本/語", "\U0010ffff", "sp ace",
     "pl+us", "x&y<z>\"'", "//", "z||1", "z||2", "z|3"],
    key=str.encode,
)


@pytest.fixture(scope="module")
def full(s3: BaseClient) -> str:
    s3.create_bucket(Bucket="listing-model")
    for key in KEYS:
        s3.put_object(Bucket="listing-model", Key=key, Body=key.encode())
    return "listing-model"


def model(prefix: str, delimiter: str, after: str) -> list[str]:
    """Keys and common prefixes (these marked by a tab) in their one order, those after `after`."""
    found: list[str] = []
    for key in KEYS:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if cut < 0 else key[: cut + len(delimiter)]
        marked = entry if cut < 0 else f"\t{entry}"
        inside = cut >= 0 and after.startswith(entry)
        if entry.encode() > after.encode() and not inside and marked not in found:
            found.append(marked)
    return found


def v2_pages(s3: BaseClient, bucket: str, **asked: Any) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        page = s3.list_objects_v2(Bucket=bucket, **asked, **token)
        yield page
        if not page["IsTruncated"]:
            assert "NextContinuationToken" not in page
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def v1_pages(s3: BaseClient, bucket: str, **asked: Any) -> Iterator[dict[str, Any]]:
    marker = asked.pop("Marker", "")
    while True:
        page = s3.list_objects(Bucket=bucket, Marker=marker, **asked)
        yield page
        if not page["IsTruncated"]:
            assert "NextMarker" not in page
            return
        assert ("NextMarker" in page) == bool(asked.get("Delimiter"))
        marker = page.get("NextMarker") or page["Contents"][-1]["Key"]


def entries(pages: Iterator[dict[str, Any]], limit: int) -> list[str]:
    found: list[str] = []
    for page in pages:
        keys = [entry["Key"] for entry in page.get("Contents", [])]
        prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        assert len(keys) + len(prefixes) <= limit
        assert page.get("KeyCount", len(keys) + len(prefixes)) == len(keys) + len(prefixes)
        both = [(key.encode(), key) for key in keys] + [(prefix.encode(), f"\t{prefix}") for prefix in prefixes]
        found += [marked for _, marked in sorted(both)]
    return found


@given(
    prefix=st.sampled_from(["", "a", "a/", "a/b", "b", "b/", "z", "ü", "nothing", "\U0010ffff"]),
    delimiter=st.sampled_from(["", "/", "||", "b", "//", "ü"]),
    after=st.sampled_from(["", "a", "a/", "a/b", "a/zz", "b//", "z|", "z||1", "\U0010ffff", *KEYS]),
    limit=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_are_the_model(
    s3: BaseClient, full: str, prefix: str, delimiter: str, after: str, limit: int
) -> None:
    asked = {"Prefix": prefix, "Delimiter": delimiter, "MaxKeys": limit}
    wanted = model(prefix, delimiter, after)
    assert entries(v2_pages(s3, full, StartAfter=after, **asked), limit) == wanted
    assert entries(v1_pages(s3, full, Marker=after, **asked), limit) == wanted


def test_what_an_entry_says(s3: BaseClient, full: str) -> None:
    page = s3.list_objects_v2(Bucket=full, Prefix="a/b/c", FetchOwner=True)
    (entry,) = page["Contents"]
    head = s3.head_object(Bucket=full, Key="a/b/c")
    assert (entry["Key"], entry["Size"], entry["ETag"], entry["StorageClass"]) == ("a/b/c", 5, head["ETag"], "STANDARD")
    assert entry["LastModified"] == head["LastModified"], "whole seconds in both: clients compare them"
    assert entry["Owner"] == {"ID": "main-id", "DisplayName": "M. Ain"}
    assert "Owner" not in s3.list_objects_v2(Bucket=full, Prefix="a/b/c")["Contents"][0]
    assert s3.list_objects(Bucket=full, Prefix="a/b/c")["Contents"][0]["Owner"]["ID"] == "main-id"
    assert (page["Name"], page["Prefix"], page["MaxKeys"], page["KeyCount"]) == (full, "a/b/c", 1000, 1)


def test_limits(s3: BaseClient, full: str) -> None:
    assert s3.list_objects_v2(Bucket=full, MaxKeys=5000)["MaxKeys"] == 1000
    none = s3.list_objects_v2(Bucket=full, MaxKeys=0)
    assert (none["IsTruncated"], none["KeyCount"], none["MaxKeys"]) == (False, 0, 0)
    with refused("InvalidArgument", 400) as said:
        s3.list_objects_v2(Bucket=full, MaxKeys=-1)
    assert said["ArgumentName"] == "max-keys"


def test_tokens_are_not_made_up(s3: BaseClient, full: str) -> None:
    token = s3.list_objects_v2(Bucket=full, MaxKeys=1)["NextContinuationToken"]
    for wrong in ("a", token[:-1], token + "AAAA", "", token.swapcase()):
        with refused("InvalidArgument", 400):
            s3.list_objects_v2(Bucket=full, ContinuationToken=wrong)
    page = s3.list_objects_v2(Bucket=full, MaxKeys=1, ContinuationToken=token, StartAfter="zzz")
    assert page["Contents"][0]["Key"] == KEYS[1]
    assert page["ContinuationToken"] == token


def test_url_encoding(s3: BaseClient, bucket: str, raw_get: Callable[[str], bytes]) -> None:
    key = "a b/c+d\x01\r\n&ü"
    s3.put_object(Bucket=bucket, Key=key, Body=b"")
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert entry["Key"] == key
    encoded = raw_get(f"/{bucket}?list-type=2&encoding-type=url&delimiter=%2F&prefix=a%20&start-after=a").decode()
    assert "<EncodingType>url</EncodingType>" in encoded
    assert "<Prefix>a%20b/</Prefix>" in encoded
    assert "<Prefix>a%20</Prefix>" in encoded
    plain = raw_get(f"/{bucket}?list-type=2").decode()
    assert "EncodingType" not in plain
    assert "a b/c+d&#x1;&#xD;&#xA;&amp;ü" in plain
    assert unquote("a%20b/c%2Bd%01%0D%0A%26%C3%BC") == key
    assert "a%20b/c%2Bd%01%0D%0A%26%C3%BC" in raw_get(f"/{bucket}?list-type=2&encoding-type=url").decode()
    assert b"InvalidArgument" in raw_get(f"/{bucket}?list-type=2&encoding-type=base64")


def test_an_empty_delimiter_is_none(s3: BaseClient, full: str, raw_get: Callable[[str], bytes]) -> None:
    answer = raw_get(f"/{full}?list-type=2&delimiter=&max-keys=1000&prefix=")
    assert b"<Delimiter>" not in answer
    assert answer.count(b"<Contents>") == len(KEYS)


def test_a_missing_bucket(s3: BaseClient) -> None:
    for call in (s3.list_objects, s3.list_objects_v2, s3.list_multipart_uploads):
        with refused("NoSuchBucket", 404):
            call(Bucket="bucket-not-there")
