"""Which bytes of an object a request wants: Range, partNumber, and the range of a copied part (S3_SEMANTICS §8, §12).

Only a single ``bytes`` range counts; RFC 9110 lets a server ignore all others, and S3 does. Numbers are compared after
being cut to 19 digits, so a header full of digits costs nothing.
"""

import re
from typing import NamedTuple

from gateway.s3.errors import S3Error

PARTS_MAX = 10_000

_DIGITS_MAX = 18
"""More digits than any size of an object; also keeps `int` away from its limit."""

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)


class Span(NamedTuple):
    """`length` bytes from `start`."""

    start: int
    length: int


def parse(header: str, size: int) -> Span | None:
    """The bytes that a Range header asks of an object of `size` bytes; None when it is to be ignored (whole, 200).

    S3Error InvalidRange when the form is right but no byte satisfies it.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = min(_number(last), size)
        if not length:
            raise _unsatisfiable(header, size)
        return Span(size - length, length)
    start = _number(first)
    if last and start > _number(last):
        return None
    if start >= size:
        raise _unsatisfiable(header, size)
    end = min(_number(last), size - 1) if last else size - 1
    return Span(start, end - start + 1)


def _unsatisfiable(header: str, size: int) -> S3Error:
    # RFC 9110 wants the size in Content-Range also when nothing is sent.
    return S3Error(
        "InvalidRange", headers=(("content-range", f"bytes */{size}"),), RangeRequested=header, ActualObjectSize=size
    )


def content_range(span: Span, size: int) -> str:
    """The Content-Range of a 206 that sends `span` of an object of `size` bytes."""
    return f"bytes {span.start}-{span.start + span.length - 1}/{size}"


def parse_copy(header: str, size: int) -> Span:
    """The bytes of ``x-amz-copy-source-range``: both ends given, never clamped.

    S3Error InvalidArgument for another form or an end past the source; InvalidRequest for a start past it (recorded).
    """
    match = _RANGE.fullmatch(header.strip())
    first, last = match.groups() if match else ("", "")
    if not first or not last or _number(first) > _number(last):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    start, end = _number(first), _number(last)
    if start >= size:
        raise S3Error("InvalidRequest", "The specified copy range is invalid for the source object size")
    if end >= size:
        raise S3Error(
            "InvalidArgument",
            f"Range specified is not valid for source object of size: {size}",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    return Span(start, end - start + 1)


def parse_part_number(text: str) -> int:
    """A ``partNumber`` of the query. S3Error InvalidArgument unless 1 to 10,000."""
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX and 1 <= int(digits) <= PARTS_MAX:
        return int(digits)
    raise S3Error(
        "InvalidArgument",
        f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
        ArgumentName="partNumber",
        ArgumentValue=text,
    )


def wanted_part(part_number: str | None, range_header: str | None, part_count: int) -> int | None:
    """The part that a GET or HEAD asks for, None when it asks for none. `part_count` is 0 for a single-part object.

    S3Error InvalidArgument, InvalidRequest together with Range, InvalidPartNumber beyond the last part.
    """
    if part_number is None:
        return None
    number = parse_part_number(part_number)
    if range_header is not None:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    if number > (part_count or 1):
        raise S3Error("InvalidPartNumber", PartNumberRequested=number, ActualPartCount=part_count or 1)
    return number


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX
