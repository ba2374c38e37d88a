"""Conditional requests (S3_SEMANTICS §9): reads judged here, writes only parsed, since the log decides those.

A read's conditions are a pure function of headers and version. A write's are checked in the same step that writes, so
here they become a value. A condition that S3 doesn't offer for an operation is refused, never dropped: the caller
counts on it.
"""

from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from gateway.s3.errors import S3Error
from gateway.s3.times import parse_http_date


class WriteCondition(NamedTuple):
    """`if_match` is an ETag without quotes, or "*" for deletes; `if_none_match` is "*"."""

    if_match: str | None = None
    if_none_match: str | None = None


def not_modified(headers: Mapping[str, str], *, etag: str, modified_ms: int, now_ms: int) -> bool:
    """Whether a GET or HEAD of this version is to be answered 304. S3Error PreconditionFailed where it is 412."""
    failed = _failed(headers, "", etag, modified_ms, now_ms)
    if failed in ("If-Match", "If-Unmodified-Since"):
        raise S3Error("PreconditionFailed", Condition=failed)
    return failed is not None


def check_copy_source(headers: Mapping[str, str], *, etag: str, modified_ms: int, now_ms: int) -> None:
    """S3Error PreconditionFailed unless the ``x-amz-copy-source-if-*`` headers allow copying this version."""
    failed = _failed(headers, "x-amz-copy-source-", etag, modified_ms, now_ms)
    if failed is not None:
        raise S3Error("PreconditionFailed", Condition=f"x-amz-copy-source-{failed}")


RENAME_DESTINATION = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def for_rename(headers: Mapping[str, str]) -> WriteCondition:
    """The conditions of a rename on what is at the new name, as far as the log decides them: all ETags do.
    S3Error NotImplemented for lists of ETags."""
    if_match, if_none_match = (headers.get(name) for name in RENAME_DESTINATION[:2])
    for name, value in (("If-Match", if_match), ("If-None-Match", if_none_match)):
        if value is not None and "," in value:
            _refuse(name, f"We don't accept the provided value of {name} header for this API")
    return WriteCondition(*(None if value is None else unquoted(value) for value in (if_match, if_none_match)))


def has_dates(headers: Mapping[str, str]) -> bool:
    """Whether a rename depends on when what is at the new name was made."""
    return "if-modified-since" in headers or "if-unmodified-since" in headers


def check_rename_source(headers: Mapping[str, str], *, etag: str, modified_ms: int, now_ms: int) -> None:
    """S3Error PreconditionFailed unless the ``x-amz-rename-source-if-*`` headers allow renaming this version."""
    failed = _failed(headers, "x-amz-rename-source-", etag, modified_ms, now_ms)
    if failed is not None:
        raise S3Error("PreconditionFailed", Condition=f"x-amz-rename-source-{failed}")


def check_rename_destination(headers: Mapping[str, str], *, etag: str, modified_ms: int, now_ms: int) -> None:
    """S3Error PreconditionFailed unless this version may be replaced."""
    failed = _failed(headers, "", etag, modified_ms, now_ms)
    if failed is not None:
        raise S3Error("PreconditionFailed", Condition=failed)


def check_rename_to_nothing(headers: Mapping[str, str]) -> None:
    """The same where nothing is: what isn't there was not modified, and has not been since."""
    if "if-modified-since" in headers and "if-none-match" not in headers:
        raise S3Error("PreconditionFailed", Condition="If-Modified-Since")


def _failed(headers: Mapping[str, str], prefix: str, etag: str, modified_ms: int, now_ms: int) -> str | None:
    """The condition that fails, in the order of RFC 9110 §13.2.2: an ETag condition replaces its date condition."""
    modified = modified_ms // 1000  # headers have whole seconds: an object must not be newer than its own Last-Modified
    if (wanted := headers.get(f"{prefix}if-match")) is not None:
        if not etag_matches(wanted, etag):
            return "If-Match"
    elif (text := headers.get(f"{prefix}if-unmodified-since")) is not None:
        date = parse_http_date(text)
        if date is not None and modified > date:
            return "If-Unmodified-Since"
    if (refused := headers.get(f"{prefix}if-none-match")) is not None:
        if etag_matches(refused, etag):
            return "If-None-Match"
    elif (text := headers.get(f"{prefix}if-modified-since")) is not None:
        date = parse_http_date(text)
        if date is not None and modified <= date <= now_ms // 1000:
            return "If-Modified-Since"
    return None


def etag_matches(header: str, etag: str) -> bool:
    """Whether an ETag (without quotes) is among those of a header: ``*``, or a list, quoted or not."""
    header = header.strip()
    return header == "*" or any(unquoted(item) == etag for item in header.split(","))


def range_holds(if_range: str, *, etag: str, modified_ms: int) -> bool:
    """Whether a Range counts beside this If-Range: only for the very bytes of which the client has the others. A weak ETag or
    a date that is not the object's own says nothing certain (RFC 9110 §13.1.5)."""
    wanted = if_range.strip()
    date = parse_http_date(wanted)
    return wanted.strip('"') == etag if date is None else date == modified_ms // 1000


def unquoted(etag: str) -> str:
    """An ETag as stored: without blanks, weak mark and quotes."""
    return etag.strip().removeprefix("W/").strip('"')


_NONE = WriteCondition()


def for_write(headers: Mapping[str, str]) -> WriteCondition:
    """The conditions of PutObject, CompleteMultipartUpload or a copy's destination. S3Error NotImplemented for the
    forms that S3 has not got: both at once, If-Match ``*`` or several, If-None-Match with an ETag, dates."""
    if_match, if_none_match = headers.get("if-match"), headers.get("if-none-match")
    refuse_dates(headers)
    if if_match is None and if_none_match is None:
        return _NONE
    if if_match is not None and if_none_match is not None:
        _refuse("If-Match,If-None-Match", "Multiple conditional request headers present in the request")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            _refuse("If-None-Match", "We don't accept the provided value of If-None-Match header for this API")
        return WriteCondition(if_none_match="*")
    assert if_match is not None
    wanted = unquoted(if_match)
    if wanted == "*" or "," in wanted:
        _refuse("If-Match", "We don't accept the provided value of If-Match header for this API")
    return WriteCondition(if_match=wanted)


def for_delete(headers: Mapping[str, str]) -> str | None:
    """The ETag without quotes, or "*", that DeleteObject wants to find; None for unconditional.

    S3Error NotImplemented for other conditions, those of directory buckets among them.
    """
    refuse_dates(headers)
    for name in ("if-none-match", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"):
        if name in headers:
            _refuse(name, "We don't accept this header for this API")
    if_match = headers.get("if-match")
    if if_match is None:
        return None
    wanted = unquoted(if_match)
    if "," in wanted:
        _refuse("If-Match", "We don't accept the provided value of If-Match header for this API")
    return wanted


def refuse_of_abort(headers: Mapping[str, str]) -> None:
    """S3Error NotImplemented for the condition that AbortMultipartUpload has in directory buckets."""
    if "x-amz-if-match-initiated-time" in headers:
        _refuse("x-amz-if-match-initiated-time", "We don't accept this header for this API")


def refuse_dates(headers: Mapping[str, str]) -> None:
    """S3Error NotImplemented for a date condition on a write."""
    for name in ("if-modified-since", "if-unmodified-since"):
        if name in headers:
            _refuse(name, "We don't accept this header for this API")


def refuse_all(headers: Mapping[str, str]) -> None:
    """S3Error NotImplemented for any condition, where S3 offers none (UploadPart, CreateMultipartUpload)."""
    refuse_dates(headers)
    for name in ("if-match", "if-none-match"):
        if name in headers:
            _refuse(name, "We don't accept this header for this API")


def _refuse(header: str, reason: str) -> NoReturn:
    said = header if header.startswith("x-amz-") else header.title()       # If-Match, as AWS writes it
    raise S3Error("NotImplemented", Header=said, additionalMessage=reason)
