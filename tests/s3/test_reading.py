"""GET and HEAD: ranges, parts, conditions, overrides, what is told about an object (S3_SEMANTICS §8, §9)."""

import datetime
import urllib.request
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.s3.conftest import MIB
from tests.s3.errors import refused

BODY = bytes(range(256)) * 4096 * 2 + b"0123456789"
"""Over two chunks of 1 MiB."""

SIZE = len(BODY)


@pytest.fixture
def key(s3: BaseClient, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="key", Body=BODY)
    return "key"


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=0-", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
        (f"bytes=10-{SIZE + 1000}", 10, SIZE),
        (f"bytes={MIB - 3}-{MIB + 2}", MIB - 3, MIB + 3),
        (f"bytes={MIB}-{2 * MIB - 1}", MIB, 2 * MIB),
        (f"bytes={MIB - 300_000}-{2 * MIB + 3}", MIB - 300_000, 2 * MIB + 4),
    ],
)
def test_ranges(s3: BaseClient, bucket: str, key: str, wanted: str, start: int, end: int) -> None:
    got = s3.get_object(Bucket=bucket, Key=key, Range=wanted)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert got["ContentLength"] == end - start
    assert got["Body"].read() == BODY[start:end]
    assert "ChecksumCRC32" not in got
    head = s3.head_object(Bucket=bucket, Key=key, Range=wanted)
    assert head["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert (head["ContentLength"], head["ContentRange"]) == (end - start, got["ContentRange"])


@pytest.mark.parametrize("ignored", ["bytes=9-3", "lines=1-2", "bytes=a-b", "bytes=0-1,4-5", "0-5", "bytes=-"])
def test_ranges_that_are_ignored(s3: BaseClient, bucket: str, key: str, ignored: str) -> None:
    got = s3.get_object(Bucket=bucket, Key=key, Range=ignored)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert got["Body"].read() == BODY
    assert "ContentRange" not in got
    assert got["ChecksumCRC32"]


def test_a_range_to_go_on_with_other_bytes_is_ignored(s3: BaseClient, bucket: str, key: str) -> None:
    """Else a download that is resumed after the object was replaced would be half of each."""
    head = s3.head_object(Bucket=bucket, Key=key)
    modified = head["ResponseMetadata"]["HTTPHeaders"]["last-modified"]
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
    for if_range, status in [(head["ETag"], 206), (head["ETag"].strip('"'), 206), (modified, 206), ('"x"', 200), ("", 200),
                             (f"W/{head['ETag']}", 200), ("Wed, 01 Jan 2020 00:00:00 GMT", 200)]:
        wanted = urllib.request.Request(url, headers={"Range": "bytes=5-9", "If-Range": if_range})
        with urllib.request.urlopen(wanted) as answer:
            assert (answer.status, answer.read()) == (status, BODY[5:10] if status == 206 else BODY), if_range


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", f"bytes={SIZE + 1}-{SIZE + 2}", "bytes=-0"])
def test_ranges_beyond_the_end(s3: BaseClient, bucket: str, key: str, wanted: str) -> None:
    with refused("InvalidRange", 416) as said:
        s3.get_object(Bucket=bucket, Key=key, Range=wanted)
    assert (said["ActualObjectSize"], said["RangeRequested"]) == (str(SIZE), wanted)
    with refused("416", 416):
        s3.head_object(Bucket=bucket, Key=key, Range=wanted)


def test_no_range_of_an_empty_object_exists(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


def test_the_only_part_of_a_simple_object(s3: BaseClient, bucket: str, key: str) -> None:
    got = s3.get_object(Bucket=bucket, Key=key, PartNumber=1)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["Body"].read() == BODY
    assert got["ContentRange"] == f"bytes 0-{SIZE - 1}/{SIZE}"
    assert "PartsCount" not in got
    with refused("InvalidPartNumber", 416) as said:
        s3.get_object(Bucket=bucket, Key=key, PartNumber=2)
    assert (said["PartNumberRequested"], said["ActualPartCount"]) == ("2", "1")
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=bucket, Key=key, PartNumber=0)
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key=key, PartNumber=1, Range="bytes=0-1")


def test_conditions(s3: BaseClient, bucket: str, key: str) -> None:
    head = s3.head_object(Bucket=bucket, Key=key)
    etag, modified = head["ETag"], head["LastModified"]
    earlier, later = modified - datetime.timedelta(hours=1), modified + datetime.timedelta(hours=1)

    def get(**conditions: Any) -> int:
        answer = s3.get_object(Bucket=bucket, Key=key, **conditions)
        assert answer["Body"].read() == BODY
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])

    assert get(IfMatch=etag) == 200
    assert get(IfMatch=etag.strip('"')) == 200
    assert get(IfMatch="*") == 200
    assert get(IfUnmodifiedSince=modified) == 200
    assert get(IfMatch=etag, IfUnmodifiedSince=earlier) == 200
    assert get(IfNoneMatch='"other"', IfModifiedSince=modified) == 200
    assert get(IfModifiedSince=earlier) == 200
    assert get(IfModifiedSince=later) == 200  # in the future: ignored
    for condition, conditions in [
        ("If-Match", {"IfMatch": '"other"'}),
        ("If-Unmodified-Since", {"IfUnmodifiedSince": earlier}),
        ("If-Match", {"IfMatch": '"other"', "IfNoneMatch": etag}),
    ]:
        with refused("PreconditionFailed", 412) as said:
            s3.get_object(Bucket=bucket, Key=key, **conditions)
        assert said["Condition"] == condition
        with refused("412", 412):
            s3.head_object(Bucket=bucket, Key=key, **conditions)
    for conditions in [{"IfNoneMatch": etag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": modified}]:
        with refused("304", 304) as said:
            s3.get_object(Bucket=bucket, Key=key, **conditions)
        assert said["Headers"]["etag"] == etag
        assert "last-modified" in said["Headers"]
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=bucket, Key=key, IfMatch='"other"', Range=f"bytes={SIZE}-")


def test_overrides(s3: BaseClient, bucket: str, key: str) -> None:
    got = s3.get_object(
        Bucket=bucket, Key=key, ResponseContentType="a/b", ResponseContentDisposition="attachment; filename=x",
        ResponseContentEncoding="gzip", ResponseContentLanguage="de", ResponseCacheControl="no-store",
        ResponseExpires=datetime.datetime(2030, 1, 1),
    )
    assert got["ContentType"] == "a/b"
    assert got["ContentDisposition"] == "attachment; filename=x"
    assert (got["ContentEncoding"], got["ContentLanguage"], got["CacheControl"]) == ("gzip", "de", "no-store")
    assert got["ExpiresString"] == "Tue, 01 Jan 2030 00:00:00 GMT"
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=bucket, Key=key, ResponseContentType="a/b\r\nx-evil: 1")


def test_everything_that_was_said_is_given_back(s3: BaseClient, bucket: str) -> None:
    said = {
        "ContentType": "text/plain; charset=x", "CacheControl": "max-age=1", "ContentDisposition": "inline",
        "ContentEncoding": "gzip", "ContentLanguage": "en", "WebsiteRedirectLocation": "/there",
        "StorageClass": "STANDARD_IA", "Metadata": {"a_b": "1", "empty": "", "c": "x" * 900},
    }
    s3.put_object(
        Bucket=bucket, Key="key", Body=b"x", Tagging="k=v&l=w", Expires=datetime.datetime(2030, 1, 1), **said
    )
    for answer in (s3.get_object(Bucket=bucket, Key="key"), s3.head_object(Bucket=bucket, Key="key")):
        assert {name: answer[name] for name in said} == said
        assert answer["ExpiresString"] == "Tue, 01 Jan 2030 00:00:00 GMT"
        if "TagCount" in answer:
            assert answer["TagCount"] == 2
        assert answer["AcceptRanges"] == "bytes"
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert headers["x-amz-tagging-count"] == "2"
        assert "x-amz-version-id" not in headers


def test_an_unknown_version_is_no_version(s3: BaseClient, bucket: str, key: str) -> None:
    assert s3.get_object(Bucket=bucket, Key=key, VersionId="null")["Body"].read() == BODY
    with refused("NoSuchVersion", 404) as said:
        s3.get_object(Bucket=bucket, Key=key, VersionId="A" * 32)
    assert (said["Key"], said["VersionId"]) == (key, "A" * 32)
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=bucket, Key=key, VersionId="what?")


def test_a_customer_key_for_a_plain_object_is_refused(s3: BaseClient, bucket: str, key: str) -> None:
    with refused("400", 400):
        s3.head_object(Bucket=bucket, Key=key, SSECustomerAlgorithm="AES256", SSECustomerKey="k" * 32)
