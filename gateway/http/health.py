"""Whether this server lives and whether it can be used, and no more: for load balancers, containers and tests.

`/-/health/ready` is 200 only while reads and writes can succeed; else 503 and one line that says what is in the way, without
names of files or hosts: anybody may ask.
"""

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

log = logging.getLogger("staddle.gateway")

Ready = Callable[[], Awaitable[str]]
"""Why this gateway can't read and write now; empty when it can. Must not raise for an ordinary fault."""


def routes(ready: Ready) -> list[Route]:
    said = ""

    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def is_ready(request: Request) -> Response:
        nonlocal said
        reason = await ready()
        if reason != said:                             # once per change: it may be asked every second
            said = reason
            if reason:
                log.warning("not ready: %s", reason)
            else:
                log.info("ready again")
        if not reason:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"not ready: {reason}\n", status_code=503)

    return [Route("/-/health/live", live), Route("/-/health/ready", is_ready)]
