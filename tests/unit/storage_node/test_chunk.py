"""The layout of stored chunks: what is encoded is decoded, and nothing else is."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core.errors import Corrupt
from consensus.core.ids import Digest, Generation, SessionId
from storage_node.chunk import (
    BLOCK_BYTES,
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    block_count,
    block_table,
    check_blocks,
    decode_header,
    decode_segment_header,
    encode_header,
    encode_segment_header,
    file_name,
    parse_file_name,
    record_bytes,
)

DIGEST = Digest(bytes(range(32)))
GENERATION = Generation(SessionId(3 << 40), 9).pack()
HOME = b"homehome"


def test_a_header_is_decoded_as_it_was_encoded() -> None:
    raw = encode_header(DIGEST, GENERATION, 5, block_table(b"12345"), HOME, 4096)
    header = decode_header(raw)
    assert len(raw) == HEADER_BYTES
    assert header.digest == DIGEST
    assert header.generation.pack() == GENERATION
    assert (header.size, header.home, header.offset, header.data_start) == (5, HOME, 4096, HEADER_BYTES)


@pytest.mark.parametrize("at", range(HEADER_BYTES))
def test_a_header_with_any_bit_changed_is_corrupt(at: int) -> None:
    raw = bytearray(encode_header(DIGEST, GENERATION, 5, block_table(b"12345"), HOME, 4096))
    raw[at] ^= 1 << at % 8
    with pytest.raises(Corrupt):
        decode_header(raw)


@pytest.mark.parametrize("at", range(SEGMENT_HEADER_BYTES))
def test_a_segment_header_with_any_bit_changed_is_corrupt(at: int) -> None:
    good = encode_segment_header(HOME, bytes(16), 12)
    assert decode_segment_header(good).number == 12
    raw = bytearray(good)
    raw[at] ^= 1 << at % 8
    with pytest.raises(Corrupt):
        decode_segment_header(raw)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1])
def test_a_header_cut_short_is_corrupt(length: int) -> None:
    with pytest.raises(Corrupt):
        decode_header(encode_header(DIGEST, GENERATION, 0, b"")[:length])


@given(st.integers(0, 5 * BLOCK_BYTES))
def test_sizes_of_tables_and_records(size: int) -> None:
    assert len(block_table(bytes(size))) == 4 * block_count(size)
    total = record_bytes(size)
    assert total % 8 == 0
    assert 0 <= total - (HEADER_BYTES + size + 4 * block_count(size)) < 8


@given(st.data())
def test_a_flipped_bit_fails_the_table(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 4096, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 1]))
    body = bytearray(os.urandom(size))
    table = block_table(body)
    check_blocks(body, table)
    body[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Corrupt):
        check_blocks(body, table)


def test_blocks_in_another_order_fail_the_table() -> None:
    first, second = bytes(BLOCK_BYTES), os.urandom(BLOCK_BYTES)
    with pytest.raises(Corrupt):
        check_blocks(second + first, block_table(first + second))


def test_file_names() -> None:
    name = file_name(DIGEST, GENERATION)
    assert name.startswith("00/00010203")
    assert parse_file_name(name[3:]) == (DIGEST, GENERATION)
    for odd in ("", "x", name, name[3:-1], name[3:] + "00", "lock.0011"):
        assert parse_file_name(odd) is None
