"""The inventory against the metadata, both ways; and what a node says of the copies that wait."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from consensus.core.ids import Digest, Generation, SessionId
from consensus.disk import Disk
from storage_node.care.inventory import EVERY_MS, Comparison
from storage_node.care.waiting import total, waiting_page
from storage_node.store import NEW, SETTLED
from tests.contract.chunk_store import get, put
from tests.unit.storage_node.test_mend import listed, nodes_of
from tests.unit.storage_node.test_settle import N1, Node


def compare(node: Node, folder: Path, was_clean: bool = True) -> Comparison:
    return Comparison(node.store, node.metadata, N1, node.clock, folder=str(folder), disk=Disk(), was_clean=was_clean,
                      changed=node.settler.forget_hints, kick=node.settler.kick)


def run(body: Callable[[Node], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        node = Node(**options)  # type: ignore[arg-type]
        await node.register()
        await body(node)

    asyncio.run(main())


def test_a_settled_copy_that_nobody_lists_goes_in_the_end(tmp_path: Path) -> None:
    """Its hint was lost: released while the node was away, too long ago."""
    async def body(node: Node) -> None:
        kept, gone = await listed(node, os.urandom(5000)), await listed(node, os.urandom(5000))
        del node.metadata.rows[gone[0]]
        node.end(gone[1])
        await node.later(EVERY_MS)
        assert await node.state(*gone) == SETTLED, "nothing else tells"
        found = await compare(node, tmp_path).run()
        assert (found.copies, found.unlisted, found.missing) == (2, 1, 0)
        await node.settler.round()
        assert await node.state(*gone) is None
        assert await node.state(*kept) == SETTLED

    run(body, read_grace_s=0)


def test_a_listed_copy_that_is_not_here_is_withdrawn(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        copies = [await listed(node, os.urandom(5000)) for _ in range(5)]
        lost = copies[2][0]
        await node.store.remove(await node.store.generations(lost))
        found = await compare(node, tmp_path).run()
        assert (found.copies, found.unlisted, found.missing) == (4, 0, 1)
        await node.settler.mend()
        assert [nodes_of(node, name) for name, _ in copies] == [{"n1"}, {"n1"}, set(), {"n1"}, {"n1"}]

    run(body)


def test_a_listed_copy_that_is_not_here_is_made_from_another_upload_of_the_same_bytes(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        data = os.urandom(5000)
        name, generation = await listed(node, data)
        other = node.upload()
        await put(node.store, data, other)
        await node.store.remove([copy for copy in await node.store.generations(name)
                                 if copy.generation == generation.pack()])
        await compare(node, tmp_path).run()
        await node.settler.mend()
        assert nodes_of(node, name) == {"n1"}
        await node.later()
        assert await node.state(name, generation) == SETTLED
        assert await get(node.store, name, len(data), generation) == data

    run(body)


def test_a_copy_whose_row_is_short_is_announced(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        name, _ = await listed(node, os.urandom(5000))
        node.metadata.rows[name][1].clear()             # a backup from before its announcement was restored
        assert (await compare(node, tmp_path).run()).unlisted == 1
        await node.settler.round()
        assert nodes_of(node, name) == {"n1"}

    run(body)


def test_many_copies_are_compared_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.care.inventory.PAGE", 7)
    monkeypatch.setattr("storage_node.care.inventory.LISTED_PAGE", 5)

    async def body(node: Node) -> None:
        copies = [await listed(node, b"%d" % number) for number in range(40)]
        for name, _ in copies[::4]:
            del node.metadata.rows[name]
        for name, _ in copies[1::4]:
            await node.store.remove(await node.store.generations(name))
        found = await compare(node, tmp_path).run()
        assert (found.copies, found.unlisted, found.missing) == (30, 10, 10)

    run(body)


def test_it_runs_when_there_is_a_reason(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await listed(node, os.urandom(5000))
        first = compare(node, tmp_path)
        assert await first.is_due(), "never yet"
        await first.run()
        assert not await first.is_due()
        assert not await compare(node, tmp_path).is_due(), "another start, soon after"
        assert await compare(node, tmp_path, was_clean=False).is_due(), "a start after a crash"
        node.clock.ms += EVERY_MS
        assert await first.is_due(), "once a day"
        await first.run()
        node.clock.ms -= 400 * EVERY_MS
        assert await first.is_due(), "the clock was set back: the last time can't be told"

    run(body)


@pytest.mark.parametrize("how", ["restored", "shorter"])
def test_another_history_of_the_metadata_is_a_reason_and_its_hints_count_anew(tmp_path: Path, how: str) -> None:
    async def body(node: Node) -> None:
        name, generation = await listed(node, os.urandom(5000))
        comparison = compare(node, tmp_path)
        await comparison.run()
        assert not await comparison.is_due()
        node.settler._hints_after = 1 << 40
        if how == "restored":
            node.metadata.mark = "from the backup of monday"
        else:
            async def shorter() -> tuple[int, str]:
                return 0, ""

            node.metadata.lineage = shorter  # type: ignore[method-assign]
        assert await comparison.is_due()
        assert await compare(node, tmp_path).is_due(), "also to a node that was down meanwhile"
        node.metadata.hints.append((N1, name, generation))
        assert await node.settler.take_hints() == 1

    run(body)


def test_a_comparison_that_was_cut_short_is_due_again(tmp_path: Path) -> None:
    async def body(node: Node) -> None:
        await listed(node, os.urandom(5000))
        comparison = compare(node, tmp_path)
        await comparison.run()
        comparison._due = True
        task = asyncio.ensure_future(comparison.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await comparison.is_due()
        assert not comparison.running

    run(body)


# What waits, and why

async def reasons(node: Node, limit: int = 300) -> dict[Digest, list[str]]:
    found: dict[Digest, list[str]] = {}
    after = None
    while True:
        page = await waiting_page(node.store, node.metadata, N1, after, limit)
        for copy in page.copies:
            found.setdefault(Digest(bytes.fromhex(copy.digest)), []).append(copy.reason)
        after = page.after
        if after is None:
            return found


def test_each_copy_that_waits_has_its_reason() -> None:
    async def body(node: Node) -> None:
        settled = await listed(node, b"settled")
        name = {}
        upload = node.upload()
        name["upload"] = await put(node.store, b"upload", upload)
        listing = node.upload()
        name["settling"] = await put(node.store, b"settling", listing)
        node.metadata.list_copy(name["settling"], listing, "n1")
        short = node.upload()
        name["announced"] = await put(node.store, b"announced", short)
        node.metadata.list_copy(name["announced"], short)
        ended = Generation(SessionId(7), 7)
        name["unlisted"] = await put(node.store, b"unlisted", ended)
        await put(node.store, b"settled", ended)
        name["damaged"] = await put(node.store, b"damaged", ended)
        await node.store.note_damage(name["damaged"], ended.pack(), "found")
        expected = {name[reason]: [reason] for reason in name} | {settled[0]: ["duplicate"]}
        assert await reasons(node) == expected
        assert await reasons(node, limit=1) == expected
        await node.settler.round()
        [grace] = [copy for copy in (await waiting_page(node.store, node.metadata, N1, None)).copies
                   if copy.digest == name["unlisted"].hex()]
        assert (grace.reason, grace.until_ms) == ("grace", node.clock.ms + 3_600_000)
        sums = total([await waiting_page(node.store, node.metadata, N1, None)])
        assert sums.copies["upload"] == 1
        assert sums.bytes["grace"] >= len(b"unlisted")
        assert sums.copies["duplicate"] == 0, "it has gone"

    run(body)


# Collection on demand

def test_a_collection_on_demand_asks_about_everything_and_keeps_to_the_grace() -> None:
    async def body(node: Node) -> None:
        generation = node.upload()
        name = await put(node.store, b"gone", generation)
        pending = node.upload()
        other = await put(node.store, b"pending", pending)
        await node.settler.round()                      # both are asked about again in two seconds
        node.end(generation)
        assert await node.settler.collect(None) == (2, 0, 0, None)
        assert await node.state(name, generation) == 2, "condemned: readers may have begun"
        node.clock.ms += 3_600_000 - 1
        assert (await node.settler.collect(None)).removed == 0
        node.clock.ms += 1
        step = await node.settler.collect(None)
        assert (step.removed, step.removed_bytes) == (1, 4)
        assert await node.state(other, pending) == NEW

    run(body)


def test_without_grace_what_is_unlisted_goes_at_once_and_uploads_stay() -> None:
    async def body(node: Node) -> None:
        pending = node.upload()
        kept = await put(node.store, b"pending", pending)
        for number in range(650):
            await put(node.store, b"gone %d" % number, Generation(SessionId(7), number))
        removed = steps = 0
        after: tuple[bytes, bytes] | None = None
        while True:
            step = await node.settler.collect(after, no_grace=True)
            removed, steps, after = removed + step.removed, steps + 1, step.after
            if after is None:
                break
        assert (removed, steps) == (650, 7)
        assert [copy.digest for copy in await node.store.inventory(None, 10)] == [kept]

    run(body)


def test_a_collection_takes_all_hints_first() -> None:
    async def body(node: Node) -> None:
        copies = [await listed(node, b"%d" % number) for number in range(700)]
        for name, generation in copies:
            node.end(generation)
            node.metadata.drop(name)
        removed, after = 0, None
        while True:
            step = await node.settler.collect(after, no_grace=True)
            removed, after = removed + step.removed, step.after
            if after is None:
                break
        assert removed == 700

    run(body)
