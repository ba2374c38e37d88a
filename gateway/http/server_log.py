"""S3's server access log: one line for each request, in AWS's format, into the file that the setting `access_log` names.

The fields and their order are those of "Amazon S3 server access log format" in AWS's user guide; what Staddle does not
have is `-`. As AWS does, a key is percent-encoded twice, so that decoding it once gives what stood in the request.

* Nobody forges a line: whatever a client chose is printable ASCII without quotes and, outside of quotes, without blanks.
* No secret and no signature: their values in queries and referers are `***`.
* All workers append to one file, each batch under the file's lock; a batch that does not fit on the disk is taken back
  and dropped, and counted. The store never waits for its log.
* The file may be moved away at any time: the next batch begins a new one. SIGHUP makes a worker look at once.

A multi-object delete has a line for itself and, as on AWS, one for each of its objects (BATCH.DELETE.OBJECT).
"""

import asyncio
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from consensus.core.errors import ClusterError
from gateway.auth import Mechanism, Principal
from gateway.http.reply import HOST_ID
from gateway.s3.errors import CODES
from gateway.s3.operations import OPERATION, resource_type
from gateway.s3.reply import DeletedKey, Reply
from gateway.s3.request import S3Request

if TYPE_CHECKING:
    from gateway.http.asgi import AsgiExchange
    from gateway.http.exchange import Exchange

log = logging.getLogger("staddle.access_log")

FLUSH_S = 0.25
LINES_MAX = 20_000
"""That may wait while the disk is slow: some 10 MB. More are dropped."""

BYTES_MAX = 16 << 20
"""Of all that waits and of what is being written: a refused request may have a key of many kilobytes."""

LINES_AT_ONCE = 2_000
"""Waiting lines that are written without waiting for the time."""

OWNERS_BELIEVED_S = 60.0
OWNERS_MAX = 4096
"""Buckets whose owners are remembered; bounded because clients name buckets that are not there."""

COMPLAIN_S = 60.0
"""A log that cannot be written is said once in so long."""

OwnerOf = Callable[[str], Awaitable[str]]
"""The canonical id of a bucket's owner, "" for a bucket that is not there. May raise ClusterError."""


class ServerLog:
    """One for each worker. `add` costs 8 µs and the writing 2 more; without the setting there is no ServerLog, and no cost."""

    def __init__(self, path: Path, owner_of: OwnerOf) -> None:
        self._path, self._owner_of = path, owner_of
        self._fd = -1
        self._lines: list[tuple[str, str]] = []
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._owners: dict[str, str] = {}
        self._owners_until = 0.0
        self._second, self._time = 0, ""
        self._complained = -COMPLAIN_S
        self._bytes = 0
        self.dropped = 0
        """Lines that were not written, so far."""

    def open(self) -> None:
        """Raises OSError for a file that cannot be written."""
        fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(22, "not a regular file", str(self._path))
        self._fd = fd

    def reopen(self) -> None:
        """Write what there is, to the file that has the name now."""
        self._begin()

    async def stop(self) -> None:
        while self._lines or self._writing is not None:
            self._begin()
            if self._writing is not None:
                await self._writing
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(
        self, exchange: "Exchange | AsgiExchange", request_id: str, *, request: S3Request | None, who: Principal | None,
        operation: str, status: int, code: str, reply: Reply | None, began: float, ended: float, now_ms: int,
        site: str = "",
    ) -> None:
        """A request has been answered or given up. `began` and `ended` are of time.perf_counter(). `site`: the bucket whose
        website it was for."""
        if len(self._lines) >= LINES_MAX or self._bytes >= BYTES_MAX:
            self.dropped += 1
            return
        second = now_ms // 1000
        if second != self._second:
            self._second, self._time = second, time_of(second)
        bucket = request.bucket if request is not None else ""
        for rest in records(exchange, request_id, request, who, operation, status, code, reply, began, ended, site=site):
            self._lines.append((bucket, f"[{self._time}] {rest}"))
            self._bytes += len(rest)
        if len(self._lines) >= LINES_AT_ONCE:
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._begin)

    # Writing

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """All that waits, and what has come meanwhile if it is much."""
        lines: list[tuple[str, str]] = []
        try:
            while self._lines:
                lines, self._lines = self._lines, []
                owners = await self._owners_of({bucket for bucket, _ in lines})
                text = "".join([f"{owners[bucket]} {one_field(bucket)} {rest}" for bucket, rest in lines])
                await asyncio.to_thread(self._append, text.encode("ascii"))
                self._bytes -= sum(len(rest) for _, rest in lines)
                lines = []
                if len(self._lines) < LINES_AT_ONCE:
                    break
        except OSError as error:
            self._bytes -= sum(len(rest) for _, rest in lines)
            self._complain(error, len(lines))
        finally:
            self._writing = None
            if self._lines and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._begin)

    def _complain(self, error: OSError, lines: int) -> None:
        self.dropped += lines
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_S:
            self._complained = now
            log.warning("the access log %s cannot be written, lines are dropped: %s", self._path, error.strerror or error)

    async def _owners_of(self, buckets: set[str]) -> dict[str, str]:
        """As fields. Unknown ones are `-`, also while the metadata does not answer."""
        now = time.monotonic()
        if now >= self._owners_until or len(self._owners) > OWNERS_MAX:
            self._owners, self._owners_until = {"": "-"}, now + OWNERS_BELIEVED_S
        found = {bucket: self._owners.get(bucket, "-") for bucket in buckets}
        try:
            for bucket in buckets - self._owners.keys():
                owner = found[bucket] = one_field(await self._owner_of(bucket))
                if owner != "-":
                    self._owners[bucket] = owner
        except ClusterError:
            pass                          # it would not answer for the next one either, and each time it is waited for
        return found

    def _append(self, data: bytes) -> None:
        """All of it or nothing. Raises OSError. Runs in a thread."""
        self._follow_name()
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                data = b"\n" + data               # somebody was killed in the middle of a line
            try:
                if os.write(self._fd, data) != len(data):
                    raise OSError(28, "no space left for a whole batch")
            except OSError:
                os.ftruncate(self._fd, size)
                raise
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _follow_name(self) -> None:
        """Whoever moves a log away wants the next lines in a new one."""
        if self._fd >= 0:
            try:
                if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                    return
            except FileNotFoundError:
                pass
            os.close(self._fd)
            self._fd = -1
        self.open()


def time_of(second: int) -> str:
    """As a record has it, without its brackets."""
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


def records(
    exchange: "Exchange | AsgiExchange", request_id: str, request: S3Request | None, who: Principal | None,
    operation: str, status: int, code: str, reply: Reply | None, began: float, ended: float, *, site: str = "",
) -> list[str]:
    """Everything behind the time, each with the line's end: also for the logs that owners have asked for
    (gateway/bucket_log/)."""
    found = [fields(exchange, request_id, request, who, operation, status, code, reply, began, ended, site=site)]
    if reply is not None and reply.deleted:
        found += [_of_deleted(exchange, request_id, who, each) for each in reply.deleted]
    return found


def _of_deleted(exchange: "Exchange | AsgiExchange", request_id: str, who: Principal | None, deleted: DeletedKey) -> str:
    """One object of a multi-object delete. What is about the request as a whole stands in the request's own line."""
    version, auth = _AUTH[who.mechanism] if who is not None else ("-", "-")
    cipher, tls = exchange.cipher
    status = CODES[deleted.code][0] if deleted.code else 204
    return " ".join((
        one_field(exchange.remote), one_field(who.user_id if who is not None else ""), request_id, "BATCH.DELETE.OBJECT",
        key_field(deleted.key), '"-"', str(status), deleted.code or "-", "- - - -", '"-" "-"', one_field(deleted.version_id),
        HOST_ID, version, cipher or "-", auth, one_field(exchange.headers.get("host", "")), tls or "-", "- - -\n",
    ))


def fields(
    exchange: "Exchange | AsgiExchange", request_id: str, request: S3Request | None, who: Principal | None,
    operation: str, status: int, code: str, reply: Reply | None, began: float, ended: float, *, site: str = "",
) -> str:
    """Of the request itself."""
    headers = exchange.headers
    answered = exchange.answered_at
    body = exchange.request_body
    turn = answered - (body.ended_at if body is not None and began < body.ended_at <= answered else began) if answered else None
    version, auth = _AUTH[who.mechanism] if who is not None else ("-", "-")
    cipher, tls = exchange.cipher
    requester = who.user_id if who is not None else ""
    return " ".join((
        one_field(exchange.remote), one_field(requester), request_id,
        _operation(exchange.method, operation, request) if not site else f"WEBSITE.{_method(exchange.method)}.OBJECT",
        key_field(request.key) if request is not None else "-",
        f'"{exchange.method} {_uri(exchange.target, exchange.query)} HTTP/{"1.0" if exchange.http_10 else "1.1"}"',
        str(status) if status else "-", code or "-", str(exchange.sent) if exchange.sent else "-",
        _object_size(operation, headers, status, reply), str(round((ended - began) * 1000)),
        str(max(0, round(turn * 1000))) if turn is not None else "-",
        _quoted(headers.get("referer", "")), _quoted(headers.get("user-agent", "")), _version_id(request, reply), HOST_ID,
        version, cipher or "-", auth, one_field(headers.get("host", "")), tls or "-", "- - -\n",
    ))


_AUTH = {
    Mechanism.ANONYMOUS: ("-", "-"), Mechanism.V4_HEADER: ("SigV4", "AuthHeader"), Mechanism.V4_QUERY: ("SigV4", "QueryString"),
    Mechanism.V2_HEADER: ("SigV2", "AuthHeader"), Mechanism.V2_QUERY: ("SigV2", "QueryString"),
    Mechanism.V4_FORM: ("SigV4", "HtmlForm"), Mechanism.V2_FORM: ("SigV2", "HtmlForm"),
}

# What AWS calls them, where it is not method and sub-resource.
_NAMED = {
    "ListBuckets": "REST.GET.SERVICE", "ListObjects": "REST.GET.BUCKET", "ListObjectsV2": "REST.GET.BUCKET",
    "ListObjectVersions": "REST.GET.BUCKETVERSIONS", "DeleteObjects": "REST.POST.MULTI_OBJECT_DELETE",
    "CopyObject": "REST.COPY.OBJECT", "UploadPart": "REST.PUT.PART", "UploadPartCopy": "REST.COPY.PART",
    "CreateMultipartUpload": "REST.POST.UPLOADS", "CompleteMultipartUpload": "REST.POST.UPLOAD",
    "AbortMultipartUpload": "REST.DELETE.UPLOAD", "ListParts": "REST.GET.UPLOAD",
    "PreflightBucket": "REST.OPTIONS.PREFLIGHT", "PreflightObject": "REST.OPTIONS.PREFLIGHT",
}
_METHOD = re.compile(r"[A-Z]{1,20}")


def _operation(method: str, name: str, request: S3Request | None) -> str:
    known = _NAMED.get(name)
    if known is not None:
        return known
    scope = "SERVICE" if request is None or not request.bucket else "OBJECT" if request.key else "BUCKET"
    row = OPERATION.get(name)
    if row is not None and row.query:
        resource = resource_type(row.query[0])
        scope = f"OBJECT_{resource}" if resource == "TAGGING" and scope == "OBJECT" else resource
    return f"REST.{_method(method)}.{scope}"


def _method(method: str) -> str:
    return method if _METHOD.fullmatch(method) else "-"


def _object_size(operation: str, headers: dict[str, str], status: int, reply: Reply | None) -> str:
    if reply is None or status >= 300:
        return "-"
    if operation in ("PutObject", "UploadPart"):
        size = headers.get("x-amz-decoded-content-length") or headers.get("content-length", "")
        return size if size.isascii() and size.isdigit() else "-"
    if operation in ("GetObject", "HeadObject"):
        ranged = next((value for name, value in reply.headers if name == "content-range"), "")
        if ranged:
            return ranged.rpartition("/")[2]
        return str(reply.length if reply.length is not None else len(reply.body) if isinstance(reply.body, bytes) else "-")
    return "-"


def _version_id(request: S3Request | None, reply: Reply | None) -> str:
    told = next((value for name, value in reply.headers if name == "x-amz-version-id"), "") if reply is not None else ""
    return one_field(told or (request.query.get("versionId", "") if request is not None else ""))


# Text that clients chose

_SECRETS = frozenset({
    "x-amz-signature", "signature", "x-amz-security-token", "x-amz-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key",
})
"""Names in a query whose values are not written, in lower case. An access key and a credential are names, not secrets."""

_SECRET_ANYWHERE = re.compile("(" + "|".join(sorted(_SECRETS)) + r")(=|%3D)[^&\s\"]*", re.IGNORECASE)
_PLAIN = re.compile(r"[!#-~]*")
_PLAIN_AND_BLANK = re.compile(r"[ !#-~]*")
_SAFE = "!#$%&'()*+,/:;<=>?@[\\]^`{|}~"
"""Printable, besides letters and digits: all but the quote."""


def one_field(text: str) -> str:
    """Text as one field: printable, without blanks and quotes."""
    if not text:
        return "-"
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def key_field(key: str) -> str:
    return quote(quote(key, safe="/"), safe="/") if key else "-"


def _quoted(text: str) -> str:
    """A header in quotes, `"-"` if it was not sent."""
    if not text:
        return '"-"'
    if "=" in text or "%" in text:
        before, mark, query = text.partition("?")
        text = before + mark + _masked(query.encode("latin-1", "replace"))       # a referer may be a presigned link
        text = _SECRET_ANYWHERE.sub(r"\1\2***", text)
    return f'"{text if _PLAIN_AND_BLANK.fullmatch(text) else quote(text.encode("latin-1", "replace"), safe=_SAFE + " ")}"'


def _masked(query: bytes) -> str:
    """A query without the values of secrets, however their names are spelt."""
    items = []
    for item in query.split(b"&"):
        name, equals, value = item.partition(b"=")
        if equals and unquote_to_bytes(name.replace(b"+", b" ")).decode("latin-1").strip().lower() in _SECRETS:
            value = b"***"
        items.append((name + equals + value).decode("latin-1"))
    return "&".join(items)


def _uri(target: bytes, query: bytes) -> str:
    """Path and query as they came, but for what is secret or could end the field."""
    text = target.decode("latin-1")
    if query:
        text += "?" + _masked(query)
    return text if _PLAIN.fullmatch(text) else quote(text.encode("latin-1"), safe=_SAFE)
