"""Multipart uploads: parts, lists, completion and all that may be wrong with it (S3_SEMANTICS §4, §12)."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from awscrt import checksums as crt
from botocore.client import BaseClient

from tests.s3.conftest import MIB, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

PART = b"p" * (5 * MIB)


@pytest.fixture
def plain(server: InProcess) -> BaseClient:
    """A client that adds no checksums of its own."""
    return client(server.endpoint, style="when-required")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def begin(s3: BaseClient, bucket: str, key: str = "key", **said: Any) -> str:
    return str(s3.create_multipart_upload(Bucket=bucket, Key=key, **said)["UploadId"])


def put(s3: BaseClient, bucket: str, upload: str, number: int, body: bytes, **said: Any) -> dict[str, Any]:
    """The part as Complete lists it."""
    answer = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=body, **said)
    return {"PartNumber": number, "ETag": answer["ETag"]}


def complete(s3: BaseClient, bucket: str, upload: str, parts: list[dict[str, Any]], **said: Any) -> dict[str, Any]:
    answer: dict[str, Any] = s3.complete_multipart_upload(
        Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts}, **said
    )
    return answer


def test_parts_in_any_order_with_gaps_and_replacements(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket, Metadata={"m": "1"}, ContentType="a/b", Tagging="t=1")
    put(s3, bucket, upload, 7, b"replaced")
    put(s3, bucket, upload, 9, b"not listed")
    last, first = put(s3, bucket, upload, 7, b"last"), put(s3, bucket, upload, 2, PART)
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="key")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    done = complete(s3, bucket, upload, [first, last])
    assert done["Location"].endswith(f"/{bucket}/key")
    assert (done["Bucket"], done["Key"]) == (bucket, "key")
    got = s3.get_object(Bucket=bucket, Key="key")
    assert got["Body"].read() == PART + b"last"
    assert (got["Metadata"], got["ContentType"], got["ETag"]) == ({"m": "1"}, "a/b", done["ETag"])
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads") is None
    with refused("NoSuchUpload", 404):
        s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)
    with refused("NoSuchUpload", 404):
        put(s3, bucket, upload, 1, b"late")


def test_a_single_part_and_an_empty_one(s3: BaseClient, bucket: str) -> None:
    for body in (b"only", b""):
        upload = begin(s3, bucket)
        done = complete(s3, bucket, upload, [put(s3, bucket, upload, 1, body)])
        digest = hashlib.md5(hashlib.md5(body, usedforsecurity=False).digest(), usedforsecurity=False).hexdigest()
        assert done["ETag"] == f'"{digest}-1"'
        assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == body


def test_repeating_a_complete_answers_the_same(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket)
    parts = [put(s3, bucket, upload, 1, b"only")]
    first, again = complete(s3, bucket, upload, parts), complete(s3, bucket, upload, parts)
    for answer in (first, again):
        del answer["ResponseMetadata"]
    assert first == again
    with refused("NoSuchUpload", 404):
        complete(s3, bucket, upload, [{"PartNumber": 1, "ETag": '"other"'}])


def test_what_may_be_wrong_with_the_list(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket)
    one, two, three = (put(s3, bucket, upload, number, b"small") for number in (1, 2, 3))
    with refused("InvalidRequest", 400):
        s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    with refused("InvalidPartOrder", 400) as said:
        complete(s3, bucket, upload, [two, one])
    assert said["UploadId"] == upload
    with refused("InvalidPartOrder", 400):
        complete(s3, bucket, upload, [one, one])
    with refused("InvalidPart", 400) as said:
        complete(s3, bucket, upload, [one, {"PartNumber": 5, "ETag": two["ETag"]}])
    assert (said["PartNumber"], said["UploadId"]) == ("5", upload)
    with refused("InvalidPart", 400):
        complete(s3, bucket, upload, [{"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}])
    with refused("InvalidArgument", 400):
        complete(s3, bucket, upload, [{"PartNumber": 0, "ETag": one["ETag"]}])
    with refused("InvalidArgument", 400):
        complete(s3, bucket, upload, [{"PartNumber": 10_001, "ETag": one["ETag"]}])
    with refused("EntityTooSmall", 400) as said:
        complete(s3, bucket, upload, [one, three])
    assert (said["ProposedSize"], said["MinSizeAllowed"], said["PartNumber"]) == ("5", str(5 * MIB), "1")
    with refused("NoSuchUpload", 404):
        complete(s3, bucket, "unknown", [one])
    with refused("InvalidRequest", 400):
        complete(s3, bucket, upload, [one], MpuObjectSize=6)
    complete(s3, bucket, upload, [one], MpuObjectSize=5)  # the failures left the upload as it was


def test_part_numbers(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket)
    put(s3, bucket, upload, 10_000, b"x")
    for number in (0, 10_001):
        with refused("InvalidArgument", 400) as said:
            put(s3, bucket, upload, number, b"x")
        assert said["ArgumentName"] == "partNumber"


def test_aborting(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket)
    put(s3, bucket, upload, 1, PART)
    answer = s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (s3.abort_multipart_upload, s3.list_parts):
        with refused("NoSuchUpload", 404) as said:
            call(Bucket=bucket, Key="key", UploadId=upload)
        assert said["UploadId"] == upload
    with refused("NoSuchUpload", 404):
        put(s3, bucket, upload, 2, b"x")
    with refused("NoSuchUpload", 404):
        s3.abort_multipart_upload(Bucket=bucket, Key="other key", UploadId=begin(s3, bucket))


def test_parts_in_pages(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket, StorageClass="STANDARD_IA")
    for number in (1, 3, 5, 8):
        put(s3, bucket, upload, number, b"%d" % number)
    page = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload, MaxParts=3)
    assert [part["PartNumber"] for part in page["Parts"]] == [1, 3, 5]
    assert (page["IsTruncated"], page["NextPartNumberMarker"], page["MaxParts"]) == (True, 5, 3)
    assert page["StorageClass"] == "STANDARD_IA"
    assert page["Owner"]["ID"] == page["Initiator"]["ID"] == "main-id"
    page = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload, PartNumberMarker=5)
    assert [part["PartNumber"] for part in page["Parts"]] == [8]
    assert (page["IsTruncated"], page["PartNumberMarker"]) == (False, 5)
    with refused("InvalidArgument", 400):
        s3.list_parts(Bucket=bucket, Key="key", UploadId=upload, MaxParts=-1)


def test_uploads_in_pages(s3: BaseClient, bucket: str) -> None:
    """Of one key the earliest comes first."""
    keys = ["a", "a", "a", "a", "b/1", "b/2", "c"]
    wanted = [(key, begin(s3, bucket, key)) for key in keys]
    found: list[tuple[str, str]] = []
    markers: dict[str, str] = {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2, **markers)
        found += [(upload["Key"], upload["UploadId"]) for upload in page["Uploads"]]
        if not page["IsTruncated"]:
            break
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert found == wanted
    after_a = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
    assert [upload["Key"] for upload in after_a["Uploads"]] == ["b/1", "b/2", "c"]
    grouped = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [upload["Key"] for upload in grouped["Uploads"]] == ["a", "a", "a", "a", "c"]
    assert grouped["CommonPrefixes"] == [{"Prefix": "b/"}]
    only = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
    assert [upload["Key"] for upload in only["Uploads"]] == ["b/1", "b/2"]
    with refused("InvalidArgument", 400):
        s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a", UploadIdMarker="no id of ours")


@pytest.mark.parametrize(("name", "digest"), [
    ("ChecksumSHA512", lambda data: hashlib.sha512(data).digest()), ("ChecksumMD5", lambda data: hashlib.md5(data).digest()),
    ("ChecksumXXHASH64", crt.XXHash.compute_xxhash64), ("ChecksumXXHASH3", crt.XXHash.compute_xxhash3_64),
    ("ChecksumXXHASH128", crt.XXHash.compute_xxhash3_128),
])
def test_the_checksums_that_s3_has_since_2026(
    plain: BaseClient, bucket: str, name: str, digest: Callable[[bytes], bytes],
) -> None:
    stored = plain.put_object(Bucket=bucket, Key="whole", Body=b"last", **{name: b64(digest(b"last"))})
    assert (stored[name], stored["ChecksumType"]) == (b64(digest(b"last")), "FULL_OBJECT")
    with refused("BadDigest", 400):
        plain.put_object(Bucket=bucket, Key="whole", Body=b"lost", **{name: b64(digest(b"last"))})
    upload = begin(plain, bucket, ChecksumAlgorithm=name.removeprefix("Checksum"))
    claim = {name: b64(digest(b"last"))}
    done = complete(plain, bucket, upload, [put(plain, bucket, upload, 1, b"last", **claim) | claim])
    assert (done[name], done["ChecksumType"]) == (f"{b64(digest(digest(b'last')))}-1", "COMPOSITE")
    assert plain.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")[name] == done[name]


def test_an_upload_with_a_composite_checksum(plain: BaseClient, bucket: str) -> None:
    upload = begin(plain, bucket, ChecksumAlgorithm="SHA256")
    digests = [hashlib.sha256(PART).digest(), hashlib.sha256(b"last").digest()]
    parts = [put(plain, bucket, upload, 1, PART, ChecksumSHA256=b64(digests[0])),
             put(plain, bucket, upload, 2, b"last", ChecksumSHA256=b64(digests[1]))]
    with refused("InvalidRequest", 400):
        put(plain, bucket, upload, 3, b"x", ChecksumCRC32=b64(crt.crc32(b"x").to_bytes(4, "big")))
    listed = plain.list_parts(Bucket=bucket, Key="key", UploadId=upload)
    assert [part["ChecksumSHA256"] for part in listed["Parts"]] == [b64(digest) for digest in digests]
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == ("SHA256", "COMPOSITE")
    with refused("InvalidRequest", 400) as said:
        complete(plain, bucket, upload, parts)
    assert "missing for part 1" in said["Message"]
    with refused("InvalidPart", 400) as said:
        complete(plain, bucket, upload, [part | {"ChecksumSHA256": b64(digests[0])} for part in parts])
    assert said["PartNumber"] == "2"
    with refused("BadDigest", 400) as said:
        complete(plain, bucket, upload, [part | {"ChecksumSHA1": b64(b"1" * 20)} for part in parts])
    assert said["Message"] == "The sha1 you specified for part 1 did not match what we received."
    right = [part | {"ChecksumSHA256": b64(digest)} for part, digest in zip(parts, digests, strict=True)]
    with refused("InvalidRequest", 400):
        complete(plain, bucket, upload, right, ChecksumType="FULL_OBJECT")
    done = complete(plain, bucket, upload, right, ChecksumType="COMPOSITE")
    whole = b64(hashlib.sha256(b"".join(digests)).digest()) + "-2"
    assert (done["ChecksumSHA256"], done["ChecksumType"]) == (whole, "COMPOSITE")
    head = plain.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert (head["ChecksumSHA256"], head["ChecksumType"]) == (whole, "COMPOSITE")
    part = plain.get_object(Bucket=bucket, Key="key", PartNumber=2, ChecksumMode="ENABLED")
    assert (part["ChecksumSHA256"], part["ChecksumType"], part["PartsCount"]) == (b64(digests[1]), "COMPOSITE", 2)
    assert part["Body"].read() == b"last"


@pytest.mark.parametrize(("algorithm", "function", "size"), [
    ("CRC32", crt.crc32, 4), ("CRC32C", crt.crc32c, 4), ("CRC64NVME", crt.crc64nvme, 8),
])
def test_full_object_checksums_are_combined(
    plain: BaseClient, bucket: str, algorithm: str, function: Any, size: int
) -> None:
    upload = begin(plain, bucket, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    parts = [put(plain, bucket, upload, 1, PART), put(plain, bucket, upload, 2, b"last")]
    whole = b64(function(PART + b"last").to_bytes(size, "big"))
    with refused("BadDigest", 400):
        complete(plain, bucket, upload, parts, **{f"Checksum{algorithm}": b64(b"\0" * size)})
    done = complete(plain, bucket, upload, parts, **{f"Checksum{algorithm}": whole})
    assert (done[f"Checksum{algorithm}"], done["ChecksumType"]) == (whole, "FULL_OBJECT")


def test_an_upload_without_an_algorithm(plain: BaseClient, bucket: str) -> None:
    upload = begin(plain, bucket)
    sha256 = b64(hashlib.sha256(b"last").digest())
    answer = plain.upload_part(
        Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"last", ChecksumSHA256=sha256
    )
    assert answer["ChecksumSHA256"] == sha256
    (listed,) = plain.list_parts(Bucket=bucket, Key="key", UploadId=upload)["Parts"]
    assert not [name for name in listed if name.startswith("Checksum")]
    part = {"PartNumber": 1, "ETag": answer["ETag"]}
    with refused("InvalidPart", 400):
        complete(plain, bucket, upload, [part | {"ChecksumSHA256": sha256}])
    with refused("InvalidRequest", 400):
        complete(plain, bucket, upload, [part], ChecksumType="COMPOSITE")
    done = complete(plain, bucket, upload, [part])
    assert done["ChecksumCRC64NVME"] == b64(crt.crc64nvme(b"last").to_bytes(8, "big"))
    assert done["ChecksumType"] == "FULL_OBJECT"


def test_the_checksum_that_a_part_was_answered_with_may_be_listed(plain: BaseClient, bucket: str) -> None:
    """The AWS SDK for JavaScript sends back what UploadPart answered, whoever asked for it."""
    upload = begin(plain, bucket)
    answer = plain.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"last")
    part = {"PartNumber": 1, "ETag": answer["ETag"], "ChecksumCRC64NVME": answer["ChecksumCRC64NVME"]}
    with refused("InvalidPart", 400):
        complete(plain, bucket, upload, [part | {"ChecksumCRC64NVME": b64(b"\0" * 8)}])
    assert complete(plain, bucket, upload, [part])["ChecksumCRC64NVME"] == answer["ChecksumCRC64NVME"]


@pytest.mark.parametrize(("said", "code"), [
    ({"ChecksumType": "COMPOSITE"}, "InvalidRequest"),
    ({"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"}, "InvalidRequest"),
    ({"ChecksumAlgorithm": "SHA1", "ChecksumType": "FULL_OBJECT"}, "InvalidRequest"),
    ({"ChecksumAlgorithm": "CRC16"}, "InvalidRequest"),
])
def test_checksums_that_cannot_be(plain: BaseClient, bucket: str, said: dict[str, str], code: str) -> None:
    with refused(code, 400):
        plain.create_multipart_upload(Bucket=bucket, Key="key", **said)


def test_conditions_of_completion(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"before")
    etag = s3.head_object(Bucket=bucket, Key="key")["ETag"]
    upload = begin(s3, bucket)
    parts = [put(s3, bucket, upload, 1, b"new")]
    with refused("PreconditionFailed", 412):
        complete(s3, bucket, upload, parts, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        complete(s3, bucket, upload, parts, IfMatch='"other"')
    s3.put_object(Bucket=bucket, Key="key", Body=b"before")
    with refused("ConditionalRequestConflict", 409) as said:
        complete(s3, bucket, upload, parts, IfMatch=etag)
    assert (said["Key"], said["Condition"]) == ("key", "If-Match")
    s3.delete_object(Bucket=bucket, Key="key")
    with refused("NoSuchKey", 404):
        complete(s3, bucket, upload, parts, IfMatch=etag)
    with refused("ConditionalRequestConflict", 409):
        complete(s3, bucket, upload, parts, IfNoneMatch="*")
    upload = begin(s3, bucket)
    complete(s3, bucket, upload, [put(s3, bucket, upload, 1, b"new")], IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"new"


def test_a_part_is_not_stored_in_the_clear_when_it_was_to_be_encrypted(s3: BaseClient, bucket: str) -> None:
    upload = begin(s3, bucket)
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    with refused("NotImplemented", 501):
        put(s3, bucket, upload, 1, b"x", **key)
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    with refused("NotImplemented", 501):
        s3.upload_part_copy(
            Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/source", **key
        )


def test_conditions_have_no_place_in_parts(s3: BaseClient, bucket: str, server: InProcess) -> None:
    upload = begin(s3, bucket)
    made = client(server.endpoint)

    def add(request: Any, **_: Any) -> None:
        request.headers["if-match"] = '"x"'

    made.meta.events.register("before-sign.s3.UploadPart", add)
    with refused("NotImplemented", 501):
        put(made, bucket, upload, 1, b"x")


@pytest.mark.slow
def test_ten_thousand_parts(s3: BaseClient, bucket: str, server: InProcess) -> None:
    """Complete goes in pages. Parts by reference, so that it does not take 50 GB."""
    if not isinstance(server, InProcess):
        pytest.skip("fills an upload from inside the server")
    from consensus.core.commands import NewContent, PutPart
    from consensus.core.ids import UploadId
    from consensus.core.model import Checksum, Slice
    from consensus.core.results import PartStored

    s3.put_object(Bucket=bucket, Key="source", Body=PART)
    upload = begin(s3, bucket)
    first = put(s3, bucket, upload, 1, PART)

    async def fill() -> None:
        import asyncio

        found = await server.metadata.bucket(bucket)
        assert found is not None
        (part,) = await server.metadata.parts(found.id, "key", UploadId(upload), 0, 10)
        slices = tuple(
            Slice(piece.digest, piece.start, piece.length)
            for piece in await server.metadata.slices(part.content, 0, part.size)
        )
        assert part.checksum is not None
        content = NewContent(size=part.size, etag=part.etag, slices=slices, checksum=Checksum(*part.checksum))
        for numbers in (range(start, min(start + 500, 10_001)) for start in range(2, 10_001, 500)):
            outcomes = await asyncio.gather(*(
                server.metadata.commit(PutPart(
                    bucket=found.id, key="key", upload_id=UploadId(upload), number=number, content=content
                ))
                for number in numbers
            ))
            assert {type(outcome) for outcome in outcomes} == {PartStored}

    server.run(fill())
    parts = [{"PartNumber": number, "ETag": first["ETag"]} for number in range(1, 10_001)]
    complete(s3, bucket, upload, parts)
    head = s3.head_object(Bucket=bucket, Key="key")
    assert head["ContentLength"] == 10_000 * len(PART)
    assert head["ETag"].endswith('-10000"')
    middle = s3.get_object(Bucket=bucket, Key="key", Range=f"bytes={7777 * len(PART) - 2}-{7777 * len(PART) + 1}")
    assert middle["Body"].read() == b"pppp"
    assert s3.get_object(Bucket=bucket, Key="key", PartNumber=9_999)["ContentLength"] == len(PART)
    s3.delete_object(Bucket=bucket, Key="key")


def test_nobody_brings_parts_to_what_will_be_another_accounts(
    s3: BaseClient, other_s3: BaseClient, new_bucket_name: Callable[[], str],
) -> None:
    """Where access lists are on. The bucket's owner may still end it."""
    bucket = new_bucket_name()
    s3.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter")
    s3.put_bucket_acl(Bucket=bucket, GrantFullControl="id=main-id", GrantWrite="id=other-id")
    named = {"Bucket": bucket, "Key": "k", "UploadId": other_s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    etag = other_s3.upload_part(**named, PartNumber=1, Body=b"theirs")["ETag"]
    s3.put_object(Bucket=bucket, Key="ours", Body=b"ours")
    listed = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    attempts: list[Callable[[], Any]] = [
        lambda: s3.upload_part(**named, PartNumber=1, Body=b"ours"),
        lambda: s3.upload_part_copy(**named, PartNumber=1, CopySource={"Bucket": bucket, "Key": "ours"}),
        lambda: s3.complete_multipart_upload(**named, MultipartUpload=listed)]
    for attempt in attempts:
        with refused("AccessDenied", 403):
            attempt()
    assert len(s3.list_parts(**named)["Parts"]) == 1
    other_s3.complete_multipart_upload(**named, MultipartUpload=listed)
    assert other_s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"theirs"
    again = other_s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=again)
