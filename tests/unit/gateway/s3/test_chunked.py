"""aws-chunked: what comes out is what was put in, or an error; signatures and trailers are enforced."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.body.chunked import (
    CHUNK_HEADER_BYTES_MAX,
    FRAGMENT_BYTES,
    SIGNED_CHUNK_BYTES_MIN,
    TRAILER_BYTES_MAX,
    Framing,
    Signing,
)
from gateway.s3.errors import S3Error
from gateway.s3.signing import sigv4
from tests.signing import ChunkSigner, Keys, scope
from tests.spec_text import Block, blocks

KEYS = Keys()
DATE = "20260102T030405Z"
SEED = hashlib.sha256(b"a request").hexdigest()
CRC = "x-amz-checksum-crc32"
BIG = SIGNED_CHUNK_BYTES_MIN


def decode(framing: Framing, *pieces: bytes) -> tuple[bytes, dict[str, str]]:
    decoder = framing.decoder()
    data = b"".join(bytes(view) for piece in pieces for view in decoder.feed(piece))
    return data, decoder.finish()


def unsigned(length: int, *trailers: str) -> Framing:
    return Framing(decoded_length=length, may_trail=True, trailers=trailers)


def signed(length: int, *trailers: str, may_trail: bool = False, keys: Keys = KEYS) -> Framing:
    key = sigv4.signing_key(keys.secret_key, DATE[:8], keys.region, keys.service)
    signing = Signing(key=key, date=DATE, scope=scope(keys, DATE), seed=SEED)
    return Framing(decoded_length=length, may_trail=may_trail or bool(trailers), trailers=trailers, signing=signing)


def signer() -> ChunkSigner:
    return ChunkSigner(keys=KEYS, date=DATE, seed=SEED)


def refused(framing: Framing, *pieces: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        decode(framing, *pieces)
    assert KEYS.secret_key not in f"{caught.value} {caught.value.detail}"
    return caught.value.code


def in_pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(body) + 1) for cut in cuts} | {len(body)})
    starts = [0, *ends[:-1]]
    return [body[start:end] for start, end in zip(starts, ends, strict=True)]


# The text specification


@pytest.mark.parametrize("block", blocks("aws_chunked/unsigned"), ids=lambda block: block.place)
def test_unsigned_bodies(block: Block) -> None:
    names = block.arguments.get("trailers", "")
    framing = unsigned(int(block.arguments["length"]), *(names.split(",") if names else ()))
    body = b"".join(
        _bytes(line[:-1]) if line.endswith("\\") else _bytes(line) + b"\r\n" for line in block.lines
    )
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        try:
            data, trailers = decode(framing, *pieces)
            lines = [f'data "{_text(data)}"', *[f"trailer {name}={value}" for name, value in trailers.items()]]
        except S3Error as error:
            lines = [f"{error.code} {error.status}"]
        assert "\n".join(lines) == block.expected


def _bytes(text: str) -> bytes:
    return text.encode().replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\\0", b"\0")


def _text(data: bytes) -> str:
    return data.replace(b"\n", b"\\n").replace(b"\r", b"\\r").decode()


# What comes out is what was put in


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(chunks=st.lists(st.binary(min_size=1, max_size=3000), max_size=6), cuts=CUTS)
def test_unsigned_data_survives_any_chunks_and_any_pieces(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(chunks)
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n%s:AAAA\r\n\r\n" % CRC.encode()
    assert decode(unsigned(len(data), CRC), *in_pieces(body, cuts)) == (data, {CRC: "AAAA"})


@given(
    sizes=st.lists(st.integers(BIG, 2 * BIG), max_size=3), last=st.integers(1, BIG), trail=st.booleans(),
    cuts=CUTS, content=st.binary(min_size=1, max_size=64),
)
def test_signed_data_survives_any_chunks_and_any_pieces(
    sizes: list[int], last: int, trail: bool, cuts: list[int], content: bytes
) -> None:
    chunks = [(content * (size // len(content) + 1))[:size] for size in [*sizes, last]]
    chain = signer()
    body = b"".join(chain.chunk(chunk) for chunk in chunks)
    body += chain.last_with_trailers({CRC: "AAAA"}) if trail else chain.last()
    data = b"".join(chunks)
    framing = signed(len(data), CRC) if trail else signed(len(data))
    assert decode(framing, *in_pieces(body, cuts)) == (data, {CRC: "AAAA"} if trail else {})


def test_the_documented_example_of_signed_chunks() -> None:
    """AWS, "Transferring Payload in Multiple Chunks": signatures of the 65 KiB upload."""
    keys = Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    signing = Signing(
        key=sigv4.signing_key(keys.secret_key, "20130524", "us-east-1", "s3"), date="20130524T000000Z",
        scope="20130524/us-east-1/s3/aws4_request",
        seed="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    )
    body = (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + b"a" * 65536
        + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + b"a" * 1024
        + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
    )
    assert len(body) == 66824    # the Content-Length that AWS gives
    framing = Framing(decoded_length=66560, may_trail=False, signing=signing)
    assert decode(framing, body) == (b"a" * 66560, {})


def test_the_documented_example_of_signed_trailers() -> None:
    """AWS, "Signature calculations for trailing headers": LF CRLF ends the trailer, and one CRLF the body."""
    signing = Signing(
        key=sigv4.signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3"),
        date="20130524T000000Z", scope="20130524/us-east-1/s3/aws4_request",
        seed="106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    )
    body = (
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + b"a" * 65536
        + b"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + b"a" * 1024
        + b"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
        b"x-amz-checksum-crc32c:sOO8/Q==\n\r\n"
        b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n"
    )
    framing = Framing(decoded_length=66560, may_trail=True, trailers=("x-amz-checksum-crc32c",), signing=signing)
    for ending in (b"", b"\r\n"):
        assert decode(framing, body + ending) == (b"a" * 66560, {"x-amz-checksum-crc32c": "sOO8/Q=="})


# Signatures are enforced


def good_body(data: bytes = b"d" * BIG) -> bytes:
    chain = signer()
    return chain.chunk(data) + chain.last_with_trailers({CRC: "AAAA"})


@given(at=st.integers(0, 1 << 30), flip=st.integers(1, 255))
def test_no_changed_byte_of_a_signed_body_goes_unseen(at: int, flip: int) -> None:
    bad = bytearray(good_body())
    bad[at % len(bad)] ^= flip
    try:
        decoded = decode(signed(BIG, CRC), bytes(bad))
    except S3Error:
        return
    assert decoded == (b"d" * BIG, {CRC: "AAAA"})    # a letter's case in a size or name may differ: it means the same


@given(end=st.integers(0, 1 << 30))
def test_no_shortened_body_is_complete(end: int) -> None:
    good = good_body()
    end %= len(good) - len(b"\r\n")     # without the very last CRLF all has been verified
    assert refused(signed(BIG, CRC), good[:end]) == "IncompleteBody"


def test_wrong_signatures() -> None:
    chain = signer()
    first, second, last = chain.chunk(b"a" * BIG), chain.chunk(b"b" * BIG), chain.last()
    framing = signed(2 * BIG)
    assert decode(framing, first, second, last)[0] == b"a" * BIG + b"b" * BIG
    assert refused(framing, second, first, last) == "SignatureDoesNotMatch"
    assert refused(framing, first, first, last) == "SignatureDoesNotMatch"
    assert refused(framing, first.replace(b"aaa", b"aab", 1), second, last) == "SignatureDoesNotMatch"
    zeros = re.sub(rb"chunk-signature=\w+", b"chunk-signature=" + b"0" * 64, last)
    assert refused(framing, first, second, zeros) == "SignatureDoesNotMatch"
    assert refused(signed(2 * BIG, keys=Keys(secret_key="another")), first, second, last) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "extension", [b"", b";", b";chunk-signature", b";chunk-signature=", b";x=1", b";chunk-signature=\xff"]
)
def test_chunks_without_signature_are_refused(extension: bytes) -> None:
    body = b"5%s\r\nhello\r\n0%s\r\n\r\n" % (extension, extension)
    assert refused(signed(5), body) == "SignatureDoesNotMatch"


def test_last_chunk_without_signature_is_refused() -> None:
    assert refused(signed(5), signer().chunk(b"hello"), b"0\r\n\r\n") == "SignatureDoesNotMatch"


def test_a_signed_body_of_a_kind_without_trailers_has_none() -> None:
    chain = signer()
    body = chain.chunk(b"hello") + chain.last_with_trailers({CRC: "AAAA"})
    assert refused(signed(5), body) == "IncompleteBody"


def test_trailer_signature_is_required_and_checked() -> None:
    chain = signer()
    head = chain.chunk(b"hello")
    tail = chain.last_with_trailers({CRC: "AAAA"})
    signature_line = re.compile(rb"x-amz-trailer-signature:\w+\r\n")
    framing = signed(5, CRC)
    assert decode(framing, head, tail) == (b"hello", {CRC: "AAAA"})
    assert refused(framing, head, signature_line.sub(b"", tail)) == "SignatureDoesNotMatch"
    assert refused(framing, head, tail.replace(b"AAAA", b"AAAB")) == "SignatureDoesNotMatch"
    wrong = signature_line.sub(b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n", tail)
    assert refused(framing, head, wrong) == "SignatureDoesNotMatch"
    after = tail[:-2] + CRC.encode() + b":BBBB\r\n\r\n"
    assert refused(framing, head, after) == "MalformedTrailerError"
    assert refused(signed(5, may_trail=True), head, tail) == "MalformedTrailerError"


def test_declared_trailers_must_come() -> None:
    chain = signer()
    head = chain.chunk(b"hello")
    assert refused(signed(5, CRC), head, chain.last_with_trailers({})) == "MalformedTrailerError"


def test_small_chunks_only_at_the_end() -> None:
    chain = signer()
    body = chain.chunk(b"a" * BIG) + chain.chunk(b"b" * (BIG - 1)) + chain.chunk(b"c") + chain.last()
    with pytest.raises(S3Error) as caught:
        decode(signed(2 * BIG), body)
    assert (caught.value.code, caught.value.status) == ("InvalidChunkSizeError", 400)
    assert caught.value.detail == {"Chunk": 3, "BadChunkSize": BIG - 1}       # where it is noticed, as AWS counts


@pytest.mark.parametrize(("said", "sent"), [(3, 5), (7, 5)])
def test_the_lengths_that_differ_are_told_where_chunks_are_signed(said: int, sent: int) -> None:
    chain = signer()
    with pytest.raises(S3Error) as caught:
        decode(signed(said), chain.chunk(b"h" * sent) + chain.last())
    assert caught.value.code == "IncompleteBody"
    assert caught.value.detail == {"NumberBytesExpected": said, "NumberBytesProvided": sent}


# Limits


def test_lines_are_bounded() -> None:
    assert refused(unsigned(5), b"5" * (CHUNK_HEADER_BYTES_MAX + 2)) == "IncompleteBody"
    assert refused(unsigned(5), b"0" * CHUNK_HEADER_BYTES_MAX, b"0" * 10) == "IncompleteBody"
    assert refused(unsigned(5), b"5;" + b"x" * CHUNK_HEADER_BYTES_MAX + b"\r\nhello\r\n0\r\n\r\n") == "IncompleteBody"
    padded = b"0" * (CHUNK_HEADER_BYTES_MAX - 1) + b"5\r\nhello\r\n0\r\n\r\n"
    assert decode(unsigned(5), padded) == (b"hello", {})


def test_trailers_are_bounded() -> None:
    long = b"0\r\n" + CRC.encode() + b":" + b"A" * TRAILER_BYTES_MAX
    assert refused(unsigned(0, CRC), long + b"\r\n\r\n") == "MalformedTrailerError"
    assert refused(unsigned(0, CRC), long + b"A" * TRAILER_BYTES_MAX) == "MalformedTrailerError"


def test_a_chunk_above_the_decoded_length_is_refused_at_its_header() -> None:
    decoder = unsigned(5).decoder()
    with pytest.raises(S3Error, match="IncompleteBody"):
        decoder.feed(b"6\r\n")


def test_data_is_views_of_what_was_fed() -> None:
    body = bytearray(b"1000\r\n" + b"d" * 0x1000 + b"\r\n0\r\n\r\n")
    (view,) = unsigned(0x1000).decoder().feed(body)
    body[10] = ord("!")
    assert bytes(view[:5]) == b"dddd!"


def test_tiny_chunks_give_few_views() -> None:
    decoder = unsigned(10 * FRAGMENT_BYTES).decoder()
    views = decoder.feed(b"1\r\nx\r\n" * (10 * FRAGMENT_BYTES) + b"0\r\n\r\n")
    assert b"".join(views) == b"x" * (10 * FRAGMENT_BYTES)
    assert len(views) == 1
    assert decoder.finish() == {}


def test_nothing_may_be_fed_after_an_error() -> None:
    decoder = unsigned(5).decoder()
    with pytest.raises(S3Error):
        decoder.feed(b"nonsense\r\n")
    with pytest.raises(AssertionError):
        decoder.feed(b"5\r\n")
    with pytest.raises(S3Error, match="IncompleteBody"):
        decoder.finish()
