"""From a body to chunks: what is stored, what is owed after a failure (nothing), and how much is held meanwhile."""

import asyncio
import base64
import hashlib
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.core.errors import NoSpace, Unavailable
from consensus.core.results import Malformed
from gateway.auth import PayloadCheck
from gateway.ops.context import Settings
from gateway.ops.uploads.cutting import CHUNKS_PER_PAGE
from gateway.ops.uploads.upload import SMALL_BYTES_MAX, Stored, read_body, store
from gateway.s3.body.checksums import Expected, Hasher
from gateway.s3.body.chunked import Framing
from gateway.s3.errors import S3Error
from tests.unit.gateway.ops.fakes import HOLDER, Metadata, Nodes, Pieces, context, request

pytestmark = pytest.mark.anyio

KIB = 1024


def hasher(headers: dict[str, str] | None = None) -> Hasher:
    return Expected.from_headers(headers or {}).hasher()


def bytes_of(stored: Stored, nodes: Nodes) -> bytes:
    """What the content says, without staged pages."""
    by_digest = {digest: data for (digest, _), data in nodes.chunks.items()}
    return b"".join(
        by_digest[part.digest][part.start : part.start + part.length] for part in stored.content.slices
    )


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def framed(body: bytes, size: int, trailer: str = "") -> list[bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in in_pieces(body, size))
    return in_pieces(chunks + b"0\r\n" + trailer.encode() + b"\r\n", 10_000)


async def test_a_small_body_is_one_chunk_under_its_ticket() -> None:
    metadata, nodes = Metadata(), Nodes()
    stored = await store(context(metadata, nodes), request(Pieces(b"hel", b"lo", length=5)), hasher())
    assert stored.ticket is not None
    assert nodes.chunks == {(hashlib.sha256(b"hello").digest(), stored.ticket): b"hello"}
    assert stored.content.etag == hashlib.md5(b"hello", usedforsecurity=False).hexdigest()
    (chunk,) = stored.content.chunks
    assert (chunk.size, chunk.holders, stored.content.size) == (5, (HOLDER,), 5)
    assert metadata.open == {stored.ticket}


async def test_an_empty_body_needs_no_chunk_and_no_ticket() -> None:
    metadata, nodes = Metadata(), Nodes()
    stored = await store(context(metadata, nodes), request(Pieces(length=0)), hasher())
    assert (stored.content.size, stored.content.slices, stored.ticket) == (0, (), None)
    assert not nodes.chunks
    assert not metadata.open


@given(
    size=st.integers(SMALL_BYTES_MAX + 1, SMALL_BYTES_MAX + 200_000), piece=st.integers(1000, 150_000),
    chunk=st.integers(20_000, 400_000), form=st.sampled_from(["plain", "signed", "framed", "unknown length"]),
)
@settings(max_examples=40, deadline=None)
def test_a_stream_is_cut_into_chunks_of_the_setting(size: int, piece: int, chunk: int, form: str) -> None:
    body = os.urandom(size)
    metadata, nodes = Metadata(), Nodes()
    payload, headers = PayloadCheck(), {}
    pieces, length = in_pieces(body, piece), size
    if form == "signed":
        payload = PayloadCheck(sha256=hashlib.sha256(body).hexdigest())
    elif form == "framed":
        payload = PayloadCheck(framing=Framing(decoded_length=size, may_trail=True))
        pieces = framed(body, piece)
    elif form == "unknown length":
        headers = {"transfer-encoding": "chunked"}
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=chunk), payload=payload)
    sent = Pieces(*pieces, length=None if form == "unknown length" else length)
    stored = asyncio.run(store(ctx, request(sent, headers=headers), hasher()))
    assert bytes_of(stored, nodes) == body
    assert (stored.content.size, stored.content.etag) == (size, hashlib.md5(body, usedforsecurity=False).hexdigest())
    assert [part.length for part in stored.content.slices[:-1]] == [chunk] * ((size - 1) // chunk)
    assert {generation for _, generation in nodes.chunks} == {stored.ticket}


async def test_equal_chunks_are_listed_once() -> None:
    metadata, nodes = Metadata(), Nodes()
    body = b"\0" * (SMALL_BYTES_MAX * 4)
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=SMALL_BYTES_MAX))
    stored = await store(ctx, request(Pieces(body, length=len(body))), hasher())
    assert (len(stored.content.slices), len(stored.content.chunks)) == (4, 1)


async def test_many_chunks_go_in_pages() -> None:
    metadata, nodes = Metadata(), Nodes()
    body = os.urandom(KIB * (2 * CHUNKS_PER_PAGE + 10))
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=KIB))
    stored = await store(ctx, request(Pieces(*in_pieces(body, 50_000), length=len(body))), hasher())
    pages = [command for command, _ in metadata.commands]
    assert [len(page.slices) for page in pages] == [CHUNKS_PER_PAGE, CHUNKS_PER_PAGE]
    assert [page.into for page in pages] == [None, 1001]
    assert stored.content.staged == 1002
    assert len(stored.content.slices) == 10
    assert metadata.beside == [None, 1001, 1002], "each page's ticket is of the session that holds the pages before"
    tickets = [ticket for _, ticket in metadata.commands] + [stored.ticket]
    by_page = [{generation for digest, generation in nodes.chunks
                if digest in {chunk.digest for chunk in page.chunks}} for page in [*pages, stored.content]]
    assert by_page == [{ticket} for ticket in tickets], "a page's chunks are of the generation that its commit brings"
    assert metadata.open == {stored.ticket}


FAILURES = {
    "nodes fail at once": (Nodes(fail=NoSpace("full"), failing=1), NoSpace),
    "nodes fail later": (Nodes(fail=Unavailable("down"), failing=7), Unavailable),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("size", [10, SMALL_BYTES_MAX * 5])
async def test_after_a_failing_node_nothing_is_owed(name: str, size: int) -> None:
    fault, error = FAILURES[name]
    nodes = Nodes(fail=fault.fail, failing=1 if size == 10 else fault.failing)
    metadata = Metadata()
    body = os.urandom(size)
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=100_000))
    with pytest.raises(error):
        await store(ctx, request(Pieces(*in_pieces(body, 70_000), length=size)), hasher())
    assert not metadata.open
    assert not metadata.commands


@pytest.mark.parametrize("fault", ["body ends", "md5", "sha256", "checksum", "trailer", "too long"])
@pytest.mark.parametrize("size", [100, SMALL_BYTES_MAX * 3])
async def test_a_body_that_is_not_what_was_said_is_not_kept(fault: str, size: int) -> None:
    metadata, nodes = Metadata(), Nodes()
    body = os.urandom(size)
    pieces: list[Any] = in_pieces(body, 70_000)
    headers: dict[str, str] = {}
    payload, chosen = PayloadCheck(), Settings(chunk_bytes=100_000)
    code = "BadDigest"
    match fault:
        case "body ends":
            pieces[-1] = S3Error("IncompleteBody")
            code = "IncompleteBody"
        case "md5":
            headers["content-md5"] = base64.b64encode(b"\0" * 16).decode()
        case "sha256":
            payload, code = PayloadCheck(sha256="0" * 64), "XAmzContentSHA256Mismatch"
        case "checksum":
            headers["x-amz-checksum-crc32"] = "AAAAAA=="
        case "trailer":
            headers["x-amz-trailer"] = "x-amz-checksum-crc32"
            framing = Framing(decoded_length=size, may_trail=True, trailers=("x-amz-checksum-crc32",))
            payload = PayloadCheck(framing=framing)
            pieces = framed(body, 64 * KIB, "x-amz-checksum-crc32:AAAAAA==\r\n")
        case "too long":
            chosen, code = Settings(single_put_bytes_max=size - 1), "EntityTooLarge"
            headers["transfer-encoding"] = "chunked"
    ctx = context(metadata, nodes, settings=chosen, payload=payload)
    sent = Pieces(*pieces, length=None if fault == "too long" else size)
    with pytest.raises(S3Error) as caught:
        await store(ctx, request(sent, headers=headers), hasher(headers))
    assert caught.value.code == code
    assert not metadata.open
    assert not metadata.commands


async def test_a_cancelled_upload_owes_nothing() -> None:
    metadata, nodes = Metadata(), Nodes()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    body = os.urandom(3 << 20)
    sent = Pieces(*in_pieces(body, 1 << 20), never, length=10 << 20)
    task = asyncio.create_task(store(context(metadata, nodes), request(sent), hasher()))
    while nodes.writes < 3:
        await asyncio.sleep(0)
    assert metadata.open
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not metadata.open
    assert nodes.aborted == 1


async def test_a_refused_page_ends_the_upload() -> None:
    metadata, nodes = Metadata(outcomes=[Malformed(reason="no")]), Nodes()
    body = os.urandom(KIB * (CHUNKS_PER_PAGE + 10))
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=KIB))
    with pytest.raises(AssertionError):
        await store(ctx, request(Pieces(body, length=len(body))), hasher())
    assert not metadata.open


async def test_pages_of_a_failed_upload_are_abandoned() -> None:
    metadata, nodes = Metadata(), Nodes()
    body = os.urandom(KIB * 5 * CHUNKS_PER_PAGE)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent = Pieces(body, gate, S3Error("IncompleteBody"), length=2 * len(body))
    ctx = context(metadata, nodes, settings=Settings(chunk_bytes=KIB))
    task = asyncio.create_task(store(ctx, request(sent), hasher()))
    while not metadata.commands:
        await asyncio.sleep(0)
    gate.set_result(None)
    with pytest.raises(S3Error):
        await task
    assert metadata.abandoned == [1000 + len(metadata.commands)]
    assert not metadata.open


async def test_lengths_are_judged_before_the_body() -> None:
    metadata, nodes = Metadata(), Nodes()
    ctx = context(metadata, nodes)
    with pytest.raises(S3Error) as caught:
        await store(ctx, request(Pieces(AssertionError("read"), length=(5 << 30) + 1)), hasher())
    assert caught.value.code == "EntityTooLarge"
    with pytest.raises(S3Error) as caught:
        await store(ctx, request(Pieces(AssertionError("read"), length=None)), hasher())
    assert caught.value.code == "MissingContentLength"


async def test_documents_are_verified_too() -> None:
    metadata, nodes = Metadata(), Nodes()
    document = b"<Delete/>"
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    sent = {"content-md5": md5}
    assert await read_body(
        context(metadata, nodes), request(Pieces(document, length=9), headers=sent), 100, digest_required=True
    ) == document
    framing = PayloadCheck(framing=Framing(decoded_length=9, may_trail=True))
    assert await read_body(
        context(metadata, nodes, payload=framing), request(Pieces(*framed(document, 4), length=None)), 100
    ) == document
    for body, headers, code in [
        (b"<delete/>", sent, "BadDigest"), (document, {}, "InvalidRequest"),
        (document * 20, sent, "MaxMessageLengthExceeded"),
    ]:
        with pytest.raises(S3Error) as caught:
            await read_body(
                context(metadata, nodes), request(Pieces(body, length=len(body)), headers=headers), 100,
                digest_required=True,
            )
        assert caught.value.code == code
    with pytest.raises(S3Error) as caught:
        await read_body(
            context(metadata, nodes, payload=PayloadCheck(sha256="0" * 64)), request(Pieces(document, length=9)), 100
        )
    assert caught.value.code == "XAmzContentSHA256Mismatch"
