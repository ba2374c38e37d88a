"""Metadata members: the configuration that was applied last, as rows, so that it lives in snapshots and wins over any file.

When a configuration comes into force, and which may follow which, is for the group to know (consensus.group): here it is kept.
"""

from collections.abc import Sequence

from consensus.apply.state import State
from consensus.core.model import Member

MEMBERS_MAX = 64
"""Voters are 3 or 5; machines beyond them that read locally get the log too."""


def store(state: State, index: int, members: Sequence[Member]) -> None:
    """This is the configuration of log entry `index`."""
    assert len({member.name for member in members}) == len(members) <= MEMBERS_MAX
    state.execute("DELETE FROM member")
    state.executemany("INSERT INTO member (name, address, incarnation, voter, ord) VALUES (?, ?, ?, ?, ?)",
                      [(member.name, member.address, member.incarnation, member.voter, index) for member in members])
