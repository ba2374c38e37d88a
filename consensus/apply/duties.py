"""Duties: work that one gateway does for all of them (carrying out lifecycles, delivering events), as leases in the log.

A lease ends by the log's time unless its holder renews it. Two who believe that they hold one (a process that was stopped
for a while) do no harm: what they do is checked by commands of its own.
"""

from consensus.apply.state import State, texts_fit
from consensus.core.commands import DropDuty, TakeDuty
from consensus.core.results import AnyResult, Done, DutyHeld, DutyTaken, Malformed

DUTIES_MAX = 64
"""Gateways know a handful."""

LEASE_MS_MAX = 3_600_000
"""So long work is left undone at most when its holder is lost."""


def take_duty(state: State, command: TakeDuty) -> AnyResult:
    name, holder = command.name, command.holder
    if not name or not holder or not texts_fit(name, holder) or not 0 < command.lease_ms <= LEASE_MS_MAX:
        return Malformed(reason=f"a duty has a short name and holder, and a lease of at most {LEASE_MS_MAX} ms")
    row = state.execute("SELECT holder, since, expires FROM duty WHERE name = ?", (name,)).fetchone()
    if row is None and state.execute("SELECT count(*) FROM duty").fetchone()[0] >= DUTIES_MAX:
        return Malformed(reason=f"there are at most {DUTIES_MAX} duties")
    valid = row is not None and row[2] > state.now
    if valid and row[0] != holder:
        return DutyHeld(holder=row[0], expires_ms=row[2])
    since, expires = row[1] if valid else state.now, state.now + command.lease_ms
    state.touch()
    state.execute("INSERT OR REPLACE INTO duty (name, holder, since, expires) VALUES (?, ?, ?, ?)",
                  (name, holder, since, expires))
    return DutyTaken(since_ms=since, expires_ms=expires)


def drop_duty(state: State, command: DropDuty) -> AnyResult:
    if not texts_fit(command.name, command.holder):
        return Malformed(reason="a duty has a short name and holder")
    state.touch(state.execute("DELETE FROM duty WHERE name = ? AND holder = ?", (command.name, command.holder)).rowcount)
    return Done()
