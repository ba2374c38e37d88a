"""Duties of gateways: background work that one of all gateways does, whichever holds its lease (consensus/apply/duties.py).

A duty is taken only while there is work, so an idle store writes no log; who has no more work lets it go or lets it lapse.
`hold` before each step is cheap: it asks the log only when half of the lease has passed. Actions must be commands that
apply checks: a process that was stopped for a minute may believe for a moment that it still holds the lease.
"""

import contextlib
import logging
from collections.abc import Iterator

from consensus import queries
from consensus.client import MetadataClient
from consensus.core.clock import Clock
from consensus.core.commands import DropDuty, TakeDuty
from consensus.core.errors import ClusterError
from consensus.core.results import DutyHeld, DutyTaken

log = logging.getLogger("staddle.duties")

LEASE_S = 20.0
"""How long work rests after its holder was lost. Renewed twice in that time: six commands a minute while there is work."""


class Duty:
    """One duty, as this process sees it. `holder` names the process, the same after a restart: it goes on at once."""

    def __init__(self, metadata: MetadataClient, clock: Clock, name: str, holder: str, lease_s: float = LEASE_S) -> None:
        self._metadata, self._clock = metadata, clock
        self.name, self.holder, self._lease_s = name, holder, lease_s
        self._until = self._renew_at = float("-inf")      # by the clock that only counts
        self._log_ms, self._log_at = 0, 0.0
        self._others, self._others_at = -1, 0.0           # the end of another's lease, and since when we know of it
        self._refused = -1                                # the same, of the lease that was in our way

    @property
    def held(self) -> bool:
        """Whether nobody else can have it now, as far as our own clock tells."""
        return self._clock.monotonic() < self._until

    def log_now_ms(self) -> int:
        """The log's time as of the last renewal, counted on since. Of a duty that is held."""
        return self._log_ms + int((self._clock.monotonic() - self._log_at) * 1000)

    async def hold(self) -> bool:
        """Take it, or go on holding it. False: another gateway does that work. Raises ClusterError."""
        asked = self._clock.monotonic()
        if asked < self._renew_at:
            return True
        if asked >= self._until and await self._taken_elsewhere(asked):
            return False
        before = asked < self._until
        outcome = await self._metadata.commit(TakeDuty(name=self.name, holder=self.holder, lease_ms=int(self._lease_s * 1000)))
        if not isinstance(outcome, DutyTaken):
            if before:
                log.warning("duty %s is another gateway's now: %s", self.name, outcome)
            self._until = self._renew_at = float("-inf")
            if isinstance(outcome, DutyHeld):
                self._refused = self._others = outcome.expires_ms
                self._others_at = asked
            return False
        if not before:
            log.info("duty %s is done here", self.name)
        # From when we asked, not from when we heard: the lease may be as old as that.
        self._log_ms, self._log_at = outcome.expires_ms - int(self._lease_s * 1000), asked
        self._until, self._renew_at = asked + self._lease_s, asked + self._lease_s / 2
        return True

    async def _taken_elsewhere(self, asked: float) -> bool:
        """Reading costs no entry of the log, and those who wait look often. Leases end by the log's time, and our clock may be
        late or early: one that we have known for as long as a lease lasts is over, and one that was in our way still is."""
        for duty in await self._metadata.read(queries.duties):
            if duty.name == self.name and duty.holder != self.holder:
                if duty.expires_ms != self._others:
                    self._others, self._others_at = duty.expires_ms, asked
                if asked - self._others_at >= self._lease_s:
                    return False
                return duty.expires_ms > self._clock.now_ms() or duty.expires_ms == self._refused
        return False

    async def release(self) -> None:
        """Let it go, so that another gateway need not wait for the lease's end. Repeats and failures do no harm."""
        held, self._until, self._renew_at = self.held, float("-inf"), float("-inf")
        if held:
            with contextlib.suppress(ClusterError):         # then it lapses
                await self._metadata.commit(DropDuty(name=self.name, holder=self.holder))


class Duties:
    """Those of one process: what metrics show."""

    def __init__(self, metadata: MetadataClient, clock: Clock, holder: str) -> None:
        self._metadata, self._clock, self._holder = metadata, clock, holder
        self._known: list[Duty] = []

    def __iter__(self) -> Iterator[Duty]:
        return iter(self._known)

    def duty(self, name: str, lease_s: float = LEASE_S) -> Duty:
        made = Duty(self._metadata, self._clock, name, self._holder, lease_s)
        self._known.append(made)
        return made

    def figures(self) -> dict[str, int]:
        """1 for each that is held here."""
        return {duty.name: int(duty.held) for duty in self._known}
