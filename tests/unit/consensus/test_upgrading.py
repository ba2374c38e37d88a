"""An upgrade machine by machine: what a member of an older release would leave out does not get into the log."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consensus import audit, upgrading
from consensus.core.codec import ENTRY_NEWEST, SINCE_2, FutureEntry, decode_entry, encode_entry
from consensus.core.commands import (
    AnyCommand,
    AppendVersion,
    CreateUpload,
    Envelope,
    NewContent,
    PutVersion,
    SetBucketSetting,
    SetLegalHold,
    SetQuota,
)
from consensus.core.errors import ClusterError, NotYet, Unavailable
from consensus.core.ids import BucketId, SessionId, UploadId, VersionId
from consensus.core.model import Attributes, Member
from consensus.rows import decode_attributes, encode_attributes
from consensus.upgrading import Upgrading
from tests.unit.consensus.metadata import Cluster as Machines

BUCKET = BucketId(1)
QUOTA = SetQuota(bucket=BUCKET, account="", quota=None)
PUT = PutVersion(bucket=BUCKET, key="k", version_id=VersionId(""), attributes=Attributes(), owner="o", content=None)
UPLOAD = CreateUpload(bucket=BUCKET, key="k", upload_id=UploadId("u"), attributes=Attributes(), owner="o", initiator="other",
                      said=(("x-amz-acl", "private"),))
HOLD = SetLegalHold(bucket=BUCKET, key="k", on=False, remembered=True)
OLD_HOLD = msgspec.structs.replace(HOLD, remembered=False)
PLAIN_UPLOAD = msgspec.structs.replace(UPLOAD, initiator="", said=())

FIRST_RELEASE = {
    "OpenSession", "EndSession", "RegisterNode", "Announce", "Withdraw", "CreateBucket", "DeleteBucket", "SetVersioning",
    "StageContent", "PutVersion", "DeleteVersion", "CreateUpload", "PutPart", "StageParts", "CompleteUpload", "AbortUpload",
    "Drain", "CreateUser", "ChangeUser", "DeleteUser", "CreateKey", "ChangeKey", "DeleteKey", "OpenBackup", "KeepBackup",
    "DropBackup", "ExpireUploads", "SetTags", "SetBucketSetting", "SetObjectLock", "SetRetention", "SetLegalHold",
    "SetNodeState", "AskNode", "RemoveNode", "SetDefaults", "CreateToken", "SpendToken", "DeleteToken", "SetBucketCopies",
    "SetAcl", "SetUserPolicy",
}
"""What readers of version 1 know."""


def said(*given: AnyCommand) -> list[Envelope]:
    return [Envelope(session=SessionId(5), sequence=n, low=0, now_ms=1, command=command) for n, command in enumerate(given)]


@pytest.mark.parametrize("command", [
    QUOTA, UPLOAD, msgspec.structs.replace(UPLOAD, initiator=""), msgspec.structs.replace(UPLOAD, said=()),
    HOLD, SetBucketSetting(bucket=BUCKET, name="lifecycle", document=b""),
    SetBucketSetting(bucket=BUCKET, name="inventory/weekly", document=b""),
    AppendVersion(bucket=BUCKET, key="k", version_id=VersionId(""), base=1, offset=0, appended=1,
                  content=NewContent(size=0, etag="", slices=(), chunks=())),
])
def test_what_only_this_release_carries_out_needs_an_entry_that_older_ones_stop_at(command: AnyCommand) -> None:
    assert encode_entry(said(PUT, command))[0] == 2
    assert decode_entry(encode_entry(said(command)))[0].command == command


@pytest.mark.parametrize("command", [
    PUT, SetBucketSetting(bucket=BUCKET, name="cors", document=b""), PLAIN_UPLOAD, OLD_HOLD,
])
def test_everything_else_is_said_as_before(command: AnyCommand) -> None:
    assert encode_entry(said(command))[0] == 1


def test_every_command_that_came_later_is_known_to_be_newer() -> None:
    known = {kind.__name__ for kind in AnyCommand.__args__ if kind not in SINCE_2}
    assert known == FIRST_RELEASE, "a member that does not know a command would leave it out"


def test_an_entry_of_a_version_that_is_not_known_stops_a_member() -> None:
    with pytest.raises(FutureEntry):
        decode_entry(bytes((ENTRY_NEWEST + 1,)) + encode_entry(said(PUT))[1:])


def test_attributes_are_the_bytes_that_the_first_release_wrote() -> None:
    assert encode_attributes(Attributes(content_type="")).hex() == "97a0909090a85354414e44415244c0c0"
    for given in (Attributes(), Attributes(appended=3), Attributes(restored_ms=7), Attributes(hold_off=True),
                  Attributes(content_type="x", acl=())):
        assert decode_attributes(encode_attributes(given)) == given


OTHERS = (Member(name="m1", address="a:1", incarnation=b"1"), Member(name="m2", address="b:1", incarnation=b"2"),
          Member(name="m3", address="c:1", incarnation=b"3"))


class Cluster:
    """Of three; `reads` is what the others answer, None for one that doesn't."""

    def __init__(self) -> None:
        self.reads: dict[str, int | None] = {"b:1": ENTRY_NEWEST, "c:1": ENTRY_NEWEST}
        self.asked: list[str] = []
        raft: Any = SimpleNamespace(members=OTHERS)
        self.of = Upgrading("m1", raft, self.status)

    async def status(self, address: str) -> Any:
        self.asked.append(address)
        reads = self.reads[address]
        if reads is None:
            raise ClusterError("nobody there")
        return SimpleNamespace(reads=reads)

    def look(self, *given: AnyCommand) -> list[AnyCommand]:
        async def run() -> list[AnyCommand]:
            await self.of.look()
            return [envelope.command for envelope in self.of.said_for_all(said(*given))]

        return asyncio.run(run())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(upgrading, "PATIENCE_S", 1e9)
    return Cluster()


def test_where_all_are_of_this_release_everything_is_taken_and_nobody_asked_again(cluster: Cluster) -> None:
    assert cluster.look(QUOTA, UPLOAD) == [QUOTA, UPLOAD]
    assert cluster.look(QUOTA) == [QUOTA]
    assert cluster.asked == ["b:1", "c:1"]


def test_what_an_older_member_does_not_know_is_refused_until_it_is_upgraded(cluster: Cluster) -> None:
    cluster.reads["c:1"] = 1
    with pytest.raises(NotYet, match="SetQuota waits"):
        cluster.look(PUT, QUOTA)
    assert cluster.look(PUT, UPLOAD, HOLD) == [PUT, PLAIN_UPLOAD, OLD_HOLD]
    cluster.reads["c:1"] = None
    with pytest.raises(NotYet):
        cluster.look(QUOTA)                              # down, to be upgraded
    cluster.reads["c:1"] = ENTRY_NEWEST
    assert cluster.look(QUOTA) == [QUOTA]


def test_who_has_never_answered_is_waited_for_a_while(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.reads["c:1"] = None
    assert cluster.look(PUT) == [PUT]
    with pytest.raises(Unavailable):
        cluster.look(QUOTA)
    monkeypatch.setattr(upgrading, "PATIENCE_S", 0)
    assert cluster.look(QUOTA) == [QUOTA]


def test_members_are_equal_whenever_each_of_them_was_upgraded(tmp_path: Path) -> None:
    machine = Machines(tmp_path)
    machine.bucket()
    before = audit.logical_hash(machine.db)
    machine.db.execute("UPDATE bucket SET changed = 7")
    assert audit.logical_hash(machine.db) == before
    machine.db.execute("UPDATE bucket SET objects_max = 7")
    assert audit.logical_hash(machine.db) != before
