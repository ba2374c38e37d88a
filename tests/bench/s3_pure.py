"""How long the pure S3 functions take. Best of several runs, in processor time.

Run: ``python -m tests.bench.s3_pure``"""

import time
import timeit
from collections.abc import Callable

from consensus.core.model import Checksum, ListedObject
from gateway.s3 import conditions, headers, names, ranges, times
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error, render
from gateway.s3.operations import route
from gateway.s3.xml import listings as xml_listings
from gateway.s3.xml import read as xml_read

REQUEST = {
    "host": "127.0.0.1:9000", "user-agent": "Boto3/1.44 md/Botocore#1.44", "accept-encoding": "identity",
    "content-type": "application/octet-stream", "content-length": "4096", "x-amz-date": "20240101T000000Z",
    "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "authorization": "AWS4-HMAC-SHA256 Credential=…", "x-amz-checksum-crc32": "NhCmhg==",
    "x-amz-sdk-checksum-algorithm": "CRC32", "amz-sdk-request": "attempt=1", "amz-sdk-invocation-id": "x",
}
KIB4 = bytes(4096)
SUM = Checksum("CRC64NVME", "AAAAAAAAAAA=", "FULL_OBJECT")


def page(suffix: str) -> list[ListedObject]:
    return [
        ListedObject(f"photos/2024/image-{n:06}{suffix}.jpg", "null", n, 1_700_000_000_000 + n * 61_001, n,
                     "d41d8cd98f00b204e9800998ecf8427e", SUM, "STANDARD", "owner", False, True)
        for n in range(1000)
    ]


def listing(objects: list[ListedObject], encoded: bool) -> Callable[[], object]:
    return lambda: xml_listings.list_objects_v2(
        bucket="bkt", prefix="photos/", delimiter="", start_after="", max_keys=1000, encoded=encoded, objects=objects,
        common_prefixes=(), continuation_token=None, next_token="t", owner=None,
    )


def hash_4k() -> object:
    hasher = checksums.Expected().hasher()
    hasher.update(KIB4)
    return hasher.finish()


PLAIN, ODD = page(""), page(" é&")
STORED = headers.stored(REQUEST)
COMPLETE = ("<CompleteMultipartUpload>" + "".join(
    f"<Part><PartNumber>{n}</PartNumber><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag></Part>"
    for n in range(1, 10_001)
) + "</CompleteMultipartUpload>").encode()
DELETE = ("<Delete>" + "".join(f"<Object><Key>photos/{n}</Key></Object>" for n in range(1000)) + "</Delete>").encode()
PARTS = [("rosUhgp5mIg=", 8 << 20)] * 10_000

CASES: dict[str, Callable[[], object]] = {
    "route GET object": lambda: route("GET", "object", {}, REQUEST),
    "route PUT object, x-id": lambda: route("PUT", "object", {"x-id": "PutObject"}, REQUEST),
    "route GET bucket, list-type": lambda: route("GET", "bucket", {"list-type": "2", "prefix": "a"}, REQUEST),
    "target, path style": lambda: names.target("127.0.0.1:9000", ("localhost",), b"/bucket/some/plain/key"),
    "target, escapes": lambda: names.target("127.0.0.1:9000", ("localhost",), b"/bucket/a%20b%2Fc"),
    "uri_encode": lambda: names.uri_encode(b"/bucket/some/plain/key", True),
    "headers.stored": lambda: headers.stored(REQUEST),
    "headers.given_back": lambda: headers.given_back(STORED, {}),
    "conditions of a GET without any": lambda: conditions.not_modified(
        REQUEST, etag="x", modified_ms=1, now_ms=2),
    "ranges.parse": lambda: ranges.parse("bytes=0-4095", 1 << 30),
    "Expected.from_headers": lambda: checksums.Expected.from_headers(REQUEST),
    "MD5 and CRC64NVME of 4 KiB": hash_4k,
    "http_date": lambda: times.http_date(1_700_000_000_000),
    "an error document": lambda: render(S3Error("NoSuchKey", Key="some/key"), "1" * 16, "h" * 32),
    "listing, 1,000 plain keys": listing(PLAIN, False),
    "listing, 1,000 plain keys, url": listing(PLAIN, True),
    "listing, 1,000 odd keys": listing(ODD, False),
    "listing, 1,000 odd keys, url": listing(ODD, True),
    "reading Delete of 1,000": lambda: xml_read.delete(DELETE),
    "reading Complete of 10,000": lambda: xml_read.complete_multipart_upload(COMPLETE),
    "combining 10,000 CRC64NVME": lambda: checksums.of_parts("CRC64NVME", "FULL_OBJECT", PARTS),
}


def main() -> None:
    for name, case in CASES.items():
        timer = timeit.Timer(case, timer=time.thread_time)    # processor time: others may be working here too
        count = max(1, timer.autorange()[0] // 4)
        best = min(timer.repeat(5, count)) / count
        print(f"{name:34} {best * 1e6:12.2f} µs")


if __name__ == "__main__":
    main()
