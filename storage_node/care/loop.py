"""A loop of care: one turn after the other from the start of a node to its stop, with a pause between them.

A turn that cannot be made now (the metadata doesn't answer, say) is made again after a pause, and so is one that fails by
our own fault: a node serves its chunks whatever happens to their care. What troubles a loop is said once in the log, and
for as long as it lasts in the node's status.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from consensus.core import tasks
from consensus.core.errors import ClusterError
from consensus.core.ids import NodeId

log = logging.getLogger("staddle.node")


class Loop:
    """`turn` says how long to pause after it; `pause_s` is the pause after a turn that came to nothing. `trouble` is why the last
    one did, "" if it did not; `level` is that of its line in the log."""

    def __init__(self, name: str, node: NodeId, turn: Callable[[], Awaitable[float]], *, pause_s: float,
                 level: int = logging.WARNING) -> None:
        self._name, self._node, self._turn, self._pause_s, self._level = name, node, turn, pause_s, level
        self._kicked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        await tasks.end(self._task)
        self._task = None

    def kick(self) -> None:
        """Pause no longer."""
        self._kicked.set()

    async def _run(self) -> None:
        while True:
            pause_s = self._pause_s
            try:
                pause_s = await self._turn()
                self.trouble = ""
            except ClusterError as error:
                if str(error) != self.trouble:
                    log.log(self._level, "node %s: %s waits: %s", self._node, self._name, error)
                self.trouble = str(error)
            except Exception:
                log.exception("node %s: %s has failed; it will be tried again", self._node, self._name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._kicked.wait()
            self._kicked.clear()
