"""Entries of the log that earlier versions have written are read as what they meant: tests/golden/entries.txt has one of each
command with every field said, its bytes and then its fields. A command that is new is added to it by

    python -m tests.unit.consensus.core.test_codec >> tests/golden/entries.txt

and no line is ever changed, since logs that hold such bytes are not either.
"""

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from consensus.core.codec import decode_entry, encode_entry
from consensus.core.commands import AnyCommand, Envelope

GOLDEN = Path(__file__).parents[3] / "golden" / "entries.txt"
LINES = GOLDEN.read_text().splitlines()
COMMANDS: tuple[type, ...] = get_args(AnyCommand)
NUMBERS = itertools.count()


def said(line: str) -> tuple[bytes, list[Any]]:
    raw, fields = line.split(" ", 1)
    return bytes.fromhex(raw), json.loads(fields)


def begins(shown: Any, kept: Any) -> bool:
    """Whether all that was kept is there; fields that came later follow, at any depth."""
    if isinstance(kept, list):
        return isinstance(shown, list | tuple) and len(shown) >= len(kept) and all(map(begins, shown, kept))
    return bool(shown == kept)


@pytest.mark.parametrize("line", LINES, ids=[said(line)[1][4][0] for line in LINES])
def test_an_entry_that_was_written_once_is_read_for_ever(line: str) -> None:
    raw, kept = said(line)
    (envelope,) = decode_entry(raw)
    assert begins(msgspec.to_builtins(envelope), kept)


def test_each_command_has_its_entry() -> None:
    assert {command.__name__ for command in COMMANDS} - {said(line)[1][4][0] for line in LINES} == set()


def sample(of: inspect.Type) -> Any:
    """No two alike: fields that changed places would be noticed."""
    match of:
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 70_000 + next(NUMBERS)
        case inspect.StrType():
            return f"tëxt {next(NUMBERS)}"
        case inspect.BytesType():
            return b"\xff%d" % next(NUMBERS)
        case inspect.LiteralType(values=values):
            return values[-1]
        case inspect.UnionType(types=types):
            return sample(next(each for each in types if not isinstance(each, inspect.NoneType)))
        case inspect.VarTupleType(item_type=item):
            return (sample(item), sample(item))
        case inspect.TupleType(item_types=items):
            return tuple(map(sample, items))
        case inspect.StructType(cls=cls, fields=fields) | inspect.NamedTupleType(cls=cls, fields=fields):
            return cls(**{field.name: sample(field.type) for field in fields})
    raise AssertionError(f"no sample of {of}")


if __name__ == "__main__":
    for command in COMMANDS:
        if command.__name__ not in {said(line)[1][4][0] for line in LINES}:
            envelope = Envelope(session=1 << 40, sequence=3, low=2, now_ms=1_700_000_000_000,  # type: ignore[arg-type]
                                command=sample(inspect.type_info(command)))
            print(encode_entry([envelope]).hex(), json.dumps(msgspec.to_builtins(envelope), separators=(",", ":")))
