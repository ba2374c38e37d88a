"""How a metadata member comes into its cluster: by birth, by being taken in, or by being in it already.

A member with an empty folder and no peers begins a cluster. With peers it asks them: if one is in a cluster, the member asks
to be taken in, and takes part in no election before the log says that it may. Only a member that was told that it may begin
one does so beside peers, and only when every peer has answered that it knows of no cluster and will not begin one itself
(of several that would, the one with the least name does).

The *incarnation* is a random name of the member's folder. It lies beside the journal, and whoever loses the journal loses
it: a member that may have forgotten a vote must come back as another one, which the leader takes in as a learner.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consensus import protocol
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Refused
from consensus.core.model import Member
from consensus.disk import Disk, replace_file
from consensus.forwarding import call_member

if TYPE_CHECKING:
    from consensus.core.tls import Tls
    from consensus.group.timing import Timing

log = logging.getLogger("staddle.meta")

FILE = "incarnation"
TAKEN_IN = "taken-in"
"""File of a member that others have taken in: however little it has yet, it never begins a cluster."""

INCARNATION_BYTES = 16

ASK_S = 0.25
"""Between rounds of questions to the peers. They start at about the same time, and then every tenth of a second shows."""

MEET_S = 2.0
JOIN_S = 15.0
"""For an answer. To join takes a commit, and perhaps the election of who can make it."""

SAY_S = 10.0
"""How often we say what we wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """What a member of a cluster is told at its start."""

    address: str
    """HOST:PORT at which the other members reach this one."""

    peers: tuple[str, ...] = ()
    """HOST:PORT of other members, of which some may not be there (yet)."""

    begins: bool = False
    """Whether it may begin a cluster although it has peers."""

    voters: int = 3
    """Members that are to have a vote; more are learners."""

    timing: "Timing | None" = None
    """Of elections; the default is right for real machines."""

    def asking(self, addresses: tuple[str, ...], begins: bool) -> "ClusterSettings":
        """These peers too."""
        return replace(self, peers=tuple(dict.fromkeys((*self.peers, *addresses))), begins=begins)


def incarnation(folder: str, disk: Disk, *, fresh: bool) -> bytes:
    """The folder's; a new one if it has none, or if its journal is `fresh`. Durable on return. Raises OSError."""
    path = os.path.join(folder, FILE)
    if not fresh:
        try:
            with open(path, "rb") as file:
                kept = file.read()
            if len(kept) == INCARNATION_BYTES:
                return kept
        except FileNotFoundError:
            pass
    made = secrets.token_bytes(INCARNATION_BYTES)
    replace_file(disk, path, made, "metadata.incarnation")
    return made


def keep_incarnation(folder: str, disk: Disk, known: bytes) -> None:
    """The log's, of the only member there is: it may have lost the file, or the journal beside it. Raises OSError."""
    replace_file(disk, os.path.join(folder, FILE), known, "metadata.incarnation")


def was_taken_in(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, TAKEN_IN))


def note_taken_in(folder: str, disk: Disk) -> None:
    """Durable on return, and so before the log brings anything. Raises OSError."""
    if not was_taken_in(folder):
        replace_file(disk, os.path.join(folder, TAKEN_IN), b"", "metadata.taken_in")


def is_of_a_cluster(folder: str) -> bool:
    """Whether its member was ever in one, or on its way into one."""
    return os.path.exists(os.path.join(folder, FILE))


class Joiner:
    """Asks the peers until one of the two happens."""

    def __init__(self, settings: ClusterSettings, name: str, born: bytes, secret: bytes, tls: "Tls | None") -> None:
        """`born` is the incarnation."""
        self._settings, self._name, self._born, self._secret, self._tls = settings, name, born, secret, tls

    async def join(self) -> tuple[Member, ...]:
        """The cluster's members, once it has taken us in. Empty if we are to begin one. Raises Refused."""
        said = 0.0
        loop = asyncio.get_running_loop()
        while True:
            answers = await asyncio.gather(*[self._meet(peer) for peer in self._settings.peers])
            met = {peer: answer for peer, answer in zip(self._settings.peers, answers, strict=True)
                   if isinstance(answer, protocol.Met)}
            for peer, answer in met.items():
                if answer.members and (members := await self._ask_in(peer)):
                    return members
            if self._begins(answers):
                return ()
            if loop.time() - said > SAY_S:
                said = loop.time()
                log.info("waiting for a cluster: %s", "; ".join(
                    f"{peer}: {'in none' if isinstance(answer, protocol.Met) else answer}"
                    for peer, answer in zip(self._settings.peers, answers, strict=True)))
            await asyncio.sleep(ASK_S)

    async def say_where(self) -> None:
        """We are a member, at another address than the log says. Asked once: who cannot note it now will be asked again."""
        for peer in self._settings.peers:
            if await self._ask_in(peer):
                return

    async def removed(self) -> bool:
        """Whether a peer that serves knows the cluster without us."""
        answers = await asyncio.gather(*[self._meet(peer) for peer in self._settings.peers])
        return any(isinstance(answer, protocol.Met) and answer.serves and all(
            member.name != self._name for member in answer.members) for answer in answers)

    async def find(self) -> None:
        """Until a peer serves in a cluster. For who has to begin anew: not before others have what is lost here, and can go
        on with it (if all of them were to begin anew, nothing would be left)."""
        while True:
            answers = await asyncio.gather(*[self._meet(peer) for peer in self._settings.peers])
            if any(isinstance(answer, protocol.Met) and answer.serves and answer.name != self._name for answer in answers):
                return
            await asyncio.sleep(ASK_S)

    def _begins(self, answers: Sequence[protocol.Met | ClusterError]) -> bool:
        return self._settings.begins and all(
            isinstance(answer, protocol.Met) and not answer.members
            and not (answer.may_begin and answer.name < self._name) for answer in answers)

    async def _meet(self, peer: str) -> protocol.Met | ClusterError:
        try:
            answer = protocol.met.decode(await self._call(peer, protocol.MEET, b"", MEET_S))
        except UNDECODABLE as error:
            return Refused(f"speaks another language: {error}")
        except ClusterError as error:
            return error
        if answer.name == self._name and self._born and answer.incarnation not in (self._born, b""):
            raise Refused(f"the machine at {peer} is called {self._name} as well: give each machine a name of its own")
        return answer

    async def _ask_in(self, peer: str) -> tuple[Member, ...]:
        """Empty if it can't take us in just now. Raises Refused if it won't."""
        asking = protocol.Joining(name=self._name, address=self._settings.address, incarnation=self._born)
        try:
            members = protocol.met.decode(await self._call(peer, protocol.JOIN, protocol.encode(asking), JOIN_S)).members
        except Refused:
            raise
        except ClusterError as error:
            log.info("%s could not take us in: %s", peer, error)
            return ()
        return members

    async def _call(self, peer: str, operation: int, payload: bytes, answer_s: float) -> bytes:
        return await call_member(peer, self._secret, self._tls, operation, payload, answer_s=answer_s)
