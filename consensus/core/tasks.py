"""The end of a task that runs for as long as its owner does, and of one that nobody waits for any more."""

import asyncio
import contextlib
from typing import Any


async def end(task: "asyncio.Task[None] | None") -> None:
    """Cancel it and wait until it has ended; None is one that never began. Raises what it has failed with before."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def seen(future: "asyncio.Future[Any]") -> None:
    """A done callback for what nobody wants to know any more: asyncio would log an error that was not asked for."""
    if not future.cancelled():
        future.exception()
