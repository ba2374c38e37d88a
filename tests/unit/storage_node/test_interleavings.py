"""Every rule of the copies' life holds through random interleavings; and each rule switched off is caught by them."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from consensus import queries
from consensus.apply import chunks, nodes
from consensus.apply.sessions import Session, Sessions
from consensus.core.commands import Announce, PutVersion, Withdraw
from consensus.core.ids import Digest, Generation, NodeId
from consensus.machine import Machine
from storage_node.care import mend
from storage_node.care.mend import Mender
from storage_node.care.settle import Settler
from storage_node.care.telling import Live, Teller
from storage_node.index import SETTLED, Copy
from tests.unit.storage_node.interleavings import Link, World
from tests.unit.storage_node.walks import some_walks, walk


def test_as_designed_all_rules_hold() -> None:
    found = walk(World, some_walks(30))
    assert found is None, found[1]


# Each rule switched off

def _carried_out_anyway(patch: pytest.MonkeyPatch, when: Callable[[Machine, Any], bool]) -> None:
    """Such commands take effect, whatever is known of their session."""
    apply_one = Machine._apply_one

    def anyway(self: Machine, envelope: Any, position: int) -> Any:
        if not when(self, envelope):
            return apply_one(self, envelope, position)
        session = self.sessions.open.get(envelope.session)
        self.state.begin(position, envelope.session, envelope.sequence, session.node if session else None)
        return self._carry_out(envelope.command)

    patch.setattr(Machine, "_apply_one", anyway)


def ended_session_is_refused(patch: pytest.MonkeyPatch) -> None:
    _carried_out_anyway(patch, lambda machine, envelope: isinstance(envelope.command, PutVersion)
                        and envelope.session not in machine.sessions.open)


def passed_sequence_is_refused(patch: pytest.MonkeyPatch) -> None:
    _carried_out_anyway(patch, lambda machine, envelope: isinstance(envelope.command, PutVersion)
                        and envelope.session in machine.sessions.open
                        and envelope.sequence < machine.sessions.open[envelope.session].low)


def result_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "keep", lambda self, sequence, result: None)


def announcement_has_sequence(patch: pytest.MonkeyPatch) -> None:
    """A repeated announcement or withdrawal takes effect again, as long as its session lasts."""
    _carried_out_anyway(patch, lambda machine, envelope: isinstance(envelope.command, Announce | Withdraw)
                        and envelope.session in machine.sessions.open)


def restart_ends_node_session(patch: pytest.MonkeyPatch) -> None:
    stop = Sessions.stop

    def keep_nodes(self: Sessions, id: int) -> None:
        if self.open[id].node is None:
            stop(self, id)

    patch.setattr(Sessions, "stop", keep_nodes)


def switch_only_to_more(patch: pytest.MonkeyPatch) -> None:
    """The row switches to whoever comes last, when it is short."""
    link = chunks.link

    def eager(state: Any, plan: Any) -> Any:
        for digest in plan.new:
            row = chunks.load(state, digest)
            if row is not None:
                forgets = state.valid(row.locations) < row.wanted
                plan.rows[digest] = row._replace(locations=()) if forgets else row
        return link(state, plan)

    for module in ("consensus.apply.chunks", "consensus.apply.contents"):
        patch.setattr(f"{module}.{'link' if module.endswith('chunks') else 'chunks.link'}", eager)


def passed_over_for_good(patch: pytest.MonkeyPatch) -> None:
    """An announcement of any generation makes the row switch to it, when that is short."""
    announce = chunks.announce

    def eager(state: Any, number: int, digest: Digest, generation: Generation) -> bool:
        row = chunks.load(state, digest)
        if row is not None and row.generation != generation and state.valid(row.locations) < row.wanted:
            chunks._update(state, row._replace(generation=generation, locations=(number,)))
            return True
        return announce(state, number, digest, generation)

    states = queries.chunk_states

    def short_too(db: Any, node: NodeId, copies: Any) -> Any:
        live = queries.live_chunks(db, node, [digest for digest, _ in copies])
        return ["short" if row is not None and row.short and state == "passed" else state
                for row, state in zip(live, states(db, node, copies), strict=True)]

    patch.setattr(nodes.chunks, "announce", eager)
    patch.setattr(queries, "chunk_states", short_too)


def delete_waits_for_generation(patch: pytest.MonkeyPatch) -> None:
    states = queries.chunk_states
    patch.setattr(queries, "chunk_states", lambda db, node, copies: [
        "passed" if state == "pending" else state for state in states(db, node, copies)])


def delete_waits_for_announcement(patch: pytest.MonkeyPatch) -> None:
    """What was said without an answer is forgotten. A withdrawal, too."""
    async def forget(self: Teller) -> None:
        self.unanswered.clear()

    patch.setattr(Teller, "settle", forget)


def check_until_delete(patch: pytest.MonkeyPatch) -> None:
    """Two tasks work on the same copies at once."""
    chunk_states = Link.chunk_states
    busy: set[str] = set()

    async def while_another_works(self: Link, node: NodeId, copies: Any) -> Any:
        answer = await chunk_states(self, node, copies)
        if self.node not in busy and self.world.depth < 3 and self.world.chance.random() < 0.5:
            busy.add(self.node)
            try:
                await self.world.nodes[self.node].settler.round()
                await self.world.meanwhile(self.node)
            finally:
                busy.discard(self.node)
        return answer

    patch.setattr(Link, "chunk_states", while_another_works)


def read_after_stored(patch: pytest.MonkeyPatch) -> None:
    """The metadata is read as it was some time ago: perhaps before the copy was stored, and its session begun."""
    async def as_it_was(self: Link, query: Callable[..., Any], *arguments: Any) -> Any:
        await self.world.meanwhile(self.node)
        held = self.world.__dict__.setdefault("stale", {})
        if self.node not in held or self.world.chance.random() < 0.3:
            if self.node in held:
                held[self.node].close()
            held[self.node] = sqlite3.connect(self.world.cluster.machine.path, isolation_level=None)
            held[self.node].execute("BEGIN")
        answer = query(held[self.node], *arguments)     # the first read of a transaction decides what all of it sees
        await self.world.meanwhile(self.node)
        return answer

    patch.setattr(Link, "_read", as_it_was)


def staying_copy_is_verified(patch: pytest.MonkeyPatch) -> None:
    """A duplicate goes because another copy is settled here, good or not."""
    async def trusting(self: Settler, copy: Copy, row: Live | None) -> bool | None:
        return any(other.state == SETTLED and other.generation != copy.generation
                   for other in await self._store.generations(copy.digest))

    patch.setattr(Settler, "_has_another", trusting)


def damage_waits_for_its_commit(patch: pytest.MonkeyPatch) -> None:
    """A damaged copy is put away although a commit may still list it."""
    patch.setattr(mend, "PENDING", "never")


def withdrawn_before_it_is_put_away(patch: pytest.MonkeyPatch) -> None:
    """Damaged copies go without a word to the metadata."""
    async def silently(self: Teller, names: Any) -> Any:
        return list(names)

    patch.setattr(Teller, "withdraw_lost", silently)


def repaired_from_another_generation(patch: pytest.MonkeyPatch) -> None:
    """A damaged copy is withdrawn though good bytes are here, and duplicates never take its place."""
    async def never(self: Mender, note: Any) -> bool:
        return False

    async def nothing(self: Settler, copy: Copy, row: Live | None) -> bool | None:
        return False

    patch.setattr(Mender, "_repaired", never)
    patch.setattr(Settler, "_has_another", nothing)


RULES: dict[Callable[[pytest.MonkeyPatch], None], range] = {
    ended_session_is_refused: range(400), passed_sequence_is_refused: range(400), result_is_kept: range(400),
    announcement_has_sequence: range(187, 2000, 20), restart_ends_node_session: range(4, 400),
    switch_only_to_more: range(76, 400), passed_over_for_good: range(400), delete_waits_for_generation: range(400),
    delete_waits_for_announcement: range(4, 800, 5), check_until_delete: range(69, 400), read_after_stored: range(400),
    staying_copy_is_verified: range(400), damage_waits_for_its_commit: range(407, 3000, 20),
    withdrawn_before_it_is_put_away: range(3, 400), repaired_from_another_generation: range(400),
}
"""Which walks are taken without the rule: they begin at or shortly before one that shows it, for the suite's time. When the
walks change, another one will show it, later in the range."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_without_a_rule_something_goes_wrong(rule: Callable[[pytest.MonkeyPatch], None],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    rule(monkeypatch)
    assert walk(World, RULES[rule]) is not None
