"""The gateway workers of one machine, for each other: whichever a request reaches can speak for all of them.

PeerServer   each worker listens on DIR/run/gateway-<n>.sock (consensus.core.wire, so only who knows the cluster's secret
             is answered) and does three things: METRICS answers what it has counted, RELOAD reads identities again,
             FLUSH_LOGS delivers the access logs of buckets now. In a cluster it listens for other machines too: RELOAD_ALL
             and FLUSH_LOGS_ALL have all workers of its machine do the same.
Peers        asks all workers of this machine, itself included: one way for all, and no worker is special. Of each other
             machine it asks the first worker for RELOAD_ALL.

A socket that nobody listens on is a worker that died or ended; it is passed over. What it would have been told, it reads
when it starts: so a worker must listen here *before* it reads identities, or a change between the two would pass it by.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.wire import OK, Handler, Link, LinkLost, WireClient, WireServer, short_path, split_address

if TYPE_CHECKING:
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.peers")

METRICS, RELOAD, RELOAD_ALL, FLUSH_LOGS, FLUSH_LOGS_ALL = 1, 2, 3, 4, 5
FAILED = 1
"""The status of an answer that is a sentence saying what went wrong."""

METRICS_TIMEOUT_S = 2.0
"""Less than the patience of those who scrape (Prometheus: 10 s), so that one stuck worker does not hide the others."""

RELOAD_TIMEOUT_S = 10.0
"""A worker that reads identities waits for the metadata."""

FLUSH_TIMEOUT_S = 120.0
"""A worker that delivers logs may have many megabytes to write."""

ELSEWHERE_TIMEOUT_S = 3.0
"""For another machine. One that does not answer looks by itself once a second, as far as it reaches the metadata; and one that
doesn't, can serve nobody."""

PATTERN = "gateway-*.sock"


class PeerServer:
    """One worker's ear. `figures` answers METRICS; `reload` has done its work when it returns."""

    def __init__(
        self, address: str, secret: bytes, *, figures: Callable[[], bytes], reload: Callable[[], Awaitable[None]],
        reload_all: Callable[[], Awaitable[None]] | None = None,
        flush_logs: Callable[[], Awaitable[int]] | None = None, flush_logs_all: Callable[[], Awaitable[int]] | None = None,
        tls: "Tls | None" = None, also: Iterable[str] = (),
    ) -> None:
        """`also`: where it listens besides; addresses of the network need `tls`."""
        self._wire = WireServer(address, secret, lambda: _Connection(self), also=also, tls=tls)
        self._figures, self._reload, self._reload_all = figures, reload, reload_all or reload
        self._flush_logs, self._flush_logs_all = flush_logs or _none, flush_logs_all or flush_logs or _none
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises OSError when the address is taken or not ours."""
        await self._wire.start()

    async def stop(self) -> None:
        await self._wire.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, link: Link, operation: int, request_id: int) -> None:
        if operation == METRICS:
            link.send(operation, OK, request_id, self._figures())
        elif operation in (RELOAD, RELOAD_ALL, FLUSH_LOGS, FLUSH_LOGS_ALL):
            task = asyncio.get_running_loop().create_task(self._do(link, operation, request_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            link.send(operation, FAILED, request_id, f"there is no operation {operation}".encode())

    async def _do(self, link: Link, operation: int, request_id: int) -> None:
        try:
            answer = await self._done(operation)
        except ClusterError as error:
            link.send(operation, FAILED, request_id, str(error).encode())
        else:
            link.send(operation, OK, request_id, answer)

    async def _done(self, operation: int) -> bytes:
        if operation in (FLUSH_LOGS, FLUSH_LOGS_ALL):
            return str(await (self._flush_logs() if operation == FLUSH_LOGS else self._flush_logs_all())).encode()
        await (self._reload() if operation == RELOAD else self._reload_all())
        return b""


async def _none() -> int:
    return 0


class _Connection(Handler):
    def __init__(self, server: PeerServer) -> None:
        self._server = server

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        self._server.answer(link, operation, request_id)

    def lost(self, link: Link) -> None:
        """Nothing is kept for a link."""


class Peers:
    """All workers whose sockets lie in `run` (DIR/run), and those called `expected`, which may listen without a file there
    (on a disk that takes none). Keeps no connection: it is asked once in seconds."""

    def __init__(self, run: Path, secret: bytes, expected: Iterable[str] = (), *, tls: "Tls | None" = None,
                 elsewhere: Callable[[], Awaitable[Iterable[str]]] | None = None) -> None:
        """`elsewhere` tells where the first workers of other machines are, with `tls`."""
        self._run, self._secret, self._expected = run, secret, frozenset(expected)
        self._elsewhere, self._tls = elsewhere, tls

    async def figures(self) -> dict[str, bytes]:
        """Of each worker that answers in time, by its name (`gateway-1`): what it gave PeerServer as `figures`."""
        answers = await self._ask_all(METRICS, METRICS_TIMEOUT_S)
        for name, answer in answers.items():
            if isinstance(answer, ClusterError):
                log.warning("%s did not say what it has counted: %s", name, answer)
        return {name: answer for name, answer in answers.items() if isinstance(answer, bytes)}

    async def reload(self) -> None:
        """Returns when every living worker has read the identities again, on other machines as far as they answer.

        Raises Unavailable, naming those that live and have not: what was revoked may still be valid there.
        """
        await asyncio.gather(self.reload_here(), self._reload_elsewhere())

    async def _reload_elsewhere(self) -> None:
        if self._elsewhere is None:
            return
        addresses = list(await self._elsewhere())
        answers = await asyncio.gather(*[self._ask(address, RELOAD_ALL, ELSEWHERE_TIMEOUT_S) for address in addresses])
        for address, answer in zip(addresses, answers, strict=True):
            if not isinstance(answer, bytes):
                log.info("the gateways at %s were not told of changed identities: %s", address, answer)

    async def reload_here(self) -> None:
        """As `reload`, on this machine only."""
        answers = await self._ask_all(RELOAD, RELOAD_TIMEOUT_S)
        failed = [f"{name} ({answer})" for name, answer in answers.items() if isinstance(answer, ClusterError)]
        if failed:
            raise Unavailable(f"not every gateway worker has read the identities again: {', '.join(failed)}")

    async def flush_logs(self) -> int:
        """Every living worker delivers the access logs of buckets. The number of objects. Raises Unavailable, naming those that
        have not."""
        addresses = [] if self._elsewhere is None else list(await self._elsewhere())
        answers = await asyncio.gather(*[self._ask(address, FLUSH_LOGS_ALL, FLUSH_TIMEOUT_S) for address in addresses])
        return await self.flush_logs_here() + _sum(dict(zip(addresses, answers, strict=True)))

    async def flush_logs_here(self) -> int:
        """As `flush_logs`, on this machine only."""
        return _sum(await self._ask_all(FLUSH_LOGS, FLUSH_TIMEOUT_S))

    async def _ask_all(self, operation: int, timeout_s: float) -> dict[str, bytes | ClusterError]:
        names = sorted(self._expected | {path.stem for path in self._run.glob(PATTERN)})
        answers = await asyncio.gather(*[
            self._ask(f"unix:{self._run / f'{name}.sock'}", operation, timeout_s) for name in names])
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}

    async def _ask(self, address: str, operation: int, timeout_s: float) -> bytes | ClusterError | None:
        """None for a worker that is gone."""
        client = WireClient(address, self._secret, tls=self._tls)
        try:
            async with asyncio.timeout(timeout_s):
                await client.connect(timeout_s)
                status, payload = await client.call(operation)
        except TimeoutError:
            return Unavailable(f"no answer in {timeout_s:g} s")
        except LinkLost:
            return None                   # it died or ended while it was asked
        except Unavailable as error:
            return None if _nobody_listens(address) else error
        except Refused as error:
            return error
        finally:
            client.close()
        return payload if status == OK else Unavailable(payload.decode(errors="replace"))


def _sum(answers: Mapping[str, bytes | ClusterError | None]) -> int:
    failed = [f"{name} ({answer})" for name, answer in answers.items() if isinstance(answer, ClusterError)]
    if failed:
        raise Unavailable(f"not every gateway worker has delivered its logs: {', '.join(failed)}")
    return sum(int(answer) for answer in answers.values() if isinstance(answer, bytes))


def _nobody_listens(address: str) -> bool:
    """Asked of the kernel: a worker that is stuck still listens, one that is dead does not. Unknown on other machines."""
    kind, path = split_address(address)
    if kind != "unix":
        return False
    try:
        with short_path(path) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)              # a full backlog is an error here, and no sign of death
            probe.connect(short)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        return False
    return False
