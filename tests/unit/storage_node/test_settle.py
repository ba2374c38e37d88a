"""Who may announce, who may delete: each rule of the exhaustive model as a test, plus read grace, hints and repair."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from consensus.core.commands import RegisterNode
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.ids import Digest, Generation, NodeId, SessionId
from consensus.core.results import Announced, Malformed
from storage_node.care.settle import PENDING_MS, TROUBLE_MS, Settler
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.memory import MemoryStore
from storage_node.store import CONDEMNED, NEW, SETTLED
from tests.contract.chunk_store import StoppedClock, get, put
from tests.unit.storage_node.fakes import FakeMetadata

N1 = NodeId("n1")
GRACE_S = 3600.0


class Node:
    """One node's loop, a round at a time."""

    def __init__(self, wanted: int = 1, read_grace_s: float = GRACE_S) -> None:
        self.clock = StoppedClock()
        self.store = MemoryStore(self.clock)
        self.metadata = FakeMetadata(wanted)
        self.settler = Settler(self.store, self.metadata, N1, register=self.register, clock=self.clock,
                               read_grace_s=read_grace_s)

    async def register(self) -> None:
        await self.metadata.register(RegisterNode(node=N1, incarnation=self.store.incarnation, address="unix:/n1"))

    def upload(self) -> Generation:
        """A generation of a session that is open and has not passed it."""
        return Generation(self.metadata.open_session(), 3)

    def end(self, generation: Generation) -> None:
        del self.metadata.low[generation.session]

    async def state(self, name: Digest, generation: Generation) -> int | None:
        copy = await self.store.find(name, generation)
        return None if copy is None else copy.state

    async def later(self, ms: int = PENDING_MS) -> None:
        self.clock.ms += ms
        await self.settler.round()


def run(body: Callable[[Node], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        node = Node(**options)  # type: ignore[arg-type]
        await node.register()
        await body(node)

    asyncio.run(main())


def test_a_listed_copy_is_settled_and_asked_about_no_more() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"listed", generation)
        node.metadata.list_copy(name, generation, "n1")
        assert await node.settler.round() == 1
        assert await node.state(name, generation) == SETTLED
        node.end(generation)
        assert await node.settler.round() == 0
        assert await node.state(name, generation) == SETTLED

    run(body)


def test_a_copy_that_a_commit_may_still_bring_stays() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"pending", generation)
        for _ in range(20):
            await node.later(24 * 3_600_000)
        assert await node.state(name, generation) == NEW
        node.metadata.list_copy(name, generation, "n1")
        await node.later()
        assert await node.state(name, generation) == SETTLED

    run(body)


@pytest.mark.parametrize("how", ["session ended", "mark passed"])
def test_a_copy_that_no_commit_can_bring_goes_after_the_grace(how: str) -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"passed", generation)
        if how == "session ended":
            node.end(generation)
        else:
            node.metadata.low[generation.session] = generation.sequence + 1
        await node.settler.round()
        assert await node.state(name, generation) == CONDEMNED
        await node.later(int(GRACE_S * 1000) - 1)
        assert await node.state(name, generation) == CONDEMNED, "a reader may have begun"
        await node.later(1)
        assert await node.state(name, generation) is None

    run(body)


def test_the_mark_has_to_pass_not_to_reach_the_sequence() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"at the mark", generation)
        node.metadata.low[generation.session] = generation.sequence
        await node.settler.round()
        assert await node.state(name, generation) == NEW

    run(body, read_grace_s=0)


def test_an_unknown_session_counts_as_ended() -> None:
    async def body(node: Node) -> None:
        generation = Generation(SessionId(12345), 0)
        name = await put(node.store, b"nobody's", generation)
        await node.settler.round()
        assert await node.state(name, generation) is None

    run(body, read_grace_s=0)


def test_the_read_comes_after_the_copy_was_stored() -> None:
    """A copy that is stored while the metadata is read isn't judged by that read."""
    async def body(node: Node) -> None:
        early, late = Generation(SessionId(1), 0), node.upload()
        await put(node.store, b"early", early)
        asked: list[list[Generation]] = []
        answer = node.metadata.chunk_states

        async def while_reading(name: NodeId, copies: list[tuple[Digest, Generation]]) -> list[str]:
            asked.append([generation for _, generation in copies])
            states = await answer(name, copies)
            await put(node.store, b"late", late)
            return states

        node.metadata.chunk_states = while_reading  # type: ignore[method-assign, assignment]
        await node.settler.round()
        assert asked == [[early]]
        assert [copy.generation for copy in await node.store.inventory(None, 10)] == [late.pack()]

    run(body, read_grace_s=0)


def test_a_short_copy_is_announced_and_then_settled() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        await node.settler.round()
        assert node.metadata.rows[name][1] == {"n1", "n2", "n3"}
        await node.later()
        assert await node.state(name, generation) == SETTLED
        assert node.settler.announced == 1

    run(body, wanted=3)


def test_a_short_copy_is_announced_even_when_its_upload_is_over() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.end(generation)
        await node.settler.round()
        assert "n1" in node.metadata.rows[name][1]

    run(body, wanted=3, read_grace_s=0)


def test_a_copy_beyond_those_wanted_goes() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"one too many", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.end(generation)
        await node.settler.round()
        assert await node.state(name, generation) is None
        assert node.metadata.log.count("announce") == 0

    run(body, wanted=2, read_grace_s=0)


def test_an_announcement_without_an_answer_blocks_the_delete_until_its_session_has_ended() -> None:
    """The lost announcement arrives late: if the copy had gone meanwhile, the row would list what nobody holds."""
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.metadata.fail_commit = [UnknownOutcome("no answer")]
        with pytest.raises(UnknownOutcome):
            await node.settler.round()
        node.metadata.wanted = 2                      # the row is no longer short: the copy would be removed
        node.end(generation)
        node.metadata.log.clear()
        await node.later()
        assert node.metadata.log[:2] == ["register", "read"], "the session ends before the read that allows the delete"
        assert await node.state(name, generation) is None
        assert all(isinstance(result, Malformed) for result in node.metadata.deliver())
        assert "n1" not in node.metadata.rows[name][1]

    run(body, wanted=3, read_grace_s=0)


def test_while_registering_anew_fails_nothing_is_deleted() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.metadata.fail_commit = [UnknownOutcome("no answer")]
        with pytest.raises(UnknownOutcome):
            await node.settler.round()
        node.metadata.wanted = 2
        node.end(generation)

        async def fails() -> None:
            raise Unavailable("no leader")

        node.settler.teller.register = fails
        with pytest.raises(Unavailable):
            await node.later()
        assert await node.state(name, generation) is not None
        assert node.metadata.deliver() == [Announced(counted=1)]
        node.settler.teller.register = node.register
        await node.later()
        assert await node.state(name, generation) == SETTLED

    run(body, wanted=3, read_grace_s=0)


def test_an_announcement_that_was_surely_not_taken_blocks_nothing() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.metadata.fail_commit = [Unavailable("no leader")]
        with pytest.raises(Unavailable):
            await node.settler.round()
        node.metadata.log.clear()
        await node.later()
        assert node.metadata.log == ["read", "announce"]
        assert "n1" in node.metadata.rows[name][1]

    run(body, wanted=3)


def test_a_restarted_node_ends_its_old_session_before_it_deletes() -> None:
    """The announcement of an earlier life is in the network; the new life knows nothing of it."""
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"late", generation)
        node.metadata.list_copy(name, generation, "n2", "n3")
        node.metadata.fail_commit = [UnknownOutcome("killed")]
        with pytest.raises(UnknownOutcome):
            await node.settler.round()
        await node.register()                         # what a start does before anything else
        reborn = Settler(node.store, node.metadata, N1, register=node.register, clock=node.clock, read_grace_s=0)
        node.metadata.wanted = 2
        node.end(generation)
        node.clock.ms += PENDING_MS
        await reborn.round()
        assert await node.state(name, generation) is None
        assert not [result for result in node.metadata.deliver() if isinstance(result, Announced)]

    run(body, wanted=3)


def test_a_passed_over_duplicate_goes_at_once_and_the_other_copy_stays() -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(5000)
        name = await put(node.store, data, first)
        node.metadata.list_copy(name, first, "n1")
        await node.settler.round()
        await put(node.store, data, second)
        node.end(second)
        await node.settler.round()
        assert await node.state(name, first) == SETTLED
        assert await node.state(name, second) is None
        assert await get(node.store, name, len(data), second) == data, "a reader of the duplicate finds the other"

    run(body)


def test_a_duplicate_that_is_asked_about_together_with_its_original_goes_at_once() -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(5000)
        for generation in (second, first):
            name = await put(node.store, data, generation)
        node.metadata.list_copy(name, first, "n1")
        node.end(second)
        await node.settler.round()
        assert await node.state(name, first) == SETTLED
        assert await node.state(name, second) is None

    run(body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_a_rotten_copy_is_repaired_by_the_duplicate_before_it_goes(size: int) -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(size)
        name = await put(node.store, data, first)
        node.metadata.list_copy(name, first, "n1")
        await node.settler.round()
        node.store.damage_copy(name, first, 1234)
        await put(node.store, data, second)
        node.end(second)
        await node.settler.round()
        assert await node.state(name, first) == SETTLED
        assert await node.state(name, second) is None
        assert await get(node.store, name, len(data), first) == data
        assert await node.store.damage(10) == []

    run(body)


def test_two_rotten_copies_are_both_kept_for_repair_from_elsewhere() -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(5000)
        name = await put(node.store, data, first)
        node.metadata.list_copy(name, first, "n1")
        await node.settler.round()
        await put(node.store, data, second)
        for generation in (first, second):
            node.store.damage_copy(name, generation, 99)
        node.end(second)
        await node.settler.round()
        assert await node.state(name, first) == SETTLED
        assert await node.state(name, second) == CONDEMNED, "it waits its grace like any other"

    run(body)


def test_a_duplicate_stays_while_the_other_copy_cannot_be_read() -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(5000)
        name = await put(node.store, data, first)
        node.metadata.list_copy(name, first, "n1")
        await node.settler.round()
        await put(node.store, data, second)
        ended = node.upload()
        other = await put(node.store, b"another that may go", ended)
        for generation in (second, ended):
            node.end(generation)

        async def fails(copy: object) -> bool:
            raise Unavailable("input/output error")

        verify, node.store.verify = node.store.verify, fails  # type: ignore[method-assign]
        await node.settler.round()
        assert await node.state(name, second) == NEW
        assert await node.state(other, ended) is None, "the others of the page are judged all the same"
        node.store.verify = verify  # type: ignore[method-assign]
        await node.later(TROUBLE_MS)
        assert await node.state(name, second) is None

    run(body, read_grace_s=0)


def test_a_copy_known_to_be_damaged_is_not_announced() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        names = [await put(node.store, data, generation) for data in (b"good", b"damaged")]
        for name in names:
            node.metadata.list_copy(name, generation, "n2", "n3")
        node.store.damage_copy(names[1], generation, 1)
        [copy] = await node.store.generations(names[1])
        assert not await node.store.verify(copy)
        await node.settler.round()
        assert [("n1" in node.metadata.rows[name][1]) for name in names] == [True, False]

    run(body, wanted=3)


def test_an_earlier_copy_that_the_row_switched_from_goes_by_a_hint() -> None:
    async def body(node: Node) -> None:
        first, second = node.upload(), node.upload()
        data = os.urandom(5000)
        name = await put(node.store, data, first)
        node.metadata.list_copy(name, first, "n1")
        await node.settler.round()
        await put(node.store, data, second)
        node.metadata.list_copy(name, second, "n1", "n2")
        node.metadata.hints.append((N1, name, first))
        for generation in (first, second):
            node.end(generation)
        assert await node.settler.take_hints() == 1
        await node.later()
        await node.later(int(GRACE_S * 1000))
        assert await node.state(name, first) is None
        assert await node.state(name, second) == SETTLED

    run(body)


def test_a_deleted_object_gives_its_space_back_after_the_grace() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        data = os.urandom(5000)
        name = await put(node.store, data, generation)
        node.metadata.list_copy(name, generation, "n1")
        await node.settler.round()
        node.end(generation)
        node.metadata.drop(name)
        await node.settler.take_hints()
        await node.settler.round()
        assert await node.state(name, generation) == CONDEMNED
        assert await get(node.store, name, len(data), generation) == data
        await node.later(int(GRACE_S * 1000))
        assert await node.state(name, generation) is None

    run(body)


def test_hints_only_say_what_to_ask_about() -> None:
    """A hint that comes late or wrongly deletes nothing."""
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"still listed", generation)
        node.metadata.list_copy(name, generation, "n1")
        await node.settler.round()
        node.end(generation)
        node.metadata.hints += [(N1, name, generation), (N1, Digest(bytes(32)), generation)]
        await node.settler.take_hints()
        assert await node.state(name, generation) == NEW
        await node.settler.round()
        assert await node.state(name, generation) == SETTLED
        assert await node.settler.take_hints() == 0, "each hint is taken once"

    run(body, read_grace_s=0)


def test_a_condemned_copy_that_is_wanted_again_is_announced() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"back", generation)
        node.end(generation)
        await node.settler.round()
        assert await node.state(name, generation) == CONDEMNED
        node.metadata.list_copy(name, generation, "n2")
        await node.later(int(GRACE_S * 1000))
        assert "n1" in node.metadata.rows[name][1]
        await node.later()
        assert await node.state(name, generation) == SETTLED

    run(body, wanted=2)


def test_uploads_under_way_do_not_starve_the_others() -> None:
    async def body(node: Node) -> None:
        waiting = node.upload()
        for number in range(700):
            await put(node.store, b"waiting %d" % number, waiting)
        listed = node.upload()
        name = await put(node.store, b"listed", listed)
        node.metadata.list_copy(name, listed, "n1")
        for _ in range(3):
            await node.settler.round()
        assert await node.state(name, listed) == SETTLED

    run(body)


def test_the_loop_asks_by_itself_and_when_it_is_kicked() -> None:
    async def main() -> None:
        node = Node(read_grace_s=0)
        await node.register()
        node.settler._interval_s = 3600.0
        node.settler.start()
        name = await put(node.store, b"passed", Generation(SessionId(1), 0))
        node.settler.kick()
        async with asyncio.timeout(5):
            while await node.state(name, Generation(SessionId(1), 0)) is not None:
                await asyncio.sleep(0)
        await node.settler.stop()

    asyncio.run(main())
