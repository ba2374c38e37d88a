"""Requests made up from the operation table, with headers and bodies that belong to it or don't: nothing may be a 5xx.

    python -m tests.attacks.random_requests SECONDS [SEED]     against a server of its own, three clients at once

Every operation of the table is asked, so one that is added is asked too. What is wrong is a `Fault`: an answer of 5xx but 501,
an error that is no XML with its request's id, an answer that takes too long, a connection that is cut.
"""

import base64
import hashlib
import http.client
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.s3.operations import BEYOND_MODEL, OPERATIONS, Operation
from tests import signing
from tests.clients.shell import Target
from tests.clients.wire import Answer, Wire

ROWS = [row for row in (*OPERATIONS, *BEYOND_MODEL) if row.method]
OFTEN = [row for row in ROWS if row.name in {
    "PutObject", "GetObject", "DeleteObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
    "AbortMultipartUpload", "RenameObject", "PutObjectTagging", "DeleteObjects", "ListParts"}]

KEYS = ("k", "j", "d/e", "%2e%2e/k", "%C3%A9", "a%00b", "x" * 1030)
QUERIES = (
    "max-keys=3", "max-keys=-1", "prefix=%ff", "delimiter=/", "marker=k", "key-marker=k", "version-id-marker=null",
    "continuation-token=x", "encoding-type=url", "start-after=%00", "upload-id-marker=zz", "part-number-marker=1", "versionId=",
    "versionId=null", "versionId=%00", "partNumber=0", "response-content-type=a", "x-amz-acl=private", "id=a", "max-buckets=2")
HEADERS = (
    "x-amz-acl", "x-amz-grant-read", "x-amz-tagging", "x-amz-storage-class", "x-amz-website-redirect-location",
    "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold", "x-amz-metadata-directive",
    "x-amz-bypass-governance-retention", "x-amz-tagging-directive", "x-amz-copy-source-range", "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "range",
    "x-amz-checksum-algorithm", "x-amz-sdk-checksum-algorithm", "x-amz-checksum-crc32", "x-amz-checksum-type", "x-amz-trailer",
    "x-amz-checksum-mode", "x-amz-mp-object-size", "x-amz-write-offset-bytes", "x-amz-client-token", "x-amz-request-payer",
    "x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner", "x-amz-max-parts", "x-amz-server-side-encryption",
    "x-amz-object-ownership", "x-amz-bucket-object-lock-enabled", "origin", "access-control-request-method", "content-type",
    "content-encoding", "expires", "x-amz-meta-a", "x-amz-skip-destination-validation", "user-agent", "referer")
VALUES = (
    "", "x", "*", "true", "private", "public-read", "COPY", "REPLACE", "AES256", "GOVERNANCE", "ON", "2099-01-01T00:00:00Z", "0",
    "-1", "3", "9" * 21, "bytes=0-1", "bytes=-0", "a=b", "a=b&a=c", "id=other-person", "GLACIER", "/", "\xc3\xa9", "%ff", '"abc"',
    "Thu, 01 Jan 1970 00:00:00 GMT", "CRC32", "COMPOSITE", "FULL_OBJECT", "AAAAAA==", "requester", "222222222222", "x" * 300)
NEEDED = {
    "RenameObject": ("x-amz-rename-source", ("k", "/{bucket}/j", "d/e")),
    "GetObjectAttributes": ("x-amz-object-attributes", ("ETag,Checksum,ObjectParts,ObjectSize",)),
}

_RULE = b"<Rule><ID>r</ID><Status>Enabled</Status><Filter><Prefix/></Filter><Expiration><Days>1</Days></Expiration></Rule>"
BODIES: dict[str, bytes] = {
    "Tagging": b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "DeleteObjects": b"<Delete><Object><Key>k</Key></Object><Object><Key>j</Key><VersionId>null</VersionId></Object></Delete>",
    "Versioning": b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "Retention": b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
    "LegalHold": b"<LegalHold><Status>OFF</Status></LegalHold>",
    "Lifecycle": b"<LifecycleConfiguration>" + _RULE + b"</LifecycleConfiguration>",
    "Website": b"<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument></WebsiteConfiguration>",
    "Cors": b"<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule>"
            b"</CORSConfiguration>",
    "Ownership": b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
    "PublicAccessBlock":
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>false</BlockPublicAcls></PublicAccessBlockConfiguration>",
    "RequestPayment": b"<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
    "Metrics": b"<MetricsConfiguration><Id>a</Id></MetricsConfiguration>",
    "Restore": b"<RestoreRequest><Days>1</Days></RestoreRequest>",
    "Policy": b'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"222222222222"},"Action":"s3:*",'
              b'"Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}',
}

SLOW_S = 8.0
"""On a busy machine; nothing here is much work."""


class Fault(NamedTuple):
    why: str
    operation: str
    request: str
    headers: dict[str, str]
    body: bytes
    answer: str


class Client:
    """Asks what its random numbers say, as one of some callers; what it learns (uploads, versions, ETags) it uses later."""

    def __init__(self, target: Target, callers: list[signing.Keys | None], buckets: list[str], seed: int) -> None:
        self._wire, self._callers, self._buckets = Wire(target), callers, buckets
        self._random = random.Random(seed)
        self._uploads: list[tuple[str, str]] = []      # path, id
        self._versions, self._etags = ["null"], ['"x"']
        self.asked = self.done = 0
        self.names: set[str] = set()

    def run(self, seconds: float) -> Iterator[Fault]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield from self.ask_one()
        self.close()

    def close(self) -> None:
        self._wire.close()

    def ask_one(self) -> Iterator[Fault]:
        chance = self._random
        row = chance.choice(OFTEN if chance.random() < 0.4 else ROWS)
        path, headers, body = self._made(row)
        keys = chance.choice(self._callers)
        signed = headers if keys is None else signing.sign_request(
            row.method, self._wire.url(path), headers, keys=keys, now_s=time.time(), payload=hashlib.sha256(body).hexdigest())
        signed = {"host": self._wire.target.netloc, **signed}
        if body or row.method in ("PUT", "POST"):
            signed["content-length"] = str(len(body))
        began = time.monotonic()
        try:
            answer = self._wire.send(row.method, path, signed, body)
        except (OSError, http.client.HTTPException) as error:
            self._wire.close()
            yield Fault(repr(error), row.name, path, headers, body, "")
            return
        self.asked += 1
        self.names.add(row.name)
        self.done += answer.status < 300
        self._learn(row, path, answer)
        why = _wrong(row, answer, time.monotonic() - began)
        if why:
            yield Fault(why, row.name, f"{row.method} {path}", headers, body[:300], f"{answer.status} {answer.body[:500]!r}")

    def _made(self, row: Operation) -> tuple[str, dict[str, str], bytes]:
        chance = self._random
        bucket = chance.choice(self._buckets)
        path = {"service": "/", "bucket": f"/{bucket}", "object": f"/{bucket}/{chance.choice(KEYS)}"}[row.scope]
        upload = "x"
        if "uploadId" in row.query and self._uploads and chance.random() < 0.9:
            path, upload = chance.choice(self._uploads[-8:])
        values = {"uploadId": upload, "partNumber": "1", "list-type": "2", "id": "a", "annotationName": "a", "select-type": "2"}
        query = [f"{name}={values[name]}" if name in values else name for name in row.query]
        if row.scope == "object" and chance.random() < 0.12:
            query.append(f"versionId={chance.choice(self._versions[-30:])}")
        while chance.random() < 0.08:
            query.append(chance.choice(QUERIES))
        headers = {name: f"/{chance.choice(self._buckets)}/{chance.choice(KEYS[:3])}" for name in row.headers}
        if row.name in NEEDED:
            name, choices = NEEDED[row.name]
            headers[name] = chance.choice(choices).replace("{bucket}", bucket)
        while chance.random() < 0.3:
            name = chance.choice(HEADERS)
            headers.setdefault(name, chance.choice(self._etags[-5:] if name.endswith("match") else VALUES))
        body = self._body(row, bucket) if row.method in ("PUT", "POST") else b""
        if body and chance.random() < 0.85:
            headers["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        return path + ("?" + "&".join(query) if query else ""), headers, body

    def _body(self, row: Operation, bucket: str) -> bytes:
        chance = self._random
        if row.name == "CompleteMultipartUpload":
            return (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{chance.choice(self._etags[-6:])}</ETag>"
                    "</Part></CompleteMultipartUpload>").encode()
        if row.name in ("PutObject", "UploadPart"):
            return b"x" * chance.choice([0, 3, 3, 100, 300_000])
        fitting = next((body for name, body in BODIES.items() if name in row.name), b"")
        if chance.random() < 0.1:
            fitting = chance.choice([*BODIES.values(), b"<a/>", b"{}", b"\x00"])
        return fitting.replace(b"{bucket}", bucket.encode())

    def _learn(self, row: Operation, path: str, answer: Answer) -> None:
        if row.name == "CreateMultipartUpload" and answer.status == 200:
            self._uploads.append((path.partition("?")[0], answer.element("UploadId") or ""))
        if (version := answer.headers.get("x-amz-version-id")) is not None:
            self._versions.append(version)
        if (etag := answer.headers.get("etag")) is not None:
            self._etags.append(etag)


def _wrong(row: Operation, answer: Answer, took_s: float) -> str:
    if answer.status >= 500 and answer.status != 501:
        return "a fault of ours"
    if took_s > SLOW_S:
        return f"it took {took_s:.1f} s"
    if answer.status >= 400 and row.method != "HEAD":
        if answer.headers.get("content-type") != "application/xml":
            return "an error that is no XML"
        if answer.element("RequestId") != answer.headers["x-amz-request-id"] or not answer.element("Code"):
            return "an error without code or request id"
    return ""


def main(seconds: float, seed: int, clients: int = 3) -> int:
    from tests.attacks.attacker import OTHER_ACCESS_KEY, OTHER_SECRET_KEY
    from tests.attacks.conftest import CONFIGURATION
    from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, serving

    folder = Path(tempfile.mkdtemp(prefix="random-requests-"))
    (folder / "staddle.toml").write_text(CONFIGURATION)
    settings = {"object_ownership": "ObjectWriter", "block_public_access": "false", "lifecycle_day_seconds": "1"}
    faults: list[Fault] = []
    with serving(folder / "server", settings=settings, extra=("--config", str(folder / "staddle.toml"))) as server:
        target = Target(url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        owner = signing.Keys(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        other = signing.Keys(access_key=OTHER_ACCESS_KEY, secret_key=OTHER_SECRET_KEY, region=REGION)
        wire = Wire(target)
        for bucket in ("random-a", "random-b"):
            wire.ask("PUT", f"/{bucket}")
        wire.close()
        asking = [Client(target, [owner, owner, owner, other, None], ["random-a", "random-b"], seed * 100 + number)
                  for number in range(clients)]
        threads = [threading.Thread(target=lambda client=client: faults.extend(client.run(seconds))) for client in asking]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log = server.log_path.read_text()
    asked, done = sum(client.asked for client in asking), sum(client.done for client in asking)
    print(f"seed {seed}: {asked} requests, {done} of them done, {len(faults)} faults")
    for fault in faults[:20]:
        print(fault)
    return bool(faults) or "Traceback" in log


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10_000)))
