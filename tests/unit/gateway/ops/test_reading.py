"""Which bytes come out, from which slices, and what happens when they are not there."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.core.errors import Corrupt
from consensus.core.ids import ContentId, Generation, NodeId, SessionId, VersionId, digest
from consensus.core.model import LocatedSlice, ObjectVersion
from gateway.ops.objects.reading import INLINE_BYTES_MAX, get_object, open_body
from gateway.s3.errors import S3Error
from tests.unit.gateway.ops.fakes import Metadata, Nodes, context, request

pytestmark = pytest.mark.anyio

CONTENT = ContentId(5)
GENERATION = Generation(SessionId(1), 1)


def stored(nodes: Nodes, sizes: list[int]) -> tuple[bytes, list[LocatedSlice]]:
    """Slices of these sizes, each out of the middle of a chunk; and the bytes that they make up."""
    whole, slices = b"", []
    for size in sizes:
        data = os.urandom(size + 7)
        nodes.chunks[digest(data), GENERATION] = data
        whole += data[3 : 3 + size]
        slices.append(LocatedSlice(digest(data), 3, size, GENERATION, len(data), (NodeId("n1"),)))
    return whole, slices


async def read(body: bytes | AsyncIterator[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join([piece async for piece in body])


@given(
    sizes=st.lists(st.integers(1, 120_000), min_size=1, max_size=8), known=st.integers(0, 8),
    per_call=st.integers(1, 4), local=st.booleans(), data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_range_is_exact(sizes: list[int], known: int, per_call: int, local: bool, data: Any) -> None:
    nodes = Nodes(local=local)
    whole, slices = stored(nodes, sizes)
    # A content has more than one page of slices only when it is large, so a small range always fits one look.
    metadata = Metadata(contents={CONTENT: slices}, slices_per_call=per_call if len(whole) > INLINE_BYTES_MAX else 256)
    start = data.draw(st.integers(0, len(whole) - 1))
    least = 1 if metadata.slices_per_call == 256 else min(INLINE_BYTES_MAX + 1, len(whole) - start)
    length = data.draw(st.integers(least, len(whole) - start))
    if length <= INLINE_BYTES_MAX:
        metadata.slices_per_call = 256
    ctx = context(metadata, nodes)

    async def run() -> bytes:
        return await read(await open_body(ctx, CONTENT, slices[:known], start, length))

    assert asyncio.run(run()) == whole[start : start + length]


def version(content: int, size: int, order: int) -> ObjectVersion:
    return ObjectVersion(
        key="key", version_id=VersionId("null"), order=order, modified_ms=0, content=ContentId(content), size=size,
        etag="e" * 32,
    )


@pytest.mark.parametrize("size", [1000, INLINE_BYTES_MAX + 1])
async def test_an_object_that_is_replaced_while_it_is_opened_is_looked_up_again(size: int) -> None:
    nodes = Nodes(local=False)
    gone, new = stored(nodes, [size]), stored(nodes, [size + 1])
    metadata = Metadata(
        versions=[version(1, size, 1), version(2, size + 1, 2)], contents={ContentId(1): gone[1], ContentId(2): new[1]}
    )
    del nodes.chunks[gone[1][0].digest, GENERATION]
    reply = await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))
    assert await read(reply.body) == new[0]
    assert reply.length == size + 1
    assert dict(reply.headers)["accept-ranges"] == "bytes"


@pytest.mark.parametrize("size", [1000, INLINE_BYTES_MAX + 1])
async def test_damage_is_an_error_and_never_not_found(size: int) -> None:
    nodes = Nodes(local=False)
    whole, slices = stored(nodes, [size])
    metadata = Metadata(versions=[version(1, size, 1)], contents={ContentId(1): slices})
    nodes.chunks.clear()
    with pytest.raises(Corrupt):
        await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))
    assert len(whole) == size


async def test_a_content_that_gives_too_little_is_an_error() -> None:
    nodes = Nodes()
    _, slices = stored(nodes, [1000])
    metadata = Metadata(versions=[version(1, 1001, 1)], contents={ContentId(1): slices})
    with pytest.raises(Corrupt):
        await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))


async def test_a_stream_that_fails_later_raises_in_the_middle() -> None:
    nodes = Nodes(local=False)
    whole, slices = stored(nodes, [200_000, 200_000, 200_000])
    del nodes.chunks[slices[1].digest, GENERATION]
    metadata = Metadata(versions=[version(1, len(whole), 1)], contents={ContentId(1): slices})
    reply = await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))
    assert not isinstance(reply.body, bytes)
    got = b""

    async def take() -> None:
        nonlocal got
        assert not isinstance(reply.body, bytes)
        async for piece in reply.body:
            got += piece

    with pytest.raises(Corrupt):
        await take()
    assert got == whole[:200_000], "right bytes, then an error: never wrong ones"


async def test_nothing_is_read_for_an_empty_object_and_for_304() -> None:
    metadata = Metadata(versions=[version(1, 0, 1)])
    nodes = Nodes()
    reply = await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))
    assert (reply.status, reply.body) == (200, b"")
    reply = await get_object(
        context(metadata, nodes, operation="GetObject"), request(method="GET", headers={"if-none-match": "e" * 32})
    )
    assert (reply.status, reply.body, reply.length) == (304, b"", None)


async def test_a_marker_is_not_found_and_says_so() -> None:
    marker = ObjectVersion(key="key", version_id=VersionId("m" * 32), order=3, modified_ms=0, delete_marker=True)
    metadata = Metadata(versions=[marker])
    with pytest.raises(S3Error) as caught:
        await get_object(context(metadata, Nodes(), operation="GetObject"), request(method="GET"))
    assert caught.value.code == "NoSuchKey"
    assert ("x-amz-delete-marker", "true") in caught.value.headers


async def test_a_reader_who_leaves_closes_the_read() -> None:
    nodes = Nodes(local=False)
    whole, slices = stored(nodes, [INLINE_BYTES_MAX + 5000])
    closed = []
    plain_read = nodes.read

    async def watched(part: LocatedSlice) -> AsyncIterator[bytes]:
        try:
            async for piece in plain_read(part):
                yield piece
        finally:
            closed.append(part)

    nodes.read = watched  # type: ignore[method-assign]
    metadata = Metadata(versions=[version(1, len(whole), 1)], contents={ContentId(1): slices})
    reply = await get_object(context(metadata, nodes, operation="GetObject"), request(method="GET"))
    body: Any = reply.body
    await anext(body)
    await anext(body)
    await body.aclose()
    for _ in itertools.repeat(None, 3):
        await asyncio.sleep(0)
    assert len(closed) == 1
