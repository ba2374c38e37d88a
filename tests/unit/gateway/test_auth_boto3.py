"""What boto3 really sends is understood: each operation in both styles, both versions and over both schemes, and links.

Nothing goes over a network: a hook takes the request that botocore is about to send, and gives an empty answer.
"""

import io
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from gateway.auth import Authenticated, Mechanism, Settings, authenticate
from gateway.identities import Identity, IdentityStore
from gateway.s3.request import S3Request
from tests.s3_requests import s3_request

ACCESS_KEY, SECRET_KEY = "0555b35654ad1656d804", "h7GhxuBLTrlhVUyxSPUKUV8r/2EI4ngqJxD7iBdBYLhwluN30JaT3Q=="
STORE = IdentityStore([Identity(name="main", account="A", user_id="id", access_key=ACCESS_KEY, secret_key=SECRET_KEY)])
BUCKET = "some-bucket"
KEYS = ["key", "dir/", "a//b", "../x", "with space", "pl+us", "100%", "é/😀", "quote'\"\\", "a=b&c?d#e", "~!*()"]
DISPOSITION = 'attachment; filename="ü b+c"'


class Client:
    """A boto3 client whose requests end in `sent`."""

    def __init__(self, scheme: str, style: str, version: str) -> None:
        self.style = style
        self.sent: list[AWSPreparedRequest] = []
        self.s3: Any = boto3.client(
            "s3", endpoint_url=f"{scheme}://s3.example.com:9000", aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
            config=Config(signature_version=version, s3={"addressing_style": style}, retries={"max_attempts": 1}),
        )
        self.s3.meta.events.register("before-send.s3", self._instead_of_sending)

    def _instead_of_sending(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        self.sent.append(request)
        return AWSResponse(request.url, 200, {}, _Body(b"<LocationConstraint/>" if "?location" in request.url else b""))

    def request(self, method: str, url: str, headers: dict[str, str]) -> S3Request:
        bucket_of_host = urlsplit(url).netloc.split(".")[0]
        return s3_request(method, url, headers, bucket_of_host=bucket_of_host if bucket_of_host == BUCKET else "")

    def verified(self) -> Authenticated:
        """The newest request, authenticated."""
        sent = self.sent[-1]
        headers = {
            name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in sent.headers.items()
        }
        return verified(self.request(sent.method, sent.url, headers))


class _Body(io.BytesIO):
    def stream(self, **_: object) -> list[bytes]:
        return [self.read()]


def verified(request: S3Request) -> Authenticated:
    found = authenticate(request, STORE, Settings(), round(time.time() * 1000))
    assert found.principal.access_key == ACCESS_KEY
    return found


VERSIONS = pytest.mark.parametrize(
    ("version", "mechanism"), [("s3v4", Mechanism.V4_HEADER), ("s3", Mechanism.V2_HEADER)]
)
STYLES = pytest.mark.parametrize("style", ["path", "virtual"])
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


@SCHEMES
@STYLES
@VERSIONS
def test_requests(scheme: str, style: str, version: str, mechanism: Mechanism) -> None:
    client = Client(scheme, style, version)
    s3 = client.s3
    for key in KEYS:
        for call in (
            lambda key=key: s3.head_object(Bucket=BUCKET, Key=key),
            lambda key=key: s3.get_object(Bucket=BUCKET, Key=key, ResponseContentDisposition=DISPOSITION),
            lambda key=key: s3.put_object(Bucket=BUCKET, Key=key, Body=b"x", Metadata={"a": "1  2"}, ContentType="a/b"),
            lambda key=key: s3.delete_object(Bucket=BUCKET, Key=key, VersionId="null"),
            lambda key=key: s3.list_objects_v2(Bucket=BUCKET, Prefix=key, Delimiter="/"),
            lambda key=key: s3.upload_part(Bucket=BUCKET, Key=key, PartNumber=1, UploadId="a-_.b", Body=b"x"),
            lambda key=key: s3.put_object_acl(Bucket=BUCKET, Key=key, ACL="private"),
        ):
            client.sent.clear()
            call()
            assert client.verified().principal.mechanism is mechanism
            assert client.request("GET", client.sent[-1].url, {}).key in (key, "")


@STYLES
@VERSIONS
def test_bucket_requests(style: str, version: str, mechanism: Mechanism) -> None:
    client = Client("http", style, version)
    s3 = client.s3
    for call in (
        lambda: s3.list_buckets(), lambda: s3.create_bucket(Bucket=BUCKET), lambda: s3.head_bucket(Bucket=BUCKET),
        lambda: s3.list_objects(Bucket=BUCKET), lambda: s3.list_object_versions(Bucket=BUCKET, MaxKeys=1),
        lambda: s3.list_multipart_uploads(Bucket=BUCKET), lambda: s3.get_bucket_acl(Bucket=BUCKET),
        lambda: s3.get_bucket_versioning(Bucket=BUCKET), lambda: s3.get_bucket_location(Bucket=BUCKET),
        lambda: s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}]}),
        lambda: s3.delete_bucket(Bucket=BUCKET), lambda: s3.get_bucket_tagging(Bucket=BUCKET),
        lambda: s3.get_bucket_cors(Bucket=BUCKET), lambda: s3.get_bucket_policy(Bucket=BUCKET),
    ):
        client.sent.clear()
        call()
        assert client.verified().principal.mechanism is mechanism


@SCHEMES
def test_uploads_announce_their_bodies(scheme: str) -> None:
    """Over TLS the body comes aws-chunked with a checksum behind it, otherwise its digest is signed."""
    client = Client(scheme, "path", "s3v4")
    client.s3.put_object(Bucket=BUCKET, Key="k", Body=b"hello")
    payload = client.verified().payload
    if scheme == "http":
        assert payload.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        return
    assert payload.framing is not None
    assert (payload.framing.decoded_length, payload.framing.trailers) == (5, ("x-amz-checksum-crc32",))
    decoder = payload.framing.decoder()
    assert b"".join(decoder.feed(client.sent[-1].body.read())) == b"hello"
    assert decoder.finish() == {"x-amz-checksum-crc32": "NhCmhg=="}


@STYLES
@pytest.mark.parametrize(("version", "mechanism"), [("s3v4", Mechanism.V4_QUERY), ("s3", Mechanism.V2_QUERY)])
def test_links(style: str, version: str, mechanism: Mechanism) -> None:
    client = Client("http", style, version)
    for key in KEYS:
        at = {"Bucket": BUCKET, "Key": key}
        shown = {**at, "ResponseContentType": "text/plain; charset=ü", "VersionId": "v+/"}
        stored = {**at, "ACL": "private", "ContentType": "a/b", "Metadata": {"a": "b c"}}
        for operation, method, params, headers in (
            ("get_object", "GET", at, {}), ("head_object", "HEAD", at, {}), ("get_object", "GET", shown, {}),
            ("put_object", "PUT", at, {}), ("delete_object", "DELETE", at, {}),
            ("put_object", "PUT", stored, {"content-type": "a/b", "x-amz-acl": "private", "x-amz-meta-a": "b c"}),
        ):
            url = client.s3.generate_presigned_url(operation, Params=params, ExpiresIn=60)
            found = verified(client.request(method, url, headers))
            assert found.principal.mechanism is mechanism
            assert unquote(urlsplit(url).path).endswith(key)
    url = client.s3.generate_presigned_url("list_objects_v2", Params={"Bucket": BUCKET}, ExpiresIn=60)
    assert verified(client.request("GET", url, {})).principal.mechanism is mechanism


def test_the_default_link_is_of_version_2() -> None:
    """boto3 without any settings: what most scripts and frameworks hand out."""
    s3 = boto3.client(
        "s3", endpoint_url="http://127.0.0.1:9000", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "k"})
    assert verified(s3_request("GET", url)).principal.mechanism is Mechanism.V2_QUERY
