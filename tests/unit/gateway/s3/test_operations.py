"""The table of operations against the service model, and routing: what a request is, and what it must never become."""

import contextlib
import gzip
import json
import pathlib

import botocore
import pytest

from gateway.s3.errors import CODES, S3Error
from gateway.s3.operations import BEYOND_MODEL, OPERATION, OPERATIONS, SUBRESOURCES, route

_FILE = pathlib.Path(botocore.__file__).parent / "data/s3/2006-03-01/service-2.json.gz"
MODEL = json.loads(gzip.decompress(_FILE.read_bytes()))


def test_every_operation_of_the_model_has_exactly_one_row() -> None:
    assert sorted(row.name for row in OPERATIONS) == sorted(MODEL["operations"])
    assert len(OPERATION) == len(OPERATIONS) + len(BEYOND_MODEL)


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_row_agrees_with_the_model(row) -> None:
    model = MODEL["operations"][row.name]
    http = model["http"]
    assert row.method == http["method"]
    # Two 204s that the model does not state were recorded from AWS.
    assert row.status == (204 if row.name in ("PutBucketPolicy", "PutBucketTagging") else http.get("responseCode", 200))
    path, _, query = http["requestUri"].partition("?")
    if row.name != "WriteGetObjectResponse":
        assert row.scope == {"/": "service", "/{Bucket}": "bucket", "/{Bucket}/{Key+}": "object"}[path]
    required = {item.partition("=")[0] for item in query.split("&") if item}
    assert required - {"select-type"} <= set(row.query)
    assert row.action.startswith("s3:")


@pytest.mark.parametrize("row", [row for row in OPERATION.values() if not row.same_as], ids=lambda row: row.name)
def test_row_is_reached_by_its_own_request(row) -> None:
    query = dict.fromkeys(row.query, "2") | {"x-id": row.name}
    assert route(row.method, row.scope, query, dict.fromkeys(row.headers, "x")) is row


@pytest.mark.parametrize("row", [row for row in OPERATIONS if row.same_as], ids=lambda row: row.name)
def test_older_names_lead_to_the_row_that_answers(row) -> None:
    assert route(row.method, row.scope, dict.fromkeys(row.query, ""), {}) is OPERATION[row.same_as]


def test_never_answers_are_known_codes_or_documents() -> None:
    for row in OPERATION.values():
        if row.never and row.never.code:
            assert CODES[row.never.code][0] == row.never.status
        elif row.never and row.never.status == 204:
            assert row.method == "DELETE"
        elif row.never:
            assert row.never.document


@pytest.mark.parametrize("scope", ["bucket", "object"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("name", sorted(SUBRESOURCES))
def test_a_subresource_never_falls_through(method: str, scope: str, name: str) -> None:
    plain = {"GetObject", "HeadObject", "PutObject", "DeleteObject", "CopyObject", "HeadBucket", "CreateBucket",
             "DeleteBucket", "ListObjects", "ListObjectsV2", "PostObject"}
    row = None
    with contextlib.suppress(S3Error):
        row = route(method, scope, {name: "", "x-id": "1"}, {})
    assert row is None or (row.name not in plain and name in row.query)


@pytest.mark.parametrize(("method", "scope", "query", "name"), [
    ("GET", "bucket", {"list-type": "2"}, "ListObjectsV2"),
    ("GET", "bucket", {"list-type": "1"}, "ListObjects"),
    ("GET", "bucket", {"prefix": "uploads"}, "ListObjects"),
    ("HEAD", "bucket", {"list-type": "2"}, "HeadBucket"),
    ("GET", "object", {"partNumber": "1"}, "GetObject"),
    ("GET", "object", {"versionId": "null", "response-content-type": "x"}, "GetObject"),
    ("PUT", "object", {"partNumber": "1", "uploadId": "u"}, "UploadPart"),
    ("GET", "bucket", {"inventory": "", "id": "1"}, "GetBucketInventoryConfiguration"),
    ("POST", "object", {"select": "", "select-type": "2"}, "SelectObjectContent"),
])
def test_selection(method: str, scope: str, query: dict[str, str], name: str) -> None:
    assert route(method, scope, query, {}).name == name


@pytest.mark.parametrize(("method", "scope", "query", "kind"), [
    ("POST", "object", {}, "OBJECT"),
    ("PATCH", "object", {}, "OBJECT"),
    ("PATCH", "bucket", {}, "BUCKET"),
    ("DELETE", "service", {}, "SERVICE"),
    ("DELETE", "bucket", {"acl": ""}, "ACL"),
    ("HEAD", "object", {"tagging": ""}, "TAGGING"),
    ("get", "object", {}, "OBJECT"),
])
def test_method_not_allowed(method: str, scope: str, query: dict[str, str], kind: str) -> None:
    with pytest.raises(S3Error) as caught:
        route(method, scope, query, {})
    assert caught.value.code == "MethodNotAllowed"
    assert caught.value.detail == {"Method": method, "ResourceType": kind}
    assert caught.value.headers[0][0] == "allow"


@pytest.mark.parametrize(("method", "query"), [("GET", {}), ("DELETE", {}), ("POST", {"uploads": ""})])
def test_a_copy_source_on_what_is_no_copy_is_refused(method: str, query: dict[str, str]) -> None:
    with pytest.raises(S3Error) as caught:
        route(method, "object", query, {"x-amz-copy-source"})
    assert caught.value.code == "InvalidArgument"


def test_half_a_part_is_refused() -> None:
    with pytest.raises(S3Error) as caught:
        route("PUT", "object", {"uploadId": "u"}, {})
    assert (caught.value.code, caught.value.detail["ResourceType"]) == ("MethodNotAllowed", "UPLOAD")


def test_two_subresources_are_refused() -> None:
    with pytest.raises(S3Error, match="Conflicting"):
        route("GET", "bucket", {"acl": "", "tagging": ""}, {})
