"""Policies of users and explanations, by the admin API and by the command line."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.admin.asking import ask, done
from tests.admin.running import Staddle, staddle
from tests.servers import REGION, StaddleProcess

__all__ = ["staddle"]

READ = json.dumps({"Version": "2012-10-17", "Statement": {
    "Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}})


@pytest.fixture(scope="module")
def limited(server: StaddleProcess) -> Any:
    """A client of a user of the root's account; the user has no policy yet, and a bucket."""
    account = done(server, "GET", "user/show", name="root")["account"]
    done(server, "POST", "user/create", name="limited", account=account)
    made = done(server, "POST", "key/create", user="limited")

    def connected() -> Any:
        return boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=made["access_key"],
                            aws_secret_access_key=made["secret_key"], region_name=REGION)

    connected().create_bucket(Bucket="limits")
    connected().put_object(Bucket="limits", Key="key", Body=b"")
    return connected


def code_of(call: Any, **named: Any) -> str:
    try:
        call(**named)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_policies_are_in_force_on_all_workers_when_it_is_answered(server: StaddleProcess, limited: Any) -> None:
    done(server, "POST", "user/policy/set", name="limited", policy="readers", document=READ)
    for _ in range(6):
        assert code_of(limited().put_object, Bucket="limits", Key="key", Body=b"") == "AccessDenied"
        assert not code_of(limited().get_object, Bucket="limits", Key="key")
    assert done(server, "GET", "user/policy/list", name="limited")["policies"] == [
        {"user": "limited", "name": "readers", "document": READ}]
    done(server, "POST", "user/policy/remove", name="limited", policy="readers")
    for _ in range(6):
        assert not code_of(limited().put_object, Bucket="limits", Key="key", Body=b"")


@pytest.mark.parametrize(("path", "fields", "code"), [
    ("user/policy/set", {"name": "nobody", "policy": "p", "document": READ}, "NoSuchUser"),
    ("user/policy/set", {"name": "root", "policy": "p", "document": READ}, "ConfiguredIdentity"),
    ("user/policy/set", {"name": "limited", "policy": "a b", "document": READ}, "InvalidArgument"),
    ("user/policy/set", {"name": "limited", "policy": "p", "document": "{}"}, "MalformedPolicy"),
    ("user/policy/remove", {"name": "limited", "policy": "none"}, "NoSuchPolicy"),
    ("user/policy/remove", {"name": "nobody", "policy": "none"}, "NoSuchUser"),
])
def test_what_is_refused(server: StaddleProcess, limited: Any, path: str, fields: dict[str, str], code: str) -> None:
    assert ask(server, "POST", path, fields).code == code


def test_commands(server: StaddleProcess, limited: Any, staddle: Staddle, tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    file.write_text(READ)
    staddle.done("user", "policy", "set", "limited", "readers", str(file))
    assert json.loads(staddle.done("user", "policy", "get", "limited", "readers").out) == json.loads(READ)
    assert "readers" in staddle.done("user", "policy", "list", "limited").out
    several = json.dumps(json.loads(READ), indent=2)
    staddle.done("user", "policy", "set", "limited", "readers", "-", input=several)
    assert staddle.done("user", "policy", "get", "limited", "readers").out == several + "\n", "as it was given, line by line"
    assert "cannot read none: No such file" in staddle.refused("user", "policy", "set", "limited", "p", "none", status=2)
    staddle.done("user", "policy", "set", "limited", "named", "AmazonS3ReadOnlyAccess")
    assert "s3:List*" in staddle.done("user", "policy", "get", "limited", "named").out
    staddle.done("user", "policy", "remove", "limited", "named")
    ran = staddle("explain", "s3:PutObject", "limits", "key", "--user", "limited")
    assert ran.status == 1
    assert "no statement of the user's policies allows it" in ran.out
    allowed = staddle.json("explain", "s3:getobject", "limits", "key", "--user", "limited")
    assert (allowed["allowed"], allowed["action"]) == (True, "s3:GetObject")
    assert "user policy 'readers': statement 1 (Read) allows it" in allowed["why"]
    staddle.done("user", "policy", "remove", "limited", "readers", "--yes")


def test_explanations(server: StaddleProcess, s3: Any, limited: Any) -> None:
    s3.create_bucket(Bucket="explained")
    s3.put_object(Bucket="explained", Key="key", Body=b"")
    s3.delete_public_access_block(Bucket="explained")
    s3.put_bucket_policy(Bucket="explained", Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Sid": "Near", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::explained/*",
         "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}},
        {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::explained/*"}]}))

    def why(action: str, **more: str) -> tuple[bool, str]:
        answer = done(server, "GET", "explain", action=action, bucket="explained", key="key", **more)
        return answer["allowed"], answer["why"]

    assert why("s3:GetObject", context="aws:SourceIp=192.0.2.9") == (True, "bucket policy: statement 1 (Near) allows it")
    assert why("s3:GetObject") == (False, "no statement and no grant allows it to everyone")
    assert why("s3:DeleteObject", user="root") == (False, "bucket policy: statement 2 denies it")
    assert why("s3:PutBucketPolicy", user="root") == (True, "the owning account always reaches the bucket policy")
    allowed, text = why("s3:GetObject", user="limited")
    assert allowed
    assert "has all rights of its account" in text
    for fields, code in (({"action": "s3:Nothing"}, "InvalidArgument"), ({"action": "s3:GetObject"}, "InvalidArgument"),
                         ({"action": "s3:GetObject", "bucket": "not-there"}, "NoSuchBucket"),
                         ({"action": "s3:ListAllMyBuckets", "user": "nobody"}, "NoSuchUser"),
                         ({"action": "s3:GetObject", "bucket": "explained", "context": "aws:Nothing=1"}, "InvalidArgument")):
        assert ask(server, "GET", "explain", fields).code == code


def test_a_bucket_policy_is_in_force_on_all_workers_when_it_is_answered(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="at-once")
    s3.put_object(Bucket="at-once", Key="key", Body=b"")
    s3.delete_public_access_block(Bucket="at-once")
    everyone = json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::at-once/*"}})

    def statuses() -> set[int]:
        found = set()
        for _ in range(6):
            connection = server.connect()
            connection.request("GET", "/at-once/key")
            found.add(connection.getresponse().status)
            connection.close()
        return found

    for _ in range(3):
        s3.put_bucket_policy(Bucket="at-once", Policy=everyone)
        assert statuses() == {200}
        s3.delete_bucket_policy(Bucket="at-once")
        assert statuses() == {403}
