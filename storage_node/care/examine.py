"""A stored copy read whole from the disk and compared with its name: header, table, block CRCs, and the SHA-256 of all
bytes. The last word on whether a copy is good: reads check blocks, the scrub and every repair check this.

Tells damage (other bytes than were written, or none) from trouble with the disk (bytes that can't be had now): only the
first is a reason to give a copy up.
"""

import contextlib
import hashlib
import os
from collections.abc import Generator

from consensus.core.errors import Corrupt
from storage_node.chunk import HEADER_BYTES, decode_header, file_name, record_bytes
from storage_node.errors import NotHere, from_os
from storage_node.index import Copy
from storage_node.local import PIECE_BYTES, Located, OpenFile, open_copy, read_blocks
from storage_node.segments import segment_path


def examine(folder: str, copy: Copy) -> str | None:
    """None: it is good. Else what is wrong with it. Raises Unavailable, NoSpace: it can't be told."""
    steps = examination(folder, copy)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            reason: str | None = end.value
            return reason


def examination(
    folder: str, copy: Copy, opened: OpenFile | None = None, *, from_disk: bool = False
) -> Generator[int, None, str | None]:
    """The same, a piece at a time: gives how many bytes it has read, and returns the answer. `from_disk`: what memory holds
    of the copy is dropped before and after, so that the disk is asked and the cache stays the clients'."""
    located = Located(copy.digest, copy.generation, copy.size, copy.segment, copy.place)
    sha = hashlib.sha256()
    try:
        if from_disk:
            _forget(folder, copy)
        if opened is None:
            opened = open_copy(folder, located)
        for start in range(0, copy.size, PIECE_BYTES):
            data, _ = read_blocks(folder, located, opened, start, min(PIECE_BYTES, copy.size - start))
            sha.update(data)
            yield len(data)
        if from_disk:
            _forget(folder, copy)
    except (Corrupt, NotHere) as error:
        return str(error)
    except FileNotFoundError:
        return f"the file of chunk {copy.digest.hex()} is gone"
    except OSError as error:
        raise from_os(error, f"reading chunk {copy.digest.hex()}") from error
    if sha.digest() != copy.digest:
        return f"chunk {copy.digest.hex()}: its bytes are not those of its name"
    return None


def header_is_good(opened: OpenFile, copy: Copy) -> bool:
    """Whether the header of this copy, in a segment, is what the index says. Raises OSError."""
    try:
        header = decode_header(os.pread(opened.fd, HEADER_BYTES, copy.place))
    except Corrupt:
        return False
    return (header.digest, header.generation.pack(), header.size, header.offset) == (*copy[:3], copy.place)


def _forget(folder: str, copy: Copy) -> None:
    path = segment_path(folder, copy.segment) if copy.segment else f"{folder}/{file_name(copy.digest, copy.generation)}"
    start, length = (copy.place, record_bytes(copy.size)) if copy.segment else (0, 0)     # 0: to the end of the file
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
