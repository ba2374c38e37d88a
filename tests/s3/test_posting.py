"""Form uploads as browsers send them: boto3 signs the policy, urllib3 makes the form (S3_SEMANTICS §20)."""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.etree import ElementTree

import boto3
import pytest
import urllib3
from botocore.client import BaseClient
from botocore.config import Config
from urllib3.filepost import encode_multipart_formdata

from tests.s3.errors import refused
from tests.s3.in_process import InProcess
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY

Fields = list[tuple[str, Any]]

KIND = "multipart/form-data; boundary=b"


@pytest.fixture
def http() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=False)


@pytest.fixture
def v4(server: InProcess) -> BaseClient:
    """boto3 signs forms with version 2 unless told otherwise."""
    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name=REGION, config=Config(signature_version="s3v4"))


def form(s3: BaseClient, bucket: str, key: str, *conditions: Any, **fields: str) -> Fields:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    post = s3.generate_presigned_post(
        bucket, key, Fields=named, Conditions=[*conditions, *({name: value} for name, value in named.items())])
    return list(post["fields"].items())


def send(
    http: urllib3.PoolManager, server: InProcess, bucket: str, fields: Fields, body: bytes = b"hello",
    filename: str = "photo.jpg", **more: Any,
) -> urllib3.BaseHTTPResponse:
    data, kind = encode_multipart_formdata([*fields, ("file", (filename, body, "image/jpeg")), *more.get("after", ())])
    return http.request("POST", f"{server.endpoint}/{bucket}", body=more.get("cut", lambda d: d)(data),
                        headers={"content-type": kind}, redirect=False)


def code(answer: urllib3.BaseHTTPResponse) -> str:
    return ElementTree.fromstring(answer.data).findtext("Code") or ""


def test_a_form_becomes_an_object(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str,
) -> None:
    fields = form(s3, bucket, "up/${filename}", Content_Type="text/plain", x_amz_meta_color="blau ß",
                  tagging="<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>")
    answer = send(http, server, bucket, fields, b"x" * 3_000_000)
    assert (answer.status, answer.data) == (204, b"")
    assert answer.headers["location"] == f"{server.endpoint}/{bucket}/up%2Fphoto.jpg"
    got = s3.get_object(Bucket=bucket, Key="up/photo.jpg")
    assert got["Body"].read() == b"x" * 3_000_000
    assert got["ETag"] == answer.headers["etag"]
    assert (got["ContentType"], got["TagCount"]) == ("text/plain", 1)
    assert got["Metadata"]["color"].encode("latin-1").decode() == "blau ß"


def test_the_answer_is_as_the_form_wishes(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str,
) -> None:
    for status, expected in (("200", 200), ("201", 201), ("204", 204), ("404", 204)):
        wish = form(s3, bucket, "key", {"success_action_status": status})
        answer = send(http, server, bucket, [*wish, ("success_action_status", status)])
        assert answer.status == expected
        if status == "201":
            document = ElementTree.fromstring(answer.data)
            assert [child.tag for child in document] == ["Location", "Bucket", "Key", "ETag"]
    target = "https://page.example/done?a=1"
    fields = [*form(s3, bucket, "key", {"success_action_redirect": target}), ("success_action_redirect", target)]
    answer = send(http, server, bucket, fields)
    assert answer.status == 303
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (query["a"], query["bucket"], query["key"]) == (["1"], [bucket], ["key"])


@pytest.mark.parametrize(("change", "status", "expected"), [
    ({"key": "other"}, 403, "AccessDenied"),
    ({"x-amz-signature": "0" * 64}, 403, "SignatureDoesNotMatch"),
    ({"x-amz-signature": ""}, 400, "InvalidArgument"),
    ({"x-amz-date": None}, 400, "InvalidArgument"),
    ({"x-amz-algorithm": "AWS4"}, 400, "InvalidArgument"),
    ({"policy": None}, 400, "InvalidArgument"),
    ({"key": None}, 400, "InvalidArgument"),
    ({"extra": "field"}, 403, "AccessDenied"),
    ({"x-ignore-extra": "field"}, 204, ""),
    ({"x-amz-meta-not-in-policy": "1"}, 403, "AccessDenied"),
])
def test_a_form_keeps_to_its_policy(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, v4: BaseClient, bucket: str,
    change: dict[str, str | None], status: int, expected: str,
) -> None:
    fields: dict[str, Any] = {**dict(form(v4, bucket, "key")), **change}
    answer = send(http, server, bucket, [(name, value) for name, value in fields.items() if value is not None])
    assert answer.status == status
    if expected:
        assert code(answer) == expected
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(("size", "expected"), [
    (4, "EntityTooSmall"), (5, ""), (300_000, ""), (300_001, "EntityTooLarge"), (900_000, "EntityTooLarge"),
])
def test_the_length_is_in_its_range(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, v4: BaseClient, bucket: str, size: int, expected: str,
) -> None:
    answer = send(http, server, bucket, form(v4, bucket, "key", ["content-length-range", 5, 300_000]), b"x" * size)
    assert answer.status == (400 if expected else 204)
    if expected:
        assert code(answer) == expected
        assert ElementTree.fromstring(answer.data).findtext("ProposedSize") == str(size)
        with refused("404", 404):
            s3.head_object(Bucket=bucket, Key="key")
    else:
        assert s3.head_object(Bucket=bucket, Key="key")["ContentLength"] == size


def test_starts_with(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    signed = form(s3, bucket, "user/${filename}", ["starts-with", "$Content-Type", "image/"],
                  ["starts-with", "$x-amz-meta-a", ""])
    assert send(http, server, bucket, [*signed, ("Content-Type", "image/png"), ("x-amz-meta-a", "b")]).status == 204
    assert send(http, server, bucket, [*signed, ("Content-Type", "text/html")]).status == 403
    signed = [(name, "other/key" if name == "key" else value) for name, value in signed]
    assert send(http, server, bucket, [*signed, ("Content-Type", "image/png")]).status == 403


def policy_form(policy: Any, secret: str = SECRET_KEY) -> Fields:
    """Signed as version 2 has it."""
    text = base64.b64encode(policy if isinstance(policy, bytes) else json.dumps(policy).encode())
    signature = base64.b64encode(hmac.digest(secret.encode(), text, hashlib.sha1)).decode()
    return [("key", "key"), ("AWSAccessKeyId", ACCESS_KEY), ("signature", signature), ("policy", text.decode())]


def test_signature_version_2(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    policy = {"expiration": "2100-01-01T00:00:00Z", "conditions": [{"bucket": bucket}, ["eq", "$KEY", "key"]]}
    assert send(http, server, bucket, policy_form(policy)).status == 204
    assert code(send(http, server, bucket, policy_form(policy, "wrong"))) == "SignatureDoesNotMatch"
    assert code(send(http, server, bucket, policy_form({**policy, "expiration": "2020-01-01T00:00:00Z"}))) == "AccessDenied"
    other = {**policy, "conditions": [{"bucket": "other"}, {"key": "key"}]}
    assert code(send(http, server, bucket, policy_form(other))) == "AccessDenied"
    assert code(send(http, server, bucket, [*policy_form(other), ("bucket", "other")])) == "AccessDenied"


@pytest.mark.parametrize("policy", [
    b"{", b"[]", b"{}", b'{"expiration": "tomorrow", "conditions": []}', b'{"expiration": "2100-01-01T00:00:00Z"}',
    b'{"expiration": "2100-01-01T00:00:00Z", "conditions": [1]}', b"[" * 20_000 + b"]" * 20_000,
    b'{"expiration": "2100-01-01T00:00:00Z", "conditions": [["contains", "$key", "k"]]}',
    b'{"expiration": "2100-01-01T00:00:00Z", "conditions": [["content-length-range", -1, 5]]}',
    b'{"expiration": "2100-01-01T00:00:00Z", "conditions": [{}]}',
])
def test_documents_that_are_no_policy(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str, policy: bytes,
) -> None:
    answer = send(http, server, bucket, policy_form(policy))
    assert (answer.status, code(answer)) in ((400, "InvalidPolicyDocument"), (400, "MaxPostPreDataLengthExceeded"))


def test_forms_that_are_none(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    fields = form(s3, bucket, "key")
    assert code(send(http, server, bucket, fields, cut=lambda data: data[:-10])) == "MalformedPOSTRequest"
    assert code(send(http, server, bucket, [*fields, ("x-ignore-big", "x" * 21_000)])) == "MaxPostPreDataLengthExceeded"
    data, kind = encode_multipart_formdata(fields)
    answer = http.request("POST", f"{server.endpoint}/{bucket}", body=data, headers={"content-type": kind})
    assert (answer.status, code(answer)) == (400, "InvalidArgument")
    for kind in ("text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 71):
        answer = http.request("POST", f"{server.endpoint}/{bucket}", body=data, headers={"content-type": kind})
        assert answer.status in (400, 412)
    assert send(http, server, bucket, [("key", "key")]).status == 403
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert send(http, server, bucket, fields, after=[("key", "ignored"), ("file", "second")]).status == 204
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"hello"


def test_what_a_browser_says_of_the_file(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    """Only the last part of a path; nothing when no file was chosen; nothing that headers say about the form."""
    fields = form(s3, bucket, "up/${filename}")
    for name in ("dir/sub/x.jpg", "C:\\dir\\x.jpg"):
        assert send(http, server, bucket, fields, filename=name).status == 204
        assert s3.get_object(Bucket=bucket, Key="up/x.jpg")["Body"].read() == b"hello"
        s3.delete_object(Bucket=bucket, Key="up/x.jpg")
    nothing = send(http, server, bucket, form(s3, bucket, "${filename}"), filename="")
    assert (nothing.status, code(nothing)) == (400, "InvalidArgument")
    data, kind = encode_multipart_formdata([*form(s3, bucket, "key", ["content-length-range", 10, 100]),
                                            ("file", ("f", b"1\r\na\r\n0\r\n\r\n", "text/plain"))])
    answer = http.request("POST", f"{server.endpoint}/{bucket}", body=data, headers={
        "content-type": kind, "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "1"})
    assert answer.status == 204
    assert s3.head_object(Bucket=bucket, Key="key")["ContentLength"] == 11


@pytest.mark.parametrize("target", ["http://[", "javascript:alert(1)"])
def test_a_redirect_that_leads_nowhere(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str, target: str,
) -> None:
    fields = [*form(s3, bucket, "key", {"success_action_redirect": target}), ("success_action_redirect", target)]
    assert send(http, server, bucket, fields).status == 204
    assert s3.head_object(Bucket=bucket, Key="key")["ContentLength"] == 5


@pytest.mark.parametrize("name", ["x-amz-meta-a b", "x-amz-meta-a: b", "x-amz-meta-\u20ac"])
def test_a_field_that_cannot_be_a_header(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str, name: str,
) -> None:
    answer = send(http, server, bucket, [*form(s3, bucket, "key", ["starts-with", f"${name}", ""]), (name, "v")])
    assert (answer.status, code(answer)) == (400, "InvalidArgument")


@pytest.mark.parametrize("padding", [b" " * 100_000, b"\r\n" * 50_000])
def test_what_comes_before_the_file_is_bounded(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str, padding: bytes,
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n'
    body = padding + head if padding[:1] == b"\r" else head + b"--b" + padding
    answer = http.request("POST", f"{server.endpoint}/{bucket}", body=body + b"x" * 100_000,
                          headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status, code(answer)) == (400, "MaxPostPreDataLengthExceeded")


FOREVER = "2100-01-01T00:00:00Z"


@pytest.mark.parametrize(("policy", "status", "message"), [
    ({"expiration": FOREVER, "conditions": [{"key": "key"}]}, 403, "Invalid according to Policy: Extra input fields: bucket"),
    ({"expiration": "2020-01-01T00:00:00Z", "conditions": [{"key": "key"}]}, 403, "Invalid according to Policy: Policy expired."),
    ({"expiration": FOREVER, "conditions": [["starts-with", "$bucket", ""], {"key": "other"}]}, 403,
     'Invalid according to Policy: Policy Condition failed: ["eq", "$key", "other"]'),
    ({"expiration": FOREVER, "conditions": [["starts-with", "$bucket", ""], ["starts-with", "$key", "x/"]]}, 403,
     'Invalid according to Policy: Policy Condition failed: ["starts-with", "$key", "x/"]'),
    ({"expiration": FOREVER, "conditions": [["starts-with", "$Content-Type", ""]]}, 403,
     'Invalid according to Policy: Policy Condition failed: ["starts-with", "$Content-Type", ""]'),
    ({"expiration": FOREVER, "conditions": [{"acl": None}]}, 400, "Invalid Policy: Invalid JSON."),
    ({"expiration": FOREVER, "conditions": [{"key": "key", "acl": "private"}]}, 400,
     "Invalid Policy: Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."),
    ({"EXPIRATION": FOREVER, "conditions": []}, 400, "Invalid Policy: Policy missing expiration."),
])
def test_what_is_said_of_a_policy(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str, policy: Any, status: int, message: str,
) -> None:
    answer = send(http, server, bucket, policy_form(policy))
    assert answer.status == status
    assert ElementTree.fromstring(answer.data).findtext("Message") == message


def test_a_policy_of_nobody(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    """Even where everybody may write: a policy is what somebody has signed."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"}]}))
    assert send(http, server, bucket, [("key", "open")]).status == 204
    policy = policy_form({"expiration": FOREVER, "conditions": [{"bucket": bucket}, {"key": "key"}]})
    answer = send(http, server, bucket, [(name, value) for name, value in policy if name in ("key", "policy")])
    assert (answer.status, code(answer)) == (403, "AccessDenied")
    for missing in ("signature", "AWSAccessKeyId"):
        answer = send(http, server, bucket, [(name, value) for name, value in policy if name != missing])
        assert (answer.status, ElementTree.fromstring(answer.data).findtext("ArgumentName")) == (400, missing)


def test_policies_see_the_tags_of_a_form(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    """Whether the bucket's policy looks at them in PutObject or in PutObjectTagging, and whatever else the form says."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    everybody = {"Principal": "*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:PutObjectTagging"], **everybody},
        {"Effect": "Deny", "Action": "s3:PutObject", **everybody, "Condition": {
            "StringEquals": {"s3:RequestObjectTag/class": "secret"}}},
        {"Effect": "Deny", "Action": "s3:PutObject", **everybody, "Condition": {"Null": {"s3:RequestObjectTag/project": "true"}}},
    ]}))

    def tagged(**tags: str) -> tuple[str, str]:
        inner = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items())
        return "tagging", f"<Tagging><TagSet>{inner}</TagSet></Tagging>"

    key, header = ("key", "key"), ("x-amz-tagging", "project=x")
    assert send(http, server, bucket, [key, tagged(project="x+y=ä", plain="a b")]).status == 204
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [
        {"Key": "project", "Value": "x+y=ä"}, {"Key": "plain", "Value": "a b"}]
    for fields in ([key], [key, tagged(project="x", **{"class": "secret"})], [key, header, tagged(plain="a")],
                   [key, header, tagged(**{"class": "secret"})]):
        assert send(http, server, bucket, fields).status == 403, fields


def test_a_form_is_nothing_but_its_fields(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    """What its address says in addition, even signed by somebody, is no part of it."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*",
         "Condition": {"StringEquals": {"s3:x-amz-storage-class": "GLACIER"}}}]}))
    at = f"/{bucket}?x-amz-storage-class=GLACIER&AWSAccessKeyId={ACCESS_KEY}&Expires=4102444800"
    text = f"POST\n\n{KIND}\n4102444800\nx-amz-storage-class:GLACIER\n/{bucket}".encode()
    signature = base64.b64encode(hmac.digest(SECRET_KEY.encode(), text, hashlib.sha1)).decode()
    body = (b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n%b--b\r\nContent-Disposition: form-data; '
            b'name="file"; filename="f"\r\n\r\nx\r\n--b--\r\n')
    field = b'--b\r\nContent-Disposition: form-data; name="x-amz-storage-class"\r\n\r\nGLACIER\r\n'
    for more, status in ((b"", 403), (field, 204)):
        answer = http.request("POST", f"{server.endpoint}{at}&Signature={quote(signature, safe='')}", body=body % more,
                              headers={"content-type": KIND})
        assert answer.status == status, answer.data


def test_a_form_meets_no_condition_on_what_is_there(
    http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str,
) -> None:
    """Whoever lets everybody write new objects alone has not let forms replace them, whatever headers they come with."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    s3.put_object(Bucket=bucket, Key="key", Body=b"there")
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*",
         "Condition": {"StringEquals": {"s3:if-none-match": "*"}}}]}))
    data, kind = encode_multipart_formdata([("key", "key"), ("file", ("f", b"x", "text/plain"))])
    answer = http.request("POST", f"{server.endpoint}/{bucket}", body=data, headers={"content-type": kind, "if-none-match": "*"})
    assert answer.status == 403
    for key, status in (("key", 412), ("new", 200)):
        answer = http.request("PUT", f"{server.endpoint}/{bucket}/{key}", body=b"x", headers={"if-none-match": "*"})
        assert answer.status == status


def test_a_form_is_no_copy_and_has_no_digest(http: urllib3.PoolManager, server: InProcess, s3: BaseClient, bucket: str) -> None:
    """Whoever lets everybody copy, or write one content, has not let everybody upload."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    wanted = {"x-amz-copy-source": f"{bucket}/public", "x-amz-content-sha256": hashlib.sha256(b"wanted").hexdigest()}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*",
         "Condition": {"StringEquals": {f"s3:{name}": value}}} for name, value in wanted.items()]}))
    for (name, value), status in zip(wanted.items(), (400, 403), strict=True):
        assert send(http, server, bucket, [("key", "key"), (name, value)]).status == status
    for body, status in ((b"other", 400), (b"wanted", 200)):       # what is compared is believed
        named = {"x-amz-content-sha256": wanted["x-amz-content-sha256"]}
        assert http.request("PUT", f"{server.endpoint}/{bucket}/key", body=body, headers=named).status == status
