"""A server whose power can be cut: its folder is followed by a shim, and becomes what the cut leaves.

    switch = Switch(server)
    switch.on(); …load…; switch.off(torn=random.Random(7)); switch.on(); …compare…

`Cut` fixes the moment. What clients hear after it they must not count as told: `CutTalker` takes such an answer for none.
So the moment is exact although processes run on until they are killed: the image is of the log's position then.
"""

import random
import shutil
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.servers import StaddleProcess
from tests.talker import Talker, Unanswered
from tests.torture.shim.image import Disk, found
from tests.torture.shim.log import ShimLog
from tests.torture.workload import Workload


class Cut:
    """A moment of a log, once it has come: when `now` is called, or at the n-th acknowledged write of those that `arm` is
    about."""

    def __init__(self, log: ShimLog) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._left: int | None = None
        self._counts: Callable[[], bool] = _always
        self.position: int | None = None
        self.came = threading.Event()

    def arm(self, acknowledgements: int, counts: Callable[[], bool] | None = None) -> None:
        """At this many acknowledgements from now on; with `counts`, from when it is true."""
        with self._lock:
            self._left, self._counts = acknowledgements, counts or _always

    def now(self) -> int:
        with self._lock:
            return self._now()

    def _now(self) -> int:
        if self.position is None:
            self.position = self._log.position
            self.came.set()
        return self.position

    def heard(self, acknowledged: bool) -> bool:
        """Somebody has got an answer: whether before the cut."""
        with self._lock:
            if self.position is not None:
                return False
            if acknowledged and self._left is not None and self._counts():
                self._left -= 1
                if self._left <= 0:
                    self._now()
            return True


def _always() -> bool:
    return True


class CutTalker(Talker):
    """Hears nothing after the cut."""

    def __init__(self, server: StaddleProcess, cut: Cut) -> None:
        super().__init__(server)
        self._cut = cut

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", headers: tuple[tuple[str, str], ...] = (),
            digest: str | None = None) -> tuple[int, bytes, dict[str, str]]:
        answer = super().ask(method, path, query, body, headers, digest)
        if not self._cut.heard(acknowledged=method != "GET" and 200 <= answer[0] < 300):
            self.close()
            raise Unanswered("after the cut")
        return answer


class Switch:
    """The power of a server with one data folder. What the folder holds when the switch is made counts as durable."""

    def __init__(self, server: StaddleProcess, *, sync_delay_s: float = 0.0) -> None:
        assert len(server.data) == 1, "the shim follows one folder"
        self.server = server
        self.root = server.data[0]
        self.root.mkdir(parents=True, exist_ok=True)
        self.sync_delay_s = sync_delay_s
        self._log: ShimLog | None = None
        self.before = found(self.root)
        self._cut: Cut | None = None

    @property
    def log(self) -> ShimLog:
        assert self._log is not None, "the power is off"
        return self._log

    @property
    def cut(self) -> Cut:
        assert self._cut is not None, "the power is off"
        return self._cut

    def on(self, variables: Mapping[str, str] = MappingProxyType({}), *, keep_data: bool = False) -> None:
        """Start the server with these variables for its processes, and wait until it is ready. Raises NotReady."""
        self.begin(variables, keep_data=keep_data)
        self.server.start()

    def begin(self, variables: Mapping[str, str] = MappingProxyType({}), *, keep_data: bool = False) -> None:
        """Follow the server from its next start on, which is the caller's."""
        self.close()
        self.before = found(self.root)
        self._log = ShimLog(self.root, sync_delay_s=self.sync_delay_s, keep_data=keep_data)
        self._cut = Cut(self._log)
        self.server.variables = {**variables, **self._log.environment}

    def wire(self, workload: Workload) -> None:
        """The workload's clients hear nothing after the next cut."""
        for client in workload.clients:
            client.talker.close()
            client.talker = CutTalker(self.server, self.cut)

    def off(self, torn: random.Random | None = None, position: int | None = None) -> Disk:
        """Everything ends, and the folder becomes what a cut leaves: at the moment of `cut` (or now), or at an earlier
        position of the log. The folder as it was stands beside it until the next time."""
        at = self.cut.now() if position is None else position
        self.server.kill_all()
        disk = Disk(self.log, self.before, at)
        fresh, old = self.root.with_name(self.root.name + ".cut"), self.root.with_name(self.root.name + ".uncut")
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        disk.lay_out(fresh, torn)
        self.root.rename(old)
        fresh.rename(self.root)
        self.close()
        return disk

    def close(self) -> None:
        """The log is forgotten. The server, if it runs, must not be cut any more."""
        if self._log is not None:
            self._log.close()
            shutil.rmtree(self._log.grave)
            self._log = None
