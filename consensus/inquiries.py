"""Questions that come over a link, from processes that cannot read the member's file: answered from that file all the same, at
one moment. And what the member does about damage that a question meets, here or in a reader elsewhere.
"""

import asyncio
import contextlib
import inspect
import logging
import sqlite3
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from consensus import protocol, queries, recovery
from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt, Refused
from consensus.core.wire import Buffer
from consensus.reads import Reader, failure, query_named

log = logging.getLogger("staddle.meta")


class Inquiries:
    """Of one member, which serves the file of this `generation`. `fail` ends it, so that its metadata is made anew."""

    def __init__(self, folder: str, generation: int, reader: Reader, clock: Clock,
                 fail: Callable[[BaseException], None]) -> None:
        self._folder, self._generation, self._reader = folder, generation, reader
        self._clock, self._fail = clock, fail

    def answer(self, payload: Buffer, index: int = 0) -> bytes:
        """A function of queries.py, of a file that holds the entry `index`. Raises ClusterError."""
        parts = protocol.query.decode(payload)
        try:
            function = query_named(queries, msgspec.msgpack.decode(parts[0], type=str) if parts else "")
            kinds = list(get_type_hints(function).values())[1:-1]           # without the connection and the value
            arguments: list[Any] = [msgspec.msgpack.decode(raw, type=kind)
                                    for raw, kind in zip(parts[1:], kinds, strict=False)]
            inspect.signature(function).bind(None, *arguments)
        except (LookupError, TypeError, *UNDECODABLE) as error:
            raise Refused(f"a query that cannot be understood: {error}") from error
        generation, reader = self._generation, self._reader
        try:
            return protocol.encode(reader.run_at(index, generation, function, *arguments) if index else
                                   reader.run(generation, function, *arguments))
        except Corrupt as error:
            self.found_damaged(error)
            raise
        except sqlite3.Error as error:
            failed = failure(error)
            if isinstance(failed, Corrupt):
                self.found_damaged(error)
            raise failed from error
        except OverflowError as error:
            raise Refused(f"a number in a query is too large: {error}") from error

    def look_at_damage(self, payload: memoryview) -> bytes:
        """A client says that this question was answered by damage."""
        with contextlib.suppress(Corrupt):
            self.answer(payload)
        return b""

    def found_damaged(self, error: Exception) -> None:
        """Make the metadata anew: damage must not stay until it is in both snapshots. After a rebuild that has changed
        nothing, a row that cannot be read is no reason to stop the others again and again."""
        mark = recovery.read_mark(self._folder)
        if mark is not None and self._clock.now_ms() - mark.at_ms[-1] < recovery.READ_DAMAGE_AGAIN_MS:
            log.error("damaged metadata, although it was made anew within the last day (`staddle fsck` tells what is "
                      "affected): %s", error)
            return
        log.error("damaged metadata, which is made anew now: %s", error)
        asyncio.get_running_loop().call_soon(self._fail, error)
