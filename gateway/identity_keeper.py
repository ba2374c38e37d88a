"""The identities in force: root, those of the configuration, and the users of the metadata with their enabled keys.

IdentityKeeper  fills an IdentityStore at the start and again when the metadata's users have changed. It looks once a
                second; `reload` does it at once (gateway/peers.py calls it on all workers after an admin's change); and
                an access key that is not in the store is looked up by itself, so that a new key works at once.
Rules           a look-up of a known key costs nothing more. An identity of the configuration wins over a metadata user
                with the same access key. A key whose secret cannot be opened is left out, and said. While the metadata
                cannot be read, what was read last stays in force.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping

from consensus import accounts
from consensus.client import MetadataClient
from consensus.core.errors import ClusterError
from consensus.core.model import AccessKey, User
from gateway.identities import Identity, IdentityStore
from gateway.s3.errors import S3Error
from gateway.s3.policy.read import of_identity
from gateway.sealing import SealBroken, Sealer

log = logging.getLogger("staddle.identities")

LOOK_S = 1.0
"""A disabled key is refused after this time at the latest, if nobody says `reload`."""


class IdentityKeeper:
    """Works from `start` to `stop`."""

    def __init__(self, store: IdentityStore, metadata: MetadataClient, secret: bytes, configured: Iterable[Identity]) -> None:
        """`secret` is the cluster's; `configured` are root and the configuration's identities."""
        self._store, self._metadata, self._sealer = store, metadata, Sealer(secret)
        self._configured = {identity.access_key: identity for identity in configured}
        self._opened: dict[tuple[str, bytes], str] = {}
        self._said: set[str] = set()
        self._version: int | None = None
        self._one = asyncio.Lock()
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """All are in force on return. Raises ClusterError."""
        await self.reload()
        self._store.on_unknown = self._look_up
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="identities")

    async def stop(self) -> None:
        self._store.on_unknown = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self) -> None:
        """What was committed before this call is in force on return. Raises ClusterError."""
        async with self._one:
            version, users, keys = await self._metadata.identities_at()
            policies = await self._metadata.user_policies()
            made, opened = [], {}
            for number, key in enumerate(keys):
                identity = self._identity(users.get(key.user), key, policies.get(key.user, {}))
                if identity is not None:
                    opened[key.access_key, key.sealed] = identity.secret_key
                    made.append(identity)
                if number % accounts.PAGE_MAX == accounts.PAGE_MAX - 1:
                    await asyncio.sleep(0)              # opening a thousand takes about 5 ms
            self._opened = opened
            self._store.replace([*self._configured.values(), *made])
            self._version = version

    def _identity(self, user: User | None, key: AccessKey, policies: Mapping[str, bytes]) -> Identity | None:
        """None for a key that is not in force. A policy that cannot be understood would be a limit that is not kept."""
        if user is None or user.disabled or key.disabled:
            return None
        if key.access_key in self._configured:
            self._say(f"access key {key.access_key} is {self._configured[key.access_key].name!r} of the configuration; "
                      f"the user {user.name!r} who was given the same one cannot use it")
            return None
        secret = self._opened.get((key.access_key, key.sealed))
        if secret is None:
            try:
                secret = self._sealer.open(key.access_key, key.sealed)
            except SealBroken as error:
                self._say(f"user {user.name!r} cannot use a key: {error}")
                return None
        limits = tuple(f"{name}:{document.decode()}" for name, document in policies.items())
        try:
            for entry in limits:
                of_identity(entry)
        except S3Error as error:
            self._say(f"user {user.name!r} cannot use its keys: a policy of it cannot be read: {error}")
            return None
        return Identity(name=user.name, account=user.account, user_id=user.user_id, access_key=key.access_key,
                        secret_key=secret, display_name=user.display_name, email=user.email, admin=user.admin,
                        policies=limits)

    def _say(self, sentence: str) -> None:
        """Once: it is found again at each change."""
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning(sentence)

    def _look_up(self, access_key: str) -> Identity | None:
        """A key that isn't in the store may have been made within the last second. Asks for a few rows, and only if
        anything has changed: nobody can make us busy by making up keys."""
        with contextlib.suppress(ClusterError):
            if self._metadata.glance(accounts.identities_version) in (self._version, None):
                return None
            self._stale.set()
            key = self._metadata.glance(accounts.access_key, access_key)
            user = None if key is None else self._metadata.glance(accounts.user, key.user)
            policies = None if key is None else self._metadata.glance(accounts.policies_of, key.user)
            return None if key is None or policies is None else self._identity(user, key, dict(policies))
        return None

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._stale.wait()
            self._stale.clear()
            try:
                if await self._metadata.identities_version() != self._version:
                    await self.reload()
            except ClusterError as error:
                log.info("identities are as they were: %s", error)
            except Exception:      # this loop's edge: if it ended, nobody would notice that a key was disabled
                log.exception("identities could not be read again")
