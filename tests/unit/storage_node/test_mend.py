"""What becomes of damage: repaired from another copy here, withdrawn, or left for later; and never given up for nothing."""

import os

import pytest

from consensus.core.commands import AnyCommand
from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from consensus.core.ids import Digest, Generation
from consensus.core.results import AnyResult, Withdrawn
from storage_node.care.mend import TROUBLES_IN_A_ROW_MAX
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.store import NEW, SETTLED, Copy
from tests.contract.chunk_store import get, put
from tests.unit.storage_node.test_settle import Node, run

SIZES = pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])


async def listed(node: Node, data: bytes) -> tuple[Digest, Generation]:
    """A copy that the metadata lists, and that is settled."""
    generation = node.upload()
    name = await put(node.store, data, generation)
    node.metadata.list_copy(name, generation, "n1")
    await node.settler.round()
    assert await node.state(name, generation) == SETTLED
    return name, generation


async def rotten(node: Node, name: Digest, generation: Generation) -> None:
    """Damaged, and found."""
    node.store.damage_copy(name, generation, 3)
    copy = await node.store.find(name, generation)
    assert copy is not None
    assert not await node.store.verify(copy)


def nodes_of(node: Node, name: Digest) -> set[str]:
    return set(node.metadata.rows[name][1])


def test_a_damaged_copy_is_withdrawn_and_then_put_away() -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        await rotten(node, name, generation)
        await node.settler.mend()
        assert nodes_of(node, name) == set()
        assert await node.state(name, generation) is None
        assert [(copy[:2], what) for copy, what in node.store.put_asides] == [((name, generation.pack()), "withdrawn")]
        assert await node.store.damage(10) == []

    run(body)


@SIZES
def test_the_same_bytes_put_again_after_that_are_listed_and_read(size: int) -> None:
    async def body(node: Node) -> None:
        data = os.urandom(size)
        name, generation = await listed(node, data)
        await rotten(node, name, generation)
        await node.settler.mend()
        again = node.upload()
        await put(node.store, data, again)
        node.metadata.list_copy(name, again, "n1")      # the row switches: the newcomer has more locations
        await node.settler.round()
        assert await node.state(name, again) == SETTLED
        assert await get(node.store, name, size, again) == data

    run(body)


@SIZES
def test_a_duplicate_that_is_here_repairs_it_and_nothing_is_withdrawn(size: int) -> None:
    async def body(node: Node) -> None:
        data = os.urandom(size)
        name, generation = await listed(node, data)
        duplicate = node.upload()
        await put(node.store, data, duplicate)          # its upload is under way
        await rotten(node, name, generation)
        await node.settler.mend()
        assert nodes_of(node, name) == {"n1"}
        assert await node.state(name, generation) == SETTLED
        assert await get(node.store, name, size, generation) == data
        assert await node.store.damage(10) == []
        assert "withdraw" not in node.metadata.log

    run(body)


@SIZES
@pytest.mark.parametrize("lost", ["rotten", "gone"])
def test_a_passed_over_duplicate_takes_the_place_of_a_listed_copy_that_is_not_good(size: int, lost: str) -> None:
    """Without this rule the only good bytes would be deleted as a duplicate."""
    async def body(node: Node) -> None:
        data = os.urandom(size)
        name, generation = await listed(node, data)
        fresh = node.upload()
        await put(node.store, data, fresh)
        node.end(fresh)                                 # its commit was passed over
        if lost == "rotten":
            node.store.damage_copy(name, generation, 99)
        else:
            await node.store.remove([copy for copy in await node.store.generations(name)
                                     if copy.generation == generation.pack()])
        await node.settler.round()
        assert nodes_of(node, name) == {"n1"}
        assert await node.state(name, fresh) is None
        assert await get(node.store, name, size, generation) == data
        await node.later()
        assert await node.state(name, generation) == SETTLED

    run(body, read_grace_s=0)


def test_a_passed_over_duplicate_heals_a_row_that_has_lost_its_copies() -> None:
    """Damage, a put of the same bytes (passed over, for nobody knew of the damage), then the damage is found."""
    async def body(node: Node) -> None:
        data = os.urandom(5000)
        name, generation = await listed(node, data)
        await rotten(node, name, generation)
        await node.settler.mend()
        assert nodes_of(node, name) == set()
        fresh = node.upload()
        await put(node.store, data, fresh)
        node.end(fresh)
        await node.settler.round()
        assert await node.state(name, fresh) == NEW, "it waits until the copy made from it is listed"
        await node.later()
        assert nodes_of(node, name) == {"n1"}
        await node.later()
        assert await node.state(name, generation) == SETTLED
        assert await node.state(name, fresh) is None
        assert await get(node.store, name, len(data), generation) == data

    run(body, read_grace_s=0)


def test_what_turns_out_to_be_good_is_forgiven() -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        await node.store.note_damage(name, generation.pack(), "a bad cable")
        await node.settler.mend()
        assert await node.store.damage(10) == []
        assert nodes_of(node, name) == {"n1"}
        assert await node.state(name, generation) == SETTLED

    run(body)


def test_a_copy_that_should_be_here_and_is_not_is_withdrawn() -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        await node.store.remove(await node.store.generations(name))
        await node.store.note_damage(name, generation.pack(), "a reader did not find it")
        await node.settler.mend()
        assert nodes_of(node, name) == set()
        assert await node.store.damage(10) == []

    run(body)


def test_a_damaged_copy_that_a_commit_may_still_list_waits_for_it() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, os.urandom(5000), generation)
        await rotten(node, name, generation)
        await node.settler.mend()
        assert await node.state(name, generation) == NEW
        node.metadata.list_copy(name, generation, "n1")
        node.settler.mender._later.clear()              # a minute passes
        await node.settler.mend()
        assert nodes_of(node, name) == set()
        assert await node.state(name, generation) is None

    run(body)


def test_trouble_with_the_disk_is_no_damage() -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        await rotten(node, name, generation)

        async def fails(copy: Copy) -> bool:
            raise Unavailable("input/output error")

        verify, node.store.verify = node.store.verify, fails  # type: ignore[method-assign]
        await node.settler.mend()
        assert nodes_of(node, name) == {"n1"}
        assert await node.state(name, generation) == SETTLED
        assert len(await node.store.damage(10)) == 1
        node.store.verify = verify  # type: ignore[method-assign]
        await node.settler.mend()
        assert nodes_of(node, name) == {"n1"}, "it is looked at again a while later"
        node.settler.mender._later.clear()
        await node.settler.mend()
        assert nodes_of(node, name) == set()

    run(body)


@pytest.mark.parametrize("how", ["every read fails", "another disk"])
def test_a_disk_that_is_gone_gives_nothing_up(how: str) -> None:
    async def body(node: Node) -> None:
        copies = [await listed(node, os.urandom(5000)) for _ in range(TROUBLES_IN_A_ROW_MAX + 5)]
        if how == "another disk":
            await node.store.remove(await node.store.inventory(None, 100))
        for name, generation in copies:
            await node.store.note_damage(name, generation.pack(), "its file is gone")

        async def fails(copy: Copy | None = None) -> bool:
            raise Unavailable("input/output error")

        if how == "another disk":
            node.store.check = fails  # type: ignore[method-assign, assignment]
        else:
            node.store.verify = fails  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await node.settler.mend()
        assert all(nodes_of(node, name) == {"n1"} for name, _ in copies)
        assert "withdraw" not in node.metadata.log

    run(body)


def test_a_withdrawal_without_an_answer_cannot_come_after_the_copy_was_mended() -> None:
    async def body(node: Node) -> None:
        data = os.urandom(5000)
        name, generation = await listed(node, data)
        await rotten(node, name, generation)
        node.metadata.fail_commit = [UnknownOutcome("no answer")]
        with pytest.raises(UnknownOutcome):
            await node.settler.mend()
        assert await node.state(name, generation) == NEW, "nothing is put away before the answer, and it is asked about again"
        await put(node.store, data, node.upload())      # fresh bytes come: the copy is repaired from them
        node.settler.mender._later.clear()
        await node.settler.mend()
        assert await get(node.store, name, len(data), generation) == data
        assert not [answer for answer in node.metadata.deliver() if isinstance(answer, Withdrawn)]
        assert nodes_of(node, name) == {"n1"}

    run(body)


def test_while_the_log_takes_nothing_the_copy_stays() -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        await rotten(node, name, generation)
        node.metadata.fail_commit = [Unavailable("no leader")]
        with pytest.raises(ClusterError):
            await node.settler.mend()
        assert await node.state(name, generation) == NEW
        await node.settler.mend()
        assert await node.state(name, generation) is None
        assert nodes_of(node, name) == set()

    run(body)


def test_much_damage_is_dealt_with_round_by_round_and_what_waits_holds_nobody_up() -> None:
    async def body(node: Node) -> None:
        pending = node.upload()
        for number in range(150):
            name = await put(node.store, b"pending %d" % number, pending)
            await node.store.note_damage(name, pending.pack(), "found")
            node.store.damage_copy(name, pending, 0)
        copies = [await listed(node, b"listed %d" % number) for number in range(250)]
        for name, generation in copies:
            await rotten(node, name, generation)
        for _ in range(6):
            await node.settler.mend()
        assert all(nodes_of(node, name) == set() for name, _ in copies)
        assert len(await node.store.damage(1000)) == 150

    run(body)




def test_fresh_bytes_that_come_while_a_copy_is_withdrawn_are_announced() -> None:
    """They heal the copy, so nothing is noted any more; but the row has lost it."""
    async def body(node: Node) -> None:
        data = os.urandom(5000)
        name, generation = await listed(node, data)
        await rotten(node, name, generation)
        commit = node.metadata.commit

        async def meanwhile(command: AnyCommand) -> AnyResult:
            await commit(command)
            await put(node.store, data, generation)
            raise UnknownOutcome("the answer was lost")

        node.metadata.commit = meanwhile  # type: ignore[method-assign]
        with pytest.raises(UnknownOutcome):
            await node.settler.mend()
        node.metadata.commit = commit  # type: ignore[method-assign]
        assert nodes_of(node, name) == set()
        assert await node.store.damage(10) == []
        await node.later()
        await node.later()
        assert nodes_of(node, name) == {"n1"}
        assert await node.state(name, generation) == SETTLED

    run(body)
