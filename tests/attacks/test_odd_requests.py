"""Any operation with any headers and parameters that make no sense together: an S3 answer, at once, and nothing breaks.

Seeded, so a failure can be repeated; its message holds the whole request. STADDLE_TEST_SEED tries others.
"""

# ruff: noqa: SIM905  (names that are split read better than a page of quotes)

import base64
import hashlib
import os
import random
from urllib.parse import quote

from tests.attacks.attacker import Attacker

REQUESTS = 400

VALUES = [
    "", "0", "-1", "1" * 5000, "9" * 30, "abc", "\xc3\xa9", "\xff\xfe", "a,b", "*", '"', "true", "null", "a" * 300, "%00", "%ff",
    "1.5", "\xd9\xa3", "CRC32", "COMPOSITE", "FULL_OBJECT", "bytes=0-", "bytes=5-1", "AES256", "aws:kms", "2026-01-01T00:00:00Z",
    "Thu, 01 Jan 1970 00:00:00 GMT", "Wed, 99 Foo 99999 99:99:99 GMT", "k=v&k=v", "/", "//", "http://x", "=", "AAAAAA==",
    "1e999", "-0", "+1",
]
HEADERS = [f"x-amz-{name}" for name in (
    "acl bucket-object-lock-enabled object-ownership checksum-algorithm checksum-type checksum-mode checksum-crc32 "
    "checksum-sha256 sdk-checksum-algorithm copy-source copy-source-range copy-source-if-match copy-source-if-none-match "
    "copy-source-if-modified-since copy-source-if-unmodified-since metadata-directive tagging-directive tagging "
    "storage-class website-redirect-location mp-object-size expected-bucket-owner source-expected-bucket-owner "
    "request-payer bypass-governance-retention mfa object-lock-mode object-lock-retain-until-date server-side-encryption "
    "server-side-encryption-customer-key object-attributes max-parts part-number-marker write-offset-bytes meta- meta-x "
    "trailer decoded-content-length if-match-size optional-object-attributes api-version").split()] + (
    "content-md5 content-type content-encoding content-disposition cache-control expires content-language range if-match "
    "if-none-match if-modified-since if-unmodified-since if-range origin accept-encoding").split()
PARAMETERS = (
    "versionId partNumber uploadId max-keys max-parts max-uploads max-buckets prefix delimiter marker key-marker id "
    "upload-id-marker version-id-marker part-number-marker start-after continuation-token fetch-owner encoding-type "
    "bucket-region list-type response-content-type response-expires x-id X-Amz-Expires Signature AWSAccessKeyId").split()


def test_requests_that_make_no_sense(attacker: Attacker) -> None:
    chance = random.Random(int(os.environ.get("STADDLE_TEST_SEED", "1")))
    b = attacker.bucket
    upload = attacker.ask("POST", f"{b}/parts?uploads").element("UploadId")
    parts = f"{b}/parts?uploadId={upload}"
    etag = attacker.ask("PUT", f"{parts}&partNumber=1", body=b"part").headers["etag"]
    complete = ("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
                f"<ETag>{etag}</ETag></Part></CompleteMultipartUpload>").encode()
    delete = b"<Delete><Object><Key>nothing</Key></Object></Delete>"
    operations = [
        ("GET", "/", b""), ("GET", b, b""), ("GET", f"{b}?list-type=2", b""), ("GET", f"{b}?uploads", b""), ("HEAD", b, b""),
        ("GET", f"{b}?versions", b""), ("GET", f"{b}?acl", b""), ("PUT", f"{b}?versioning", b"<x/>"), ("POST", b, b"x"),
        ("DELETE", b, b""), ("POST", f"{b}?delete", delete), ("GET", f"{b}/victim", b""), ("HEAD", f"{b}/victim", b""),
        ("GET", f"{b}/victim?attributes", b""), ("GET", f"{b}/victim?tagging", b""), ("OPTIONS", f"{b}/victim", b""),
        ("PUT", f"{b}/x", b"data"), ("DELETE", f"{b}/x", b""), ("PUT", f"{b}/copy", b""), ("POST", f"{b}/y?uploads", b""),
        ("PUT", f"{parts}&partNumber=2", b"part"), ("GET", parts, b""), ("POST", parts, complete),
        ("POST", f"{b}/victim?select&select-type=2", b"x"),
    ]
    for number in range(REQUESTS):
        method, path, body = chance.choice(operations)
        headers = {"x-amz-copy-source": f"{b}/victim"} if path.endswith("/copy") else {}
        if body is delete:
            headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            headers[chance.choice(HEADERS)] = chance.choice(VALUES)
        for _ in range(chance.choice((0, 0, 1, 2))):
            more = f"{chance.choice(PARAMETERS)}={quote(chance.choice(VALUES).encode('latin-1'))}"
            path += f"{'&' if '?' in path else '?'}{more}"
        answer = attacker.ask(method, path, headers, body=body)
        request = (number, method, path, headers)
        assert answer.status < 500 or answer.status == 501, (request, answer)
        if answer.status >= 400 and method != "HEAD":
            attacker.decent(answer)
    for _ in range(2):      # what was left behind, whatever it was
        for key in attacker.ask("GET", f"{b}?list-type=2").elements("Key"):
            attacker.ask("DELETE", f"{b}/{key}")
        listed = attacker.ask("GET", f"{b}?uploads")
        for key, name in zip(listed.elements("Key"), listed.elements("UploadId"), strict=True):
            attacker.ask("DELETE", f"{b}/{key}?uploadId={name}")
    attacker.prepare_again()
