"""How a question to the metadata is put by a process that is not the member: on the member's file, or at another member.

A read is one synchronous transaction on the local file, allowed only while the link holds the member's word that it
serves. Where no member is on this host, or it does not serve just now, the same function runs at another one. In a cluster
each read is at a read index (consensus.moments); a machine that is alone needs none.
"""

import asyncio
import inspect
import logging
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import msgspec

from consensus import protocol
from consensus.commits import RETRY_S
from consensus.config import BUSY_WAIT_S
from consensus.core.errors import Corrupt, Unavailable
from consensus.core.model import Bucket
from consensus.link import RECONNECT_S_MIN, MemberLink
from consensus.moments import Moments
from consensus.reads import Reader, failure, passes

log = logging.getLogger("staddle.meta.client")

Asked = ParamSpec("Asked")
Value = TypeVar("Value")

REMOTE_S = 5.0
"""A member that has not answered a question for so long is asked again, or another one is: questions take milliseconds."""

TELL_S = 10.0
"""At most one report of damage in this time: the member mends all of it at once, whatever is reported."""


class Reading:
    """One per process, for one loop: consensus.client."""

    def __init__(self, link: MemberLink, reader: Reader | None, serving_wait_s: float) -> None:
        """`reader` is of the member's folder on this host; None: all questions go over the link."""
        self._link, self._reader, self._serving_wait_s = link, reader, serving_wait_s
        self._moments = Moments(link)
        self._may_tell_at = 0.0
        self._telling: set[asyncio.Task[bytes]] = set()
        self._seen: dict[str, tuple[float, Bucket | None]] = {}
        """By name, what the last look at a bucket showed, and when it began. Forgotten with each commit of ours."""

    def one_moment(self) -> AbstractContextManager[None]:
        """`with` this, all reads of one request share one read index: they are at least as new as its first one, and as its
        own commits. Costs nothing while the member is alone."""
        return self._moments.one()

    async def read(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
                   **named: Asked.kwargs) -> Value:
        """Any function of queries.py, at one moment that is not before this call. Raises Unavailable, Corrupt.

        Does not suspend while the member on this host serves and is alone.
        """
        serving, reader = self._link.serving, self._reader
        if serving is not None and serving.alone and reader is not None:
            try:
                return reader.run(serving.generation, query, *arguments, **named)
            except Corrupt:
                self._tell_damage(query, arguments, named)
                raise
            except sqlite3.Error as error:
                if not passes(error):
                    failed = failure(error)
                    if isinstance(failed, Corrupt):
                        self._tell_damage(query, arguments, named)
                    raise failed from error
        return await self._read_later(query, arguments, named)

    def read_now(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
                 **named: Asked.kwargs) -> Value | None:
        """The same where nobody can wait. None if the metadata cannot be read at once, as in a cluster, where a read index
        has to be asked for. Raises Corrupt, Unavailable."""
        serving = self._link.serving
        if serving is None or not serving.alone:
            return None
        return self.glance(query, *arguments, **named)

    def glance(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
               **named: Asked.kwargs) -> Value | None:
        """What the file on this host shows. In a cluster that may be behind what was answered elsewhere, by milliseconds as
        a rule and without limit while this member is cut off: only for what is looked up again anyway, and never for
        buckets and objects (promise 4). None if there is no file to look at. Raises Corrupt, Unavailable."""
        serving, reader = self._link.serving, self._reader
        if serving is None or reader is None or not self._link.at_home:
            return None
        try:
            return reader.run(serving.generation, query, *arguments, **named)
        except sqlite3.Error as error:
            if passes(error):
                return None
            raise failure(error) from error

    def _tell_damage(self, query: Callable[..., object], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A read on the local file has met damage. The member looks for itself: what it finds too, it mends."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._may_tell_at:
            return
        self._may_tell_at = now + TELL_S
        given = inspect.signature(query).bind(None, *arguments, **named).args[1:]
        task = loop.create_task(self._link.ask(protocol.DAMAGE, protocol.encode([query.__name__, *given])))
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: "asyncio.Task[bytes]") -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("the metadata member did not look at damage that a read has met: %s", error)

    async def _read_later(self, query: Callable[..., Value], arguments: tuple[Any, ...], named: dict[str, Any]) -> Value:
        """A read that has to wait: for a member that serves, for a read index, or for an answer from another machine. What
        fails for a moment is tried again: reading twice does no harm."""
        loop, reader = asyncio.get_running_loop(), self._reader
        until, busy_until = loop.time() + self._serving_wait_s, loop.time() + BUSY_WAIT_S
        while True:
            serving = await self._link.wait(self._serving_wait_s)
            try:
                if reader is None or not self._link.at_home:
                    return await self._read_remote(query, arguments, named)
                if serving.alone:
                    return reader.run(serving.generation, query, *arguments, **named)
                index = await self._moments.index()
                if self._link.serving is None or not self._link.at_home:
                    continue                             # it has gone meanwhile, and perhaps its file with it
                return reader.run_at(index, self._link.serving.generation, query, *arguments, **named)
            except Corrupt:
                self._tell_damage(query, arguments, named)
                raise
            except Unavailable:
                if loop.time() > until:
                    raise
            except sqlite3.Error as error:
                if not passes(error) or loop.time() > busy_until:
                    failed = failure(error)
                    if isinstance(failed, Corrupt):
                        self._tell_damage(query, arguments, named)
                    raise failed from error
                assert reader is not None
                reader.close()
                await asyncio.sleep(RECONNECT_S_MIN)
                continue
            await asyncio.sleep(RETRY_S)

    async def _read_remote(self, query: Callable[..., Value], arguments: tuple[Any, ...],
                           named: dict[str, Any]) -> Value:
        """Run by the member at the other end of the link, at an index that it asks for itself."""
        if named:                                        # arguments travel by position
            arguments = inspect.signature(query).bind(None, *arguments, **named).args[1:]
        try:
            async with asyncio.timeout(REMOTE_S):
                answer = await self._link.ask(protocol.QUERY, protocol.encode([query.__name__, *arguments]))
        except TimeoutError:
            raise Unavailable(f"no answer to {query.__name__} in {REMOTE_S:g} s") from None
        value: Value = msgspec.msgpack.decode(answer, type=get_type_hints(query)["return"])
        return value
