"""`GET /-/metrics`: for an admin's signature, or for the token of the setting `metrics_token`. Nobody else gets a word.

`open_application` is the same page without credentials, for the listener of `metrics_listen`; it has nothing else.
"""

import asyncio
import hmac
import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.auth import Mechanism, authenticate
from gateway.auth import Settings as AuthSettings
from gateway.http.asgi import AsgiExchange
from gateway.http.body import NO_BODY
from gateway.http.reply import new_request_id
from gateway.identities import IdentityStore
from gateway.metrics.gather import Gatherer
from gateway.metrics.page import page
from gateway.ops.context import Services
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request, decode_query

log = logging.getLogger("staddle.http")

PATH = "/-/metrics"

PAGES_AT_ONCE_MAX = 4
"""Each asks all processes; who asks more often than they answer is told to wait."""

_BEARER = "bearer "


class MetricsPage:
    """The page of this machine."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._under_way = 0

    async def answer(self, request: Request) -> Response:
        if self._under_way >= PAGES_AT_ONCE_MAX:
            return PlainTextResponse("Too many at once: ask again later.\n", status_code=503)
        self._under_way += 1
        try:
            gathered = await self._gatherer.gather()
            content_type, text = await asyncio.to_thread(page, gathered, request.headers.get("accept", ""))
        finally:
            self._under_way -= 1
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})


def routes(metrics: MetricsPage, services: Services, auth: AuthSettings, token: str | None) -> list[Route]:
    """Behind credentials: an admin's signature or, if one is set, the token."""
    async def answer(request: Request) -> Response:
        try:
            if not (token is not None and _bears(request, token)):
                _admit(request, services.identities, auth, services.clock.now_ms())
        except S3Error as error:
            log.warning("%s was refused: %s", PATH, error.code, extra={"remote": request.client.host if request.client else ""})
            return PlainTextResponse(f"{error.message}\n", status_code=403)
        return await metrics.answer(request)

    return [Route(PATH, answer, methods=["GET"])]


def open_application(metrics: MetricsPage) -> Starlette:
    """Without credentials, for a listener that only friends can reach."""
    return Starlette(routes=[Route(path, metrics.answer, methods=["GET"]) for path in (PATH, "/metrics")])


def _bears(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return given[:len(_BEARER)].lower() == _BEARER and hmac.compare_digest(
        given[len(_BEARER):].strip().encode("latin-1", "replace"), token.encode())


def _admit(request: Request, identities: IdentityStore, auth: AuthSettings, now_ms: int) -> None:
    """Raises S3Error for everybody but an admin who signed these headers."""
    exchange = AsgiExchange(request.scope, request.receive, _never)
    query: dict[str, str] = {}
    for name, value in decode_query(exchange.query):
        query.setdefault(name, value)
    given = exchange.headers.get("authorization", "")
    if given[:len(_BEARER)].lower() == _BEARER:
        raise S3Error("AccessDenied", "This token is not the setting metrics_token, or that is not set.")
    who = authenticate(S3Request(
        id=new_request_id(), method=exchange.method, raw_path=exchange.target, raw_query=exchange.query,
        headers=exchange.headers, query=query, bucket="", key="", host_style=False, secure=exchange.secure,
        remote=exchange.remote, now_ms=now_ms, body=NO_BODY), identities, auth, now_ms).principal
    if who.anonymous:
        raise S3Error("AccessDenied", "Metrics want an admin's signature, or the token of the setting metrics_token.")
    if who.mechanism is not Mechanism.V4_HEADER:
        raise S3Error("AccessDenied", "Metrics want signature version 4 in headers.")
    if who.identity is None or not who.identity.admin:
        raise S3Error("AccessDenied", "This access key is not an admin's.")


async def _never(message: object) -> None:
    raise AssertionError("it is Starlette that answers")
