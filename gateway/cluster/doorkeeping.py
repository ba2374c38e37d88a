"""The door of a machine while it serves: opened before anything else starts, since other machines may wait for it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from consensus.core.errors import ClusterError, Refused, UnknownOutcome
from consensus.core.tls import Tls
from gateway.cluster.door import Door
from gateway.cluster.entering import refuse_taken_name, root_key
from gateway.cluster.machine import Machine, remembered_peers
from gateway.config import DOOR_PORT, Config
from gateway.folders import FolderError, Folders, has_metadata
from gateway.identities import Identity

REFUSALS = {
    "unknown": "the cluster does not know this token: it was deleted, or is of another cluster",
    "spent": "this token has been used: each lets in one machine, once. `staddle cluster token` makes another",
    "expired": "this token has expired. `staddle cluster token` makes another",
}


@contextlib.asynccontextmanager
async def at_the_door(machine: Machine, folders: Folders, config: Config, secret: bytes,
                      root: Identity | None) -> AsyncIterator[tuple[Identity, bool] | None]:
    """The root key, and whether it was made just now; None if a signal came while it was waited for. Raises FolderError."""
    tls = machine.tls(secret, "door")
    home = "meta" in config.roles

    async def spend(token: str, digest: bytes, name: str) -> tuple[str, ...]:
        # Here, and a client for each token: they come once in a machine's life, and the supervisor stays small.
        from consensus import queries
        from consensus.client import MetadataClient
        from consensus.core.commands import SpendToken
        from consensus.core.results import Done, TokenRefused

        metadata = MetadataClient(folders.meta_address if home else None, secret, None, owner=f"{machine.name}/door", tls=tls,
                                  others=machine.peers)
        try:
            await metadata.start()
            outcome = await metadata.commit(SpendToken(id=token, hash=digest, name=name))
            members = await metadata.read(queries.members) if isinstance(outcome, Done) else []
        finally:
            await metadata.stop()
        if isinstance(outcome, TokenRefused):
            raise Refused(REFUSALS.get(outcome.why, f"the token is refused: {outcome.why}"))
        if not isinstance(outcome, Done):
            raise UnknownOutcome("whether the token was spent is not known")
        return tuple(member.address for member in members if member.address)

    def peers() -> tuple[str, ...]:
        with contextlib.suppress(FolderError):
            return tuple(dict.fromkeys((machine.address(), *remembered_peers(folders), *machine.peers)))
        return (machine.address(), *machine.peers)

    door = Door(machine.listens(DOOR_PORT), secret, tls, name=machine.name, may_begin=machine.may_begin, peers=peers, spend=spend)
    door.root = root
    beside = contextlib.AsyncExitStack()
    try:
        await door.start()
        if not home:
            from gateway.cluster.no_member import without_member  # here: the supervisor stays small

            await beside.enter_async_context(without_member(machine, secret, tls))
    except (OSError, ClusterError) as error:
        await door.stop()
        raise FolderError(f"setting 'cluster_listen': cannot listen on {machine.listens(DOOR_PORT if home else 0)}: "
                          f"{getattr(error, 'strerror', None) or error}") from error
    try:
        if root is not None and not has_metadata(folders):
            await refuse_taken_name(machine, door, tls)
        found = (root, False) if root is not None else await _unless_stopped(machine, folders, door, tls)
        if found is not None:
            door.root = found[0]
        yield found
    finally:
        await beside.aclose()
        await door.stop()


async def _unless_stopped(machine: Machine, folders: Folders, door: Door, tls: Tls) -> tuple[Identity, bool] | None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    asking, told = loop.create_task(root_key(machine, folders, door, tls)), loop.create_task(stopped.wait())
    try:
        await asyncio.wait((asking, told), return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        asking.cancel()
        told.cancel()
        await asyncio.gather(asking, told, return_exceptions=True)
