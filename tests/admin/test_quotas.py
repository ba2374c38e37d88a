"""Quotas of buckets and accounts: set by operators, refused over S3, exact, and never in the way of what frees room
(docs/QUOTAS.md)."""

import http.client
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.admin.running import Staddle, staddle
from tests.servers import REGION, StaddleProcess
from tests.signing import Keys, sign_request

__all__ = ["staddle"]

KIB = 1024
SENTENCES = {
    ("bucket", "bytes"): "The bucket's quota of bytes does not allow this request.",
    ("bucket", "objects"): "The bucket's quota of objects does not allow this request.",
    ("account", "bytes"): "The account's quota of bytes does not allow this request.",
}


@pytest.fixture(scope="module")
def key(staddle: Staddle) -> Keys:
    """Of a user whose account has no quota of its own yet."""
    made = staddle.json("user", "create", "quota-user")["key"]
    return Keys(access_key=made["access_key"], secret_key=made["secret_key"])


@pytest.fixture(scope="module")
def s3(server: StaddleProcess, key: Keys) -> BaseClient:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key,
        region_name=REGION, config=Config(retries={"total_max_attempts": 1}, max_pool_connections=16))


@pytest.fixture
def bucket(s3: BaseClient, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"quota-{abs(hash(request.node.name)) % 10**9}"
    s3.create_bucket(Bucket=name)
    yield name
    for each in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=each["Key"], UploadId=each["UploadId"])
    found = s3.list_object_versions(Bucket=name)
    for each in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=name, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=name)


def over(call: Callable[..., Any], whose: str = "bucket", what: str = "bytes", **named: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**named)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]) == (
        403, "QuotaExceeded", SENTENCES[whose, what])


def test_a_quota_of_bytes(staddle: Staddle, s3: BaseClient, bucket: str) -> None:
    def put(size: int, key: str = "k", **named: Any) -> Any:
        return s3.put_object(Bucket=bucket, Key=key, Body=bytes(size), **named)

    held = staddle.json("quota", "set", "--bucket", bucket, "--bytes", "10KiB")
    assert (held["kind"], held["name"], held["bytes"]) == ("bucket", bucket, 0)
    assert (held["bytes_max"], held["objects_max"]) == (10 * KIB, None)
    over(put, size=10 * KIB + 1)
    put(10 * KIB)
    over(put, size=1, key="other")
    put(0, "empty")
    put(9 * KIB)                           # the difference counts
    over(put, size=KIB + 1, key="other")
    over(put, size=KIB + 1, WriteOffsetBytes=9 * KIB)
    put(KIB, WriteOffsetBytes=9 * KIB)
    over(s3.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/empty")
    s3.rename_object(Bucket=bucket, Key="renamed", RenameSource="k")
    over(put, size=1)
    assert staddle.json("quota", "get", "--bucket", bucket)["bytes"] == 10 * KIB
    s3.delete_object(Bucket=bucket, Key="renamed")
    put(10 * KIB)
    staddle.done("quota", "set", "--bucket", bucket, "--bytes", "1")
    put(5 * KIB)                           # less than was there: allowed, although it is too much
    over(put, size=5 * KIB + 1)
    assert "may hold any number" in staddle.done("quota", "remove", "--bucket", bucket).out
    put(20 * KIB)


def test_parts_of_uploads_count_while_they_stand(staddle: Staddle, s3: BaseClient, bucket: str) -> None:
    staddle.done("quota", "set", "--bucket", bucket, "--bytes", "10KiB", "--objects", "1")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]

    def part(size: int, number: int = 1) -> dict[str, Any]:
        made = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=bytes(size))
        return {"PartNumber": number, "ETag": made["ETag"]}

    part(8 * KIB)
    over(part, size=3 * KIB, number=2)
    over(s3.put_object, Bucket=bucket, Key="x", Body=bytes(3 * KIB))
    first = part(9 * KIB)                  # in place of the other
    held = staddle.json("quota", "get", "--bucket", bucket)
    assert (held["objects"], held["bytes"], held["upload_bytes"]) == (0, 0, 9 * KIB)
    s3.put_object(Bucket=bucket, Key="x", Body=b"")
    done = {"Bucket": bucket, "Key": "k", "UploadId": upload, "MultipartUpload": {"Parts": [first]}}
    over(s3.complete_multipart_upload, what="objects", **done)
    s3.delete_object(Bucket=bucket, Key="x")
    s3.complete_multipart_upload(**done)
    held = staddle.json("quota", "get", "--bucket", bucket)
    assert (held["objects"], held["bytes"], held["upload_bytes"]) == (1, 9 * KIB, 0)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part(KIB)
    over(part, size=1, number=2)
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert staddle.json("quota", "get", "--bucket", bucket)["upload_bytes"] == 0


def test_older_versions_count_and_deletes_are_never_refused(staddle: Staddle, s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    staddle.done("quota", "set", "--bucket", bucket, "--objects", "2")
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    over(s3.put_object, what="objects", Bucket=bucket, Key="k", Body=b"3")
    over(s3.put_object, what="objects", Bucket=bucket, Key="k", Body=b"3", WriteOffsetBytes=1)
    over(s3.rename_object, what="objects", Bucket=bucket, Key="to", RenameSource="k")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=old)
    s3.put_object(Bucket=bucket, Key="k", Body=b"3")


def test_all_buckets_of_an_account_together(staddle: Staddle, s3: BaseClient, bucket: str) -> None:
    before = staddle.json("quota", "get", "--user", "quota-user")
    assert before["bytes"] == before["upload_bytes"] == 0, "the other tests have left nothing"
    held = staddle.json("quota", "set", "--user", "quota-user", "--bytes", "2000")
    assert held["kind"] == "account"
    other = f"{bucket}-other"
    s3.create_bucket(Bucket=other)
    try:
        s3.put_object(Bucket=bucket, Key="k", Body=bytes(1500))
        over(s3.put_object, whose="account", Bucket=other, Key="k", Body=bytes(501))
        s3.put_object(Bucket=other, Key="k", Body=bytes(500))
        found = [each for each in staddle.json("usage")["accounts"] if each["account"] == held["name"]]
        assert [(each["buckets"], each["objects"], each["bytes"], each["bytes_max"]) for each in found] == [(2, 2, 2000, 2000)]
        assert held["name"] in staddle.done("quota", "list").out
        assert held["name"] in staddle.done("usage").out
        s3.delete_object(Bucket=other, Key="k")
    finally:
        staddle.done("quota", "remove", "--user", "quota-user")
        s3.delete_bucket(Bucket=other)
    assert not [each for each in staddle.json("quota", "list") if each["kind"] == "account"]


def test_a_body_without_room_is_not_read(staddle: Staddle, server: StaddleProcess, key: Keys, bucket: str) -> None:
    staddle.done("quota", "set", "--bucket", bucket, "--bytes", "1KiB")
    headers = sign_request(
        "PUT", f"{server.endpoint}/{bucket}/k", {"content-length": str(1 << 30), "expect": "100-continue"}, keys=key,
        now_s=time.time(), payload="UNSIGNED-PAYLOAD")
    connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"), timeout=20)
    connection.putrequest("PUT", f"/{bucket}/k", skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 403
    assert b"QuotaExceeded" in answer.read()
    connection.close()


def test_no_two_writes_at_once_get_past_it(staddle: Staddle, s3: BaseClient, bucket: str) -> None:
    staddle.done("quota", "set", "--bucket", bucket, "--bytes", "1000", "--objects", "25")

    def put(number: int) -> bool:
        try:
            s3.put_object(Bucket=bucket, Key=f"k{number}", Body=bytes(100))
        except ClientError as error:
            if error.response["Error"]["Code"] != "QuotaExceeded":
                raise
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(put, range(30))) == 10
    held = staddle.json("quota", "get", "--bucket", bucket)
    assert (held["objects"], held["bytes"]) == (10, 1000)


def test_what_operators_may_not_ask(staddle: Staddle) -> None:
    assert "no bucket 'quota-none'" in staddle.refused("quota", "set", "--bucket", "quota-none", "--bytes", "1")
    assert "quota-nobody" in staddle.refused("quota", "set", "--user", "quota-nobody", "--bytes", "1")
    for wrong in (("set", "--bytes", "1"), ("set", "--bucket", "b", "--account", "a", "--bytes", "1"), ("set", "--bucket", "b"),
                  ("set", "--bucket", "b", "--bytes", "much"), ("set", "--bucket", "b", "--objects", "-1"), ("remove",)):
        assert staddle("quota", *wrong).status == 2, wrong
