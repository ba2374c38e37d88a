"""Tickets of one session. What is staged belongs to the session that staged it, so all its pages, and the command that
takes them over, must come in the same one; and a session that has no open ticket may be ended at any time."""

from typing import TYPE_CHECKING

from consensus.core.errors import Unavailable
from consensus.core.ids import Generation

if TYPE_CHECKING:
    from consensus.client import MetadataClient

_TRIES = 3
"""Sessions change once in a thousand commands: twice in a row is already unheard of."""


async def reserve_together(metadata: "MetadataClient", count: int) -> list[Generation]:
    """`count` tickets of one session, in order. The caller commits or releases each. Raises Unavailable."""
    for _ in range(_TRIES):
        tickets = [await metadata.reserve() for _ in range(count)]
        if len({ticket.session for ticket in tickets}) == 1:
            return tickets
        release_all(metadata, tickets)
    raise Unavailable("the metadata sessions change too fast")


def release_all(metadata: "MetadataClient", tickets: list[Generation]) -> None:
    for ticket in tickets:
        metadata.release(ticket)
