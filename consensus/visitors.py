"""Who may ask a metadata member what. Whoever has a link knows the cluster's secret; over the network a certificate says besides
which process of which machine it is, and what only members say to each other is heard from members alone.
"""

from consensus import protocol
from consensus.core.errors import Refused
from consensus.core.wire import Link


def is_member(link: Link) -> bool:
    """Over the network a certificate says who asks; who comes by the socket of this machine knows the secret."""
    return not link.peer or link.peer.rpartition("/")[2] == "meta"


def check_member(link: Link) -> None:
    """Raises Refused."""
    if not is_member(link):
        raise Refused(f"{link.peer} is no metadata member")


def check_joining(link: Link, payload: memoryview, passed_on: bool) -> None:
    """A machine asks for itself; a member may pass that on. Raises Refused, and what decoding raises."""
    check_member(link)
    if link.peer and not passed_on and link.peer.partition("/")[0] != protocol.joining.decode(payload).name:
        raise Refused(f"{link.peer} asks to be let in by another name")
