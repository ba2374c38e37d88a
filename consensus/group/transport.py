"""What stands between PySyncObj's core and the post: its messages become frames, and frames that may reach it its messages.

Acknowledgements are held until the end of the tick, when what they say is durable (`flush`); one of a term that has passed
meanwhile is dropped, since it describes another log.
"""

from collections.abc import Callable
from typing import Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from consensus.core.errors import Corrupt, Refused
from consensus.group import members
from consensus.group.core import Core
from consensus.group.elections import Elections
from consensus.group.messages import Append, Appended, Message
from consensus.journal import COMMANDS, CONFIGURATION, NO_OP, Journal

_KINDS = frozenset({COMMANDS, NO_OP[0], CONFIGURATION})


class GroupTransport(Transport):  # type: ignore[misc]  # the library has no types
    """See the module."""

    def __init__(self, incarnation: bytes, answer: Callable[[str, Message], None]) -> None:
        super().__init__(None, None, [])
        self._incarnation, self._answer = incarnation, answer
        self._held: list[tuple[str, Appended]] = []
        self.core: Core
        self.elections: Elections
        self.journal: Journal

    @property
    def ready(self) -> bool:
        return True

    def waitReady(self) -> None:
        pass

    def addNode(self, node: Node) -> None:
        raise AssertionError("members change by entries of the log")

    def dropNode(self, node: Node) -> None:
        raise AssertionError("members change by entries of the log")

    def destroy(self) -> None:
        pass

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        kind = message["type"]
        if kind == "next_node_idx":
            self._hold(node.id, Appended(self.core.term, self._incarnation, message["next_node_idx"], message["reset"],
                                         message["success"]))
        elif kind == "request_vote":
            self.elections.asked_by_library(node.id)
        elif kind == "response_vote":
            self.elections.given_by_library()
        else:
            raise AssertionError(f"the library sends {kind}, which nobody asked it to")
        return True

    def _hold(self, name: str, answer: Appended) -> None:
        held = self._held
        if held and held[-1][0] == name and answer.success and held[-1][1].success and held[-1][1].term == answer.term \
                and held[-1][1].next <= answer.next:
            held[-1] = (name, answer)                 # says all that the one before says
        else:
            held.append((name, answer))

    def behind(self, name: str, following: int | None) -> None:
        """Answer that there is nothing to acknowledge, and from where on entries would be of use."""
        self._hold(name, Appended(self.core.term, self._incarnation, following or 1, following is not None, False))

    def flush(self) -> None:
        """Everything that the acknowledgements claim is durable now."""
        if self._held:
            held, self._held = self._held, []
            for name, answer in held:
                if answer.term == self.core.term:
                    self._answer(name, answer)

    def append(self, sender: Node, message: Append, applied: int) -> None:
        """Entries from the leader of a term that isn't older than ours. Raises Refused for what no leader sends."""
        term = message.term
        for entry_term, command in message.entries:
            if entry_term > term or command[0] not in _KINDS:
                raise Refused(f"an entry of term {entry_term} and kind {command[0]} in term {term}")
            if command[0] == CONFIGURATION:
                try:
                    members.decode(command)
                except Corrupt as error:
                    raise Refused(str(error)) from error
        journal, core = self.journal, self.core
        previous, previous_term, skip = message.previous, message.previous_term, 0
        if journal.term_at(previous) == previous_term or previous <= applied:
            # What is here already is passed over, so that the library does not cut it off and count it anew.
            for entry_term, _ in message.entries:
                if journal.term_at(previous + 1) != entry_term:
                    break
                previous, previous_term, skip = previous + 1, entry_term, skip + 1
        commit = core.commit
        core.give(sender, {
            "type": "append_entries", "term": term, "commit_index": message.commit, "prevLogIdx": previous,
            "prevLogTerm": previous_term,
            "entries": [(command, previous + place, entry_term)
                        for place, (entry_term, command) in enumerate(message.entries[skip:], 1)],
        })
        journal.end_message()
        if core.commit < commit:                      # the library takes what it has hidden for cut off
            core.commit = commit
            journal.setRaftCommitIndex(commit)
