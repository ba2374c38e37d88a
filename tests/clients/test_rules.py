"""What most S3 clients depend upon, one rule after the other, as bytes on the wire, over http and https.

A test is named after its rule; the programs in `every/` and beside this file show the same through the clients themselves.

    1  what botocore sends by default: over http a digest and a checksum header, over https a trailer; parts too
    2  aws-chunked inside HTTP's chunks, recognised by the payload's name; signed chunks verified
    3  `aws-chunked` is never kept or given back
    4  checksums: given back when asked for, of parts and wholes, never on ranges
    5  signature version 2 in the header, in links both ways, in forms
    6  paths and queries are signed as sent; any header may be signed
    7  `x-id` means nothing
    8  Expect: 100-continue, and a refusal in its place
    9  encoding-type=url encodes names and no tokens; without it XML is well-formed whatever the key
    10 ranges, with If-Match
    11 ETags: quoted but in GetObjectAttributes, of parts too
    12 a 412 says which condition
    13 deleting what is not there
    14 folder markers
    15 times: RFC 1123 in headers, milliseconds in XML
    16 errors of HEAD have no body
    17 where buckets are and how they are made
"""

import base64
import calendar
import hashlib
import hmac
import json
import os
import re
import time
import uuid
import xml.etree.ElementTree as Xml
import zlib
from collections.abc import Iterator
from urllib.parse import quote, unquote_to_bytes

import pytest
from awscrt import checksums

from tests import signing
from tests.clients.shell import Target
from tests.clients.wire import Answer, Wire, http_chunks, unsigned_chunks

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
CONFIGURATION = (b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                 b'<LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>')
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.fixture
def wire(target: Target) -> Iterator[Wire]:
    wire = Wire(target)
    yield wire
    wire.close()


def complete(wire: Wire, path: str, upload: str | None, etag: str, **headers: str) -> Answer:
    """An upload of one part."""
    listed = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
              "</CompleteMultipartUpload>").encode()
    return wire.ask("POST", f"{path}?uploadId={upload}", {name.replace("_", "-"): value for name, value in headers.items()},
                    body=listed)


@pytest.fixture
def b(wire: Wire) -> str:
    """The path of a new bucket."""
    path = f"/r-{uuid.uuid4().hex[:20]}"
    assert wire.ask("PUT", path).status == 200
    return path


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def get(wire: Wire, path: str, **headers: str) -> Answer:
    return wire.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})


# 1. What botocore sends by default over http and over https

@pytest.mark.parametrize("size", [0, 5, 200_000])
@pytest.mark.parametrize("coding", ["chunked", "length"])
def test_rule_1_trailing_checksum(wire: Wire, b: str, size: int, coding: str) -> None:
    data = os.urandom(size)
    body = unsigned_chunks(data, {"x-amz-checksum-crc32": crc32(data)})
    headers = {"content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32",
               "x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-decoded-content-length": str(size)}
    if coding == "chunked":
        headers["transfer-encoding"] = "chunked"
        body = http_chunks(body[start:start + 10_000] for start in range(0, len(body), 10_000))
    else:
        headers["content-length"] = str(len(body))
    put = wire.ask("PUT", f"{b}/k", headers, payload=UNSIGNED_TRAILER, framed=body)
    assert put.status == 200, put
    assert put.headers["x-amz-checksum-crc32"] == crc32(data)
    got = get(wire, f"{b}/k")
    assert got.body == data
    assert got.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'


def test_rule_1_header_checksum_and_signed_digest(wire: Wire, b: str) -> None:
    data = os.urandom(100_000)
    assert wire.ask("PUT", f"{b}/k", {"x-amz-checksum-crc32": crc32(data)}, body=data).status == 200
    wrong = wire.ask("PUT", f"{b}/k", {"x-amz-checksum-crc32": crc32(b"other")}, body=data)
    assert (wrong.status, wrong.element("Code")) == (400, "BadDigest")
    assert get(wire, f"{b}/k").body == data


def test_rule_1_wrong_trailer_is_refused_and_nothing_stored(wire: Wire, b: str) -> None:
    data = b"trailing"
    body = http_chunks([unsigned_chunks(data, {"x-amz-checksum-crc32": crc32(b"other")})])
    put = wire.ask("PUT", f"{b}/k", {
        "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32", "transfer-encoding": "chunked",
        "x-amz-decoded-content-length": str(len(data))}, payload=UNSIGNED_TRAILER, framed=body)
    assert (put.status, put.element("Code")) == (400, "BadDigest")
    assert get(wire, f"{b}/k").status == 404


def test_rule_1_parts_are_sent_so_too(wire: Wire, b: str) -> None:
    upload = wire.ask("POST", f"{b}/k?uploads", {"x-amz-checksum-algorithm": "CRC32"}).element("UploadId")
    data = os.urandom(70_000)
    body = unsigned_chunks(data, {"x-amz-checksum-crc32": crc32(data)})
    part = wire.ask("PUT", f"{b}/k?partNumber=1&uploadId={upload}", {
        "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32", "transfer-encoding": "chunked",
        "x-amz-decoded-content-length": str(len(data))}, payload=UNSIGNED_TRAILER, framed=http_chunks([body]))
    assert (part.status, part.headers["x-amz-checksum-crc32"]) == (200, crc32(data)), part
    assert part.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
    listed = get(wire, f"{b}/k?uploadId={upload}")
    assert (listed.element("Size"), listed.element("ChecksumCRC32")) == (str(len(data)), crc32(data))


def test_rule_1_the_announced_length_is_kept_to(wire: Wire, b: str) -> None:
    data = b"twelve bytes"
    body = unsigned_chunks(data, {"x-amz-checksum-crc32": crc32(data)})
    put = wire.ask("PUT", f"{b}/k", {
        "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32", "content-length": str(len(body)),
        "x-amz-decoded-content-length": str(len(data) + 1)}, payload=UNSIGNED_TRAILER, framed=body)
    assert (put.status, put.element("Code")) == (400, "IncompleteBody")
    assert get(wire, f"{b}/k").status == 404


# 2. aws-chunked with signed chunks, also without being called so

@pytest.mark.parametrize("named", [True, False], ids=["named", "restic"])
@pytest.mark.parametrize("spoilt", [False, True], ids=["good", "spoilt"])
def test_rule_2_signed_chunks(wire: Wire, b: str, named: bool, spoilt: bool) -> None:
    data = os.urandom(150_000)
    headers = {"content-md5": md5(data), "x-amz-decoded-content-length": str(len(data))}
    if named:
        headers["content-encoding"] = "aws-chunked"
    signed = wire.signed("PUT", f"{b}/k", headers, payload=SIGNED_CHUNKS)
    signer = signing.ChunkSigner(wire.keys, signed["x-amz-date"], signing.signature_of(signed))
    framed = b"".join(signer.chunk(data[start:start + 65_536]) for start in range(0, len(data), 65_536)) + signer.last()
    if spoilt:
        framed = framed[:70_000] + bytes([framed[70_000] ^ 1]) + framed[70_001:]
    signed["content-length"] = str(len(framed))
    put = wire.send("PUT", f"{b}/k", signed, framed)
    if spoilt:
        assert (put.status, put.element("Code")) == (403, "SignatureDoesNotMatch")
        assert get(wire, f"{b}/k").status == 404
    else:
        assert put.status == 200, put
        assert get(wire, f"{b}/k").body == data


def test_rule_2_signed_chunks_inside_chunks_of_http(wire: Wire, b: str) -> None:
    data = os.urandom(150_000)
    headers = {"transfer-encoding": "chunked", "x-amz-decoded-content-length": str(len(data))}
    signed = wire.signed("PUT", f"{b}/k", headers, payload=SIGNED_CHUNKS)
    signer = signing.ChunkSigner(wire.keys, signed["x-amz-date"], signing.signature_of(signed))
    framed = b"".join(signer.chunk(data[start:start + 65_536]) for start in range(0, len(data), 65_536)) + signer.last()
    pieces = http_chunks(framed[start:start + 7001] for start in range(0, len(framed), 7001))
    assert wire.send("PUT", f"{b}/k", signed, pieces).status == 200
    assert get(wire, f"{b}/k").body == data


# 3. aws-chunked is of the transfer, never of the object

@pytest.mark.parametrize(("sent", "kept"), [("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip", "gzip")])
def test_rule_3_content_encoding(wire: Wire, b: str, sent: str, kept: str | None) -> None:
    data = b"x" * 100
    body = unsigned_chunks(data, {"x-amz-checksum-crc32": crc32(data)})
    put = wire.ask("PUT", f"{b}/k", {
        "content-encoding": sent, "x-amz-trailer": "x-amz-checksum-crc32", "content-length": str(len(body)),
        "x-amz-decoded-content-length": str(len(data))}, payload=UNSIGNED_TRAILER, framed=body)
    assert put.status == 200, put
    assert get(wire, f"{b}/k").headers.get("content-encoding") == kept
    assert get(wire, f"{b}/k").body == data


def test_rule_3_an_upload_in_parts_does_not_keep_it_either(wire: Wire, b: str) -> None:
    upload = wire.ask("POST", f"{b}/k?uploads", {"content-encoding": "aws-chunked"}).element("UploadId")
    etag = wire.ask("PUT", f"{b}/k?partNumber=1&uploadId={upload}", body=b"part").headers["etag"]
    assert complete(wire, f"{b}/k", upload, etag).status == 200
    assert "content-encoding" not in get(wire, f"{b}/k").headers


# 4. Checksums come back when asked for, and never where they would be wrong

def test_rule_4_checksum_mode(wire: Wire, b: str) -> None:
    data = os.urandom(1000)
    wire.ask("PUT", f"{b}/k", {"x-amz-checksum-crc32": crc32(data)}, body=data)
    assert "x-amz-checksum-crc32" not in get(wire, f"{b}/k").headers
    for word in ("ENABLED", "enabled"):
        asked = get(wire, f"{b}/k", x_amz_checksum_mode=word)
        assert asked.headers["x-amz-checksum-crc32"] == crc32(data)
        assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        part = get(wire, f"{b}/k", x_amz_checksum_mode=word, range="bytes=0-9")
        assert part.status == 206
        assert not [name for name in part.headers if name.startswith("x-amz-checksum-crc")]


def test_rule_4_computed_when_the_client_sends_none(wire: Wire, b: str) -> None:
    data = os.urandom(1000)
    wire.ask("PUT", f"{b}/k", body=data)
    expected = base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()
    assert get(wire, f"{b}/k", x_amz_checksum_mode="ENABLED").headers["x-amz-checksum-crc64nvme"] == expected


def test_rule_4_multipart_checksums(wire: Wire, b: str) -> None:
    begun = wire.ask("POST", f"{b}/k?uploads", {"x-amz-checksum-algorithm": "CRC32"})
    upload = begun.element("UploadId")
    data = os.urandom(5000)
    part = wire.ask("PUT", f"{b}/k?partNumber=1&uploadId={upload}", {"x-amz-checksum-crc32": crc32(data)}, body=data)
    assert part.headers["x-amz-checksum-crc32"] == crc32(data)
    listed = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part.headers['etag']}</ETag>"
              f"<ChecksumCRC32>{crc32(data)}</ChecksumCRC32></Part></CompleteMultipartUpload>").encode()
    done = wire.ask("POST", f"{b}/k?uploadId={upload}", {"x-amz-mp-object-size": str(len(data))}, body=listed)
    assert done.status == 200, done
    whole = get(wire, f"{b}/k", x_amz_checksum_mode="ENABLED").headers
    assert whole["x-amz-checksum-type"] == "COMPOSITE"
    assert whole["x-amz-checksum-crc32"] == crc32(zlib.crc32(data).to_bytes(4, "big")) + "-1"


def test_rule_4_the_checksum_of_the_sdk_for_c_plus_plus(wire: Wire, b: str) -> None:
    data = os.urandom(1000)
    value = base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()
    put = wire.ask("PUT", f"{b}/k", {"x-amz-checksum-crc64nvme": value}, body=data)
    assert (put.headers["x-amz-checksum-crc64nvme"], put.headers["x-amz-checksum-type"]) == (value, "FULL_OBJECT")
    assert wire.ask("PUT", f"{b}/k", {"x-amz-checksum-crc64nvme": value}, body=data + b"x").element("Code") == "BadDigest"


def test_rule_4_another_size_than_the_announced_completes_nothing(wire: Wire, b: str) -> None:
    upload = wire.ask("POST", f"{b}/k?uploads").element("UploadId")
    etag = wire.ask("PUT", f"{b}/k?partNumber=1&uploadId={upload}", body=b"part").headers["etag"]
    assert complete(wire, f"{b}/k", upload, etag, x_amz_mp_object_size="5").status == 400
    assert get(wire, f"{b}/k").status == 404
    assert complete(wire, f"{b}/k", upload, etag, x_amz_mp_object_size="4").status == 200


# 5. Signature version 2

def test_rule_5_signature_version_2(wire: Wire, b: str) -> None:
    url = wire.url(f"{b}/a%20b")
    headers = signing.sign_request_v2("PUT", url, {"content-length": "3", "x-amz-meta-a": "1"}, keys=wire.keys,
                                      now_s=time.time())
    assert wire.send("PUT", f"{b}/a%20b", headers, b"abc").status == 200
    host = {"host": headers["host"]}
    link = signing.presign_v2("GET", url, keys=wire.keys, expires_at_s=int(time.time()) + 60)
    got = wire.send("GET", link.removeprefix(wire.target.url), host)
    assert (got.status, got.body, got.headers["x-amz-meta-a"]) == (200, b"abc", "1")
    late = signing.presign_v2("GET", url, keys=wire.keys, expires_at_s=int(time.time()) - 60)
    refused = wire.send("GET", late.removeprefix(wire.target.url), host)
    assert (refused.status, refused.element("Code")) == (403, "AccessDenied")


def test_rule_5_links_that_put(wire: Wire, b: str) -> None:
    link = signing.presign_v2("PUT", wire.url(f"{b}/k"), keys=wire.keys, expires_at_s=int(time.time()) + 60)
    headers = {"host": wire.target.netloc, "content-length": "3"}
    assert wire.send("PUT", link.removeprefix(wire.target.url), headers, b"abc").status == 200
    assert get(wire, f"{b}/k").body == b"abc"
    refused = wire.send("PUT", link.removeprefix(wire.target.url), headers | {"content-type": "text/plain"}, b"abd")
    assert (refused.status, refused.element("Code")) == (403, "SignatureDoesNotMatch")     # it signs the content type


def test_rule_5_forms(wire: Wire, b: str) -> None:
    policy = base64.b64encode(json.dumps({
        "expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60)),
        "conditions": [{"bucket": b[1:]}, ["starts-with", "$key", "f/"]]}).encode()).decode()
    signature = base64.b64encode(hmac.digest(wire.keys.secret_key.encode(), policy.encode(), "sha1")).decode()
    for given, status in ((signature, 204), ("A" + signature[1:], 403)):
        fields = {"key": "f/${filename}", "AWSAccessKeyId": wire.keys.access_key, "policy": policy, "signature": given}
        body = b"".join(b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
                        for name, value in fields.items())
        body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nposted\r\n--x--\r\n'
        posted = wire.send("POST", b, {"host": wire.target.netloc, "content-type": "multipart/form-data; boundary=x",
                                       "content-length": str(len(body))}, body)
        assert posted.status == status, posted
    assert get(wire, f"{b}/f/a").body == b"posted"


# 6. The path and the query are signed as they were sent

@pytest.mark.parametrize("key", [
    "a//b", "/lead", "a/./b", "a/../b", "a%2Fb", "a%20b+c%2B", "%E2%82%AC", "a%5Cb", "~-_."])
def test_rule_6_paths_are_not_normalised(wire: Wire, b: str, key: str) -> None:
    assert wire.ask("PUT", f"{b}/{key}", body=key.encode()).status == 200
    assert get(wire, f"{b}/{key}").body == key.encode()
    listed = get(wire, f"{b}?list-type=2&encoding-type=url").element("Key")
    assert listed is not None
    # A plus is a space in a query and in these listings, but never in a path.
    assert unquote_to_bytes(listed.replace("+", "%20")) == unquote_to_bytes(key)


def test_rule_6_bucket_with_and_without_slash_and_raw_delimiter(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/d/k")
    for path in (f"{b}?delimiter=/", f"{b}/?delimiter=/", f"{b}?delimiter=%2F"):
        assert get(wire, path).element("CommonPrefixes") == "<Prefix>d/</Prefix>"


def test_rule_6_any_header_may_be_signed(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/k", body=b"text " * 1000)
    got = get(wire, f"{b}/k", accept_encoding="gzip", user_agent="x/1  y", amz_sdk_invocation_id="1", te="trailers")
    assert (got.status, got.body) == (200, b"text " * 1000)
    assert "content-encoding" not in got.headers


# 7. x-id says what the request is; it is signed and means nothing

def test_rule_7_x_id(wire: Wire, b: str) -> None:
    assert wire.ask("PUT", f"{b}/k?x-id=PutObject", body=b"1").status == 200
    assert get(wire, f"{b}/k?x-id=GetObject").body == b"1"
    assert wire.ask("DELETE", f"{b}/k?x-id=DeleteObject").status == 204
    assert get(wire, "/?x-id=ListBuckets").element("ListAllMyBucketsResult xmlns=") is None
    assert f"<Name>{b[1:]}</Name>" in get(wire, "/?x-id=ListBuckets").text


def test_rule_7_x_id_of_copies_and_parts(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/k", body=b"1")
    assert wire.ask("PUT", f"{b}/copy?x-id=CopyObject", {"x-amz-copy-source": f"{b}/k"}).status == 200
    upload = wire.ask("POST", f"{b}/m?uploads=&x-id=CreateMultipartUpload").element("UploadId")
    part = wire.ask("PUT", f"{b}/m?partNumber=1&uploadId={upload}&x-id=UploadPart", body=b"2")
    assert part.status == 200
    assert wire.ask("PUT", f"{b}/m?partNumber=2&uploadId={upload}&x-id=UploadPartCopy",
                    {"x-amz-copy-source": f"{b}/k"}).status == 200
    assert wire.ask("DELETE", f"{b}/m?uploadId={upload}&x-id=AbortMultipartUpload").status == 204
    assert get(wire, f"{b}/copy").body == b"1"


# 8. Expect: 100-continue

@pytest.mark.parametrize("word", ["100-continue", "100-Continue"])
def test_rule_8_continue_comes_promptly(wire: Wire, b: str, word: str) -> None:
    data = os.urandom(10_000)
    headers = wire.signed("PUT", f"{b}/k", {"content-length": str(len(data))}, body=data)
    wire.begin("PUT", f"{b}/k", {**headers, "expect": word})
    began = time.monotonic()
    assert wire.line().startswith(b"HTTP/1.1 100 ")
    assert wire.line() == b"\r\n"
    assert time.monotonic() - began < 0.9           # clients wait about a second and then send anyway
    wire.more(data)
    assert wire.receive("PUT").status == 200
    assert get(wire, f"{b}/k").body == data


def test_rule_8_refusal_comes_in_place_of_continue(wire: Wire, b: str) -> None:
    headers = wire.signed("PUT", f"{b}/k", {"content-length": "1000000", "expect": "100-continue"}, body=b"x")
    headers["authorization"] = headers["authorization"][:-4] + "0000"
    wire.begin("PUT", f"{b}/k", headers)
    answer = wire.receive("PUT")
    assert (answer.status, answer.element("Code")) == (403, "SignatureDoesNotMatch")


# 9. Listings with and without encoding-type=url

def test_rule_9_encoding_type(wire: Wire, b: str) -> None:
    keys = ["a b", "a&b<c>", "a\nb", "a\r\tb", "ünï", "a+b"]
    for key in keys:
        assert wire.ask("PUT", f"{b}/{quote(key, safe='')}").status == 200
    encoded = get(wire, f"{b}?list-type=2&encoding-type=url&prefix=a&start-after=%21")
    assert encoded.element("EncodingType") == "url"
    names = [unquote_to_bytes(key.replace("+", "%20")).decode() for key in encoded.elements("Key")]
    assert names == sorted(key for key in keys if key.startswith("a"))
    plain = get(wire, f"{b}?list-type=2")
    assert plain.element("EncodingType") is None
    found = [key.text for key in Xml.fromstring(plain.body).iterfind("{*}Contents/{*}Key")]
    assert found == sorted(keys)


def test_rule_9_everything_but_tokens_is_encoded(wire: Wire, b: str) -> None:
    for key in ("p /a b", "p /a b+c", "p /a c/d", "p /a e"):
        wire.ask("PUT", f"{b}/{quote(key, safe='')}")
    first = get(wire, f"{b}?list-type=2&encoding-type=url&prefix=p%20%2F&delimiter=%2F&max-keys=2&start-after=p%20")
    assert [first.element(name) for name in ("EncodingType", "Delimiter", "StartAfter")] == ["url", "/", "p%20"]
    assert (first.elements("Prefix")[0], first.elements("Key")) == ("p%20/", ["p%20/a%20b", "p%20/a%20b%2Bc"])
    token = first.element("NextContinuationToken")
    assert token is not None
    rest = get(wire, f"{b}?continuation-token={quote(token, safe='')}&delimiter=%2F&encoding-type=url&list-type=2&prefix=p%20%2F")
    assert rest.element("ContinuationToken") == token
    assert (rest.elements("Key"), rest.elements("Prefix")[-1]) == (["p%20/a%20e"], "p%20/a%20c/")
    old = get(wire, f"{b}?delimiter=%2F&encoding-type=url&max-keys=1&prefix=p%20%2F")
    assert old.element("NextMarker") == "p%20/a%20b"
    assert get(wire, f"{b}?encoding-type=url&marker=p%20%2Fa%20c").element("Marker") == "p%20/a%20c"


# 10. Ranges

def test_rule_10_ranges(wire: Wire, b: str) -> None:
    data = os.urandom(1000)
    etag = wire.ask("PUT", f"{b}/k", body=data).headers["etag"]
    for wanted, expected, where in (
            ("bytes=0-", data, "0-999"), ("bytes=0-0", data[:1], "0-0"), ("bytes=-10", data[-10:], "990-999"),
            ("bytes=-5000", data, "0-999"), ("bytes=990-5000", data[990:], "990-999")):
        got = get(wire, f"{b}/k", range=wanted, if_match=etag)
        assert (got.status, got.body, got.headers["content-range"]) == (206, expected, f"bytes {where}/1000")
        assert got.headers["accept-ranges"] == "bytes"
    beyond = get(wire, f"{b}/k", range="bytes=1000-")
    assert (beyond.status, beyond.element("Code")) == (416, "InvalidRange")
    assert get(wire, f"{b}/k", range="bytes=0-0", if_match='"other"').status == 412
    head = wire.ask("HEAD", f"{b}/k", {"range": "bytes=5-9"})
    assert (head.status, head.headers["content-length"], head.headers["content-range"]) == (206, "5", "bytes 5-9/1000")


# 11. ETags

def test_rule_11_etags(wire: Wire, b: str) -> None:
    data = os.urandom(100)
    quoted = f'"{hashlib.md5(data).hexdigest()}"'
    assert wire.ask("PUT", f"{b}/k", body=data).headers["etag"] == quoted
    assert wire.ask("HEAD", f"{b}/k").headers["etag"] == quoted
    listed = get(wire, f"{b}?list-type=2").element("ETag")
    assert listed is not None
    assert listed.replace("&quot;", '"') == quoted
    copied = wire.ask("PUT", f"{b}/copy", {"x-amz-copy-source": f"{b}/k"}).element("ETag")
    assert copied is not None
    assert copied.replace("&quot;", '"') == quoted
    upload = wire.ask("POST", f"{b}/m?uploads").element("UploadId")
    part = wire.ask("PUT", f"{b}/m?partNumber=1&uploadId={upload}", {
        "x-amz-copy-source": f"{b}/k", "x-amz-copy-source-range": "bytes=10-19"})
    etag = hashlib.md5(data[10:20])
    assert (part.element("ETag") or "").replace("&quot;", '"') == f'"{etag.hexdigest()}"'
    done = wire.ask("POST", f"{b}/m?uploadId={upload}", body=(
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag.hexdigest()}</ETag></Part>"
        "</CompleteMultipartUpload>").encode())
    assert (done.element("ETag") or "").replace("&quot;", '"') == f'"{hashlib.md5(etag.digest()).hexdigest()}-1"'


def test_rule_11_attributes_have_it_without_quotes(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/k", body=b"x")
    seen = get(wire, f"{b}/k?attributes", x_amz_object_attributes="ETag")
    assert seen.element("ETag") == hashlib.md5(b"x").hexdigest()


# 12. The body of a 412 says which condition it was

def test_rule_12_precondition_failed(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/k", body=b"1")
    for name, value in (("If-None-Match", "*"), ("If-Match", '"00000000000000000000000000000000"')):
        refused = wire.ask("PUT", f"{b}/k", {name.lower(): value}, body=b"2")
        assert (refused.status, refused.element("Code")) == (412, "PreconditionFailed")
        assert refused.element("Condition") == name
    read = get(wire, f"{b}/k", if_match='"00000000000000000000000000000000"')
    assert (read.status, read.element("Condition")) == (412, "If-Match")
    absent = wire.ask("PUT", f"{b}/absent", {"if-match": '"00000000000000000000000000000000"'}, body=b"2")
    assert (absent.status, absent.element("Code")) == (404, "NoSuchKey")


# 13. Deleting what is not there

@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("proof", ["content-md5", "x-amz-checksum-crc32"])
def test_rule_13_deletes(wire: Wire, b: str, slash: str, proof: str) -> None:
    assert wire.ask("DELETE", f"{b}/nothing").status == 204
    wire.ask("PUT", f"{b}/k", body=b"1")
    body = b"<Delete><Object><Key>k</Key></Object><Object><Key>never</Key></Object></Delete>"
    value = md5(body) if proof == "content-md5" else crc32(body)
    done = wire.ask("POST", f"{b}{slash}?delete", {proof: value}, body=body)
    assert done.status == 200, done
    assert sorted(re.findall(r"<Deleted><Key>(\w+)</Key></Deleted>", done.text)) == ["k", "never"]
    assert get(wire, f"{b}/k").status == 404


# 14. Folder markers live beside objects of nearly the same name

def test_rule_14_folder_markers(wire: Wire, b: str) -> None:
    wire.ask("PUT", f"{b}/a/", {"content-type": "application/x-directory"})
    wire.ask("PUT", f"{b}/a", body=b"file")
    wire.ask("PUT", f"{b}/a/b", body=b"child")
    assert get(wire, f"{b}?list-type=2").elements("Key") == ["a", "a/", "a/b"]
    assert get(wire, f"{b}/a/").headers["content-type"] == "application/x-directory"
    wire.ask("DELETE", f"{b}/a/b")
    assert get(wire, f"{b}?list-type=2&delimiter=%2F").elements("Prefix")[-1:] == ["a/"]
    assert get(wire, f"{b}/a/").status == 200
    wire.ask("DELETE", f"{b}/a/")
    assert "CommonPrefixes" not in get(wire, f"{b}?list-type=2&delimiter=%2F").text
    assert get(wire, f"{b}/a").body == b"file"


# 15. Times

def test_rule_15_times(wire: Wire, b: str) -> None:
    before = int(time.time())
    wire.ask("PUT", f"{b}/k")
    header = wire.ask("HEAD", f"{b}/k").headers["last-modified"]
    said = time.strptime(header, "%a, %d %b %Y %H:%M:%S GMT")
    assert before - 1 <= calendar.timegm(said) <= time.time() + 1
    listed = get(wire, f"{b}?list-type=2").element("LastModified")
    assert listed is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", listed)
    assert listed[:19] == time.strftime("%Y-%m-%dT%H:%M:%S", said)
    copied = wire.ask("PUT", f"{b}/copy", {"x-amz-copy-source": f"{b}/k"}).element("LastModified")
    made = get(wire, "/").element("CreationDate")
    for shown in (copied, made):
        assert shown is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown)


# 16. Errors of HEAD have no body, and the connection goes on

def test_rule_16_head_errors(wire: Wire, b: str) -> None:
    for path, status in ((f"{b}/nothing", 404), (f"{b}-nothing", 404), (f"{b}/nothing", 404)):
        answer = wire.ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
        assert "x-amz-request-id" in answer.headers
    etag = wire.ask("PUT", f"{b}/k", body=b"1").headers["etag"]
    for headers, status in (({"if-none-match": etag}, 304), ({"if-match": '"0"'}, 412), ({"range": "bytes=9-"}, 416)):
        answer = wire.ask("HEAD", f"{b}/k", headers)
        assert (answer.status, answer.body) == (status, b"")
    unsigned = wire.send("HEAD", f"{b}/k", {"host": wire.target.netloc})
    assert (unsigned.status, unsigned.body) == (403, b"")
    assert get(wire, b).status == 200


# 17. Buckets: where they are, and the ways in which they are made

@pytest.mark.parametrize("body", [b"", CONFIGURATION], ids=["empty", "configuration"])
def test_rule_17_buckets(wire: Wire, b: str, body: bytes) -> None:
    head = wire.ask("HEAD", b)
    assert (head.status, head.headers["x-amz-bucket-region"]) == (200, "us-east-1")
    location = get(wire, f"{b}?location")
    assert re.search(r"<LocationConstraint[^>]*(/>|></LocationConstraint>)", location.text)
    name = f"/r-{uuid.uuid4().hex[:20]}"
    made = wire.ask("PUT", name, {"content-type": "application/xml"}, body=body)
    assert made.status == 200, made
    assert name[1:] in made.headers["location"]
    assert wire.ask("DELETE", name).status == 204
