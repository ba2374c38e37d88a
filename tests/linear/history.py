"""What clients asked and what they were told, with the times of both.

*Value*: what a key holds, as its ETag (every body that is written is unique), or None for no object. A *group* is a few
keys under one prefix: a listing shows all keys of its group, at one moment. An append makes a new value of the one it names,
a rename moves the one it names to another key of the group, at one moment.
*Unknown*: a write without an answer, or with one that says so (5xx but 503). It may take effect at any later time, or
never, so its end is infinite. Reads without an answer and refused requests (503, 409) are not in a history: they say
nothing, and a refused write that took effect all the same shows as a value that nobody wrote.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

Value = str | None


class Kind(StrEnum):
    PUT = "put"
    CREATE = "create"             # PUT with If-None-Match: *
    SWAP = "swap"                 # PUT with If-Match
    APPEND = "append"             # at the end of the value that is expected
    RENAME = "rename"             # of the value that is expected, from `key` to `to`
    DELETE = "delete"
    GET = "get"
    HEAD = "head"
    LIST = "list"


WRITES = frozenset({Kind.PUT, Kind.CREATE, Kind.SWAP, Kind.APPEND, Kind.RENAME, Kind.DELETE})
EXPECTING = frozenset({Kind.SWAP, Kind.APPEND, Kind.RENAME})
"""Those that took effect on what they expected, or not at all."""


class Outcome(StrEnum):
    OK = "ok"
    UNMET = "unmet"               # 412: the condition does not hold
    MISSING = "missing"           # 404 to what is expected
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    client: int
    gateway: int
    kind: Kind
    key: str                      # of a listing: its group
    outcome: Outcome
    begin: float
    end: float                    # infinite: unknown
    value: Value = None           # written; of a rename None, for it makes nothing
    expected: Value = None        # If-Match
    to: str = ""                  # of a rename
    seen: Value = None            # of GET and HEAD
    listed: tuple[tuple[str, str], ...] = ()     # key and ETag

    def __str__(self) -> str:
        told = {Kind.GET: self.seen, Kind.HEAD: self.seen, Kind.LIST: dict(self.listed)}.get(self.kind, "")
        until = "…" if math.isinf(self.end) else f"{self.end:.6f}"
        return (f"[{self.begin:.6f} – {until}] client {self.client} through {self.gateway}: {self.kind} {self.key}"
                f"{f' to {self.to}' if self.to else ''}{f' := {self.value}' if self.value else ''}"
                f"{f' if {self.expected}' if self.expected else ''} "
                f"→ {self.outcome} {told}")


def group_of(key: str) -> str:
    return key.partition("/")[0]


def by_group(history: Iterable[Op]) -> dict[str, list[Op]]:
    groups: dict[str, list[Op]] = {}
    for op in history:
        groups.setdefault(group_of(op.key), []).append(op)
    return groups


def save(history: Iterable[Op], path: Path) -> None:
    """One line each, to look at a violation later."""
    with path.open("w") as file:
        for op in sorted(history, key=lambda op: op.begin):
            file.write(json.dumps(asdict(op)) + "\n")


def load(path: Path) -> list[Op]:
    lines = map(json.loads, path.read_text().splitlines())
    return [Op(**{**line, "kind": Kind(line["kind"]), "outcome": Outcome(line["outcome"]),
                  "listed": tuple((key, etag) for key, etag in line["listed"])}) for line in lines]
