"""What an operation answers: status, headers, and a body that is bytes or a stream. The HTTP edge adds the rest."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

XML = "application/xml"


class DeletedKey(NamedTuple):
    """`version_id` as it was named, `code` of the error; "" for none."""

    key: str
    version_id: str
    code: str


@dataclasses.dataclass(slots=True, kw_only=True)
class Reply:
    """`headers` are (lower-case name, value) with latin-1 text. For a streamed body, `length` is its exact size and
    becomes Content-Length; bytes bring their own. `deleted` are the keys that a multi-object delete was about, for logs."""

    status: int = 200
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
    deleted: Sequence[DeletedKey] = ()
