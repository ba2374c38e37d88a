"""A commit has one effect and a true answer, whatever happens to the link, the member and the session meanwhile."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest

from consensus import client as client_module
from consensus import intake, protocol
from consensus.config import SESSION_SPREAD_MAX
from consensus.core.commands import (
    AbortUpload,
    AppendVersion,
    CreateBucket,
    CreateUpload,
    EndSession,
    NewChunk,
    NewContent,
    PutPart,
    PutVersion,
    RegisterNode,
    StageContent,
)
from consensus.core.errors import Corrupt, Unavailable, UnknownOutcome
from consensus.core.ids import BucketId, NodeId, SessionId, UploadId, VersionId, digest
from consensus.core.model import Attributes, Holder, Slice
from consensus.core.results import BucketCreated, BucketExists, Committed, Done, SessionOpened, Staged
from consensus.sessions import Session
from tests.unit.consensus.members import Place, put

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.close()


async def bucket_of(client: client_module.MetadataClient, name: str = "b") -> BucketId:
    created = await client.commit(CreateBucket(name=name, account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    return created.bucket


def once(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any, Any], None]) -> None:
    """In place of answering the next entry, `act(answers, results)`."""
    give = intake.Answers.give

    def instead(answers: Any, results: Any, error: Any) -> None:
        monkeypatch.setattr(intake.Answers, "give", give)
        act(answers, results)

    monkeypatch.setattr(intake.Answers, "give", instead)


# The mark

def test_the_mark_passes_only_what_is_answered() -> None:
    session = Session(SessionId(1))
    taken = [session.take() for _ in range(5)]
    assert taken == [1, 2, 3, 4, 5]
    session.answer(3)
    session.answer(2)
    assert (session.low, session.spread, session.idle) == (1, 5, False)
    session.answer(1)
    assert session.low == 4
    session.answer(1)
    session.answer(3)
    session.answer(5)
    session.answer(5)
    session.answer(4)
    assert (session.low, session.spread, session.idle) == (6, 0, True)


# Links that break

async def test_a_link_lost_between_submit_and_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command was carried out and the answer lost: the retry gets the first answer, not "exists already"."""
    await place.serve()
    client = await place.client()
    await bucket_of(client, "first")
    lost = []

    def cut(answers: Any, results: Any) -> None:
        lost.extend(results)
        for batch in answers._batches:
            batch.link.close()

    once(monkeypatch, cut)
    made = await client.commit(CreateBucket(name="second", account="a", owner="o"))
    assert isinstance(made, BucketCreated)
    assert lost == [made]
    assert len(await client.buckets(None)) == 2


async def test_a_member_that_dies_between_submit_and_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    died = asyncio.Event()
    once(monkeypatch, lambda answers, results: died.set())
    commits = [asyncio.ensure_future(client.commit(put(bucket, f"{n}"))) for n in range(50)]
    await died.wait()
    await place.kill()
    more = [asyncio.ensure_future(client.commit(put(bucket, f"{n}"))) for n in range(50, 60)]
    await asyncio.sleep(0)
    await place.serve()
    outcomes = await asyncio.gather(*commits, *more)
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert len({outcome.order for outcome in outcomes if isinstance(outcome, Committed)}) == 60, "each applied once"
    found = await client.bucket_counted("b")
    assert found is not None
    assert found.object_count == 60


async def test_an_answer_that_never_comes_is_unknown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.serve()
    client = await place.client(deadline_s=0.3)
    bucket = await bucket_of(client)
    once(monkeypatch, lambda answers, results: None)
    with pytest.raises(UnknownOutcome):
        await client.commit(put(bucket, "k"))
    assert client._commits._session is not None
    assert client._commits._session.low > 2, "it is given up: the mark passes it"
    assert isinstance(await client.commit(put(bucket, "k2")), Committed)


async def test_what_was_never_sent_is_not_done(place: Place) -> None:
    await place.serve()
    client = await place.client(deadline_s=0.3)
    bucket = await bucket_of(client)
    await place.kill()
    await asyncio.sleep(0.05)
    assert not client.serving
    with pytest.raises(Unavailable):
        await client.commit(put(bucket, "k"))
    await place.serve()
    other = await place.client()
    assert await other.current(bucket, "k") is None


async def test_a_cancelled_commit_leaves_no_ticket_open(place: Place) -> None:
    await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    commits = [asyncio.ensure_future(client.commit(put(bucket, f"{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    for commit in commits[:5]:
        commit.cancel()
    await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(await client.commit(put(bucket, "after")), Committed)
    assert client._commits._session is not None
    assert client._commits._session.idle


# Sessions that end

async def test_an_ended_session_is_replaced_silently_for_commands_without_chunks(place: Place) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    assert client._commits._session is not None
    before = client._commits._session.id
    await member.propose(EndSession(session=before))
    assert isinstance(await client.commit(put(bucket, "k")), Committed)
    assert client._commits._session is not None
    assert client._commits._session.id != before


async def test_a_ticket_of_an_ended_session_is_refused_as_not_done(place: Place) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    ticket = await client.reserve()
    await member.propose(EndSession(session=ticket.session))
    with pytest.raises(Unavailable):
        await client.commit(put(bucket, "k"), ticket)
    with pytest.raises(Unavailable):
        await client.commit(put(bucket, "k"), ticket)
    assert await client.current(bucket, "k") is None
    assert isinstance(await client.commit(put(bucket, "k"), await client.reserve()), Committed)


async def test_a_session_that_ends_after_a_lost_answer_leaves_the_outcome_unknown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    assert client._commits._session is not None
    session = client._commits._session.id

    def cut(answers: Any, results: Any) -> None:
        member._machine.sessions.stop(session)               # as if an EndSession had been applied next
        for batch in answers._batches:
            batch.link.close()

    once(monkeypatch, cut)
    with pytest.raises(UnknownOutcome):
        await client.commit(put(bucket, "k"))


async def test_a_slow_ticket_does_not_hold_back_the_others(place: Place) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    slow = await client.reserve()
    for _ in range(5):
        await asyncio.gather(*(client.commit(put(bucket, f"{n}")) for n in range(300)))
    assert client._commits._session is not None
    assert client._commits._session.id != slow.session
    assert client._commits._session.spread <= 1
    assert member.status().sessions == 2
    kept = [len(session.results) for session in member._machine.sessions.open.values()]
    assert max(kept) <= 2 * SESSION_SPREAD_MAX
    assert isinstance(await client.commit(put(bucket, "slow"), slow), Committed)
    async with asyncio.timeout(5):
        while member.status().sessions > 1:
            await asyncio.sleep(0)


async def test_released_tickets_let_the_mark_pass(place: Place) -> None:
    await place.serve()
    client = await place.client()
    tickets = [await client.reserve() for _ in range(10)]
    for ticket in reversed(tickets):
        client.release(ticket)
        client.release(ticket)
    assert client._commits._session is not None
    assert client._commits._session.idle


async def test_an_idle_client_tells_its_mark_once(place: Place) -> None:
    """Else storage nodes would wait for the next command to learn that a passed-over chunk may go."""
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    ticket = await client.reserve()
    await client.commit(put(bucket, "k"), ticket)
    session = member._machine.sessions.open[ticket.session]
    assert session.low <= ticket.sequence
    async with asyncio.timeout(5):
        while session.low <= ticket.sequence:
            await asyncio.sleep(0.01)
    commands = member.status().commands
    client._commits._say_mark()
    await asyncio.sleep(0.01)
    assert member.status().commands == commands


async def test_stop_ends_the_session(place: Place) -> None:
    member = await place.serve()
    client = await place.client()
    await bucket_of(client)
    assert member.status().sessions == 1
    await client.stop()
    assert member.status().sessions == 0


# Storage nodes

def node(name: str = "n1") -> RegisterNode:
    return RegisterNode(node=NodeId(name), incarnation=b"i" * 16, address="unix:/nowhere")


async def test_registering_ends_the_sessions_of_earlier_lives(place: Place) -> None:
    member = await place.serve()
    first, second = await place.client(), await place.client()
    opened = await first.commit(node())
    assert isinstance(opened, SessionOpened)
    again = await second.register(node())
    assert again.session != opened.session
    assert set(member._machine.sessions.open) == {again.session}
    assert second._commits._session is not None
    assert second._commits._session.id == again.session


# Pages

def chunk(data: bytes) -> tuple[Slice, NewChunk]:
    holder = Holder(NodeId("n1"), b"i" * 16)
    return Slice(digest(data), 0, len(data)), NewChunk(digest=digest(data), size=len(data), holders=(holder,))


async def test_pages_stay_in_the_session_that_staged_them(place: Place) -> None:
    await place.serve()
    storage = await place.client()
    await storage.register(node())
    client = await place.client()
    bucket = await bucket_of(client)
    one, two = chunk(b"one"), chunk(b"two")
    ticket = await client.reserve()
    staged = await client.commit(StageContent(slices=(one[0],), chunks=(one[1],)), ticket)
    assert isinstance(staged, Staged)
    slow = await client.reserve()
    for _ in range(6):                                       # the slow ticket holds the mark, so a new session begins
        await asyncio.gather(*(client.commit(put(bucket, f"{n}")) for n in range(300)))
    client.release(slow)
    beside = await client.reserve(beside=staged.content)
    assert beside.session == ticket.session
    assert client._commits._session is not None
    assert client._commits._session.id != ticket.session
    done = await client.commit(PutVersion(
        bucket=bucket, key="paged", version_id=VersionId(""), attributes=Attributes(), owner="o",
        content=NewContent(size=6, etag="e", slices=(two[0],), chunks=(two[1],), staged=staged.content)), beside)
    assert isinstance(done, Committed)
    _, version, slices = await client.opened("b", "paged")
    assert version is not None
    assert [piece.digest for piece in slices] == [one[0].digest, two[0].digest]


async def test_an_appends_pages_come_in_the_session_of_its_ticket(place: Place) -> None:
    """Its bytes were stored before what was there is listed anew, and meanwhile another session may have begun."""
    await place.serve()
    storage = await place.client()
    await storage.register(node())
    client = await place.client()
    bucket = await bucket_of(client)
    one, two = chunk(b"one"), chunk(b"two")
    first = await client.commit(PutVersion(
        bucket=bucket, key="k", version_id=VersionId(""), attributes=Attributes(), owner="o",
        content=NewContent(size=3, etag="e", slices=(one[0],), chunks=(one[1],))), await client.reserve())
    assert isinstance(first, Committed)
    ticket = await client.reserve()
    for _ in range(6):
        await asyncio.gather(*(client.commit(put(bucket, f"{n}")) for n in range(300)))
    assert client._commits._session is not None
    assert client._commits._session.id != ticket.session
    staged = await client.commit(StageContent(slices=(one[0],)), client.reserve_beside(ticket))
    assert isinstance(staged, Staged)
    done = await client.commit(AppendVersion(
        bucket=bucket, key="k", version_id=VersionId(""), base=first.order, offset=3, appended=2, whole=True,
        content=NewContent(size=6, etag="e2", slices=(two[0],), chunks=(two[1],), staged=staged.content)), ticket)
    assert isinstance(done, Committed), done
    assert staged.content not in client._commits._staged
    _, version, slices = await client.opened("b", "k")
    assert version is not None
    assert [piece.digest for piece in slices] == [one[0].digest, two[0].digest]
    with pytest.raises(Unavailable):
        client.reserve_beside(ticket)           # all of that session is done with


async def test_an_abandoned_page_is_released_soon(place: Place) -> None:
    member = await place.serve()
    storage = await place.client()
    await storage.register(node())
    client = await place.client()
    await bucket_of(client)
    one = chunk(b"one")
    ticket = await client.reserve()
    staged = await client.commit(StageContent(slices=(one[0],), chunks=(one[1],)), ticket)
    assert isinstance(staged, Staged)
    client.abandon(staged.content)
    async with asyncio.timeout(5):
        while ticket.session in member._machine.sessions.open:
            await asyncio.sleep(0)
    await member.housekeeper.drain()
    assert member._machine.db.execute("SELECT count(*) FROM chunk").fetchone() == (0,)
    with pytest.raises(Unavailable):
        await client.reserve(beside=staged.content)


# Reads

async def test_a_read_shows_every_commit_answered_before(place: Place) -> None:
    await place.serve()
    writer, reader = await place.client(), await place.client()
    bucket = await bucket_of(writer)
    for number in range(50):
        done = await writer.commit(put(bucket, "k", etag=f"{number}"))
        seen = await reader.current(bucket, "k")
        assert isinstance(done, Committed)
        assert seen is not None
        assert (seen.order, seen.etag) == (done.order, f"{number}")


async def test_reads_wait_for_a_member_that_comes_back_and_no_longer(place: Place) -> None:
    await place.serve()
    client = await place.client(serving_wait_s=0.3)
    await bucket_of(client)
    await place.kill()
    while client.serving:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await client.bucket("b")
    client._serving_wait_s = 30.0
    waiting = asyncio.ensure_future(client.bucket("b"))
    await asyncio.sleep(0)
    await place.serve()
    assert await waiting is not None


async def test_a_look_at_a_bucket_will_do_for_requests_that_came_before_it_and_for_no_others(place: Place) -> None:
    await place.serve()
    client, other = await place.client(), await place.client()
    came = perf_counter()
    assert await client.bucket("b", came) is None
    await bucket_of(other)
    assert await client.bucket("b", came) is None, "no look of its own was needed"
    assert await client.bucket("b", perf_counter()) is not None
    assert await client.bucket("c") is None
    await bucket_of(other, "c")
    assert await client.bucket("c") is not None, "who says nothing of when it came gets what is true now"
    assert await client.bucket("d", came) is None
    await bucket_of(client, "d")
    assert await client.bucket("d", came) is not None, "a request sees what it has itself committed"


async def test_looks_at_buckets_are_not_shared_in_a_cluster(place: Place) -> None:
    await place.serve()
    client, other = await place.client(), await place.client()
    assert client._link.serving is not None
    client._link.serving = msgspec.structs.replace(client._link.serving, alone=False)
    came = perf_counter()
    assert await client.bucket("b", came) is None
    await bucket_of(other)
    assert await client.bucket("b", came) is not None


async def test_a_local_read_does_not_suspend(place: Place) -> None:
    await place.serve()
    client = await place.client()
    await bucket_of(client)
    coroutine = client.bucket("b")
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value.name == "b"


async def test_what_passes_is_tried_again_and_damage_is_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.serve()
    client = await place.client()
    await bucket_of(client)
    assert client._reader is not None
    run, calls = client._reader.run, []

    def failing(code: int, times: int) -> None:
        calls.clear()

        def instead(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) <= times:
                error = sqlite3.OperationalError("injected")
                error.sqlite_errorcode = code
                raise error
            return run(*arguments, **named)

        monkeypatch.setattr(client._reader, "run", instead)

    failing(sqlite3.SQLITE_BUSY_RECOVERY, 3)
    assert await client.bucket("b") is not None
    assert len(calls) == 4
    failing(sqlite3.SQLITE_CORRUPT, 100)
    with pytest.raises(Corrupt):
        await client.bucket("b")
    assert len(calls) == 1


async def test_a_busy_member_is_asked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    submit, refused = member.submit, []

    def busy(*arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(1)
            raise Unavailable("busy")
        submit(*arguments)

    monkeypatch.setattr(member, "submit", busy)
    assert isinstance(await client.commit(put(bucket, "k")), Committed)
    assert len(refused) == 2


async def test_large_commands_travel_in_frames_of_bounded_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    sizes: list[int] = []
    submit = member.submit

    def measured(link: Any, request_id: int, payload: memoryview) -> None:
        sizes.append(len(payload))
        submit(link, request_id, payload)

    monkeypatch.setattr(member, "submit", measured)
    wide = Attributes(metadata=tuple((f"{n}", "v" * 100) for n in range(100)))
    outcomes = await asyncio.gather(*(
        client.commit(PutVersion(bucket=bucket, key=f"{n}", version_id=VersionId(""), attributes=wide, owner="o",
                                 content=NewContent(size=0, etag="e"))) for n in range(400)))
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert len(sizes) > 3
    assert max(sizes) <= protocol.SUBMIT_BYTES_MAX


async def test_commands_that_name_nothing_are_still_answered(place: Place) -> None:
    await place.serve()
    client = await place.client()
    bucket = await bucket_of(client)
    assert isinstance(await client.commit(CreateBucket(name="b", account="z", owner="o")), BucketExists)
    await client.commit(
        CreateUpload(bucket=bucket, key="k", upload_id=UploadId("u"), attributes=Attributes(), owner="o"))
    part = await client.commit(PutPart(bucket=bucket, key="k", upload_id=UploadId("u"), number=1,
                                       content=NewContent(size=0, etag="e")))
    assert type(part).__name__ == "PartStored"
    assert isinstance(await client.commit(AbortUpload(bucket=bucket, key="k", upload_id=UploadId("u"))), Done)
