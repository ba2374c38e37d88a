"""A load generator that costs little, so that the server's own cost shows: one thread, raw sockets, epoll, and requests
that were signed beforehand. A connection sends its next request when the answer to the last has come (closed loop).
"""

import select
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

RECEIVE_BYTES = 256 << 10
SILENCE_S_MAX = 30.0
"""No answer on any connection for this long means that the server hangs, and the run ends with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run saw. `waits_s` in the order in which the answers came."""

    seconds: float
    client_cpu_s: float
    waits_s: list[float]
    statuses: Counter[int]
    failures: list[bytes]         # the first few answers that were not 2xx

    @property
    def rate(self) -> float:
        return len(self.waits_s) / self.seconds

    def wait_ms(self, share: float) -> float:
        """The wait that this share of the requests did not exceed, in milliseconds."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    @property
    def wait_max_ms(self) -> float:
        return max(self.waits_s) * 1000

    @property
    def wait_mean_ms(self) -> float:
        return statistics.fmean(self.waits_s) * 1000

    def all_succeeded(self) -> "Outcome":
        """Itself. Raises AssertionError when any answer was not 2xx: such a run measures something else."""
        assert not self.failures, f"{dict(self.statuses)}, first: {self.failures[0][:600]!r}"
        return self


class _Connection:
    __slots__ = ("began", "buffer", "need", "sock", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.buffer = b""
        self.need = 0                 # bytes of the whole answer, once its head is here
        self.unsent: memoryview | None = None
        self.began = 0.0


class Load:
    """Connections to one server, or to several in turn. Kept between runs, so that a second run measures no connecting."""

    def __init__(self, address: tuple[str, int], connections: int, *others: tuple[str, int]) -> None:
        self._poll = select.epoll()
        addresses = [address, *others]
        self._connections = [_Connection(addresses[number % len(addresses)]) for number in range(connections)]
        self._by_descriptor = {connection.sock.fileno(): connection for connection in self._connections}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._poll.close()
        for connection in self._connections:
            connection.sock.close()

    def run(self, requests: Iterable[bytes], *, on_answer: Callable[[int, bytes], None] | None = None) -> Outcome:
        """Send all requests, each once, and wait for all answers. Raises ConnectionError if the server hangs up."""
        source: Iterator[bytes] = iter(requests)
        waits: list[float] = []
        statuses: Counter[int] = Counter()
        failures: list[bytes] = []
        clock, poll, by_descriptor = time.perf_counter, self._poll, self._by_descriptor
        cpu, began = time.process_time(), clock()
        under_way = 0
        for connection in self._connections:
            if (request := next(source, None)) is None:
                break
            self._send(connection, request, clock())
            under_way += 1
        while under_way:
            events = poll.poll(SILENCE_S_MAX)
            if not events:
                raise ConnectionError(f"{under_way} requests had no answer for {SILENCE_S_MAX} s")
            for descriptor, event in events:
                connection = by_descriptor[descriptor]
                if event & select.EPOLLOUT:
                    self._continue(connection)
                    continue
                received = connection.sock.recv(RECEIVE_BYTES)
                if not received:
                    raise ConnectionError(f"the server closed a connection after {connection.buffer[-300:]!r}")
                answer = connection.buffer + received if connection.buffer else received
                if not connection.need:
                    end = answer.find(b"\r\n\r\n")
                    if end < 0:
                        connection.buffer = answer
                        continue
                    connection.need = end + 4 + _body_length(answer, end)
                if len(answer) < connection.need:
                    connection.buffer = answer
                    continue
                now = clock()
                waits.append(now - connection.began)
                status = int(answer[9:12])
                statuses[status] += 1
                if not 200 <= status < 300 and len(failures) < 3:
                    failures.append(answer)
                if on_answer is not None:
                    on_answer(status, answer)
                connection.buffer, connection.need = b"", 0
                request = next(source, None)
                if request is None:
                    under_way -= 1
                else:
                    self._send(connection, request, now)
        return Outcome(seconds=clock() - began, client_cpu_s=time.process_time() - cpu, waits_s=waits,
                       statuses=statuses, failures=failures)

    def _send(self, connection: _Connection, request: bytes, now: float) -> None:
        connection.began = now
        try:
            sent = connection.sock.send(request)
        except BlockingIOError:
            sent = 0
        if sent < len(request):
            connection.unsent = memoryview(request)[sent:]
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _continue(self, connection: _Connection) -> None:
        assert connection.unsent is not None
        connection.unsent = connection.unsent[connection.sock.send(connection.unsent):]
        if not connection.unsent:
            connection.unsent = None
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN)


def _body_length(answer: bytes, end: int) -> int:
    """Of an answer whose head ends at `end`. Chunked answers are not expected by this generator."""
    head = answer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        status = answer[9:12]
        assert status in (b"204", b"304"), f"an answer without a length: {head[:500]!r}"
        return 0
    line_end = head.find(b"\r\n", at + 2)
    return int(head[at + 17:line_end if line_end > 0 else end])
