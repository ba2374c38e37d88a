"""How long members wait for each other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds."""

    election_min_s: float = 0.5
    election_max_s: float = 1.0
    """A follower waits so long for a leader, at random: a sync that takes 300 ms must not look like a dead leader."""

    heartbeat_s: float = 0.1

    @property
    def fallback_s(self) -> float:
        """A leader that a majority has not acknowledged for so long leads no more."""
        return 2 * self.election_max_s
