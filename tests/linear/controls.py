"""Real histories, spoilt on purpose: each kind of spoiling contradicts every order of the operations, so a checker that
passes one is blind there.

Each function returns a new history with one lie in it, or None if the history has no place for it. Lies go to moments
whose surroundings are certain: after writes that were answered, with no open or concurrent write that could explain them.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.linear.history import WRITES, Kind, Op, Outcome, Value, group_of

TINY_S = 1e-9
LIAR = 999
"""The client of the operations that were never made."""

T = TypeVar("T")
Control = Callable[[list[Op], random.Random], list[Op] | None]


def stale_read(history: list[Op], choose: random.Random) -> list[Op] | None:
    """After an acknowledged write, somebody reads what an earlier acknowledged write had left."""
    for old, new in _replaced(history, choose):
        if old.value is not None:
            return [*history, _lie(Kind.GET, new.key, new.end, seen=old.value)]
    return None


def stale_absence(history: list[Op], choose: random.Random) -> list[Op] | None:
    """A key that was written and not deleted is not there."""
    for _, new in _replaced(history, choose):
        if new.value is not None and not _may_be_deleted(history, new.key, new.begin, new.end + 3 * TINY_S):
            return [*history, _lie(Kind.HEAD, new.key, new.end, seen=None)]
    return None


def lost_write(history: list[Op], choose: random.Random) -> list[Op] | None:
    """A write is acknowledged right before a read that shows another one, which had long ended."""
    written = {op.value: op for op in history if op.value is not None and not math.isinf(op.end)}
    reads = [op for op in history if op.kind is Kind.GET and op.seen in written]
    for read in _shuffled(reads, choose):
        source = written[read.seen]
        if source.end + 4 * TINY_S < read.begin and not _may_return(history, read.seen, read.key):
            return [*history, _lie(Kind.PUT, read.key, read.begin - 3 * TINY_S, value="lost")]
    return None


def double_create(history: list[Op], choose: random.Random) -> list[Op] | None:
    """Two clients are told one after the other that they created the key, and nobody may have deleted it in between."""
    for write in _shuffled([op for op in history if op.kind in WRITES and not math.isinf(op.end)], choose):
        if not _may_be_deleted(history, write.key, write.end, write.end + 6 * TINY_S):
            first = _lie(Kind.CREATE, write.key, write.end, value="first")
            return [*history, first, _lie(Kind.CREATE, write.key, first.end + TINY_S, value="second")]
    return None


def ghost_in_a_list(history: list[Op], choose: random.Random) -> list[Op] | None:
    """A listing shows an object that an acknowledged write had replaced, or a deletion removed, before it began."""
    lists = [op for op in history if op.kind is Kind.LIST]
    for listing in _shuffled(lists, choose):
        for old, new in _replaced(history, choose, within=listing):
            if old.value is not None:
                listed = tuple(sorted({**dict(listing.listed), new.key: old.value}.items()))
                return [_replace(op, listed=listed) if op is listing else op for op in history]
    return None


def torn_list(history: list[Op], choose: random.Random) -> list[Op] | None:
    """A listing that was begun after a write, and ended before any other, shows the group without it."""
    for _, new in _replaced(history, choose):
        if new.value is not None and not _may_be_deleted(history, new.key, new.begin, new.end + 3 * TINY_S):
            return [*history, _lie(Kind.LIST, group_of(new.key), new.end)]
    return None


def swap_of_the_replaced(history: list[Op], choose: random.Random) -> list[Op] | None:
    """An If-Match with an ETag that had been replaced is told that it succeeded."""
    for old, new in _replaced(history, choose):
        if old.value is not None:
            return [*history, _lie(Kind.SWAP, new.key, new.end, value="swapped", expected=old.value)]
    return None


def append_to_the_replaced(history: list[Op], choose: random.Random) -> list[Op] | None:
    """An append to what had been replaced is told that it succeeded."""
    for old, new in _replaced(history, choose):
        if old.value is not None:
            return [*history, _lie(Kind.APPEND, new.key, new.end, value="longer", expected=old.value)]
    return None


def renamed_and_still_there(history: list[Op], choose: random.Random) -> list[Op] | None:
    """What was moved away is still seen under its old name."""
    for move in _moves(history, choose):
        if not _may_return(history, move.expected, move.key):
            return [*history, _lie(Kind.GET, move.key, move.end, seen=move.expected)]
    return None


def renamed_to_nowhere(history: list[Op], choose: random.Random) -> list[Op] | None:
    """After a rename nothing is at the new name, and nobody may have deleted or moved it."""
    for move in _moves(history, choose):
        if not _may_be_deleted(history, move.to, move.begin, move.end + 3 * TINY_S):
            return [*history, _lie(Kind.HEAD, move.to, move.end, seen=None)]
    return None


CONTROLS: dict[str, Control] = {
    "stale read": stale_read, "stale absence": stale_absence, "lost write": lost_write, "double create": double_create,
    "ghost in a list": ghost_in_a_list, "torn list": torn_list, "swap of the replaced": swap_of_the_replaced,
    "append to the replaced": append_to_the_replaced, "renamed and still there": renamed_and_still_there,
    "renamed to nowhere": renamed_to_nowhere,
}


def _lie(kind: Kind, key: str, after: float, *, value: Value = None, seen: Value = None, expected: Value = None) -> Op:
    return Op(client=LIAR, gateway=0, kind=kind, key=key, outcome=Outcome.OK, begin=after + TINY_S, end=after + 2 * TINY_S,
              value=value, seen=seen, expected=expected)


def _replace(op: Op, *, listed: tuple[tuple[str, str], ...]) -> Op:
    return Op(client=op.client, gateway=op.gateway, kind=op.kind, key=op.key, outcome=op.outcome, begin=op.begin, end=op.end,
              listed=listed)


def _replaced(history: list[Op], choose: random.Random, within: Op | None = None) -> Iterator[tuple[Op, Op]]:
    """Pairs of acknowledged writes of a key, the second begun after the first had ended. Values are written once, and those that
    may have been moved back are left out, so what the first wrote is gone when the second has ended. `within`: both before that
    listing, of its group."""
    done: dict[str, list[Op]] = {}
    for op in history:
        if op.kind in WRITES and op.outcome is Outcome.OK:
            done.setdefault(op.key, []).append(op)
    for key in _shuffled(sorted(done), choose):
        if within is not None and group_of(key) != within.key:
            continue
        writes = sorted(done[key], key=lambda op: op.begin)
        for new in _shuffled(writes, choose)[:50]:
            if within is not None and new.end >= within.begin:
                continue
            before = [op for op in writes if op.end < new.begin and not _may_return(history, op.value, key)]
            if before:
                yield choose.choice(before[-5:]), new


def _moves(history: list[Op], choose: random.Random) -> list[Op]:
    return _shuffled([op for op in history if op.kind is Kind.RENAME and op.outcome is Outcome.OK], choose)


def _may_return(history: list[Op], value: Value, key: str) -> bool:
    """Whether somebody may have moved a value to the key: then it need not be gone because it was gone once."""
    return any(op.kind is Kind.RENAME and op.to == key and op.expected == value and op.outcome in (Outcome.OK, Outcome.UNKNOWN)
               for op in history)


def _may_be_deleted(history: list[Op], key: str, begin: float, end: float) -> bool:
    return any(op.kind in (Kind.DELETE, Kind.RENAME) and op.key == key and op.outcome in (Outcome.OK, Outcome.UNKNOWN)
               and op.begin <= end and op.end >= begin for op in history)


def _shuffled(items: list[T], choose: random.Random) -> list[T]:
    return choose.sample(items, len(items))
