"""The end of a task that runs for as long as its owner does."""

import asyncio
import contextlib


async def end(task: "asyncio.Task[None] | None") -> None:
    """Cancel it and wait until it has ended; None is one that never began. Raises what it has failed with before."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
