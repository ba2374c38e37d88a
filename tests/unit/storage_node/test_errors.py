"""What callers are told about a disk's errors, and about several nodes' failures at once."""

import errno

import pytest

from consensus.core.errors import ClusterError, Corrupt, NoSpace, Unavailable
from storage_node import protocol
from storage_node.errors import NotHere, combined, from_os


@pytest.mark.parametrize(("code", "kind"), [
    (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EFBIG, NoSpace), (errno.EIO, Unavailable),
    (errno.EROFS, Unavailable), (errno.EACCES, Unavailable), (errno.EMFILE, Unavailable),
])
def test_a_full_disk_is_told_from_a_broken_one(code: int, kind: type[ClusterError]) -> None:
    error = from_os(OSError(code, "why"), "writing")
    assert type(error) is kind
    assert "writing: why" in str(error)


@pytest.mark.parametrize(("failures", "kind"), [
    ([NoSpace("a")], NoSpace), ([NoSpace("a"), NoSpace("b")], NoSpace), ([NoSpace("a"), Unavailable("b")], Unavailable),
    ([Corrupt("a")], Corrupt), ([Corrupt("a"), NotHere("b")], Corrupt), ([Corrupt("a"), Unavailable("b")], Unavailable),
    ([NotHere("a")], Unavailable),
])
def test_several_failures_are_damage_or_a_full_disk_only_if_that_explains_all(
        failures: list[ClusterError], kind: type[ClusterError]) -> None:
    assert type(combined(failures)) is kind


@pytest.mark.parametrize("error", [NoSpace("x"), Unavailable("x"), Corrupt("x"), NotHere("x")])
def test_errors_come_through_the_wire_as_they_are(error: ClusterError) -> None:
    again = protocol.error_of(protocol.status_of(error), str(error).encode())
    assert type(again) is type(error)
    assert str(again) == "x"
