"""The post over links of core.wire: one from each member to each other, dialled anew whenever it is lost.

Who is on the other side is what its certificate says (MACHINE/meta); the first frame of a link has to say the same. On
sockets without certificates (`unix:`, in tests) that first frame is all there is. A member that dials us is dialled too,
as long as its link lives: one that has just come knows nobody's address, and may have to fetch a snapshot first.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from consensus.core.errors import ClusterError, Refused
from consensus.core.wire import OK, Link, WireClient
from consensus.group import messages
from consensus.group.messages import HELLO, Hello
from consensus.group.post import Receive

if TYPE_CHECKING:
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.meta")

DIAL_S = 1.0
"""A host that doesn't answer within this time is tried again; a handshake takes milliseconds."""

AGAIN_S = (0.05, 0.3)
"""Between two tries, at random: a member that was restarted is back in the group soon after it listens."""

UNSENT_BYTES_MAX = 16 << 20
"""A link with more than this unsent is given up (promise 8). The window in replication.py stays far below, so the other
side has stopped reading altogether."""

MET_MAX = 64
"""As many members as a configuration has."""

ROLE = "meta"


class LinkPost:
    """See the module. `frame` and `lost` are for whoever accepts links (the member's server)."""

    def __init__(self, name: str, address: str, secret: bytes, *, tls: "Tls | None" = None,
                 dial: Callable[..., WireClient] = WireClient) -> None:
        self._name, self._secret, self._tls, self._dial = name, secret, tls, dial
        self._address = address
        self._members: Mapping[str, str] = {}
        self._met: dict[str, str] = {}                        # who has a link to us, and is no member that we know
        self._out: dict[str, _Outgoing] = {}
        self._in: dict[str, Link] = {}
        self._stopped = False
        self._names: dict[Link, str] = {}

    def start(self, receive: Receive, connected: Callable[[str], None], lost: Callable[[str], None]) -> None:
        self.receive, self.connected, self.lost_to = receive, connected, lost

    async def stop(self) -> None:
        going = list(self._out.values())
        self._met, self._stopped = {}, True
        self.keep({})
        await asyncio.gather(*(outgoing.task for outgoing in going), return_exceptions=True)

    # Our links

    def keep(self, addresses: Mapping[str, str]) -> None:
        self._members = addresses
        self._dial_all({**self._met, **addresses})

    def _dial_all(self, addresses: Mapping[str, str]) -> None:
        for name, outgoing in list(self._out.items()):
            if addresses.get(name) != outgoing.address:
                del self._out[name]
                outgoing.stop()
        for name, address in addresses.items():
            if name not in self._out and address and not self._stopped:
                self._out[name] = _Outgoing(self, name, address)

    def send(self, name: str, operation: int, payload: bytes) -> None:
        outgoing = self._out.get(name)
        if outgoing is None or outgoing.client is None:
            return
        if outgoing.client.unsent_bytes > UNSENT_BYTES_MAX:
            log.warning("the link to member %s is given up: it takes nothing any more", name)
            outgoing.client.close()
            return
        outgoing.client.post(operation, 0, payload)

    def redial(self, name: str) -> None:
        outgoing = self._out.get(name)
        if outgoing is not None and outgoing.client is not None:
            outgoing.client.close()

    def make_client(self, address: str, on_push: Callable[[int, bytes], None], on_lost: Callable[[], None]) -> WireClient:
        return self._dial(address, self._secret, on_push, on_lost, tls=self._tls)

    def say_hello(self, client: WireClient, to: str) -> None:
        operation, payload = messages.encode(Hello(messages.VERSION, self._name, self._address, to not in self._members))
        client.post(operation, 0, payload)

    # The others' links

    def frame(self, link: Link, operation: int, payload: memoryview) -> None:
        """A frame from another member. Raises Refused, upon which the link is to be closed."""
        if operation == HELLO:
            hello = messages.decode(HELLO, payload)
            assert isinstance(hello, Hello)
            if hello.version != messages.VERSION:
                raise Refused(f"member {hello.name} speaks version {hello.version} of the members' protocol")
            if link.peer and link.peer != f"{hello.name}/{ROLE}":
                raise Refused(f"{link.peer} says that it is member {hello.name}")
            self._names[link] = hello.name
            self._in[hello.name] = link
            if hello.name != self._name and hello.address and not hello.returns and len(self._met) < MET_MAX:
                self._met[hello.name] = hello.address
                self.keep(self._members)
            return
        name = self._names.get(link)
        if name is None:
            raise Refused("a member has to say first who it is")
        if operation in messages.ANSWERS:
            raise Refused("answers come over the link of the question")
        self.receive(name, operation, payload)

    def lost(self, link: Link) -> None:
        name = self._names.pop(link, None)
        if name is not None and self._in.get(name) is link:
            del self._in[name]
            self._met.pop(name, None)
            self.keep(self._members)

    def answer(self, name: str, operation: int, payload: bytes) -> None:
        link = self._in.get(name)
        if link is None:
            return
        if link.unsent_bytes > UNSENT_BYTES_MAX:
            link.close()
            return
        link.send(operation, OK, 0, payload)


class _Outgoing:
    """One link of ours, for as long as the member is where it is."""

    def __init__(self, post: LinkPost, name: str, address: str) -> None:
        self._post, self.name, self.address = post, name, address
        self.client: WireClient | None = None
        """Once it is connected."""
        self.task = asyncio.get_running_loop().create_task(self._keep(), name=f"link to member {name}")

    def stop(self) -> None:
        self.task.cancel()

    async def _keep(self) -> None:
        said = ""
        while True:
            gone = asyncio.Event()
            client = self._post.make_client(self.address, self._pushed, gone.set)
            try:
                await client.connect(DIAL_S)
                if client.peer and client.peer != f"{self.name}/{ROLE}":
                    raise Refused(f"{self.address} is {client.peer}, not {self.name}/{ROLE}")
                said = ""
                self._post.say_hello(client, self.name)
                self.client = client
                self._post.connected(self.name)
                await gone.wait()
            except (ClusterError, ValueError) as error:         # ValueError: what was given for an address is none
                if str(error) != said:
                    log.info("no link to member %s: %s", self.name, error)
                said = str(error)
            finally:
                client.close()
                if self.client is not None:
                    self.client = None
                    self._post.lost_to(self.name)
            await asyncio.sleep(random.uniform(*AGAIN_S))

    def _pushed(self, operation: int, payload: bytes) -> None:
        if self.client is None:
            return
        if operation not in messages.ANSWERS:
            log.warning("member %s sends what is no answer", self.name)
            self.client.close()
            return
        try:
            self._post.receive(self.name, operation, payload)
        except Refused as error:
            log.warning("the link to member %s is given up: %s", self.name, error)
            self.client.close()
