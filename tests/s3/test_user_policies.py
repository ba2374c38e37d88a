"""What users may do that have policies, in their own account's buckets and in others'; and forms under policies."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from botocore.client import BaseClient

from gateway.identities import Identity
from gateway.ops.context import Settings
from gateway.s3.policy.read import MANAGED
from tests.s3.conftest import MAIN, OTHER, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess


def user(name: str, *policies: str, of: Identity = MAIN) -> Identity:
    return dataclasses.replace(of, name=name, user_id=f"{name}-id", access_key=f"{name.upper()}ACCESSKEY", policies=policies)


def statements(*said: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **each} for each in said]})


READER = user("reader", "AmazonS3ReadOnlyAccess")
HOMELY = user("homely", statements(
    {"Action": ["s3:PutObject", "s3:GetObject"], "Resource": "arn:aws:s3:::*/home/${aws:username}/*"},
    {"Action": "s3:ListBucket", "Condition": {"StringLike": {"s3:prefix": "home/${aws:username}/*"}}}))
KEPT_OUT = user("keptout", "AmazonS3FullAccess", "no:" + statements({"Effect": "Deny", "Action": "s3:DeleteObject*"}))
USELESS = user("useless", statements({"Action": "s3:GetBucketLocation"}))
THEIR_USER = user("theiruser", statements({"Action": "s3:GetObject"}), of=OTHER)
ALL = (MAIN, OTHER, READER, HOMELY, KEPT_OUT, USELESS, THEIR_USER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("users"), list(ALL), settings=Settings(block_public_access=False)) as running:
        yield running


@pytest.fixture(scope="module")
def of(server: InProcess) -> Callable[[Identity], BaseClient]:
    made = {identity.name: client(server.endpoint, identity) for identity in ALL}
    return lambda identity: made[identity.name]


@pytest.fixture
def place(of: Callable[[Identity], BaseClient], new_bucket_name: Callable[[], str]) -> str:
    name = new_bucket_name()
    of(MAIN).create_bucket(Bucket=name)
    of(MAIN).put_object(Bucket=name, Key="key", Body=b"x")
    return name


def test_a_reader_reads(of: Callable[[Identity], BaseClient], place: str, new_bucket_name: Callable[[], str]) -> None:
    reader = of(READER)
    reader.get_object(Bucket=place, Key="key")
    reader.list_objects_v2(Bucket=place)
    reader.list_buckets()
    for call in (lambda: reader.put_object(Bucket=place, Key="key", Body=b""),
                 lambda: reader.delete_object(Bucket=place, Key="key"), lambda: reader.create_bucket(Bucket=new_bucket_name()),
                 lambda: reader.put_bucket_policy(Bucket=place, Policy="{}"),
                 lambda: reader.copy_object(Bucket=place, Key="copy", CopySource={"Bucket": place, "Key": "key"})):
        with refused("AccessDenied", 403):
            call()


def test_homes(of: Callable[[Identity], BaseClient], place: str) -> None:
    homely = of(HOMELY)
    homely.put_object(Bucket=place, Key="home/homely/a", Body=b"")
    homely.get_object(Bucket=place, Key="home/homely/a")
    homely.list_objects_v2(Bucket=place, Prefix="home/homely/")
    for call in (lambda: homely.put_object(Bucket=place, Key="home/other/a", Body=b""),
                 lambda: homely.list_objects_v2(Bucket=place), homely.list_buckets):
        with refused("AccessDenied", 403):
            call()


def test_a_deny_of_one_policy_wins_over_another(of: Callable[[Identity], BaseClient], place: str) -> None:
    kept_out = of(KEPT_OUT)
    kept_out.put_object(Bucket=place, Key="key", Body=b"y")
    with refused("AccessDenied", 403):
        kept_out.delete_object(Bucket=place, Key="key")
    (error,) = kept_out.delete_objects(Bucket=place, Delete={"Objects": [{"Key": "key"}]})["Errors"]
    assert error["Code"] == "AccessDenied"
    of(MAIN).put_bucket_policy(Bucket=place, Policy=json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{place}/*"}}))
    with refused("AccessDenied", 403):
        kept_out.delete_object(Bucket=place, Key="key")


def test_a_bucket_may_allow_what_the_user_is_not_allowed(of: Callable[[Identity], BaseClient], place: str) -> None:
    useless = of(USELESS)
    with refused("AccessDenied", 403):
        useless.get_object(Bucket=place, Key="key")
    for named, allowed in (("root", False), ("user/useless", True)):
        of(MAIN).put_bucket_policy(Bucket=place, Policy=json.dumps({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{MAIN.account}:{named}"}, "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{place}/*"}}))
        if allowed:
            useless.get_object(Bucket=place, Key="key")
        else:
            with refused("AccessDenied", 403):
                useless.get_object(Bucket=place, Key="key")


def test_across_accounts_both_sides_must_allow(of: Callable[[Identity], BaseClient], place: str) -> None:
    theirs = of(THEIR_USER)
    with refused("AccessDenied", 403):
        theirs.get_object(Bucket=place, Key="key")
    of(MAIN).put_bucket_policy(Bucket=place, Policy=json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"AWS": OTHER.account}, "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": f"arn:aws:s3:::{place}/*"}}))
    theirs.get_object(Bucket=place, Key="key")
    with refused("AccessDenied", 403):
        theirs.put_object(Bucket=place, Key="key", Body=b"")
    of(OTHER).put_object(Bucket=place, Key="key", Body=b"")


def test_forms_are_decided_by_their_fields(server: InProcess, of: Callable[[Identity], BaseClient], place: str) -> None:
    def post(**fields: str) -> int:
        return requests.post(f"{server.endpoint}/{place}", data=fields, files={"file": b"z"}, timeout=10,
                             headers={"x-amz-acl": "bucket-owner-full-control"}).status_code

    assert post(key="in/a") == 403
    of(MAIN).put_bucket_policy(Bucket=place, Policy=json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": ["s3:PutObject", "s3:PutObjectAcl"],
        "Resource": f"arn:aws:s3:::{place}/in/*",
        "Condition": {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}}}))
    assert post(key="in/a") == 403, "a header of the form says nothing about the object"
    assert post(key="in/a", acl="bucket-owner-full-control") == 204
    assert post(key="out/a", acl="bucket-owner-full-control") == 403
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    assert post(key="in/b", acl="bucket-owner-full-control", tagging=tags) == 403
    listed = of(MAIN).list_objects_v2(Bucket=place, FetchOwner=True)["Contents"]
    assert {entry["Key"]: entry["Owner"]["ID"] for entry in listed} == {"key": "main-id", "in/a": "main-id"}


def test_managed_policies_are_those_of_aws() -> None:
    assert set(MANAGED) == {"AmazonS3FullAccess", "AmazonS3ReadOnlyAccess"}
