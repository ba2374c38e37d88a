"""Reply and S3Error -> the bytes of a response head; request ids.

Every answer has Date, Server, x-amz-request-id and x-amz-id-2, and an error's XML repeats the two ids. A header can't
break out of its line, whatever a handler put into it (S3 lets clients choose some response headers).
"""

import base64
import http
import os
import time
from collections.abc import Iterable
from email.utils import formatdate

from gateway.s3.errors import S3Error, render
from gateway.s3.reply import XML, Reply

HOST_ID = base64.b64encode(os.urandom(42)).decode()
"""x-amz-id-2. AWS's is opaque; ours tells apart the gateway processes, in the logs and for the user alike."""

STATUS_LINE = {
    **{status: f"HTTP/1.1 {status} Redirect\r\n" for status in range(305, 400)},     # owners of websites choose any
    **{int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in http.HTTPStatus},
}

_IDS_AHEAD = 512
_ids: list[str] = []

_date_second = 0
_common = ""


def new_request_id() -> str:
    """16 upper-case hexadecimal digits that nobody can guess."""
    if not _ids:
        text = os.urandom(8 * _IDS_AHEAD).hex().upper()
        _ids.extend(text[place : place + 16] for place in range(0, len(text), 16))
    return _ids.pop()


def date_lines() -> str:
    """Date and Server, made once a second."""
    global _date_second, _common
    second = int(time.time())
    if second != _date_second:
        _common = f"date: {formatdate(second, usegmt=True)}\r\nserver: Staddle\r\nx-amz-id-2: {HOST_ID}\r\n"
        _date_second = second
    return _common


def head(request_id: str, headers: Iterable[tuple[str, str]], length: int | None) -> str:
    """The header lines of an answer, each with its CRLF, without status line and Connection. `length` None: unsaid."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        text = "".join(f"{_one_line(name)}: {_one_line(value)}\r\n" for name, value in headers)
    if length is None:
        return f"{date_lines()}x-amz-request-id: {request_id}\r\n{text}"
    return f"{date_lines()}x-amz-request-id: {request_id}\r\n{text}content-length: {length}\r\n"


def reply_head(request_id: str, reply: Reply) -> str:
    """For 204 and 304 there is no length to give (RFC 9110 §8.6); else the stream's, or that of the bytes."""
    if reply.status in (204, 304):
        return head(request_id, reply.headers, None)
    length = reply.length
    if length is None:
        assert isinstance(reply.body, bytes), "a stream needs a length"
        length = len(reply.body)
    return head(request_id, reply.headers, length)


def error_answer(error: S3Error, request_id: str, *, with_body: bool) -> tuple[str, bytes]:
    """Head lines and XML. Without body (HEAD, 304): nothing is said about a length, as AWS does."""
    if error.status == 304:
        return head(request_id, error.headers, None), b""
    if not with_body:
        return head(request_id, [*error.headers, ("content-type", XML)], None), b""
    body = render(error, request_id, HOST_ID)
    return head(request_id, [*error.headers, ("content-type", XML)], len(body)), body


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
