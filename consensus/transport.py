"""What stands between PySyncObj's core and the other members. A group of one has none: LocalTransport carries nothing.

A transport for more members must keep these rules, which the library's own does not (it also unpickles what strangers
send, so it is never used):
* frames are authenticated before they are decoded, bounded, and never pickled; the sender's id comes from its proof;
* an acknowledgement (`next_node_idx`) is held until the end of the tick (`flush`), when the journal is durable; it
  carries the term, and one of another term than the receiver's is dropped: it describes another log;
* AppendEntries of a lower term is answered with the newer term, and its sender steps down;
* votes are refused while a leader has been heard within 0.9 of the least election timeout, and for one such time after
  start: a member that comes back must not depose a healthy leader;
* `journal.end_message()` follows each AppendEntries;
* a follower that loads a snapshot answers meanwhile, so that the leader does not take it for dead;
* membership and version messages, read-only peers and TimeoutNow are not accepted from the wire;
* a link whose unsent bytes pass a limit is dropped; the follower recovers by reset or snapshot;
* `probe{term, seq}` is answered only to the leader of the same term (the read index).
"""

from typing import Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport


class LocalTransport(Transport):  # type: ignore[misc]  # the library has no types
    """The transport of a group of one."""

    def __init__(self, syncObj: Any, selfNode: Node, otherNodes: list[Node]) -> None:
        super().__init__(syncObj, selfNode, otherNodes)
        assert not otherNodes, "a group of more than one needs a transport that reaches the others"

    @property
    def ready(self) -> bool:
        return True

    def waitReady(self) -> None:
        pass

    def addNode(self, node: Node) -> None:
        raise AssertionError("membership cannot change in a group of one")

    def dropNode(self, node: Node) -> None:
        raise AssertionError("membership cannot change in a group of one")

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        raise AssertionError("there is nobody to send to")

    def destroy(self) -> None:
        pass

    def flush(self) -> None:
        """Release the acknowledgements held in this tick: everything that they claim is durable now."""
