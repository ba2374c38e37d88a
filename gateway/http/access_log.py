"""One line for each request, in the same form as every other log line, written in batches: a line a write would cost
more than the rest of a small GET. Never with the query, which may hold a signature."""

import asyncio
import logging
import sys
import time
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.http.asgi import AsgiExchange
    from gateway.http.exchange import Exchange

FLUSH_S = 0.25
LINES_MAX = 2000
"""Written at once when so many wait: half a megabyte."""


class AccessLog:
    """`wanted` is settled when the gateway starts: it follows the level of the logger staddle.access."""

    def __init__(self) -> None:
        self.wanted = logging.getLogger("staddle.access").isEnabledFor(logging.INFO)
        self._lines: list[str] = []
        self._second = 0
        self._time = ""

    def add(
        self, exchange: "Exchange | AsgiExchange", request_id: str, operation: str, status: int, began_ms: int,
        ended_ms: int,
    ) -> None:
        second = ended_ms // 1000
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        lines = self._lines
        if not lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        lines.append(
            f'{{"time": "{self._time}.{ended_ms % 1000:03d}Z", "level": "info", "role": "gateway", '
            f'"logger": "staddle.access", '
            f'"message": {quoted(exchange.method + " " + exchange.target.decode("latin-1"))}, "status": {status}, '
            f'"operation": "{operation}", "request_id": "{request_id}", "ms": {ended_ms - began_ms}, '
            f'"remote": "{exchange.remote}"}}\n'
        )
        if len(lines) >= LINES_MAX:
            self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            sys.stderr.write("".join(lines))
            sys.stderr.flush()
