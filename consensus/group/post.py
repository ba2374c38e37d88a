"""Who carries frames between members: all that a group knows of a network. Links over TLS are in links.py; tests and the
simulation have others."""

from collections.abc import Callable, Mapping
from typing import Protocol

Receive = Callable[[str, int, "bytes | memoryview"], None]
"""(member, operation, payload): what another member has sent. The payload is valid during the call only."""


class Post(Protocol):
    """Frames may be lost, with their link or without, and come late. From one member to another, requests are in order as
    long as their link lives. All in one thread."""

    def start(self, receive: Receive, connected: Callable[[str], None], lost: Callable[[str], None]) -> None:
        """Callbacks come later, never within a call of ours. `connected`: requests to that member may leave from now on."""

    def keep(self, addresses: Mapping[str, str]) -> None:
        """Have links to these members and to no others. A changed address is dialled anew."""

    def send(self, name: str, operation: int, payload: bytes) -> None:
        """A request over our link to the member; nothing happens if there is none."""

    def answer(self, name: str, operation: int, payload: bytes) -> None:
        """Over the link that the member has to us."""

    def redial(self, name: str) -> None:
        """Our link to the member is silent: give it up and dial again."""

    async def stop(self) -> None: ...
