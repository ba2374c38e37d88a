"""S3's steps, in the order in which a request meets them: name, target, signature, operation, handler, answer.

A client's mistake (S3Error) and the world's faults (ClusterError) become error documents here and nowhere else. A fault
of ours is InternalError to the client and a traceback in the log, found by the request id that the client got. An
answer that fails after it has begun is cut off, so that nobody takes part of an object for all of it.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from consensus.core.errors import Busy, ClusterError, Corrupt, NoSpace, NotYet, Refused, Unavailable, UnknownOutcome
from gateway.auth import Authenticated, Principal, authenticate
from gateway.auth import Settings as AuthSettings
from gateway.bucket_log.recorder import BucketLogs
from gateway.http.access_log import AccessLog
from gateway.http.exchange import ClientGone
from gateway.http.reply import error_answer, new_request_id, reply_head
from gateway.http.request import s3_request
from gateway.http.server_log import ServerLog
from gateway.metrics.counters import Counters
from gateway.ops.buckets import sharing
from gateway.ops.context import PAYING, PAYS, Handler, Services
from gateway.s3.errors import S3Error
from gateway.s3.operations import Scope, route
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.website import endpoint as websites

if TYPE_CHECKING:
    from gateway.http.asgi import AsgiExchange
    from gateway.http.exchange import Exchange

log = logging.getLogger("staddle.http")

UPGRADE_S = 60
"""When to come back with what waits for an upgrade of the cluster's other machines."""


class Dispatcher:
    """`domains`: host names whose sub-domains are buckets. `requests_max`: more in flight are told to slow down."""

    def __init__(
        self, services: Services, handlers: Mapping[str, Handler], *, auth: AuthSettings, domains: tuple[str, ...] = (),
        requests_max: int = 1024, counters: Counters | None = None, server_log: ServerLog | None = None,
        sites: websites.Sites | None = None, bucket_logs: BucketLogs | None = None,
    ) -> None:
        self._services = services
        self._handlers = handlers
        self._identities = services.identities
        self._clock = services.clock
        self._auth = auth
        self._domains = domains
        self._requests_max = requests_max
        self._access_log = AccessLog()
        self._counters = counters or Counters()
        self._server_log = server_log
        self._sites = sites
        self._bucket_logs = bucket_logs
        self.in_flight = 0

    def flush_log(self) -> None:
        """Write what the access log still holds."""
        self._access_log.flush()

    async def serve(self, exchange: "Exchange | AsgiExchange") -> None:
        """Answer the exchange. Raises only what nobody could answer."""
        request_id = new_request_id()
        began, now_ms = perf_counter(), self._clock.now_ms()
        name, status, code = "", 0, ""
        reply: Reply | None = None
        request: S3Request | None = None
        who: Authenticated | None = None
        signers: list[Principal] = []
        for_origin: list[tuple[str, str]] = []
        site = "" if self._sites is None else self._sites.bucket_of(exchange.headers["host"])
        self.in_flight += 1
        try:
            try:
                if self.in_flight > self._requests_max:
                    raise S3Error("SlowDown")
                request = s3_request(exchange, request_id, self._domains, now_ms, site)
                if "origin" in request.headers and request.bucket and request.method != "OPTIONS":
                    for_origin = await sharing.for_origin(self._services.metadata, request)
                if site:
                    name, who = websites.operation_of(request), websites.NOBODY
                    assert self._sites is not None
                    with self._services.metadata.one_moment():
                        reply, code = await self._sites.answer(request)
                else:
                    who = authenticate(request, self._identities, self._auth, now_ms)
                    scope: Scope = "object" if request.key else "bucket" if request.bucket else "service"
                    operation = route(request.method, scope, request.query, who.headers)
                    if operation is None:
                        raise _no_such_operation(who.principal)
                    name = operation.name
                    context = self._services.context(operation, who.principal, who.payload)
                    if name == "PostObject":
                        context = msgspec.structs.replace(context, signers=signers)
                    with self._services.metadata.one_moment():
                        reply = await self._handlers[name](context, request)
                status = reply.status
                content = reply.body
                if for_origin:
                    reply.headers.extend(for_origin)
                if PAYS in who.headers and request.bucket and await context.charged(request):
                    reply.headers.append(("x-amz-request-charged", PAYING))
                if isinstance(content, bytes):
                    await exchange.reply(status, reply_head(request_id, reply), content)
                else:
                    await _stream(exchange, request_id, reply, content)
            except S3Error as error:
                code = error.code
                error.headers = (*error.headers, *for_origin)
                status = await self._refuse(
                    exchange, request_id, error, unproved=request is not None and who is None, site=site)
            except ClientGone:
                status = 499       # as nginx logs it: there was nobody to answer
            except ClusterError as error:
                log.warning("%s: %s", type(error).__name__, error, extra={"request_id": request_id, "operation": name})
                fault = _as_s3(error)
                code = fault.code
                fault.headers = (*fault.headers, *for_origin)
                status = await self._refuse(exchange, request_id, fault, site=site)
            except Exception:      # the outermost edge for requests: one fault of ours is one request's 500
                log.exception("internal error", extra={"request_id": request_id, "operation": name})
                code = "InternalError"
                status = await self._refuse(exchange, request_id, S3Error(code), site=site)
        finally:
            self.in_flight -= 1
            body, ended = exchange.request_body, perf_counter()
            self._counters.served(name, status, ended - began, body.received if body is not None else 0, exchange.sent)
            principal = signers[0] if signers else who.principal if who is not None else None
            logs = self._bucket_logs
            if logs is not None and request is not None and request.bucket in logs.logged:
                logs.add(
                    exchange, request_id, request=request, who=principal, operation=name, status=status,
                    code=code if status >= 400 else "", reply=reply, began=began, ended=ended, now_ms=now_ms, site=site)
            if logs is not None and name == "PutBucketLogging":
                logs.look_soon()
            if self._server_log is not None:
                self._server_log.add(
                    exchange, request_id, request=request, who=principal, operation=name, status=status,
                    code=code if status >= 400 else "", reply=reply, began=began, ended=ended, now_ms=now_ms, site=site)
            if self._access_log.wanted:
                self._access_log.add(exchange, request_id, name, status, now_ms, self._clock.now_ms())

    async def _refuse(
        self, exchange: "Exchange | AsgiExchange", request_id: str, error: S3Error, *, unproved: bool = False,
        site: str = "",
    ) -> int:
        """Answer with an error, or cut the answer that has begun. The status for the log."""
        if error.status >= 400:
            self._counters.refused(error.code, unauthenticated=unproved)
        if exchange.started:
            if not exchange.complete:
                log.warning("an answer was cut off: %s", error, extra={"request_id": request_id})
                exchange.abort()
            return error.status
        answer = websites.error_answer if site else error_answer
        head, text = answer(error, request_id, with_body=exchange.method != "HEAD")
        await exchange.reply(error.status, head, text)
        return error.status


def _no_such_operation(principal: Principal) -> S3Error:
    """A sub-resource that S3 has, without a row for this method. What there is here is for callers whom we know."""
    if principal.anonymous:
        return S3Error("AccessDenied")
    return S3Error("NotImplemented", "Staddle does not implement this sub-resource with this method.")


async def _stream(
    exchange: "Exchange | AsgiExchange", request_id: str, reply: Reply, pieces: AsyncIterator[bytes],
) -> None:
    """The first piece is fetched before the head goes out: a fault that shows at once is still a proper error."""
    try:
        if exchange.method == "HEAD":
            await exchange.reply(reply.status, reply_head(request_id, reply))
            return
        piece = await anext(pieces, b"")
        await exchange.begin(reply.status, reply_head(request_id, reply), reply.length, piece)
        async for piece in pieces:      # one name for all pieces: a slow reader keeps one of them in memory, not two
            await exchange.write(piece)
        await exchange.end()
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _as_s3(fault: ClusterError) -> S3Error:
    """What S3 calls the world's faults. An unknown outcome is neither done nor not done (promise 6): SDKs repeat it."""
    match fault:
        case Busy():
            return S3Error("SlowDown")
        case NotYet():
            return S3Error("ServiceUnavailable", "This waits until all machines of the cluster run the same release.",
                           headers=(("retry-after", str(UPGRADE_S)),))
        case Unavailable():
            return S3Error("ServiceUnavailable")
        case NoSpace():
            return S3Error("ServiceUnavailable", "There is no space left to store this.")
        case UnknownOutcome():
            return S3Error("InternalError", "The outcome of this request is unknown: it may or may not have been done.")
        case Corrupt():
            return S3Error("InternalError", "Stored data is damaged; it has not been sent.")
        case Refused():
            return S3Error("InternalError", "The server's parts do not accept each other. See its log.")
        case _:
            return S3Error("InternalError")
