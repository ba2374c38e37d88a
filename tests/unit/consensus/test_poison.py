"""No command, whatever is in it, makes apply raise: one that did would stop the member again at each start."""

import random
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consensus.core import codec
from consensus.core.commands import (
    AnyCommand,
    AppendVersion,
    CreateBucket,
    DeleteBucket,
    Envelope,
    NewContent,
    OpenSession,
    RegisterNode,
)
from consensus.core.ids import NodeId, SessionId, VersionId
from consensus.core.results import BucketCreated, Committed, Malformed, SessionEnded, SessionOpened
from consensus.machine import Machine
from tests.unit.consensus.metadata import Cluster

INTEGERS = (0, 1, -1, 2, 300, 400, 1 << 20, 1 << 31, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63))
TEXTS = ("", "a", "b", "k" * 1024, "x" * 5000, "\0", "\U0010ffff", "null", "Enabled", "Suspended", "*", "CRC32", "u")
BYTES = (b"", b"i" * 16, b"d" * 32, b"d" * 31, b"x" * 100)


class Invention:
    """Values of any type of the commands' vocabulary, extreme ones preferred."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.integers = list(INTEGERS)

    def of(self, kind: Any) -> Any:
        chance, origin, parts = self.chance, typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, typing.NewType):
            return self.of(kind.__supertype__)
        simple = {int: self.integers, str: TEXTS, bytes: BYTES, bool: (True, False), types.NoneType: (None,)}.get(kind)
        if simple is not None:
            return chance.choice(simple)
        if origin in (typing.Union, types.UnionType):
            return self.of(chance.choice(parts))
        if origin is tuple:
            if parts[1:] == (...,):
                return tuple(self.of(parts[0]) for _ in range(chance.choice((0, 0, 1, 2, 3))))
            return tuple(self.of(part) for part in parts)
        hints = typing.get_type_hints(kind)
        names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else kind._fields
        return kind(**{name: self.of(hints[name]) for name in names})


@pytest.mark.parametrize("seed", range(3))
def test_apply_never_raises(tmp_path: Path, seed: int) -> None:
    invention, machine, index = Invention(seed), Machine(tmp_path, copies=1), 1
    chance = invention.chance

    def apply(session: int, sequence: int, low: int, command: Any) -> Any:
        nonlocal index
        index += 1
        envelope = Envelope(session=SessionId(session), sequence=sequence, low=low, now_ms=chance.choice((1, 5)),
                            command=command)
        return machine.apply(codec.encode_entry((envelope,)), index)[0]

    opened = apply(0, 0, 0, OpenSession(owner="x"))
    assert isinstance(opened, SessionOpened)
    session, sequence = opened.session, 1
    made = apply(session, 1, 1, CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(made, BucketCreated)
    apply(0, 0, 0, RegisterNode(node=NodeId("n1"), incarnation=b"i" * 16, address="x"))
    invention.integers += [made.bucket, made.bucket, made.bucket, session]
    outcomes = set()
    for number in range(2500):
        sequence += 1
        command = invention.of(AnyCommand)
        if isinstance(command, DeleteBucket) and number < 2000:
            continue                                 # the bucket that the others are about
        wild = chance.random() < 0.02
        result = apply(chance.choice((session, session, session, 0)),
                       abs(chance.choice(INTEGERS[:8])) if wild else sequence, 0 if wild else sequence, command)
        outcomes.add(type(result).__name__)
        if isinstance(result, SessionEnded):
            opened = apply(0, 0, 0, OpenSession(owner="x"))
            assert isinstance(opened, SessionOpened)
            session, sequence = opened.session, 0
        if number % 50 == 0:
            machine.commit(index, 1)
    machine.commit(index, 1)
    machine.close()
    assert {"Malformed", "NoBucket", "Done", "Drained", "NoUpload", "BucketCreated"} <= outcomes


@pytest.mark.parametrize("whole", [False, True])
def test_an_append_of_nothing_leaves_no_empty_page_for_the_next_one_to_meet(tmp_path: Path, whole: bool) -> None:
    cluster = Cluster(tmp_path)
    bucket = cluster.bucket()
    base = cluster.put(bucket, "k").order

    def append(content: NewContent) -> Any:
        return cluster.run(AppendVersion(bucket=bucket, key="k", version_id=VersionId("v"), base=base, offset=0, content=content,
                                         appended=1, whole=whole))

    assert isinstance(append(cluster.content()), Malformed)
    assert isinstance(append(cluster.content(b"abc")), Committed)
