"""PySyncObj's core under our names: the only file beside raft.py that knows what the library calls its private things."""

import zlib
from collections.abc import Iterable
from typing import Any

from pysyncobj import SyncObj
from pysyncobj.node import Node
from pysyncobj.syncobj import _RAFT_STATE

FOLLOWER, CANDIDATE, LEADER = _RAFT_STATE.FOLLOWER, _RAFT_STATE.CANDIDATE, _RAFT_STATE.LEADER

FIELDS = tuple("_SyncObj__" + name for name in (
    "raftState", "raftCurrentTerm", "raftLeader", "raftElectionDeadline", "raftCommitIndex", "raftNextIndex",
    "raftMatchIndex", "lastResponseTime", "otherNodes", "readonlyNodes", "connectedNodes", "newAppendEntriesTime",
))
METHODS = ("_SyncObj__onMessageReceived", "_SyncObj__setCurrentTerm", "_SyncObj__setState", "_SyncObj__generateRaftTimeout",
           "_SyncObj__sendAppendEntries")


class Peer(Node):  # type: ignore[misc]  # the library has no types
    """The library keeps members in sets; their order must not depend on the process, so that a simulation repeats."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())


def _private(name: str, doc: str) -> Any:
    field = "_SyncObj__" + name

    def get(self: "Core") -> Any:
        return getattr(self._node, field)

    def put(self: "Core", value: Any) -> None:
        setattr(self._node, field, value)

    return property(get, put, doc=doc)


class Core:
    """See the module."""

    term: int = _private("raftCurrentTerm", "")
    state: int = _private("raftState", "")
    commit: int = _private("raftCommitIndex", "")
    election_deadline: float = _private("raftElectionDeadline", "When a follower or candidate asks for votes.")
    beat_at: float = _private("newAppendEntriesTime", "When a leader's next heartbeat is due.")
    next_index: dict[Node, int] = _private("raftNextIndex", "")
    match_index: dict[Node, int] = _private("raftMatchIndex", "")
    responded: dict[Node, float] = _private("lastResponseTime", "When each follower has acknowledged last.")
    connected: set[Node] = _private("connectedNodes", "")
    voters: set[Node] = _private("otherNodes", "But ourselves.")
    learners: set[Node] = _private("readonlyNodes", "But ourselves.")

    def __init__(self, node: SyncObj) -> None:
        missing = [name for name in FIELDS if name not in node.__dict__] + [name for name in METHODS if not hasattr(node, name)]
        assert not missing, missing
        self._node = node

    @property
    def leads(self) -> bool:
        return bool(self.state == LEADER)

    @property
    def leader(self) -> str | None:
        node = self._node._getLeader()
        return None if node is None else node.id

    def give(self, sender: Node, message: dict[str, Any]) -> None:
        """A message in the library's own form."""
        self._node._SyncObj__onMessageReceived(sender, message)

    def adopt(self, term: int) -> None:
        """Somebody is in a newer term: follow, of nobody yet. Durable on return."""
        assert term > self.term
        self._node._SyncObj__setCurrentTerm(term, None)
        self._node._SyncObj__setState(FOLLOWER)
        self._node._SyncObj__raftLeader = None

    def follow(self, leader: Node, until: float) -> None:
        """It leads our term, and there is nothing else to tell the library about it."""
        self._node._SyncObj__setState(FOLLOWER)
        self._node._SyncObj__raftLeader = leader
        self.election_deadline = until

    def forget(self, node: Node) -> None:
        """Nothing that it has acknowledged counts any more."""
        for table in (self.next_index, self.match_index, self.responded):
            table.pop(node, None)

    def election_timeout(self) -> float:
        timeout: float = self._node._SyncObj__generateRaftTimeout()
        return timeout

    def set_others(self, voters: Iterable[Node], learners: Iterable[Node], linked: set[str], last: int, now: float) -> None:
        """Who is counted and who only gets the log."""
        self.voters, self.learners = set(voters), set(learners)
        others = self.voters | self.learners
        for table in (self.next_index, self.match_index, self.responded):
            for node in [node for node in table if node not in others]:
                del table[node]
        for node in others:
            self.next_index.setdefault(node, last + 1)
            self.match_index.setdefault(node, 0)
            self.responded.setdefault(node, now)
        self.connected = {node for node in others if node.id in linked}
