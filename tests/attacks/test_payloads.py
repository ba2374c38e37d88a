"""Attacks through bodies: chunks that nobody signed, digests that don't fit, lengths that lie, bodies without end."""

import base64
import gzip
import hashlib
import time
import zlib

import pytest

from tests import signing
from tests.attacks.attacker import VICTIM, Attacker, both_schemes
from tests.clients.wire import Answer, Wire, http_chunks, unsigned_chunks

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

DATA = bytes(range(256)) * 1024                     # 256 KiB and more: a stream, not one piece
SMALL = b"hello"
CHUNK = 64 * 1024


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


class Chunks:
    """A signed aws-chunked body that may be spoilt; and the headers that announce it."""

    def __init__(self, attacker: Attacker, path: str, data: bytes, *, trailer: bool = False) -> None:
        headers = {"x-amz-decoded-content-length": str(len(data)), "content-encoding": "aws-chunked"}
        if trailer:
            headers["x-amz-trailer"] = "x-amz-checksum-crc32"
        self.headers = attacker.wire.signed("PUT", path, headers, payload=SIGNED_TRAILER if trailer else SIGNED)
        self.signer = signing.ChunkSigner(
            attacker.keys, self.headers["x-amz-date"], signing.signature_of(self.headers))
        self.pieces = [self.signer.chunk(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
        self.pieces.append(
            self.signer.last_with_trailers({"x-amz-checksum-crc32": crc32(data)}) if trailer else self.signer.last())


def put(attacker: Attacker, path: str, headers: dict[str, str], body: bytes) -> Answer:
    return attacker.send("PUT", path, {**headers, "content-length": str(len(body))}, body)


def spoil_signature(piece: bytes) -> bytes:
    head, _, rest = piece.partition(b"\r\n")
    return head[:-1] + (b"0" if head[-1:] != b"0" else b"1") + b"\r\n" + rest


def without_signature(piece: bytes) -> bytes:
    head, _, rest = piece.partition(b"\r\n")
    return head.partition(b";")[0] + b"\r\n" + rest


SPOILT = {
    "first chunk's signature": lambda p: [spoil_signature(p[0]), *p[1:]],
    "last data chunk's signature": lambda p: [*p[:-2], spoil_signature(p[-2]), p[-1]],
    "zero chunk's signature": lambda p: [*p[:-1], spoil_signature(p[-1])],
    "no signature on a chunk": lambda p: [p[0], without_signature(p[1]), *p[2:]],
    "no signature at all": lambda p: [without_signature(piece) for piece in p],
    "a byte of data": lambda p: [p[0][:-3] + b"X\r\n", *p[1:]],
    "two chunks swapped": lambda p: [p[1], p[0], *p[2:]],
    "a chunk twice": lambda p: [p[0], p[0], *p[2:]],
}
CUT = {
    "no zero chunk": lambda p: p[:-1],
    "no last data chunk": lambda p: p[:-2],
    "an end in a chunk": lambda p: [p[0], p[1][:100]],
    "an end in a chunk's head": lambda p: [p[0], p[1][:7]],
    "nothing": lambda p: [],
    "more after the end": lambda p: [*p, b"more"],
    "another chunk after the end": lambda p: [*p, p[0]],
}


@both_schemes
@pytest.mark.parametrize("size", [len(DATA), 2 * CHUNK])
def test_4_chunk_signatures(attacker: Attacker, size: int) -> None:
    path = f"{attacker.bucket}/planted"
    data = DATA[:size]
    for what, spoil in SPOILT.items():
        chunks = Chunks(attacker, path, data)
        answer = put(attacker, path, chunks.headers, b"".join(spoil(chunks.pieces)))
        assert (answer.status, answer.element("Code")) == (403, "SignatureDoesNotMatch"), what
        attacker.decent(answer)
    for what, cut in CUT.items():
        chunks = Chunks(attacker, path, data)
        answer = put(attacker, path, chunks.headers, b"".join(cut(chunks.pieces)))
        assert (answer.status, answer.element("Code")) == (400, "IncompleteBody"), what
        attacker.decent(answer)
    chunks = Chunks(attacker, path, data)
    assert put(attacker, path, chunks.headers, b"".join(chunks.pieces)).status == 200, "the control must pass"
    attacker.stored.add("planted")


@both_schemes
def test_4_chunk_signatures_of_parts(attacker: Attacker) -> None:
    begun = attacker.ask("POST", f"{attacker.bucket}/planted?uploads")
    upload = f"{attacker.bucket}/planted?partNumber=1&uploadId={begun.element('UploadId')}"
    chunks = Chunks(attacker, upload, DATA)
    body = b"".join([chunks.pieces[0], spoil_signature(chunks.pieces[1]), *chunks.pieces[2:]])
    attacker.refused(put(attacker, upload, chunks.headers, body), "SignatureDoesNotMatch", 403)
    listed = attacker.ask("GET", f"{attacker.bucket}/planted?uploadId={begun.element('UploadId')}")
    assert "<Part>" not in listed.text
    attacker.ask("DELETE", f"{attacker.bucket}/planted?uploadId={begun.element('UploadId')}")


def test_4_a_seed_of_another_request(attacker: Attacker) -> None:
    """Chunks signed for one key don't fit under another, nor does the kind without signatures take their place."""
    path = f"{attacker.bucket}/planted"
    chunks = Chunks(attacker, f"{attacker.bucket}/other", SMALL)
    headers = attacker.wire.signed("PUT", path, {"x-amz-decoded-content-length": "5"}, payload=SIGNED)
    attacker.refused(put(attacker, path, headers, b"".join(chunks.pieces)), "SignatureDoesNotMatch", 403)
    answer = put(attacker, path, {**headers, "x-amz-content-sha256": UNSIGNED_TRAILER}, unsigned_chunks(SMALL, {}))
    attacker.refused(answer, "SignatureDoesNotMatch", 403)
    answer = attacker.anonymous("PUT", path, {
        "x-amz-content-sha256": SIGNED, "x-amz-decoded-content-length": "5"}, b"".join(chunks.pieces))
    assert answer.status in (400, 403)
    v2 = signing.sign_request_v2("PUT", attacker.target.url + path, {
        "x-amz-content-sha256": SIGNED, "x-amz-decoded-content-length": "5"}, keys=attacker.keys, now_s=time.time())
    attacker.refused(put(attacker, path, v2, b"".join(chunks.pieces)), "InvalidRequest", 400)


@both_schemes
@pytest.mark.parametrize("data", [SMALL, DATA])
def test_5_payload_hash(attacker: Attacker, data: bytes) -> None:
    path = f"{attacker.bucket}/planted"
    for method, target in (("PUT", path), ("PUT", f"{attacker.bucket}x"), ("POST", f"{attacker.bucket}?delete")):
        headers = {"content-md5": base64.b64encode(hashlib.md5(data).digest()).decode()} if "?" in target else {}
        signed = attacker.wire.signed(method, target, headers, payload=hashlib.sha256(b"other").hexdigest())
        answer = attacker.send(method, target, {**signed, "content-length": str(len(data))}, data)
        if data is DATA and target != path:
            attacker.refused(answer, ("MalformedXML", "XAmzContentSHA256Mismatch", "MaxMessageLengthExceeded"), 400)
        else:
            attacker.refused(answer, "XAmzContentSHA256Mismatch", 400)


@pytest.mark.parametrize("value", [
    "unsigned-payload", "UNSIGNED PAYLOAD", "streaming-unsigned-payload-trailer", "STREAMING-UNSIGNED-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER-X", "", "0" * 63, "0" * 65, "g" * 64, "e3b0c442", "é" * 32, "none",
])
def test_5_unknown_payload_kinds(attacker: Attacker, value: str) -> None:
    path = f"{attacker.bucket}/planted"
    text = value.encode().decode("latin-1")
    headers = attacker.wire.signed("PUT", path, {"x-amz-content-sha256": text})
    attacker.refused(put(attacker, path, headers, SMALL), "InvalidArgument", 400)


TRAILERS: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "wrong": (b"x-amz-checksum-crc32:AAAAAA==\r\n", "x-amz-checksum-crc32", ("BadDigest",)),
    "missing": (b"", "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "other than announced": (
        b"x-amz-checksum-crc32c:AAAAAA==\r\n", "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "not announced": (b"x-amz-checksum-crc32:NhCmhg==\r\n", "", ("MalformedTrailerError",)),
    "twice": (b"x-amz-checksum-crc32:NhCmhg==\r\n" * 2, "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "no base64": (b"x-amz-checksum-crc32:!!!\r\n", "x-amz-checksum-crc32", ("InvalidRequest",)),
    "too short": (b"x-amz-checksum-crc32:NhCm\r\n", "x-amz-checksum-crc32", ("InvalidRequest",)),
    "empty": (b"x-amz-checksum-crc32:\r\n", "x-amz-checksum-crc32", ("InvalidRequest",)),
    "no colon": (b"x-amz-checksum-crc32\r\n", "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "another header": (b"x-amz-acl:public-read\r\n", "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "endless": (b"x-amz-checksum-crc32:" + b"A" * 100_000, "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "many": (b"".join(b"x-amz-a%d:b\r\n" % n for n in range(5000)), "x-amz-checksum-crc32", ("MalformedTrailerError",)),
    "announced an ACL": (b"x-amz-acl:public-read\r\n", "x-amz-acl", ("InvalidRequest",)),
    "announced two": (b"x-amz-checksum-crc32:NhCmhg==\r\n", "x-amz-checksum-crc32,x-amz-checksum-sha1",
                      ("InvalidRequest",)),
    "announced an unknown one": (b"x-amz-checksum-x:NhCmhg==\r\n", "x-amz-checksum-x", ("InvalidRequest",)),
}


@both_schemes
@pytest.mark.parametrize("what", TRAILERS)
def test_6_trailers(attacker: Attacker, what: str) -> None:
    line, announced, codes = TRAILERS[what]
    path = f"{attacker.bucket}/planted"
    for body in (b"5\r\nhello\r\n0\r\n" + line + b"\r\n",):
        headers = {"x-amz-decoded-content-length": "5"} | ({"x-amz-trailer": announced} if announced else {})
        signed = attacker.wire.signed("PUT", path, headers, payload=UNSIGNED_TRAILER)
        attacker.refused(put(attacker, path, signed, body), codes, 400)
        framed = attacker.send("PUT", path, {**signed, "transfer-encoding": "chunked"}, http_chunks([body]))
        attacker.refused(framed, codes, 400)


def test_6_a_trailer_beside_a_checksum_header(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    headers = {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32",
               "x-amz-checksum-crc32": crc32(SMALL)}
    signed = attacker.wire.signed("PUT", path, headers, payload=UNSIGNED_TRAILER)
    body = unsigned_chunks(SMALL, {"x-amz-checksum-crc32": crc32(SMALL)})
    attacker.refused(put(attacker, path, signed, body), "InvalidRequest", 400)


def test_6_a_trailer_where_none_can_come(attacker: Attacker) -> None:
    """What a header announces to vouch for the body must not be forgotten because the body has no place for it."""
    path = f"{attacker.bucket}/planted"
    for payload in (signing.UNSIGNED, hashlib.sha256(SMALL).hexdigest(), SIGNED):
        headers = attacker.wire.signed("PUT", path, {
            "x-amz-trailer": "x-amz-checksum-crc32", "x-amz-decoded-content-length": "5"}, payload=payload)
        attacker.refused(put(attacker, path, headers, SMALL), "InvalidRequest", 400)


@both_schemes
def test_6_trailer_signatures(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    for old, new, codes in (
        (b"x-amz-trailer-signature:", b"x-amz-trailer-signature:0", ("SignatureDoesNotMatch",)),
        (crc32(DATA).encode(), crc32(SMALL).encode(), ("SignatureDoesNotMatch", "BadDigest")),
        (b"x-amz-trailer-signature", b"x-amz-trailer-sig", ("MalformedTrailerError", "SignatureDoesNotMatch")),
    ):
        chunks = Chunks(attacker, path, DATA, trailer=True)
        assert old in chunks.pieces[-1]
        answer = put(attacker, path, chunks.headers, b"".join(chunks.pieces[:-1]) + chunks.pieces[-1].replace(old, new))
        assert answer.element("Code") in codes, answer
        assert answer.status == (403 if answer.element("Code") == "SignatureDoesNotMatch" else 400)


@pytest.mark.parametrize("where", ["complete", "delete", "bucket"])
def test_6_trailers_of_documents(attacker: Attacker, where: str) -> None:
    """Not only objects come with trailers."""
    if where == "complete":
        begun = attacker.ask("POST", f"{attacker.bucket}/planted?uploads").element("UploadId")
        method, path = "POST", f"{attacker.bucket}/planted?uploadId={begun}"
        document = b"<CompleteMultipartUpload/>"
    elif where == "delete":
        method, path = "POST", f"{attacker.bucket}?delete"
        document = b"<Delete><Object><Key>victim</Key></Object></Delete>"
    else:
        method, path = "PUT", f"{attacker.bucket}x"
        document = b"<CreateBucketConfiguration/>"
    headers = {"x-amz-decoded-content-length": str(len(document)), "x-amz-trailer": "x-amz-checksum-crc32"}
    signed = attacker.wire.signed(method, path, headers, payload=UNSIGNED_TRAILER)
    for value, code in (("AAAAAA==", "BadDigest"), ("?", "InvalidRequest")):
        body = unsigned_chunks(document, {"x-amz-checksum-crc32": value})
        answer = attacker.send(method, path, {**signed, "content-length": str(len(body))}, body)
        attacker.refused(answer, code, 400)
    if where == "complete":
        attacker.ask("DELETE", path)
    if where == "bucket":
        attacker.refused(attacker.ask("GET", path), "NoSuchBucket", 404)


@pytest.mark.parametrize(("length", "code", "status"), [
    ("4", "IncompleteBody", 400), ("6", "IncompleteBody", 400), ("0", "IncompleteBody", 400),
    *[(text, "MissingContentLength", 411) for text in ("-1", "+5", "5.0", "0x5", "", "five", "5,5", "٥", None)],
    ("9" * 4000, "InvalidArgument", 400), (str(6 << 40), "EntityTooLarge", 400),
])
def test_7_decoded_length(attacker: Attacker, length: str | None, code: str, status: int) -> None:
    path = f"{attacker.bucket}/planted"
    headers = {} if length is None else {"x-amz-decoded-content-length": length.encode().decode("latin-1")}
    for payload, body in ((UNSIGNED_TRAILER, unsigned_chunks(SMALL, {})), (SIGNED, None)):
        signed = attacker.wire.signed("PUT", path, headers, payload=payload)
        if body is None:
            signer = signing.ChunkSigner(attacker.keys, signed["x-amz-date"], signing.signature_of(signed))
            body = signer.chunk(SMALL) + signer.last()
        attacker.refused(put(attacker, path, signed, body), code, status)


def test_32_lengths_of_bodies(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    signed = attacker.wire.signed("PUT", path, payload=signing.UNSIGNED)
    attacker.refused(attacker.send("PUT", path, signed), "MissingContentLength", 411)
    for length in (5 * 2**30 + 1, 6 * 2**40, 2**62):
        answer = attacker.send("PUT", path, {**signed, "content-length": str(length)})
        attacker.refused(answer, "EntityTooLarge", 400)
    sixty_tib = attacker.wire.signed("PUT", path, {"x-amz-decoded-content-length": str(60 << 40)},
                                     payload=UNSIGNED_TRAILER)
    attacker.refused(put(attacker, path, sixty_tib, b""), ("EntityTooLarge", "InvalidArgument"), 400)


@pytest.mark.parametrize("sent", [0, 3, 300_000])
def test_32_a_body_that_ends_too_early(attacker: Attacker, sent: int) -> None:
    """Over http only: TLS has no half-closed connections, there the client is gone."""
    path = f"{attacker.bucket}/planted"
    body = bytes(sent)
    signed = attacker.wire.signed("PUT", path, payload=signing.UNSIGNED)
    for more in ({"content-length": str(sent + 10)}, {"transfer-encoding": "chunked"}):
        head = "".join(f"{name}: {value}\r\n" for name, value in (signed | more).items())
        framed = body if "content-length" in more or not body else b"%x\r\n%s\r\n" % (len(body), body)
        request = f"PUT {path} HTTP/1.1\r\n{head}\r\n".encode() + framed
        answer = attacker.raw(request, half_close=True)
        assert b" 400 " in answer.split(b"\r\n")[0], answer
        assert b"<Code>IncompleteBody</Code>" in answer


@both_schemes
def test_32_a_client_that_hangs_up(attacker: Attacker) -> None:
    """Nothing may be stored of what was not whole, whatever was announced."""
    path = f"{attacker.bucket}/planted"
    for sent, more in ((DATA[:1000], {"content-length": "1001"}), (DATA * 5, {"content-length": str(len(DATA) * 6)}),
                       (b"5\r\nhello\r\n", {"transfer-encoding": "chunked"})):
        wire = Wire(attacker.target)
        wire.begin("PUT", path, attacker.wire.signed("PUT", path, payload=signing.UNSIGNED) | more)
        wire.more(sent)
        wire.close()
    for cut in (1, 5, 20):
        body = unsigned_chunks(DATA, {"x-amz-checksum-crc32": crc32(DATA)})
        headers = {"x-amz-decoded-content-length": str(len(DATA)), "x-amz-trailer": "x-amz-checksum-crc32"}
        wire = Wire(attacker.target)
        wire.begin("PUT", path, attacker.wire.signed("PUT", path, headers, payload=UNSIGNED_TRAILER)
                   | {"content-length": str(len(body))})
        wire.more(body[:-cut])
        wire.close()
    attacker.refused(attacker.ask("GET", path), "NoSuchKey", 404)


@both_schemes
def test_32_an_endless_document(attacker: Attacker) -> None:
    """Chunks without announced length where a document is expected: refused once they pass its limit."""
    path = f"{attacker.bucket}?delete"
    signed = attacker.wire.signed("POST", path, {"content-md5": base64.b64encode(bytes(16)).decode()},
                                  payload=signing.UNSIGNED) | {"transfer-encoding": "chunked"}
    wire = Wire(attacker.target)
    wire.begin("POST", path, signed)
    for _ in range(128):
        wire.more(b"%x\r\n%s\r\n" % (CHUNK, b" " * CHUNK))
    answer = wire.receive("POST")          # without the limit, the server would still wait for the end
    attacker.refused(answer, ("EntityTooLarge", "MaxMessageLengthExceeded"), 400)
    wire.close()


@both_schemes
def test_35_expect_without_right(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    for headers in (
        {"host": attacker.target.netloc},
        signing.sign_request("PUT", attacker.target.url + path, payload=signing.UNSIGNED, now_s=time.time(),
                             keys=signing.Keys(access_key=attacker.keys.access_key, secret_key="x")),
    ):
        wire = Wire(attacker.target)
        wire.begin("PUT", path, {**headers, "content-length": str(1 << 30), "expect": "100-continue"})
        answer = wire.receive("PUT")
        attacker.refused(answer, ("AccessDenied", "SignatureDoesNotMatch"), 403)
        assert answer.headers["connection"] == "close"
        wire.close()


def test_50_content_encoding_is_never_undone(attacker: Attacker) -> None:
    """A bomb stays what it is: so many bytes of data with a label."""
    bomb = gzip.compress(bytes(64 << 20), 9)
    for encoding, name in (("gzip", "a"), ("gzip, gzip", "b"), ("br", "c"), ("identity", "d")):
        path = f"{attacker.bucket}/{name}"
        assert attacker.ask("PUT", path, {"content-encoding": encoding}, body=bomb).status == 200
        back = attacker.ask("GET", path)
        assert (back.body, back.headers["content-encoding"]) == (bomb, encoding)
        attacker.stored.add(name)
    document = gzip.compress(b"<Delete><Object><Key>victim</Key></Object></Delete>")
    answer = attacker.ask("POST", f"{attacker.bucket}?delete", {
        "content-encoding": "gzip", "content-md5": base64.b64encode(hashlib.md5(document).digest()).decode()},
        body=document)
    attacker.refused(answer, "MalformedXML", 400)
    assert attacker.ask("GET", attacker.victim).body == VICTIM


CHECKSUMS: dict[str, dict[str, str]] = {
    "wrong": {"x-amz-checksum-crc32": "AAAAAA=="},
    "wrong sha256": {"x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode()},
    "no base64": {"x-amz-checksum-crc32": "????"},
    "wrong size": {"x-amz-checksum-sha1": "AAAAAA=="},
    "unknown": {"x-amz-checksum-rot13": "AAAAAA=="},
    "two": {"x-amz-checksum-crc32": crc32(SMALL), "x-amz-checksum-sha1": base64.b64encode(bytes(20)).decode()},
    "named only": {"x-amz-sdk-checksum-algorithm": "CRC32"},
    "another named": {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": crc32(SMALL)},
    "md5 wrong": {"content-md5": base64.b64encode(bytes(16)).decode()},
    "md5 empty": {"content-md5": ""},
    "md5 hex": {"content-md5": hashlib.md5(SMALL).hexdigest()},
    "md5 not ascii": {"content-md5": "\xe9"},
}


@pytest.mark.parametrize("what", CHECKSUMS)
def test_checksums_that_do_not_hold(attacker: Attacker, what: str) -> None:
    answer = attacker.ask("PUT", f"{attacker.bucket}/planted", CHECKSUMS[what], body=SMALL)
    codes = ("BadDigest",) if what.partition(" ")[0] == "wrong" or what == "md5 wrong" else (
        "InvalidRequest", "InvalidDigest")
    attacker.refused(answer, ("InvalidRequest",) if what == "wrong size" else codes, 400)
