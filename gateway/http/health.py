"""Whether this server lives and whether it can be used, and no more: for load balancers, containers and tests."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Ready = Callable[[], Awaitable[bool]]
"""Whether this gateway can read and write now. Must not raise for an ordinary fault."""


def routes(ready: Ready) -> list[Route]:
    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def is_ready(request: Request) -> Response:
        if await ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not ready\n", status_code=503)

    return [Route("/-/health/live", live), Route("/-/health/ready", is_ready)]
