"""What stands between PySyncObj's core and the other members. A group of one has none: LocalTransport
carries nothing. That of several is in consensus/group.
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
