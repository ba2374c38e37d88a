"""What a row of the table of endpoints is, and what can be read from its function: fields, answer, whether it streams.

An endpoint is `async def name(ctx: AdminContext, asked: Request) -> Answer`. One with a third parameter, `progress`, is
long work: its answer is a stream of JSON lines. One that answers a `Download` sends bytes.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, get_type_hints

from gateway.admin.values import Request

PREFIX = "/-/admin/"


class Download(NamedTuple):
    """Bytes as the answer. `pieces` must be exactly `length` bytes."""

    name: str
    length: int
    pieces: AsyncIterator[bytes]


class Endpoint(NamedTuple):
    """`errors`: the codes that this endpoint may answer besides those that any may."""

    method: str                   # GET | POST
    path: str                     # below PREFIX
    run: Callable[..., Any]
    errors: tuple[str, ...] = ()

    @property
    def asked(self) -> type[Request]:
        """The struct of its fields: GET takes them from the query, POST from a JSON object."""
        kind: type[Request] = get_type_hints(self.run)["asked"]
        return kind

    @property
    def answer(self) -> Any:
        return get_type_hints(self.run)["return"]

    @property
    def streams(self) -> bool:
        return "progress" in get_type_hints(self.run)

    @property
    def summary(self) -> str:
        """What it does: the docstring of its function, on one line."""
        return " ".join((self.run.__doc__ or "").split())
