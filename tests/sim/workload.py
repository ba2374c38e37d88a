"""Clients of the gateways: a few keys that many want, every kind of operation, and the history of what each was told
(tests/linear has the values and the checker).

A client belongs to a gateway's process and dies with it; what it had asked for then has an unknown outcome. An operation
is what the gateway's own code does for a request, without HTTP: bytes to the nodes, then one commit.
"""

import asyncio
import hashlib
import math
from dataclasses import replace
from typing import Any, NamedTuple

from consensus.core.commands import (
    AppendVersion,
    Condition,
    CreateBucket,
    DeleteVersion,
    NewChunk,
    NewContent,
    PutVersion,
    RenameVersion,
    SetVersioning,
)
from consensus.core.errors import ClusterError, Corrupt, Unavailable, UnknownOutcome
from consensus.core.ids import BucketId, Generation, VersionId, digest
from consensus.core.model import Attributes, Slice
from consensus.core.results import (
    BucketCreated,
    BucketExists,
    Committed,
    ConditionFailed,
    Deleted,
    NoKey,
)
from tests.linear.history import EXPECTING, WRITES, Kind, Op, Outcome, group_of
from tests.sim.machines import Gateway
from tests.sim.world import World

PLAIN, VERSIONED = "plain", "versioned"
ANSWER_S_MAX = 40.0
"""A request that takes longer has lost its way: everything inside has shorter limits."""

SLOW_SHARE = 0.06


class Brought(NamedTuple):
    """Bytes that are on nodes, for the commit that is to come."""

    content: NewContent
    ticket: Generation


class Refusal(NamedTuple):
    """Not done, and said so: it is in no history."""

    why: str


class Workload:
    """All clients of a simulation."""

    def __init__(self, world: World, *, keys: int = 6, pause_s: float = 0.2, clients: int = 2) -> None:
        self._world, self._chance = world, world.chance("workload")
        self._pause_s, self._clients = pause_s, clients
        self.keys = [f"g{number % 2}/k{number}" for number in range(keys)]
        self._history: dict[int, Op] = {}
        self.bodies: dict[str, bytes] = {}
        """By ETag."""
        self._added: dict[str, bytes] = {}
        """What appends have brought, likewise."""
        self.versions: dict[str, str] = {}
        """Outcome of each put into the versioned bucket, by ETag."""
        self._number = 0
        self._buckets: dict[str, BucketId] = {}
        self.running = True

    @property
    def history(self) -> list[Op]:
        return [self._history[number] for number in sorted(self._history)]

    def bucket_id(self, name: str) -> BucketId | None:
        return self._buckets.get(name)

    # Clients

    def begin(self, gateway: Gateway) -> None:
        """A gateway has started: its clients begin."""
        for number in range(self._clients):
            gateway.process.spawn(self._client(gateway, int(gateway.machine.name[1:]) * 10 + number))

    async def _client(self, gateway: Gateway, name: int) -> None:
        while self.running:
            await asyncio.sleep(self._pause_s * (0.2 + 1.6 * self._chance.random()))
            if self.running and await self._bucket(gateway, PLAIN) is not None:
                await self._one(gateway, name)

    async def _bucket(self, gateway: Gateway, name: str) -> BucketId | None:
        if name in self._buckets:
            return self._buckets[name]
        try:
            result = await gateway.metadata.commit(CreateBucket(name=name, account="a", owner="o"))
            found = await gateway.metadata.bucket(name)
            if isinstance(result, BucketCreated | BucketExists) and found is not None:
                if name == VERSIONED:
                    await gateway.metadata.commit(SetVersioning(bucket=found.id, status="Enabled"))
                    found = await gateway.metadata.bucket(name)
                    if found is None or found.versioning != "Enabled":
                        return None
                return self._buckets.setdefault(name, found.id)
        except ClusterError:
            pass
        return None

    async def _one(self, gateway: Gateway, name: int) -> None:
        chance = self._chance
        key = chance.choice(self.keys)
        kind = chance.choices(
            (Kind.PUT, Kind.CREATE, Kind.SWAP, Kind.APPEND, Kind.RENAME, Kind.DELETE, Kind.GET, Kind.HEAD, Kind.LIST),
            (25, 10, 8, 8, 6, 10, 28, 10, 5))[0]
        if kind is Kind.LIST:
            key = key.partition("/")[0]
        if kind is Kind.PUT and chance.random() < 0.25:
            await self._put_version(gateway, key)
            return
        expected, to = None, ""
        if kind in EXPECTING:
            expected = next((op.seen or op.value for op in reversed(self.history[-60:])
                             if op.key == key and (op.seen or op.value)), None)
            if expected is None:
                kind = Kind.PUT
        if kind is Kind.RENAME:
            to = chance.choice([other for other in self.keys if other != key and group_of(other) == group_of(key)])
        etag = self._body() if kind in (Kind.PUT, Kind.CREATE, Kind.SWAP, Kind.APPEND) else None
        if kind is Kind.APPEND:
            assert etag is not None
            assert expected is not None
            self._added[etag] = self.bodies[etag]
            self.bodies[etag] = self.bodies[expected] + self._added[etag]
        await self.do(gateway, name, kind, key, etag, expected, to)

    def _body(self) -> str:
        """A new ETag. One body in six is the same as others, so that copies are shared and collected."""
        self._number += 1
        chance = self._chance
        kind = chance.random()
        if kind < 0.16:
            body = b"shared %d" % chance.randrange(3)
        elif kind < 0.17:                                 # as a stream, piece by piece
            body = b"%d " % self._number * 200_000
        else:
            body = b"%d " % self._number * chance.randint(1, 40)
        etag = hashlib.md5(b"%d" % self._number, usedforsecurity=False).hexdigest()[:12]
        self.bodies[etag] = body
        return etag

    # Operations

    async def do(self, gateway: Gateway, client: int, kind: Kind, key: str, etag: str | None = None,
                 expected: str | None = None, to: str = "") -> Op | None:
        """Carry it out and note what was said. None if it was refused without effect."""
        loop = asyncio.get_running_loop()
        number = len(self._history) + self._world.counts.get("refused", 0)
        op = Op(client=client, gateway=int(gateway.machine.name[1:]), kind=kind, key=key, outcome=Outcome.UNKNOWN,
                begin=loop.time(), end=math.inf, value=etag, expected=expected, to=to)
        writes = kind in WRITES
        if writes:
            self._history[number] = op                  # it stays so if the gateway dies
        else:
            self._world.counts["refused"] = self._world.counts.get("refused", 0) + 1
        told: dict[str, Any]
        try:
            with gateway.metadata.one_moment():        # as the gateway does
                told = await self._ask(gateway, op)
        except UnknownOutcome:
            told = {"outcome": Outcome.UNKNOWN}
        except ClusterError as error:
            told = {"refused": Refusal(f"{type(error).__name__}: {error}")}
            if isinstance(error, Corrupt):
                self._world.note(f"client {client}: {kind} {key}: {error!r}")
        end = loop.time()
        if end - op.begin > ANSWER_S_MAX:
            self._world.violation(f"a request took {end - op.begin:.0f} s: {op}")
        if "refused" in told:
            self._world.count(f"{kind} refused")
            if writes:
                del self._history[number]
                self._world.counts["refused"] = self._world.counts.get("refused", 0) + 1
            return None
        self._world.count(str(kind))
        if told["outcome"] is not Outcome.UNKNOWN:
            told["end"] = end
        self._world.trace(f"{client} {kind} {key} {told['outcome']} {told.get('seen')}")
        done = self._history[number] = replace(op, **told)
        return done

    async def _ask(self, gateway: Gateway, op: Op) -> dict[str, Any]:
        bucket = self._buckets[PLAIN]
        metadata = gateway.metadata
        if op.kind is Kind.HEAD:
            version = await metadata.current(bucket, op.key)
            return {"outcome": Outcome.OK, "seen": None if version is None or version.delete_marker else version.etag}
        if op.kind is Kind.LIST:
            page = await metadata.list_objects(bucket, op.key + "/", "", "", 1000)
            return {"outcome": Outcome.OK, "listed": tuple((found.key, found.etag) for found in page.objects)}
        if op.kind is Kind.GET:
            return {"outcome": Outcome.OK, "seen": await self._get(gateway, PLAIN, op.key)}
        if op.kind is Kind.DELETE:
            result = await metadata.commit(DeleteVersion(bucket=bucket, key=op.key))
            assert isinstance(result, Deleted), result
            return {"outcome": Outcome.OK}
        if op.kind in (Kind.APPEND, Kind.RENAME):
            return await self._change(gateway, bucket, op)
        assert op.value is not None
        condition = Condition(if_none_match="*" if op.kind is Kind.CREATE else None,
                              if_match=op.expected if op.kind is Kind.SWAP else None)
        return self._told(await self._put(gateway, bucket, op.key, op.value, condition))

    @staticmethod
    def _told(result: Any) -> dict[str, Any]:
        if isinstance(result, Committed):
            return {"outcome": Outcome.OK}
        if isinstance(result, ConditionFailed):
            return {"outcome": Outcome.UNMET}
        if isinstance(result, NoKey):
            return {"outcome": Outcome.MISSING}
        return {"refused": Refusal(repr(result))}

    async def _change(self, gateway: Gateway, bucket: BucketId, op: Op) -> dict[str, Any]:
        """An append or a rename, of the version that is there if it is the one that is expected."""
        metadata = gateway.metadata
        version = await metadata.current(bucket, op.key)
        if version is None or version.delete_marker:
            return {"outcome": Outcome.MISSING}
        if version.etag != op.expected:
            return {"outcome": Outcome.UNMET}
        if op.kind is Kind.RENAME:
            return self._told(await metadata.commit(RenameVersion(
                bucket=bucket, source=op.key, source_order=version.order, key=op.to, version_id=VersionId(""),
                marker_id=VersionId(""), owner="o")))
        assert op.value is not None
        content, ticket = await self._bring(gateway, self._added[op.value], op.value)
        return self._told(await metadata.commit(AppendVersion(
            bucket=bucket, key=op.key, version_id=VersionId(""), base=version.order, offset=version.size, content=content,
            appended=(version.attributes.appended or 1) + 1), ticket))

    async def _put(self, gateway: Gateway, bucket: BucketId, key: str, etag: str, condition: Condition,
                   version_id: str = "") -> Any:
        content, ticket = await self._bring(gateway, self.bodies[etag], etag)
        return await gateway.metadata.commit(PutVersion(
            bucket=bucket, key=key, version_id=VersionId(version_id), attributes=Attributes(), owner="o", content=content,
            condition=condition), ticket)

    async def _bring(self, gateway: Gateway, body: bytes, etag: str) -> Brought:
        name = digest(body)
        metadata = gateway.metadata
        ticket = await metadata.reserve()
        try:
            holders = await gateway.replicas.write(body, name, ticket)
            if self._chance.random() < SLOW_SHARE:        # a long upload: its first chunks wait for its last
                await asyncio.sleep(self._chance.uniform(0.5, 4))
        except BaseException:
            metadata.release(ticket)
            raise
        return Brought(NewContent(size=len(body), etag=etag, slices=(Slice(name, 0, len(body)),),
                                  chunks=(NewChunk(digest=name, size=len(body), holders=holders),)), ticket)

    async def _get(self, gateway: Gateway, bucket_name: str, key: str) -> str | None:
        bucket, version, slices = await gateway.metadata.opened(bucket_name, key)
        if version is None or version.delete_marker:
            return None
        assert bucket is not None
        data = b""
        while slices:
            for part in slices:
                async for piece in gateway.replicas.read(part):
                    data += piece
            if len(data) == version.size:
                break
            slices = await gateway.metadata.slices(version.content, len(data), version.size - len(data))
            if not slices:                                # replaced meanwhile
                raise Unavailable(f"{key} is gone while it is read")
        if data != self.bodies.get(version.etag):
            self._world.violation(f"promise 2: wrong bytes of {key} {version.etag}: {data[:40]!r}")
        return version.etag

    async def _put_version(self, gateway: Gateway, key: str) -> None:
        """Into the versioned bucket: each that is acknowledged must be there at the end, once."""
        bucket = await self._bucket(gateway, VERSIONED)
        if bucket is None:
            return
        etag = self._body()
        self.versions[etag] = "unknown"
        try:
            result = await self._put(gateway, bucket, key, etag, Condition(), f"v{etag}")
            self.versions[etag] = "done" if isinstance(result, Committed) else "refused"
        except UnknownOutcome:
            pass
        except ClusterError:
            self.versions[etag] = "refused"
        self._world.trace(f"version {etag} {self.versions[etag]}")

    # At the end

    async def read_all(self, gateway: Gateway) -> None:
        """Every key once more, as part of the history."""
        if await self._bucket(gateway, PLAIN) is None:
            self._world.violation("no bucket can be used at the end")
            return
        for key in self.keys:
            if await self.do(gateway, 99, Kind.GET, key) is None:
                self._world.violation(f"promise 1: {key} cannot be read at the end through {gateway.machine.name}")

    async def check_versions(self, gateway: Gateway) -> None:
        bucket = self._buckets.get(VERSIONED)
        if bucket is None:
            return
        found: list[str] = []
        marker, version_marker = "", None
        while True:
            page = await gateway.metadata.list_versions(bucket, "", "", marker, version_marker, 1000)
            found += [entry.etag for entry in page.objects]
            if page.next_after is None:
                break
            marker, version_marker = page.next_after, page.next_version
        for etag, outcome in self.versions.items():
            times = found.count(etag)
            if outcome == "done" and times == 0:
                self._world.violation(f"promise 1: an acknowledged version is lost: {etag}")
            if outcome == "refused" and times:
                self._world.violation(f"promise 6: a version that was refused is there: {etag}")
            if times > 1:
                self._world.violation(f"promise 5: a command took effect {times} times: {etag}")
