"""What an operation answers: status, headers, and a body that is bytes or a stream. The HTTP edge adds the rest."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

XML = "application/xml"


class DeletedKey(NamedTuple):
    """`version_id` as it was named, `code` of the error; "" for none."""

    key: str
    version_id: str
    code: str


class Reply(msgspec.Struct, kw_only=True):
    """`headers` are (lower-case name, value) with latin-1 text. For a streamed body, `length` is its exact size and
    becomes Content-Length; bytes bring their own. `deleted` are the keys that a multi-object delete was about, for logs."""

    status: int = 200
    headers: list[tuple[str, str]] = []
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
    deleted: Sequence[DeletedKey] = ()
