"""What goes into the log is what is carried out: bytes and the values beside them say the same."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consensus import protocol
from consensus.config import MetaConfig
from consensus.core.codec import decode_entry
from consensus.core.commands import DeleteBucket, EndSession, Envelope
from consensus.core.ids import BucketId, SessionId
from consensus.intake import Intake


class Raft:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[bytes, Sequence[Envelope] | None]] = []

    def propose(self, entry: bytes, answer: object, decoded: Sequence[Envelope] | None) -> None:
        self.given.append((entry, decoded))


def envelopes(*buckets: int, now_ms: int = 5) -> list[Envelope]:
    return [Envelope(session=SessionId(1), sequence=bucket, low=0, now_ms=now_ms,
                     command=DeleteBucket(bucket=BucketId(bucket))) for bucket in buckets]


def taken(intake: Intake, *submits: list[Envelope]) -> list[tuple[bytes, Sequence[Envelope] | None]]:
    raft: Any = Raft()
    link: Any = SimpleNamespace(peer="")
    for number, submit in enumerate(submits):
        intake.take(link, number, memoryview(protocol.encode(submit)), {})
    intake.fill(raft)
    return list(raft.given)


def test_the_values_are_those_of_the_bytes() -> None:
    submits = [envelopes(1, 2), envelopes(3)]
    ((entry, decoded),) = taken(Intake(MetaConfig(), lambda commands: None, None, None), *submits)
    assert decoded == list(decode_entry(entry)) == submits[0] + submits[1]


@pytest.mark.parametrize("changed", ["time", "words"])
def test_what_the_leader_changes_is_decoded_anew(changed: str) -> None:
    clock: Any = SimpleNamespace(now_ms=lambda: 0)

    def said(given: Sequence[Envelope]) -> Sequence[Envelope]:
        if changed == "time" or given[0].sequence != 1:
            return given
        return [msgspec.structs.replace(given[0], command=EndSession(session=SessionId(9)))]

    intake = Intake(MetaConfig(), lambda commands: None, clock, said)
    far = 1 << 50 if changed == "time" else 5
    ((entry, decoded),) = taken(intake, envelopes(1, now_ms=far), envelopes(2))
    assert decoded is None
    first, second = decode_entry(entry)
    assert first.now_ms < 1 << 50
    assert isinstance(first.command, EndSession) == (changed == "words")
    assert second == envelopes(2)[0]
