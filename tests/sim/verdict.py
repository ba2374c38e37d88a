"""What must hold at the end, once everything is healed and has had time to come to rest."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable

from consensus import queries
from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, NodeId
from tests.linear.checker import check
from tests.sim.machines import Machine
from tests.sim.watching import Watch, listed
from tests.sim.workload import Workload
from tests.sim.world import World

REST_S = 60.0
"""Everything must have come to rest within this time after the last fault."""

SERVES_S = 15.0
"""And serve within this."""

LOOK_S = 1.0

SEARCH_BUDGET = 200_000


async def judge(world: World, machines: list[Machine], workload: Workload, watch: Watch,
                undo: Callable[[], Awaitable[None]]) -> None:
    """Everything is healed. `undo` takes back what admins have asked for."""
    if not await _until(SERVES_S, lambda: not _not_running(machines)):
        world.violation(f"availability: {_not_running(machines)} {SERVES_S:.0f} s after everything was healed")
        return
    for machine in machines:
        assert machine.gateway is not None
        await machine.gateway.process.carry_out(_serves(world, workload, machine))
    await undo()
    workload.running = False
    why = ["nothing was looked at"]

    def rests() -> bool:
        why[:] = _unrest(machines, watch)
        return not why

    if not await _until(REST_S, rests):
        for reason in why[:4]:
            world.violation(reason)
    for machine in machines:
        if machine.gateway is not None:
            await machine.gateway.process.carry_out(workload.read_all(machine.gateway))
    if machines[0].gateway is not None:
        await machines[0].gateway.process.carry_out(workload.check_versions(machines[0].gateway))
        await machines[0].gateway.process.carry_out(_recount(world, machines[0]))
    verdict = check(workload.history, SEARCH_BUDGET)
    for violation in verdict.violations[:3]:
        world.violation(f"promise 4: {violation}")
    world.note(f"rests at entry {watch.last_index}: {_row_hash_of(machines)}")


async def _until(seconds: float, met: Callable[[], bool]) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not met():
        if loop.time() > until:
            return False
        await asyncio.sleep(LOOK_S)
    return True


def _not_running(machines: list[Machine]) -> str:
    missing = [f"{machine.name}/{role}" for machine in machines for role in machine.roles if role not in machine.processes]
    missing += [f"{machine.name} has no gateway yet" for machine in machines
                if machine.gateway is None or machine.gateway.process.dead]
    return ", ".join(missing)


async def _serves(world: World, workload: Workload, machine: Machine) -> None:
    """A read through this gateway, soon."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SERVES_S
    assert machine.gateway is not None
    while True:
        try:
            await machine.gateway.metadata.buckets(None)
            return
        except ClusterError as error:
            if loop.time() > until:
                world.violation(f"availability: {machine.name} does not serve {SERVES_S:.0f} s after everything was healed: "
                                f"{error!r}")
                return
        await asyncio.sleep(LOOK_S)


def _unrest(machines: list[Machine], watch: Watch) -> list[str]:
    """What is not yet as it should be in the end."""
    db = watch.newest()
    if db is None:
        return ["availability: no member has applied everything"]
    why = []
    databases: dict[str, sqlite3.Connection] = {}
    for machine in machines:
        if "meta" in machine.roles:
            state = getattr(machine.meta, "_machine", None)
            if state is None or state.applied != watch.last_index:
                why.append(f"availability: {machine.name} has applied {getattr(state, 'applied', None)} of {watch.last_index}")
            else:
                databases[machine.name] = state.db
    short = queries.under_replicated(db, 10)
    if short:
        why.append(f"repair: {len(short)} chunks stay short of copies, the first {short[0]}")
    for machine in machines:
        store = machine.store
        names, expected = set(store._copies), listed(db, NodeId(machine.name))
        if names - expected:
            why.append(f"leak: {machine.name} keeps {len(names - expected)} copies that nothing refers to")
        if expected - names:
            why.append(f"promise 3: {machine.name} lacks {len(expected - names)} copies that it is listed for")
        rotten = [name for name in sorted(expected & names) if not store.whole(Digest(name[0]), name[1])]
        if rotten and not store.damaged_by_faults.issuperset(rotten):
            why.append(f"promise 2: {machine.name} holds {len(rotten)} rotten copies")
    if not why and len({row_hash(each) for each in databases.values()}) > 1:        # dear, so last
        (one, first), *rest = databases.items()
        for name, each in rest:
            if row_hash(each) != row_hash(first):
                why.append(f"promise 5: equal logs, different metadata: {one} and {name}: {_differences(first, each)}")
    return why


def _row_hash_of(machines: list[Machine]) -> str:
    for machine in machines:
        if machine.meta is not None and "meta" in machine.processes:
            return row_hash(machine.meta._machine.db)
    return ""


def row_hash(db: sqlite3.Connection) -> str:
    """Over all rows but those that are about the file itself."""
    digest = hashlib.sha256()
    for row in rows(db):
        digest.update(row.encode())
    return digest.hexdigest()[:12]


def rows(db: sqlite3.Connection) -> list[str]:
    tables = [name for name, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
              if not name.startswith("sqlite_")]
    found = []
    for table in tables:
        where = " WHERE k NOT IN ('generation')" if table == "meta" else ""
        found += sorted(f"{table} {row!r}\n" for row in db.execute(f"SELECT * FROM {table}{where}"))
    return found


def _differences(one: sqlite3.Connection, other: sqlite3.Connection) -> str:
    left, right = set(rows(one)), set(rows(other))
    return "; ".join([f"only here: {row.strip()[:150]}" for row in sorted(left - right)[:3]]
                     + [f"only there: {row.strip()[:150]}" for row in sorted(right - left)[:3]])


async def _recount(world: World, machine: Machine) -> None:
    assert machine.gateway is not None
    try:
        for sentence in await machine.gateway.metadata.recount():
            world.violation(f"promise 5: {sentence}")
    except ClusterError as error:
        world.violation(f"the metadata cannot be counted: {error!r}")
