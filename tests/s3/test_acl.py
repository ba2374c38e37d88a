"""Access lists, object ownership and the public access block, each by itself and against each other."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from gateway.identities import Identity
from gateway.ops.context import ANONYMOUS_ID, Settings
from tests.s3.conftest import MAIN, OTHER, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
MAILED = Identity(name="mailed", account="333333333333", user_id="mailed-id", display_name="M. Ailed", email="M@example.com",
                  access_key="MAILEDACCESSKEY", secret_key="mailed/secret")


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server with the defaults that S3 had once: lists count, nothing is blocked."""
    settings = Settings(object_ownership="ObjectWriter", block_public_access=False)
    with InProcess(tmp_path_factory.mktemp("classic"), [MAIN, OTHER, MAILED], settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def ours(classic: InProcess) -> BaseClient:
    return client(classic.endpoint)


@pytest.fixture(scope="module")
def theirs(classic: InProcess) -> BaseClient:
    return client(classic.endpoint, OTHER)


@pytest.fixture(scope="module")
def mailed(classic: InProcess) -> BaseClient:
    return client(classic.endpoint, MAILED)


@pytest.fixture(scope="module")
def strangers(classic: InProcess) -> BaseClient:
    return boto3.client("s3", endpoint_url=classic.endpoint, region_name="us-east-1",
                        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}))


@pytest.fixture
def make(ours: BaseClient, new_bucket_name: Callable[[], str]) -> Callable[..., str]:
    def made(**more: Any) -> str:
        name = new_bucket_name()
        ours.create_bucket(Bucket=name, **more)
        ours.put_object(Bucket=name, Key="key", Body=b"x")
        return name

    return made


def may(call: Callable[..., Any], **named: Any) -> bool:
    """Whether it is allowed. Any other error is one."""
    try:
        call(**named)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    return True


def grants(acl: dict[str, Any]) -> set[tuple[str, str]]:
    return {(grant["Grantee"].get("ID") or grant["Grantee"]["URI"], grant["Permission"]) for grant in acl["Grants"]}


OWNER = ("main-id", "FULL_CONTROL")


@pytest.mark.parametrize(("canned", "granted", "strangers_may", "others_may"), [
    ("private", set(), "", ""), ("public-read", {(ALL_USERS, "READ")}, "list", "list"),
    ("public-read-write", {(ALL_USERS, "READ"), (ALL_USERS, "WRITE")}, "list put delete", "list put delete"),
    ("authenticated-read", {(AUTHENTICATED, "READ")}, "", "list"),
])
def test_canned_lists_of_buckets(
    ours: BaseClient, theirs: BaseClient, strangers: BaseClient, make: Callable[..., str], canned: str,
    granted: set[tuple[str, str]], strangers_may: str, others_may: str,
) -> None:
    for bucket in (make(ACL=canned), make()):
        ours.put_bucket_acl(Bucket=bucket, ACL=canned)
        acl = ours.get_bucket_acl(Bucket=bucket)
        assert grants(acl) == {OWNER, *granted}
        assert acl["Owner"] == {"ID": "main-id", "DisplayName": "M. Ain"}
        for who, allowed in ((strangers, strangers_may.split()), (theirs, others_may.split())):
            assert may(who.list_objects_v2, Bucket=bucket) == ("list" in allowed)
            assert may(who.put_object, Bucket=bucket, Key="new", Body=b"") == ("put" in allowed)
            assert may(who.delete_object, Bucket=bucket, Key="new") == ("delete" in allowed)
            assert not may(who.get_bucket_acl, Bucket=bucket)
            assert not may(who.get_object, Bucket=bucket, Key="key"), "an object has a list of its own"
            assert not may(who.put_bucket_policy, Bucket=bucket, Policy="{}")


@pytest.mark.parametrize(("canned", "strangers_may", "others_may"), [
    ("private", False, False), ("public-read", True, True), ("public-read-write", True, True),
    ("authenticated-read", False, True),
    ("bucket-owner-read", False, False), ("bucket-owner-full-control", False, False), ("aws-exec-read", False, False),
])
def test_canned_lists_of_objects(
    ours: BaseClient, theirs: BaseClient, strangers: BaseClient, make: Callable[..., str], canned: str, strangers_may: bool,
    others_may: bool,
) -> None:
    bucket = make()
    upload = ours.create_multipart_upload(Bucket=bucket, Key="multipart", ACL=canned)["UploadId"]
    part = ours.upload_part(Bucket=bucket, Key="multipart", UploadId=upload, PartNumber=1, Body=b"p")
    ours.complete_multipart_upload(Bucket=bucket, Key="multipart", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    ours.put_object(Bucket=bucket, Key="put", Body=b"x", ACL=canned)
    ours.copy_object(Bucket=bucket, Key="copied", CopySource={"Bucket": bucket, "Key": "key"}, ACL=canned)
    ours.put_object_acl(Bucket=bucket, Key="key", ACL=canned)
    for key in ("multipart", "put", "copied", "key"):
        assert may(strangers.get_object, Bucket=bucket, Key=key) == strangers_may, key
        assert may(theirs.head_object, Bucket=bucket, Key=key) == others_may
        assert not may(theirs.get_object_acl, Bucket=bucket, Key=key)
        assert not may(theirs.put_object_acl, Bucket=bucket, Key=key, ACL="public-read")
    ours.copy_object(Bucket=bucket, Key="copy of it", CopySource={"Bucket": bucket, "Key": "put"})
    assert not may(strangers.get_object, Bucket=bucket, Key="copy of it"), "lists are not copied"


def test_grants_in_headers(ours: BaseClient, theirs: BaseClient, mailed: BaseClient, make: Callable[..., str]) -> None:
    bucket = make()
    ours.put_object(Bucket=bucket, Key="granted", Body=b"", GrantRead=f'id="{OTHER.user_id}", emailAddress="m@EXAMPLE.com"',
                    GrantReadACP=f"id={OTHER.user_id}")
    assert grants(ours.get_object_acl(Bucket=bucket, Key="granted")) == {
        ("other-id", "READ"), ("mailed-id", "READ"), ("other-id", "READ_ACP")}
    assert may(theirs.get_object, Bucket=bucket, Key="granted")
    assert may(theirs.get_object_acl, Bucket=bucket, Key="granted")
    assert may(mailed.get_object, Bucket=bucket, Key="granted")
    assert not may(mailed.get_object_acl, Bucket=bucket, Key="granted")
    ours.put_bucket_acl(Bucket=bucket, GrantFullControl="id=other-id", GrantWriteACP=f"uri={ALL_USERS}")
    assert may(theirs.list_objects, Bucket=bucket)
    assert may(theirs.get_bucket_acl, Bucket=bucket)
    assert not may(mailed.list_objects, Bucket=bucket)
    assert may(mailed.put_bucket_acl, Bucket=bucket, ACL="private")
    assert may(ours.list_objects, Bucket=bucket), "the owner needs no grant"


@pytest.mark.parametrize(("wish", "code", "message"), [
    ({"ACL": "everyone"}, "InvalidArgument", None),
    ({"ACL": "private", "GrantRead": "id=main-id"}, "InvalidRequest",
     "Specifying both Canned ACLs and Header Grants is not allowed"),
    ({"GrantRead": "id=nobody"}, "InvalidArgument", "Invalid id"),
    ({"GrantRead": "uri=http://example.com/"}, "InvalidArgument", "Invalid group uri"),
    ({"GrantRead": "emailAddress=nobody@example.com"}, "UnresolvableGrantByEmailAddress", None),
    ({"GrantRead": "main-id"}, "InvalidArgument", "Argument format not recognized"),
    ({}, "MissingSecurityHeader", None),
])
def test_lists_that_cannot_be(
    ours: BaseClient, make: Callable[..., str], wish: dict[str, str], code: str, message: str | None,
) -> None:
    bucket = make()
    calls: list[Callable[[], Any]] = [lambda: ours.put_bucket_acl(Bucket=bucket, **wish),
                                      lambda: ours.put_object_acl(Bucket=bucket, Key="key", **wish)]
    if wish:
        calls.append(lambda: ours.put_object(Bucket=bucket, Key="key", Body=b"new", **wish))
    for call in calls:
        with refused(code, 400) as said:
            call()
        assert message is None or said["Message"] == message
    assert ours.get_object(Bucket=bucket, Key="key")["Body"].read() == b"x"


def test_documents(ours: BaseClient, theirs: BaseClient, make: Callable[..., str]) -> None:
    bucket = make()
    owner = {"ID": "main-id"}
    wanted = [{"Grantee": {"Type": "CanonicalUser", "ID": "other-id"}, "Permission": "READ"},
              {"Grantee": {"Type": "Group", "URI": ALL_USERS}, "Permission": "READ_ACP"},
              {"Grantee": {"Type": "AmazonCustomerByEmail", "EmailAddress": "m@example.com"}, "Permission": "WRITE_ACP"}]
    policy = {"Owner": owner, "Grants": wanted}
    ours.put_object_acl(Bucket=bucket, Key="key", AccessControlPolicy=policy)
    ours.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    for acl in (ours.get_object_acl(Bucket=bucket, Key="key"), ours.get_bucket_acl(Bucket=bucket)):
        assert grants(acl) == {("other-id", "READ"), (ALL_USERS, "READ_ACP"), ("mailed-id", "WRITE_ACP")}
        shown = next(grant["Grantee"] for grant in acl["Grants"] if grant["Permission"] == "READ")
        assert shown == {"ID": "other-id", "DisplayName": "O. Ther", "Type": "CanonicalUser"}
    assert may(theirs.get_object, Bucket=bucket, Key="key")
    with refused("AccessDenied", 403):
        ours.put_object_acl(Bucket=bucket, Key="key", AccessControlPolicy={**policy, "Owner": {"ID": "other-id"}})
    for broken in ([{"Grantee": {"Type": "CanonicalUser", "ID": "other-id"}, "Permission": "LOOK"}],
                   [{"Grantee": {"Type": "CanonicalUser"}, "Permission": "READ"}],
                   [{"Grantee": {"Type": "Group", "ID": "other-id"}, "Permission": "READ"}],
                   [{"Grantee": {"Type": "Somebody", "ID": "other-id"}, "Permission": "READ"}]):
        with refused("MalformedACLError", 400):
            ours.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": broken})
    with refused("NoSuchKey", 404):
        ours.put_object_acl(Bucket=bucket, Key="absent", ACL="private")


def test_versions_have_lists(ours: BaseClient, strangers: BaseClient, make: Callable[..., str]) -> None:
    bucket = make()
    ours.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = ours.put_object(Bucket=bucket, Key="key", Body=b"2")["VersionId"]
    ours.put_object_acl(Bucket=bucket, Key="key", VersionId="null", ACL="public-read")
    assert may(strangers.get_object, Bucket=bucket, Key="key", VersionId="null")
    assert not may(strangers.get_object, Bucket=bucket, Key="key", VersionId=version)
    assert not may(strangers.get_object, Bucket=bucket, Key="key")
    marker = ours.delete_object(Bucket=bucket, Key="key")["VersionId"]
    with refused("MethodNotAllowed", 405):
        ours.get_object_acl(Bucket=bucket, Key="key", VersionId=marker)


def test_what_others_write_is_theirs_unless_ownership_says_otherwise(
    ours: BaseClient, theirs: BaseClient, strangers: BaseClient, make: Callable[..., str],
) -> None:
    bucket = make(ACL="public-read-write")

    def write(**more: Any) -> str:
        theirs.put_object(Bucket=bucket, Key="theirs", Body=b"t", **more)
        listed = ours.list_objects_v2(Bucket=bucket, FetchOwner=True, Prefix="theirs")["Contents"]
        return str(listed[0]["Owner"]["ID"])

    assert write() == "other-id"
    assert not may(ours.get_object, Bucket=bucket, Key="theirs"), "the bucket's owner has no right to it"
    assert not may(ours.put_object_acl, Bucket=bucket, Key="theirs", ACL="public-read")
    assert may(theirs.get_object, Bucket=bucket, Key="theirs")
    assert may(theirs.get_object_acl, Bucket=bucket, Key="theirs")
    theirs.put_object_acl(Bucket=bucket, Key="theirs", ACL="bucket-owner-full-control")
    assert may(ours.get_object, Bucket=bucket, Key="theirs")
    assert may(ours.delete_object, Bucket=bucket, Key="theirs"), "but may always remove it"
    assert write(ACL="public-read") == "other-id"
    assert may(strangers.get_object, Bucket=bucket, Key="theirs")
    strangers.put_object(Bucket=bucket, Key="nobody's", Body=b"")
    assert ours.get_object_acl(Bucket=bucket, Key="nobody's")["Owner"]["ID"] == ANONYMOUS_ID

    mode = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    ours.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=mode)
    assert ours.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == mode
    assert write() == "other-id"
    assert write(ACL="bucket-owner-full-control") == "main-id"

    enforced = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        ours.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=enforced)
    ours.put_object(Bucket=bucket, Key="public", Body=b"", ACL="public-read")
    assert write() == "other-id"
    ours.put_bucket_acl(Bucket=bucket, ACL="private")
    ours.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=enforced)
    assert may(ours.get_object, Bucket=bucket, Key="theirs"), "now all is the bucket owner's"
    assert not may(theirs.get_object, Bucket=bucket, Key="theirs")
    assert not may(strangers.get_object, Bucket=bucket, Key="public"), "lists are off"
    with refused("AccessControlListNotSupported", 400):
        ours.put_bucket_acl(Bucket=bucket, ACL="public-read")
    ours.delete_bucket_ownership_controls(Bucket=bucket)
    with refused("OwnershipControlsNotFoundError", 404):
        ours.get_bucket_ownership_controls(Bucket=bucket)
    assert may(strangers.get_object, Bucket=bucket, Key="public"), "and on again"


def test_blocking_public_lists(
    ours: BaseClient, theirs: BaseClient, strangers: BaseClient, make: Callable[..., str],
) -> None:
    bucket = make(ACL="public-read")
    ours.put_object(Bucket=bucket, Key="public", Body=b"", ACL="public-read")
    ours.put_object(Bucket=bucket, Key="granted", Body=b"", GrantRead="id=other-id")
    ours.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    assert may(strangers.get_object, Bucket=bucket, Key="public"), "only new ones are refused"
    for call in (lambda **more: ours.put_object(Bucket=bucket, Key="new", Body=b"", **more),
                 lambda **more: ours.put_object_acl(Bucket=bucket, Key="key", **more),
                 lambda **more: ours.put_bucket_acl(Bucket=bucket, **more),
                 lambda **more: ours.create_multipart_upload(Bucket=bucket, Key="new", **more),
                 lambda **more: ours.copy_object(Bucket=bucket, Key="new", CopySource={"Bucket": bucket, "Key": "key"}, **more)):
        for wish in ({"ACL": "public-read"}, {"ACL": "authenticated-read"}, {"GrantRead": f"uri={ALL_USERS}"}):
            with refused("AccessDenied", 403):
                call(**wish)
        call(GrantRead="id=other-id")
    ours.put_bucket_acl(Bucket=bucket, GrantRead="id=other-id")
    ours.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"IgnorePublicAcls": True})
    assert not may(strangers.get_object, Bucket=bucket, Key="public")
    assert not may(theirs.get_object, Bucket=bucket, Key="public")
    assert may(theirs.get_object, Bucket=bucket, Key="granted"), "a grant to one account is not public"
    ours.put_object_acl(Bucket=bucket, Key="key", ACL="public-read")
    assert not may(strangers.get_object, Bucket=bucket, Key="key")
    ours.delete_public_access_block(Bucket=bucket)
    assert may(strangers.get_object, Bucket=bucket, Key="key")


def test_absent_keys_in_a_public_bucket(strangers: BaseClient, make: Callable[..., str]) -> None:
    with refused("NoSuchKey", 404):
        strangers.get_object(Bucket=make(ACL="public-read"), Key="absent")
    with refused("AccessDenied", 403):
        strangers.get_object(Bucket=make(), Key="absent")


def test_a_list_with_todays_defaults(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    bucket = new_bucket_name()
    for wish in ({"ACL": "public-read"}, {"GrantRead": "id=other-id"}):
        with refused("InvalidBucketAclWithObjectOwnership", 400):
            s3.create_bucket(Bucket=bucket, **wish)
    with refused("InvalidBucketAclWithBlockPublicAccessError", 400):
        s3.create_bucket(Bucket=bucket, ACL="public-read", ObjectOwnership="ObjectWriter")
    s3.create_bucket(Bucket=bucket, ACL="private", ObjectOwnership="BucketOwnerPreferred")
    shown = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert shown == [{"ObjectOwnership": "BucketOwnerPreferred"}]
    s3.put_bucket_acl(Bucket=bucket, GrantRead="id=other-id")
