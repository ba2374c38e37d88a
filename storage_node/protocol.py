"""What gateways and storage nodes say to each other over `core.wire`: operations, statuses, payloads. Numbers
big-endian.

| operation | payload | answer |
| --- | --- | --- |
| PUT | name, u32 size, block table, bytes | the node's incarnation (16 bytes), once durable |
| BEGIN | generation, u64 how long it may become | none; the request's id names the stream from here on |
| BLOCK | one block of the stream | none; TAKEN now and then |
| END | digest, block table | as PUT. After an error it comes earlier, and the stream is over |
| ABORT | nothing | none; the stream is over |
| GET | name, u64 start, u32 length | the bytes, verified by the node, at most 1 MiB |
| STAT | name | msgpack Copy |
| INVENTORY | msgpack (after, limit): after is (digest, generation) or nil | msgpack list of Copy, in order |
| STATISTICS | nothing | msgpack StoreStatistics |
| REPORT | name | u8: 1 if the node, after reading that copy again, finds it good; 0: damaged or not here, to be mended |
| KICK | nothing | nothing; the node asks the metadata about its new copies at once |
| SCRUB | msgpack ("start" or "stop" or "status", full speed, anew) | msgpack ScrubStatus |
| DAMAGE | msgpack limit | msgpack DamageReport |
| GC_REPORT | msgpack (after, limit) | msgpack WaitingPage: copies that don't count, and why they are here |
| GC_RUN | msgpack (after, no grace) | msgpack Step: a page of them was asked about and acted upon |
| STATUS | nothing | msgpack NodeStatus |
| COMPARE | msgpack bool: begin | msgpack (running, Compared): the inventory against the metadata |
| DISK | nothing | msgpack DiskState; costs next to nothing |
| COMPACT | nothing, or u8 per cent | msgpack (run, CompactionState); with a number, a run is begun first |

A *name* is digest and generation, 32 + 16 bytes. TAKEN is a push: u64 stream, u64 bytes of it that are written; a
sender keeps at most WINDOW_BYTES ahead of it. Streams go on connections of their own, so that small requests never
wait behind them.
"""

import struct

from consensus.core.errors import Busy, ClusterError, Corrupt, NoSpace, Refused, Unavailable
from consensus.core.ids import Digest, Generation
from storage_node.errors import NotHere

PUT, BEGIN, BLOCK, END, ABORT, TAKEN, GET, STAT, INVENTORY, STATISTICS, REPORT, KICK = range(1, 13)
COMPACT, DISK = 17, 20
SCRUB, DAMAGE, GC_REPORT, GC_RUN = range(13, 17)
STATUS, COMPARE = 18, 19
NOT_HERE, NO_SPACE, UNAVAILABLE, CORRUPT, REFUSED, BUSY = range(1, 7)

WINDOW_BYTES = 4 << 20
"""Of one stream on its way or waiting to be written: enough for a disk's and a network's latency, and it bounds
memory."""

INVENTORY_PAGE_MAX = 10_000

NAME = struct.Struct(">32s16s")
PUT_HEAD = struct.Struct(">32s16sI")
GET_HEAD = struct.Struct(">32s16sQI")
BEGIN_BODY = struct.Struct(">16sQ")
TAKEN_BODY = struct.Struct(">QQ")

_STATUS: list[tuple[type[ClusterError], int]] = [
    (NotHere, NOT_HERE), (NoSpace, NO_SPACE), (Corrupt, CORRUPT), (Refused, REFUSED), (Busy, BUSY),
    (Unavailable, UNAVAILABLE),
]
_ERROR = {status: kind for kind, status in _STATUS}


def status_of(error: ClusterError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), UNAVAILABLE)


def error_of(status: int, payload: bytes) -> ClusterError:
    return _ERROR.get(status, Unavailable)(payload.decode(errors="replace"))


def name_of(digest: Digest, generation: Generation) -> bytes:
    return digest + generation.pack()
