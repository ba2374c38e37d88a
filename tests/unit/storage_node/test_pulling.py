"""The interleavings of test_interleavings.py, and beside them nodes that fetch copies and give some back: repair, rebalancing
and draining, on the real settler and the real apply. All rules hold, and what they rest on is needed.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consensus.core.ids import Generation
from storage_node.care.settle import Settler
from storage_node.care.telling import Teller
from storage_node.chunk import block_table
from storage_node.index import NEW
from tests.unit.storage_node.interleavings import Node, World
from tests.unit.storage_node.walks import some_walks, walk


class Pulling(World):
    """Two copies are wanted on three nodes: whoever has none may fetch one, whoever has one may give it back."""

    def possible(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        steps = super().possible()
        row = self.row()
        if row is None:
            return steps
        for node in self.nodes.values():
            if node.working:
                continue
            if node.name not in row[1]:
                steps += [(f"{node.name} fetches {row[0]}", lambda node=node: self.fetch(node))] * 4  # type: ignore[misc]
            else:
                steps += [(f"{node.name} gives {row[0]} back", lambda node=node: self.give_back(node))] * 4  # type: ignore[misc]
        return steps

    async def fetch(self, node: Node) -> None:
        """As repair and rebalancing do: beside the node's one task, which then announces."""
        row = self.row()
        if row is None or not any(self.good_live(self.nodes[name], row[0]) for name in row[1]):
            return
        name = (self.digest, row[0].pack())
        node.settler.coming.add(name)
        await self.meanwhile(node.name)
        await node.store.put(self.digest, row[0], self.data, block_table(self.data))
        await self.meanwhile(node.name)
        if not node.working:
            await node.work(lambda: node.settler.announce_now([name]))
        node.settler.coming.discard(name)

    async def give_back(self, node: Node) -> None:
        row = self.row()
        if row is None or not any(self.good_live(self.nodes[name], row[0]) for name in row[1] - {node.name}):
            return
        await self.meanwhile(node.name)
        if not node.working:
            await node.work(lambda: node.settler.give_back([(self.digest, row[0].pack())]))

    def good_live(self, node: Node, generation: Generation) -> bool:
        return any(copy.generation == generation.pack() for copy in self.good(node))


def test_as_designed_all_rules_hold_while_copies_are_fetched_and_given_back() -> None:
    found = walk(Pulling, some_walks(20))
    assert found is None, found[1]


def marked_after_it_was_said(patch: pytest.MonkeyPatch) -> None:
    """A copy is asked about again only when its withdrawal was answered."""
    async def give_back(self: Settler, names: Any) -> int:
        async with self.one:
            await self.teller.settle()
            given = await self.teller.give_back(names)
            copies = await self._store.find_all([(digest, Generation.unpack(generation)) for digest, generation in given])
            await self._store.mark([(copy, NEW, 0) for copy in copies])
            return len(given)

    patch.setattr(Settler, "give_back", give_back)


def what_was_said_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: Teller) -> None:
        self.unanswered.clear()

    patch.setattr(Teller, "settle", forget)


def announced_without_a_look(patch: pytest.MonkeyPatch) -> None:
    """What was fetched is announced, whether or not it is still here."""
    async def blindly(self: Settler, names: Any) -> int:
        async with self.one:
            await self.teller.settle()
            return await self.teller.announce(self._store.incarnation, list(names))

    async def goes(self: Settler, names: Any) -> int:
        return 0

    patch.setattr(Settler, "announce_now", blindly)
    patch.setattr(Pulling, "fetch", _without_storing)


async def _without_storing(self: Pulling, node: Node) -> None:
    row = self.row()
    if row is not None and not node.working:
        await node.work(lambda: node.settler.announce_now([(self.digest, row[0].pack())]))


@pytest.mark.parametrize("broken", [marked_after_it_was_said, what_was_said_is_forgotten, announced_without_a_look])
def test_without_a_rule_something_goes_wrong(broken: Callable[[pytest.MonkeyPatch], None],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    assert walk(Pulling, range(60)) is not None
