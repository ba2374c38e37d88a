"""A coroutine's first step without a task: most small GETs have no second one, and a task costs µs.

While the step runs, a `FirstStep` is what `asyncio.current_task` answers. If there is more to do, a task is made for the
rest, and whoever remembers the FirstStep (asyncio.timeout and TaskGroup do) reaches that task through it. anyio's
scopes don't bear this: they want the very same task at their beginning and at their end.
"""

import asyncio
from asyncio import tasks as asyncio_tasks
from collections.abc import Callable, Coroutine
from typing import Any

_enter_task: Callable[[asyncio.AbstractEventLoop, Any], None] = asyncio_tasks._enter_task
_leave_task: Callable[[asyncio.AbstractEventLoop, Any], None] = asyncio_tasks._leave_task
"""Private names, in CPython since 3.7; they say whose turn it is."""


class FirstStep:
    """Stands for the task that may come to be."""

    __slots__ = ("__weakref__", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    def cancel(self, msg: object = None) -> bool:
        return self.task is not None and self.task.cancel(msg)

    def cancelling(self) -> int:
        return 0 if self.task is None else self.task.cancelling()

    def uncancel(self) -> int:
        return 0 if self.task is None else self.task.uncancel()

    def done(self) -> bool:
        return self.task is not None and self.task.done()

    def get_name(self) -> str:
        return "first step" if self.task is None else self.task.get_name()


def step(loop: asyncio.AbstractEventLoop, run: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Take the first step now; a task for the rest, or None if it was the last one too. `run` must not raise."""
    stand_in = FirstStep()
    try:
        _enter_task(loop, stand_in)
    except RuntimeError:              # called from inside a task, which no transport that we know does
        return loop.create_task(run)
    try:
        wanted = run.send(None)
    except StopIteration:
        return None
    finally:
        _leave_task(loop, stand_in)
    stand_in.task = loop.create_task(_rest(run, wanted))
    return stand_in.task


async def _rest(run: Coroutine[Any, Any, None], wanted: Any) -> None:
    """Wait for what the last step waits for, then take the next."""
    while True:
        try:
            if wanted is None:
                await asyncio.sleep(0)
            else:
                wanted._asyncio_future_blocking = False     # set for the task that there was not; this one waits now
                await wanted
        except BaseException as error:  # noqa: BLE001  (handed to where it belongs)
            try:
                wanted = run.throw(error)
            except StopIteration:
                return
            continue
        try:
            wanted = run.send(None)
        except StopIteration:
            return
