"""The one door of the admin API. In order: signature, admin, row of the table, body, fields, endpoint, answer, log line.

Whoever is not an admin learns nothing, not even which endpoints there are: the row is looked up after the check, so no
row can be forgotten by it. Only signature version 4 in headers counts, over the whole body: a link that somebody signed
and passed on must not be able to change a server. Errors are `{"code", "message", "request_id"}`.

Long work answers JSON lines: `{"progress": {…}}` now and then, at last `{"result": {…}}` or `{"error": {…}}`. It is
given up when the client has gone; what it has done so far stays done.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import msgspec
from starlette.routing import Mount

from consensus.core.errors import ClusterError
from gateway.admin.context import AdminContext, AdminServices
from gateway.admin.endpoints import ENDPOINTS
from gateway.admin.errors import AdminError, of_fault
from gateway.admin.table import PREFIX, Download, Endpoint
from gateway.admin.values import SECRET_FIELDS, Request
from gateway.auth import Authenticated, Mechanism, Principal, authenticate
from gateway.http.asgi import AsgiExchange, Receive, Scope, Send
from gateway.http.body import NO_BODY
from gateway.http.reply import new_request_id
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request, decode_query

log = logging.getLogger("staddle.admin")

BODY_BYTES_MAX = 1 << 20
"""Of a request: small JSON objects."""

REQUESTS_MAX = 64
"""Under way in one gateway process: keepers are few, and their work is long."""

PROGRESS_S = 0.25
"""Between two lines of progress: as often as an eye can follow."""

HEARTBEAT_S = 5.0
"""A line at least this often, so that neither client nor proxy takes long work for a dead connection."""

JSON = (b"content-type", b"application/json")
LINES = (b"content-type", b"application/x-ndjson")
NO_STORE = (b"cache-control", b"no-store")            # answers may hold a secret that is shown once


class _Failure(NamedTuple):
    """An error as it is answered."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def body(self, request_id: str) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "request_id": request_id}


class AdminApi:
    """An ASGI application for everything below PREFIX."""

    def __init__(self, admin: AdminServices, endpoints: Iterable[Endpoint] = ENDPOINTS) -> None:
        self._admin = admin
        self._rows = {(row.method, PREFIX + row.path): row for row in endpoints}
        self._paths = {path for _, path in self._rows}
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        one = _One(self._admin, scope, receive, send)
        self._under_way += 1
        try:
            await one.serve(self._row, crowded=self._under_way > REQUESTS_MAX)
        finally:
            self._under_way -= 1

    def _row(self, method: str, path: str) -> Endpoint:
        """Raises AdminError NoSuchEndpoint, MethodNotAllowed."""
        row = self._rows.get((method, path))
        if row is None and path in self._paths:
            raise AdminError("MethodNotAllowed", f"{path} does not take {method}; see docs/ADMIN_API.md.")
        if row is None:
            raise AdminError("NoSuchEndpoint", f"There is no {path}. Server and command line of different versions?")
        return row


def mount(admin: AdminServices) -> Mount:
    """Everything below PREFIX, whatever it is called: the door is asked before the table."""
    return Mount(PREFIX.rstrip("/"), app=AdminApi(admin))


class _One:
    """One request and its answer."""

    def __init__(self, admin: AdminServices, scope: Scope, receive: Receive, send: Send) -> None:
        self._admin, self._scope, self._send = admin, scope, send
        self._exchange = AsgiExchange(scope, receive, send)
        self._id = new_request_id()
        self._began = self._ended = False
        self._who: Principal | None = None
        self._asked: Request | None = None

    async def serve(self, find: Any, *, crowded: bool) -> None:
        began_ms = self._admin.services.clock.now_ms()
        failure: _Failure | None = None
        try:
            who = self._authenticated()
            self._who = who.principal
            if crowded:
                raise S3Error("SlowDown")
            row: Endpoint = find(self._exchange.method, self._exchange.target.decode("latin-1"))
            self._asked = await self._fields(row, who)
            self._check_still_admin(who.principal)
            context = AdminContext(admin=self._admin, principal=who.principal, request_id=self._id)
            if row.streams:
                failure = await self._long(row, context, self._asked)
            else:
                await self._answer(await row.run(context, self._asked))
        except (AdminError, S3Error, ClusterError) as error:
            failure = _failure(error)
        except Exception:      # the outermost edge for admin requests: one fault of ours is one request's 500
            log.exception("internal error", extra={"request_id": self._id, "path": self._exchange.target.decode("latin-1")})
            failure = _INTERNAL
        if failure is not None and not self._began:
            await self._reply(failure.status, failure.body(self._id), failure.headers)
        elif not self._ended:
            self._cut()
        self._note(failure, began_ms)

    # Who, and what

    def _authenticated(self) -> Authenticated:
        """Raises S3Error for everybody but an admin who signed these headers and this body."""
        exchange, now_ms = self._exchange, self._admin.services.clock.now_ms()
        query: dict[str, str] = {}
        for name, value in decode_query(exchange.query):
            query.setdefault(name, value)
        request = S3Request(
            id=self._id, method=exchange.method, raw_path=exchange.target, raw_query=exchange.query,
            headers=exchange.headers, query=query, bucket="", key="", host_style=False, secure=exchange.secure,
            remote=exchange.remote, now_ms=now_ms, body=NO_BODY,
        )
        who = authenticate(request, self._admin.services.identities, self._admin.auth, now_ms)
        if who.principal.anonymous:
            raise S3Error("AccessDenied", "Sign this request with an admin's access key (AWS signature version 4, in headers).")
        if who.principal.mechanism is not Mechanism.V4_HEADER:
            raise S3Error("AccessDenied", "The admin API takes signature version 4 in headers only.")
        if who.payload.sha256 is None:
            raise S3Error("AccessDenied", "The admin API wants the body signed: x-amz-content-sha256 must be its SHA-256.")
        identity = who.principal.identity
        if identity is None or not identity.admin:
            raise S3Error("AccessDenied", "This access key is not an admin's.")
        return who

    def _check_still_admin(self, principal: Principal) -> None:
        """A body may take its time, and whoever was removed meanwhile must not finish what was begun."""
        asked, now = principal.identity, self._admin.services.identities.by_access_key(principal.access_key)
        if asked is None or now is None or not now.admin or now.secret_key != asked.secret_key:
            raise S3Error("AccessDenied", "This access key is not an admin's any more.")

    async def _fields(self, row: Endpoint, who: Authenticated) -> Request:
        try:
            body = await self._exchange.body.read(BODY_BYTES_MAX)
        except S3Error as error:
            if error.code == "EntityTooLarge":
                raise AdminError("RequestTooLarge", f"The body is longer than {BODY_BYTES_MAX} bytes.") from None
            raise
        who.payload.verify_sha256(hashlib.sha256(body).hexdigest())
        try:
            if row.method == "POST":
                return msgspec.json.decode(body or b"{}", type=row.asked)
            if body:
                raise AdminError("InvalidArgument", "GET takes its fields from the query, not from a body.")
            pairs = decode_query(self._exchange.query)
            if len(dict(pairs)) != len(pairs):
                raise AdminError("InvalidArgument", "A field is given twice.")
            return msgspec.convert(dict(pairs), row.asked, strict=False)
        except msgspec.ValidationError as error:
            raise AdminError("InvalidArgument", f"{error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AdminError("InvalidJSON", f"The body is not a JSON object: {error}.") from None

    # Answers

    async def _answer(self, answer: Any) -> None:
        if isinstance(answer, Download):
            await self._download(answer)
        else:
            await self._reply(200, answer)

    async def _reply(self, status: int, answer: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        body = msgspec.json.encode(answer)
        more = tuple((name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers)
        await self._start(status, (JSON, (b"content-length", str(len(body)).encode()), *more))
        await self._body(body, last=True)

    async def _start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._began = True
        given = [(b"x-amz-request-id", self._id.encode()), NO_STORE, *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": given})

    async def _download(self, answer: Download) -> None:
        """The first piece is fetched before the head goes out: a fault that shows at once is still a proper error."""
        async with contextlib.aclosing(_closable(answer.pieces)) as pieces:
            piece = await anext(pieces, b"")
            await self._start(200, ((b"content-type", b"application/octet-stream"),
                                    (b"content-length", str(answer.length).encode())))
            while piece and not self._gone:
                await self._body(piece)
                piece = await anext(pieces, b"")
        if not self._gone:
            await self._body(b"", last=True)

    async def _body(self, piece: bytes, *, last: bool = False) -> None:
        self._ended = last
        await self._send({"type": "http.response.body", "body": piece, "more_body": not last})

    def _cut(self) -> None:
        """The answer is not whole: close the connection, so that nobody takes it for one that is."""
        abort = getattr(self._scope.get("staddle.exchange"), "abort", None)
        if abort is not None:
            abort()

    @property
    def _gone(self) -> bool:
        """Whether nobody reads the answer any more, as far as the server tells."""
        return bool(getattr(self._scope.get("staddle.exchange"), "gone", False))

    async def _long(self, row: Endpoint, context: AdminContext, asked: Request) -> _Failure | None:
        """Progress as lines until the work is done. An error before the first line is a plain error answer."""
        latest: dict[str, object] = {}
        news = asyncio.Event()

        def progress(done: dict[str, object]) -> None:
            latest.update(done)
            news.set()

        loop = asyncio.get_running_loop()
        work: asyncio.Task[Any] = loop.create_task(row.run(context, asked, progress))
        try:
            while not work.done():
                waker = loop.create_task(news.wait())
                await asyncio.wait((work, waker), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                waker.cancel()
                if work.done():
                    break
                if self._gone:
                    return _Failure(499, "ClientGone", "nobody waited for the end")
                news.clear()
                await self._line({"progress": latest})
                await asyncio.wait((work,), timeout=PROGRESS_S)
            if (error := work.exception()) is None:
                await self._line({"result": work.result()}, last=True)
                return None
            if not self._began:
                raise error
            failure = _failure(error)
            if failure is _INTERNAL:
                log.error("internal error", exc_info=error, extra={"request_id": self._id, "path": row.path})
            await self._line({"error": failure.body(self._id)}, last=True)
            return failure
        finally:
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work

    async def _line(self, value: dict[str, Any], *, last: bool = False) -> None:
        if not self._began:
            await self._start(200, (LINES,))
        await self._body(msgspec.json.encode(value) + b"\n", last=last)

    def _note(self, failure: _Failure | None, began_ms: int) -> None:
        """Who did what. Refused attempts are noted as well; fields that hold secrets never are."""
        identity = self._who.identity if self._who is not None else None
        asked = {} if self._asked is None else {
            name: value for name, value in msgspec.structs.asdict(self._asked).items()
            if name not in SECRET_FIELDS and value not in (None, "")}
        log.log(
            logging.INFO if failure is None else logging.WARNING, "%s %s", self._exchange.method,
            self._exchange.target.decode("latin-1"), extra={
                "request_id": self._id, "who": identity.name if identity is not None else "nobody",
                "access_key": identity.access_key if identity is not None else "", "remote": self._exchange.remote,
                "asked": asked, "outcome": "done" if failure is None else failure.code,
                "ms": self._admin.services.clock.now_ms() - began_ms,
            })


_INTERNAL = _Failure(500, "InternalError", "A fault of the server. Its log has the reason under this request id.")


def _failure(error: BaseException) -> _Failure:
    if isinstance(error, ClusterError):
        error = of_fault(error)
    if isinstance(error, AdminError):
        return _Failure(error.status, error.code, error.message)
    if isinstance(error, S3Error):
        return _Failure(error.status, error.code, error.message, error.headers)
    return _INTERNAL


async def _closable(pieces: AsyncIterator[bytes]) -> Any:
    async for piece in pieces:
        yield piece
