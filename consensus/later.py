"""Answers of a metadata member that take longer than a turn of its loop: each is a task, and leaves when it is done."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from consensus import protocol
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.wire import OK, Link

Work = Coroutine[Any, Any, bytes]
"""Ends with the answer's payload. Raises ClusterError, and what decoding raises."""


class Later:
    """`damaged` is told when counting anew finds damage; `failed` of an error that is our own, or SQLite's: then the member's
    state is in doubt."""

    def __init__(self, damaged: Callable[[Corrupt], None], failed: Callable[[BaseException], None]) -> None:
        self._damaged, self._failed = damaged, failed
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """What is not done by now is not answered."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, link: Link, operation: int, request_id: int, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(
            self._answer(link, operation, request_id, work), name=f"meta operation {operation}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _answer(self, link: Link, operation: int, request_id: int, work: Work) -> None:
        try:
            payload = await work
        except (ClusterError, *UNDECODABLE) as error:
            protocol.refuse(link, operation, request_id, error)
            if isinstance(error, Corrupt) and operation == protocol.RECOUNT:
                self._damaged(error)
        else:
            link.send(operation, OK, request_id, payload)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
