"""Virtual time: an event loop that jumps to the next timer instead of waiting, and the processes that share it.

Every callback belongs to the *process* (a context variable, so tasks inherit it) in which it was scheduled. A process
that is dead has its callbacks dropped, not even `finally` runs: that is kill -9. One that is paused has them kept until
it goes on: that is SIGSTOP, or a disk that takes its time. Nothing here waits for the real world: no selector, no
threads (what is given to an executor runs at once).
"""

import asyncio
import collections
import contextvars
import heapq
import itertools
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

CALLS_AT_ONE_MOMENT_MAX = 300_000
"""More callbacks without time going on: somebody turns in circles."""

CALLS_AT_FIRST, CALLS_PER_S_MAX = 50_000, 8_000
"""Four times as many as usual."""

CURRENT: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Stuck(AssertionError):
    """Nothing would ever happen again, or everything at one moment."""


class Process:
    """Callbacks that live and die together. `skew_s` is what its wall clock is wrong by."""

    def __init__(self, name: str, loop: "VirtualLoop", machine: Any = None) -> None:
        self.name, self.loop, self.machine = name, loop, machine
        self.dead = False
        self.paused = False
        self.busy_until = 0.0
        """It waits for its disk until then: its callbacks come later."""
        self.late = 0.0
        """How long the callback that runs now has waited for a disk so far."""
        self.kept: collections.deque[asyncio.Handle] = collections.deque()
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)
        self.on_end: list[Callable[[], None]] = []
        """What the kernel does when it ends, in order."""
        self.remains: list[asyncio.Task[Any]] = []
        """Tasks are kept when it is dead, so that the collector does not run what is left of them."""

    def spawn(self, coroutine: Any, name: str = "") -> "asyncio.Task[Any]":
        return self.context.copy().run(lambda: self.loop.create_task(coroutine, name=name or self.name))

    async def carry_out(self, coroutine: Any) -> None:
        """From outside: wait for it, or for the end of this process."""
        task = self.spawn(coroutine)
        while not task.done() and not self.dead:
            await asyncio.sleep(0.05)
        if task.done():
            task.result()

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.loop.call_soon(callback, *arguments, context=self.context)

    def pause(self) -> None:
        self.paused = True

    def go_on(self) -> None:
        self.paused = False
        self.loop.release(self)

    def wait(self, seconds: float) -> None:
        """In the middle of a callback: the process waits for so long."""
        self.late += seconds

    def kill(self) -> None:
        if not self.dead:
            self.dead = True
            self.kept.clear()
            for step in self.on_end:
                step()


class _Counted:
    """Futures and tasks hash by their number, so that sets of them have the same order in every run."""

    _numbers = itertools.count()

    def __hash__(self) -> int:
        return self._number            # type: ignore[attr-defined, no-any-return]


class VirtualFuture(_Counted, asyncio.Future):  # type: ignore[type-arg]
    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._number = next(_Counted._numbers)
        super().__init__(*arguments, **named)


class VirtualTask(_Counted, asyncio.Task):  # type: ignore[type-arg]
    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._number = next(_Counted._numbers)
        super().__init__(*arguments, **named)


Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `network` makes the connections (network.py); `calls` counts what has run."""

    network: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        _Counted._numbers = itertools.count()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._turn: collections.deque[asyncio.Handle] = collections.deque()
        self._at_once = 0
        self.calls = 0
        self.ends_at = 1e9
        self.stuck: Stuck | None = None
        self.failures: list[str] = []
        self.set_exception_handler(self._failed)
        self.set_task_factory(self._make_task)

    # Time

    def time(self) -> float:
        process = CURRENT.get()
        return self._now if process is None else self._now + process.late

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> VirtualTask:
        task = VirtualTask(coroutine, loop=loop, **named)
        process = CURRENT.get()
        if process is not None:
            remains = process.remains
            remains.append(task)
            if len(remains) > 2000:
                process.remains = [left for left in remains if not left.done()]
        return task

    def create_future(self) -> VirtualFuture:
        return VirtualFuture(loop=self)

    # Callbacks

    def call_soon(self, callback: Callable[[*Arguments], object], *args: *Arguments,
                  context: contextvars.Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._turn.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments,
                   context: contextvars.Context | None = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments,
                context: contextvars.Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the heap until its time comes."""

    def release(self, process: Process) -> None:
        """What was kept for a process comes back, in order, before anything newer of its own."""
        if process.dead or process.paused:
            return
        kept, process.kept = process.kept, collections.deque()
        self._turn.extendleft(reversed(kept))

    def run_in_executor(self, executor: Any, func: Callable[[*Arguments], Result], *args: *Arguments
                        ) -> "asyncio.Future[Result]":
        future: asyncio.Future[Result] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    # Running

    def run_forever(self) -> None:
        asyncio.events._set_running_loop(self)
        try:
            while True:
                self._run_once()
                if self._stopping:
                    break
        finally:
            self._stopping = False
            asyncio.events._set_running_loop(None)

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def _run_once(self) -> None:
        turn, timers = self._turn, self._timers
        if not turn:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is left to happen")
            when = timers[0][0]
            if when > self._now:
                self._now, self._at_once = when, 0
        now = self._now
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                turn.append(timer)
        for _ in range(len(turn)):
            handle = turn.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)  # type: ignore[attr-defined]
            if process is not None:
                if process.dead:
                    continue
                if process.paused:
                    process.kept.append(handle)
                    continue
                if process.busy_until > now:
                    if not process.kept:
                        self.call_at(process.busy_until, self.release, process, context=_NOBODY)
                    process.kept.append(handle)
                    continue
                if process.kept:                       # in order
                    process.kept.append(handle)
                    continue
            self.calls += 1
            self._at_once += 1
            handle._run()
            if process is not None and process.late:
                process.busy_until, process.late = now + process.late, 0.0
            if not turn:
                break
        if self._at_once > CALLS_AT_ONE_MOMENT_MAX:
            raise Stuck(f"{self._at_once} callbacks at {now:.3f} s: somebody turns in circles")
        if self.stuck is not None:
            raise self.stuck
        if now > self.ends_at:
            raise Stuck(f"the simulation does not come to its end in {now:.0f} s")
        if self.calls > CALLS_AT_FIRST + CALLS_PER_S_MAX * now:
            raise Stuck(f"promise 8: {self.calls} callbacks in {now:.3f} s: a storm of messages")

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = CURRENT.get()
        error = context.get("exception")
        if process is not None and process.dead:
            return
        if isinstance(error, Stuck):
            self.stuck = error
            return
        frames = traceback.extract_tb(error.__traceback__)[-3:] if error is not None else []
        where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        handle = context.get("handle")
        if process is None and handle is not None:
            process = handle._context.get(CURRENT)
        who = process.name if process else "-"
        self.failures.append(f"{self._now:.3f} {who}: {error!r} at {where or context.get('message')}")

    # Connections

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **named: Any) -> Any:
        return self.network.listen(protocol_factory, f"{host}:{port}", named.get("ssl"))

    async def create_unix_server(self, protocol_factory: Any, path: Any = None, **named: Any) -> Any:
        return self.network.listen(protocol_factory, f"unix:{path}", None)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **named: Any) -> Any:
        return await self.network.connect(protocol_factory, f"{host}:{port}", named.get("ssl"))

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **named: Any) -> Any:
        if path is None:
            raise ConnectionRefusedError("there are no names without a folder here")
        return await self.network.connect(protocol_factory, f"unix:{path}", None)

    def _write_to_self(self) -> None:
        pass


_NOBODY = contextvars.Context()
