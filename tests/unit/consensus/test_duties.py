"""Duties in the log: one holder at a time, for as long as its lease lasts by the log's time."""

from consensus import queries
from consensus.apply.duties import DUTIES_MAX, LEASE_MS_MAX
from consensus.core.commands import DropDuty, TakeDuty
from consensus.core.model import Duty
from consensus.core.results import Done, DutyHeld, DutyTaken, Malformed
from tests.unit.consensus.metadata import Cluster

LEASE_MS = 20_000


def taken(cluster: Cluster, holder: str, name: str = "lifecycle", lease_ms: int = LEASE_MS) -> object:
    return cluster.run(TakeDuty(name=name, holder=holder, lease_ms=lease_ms))


def test_a_duty_is_one_holders_until_its_lease_is_over(cluster: Cluster) -> None:
    first = taken(cluster, "n1/gateway-1")
    assert first == DutyTaken(since_ms=cluster.now, expires_ms=cluster.now + LEASE_MS)
    ends = cluster.now + LEASE_MS
    assert isinstance(taken(cluster, "n2/gateway-1", "events"), DutyTaken), "another duty"
    cluster.now = ends - 2                                # each command comes a millisecond after the one before
    assert taken(cluster, "n2/gateway-1") == DutyHeld(holder="n1/gateway-1", expires_ms=ends)
    assert taken(cluster, "n2/gateway-1") == DutyTaken(since_ms=ends, expires_ms=ends + LEASE_MS)
    assert taken(cluster, "n1/gateway-1") == DutyHeld(holder="n2/gateway-1", expires_ms=ends + LEASE_MS)


def test_its_holder_renews_it_and_the_time_since_when_stays(cluster: Cluster) -> None:
    taken(cluster, "n1/gateway-1")
    began = cluster.now
    cluster.now += LEASE_MS // 2
    assert taken(cluster, "n1/gateway-1") == DutyTaken(since_ms=began, expires_ms=cluster.now + LEASE_MS)
    cluster.reopen()
    assert cluster.read(queries.duties) == [
        Duty(name="lifecycle", holder="n1/gateway-1", since_ms=began, expires_ms=cluster.now + LEASE_MS)]
    cluster.now += LEASE_MS
    assert taken(cluster, "n1/gateway-1") == DutyTaken(since_ms=cluster.now, expires_ms=cluster.now + LEASE_MS), "a break"


def test_what_is_let_go_is_free_at_once_and_nobody_lets_go_of_anothers(cluster: Cluster) -> None:
    taken(cluster, "n1/gateway-1")
    assert cluster.run(DropDuty(name="lifecycle", holder="n2/gateway-1")) == Done()
    assert isinstance(taken(cluster, "n2/gateway-1"), DutyHeld)
    assert cluster.run(DropDuty(name="lifecycle", holder="n1/gateway-1")) == Done()
    assert cluster.read(queries.duties) == []
    assert isinstance(taken(cluster, "n2/gateway-1"), DutyTaken)


def test_there_are_few_and_their_leases_are_short(cluster: Cluster) -> None:
    for wrong in (0, -1, LEASE_MS_MAX + 1):
        assert isinstance(taken(cluster, "n1", lease_ms=wrong), Malformed)
    for name, holder in (("", "n1"), ("lifecycle", ""), ("x" * 5000, "n1"), ("lifecycle", "x" * 5000)):
        assert isinstance(taken(cluster, holder, name), Malformed)
        assert isinstance(cluster.run(DropDuty(name=name, holder=holder)), Malformed | Done)
    for number in range(DUTIES_MAX):
        assert isinstance(taken(cluster, "n1", f"duty {number}"), DutyTaken)
    assert isinstance(taken(cluster, "n1", "one more"), Malformed)
    assert isinstance(taken(cluster, "n1", "duty 0"), DutyTaken)
