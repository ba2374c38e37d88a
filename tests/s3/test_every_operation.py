"""Each operation of the newest service model, once, through boto3: what it answers when it is done, or its exact refusal.

A *case* says what is there before, what is asked, and what must be in the answer. The list of cases is held to the model, so
an operation that AWS adds fails here until it is decided what Staddle answers. Each has a bucket of its own with one object.
"""

import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import boto3
import botocore.session
import pytest
from botocore import xform_name
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from gateway.s3.operations import OPERATION
from tests.s3.conftest import MAIN, OTHER, SETTINGS, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

MODEL = botocore.session.get_session().get_service_model("s3")

Answer = dict[str, Any]
FAR = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)
BODY = b"0123456789"
ETAG = '"781e5e245d69b566979b86e28d23f2c7"'


class Place(NamedTuple):
    """Where a case takes place."""

    s3: BaseClient
    bucket: str
    upload: str = ""
    version: str = ""


class Case(NamedTuple):
    """`asked` are the arguments but the bucket; "{upload}" and such stand for those of the place. `shown` is part of the
    answer, or, with a `code`, of the error. `status` 0 is the model's own."""

    asked: Answer = {}
    shown: Answer = {}
    code: str = ""
    status: int = 0
    before: Callable[[Place], Place] = lambda place: place


def not_implemented(**asked: Any) -> Case:
    return Case(asked, code="NotImplemented", status=501)


def never(code: str, **asked: Any) -> Case:
    return Case(asked, code=code, status=404)


# What is there before


def an_upload(place: Place) -> Place:
    upload = place.s3.create_multipart_upload(Bucket=place.bucket, Key="big")["UploadId"]
    place.s3.upload_part(Bucket=place.bucket, Key="big", UploadId=upload, PartNumber=1, Body=BODY)
    return place._replace(upload=upload)


def versions(place: Place) -> Place:
    place.s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    version = place.s3.put_object(Bucket=place.bucket, Key="key", Body=BODY)["VersionId"]
    return place._replace(version=version)


def locks(place: Place) -> Place:
    place = versions(place)
    place.s3.put_object_lock_configuration(Bucket=place.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    return place


def lists(place: Place) -> Place:
    place.s3.put_bucket_ownership_controls(
        Bucket=place.bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]})
    return place


def emptied(place: Place) -> Place:
    place.s3.delete_object(Bucket=place.bucket, Key="key")
    return place


def put(operation: str, **asked: Any) -> Callable[[Place], Place]:
    """That operation was done before."""

    def do(place: Place) -> Place:
        getattr(place.s3, operation)(**filled({"Bucket": "{bucket}", **asked}, place))
        return place

    return do


def each(*steps: Callable[[Place], Place]) -> Callable[[Place], Place]:
    """One after the other."""

    def do(place: Place) -> Place:
        for step in steps:
            place = step(place)
        return place

    return do


KEY = {"Key": "key"}
TAGS = {"TagSet": [{"Key": "a", "Value": "b"}]}
CORS = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
LIFECYCLE = {"Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "p/"}, "Expiration": {"Days": 1}}]}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Principal": {"AWS": "222222222222"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::{bucket}/*"}]})
WEBSITE = {"IndexDocument": {"Suffix": "index.html"}}
BLOCK = {name: name == "IgnorePublicAcls" for name in
         ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")}
PREFERRED = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
DESTINATION = {"S3BucketDestination": {"Bucket": "arn:aws:s3:::reports", "Format": "CSV"}}
ANALYTICS = {"Id": "one", "StorageClassAnalysis": {"DataExport": {"OutputSchemaVersion": "V_1", "Destination": DESTINATION}}}
INVENTORY = {"Id": "one", "IsEnabled": True, "Destination": DESTINATION, "Schedule": {"Frequency": "Daily"},
             "IncludedObjectVersions": "All"}
METRICS = {"Id": "one"}
TIERING = {"Id": "one", "Status": "Enabled", "Tierings": [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}]}
REPLICATION = {"Role": "arn:aws:iam::111111111111:role/r", "Rules": [
    {"ID": "r", "Status": "Disabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::{bucket}"}}]}
ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
RETENTION = {"Mode": "GOVERNANCE", "RetainUntilDate": FAR}
TABLE = {"S3TablesDestination": {"TableBucketArn": "arn:aws:s3tables:us-east-1:111111111111:bucket/t", "TableName": "t"}}
OWNER = {"Owner": {"ID": "main-id", "DisplayName": "M. Ain"}}


def family(name: str, configuration: Answer) -> dict[str, Case]:
    """Configurations with an id."""
    field, operation = f"{name}Configuration", f"put_bucket_{xform_name(name)}_configuration"
    there = put(operation, Id="one", **{field: configuration})
    return {
        f"PutBucket{name}Configuration": Case({"Id": "one", field: configuration}),
        f"GetBucket{name}Configuration": Case({"Id": "one"}, {field: configuration}, before=there),
        f"DeleteBucket{name}Configuration": Case({"Id": "one"}, before=there),
        f"ListBucket{name}Configurations": Case({}, {f"{field}List": [configuration], "IsTruncated": False}, before=there),
    }


CASES: dict[str, Case] = {
    # service
    "ListBuckets": Case({"Prefix": "{bucket}"}, {**OWNER, "Prefix": "{bucket}"}),
    # buckets
    "CreateBucket": Case({"Bucket": "{bucket}-new"}, {"Location": "/{bucket}-new", "BucketArn": "arn:aws:s3:::{bucket}-new"}),
    "HeadBucket": Case({}, {"BucketRegion": "us-east-1", "AccessPointAlias": False}),
    "DeleteBucket": Case(before=emptied),
    "GetBucketLocation": Case({}, {"LocationConstraint": None}),
    "CreateSession": not_implemented(),
    # listings
    "ListObjects": Case({}, {"Name": "{bucket}", "IsTruncated": False, "MaxKeys": 1000, "Marker": ""}),
    "ListObjectsV2": Case({"MaxKeys": 5}, {"KeyCount": 1, "MaxKeys": 5, "IsTruncated": False}),
    "ListObjectVersions": Case({}, {"Name": "{bucket}", "IsTruncated": False}, before=versions),
    "ListMultipartUploads": Case({}, {"NextKeyMarker": "big", "NextUploadIdMarker": "{upload}"}, before=an_upload),
    # objects
    "GetObject": Case(KEY, {"ContentLength": 10, "ETag": ETAG, "ContentType": "binary/octet-stream"}),
    "HeadObject": Case(KEY, {"ContentLength": 10, "ETag": ETAG, "AcceptRanges": "bytes"}),
    "PutObject": Case({"Key": "new", "Body": BODY}, {"ETag": ETAG, "ChecksumType": "FULL_OBJECT"}),
    "CopyObject": Case({"Key": "new", "CopySource": "{bucket}/key"}, {"CopyObjectResult": {"ETag": ETAG}}),
    "DeleteObject": Case(KEY, {"DeleteMarker": True}, before=versions),
    "DeleteObjects": Case({"Delete": {"Objects": [KEY]}}, {"Deleted": [KEY]}),
    "GetObjectAttributes": Case({**KEY, "ObjectAttributes": ["ETag", "ObjectSize"]}, {"ETag": ETAG.strip('"'), "ObjectSize": 10}),
    "RenameObject": Case({"Key": "new", "RenameSource": "/{bucket}/key"}),
    "RestoreObject": Case(
        {**KEY, "RestoreRequest": {"Days": 1}}, status=202, before=put("put_object", **KEY, Body=BODY, StorageClass="GLACIER")),
    "SelectObjectContent": not_implemented(
        **KEY, Expression="x", ExpressionType="SQL", InputSerialization={"CSV": {}}, OutputSerialization={"CSV": {}}),
    "GetObjectTorrent": not_implemented(**KEY),
    "UpdateObjectEncryption": not_implemented(
        **KEY, ObjectEncryption={"SSEKMS": {"KMSKeyArn": "arn:aws:kms:us-east-1:111111111111:key/k"}}),
    # multipart
    "CreateMultipartUpload": Case({"Key": "big"}, {"Bucket": "{bucket}", "Key": "big"}),
    "UploadPart": Case({"Key": "big", "UploadId": "{upload}", "PartNumber": 2, "Body": BODY}, {"ETag": ETAG}, before=an_upload),
    "UploadPartCopy": Case(
        {"Key": "big", "UploadId": "{upload}", "PartNumber": 2, "CopySource": "{bucket}/key"}, {"CopyPartResult": {"ETag": ETAG}},
        before=an_upload),
    "ListParts": Case({"Key": "big", "UploadId": "{upload}"}, {"NextPartNumberMarker": 1, "MaxParts": 1000}, before=an_upload),
    "CompleteMultipartUpload": Case(
        {"Key": "big", "UploadId": "{upload}", "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": ETAG}]}},
        {"Bucket": "{bucket}", "Key": "big"}, before=an_upload),
    "AbortMultipartUpload": Case({"Key": "big", "UploadId": "{upload}"}, before=an_upload),
    # tags
    "GetObjectTagging": Case(KEY, TAGS, before=put("put_object_tagging", **KEY, Tagging=TAGS)),
    "PutObjectTagging": Case({**KEY, "Tagging": TAGS}, {"VersionId": "{version}"}, before=versions),
    "DeleteObjectTagging": Case({**KEY, "VersionId": "{version}"}, {"VersionId": "{version}"}, before=versions),
    "GetBucketTagging": Case({}, TAGS, before=put("put_bucket_tagging", Tagging=TAGS)),
    "PutBucketTagging": Case({"Tagging": TAGS}, status=204),
    "DeleteBucketTagging": Case(),
    # annotations
    "ListObjectAnnotations": not_implemented(**KEY),
    "GetObjectAnnotation": not_implemented(**KEY, AnnotationName="a"),
    "PutObjectAnnotation": not_implemented(**KEY, AnnotationName="a", AnnotationPayload=b"x"),
    "DeleteObjectAnnotation": not_implemented(**KEY, AnnotationName="a"),
    # access
    "GetBucketAcl": Case({}, OWNER),
    "PutBucketAcl": Case({"ACL": "private"}, before=lists),
    "GetObjectAcl": Case(KEY, OWNER),
    "PutObjectAcl": Case({**KEY, "ACL": "authenticated-read"}, before=each(lists, put("delete_public_access_block"))),
    "GetBucketPolicy": Case({}, {"Policy": POLICY}, before=put("put_bucket_policy", Policy=POLICY)),
    "PutBucketPolicy": Case({"Policy": POLICY}, status=204),
    "DeleteBucketPolicy": Case(),
    "GetBucketPolicyStatus": Case({}, {"PolicyStatus": {"IsPublic": False}}, before=put("put_bucket_policy", Policy=POLICY)),
    "GetPublicAccessBlock": Case({}, {"PublicAccessBlockConfiguration": dict.fromkeys(BLOCK, True)}),
    "PutPublicAccessBlock": Case({"PublicAccessBlockConfiguration": BLOCK}),
    "DeletePublicAccessBlock": Case(),
    "GetBucketOwnershipControls": Case({}, {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}}),
    "PutBucketOwnershipControls": Case({"OwnershipControls": PREFERRED}),
    "DeleteBucketOwnershipControls": Case(),
    "GetBucketAbac": Case({}, {"AbacStatus": {"Status": "Disabled"}}),
    "PutBucketAbac": not_implemented(AbacStatus={"Status": "Enabled"}),
    "GetBucketCors": Case({}, CORS, before=put("put_bucket_cors", CORSConfiguration=CORS)),
    "PutBucketCors": Case({"CORSConfiguration": CORS}),
    "DeleteBucketCors": Case(),
    "GetBucketRequestPayment": Case({}, {"Payer": "BucketOwner"}),
    "PutBucketRequestPayment": Case({"RequestPaymentConfiguration": {"Payer": "Requester"}}),
    # versions and locks
    "GetBucketVersioning": Case({}, {"Status": "Enabled"}, before=versions),
    "PutBucketVersioning": Case({"VersioningConfiguration": {"Status": "Suspended"}}),
    "GetObjectLockConfiguration": Case({}, {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}, before=locks),
    "PutObjectLockConfiguration": Case({"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}, before=versions),
    "GetObjectRetention": Case(
        KEY, {"Retention": RETENTION}, before=each(locks, put("put_object_retention", **KEY, Retention=RETENTION))),
    "PutObjectRetention": Case({**KEY, "Retention": RETENTION}, before=locks),
    "GetObjectLegalHold": Case(
        KEY, {"LegalHold": {"Status": "ON"}},
        before=each(locks, put("put_object_legal_hold", **KEY, LegalHold={"Status": "ON"}))),
    "PutObjectLegalHold": Case({**KEY, "LegalHold": {"Status": "ON"}}, before=locks),
    # what happens to objects later
    "GetBucketLifecycleConfiguration": Case(
        {}, LIFECYCLE, before=put("put_bucket_lifecycle_configuration", LifecycleConfiguration=LIFECYCLE)),
    "PutBucketLifecycleConfiguration": Case({"LifecycleConfiguration": LIFECYCLE}),
    "DeleteBucketLifecycle": Case(),
    "GetBucketLifecycle": never("NoSuchLifecycleConfiguration"),
    "PutBucketLifecycle": Case(
        {"LifecycleConfiguration": {"Rules": [{"ID": "r", "Prefix": "p", "Status": "Enabled", "Expiration": {"Days": 1}}]}}),
    "GetBucketReplication": Case(
        {}, {"ReplicationConfiguration": REPLICATION},
        before=each(versions, put("put_bucket_replication", ReplicationConfiguration=REPLICATION))),
    "PutBucketReplication": Case(
        {"ReplicationConfiguration": {**REPLICATION, "Rules": [{**REPLICATION["Rules"][0], "Status": "Enabled"}]}},
        code="NotImplemented", status=501, before=versions),
    "DeleteBucketReplication": Case(),
    "GetBucketEncryption": never("ServerSideEncryptionConfigurationNotFoundError"),
    "PutBucketEncryption": not_implemented(ServerSideEncryptionConfiguration=ENCRYPTION),
    "DeleteBucketEncryption": Case(),
    # what is told about a bucket, and how it is served
    "GetBucketNotificationConfiguration": Case({}, {"TopicConfigurations": None}),
    "PutBucketNotificationConfiguration": Case({"NotificationConfiguration": {}}),
    "GetBucketNotification": Case({}, {"TopicConfiguration": None}),
    "PutBucketNotification": Case({"NotificationConfiguration": {}}),
    "GetBucketWebsite": Case({}, WEBSITE, before=put("put_bucket_website", WebsiteConfiguration=WEBSITE)),
    "PutBucketWebsite": Case({"WebsiteConfiguration": WEBSITE}),
    "DeleteBucketWebsite": Case(),
    "GetBucketLogging": Case({}, {"LoggingEnabled": None}),
    "PutBucketLogging": Case({"BucketLoggingStatus": {}}),
    "GetBucketAccelerateConfiguration": Case(
        {}, {"Status": "Enabled"},
        before=put("put_bucket_accelerate_configuration", AccelerateConfiguration={"Status": "Enabled"})),
    "PutBucketAccelerateConfiguration": Case({"AccelerateConfiguration": {"Status": "Enabled"}}),
    # configurations with an id
    **family("Analytics", ANALYTICS), **family("Inventory", INVENTORY), **family("Metrics", METRICS),
    **family("IntelligentTiering", TIERING),
    # metadata tables
    "CreateBucketMetadataConfiguration": not_implemented(
        MetadataConfiguration={"JournalTableConfiguration": {"RecordExpiration": {"Expiration": "DISABLED"}}}),
    "GetBucketMetadataConfiguration": never("MetadataConfigurationNotFound"),
    "DeleteBucketMetadataConfiguration": never("MetadataConfigurationNotFound"),
    "CreateBucketMetadataTableConfiguration": not_implemented(MetadataTableConfiguration=TABLE),
    "GetBucketMetadataTableConfiguration": never("MetadataConfigurationNotFound"),
    "DeleteBucketMetadataTableConfiguration": never("MetadataConfigurationNotFound"),
    "UpdateBucketMetadataInventoryTableConfiguration": not_implemented(
        InventoryTableConfiguration={"ConfigurationState": "DISABLED"}),
    "UpdateBucketMetadataJournalTableConfiguration": not_implemented(
        JournalTableConfiguration={"RecordExpiration": {"Expiration": "DISABLED"}}),
    "UpdateBucketMetadataAnnotationTableConfiguration": not_implemented(
        AnnotationTableConfiguration={"ConfigurationState": "DISABLED"}),
}


ELSEWHERE = {
    "ListDirectoryBuckets": ("s3express", {}),
    "WriteGetObjectResponse": ("s3-object-lambda", {"RequestRoute": "route", "RequestToken": "token"}),
}
"""Operations of other services' endpoints, and for which of them clients sign: all that S3's own endpoint says is that."""


def filled(value: Any, place: Place) -> Any:
    """With what stands for names of the place."""
    match value:
        case dict():
            return {name: filled(inner, place) for name, inner in value.items()}
        case list():
            return [filled(inner, place) for inner in value]
        case str():
            for name in ("bucket", "upload", "version"):
                value = value.replace(f"{{{name}}}", getattr(place, name))
            return value
        case _:
            return value


def holds(answer: Any, shown: Any) -> bool:
    """Whether the answer has all that. None: it must not be there."""
    match shown:
        case dict():
            return isinstance(answer, dict) and all(holds(answer.get(name), wanted) for name, wanted in shown.items())
        case list():
            return isinstance(answer, list) and len(answer) == len(shown) and all(map(holds, answer, shown))
        case _:
            return bool(answer == shown)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("operations"), [MAIN, OTHER], settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def s3(server: InProcess) -> BaseClient:
    return client(server.endpoint)


def test_no_operation_is_forgotten() -> None:
    assert sorted([*CASES, *ELSEWHERE]) == sorted(MODEL.operation_names)


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_operation(s3: BaseClient, bucket: str, name: str) -> None:
    case = CASES[name]
    s3.put_object(Bucket=bucket, Key="key", Body=BODY)
    place = case.before(Place(s3, bucket))
    shown = filled(case.shown, place)
    asked = {} if name == "ListBuckets" else {"Bucket": bucket}
    call = getattr(s3, xform_name(name))
    if case.code:
        with pytest.raises(ClientError) as caught:
            call(**asked, **filled(case.asked, place))
        answer = caught.value.response
        assert answer["Error"]["Code"] == case.code
        if case.code == "NotImplemented":
            assert "Staddle does not" in answer["Error"]["Message"], "whose fault it is must be clear"
    else:
        answer = call(**{**asked, **filled(case.asked, place)})
        assert holds(answer, shown), answer
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == (case.status or OPERATION[name].status)
    assert answer["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_an_operation_of_another_endpoint(server: InProcess, name: str) -> None:
    service, asked = ELSEWHERE[name]
    there = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=MAIN.access_key,
        aws_secret_access_key=MAIN.secret_key, config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
    )
    with refused("AuthorizationHeaderMalformed", 400) as said:
        getattr(there, xform_name(name))(**asked)
    assert said["Message"] == (
        f'The authorization header is malformed; incorrect service "{service}". This endpoint belongs to "s3".')
