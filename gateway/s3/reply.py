"""What an operation answers: status, headers, and a body that is bytes or a stream. The HTTP edge adds the rest."""

import dataclasses
from collections.abc import AsyncIterator

XML = "application/xml"


@dataclasses.dataclass(slots=True, kw_only=True)
class Reply:
    """`headers` are (lower-case name, value) with latin-1 text. For a streamed body, `length` is its exact size and
    becomes Content-Length; bytes bring their own."""

    status: int = 200
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
