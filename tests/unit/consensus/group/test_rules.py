"""The rules of the group one by one, each at the moment that it is for. Controls show that the checks see it when one is
left out."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consensus.core.errors import Refused, Unavailable, UnknownOutcome
from consensus.core.model import Member
from consensus.group import elections, group, messages, transport
from consensus.group.members import with_voter
from consensus.group.messages import (
    Append,
    Appended,
    AskVote,
    Behind,
    Campaign,
    Message,
    Probe,
    Probed,
    Voted,
)
from consensus.group.replication import MESSAGE_BYTES, WINDOW_BYTES
from consensus.journal import CONFIGURATION
from tests.unit.consensus.group.world import Broken, Seat, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, 7) as world:
        world.run(world.begin())
        yield world


def leading(world: World) -> tuple[Seat, list[Seat]]:
    leader: Seat = world.run(world.leader())
    return leader, [seat for seat in world.seats.values() if seat is not leader]


def later(world: World, seconds: float) -> None:
    world.run(asyncio.sleep(seconds))
    for failure in world.failures:
        raise failure


def raft_of(seat: Seat) -> Any:
    assert seat.raft is not None
    return seat.raft


def started(world: World, seat: Seat) -> None:
    async def start() -> None:
        seat.start(wanted=world.wanted)
    world.run(start())


# Acknowledgements

def test_an_acknowledgement_waits_for_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(world.write(b"durable"))

    def at_once(self: Any, name: str, answer: Appended) -> None:
        self._answer(name, answer)

    monkeypatch.setattr(transport.GroupTransport, "_hold", at_once)
    with pytest.raises(Broken, match="may yet lose"):
        world.run(_wait_for_failure(world))
    world.failures.clear()


async def _wait_for_failure(world: World) -> None:
    await world.write(b"in doubt")
    await world.until(lambda: False, 1.0)


@pytest.mark.parametrize("wrong", ["term", "incarnation", "sender"])
def test_an_acknowledgement_of_something_else_does_not_count(world: World, wrong: str) -> None:
    leader, others = leading(world)
    world.net.partition({leader.name})
    future = world.run(_proposed(world, leader))
    later(world, 0.05)
    last, term = leader.journal.last_index, raft_of(leader).term
    incarnation = b"another" if wrong == "incarnation" else others[0].incarnation
    said = Appended(term - (wrong == "term"), incarnation, last + 1, False, True)
    world.net.inject("stranger" if wrong == "sender" else others[0].name, leader.name, said)
    later(world, 0.05)
    assert not future.done()
    assert raft_of(leader).raftCommitIndex < last
    world.net.inject(others[0].name, leader.name, Appended(term, others[0].incarnation, last + 1, False, True))
    later(world, 0.05)
    assert future.done(), "the control: the right one does"
    world.acknowledged.clear()                   # nobody has sent it in truth
    world.committed.clear()


async def _proposed(world: World, seat: Seat) -> "asyncio.Future[int]":
    return world.propose(seat, b"entry")


def test_an_entry_beyond_the_log_is_not_acknowledged(world: World) -> None:
    leader, others = leading(world)
    with pytest.raises(Refused):
        world.net.inject(others[0].name, leader.name, Appended(raft_of(leader).term, others[0].incarnation, 10_000, False, True))
    assert not raft_of(leader).failed


def test_what_a_wiped_member_had_acknowledged_counts_no_more(world: World) -> None:
    """It comes back under its name, with less than it had: as long as the log knows another incarnation, nothing that it says
    elects anybody or commits anything."""
    leader, (gone, cut_off) = leading(world)
    world.net.partition({cut_off.name})
    acknowledged = world.run(world.write(b"by two"))
    gone.kill()
    gone.wipe()
    started(world, gone)
    waiting = world.run(_proposed(world, leader))
    later(world, 6.0)
    assert not any(seat.leads for seat in world.seats.values())
    assert isinstance(waiting.exception(), UnknownOutcome)
    world.net.cut = set()
    world.run(world.take_in(gone))
    world.run(world.settle())
    assert gone.machine.entries[acknowledged] == b"by two"


def test_its_successor_begins_from_nothing(world: World) -> None:
    """The leader keeps no place in the log of who had it before (it did)."""
    world.run(world.write(b"before"))
    leader, (gone, _) = leading(world)
    gone.kill()
    gone.wipe()
    world.run(raft_of(leader).changes.add(gone.member))
    assert raft_of(leader).group._core.match_index[raft_of(leader).group._peer(gone.name)] == 0


# Votes

def test_a_vote_counts_once(tmp_path: Path) -> None:
    with World(tmp_path, 3, "abcde") as world:
        world.run(world.begin())
        _leader, others = leading(world)
        stands = others[0]
        world.net.on_frame = lambda source, target, message: stands.name in (source, target)
        raft_of(stands).group.elections.stand()
        raft_of(stands).wake()
        later(world, 0.05)
        term = raft_of(stands).term
        for _ in range(5):
            world.net.inject(others[1].name, stands.name, Voted(term, term, others[1].incarnation, False, True))
            world.net.inject("stranger", stands.name, Voted(term, term, b"x", False, True))
            world.net.inject(others[2].name, stands.name, Voted(term, term, b"wiped", False, True))
            world.net.inject(others[2].name, stands.name, Voted(term - 1, term - 1, others[2].incarnation, False, True))
        assert not stands.leads, "two of five"
        world.net.inject(others[2].name, stands.name, Voted(term, term, others[2].incarnation, False, True))
        assert stands.leads, "the control: three are a majority"


def test_who_comes_back_from_a_partition_deposes_nobody(world: World) -> None:
    leader, others = leading(world)
    term = raft_of(leader).term
    world.net.on_frame = lambda source, target, message: others[0].name in (source, target)
    later(world, 20.0)
    assert raft_of(others[0]).term == term, "it has not raised its term alone"
    world.net.on_frame = None
    later(world, 5.0)
    assert leader.leads
    assert raft_of(leader).term == term


def test_without_a_trial_it_would(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    leader, others = leading(world)
    monkeypatch.setattr(elections.Elections, "before_tick", lambda self: None)
    world.net.on_frame = lambda source, target, message: others[0].name in (source, target)
    later(world, 20.0)
    assert raft_of(others[0]).term > raft_of(leader).term


def test_who_hears_a_leader_gives_no_vote(world: World) -> None:
    leader, (one, two) = leading(world)
    term = raft_of(leader).term
    for seat in (one, leader):
        world.net.inject(two.name, seat.name, AskVote(term + 5, 10_000, term + 4, False, False))
        assert raft_of(seat).term == term, f"{seat.name} is loyal"
    later(world, 0.2)
    assert leader.leads
    world.net.inject(two.name, one.name, AskVote(term + 5, 10_000, term + 4, False, True))
    assert raft_of(one).term == term + 5, "the control: an election that the leader has asked for"


def test_who_has_just_started_gives_no_vote(world: World) -> None:
    _, (one, two) = leading(world)
    one.kill()
    world.net.cut = {(other.name, one.name) for other in world.seats.values()}
    started(world, one)
    term = raft_of(one).term
    world.net.inject(two.name, one.name, AskVote(term + 1, 10_000, term, False, False))
    assert raft_of(one).term == term
    later(world, world.timing.election_min_s)
    world.net.inject(two.name, one.name, AskVote(term + 1, 10_000, term, False, False))
    assert raft_of(one).term == term + 1, "the control"


def test_a_deposed_leader_learns_it_from_any_answer(world: World) -> None:
    leader, _others = leading(world)
    world.net.partition({leader.name})
    world.run(_wait_for_another(world, leader))
    assert leader.leads, "it does not know yet"
    world.net.cut = {(name, leader.name) for name in ()}            # heals
    world.net.on_frame = lambda source, target, message: target == leader.name and not isinstance(message, Voted)
    later(world, 0.3)
    assert not leader.leads, "its heartbeats were answered by the newer term"
    world.net.on_frame = None
    world.run(world.settle())


async def _wait_for_another(world: World, leader: Seat) -> None:
    await world.until(lambda: any(seat.leads for seat in world.seats.values() if seat is not leader))


def test_a_leader_without_a_majority_leads_no_more(world: World) -> None:
    leader, _ = leading(world)
    future = world.run(_proposed(world, leader))
    world.run(asyncio.wait_for(future, 5))
    world.net.partition({leader.name})
    waiting = world.run(_proposed(world, leader))
    later(world, world.timing.fallback_s + 0.3)
    assert not leader.leads
    assert isinstance(waiting.exception(), UnknownOutcome), "it may yet be committed: never `not done`"
    refused = world.run(_proposed(world, leader))
    later(world, 0.05)
    assert isinstance(refused.exception(), Unavailable)
    world.net.cut = set()
    world.run(world.settle())


def test_who_hears_nobody_does_not_say_that_there_is_a_majority(world: World) -> None:
    """A member whose state is damaged sets it aside only when the others can go on without it."""
    leader, (one, two) = leading(world)
    assert all(raft_of(seat).group.elections.led for seat in (leader, one, two))
    leader.kill()
    world.run(world.leader())
    later(world, 0.5)
    assert all(raft_of(seat).group.elections.led for seat in (one, two))
    two.kill()
    later(world, 3.0)
    assert not raft_of(one).group.elections.led


def test_a_leader_that_stops_hands_over_at_once(world: World) -> None:
    leader, _ = leading(world)
    began = world.loop.time()
    assert world.run(raft_of(leader).changes.hand_over())
    assert world.loop.time() - began < 0.1
    assert not leader.leads
    world.run(world.settle())


def test_a_leader_that_stops_hands_over_under_load_too(world: World) -> None:
    """There is a moment in which another has all of the log only if nothing more comes into it."""
    leader, _ = leading(world)

    async def run() -> None:
        ended = False

        async def write(number: int) -> None:
            while not ended:
                raft = leader.raft
                assert raft is not None
                with contextlib.suppress(Unavailable, UnknownOutcome):
                    await world.propose(leader, f"{number}".encode())
                await asyncio.sleep(0)

        writers = [asyncio.ensure_future(write(number)) for number in range(20)]
        await asyncio.sleep(0.5)
        began = world.loop.time()
        assert await raft_of(leader).changes.hand_over()
        assert world.loop.time() - began < 0.1
        ended = True
        await asyncio.gather(*writers)

    world.net.delay = (0.01, 0.02)
    world.run(run())
    world.run(world.settle())


# The log

def test_what_was_cut_but_not_contradicted_stays(world: World) -> None:
    """PySyncObj cuts after `previous` whatever comes, so an old message that comes again took acknowledged entries away."""
    leader, (one, _) = leading(world)
    seen: list[Append] = []
    world.net.on_frame = lambda source, target, message: bool(
        target == one.name and isinstance(message, Append) and message.entries and seen.append(message))
    for number in range(5):
        world.run(world.write(f"{number}".encode()))
    later(world, 0.5)
    last = one.journal.last_index
    world.net.cut = {(other.name, one.name) for other in world.seats.values()}
    world.net.inject(leader.name, one.name, seen[0])
    assert one.journal.last_index == last
    assert raft_of(one).raftCommitIndex == last, "nor is anything less committed than before"


def test_large_entries_go_unpickled_and_many_in_pieces(world: World) -> None:
    sizes: list[int] = []
    world.net.on_frame = lambda source, target, message: bool(
        isinstance(message, Append) and sizes.append(sum(len(entry) for _, entry in message.entries)))
    leader, _ = leading(world)
    leader.journal._keep_bytes = 64 << 20
    large = bytes(3 << 20)
    futures = [world.run(_some(world, leader, large)), *[world.run(_some(world, leader, bytes(300_000))) for _ in range(20)]]
    world.run(asyncio.wait_for(asyncio.gather(*futures), 20))
    assert {size for size in sizes if size > MESSAGE_BYTES + 300_000} == {len(large) + 1}
    assert max(size for size in sizes if size <= MESSAGE_BYTES + 300_000) > MESSAGE_BYTES / 2, "and no more pieces than need be"
    world.run(world.settle())


async def _some(world: World, seat: Seat, entry: bytes) -> "asyncio.Future[int]":
    return world.propose(seat, entry)


def test_no_more_than_a_window_is_under_way_to_one_member(world: World) -> None:
    leader, (slow, _) = leading(world)
    leader.journal._keep_bytes = 64 << 20
    pushed = 0

    def look(source: str, target: str, message: Message) -> bool:
        nonlocal pushed
        if target == slow.name and isinstance(message, Append):
            pushed += sum(len(entry) for _, entry in message.entries)
        return source == slow.name and isinstance(message, Appended)        # it never acknowledges

    for _ in range(20):                                                     # the window is as large as it comes to be
        world.run(asyncio.wait_for(world.run(_some(world, leader, bytes(1 << 20))), 10))
    later(world, 0.5)
    assert leader.group.replication.of(slow.name).window == WINDOW_BYTES
    world.net.on_frame = look
    for _ in range(3 * WINDOW_BYTES // (1 << 20)):
        world.run(asyncio.wait_for(world.run(_some(world, leader, bytes(1 << 20))), 10))
    assert WINDOW_BYTES <= pushed < WINDOW_BYTES + 2 * MESSAGE_BYTES
    world.net.on_frame = None
    world.run(world.settle())


# What comes from the wire

@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode([1, 2, "x"]), b"\x95\x00\x00\x00\x00\x91\x00",
                                     msgspec.msgpack.encode([-1, 0, 0, 0, []]), msgspec.msgpack.encode([1 << 60, 0, 0, 0, []]),
                                     msgspec.msgpack.encode([1, 0, 1, 0, [[1, b""]]]),
                                     msgspec.msgpack.encode([1, 0, 1, 0, [], "one too many"])])
def test_garbage_has_no_effect(world: World, payload: bytes) -> None:
    leader, (one, _) = leading(world)
    for operation in (*messages.KINDS, 45, 46, 47):
        if messages.KINDS.get(operation) is messages.Read and payload == b"\x91\x00":
            continue
        with pytest.raises(Refused):
            world.net.posts[one.name].receive(leader.name, operation, payload)
    assert not raft_of(one).failed
    assert not world.failures


@pytest.mark.parametrize("entry", [(9, b"\x00later than its leader"), (1, b"\x02pickle"), (1, b"\x03pickle"), (1, b"\x09"),
                                   (1, bytes((CONFIGURATION, 1)) + b"garbage"), (1, bytes((CONFIGURATION, 1, 0x90)))])
def test_entries_that_no_leader_makes_are_refused(world: World, entry: tuple[int, bytes]) -> None:
    leader, (one, _) = leading(world)
    term, last = raft_of(leader).term, one.journal.last_index
    with pytest.raises(Refused):
        world.net.inject(leader.name, one.name, Append(term, 0, last, one.journal.last_term, [entry]))
    assert one.journal.last_index == last
    assert not raft_of(one).failed


def test_an_answer_asks_for_nothing(world: World) -> None:
    """Whoever answers a question that was not asked changes nothing."""
    leader, (one, two) = leading(world)
    term = raft_of(leader).term
    for message in (Probed(term, two.incarnation, 99), messages.Readable(99, 10_000), messages.Paged(1, 1, 1, 1, 1, 0, b"x"),
                    Voted(term, term, two.incarnation, True, True)):
        for seat in (leader, one):
            world.net.inject(two.name, seat.name, message)
    later(world, 0.5)
    assert leader.leads
    assert raft_of(leader).term == term


def test_only_the_leader_asks_for_an_election(world: World) -> None:
    leader, (one, two) = leading(world)
    term = raft_of(leader).term
    world.net.inject(two.name, one.name, Campaign(term))
    later(world, 0.5)
    assert leader.leads
    assert raft_of(leader).term == term


def test_two_leaders_of_one_term_are_refused(world: World) -> None:
    leader, (one, _) = leading(world)
    for message in (Append(raft_of(leader).term, 0, 1, 0, []), Behind(raft_of(leader).term, 5), Probe(raft_of(leader).term, 1)):
        with pytest.raises(Refused):
            world.net.inject(one.name, leader.name, message)
    assert leader.leads


# Members

def test_one_change_at_a_time(world: World) -> None:
    leader, (one, _) = leading(world)
    raft = raft_of(leader)
    world.net.partition({leader.name})

    async def both() -> list[Any]:
        first = asyncio.ensure_future(raft.changes.add(Member(name="d", address="d:1", incarnation=b"d")))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="not finished"):
            await raft.changes.remove(one.name)
        assert raft.members[-1].name == "d", "in force as soon as it is in the log"
        return await asyncio.gather(first, return_exceptions=True)

    (outcome,) = world.run(both())
    assert isinstance(outcome, UnknownOutcome)
    world.net.cut = set()
    world.run(world.settle())
    assert "d" not in [member.name for member in raft.members], "cut off with the entry that brought it"


def test_no_change_before_the_term_has_committed_anything(world: World) -> None:
    leader, (one, two) = leading(world)
    world.net.partition({leader.name})
    world.net.on_frame = lambda source, target, message: isinstance(message, Appended)      # nothing is committed
    world.run(_wait_for_another(world, leader))
    fresh = next(seat for seat in (one, two) if seat.leads)
    with pytest.raises(Unavailable, match="not finished"):
        world.run(raft_of(fresh).changes.add(Member(name="d", address="d:1", incarnation=b"d")))
    world.net.on_frame = None
    world.net.cut = set()


def test_a_learner_is_not_counted_and_never_stands(tmp_path: Path) -> None:
    with World(tmp_path, 11, "abcd", wanted=3) as world:
        world.run(world.begin())
        leader, others = leading(world)
        learner = world.seats["d"]
        assert leader is not learner
        assert [m.voter for m in raft_of(leader).members if m.name == "d"] == [False]
        world.run(world.write(b"entry"))
        voters = [seat for seat in others if seat is not learner]
        for seat in voters:
            seat.kill()
        waiting = world.run(_proposed(world, leader))
        later(world, 1.0)
        assert learner.journal.last_index == leader.journal.last_index, "it has the entry"
        assert not waiting.done(), "but is no majority with the leader"
        leader.kill()
        later(world, 10.0)
        assert not learner.leads
        assert raft_of(learner).term == 1
        for seat in (*voters, leader):
            started(world, seat)
        later(world, 3.0)
        assert world.run(raft_of(learner).read_index()) >= 1, "it may be read"
        world.run(world.settle())


def test_a_voter_that_does_not_know_it_yet_gives_its_vote(tmp_path: Path) -> None:
    """The leader makes c a voter, commits that with b, and is lost before c hears of it: b and c are the majority."""
    with World(tmp_path, 12, "abc") as world:
        first, second, third = world.seats.values()

        async def begin() -> None:
            first.start(birth=True, wanted=2)
            for seat in (second, third):
                seat.start(wanted=2)
                await world.take_in(seat)
            await world.until(lambda: sum(member.voter for member in raft_of(first).members) == 2)
            await world.until(lambda: raft_of(first).members == raft_of(third).members)

        world.run(begin())
        world.net.cut = {(first.name, third.name)}

        async def count_third() -> None:
            await raft_of(first).changes.configure(with_voter(raft_of(first).members, third.name))

        world.run(count_third())
        assert [member.voter for member in raft_of(third).members if member.name == third.name] == [False]
        first.kill()
        world.net.cut = set()
        world.run(world.until(lambda: second.leads or third.leads))
        started(world, first)
        world.run(world.settle())


def test_a_member_that_was_removed_is_told_nothing_more_and_disturbs_nobody(world: World) -> None:
    leader, (one, _) = leading(world)
    world.run(raft_of(leader).changes.remove(one.name))
    term = raft_of(leader).term
    later(world, 10.0)
    assert leader.leads
    assert raft_of(leader).term == term
    world.run(world.write(b"without it"))
    assert one.machine.applied < leader.machine.applied
    del world.seats[one.name]
    one.kill()


def test_a_leader_that_is_to_be_removed_hands_over(world: World) -> None:
    leader, _ = leading(world)
    with pytest.raises(Unavailable, match="ask again"):
        world.run(raft_of(leader).changes.remove(leader.name))
    other, _ = leading(world)
    assert other is not leader
    world.run(raft_of(other).changes.remove(leader.name))
    world.run(world.write(b"without it"))
    leader.kill()
    del world.seats[leader.name]


def test_nobody_takes_the_name_of_who_leads(world: World) -> None:
    """The library counts the leader, whatever a configuration says of it."""
    leader, _ = leading(world)
    before = raft_of(leader).members
    with pytest.raises(Refused):
        world.run(raft_of(leader).changes.add(Member(name=leader.name, address="elsewhere:1", incarnation=b"another")))
    assert raft_of(leader).members == before


def test_nobody_is_removed_whom_a_majority_needs(tmp_path: Path) -> None:
    """Of five, two are gone: without one of the three others nothing could be committed any more, not even that it went."""
    with World(tmp_path, 5, "abcde") as world:
        world.run(world.begin())
        leader, (one, two, three, _) = leading(world)
        one.kill()
        two.kill()
        later(world, 1.5)
        with pytest.raises(Unavailable, match="no majority"):
            world.run(raft_of(leader).changes.remove(three.name))
        world.run(world.write(b"it goes on"))
        world.run(raft_of(leader).changes.remove(one.name))
        world.run(raft_of(leader).changes.remove(two.name))
        world.run(raft_of(leader).changes.remove(three.name))
        assert len(raft_of(leader).members) == 2


def test_the_last_one_stays(tmp_path: Path) -> None:
    with World(tmp_path, 1, "a") as world:
        world.run(world.begin())
        alone = world.seats["a"]
        assert raft_of(alone).members == (alone.member,), "its first configuration is in the log"
        with pytest.raises(Refused):
            world.run(raft_of(alone).changes.remove("a"))
        with pytest.raises(Refused):
            world.run(raft_of(alone).changes.add(Member(name="a", address="a:1", incarnation=b"another")))


def test_the_configuration_survives_restarts_and_moves(world: World) -> None:
    leader, (one, _) = leading(world)
    world.run(raft_of(leader).changes.add(msgspec.structs.replace(one.member, address="elsewhere:1")))
    assert [m.address for m in raft_of(leader).members if m.name == one.name] == ["elsewhere:1"]
    assert all(member.voter for member in raft_of(leader).members), "who only moves keeps its vote"
    for seat in world.seats.values():
        seat.kill()
    for seat in world.seats.values():
        started(world, seat)
    world.run(world.settle())


# Reads

def test_reads_see_what_was_acknowledged_before_at_every_member(world: World) -> None:
    for number in range(20):
        index = world.run(world.write(f"{number}".encode()))
        for seat in world.seats.values():
            assert world.run(raft_of(seat).read_index()) >= index
            assert seat.machine.applied >= index


def test_a_leader_that_is_cut_off_answers_no_read(world: World) -> None:
    leader, (one, two) = leading(world)
    world.net.partition({leader.name})

    async def race() -> None:
        reading = [asyncio.ensure_future(raft_of(seat).read_index()) for seat in (leader, one, two)]
        await world.until(lambda: one.leads or two.leads)
        written = await world.write(b"newer")
        late = asyncio.ensure_future(raft_of(leader).read_index())
        with pytest.raises(Unavailable):
            await reading[0]
        with pytest.raises(Unavailable):
            await late
        assert await raft_of(one).read_index() >= written
        await asyncio.gather(*reading[1:], return_exceptions=True)

    world.run(race())
    world.net.cut = set()
    world.run(world.settle())


def test_without_probes_it_would(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    monkeypatch.setattr("consensus.group.probes.majority", lambda members: 1)
    leader, (_one, _two) = leading(world)
    world.net.partition({leader.name})
    world.run(_wait_for_another(world, leader))
    written = world.run(world.write(b"newer"))
    assert world.run(raft_of(leader).read_index()) < written


def test_answers_to_probes_count_by_incarnation_and_term(world: World) -> None:
    leader, (one, _two) = leading(world)
    world.net.partition({leader.name})
    raft = raft_of(leader)

    async def read() -> None:
        reading = asyncio.ensure_future(raft.read_index())
        await asyncio.sleep(0.02)
        number = max(raft.group.probes._rounds)
        world.net.inject(one.name, leader.name, Probed(raft.term, b"wiped", number))
        world.net.inject(one.name, leader.name, Probed(raft.term - 1, one.incarnation, number))
        world.net.inject("stranger", leader.name, Probed(raft.term, b"x", number))
        await asyncio.sleep(0.02)
        assert not reading.done()
        world.net.inject(one.name, leader.name, Probed(raft.term, one.incarnation, number))
        await asyncio.sleep(0.02)
        assert reading.done(), "the control"

    world.run(read())


def test_an_index_for_an_earlier_life_is_none_for_this_one(world: World) -> None:
    """What a member had asked before it was killed may be answered after it has asked anew."""
    _, (one, _) = leading(world)
    later(world, 1.0)
    held = [True]
    world.net.on_frame = lambda source, target, message: held[0] and isinstance(message, Probe)

    async def asked() -> None:
        reading = asyncio.ensure_future(raft_of(one).read_index())
        await asyncio.sleep(0.01)
        one.kill()
        reading.cancel()

    world.run(asked())
    started(world, one)
    written = world.run(world.write(b"newer"))
    later(world, 0.3)

    async def ask_again() -> None:
        reading = asyncio.ensure_future(raft_of(one).read_index())
        await asyncio.sleep(0.01)
        held[0] = False
        assert await reading >= written

    world.run(ask_again())


def test_readers_of_a_moment_share_a_round(world: World) -> None:
    leader, (one, _) = leading(world)
    probes: list[Message] = []
    world.net.on_frame = lambda source, target, message: bool(isinstance(message, Probe) and probes.append(message))
    for seat in (leader, one):
        async def read(seat: Seat = seat) -> None:
            await asyncio.gather(*[raft_of(seat).read_index() for _ in range(100)])
        world.run(read())
    assert len(probes) <= 8


# Links

def test_a_silent_link_is_dialled_anew(world: World) -> None:
    leader, (one, _) = leading(world)
    world.net.cut = {(leader.name, one.name)}
    later(world, group.SILENT_S + 1)
    assert one.name in leader.post.redialled
    world.net.cut = set()
    world.run(world.settle())
