"""Checksums: claims checked for form and against the body, and whole objects combined from parts."""

import base64
import hashlib
import zlib

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.body.checksums import (
    ALGORITHMS,
    Checksum,
    Expected,
    claimed_object,
    for_upload,
    matches,
    mode_enabled,
    of_parts,
    response_headers,
)
from gateway.s3.errors import S3Error

RAW = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "XXHASH64": crt.XXHash.compute_xxhash64,
    "XXHASH3": crt.XXHash.compute_xxhash3_64,
    "XXHASH128": crt.XXHash.compute_xxhash3_128,
}
DATA = b"123456789"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def value(algorithm: str, data: bytes = DATA) -> str:
    return b64(RAW[algorithm](data))


def header(algorithm: str) -> str:
    return f"x-amz-checksum-{algorithm.lower()}"


def hashed(headers: dict[str, str], data: bytes = DATA, trailers: dict[str, str] | None = None):
    hasher = Expected.from_headers(headers).hasher()
    hasher.update(memoryview(data)[:4])
    hasher.update(bytearray(data[4:]))
    return hasher.finish(trailers)


def refused(call) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call()
    return caught.value


def test_known_answers() -> None:
    # The check values of the CRC catalogue for "123456789".
    assert {name: RAW[name](DATA).hex() for name in ("CRC32", "CRC32C", "CRC64NVME")} == {
        "CRC32": "cbf43926", "CRC32C": "e3069283", "CRC64NVME": "ae8b14860a799888",
    }
    # The first ones of xxHash's own specification, of nothing.
    assert RAW["XXHASH64"](b"").hex() == "ef46db3751d8e999"
    assert RAW["XXHASH3"](b"").hex() == "2d06800538d394c2"
    assert RAW["XXHASH128"](b"").hex() == "99aa06d3014798d86001c324468d497f"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_header_is_verified_and_kept(algorithm: str) -> None:
    digests = hashed({header(algorithm): value(algorithm)})
    assert digests.md5 == hashlib.md5(DATA).hexdigest()
    assert digests.checksum == Checksum(algorithm, value(algorithm), "FULL_OBJECT")
    error = refused(lambda: hashed({header(algorithm): value(algorithm, b"other")}))
    assert error.code == "BadDigest"
    assert algorithm in error.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trailer_is_verified_and_kept(algorithm: str) -> None:
    headers = {"x-amz-trailer": header(algorithm), "x-amz-sdk-checksum-algorithm": algorithm.lower()}
    assert hashed(headers, trailers={header(algorithm): value(algorithm)}).checksum.value == value(algorithm)
    wrong = {header(algorithm): value(algorithm, b"other")}
    assert refused(lambda: hashed(headers, trailers=wrong)).code == "BadDigest"
    assert refused(lambda: hashed(headers, trailers={header(algorithm): "????"})).code == "InvalidRequest"
    assert refused(lambda: hashed(headers, trailers={})).code == "MalformedTrailerError"


def test_without_a_claim_it_is_crc64nvme() -> None:
    assert hashed({}).checksum == Checksum("CRC64NVME", "rosUhgp5mIg=", "FULL_OBJECT")
    assert hashed({}, b"").md5 == "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize("headers", [
    {header("CRC32"): value("CRC32"), header("SHA1"): value("SHA1")},
    {header("CRC32"): value("CRC32"), "x-amz-trailer": header("CRC32")},
    {header("CRC32"): ""},
    {header("CRC32"): "AAAA"},
    {header("CRC32"): "AAAAAA="},
    {header("CRC32"): "AAAAAA==x"},
    {header("CRC32"): "AAAAAA==-2"},
    {header("CRC32"): "é"},
    {header("SHA256"): value("SHA1")},
    {"x-amz-checksum-adler": "AAAAAA=="},
    {"x-amz-trailer": "x-amz-checksum-adler"},
    {"x-amz-trailer": "content-type"},
    {"x-amz-trailer": "x-amz-checksum-crc32,x-amz-checksum-sha1"},
    {"x-amz-trailer": "x-amz-checksum-type"},
    {"x-amz-trailer": ""},
    {"x-amz-sdk-checksum-algorithm": "CRC32"},
    {"x-amz-sdk-checksum-algorithm": "CRC32", "content-md5": b64(hashlib.md5(DATA).digest())},
    {"x-amz-sdk-checksum-algorithm": "SHA1", header("CRC32"): value("CRC32")},
    {"x-amz-sdk-checksum-algorithm": "ADLER", header("CRC32"): value("CRC32")},
])
def test_bad_claims(headers: dict[str, str]) -> None:
    assert refused(lambda: Expected.from_headers(headers)).code == "InvalidRequest"


def test_headers_that_are_no_values() -> None:
    names = ("x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type")
    assert Expected.from_headers(dict.fromkeys(names, "ENABLED")) == Expected()


@pytest.mark.parametrize("text", ["", "x", "AAAA", b64(b"x" * 15), b64(b"x" * 17), hashlib.md5(DATA).hexdigest(), "é"])
def test_invalid_content_md5(text: str) -> None:
    error = refused(lambda: Expected.from_headers({"content-md5": text}))
    assert (error.code, error.detail) == ("InvalidDigest", {"Content-MD5": text})


def test_content_md5_is_verified() -> None:
    good, other = b64(hashlib.md5(DATA).digest()), b64(hashlib.md5(b"other").digest())
    assert hashed({"content-md5": good}).md5 == hashlib.md5(DATA).hexdigest()
    error = refused(lambda: hashed({"content-md5": other}))
    wanted = {"ExpectedDigest": base64.b64decode(other).hex(), "CalculatedDigest": good}
    assert (error.code, error.detail) == ("BadDigest", wanted)


def test_some_digest_can_be_required() -> None:
    assert refused(Expected().require).code == "InvalidRequest"
    Expected(md5=b"").require()
    Expected.from_headers({header("CRC32"): value("CRC32")}).require()
    Expected.from_headers({"x-amz-trailer": header("CRC32")}).require()


# Parts


@pytest.mark.parametrize(("claimed", "algorithm", "kind"), [
    ("CRC32", "", ""), ("CRC32", "CRC32", "COMPOSITE"), ("", "", ""), ("", "CRC32", "FULL_OBJECT"),
    ("", "CRC64NVME", "FULL_OBJECT"), ("SHA256", "SHA256", "COMPOSITE"),
])
def test_part_keeps_the_uploads_checksum(claimed: str, algorithm: str, kind: str) -> None:
    headers = {header(claimed): value(claimed)} if claimed else {}
    hasher = Expected.from_headers(headers).part_hasher(algorithm, kind)
    hasher.update(DATA)
    digests = hasher.finish()
    kept = algorithm or "CRC64NVME"
    assert digests.also[0] == Checksum(kept, value(kept))
    assert digests.checksum == Checksum(claimed or kept, value(claimed or kept))


@pytest.mark.parametrize(("claimed", "algorithm", "kind", "message"), [
    ("CRC32", "SHA256", "COMPOSITE", "expected checksum Type: sha256, actual checksum Type: crc32"),
    ("CRC32C", "CRC32", "FULL_OBJECT", "expected checksum Type: crc32, actual checksum Type: crc32c"),
    ("", "SHA256", "COMPOSITE", "expected checksum Type: sha256, actual checksum Type: null"),
])
def test_part_with_another_checksum(claimed: str, algorithm: str, kind: str, message: str) -> None:
    headers = {header(claimed): value(claimed)} if claimed else {}
    error = refused(lambda: Expected.from_headers(headers).part_hasher(algorithm, kind))
    assert error.code == "InvalidRequest"
    assert error.message.endswith(message)


@pytest.mark.parametrize(("algorithm", "kind", "expected"), [
    (None, None, ("", "")), ("crc32", None, ("CRC32", "COMPOSITE")), ("CRC32C", None, ("CRC32C", "COMPOSITE")),
    ("CRC64NVME", None, ("CRC64NVME", "FULL_OBJECT")), ("SHA1", None, ("SHA1", "COMPOSITE")),
    ("SHA256", "COMPOSITE", ("SHA256", "COMPOSITE")), ("CRC32", "FULL_OBJECT", ("CRC32", "FULL_OBJECT")),
    ("CRC32C", "FULL_OBJECT", ("CRC32C", "FULL_OBJECT")),
    (None, "COMPOSITE", "InvalidRequest"), ("CRC64NVME", "COMPOSITE", "InvalidRequest"),
    ("SHA1", "FULL_OBJECT", "InvalidRequest"), ("SHA256", "FULL_OBJECT", "InvalidRequest"),
    ("ADLER", None, "InvalidRequest"), ("CRC32", "WHOLE", "InvalidRequest"), ("SHA512", None, ("SHA512", "COMPOSITE")),
])
def test_what_an_upload_fixes(algorithm: str | None, kind: str | None, expected) -> None:
    given_headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    headers = {name: text for name, text in given_headers.items() if text is not None}
    if isinstance(expected, str):
        assert refused(lambda: for_upload(headers)).code == expected
    else:
        assert for_upload(headers) == expected


@pytest.mark.parametrize("algorithm", [name for name, known in ALGORITHMS.items() if known.combine])
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_full_object_is_the_checksum_of_the_whole(algorithm: str, parts: list[bytes]) -> None:
    combined = of_parts(algorithm, "FULL_OBJECT", [(value(algorithm, part), len(part)) for part in parts])
    assert combined == Checksum(algorithm, value(algorithm, b"".join(parts)), "FULL_OBJECT")


POLYNOMIALS = {"CRC32": (32, 0xEDB88320), "CRC32C": (32, 0x82F63B78), "CRC64NVME": (64, 0x9A6C9329AC4BC9B5)}


def combined_by_definition(algorithm: str, first: int, second: int, size: int) -> int:
    """crc(AB) = crc(A) · x^(8·|B|) mod P + crc(B), in the reflected order of bits."""
    bits, polynomial = POLYNOMIALS[algorithm]

    def times(a: int, b: int) -> int:
        product = 0
        for position in range(bits - 1, -1, -1):
            if a >> position & 1:
                product ^= b
            b = b >> 1 ^ (polynomial if b & 1 else 0)
        return product

    power, square, exponent = 1 << bits - 1, 1 << bits - 2, 8 * size
    while exponent:
        if exponent & 1:
            power = times(power, square)
        square = times(square, square)
        exponent >>= 1
    return times(power, first) ^ second


@pytest.mark.parametrize("algorithm", POLYNOMIALS)
@given(first=st.integers(0, 2**32 - 1), second=st.integers(0, 2**32 - 1), size=st.integers(1, 5 << 40))
def test_combining_holds_for_sizes_nobody_can_read(algorithm: str, first: int, second: int, size: int) -> None:
    width = POLYNOMIALS[algorithm][0] // 8
    parts = [(b64(first.to_bytes(width, "big")), 1), (b64(second.to_bytes(width, "big")), size)]
    expected = combined_by_definition(algorithm, first, second, size)
    assert of_parts(algorithm, "FULL_OBJECT", parts).value == b64(expected.to_bytes(width, "big"))


@pytest.mark.parametrize("algorithm", [name for name, known in ALGORITHMS.items() if "COMPOSITE" in known.kinds])
def test_composite_is_the_checksum_of_checksums(algorithm: str) -> None:
    parts = [b"first", b"second", b""]
    expected = b64(RAW[algorithm](b"".join(RAW[algorithm](part) for part in parts)))
    composite = of_parts(algorithm, "COMPOSITE", [(value(algorithm, part), len(part)) for part in parts])
    assert composite == Checksum(algorithm, f"{expected}-3", "COMPOSITE")
    assert matches((algorithm, f"{expected}-3"), composite)
    assert matches((algorithm, expected), composite)
    assert not matches((algorithm, f"{expected}-2"), composite)
    assert not matches((algorithm, ""), composite)


def test_claim_for_the_whole_object() -> None:
    assert claimed_object({}) is None
    assert claimed_object({"x-amz-checksum-type": "COMPOSITE", header("SHA1"): "x-2"}) == ("SHA1", "x-2")
    assert refused(lambda: claimed_object({header("SHA1"): "x", header("CRC32"): "y"})).code == "InvalidRequest"


def test_answers() -> None:
    assert mode_enabled({"x-amz-checksum-mode": "enabled"})
    assert not mode_enabled({"x-amz-checksum-mode": "no"})
    assert not mode_enabled({})
    assert response_headers(Checksum("CRC32", "AAAAAA==")) == [
        ("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-type", "FULL_OBJECT"),
    ]
