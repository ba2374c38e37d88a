"""Short runs of what `make torture`, `make torture-model` and `make torture-damage` do for long, and what shows that they
would notice: objects changed behind the clients' backs, and products that break a rule.

STADDLE_TORTURE_SEED repeats a run's choices.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import StaddleProcess
from tests.talker import Talker
from tests.torture import checker, damage, kill, leftovers, model
from tests.torture.contents import Content, Pool
from tests.torture.reference import Bucket, Reference, joined, part_of, value_of
from tests.torture.workload import BUCKET, Workload

SEED = int(os.environ.get("STADDLE_TORTURE_SEED", str(random.randrange(10**6))))
LARGEST = 8 << 20
ACKNOWLEDGED = 150


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaddleProcess]:
    server = StaddleProcess(tmp_path / "server")
    yield server.start()
    server.kill_all()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kill_9(tmp_path: Path) -> None:
    report = kill.run(2, SEED, parent=tmp_path, largest=LARGEST)
    assert not report.wrong, report.wrong


@pytest.mark.slow
def test_control_an_answer_before_the_commit_is_noticed(tmp_path: Path) -> None:
    report = kill.run(10, SEED, variant="acknowledged before commit", parent=tmp_path, largest=LARGEST, until_caught=True)
    assert report.wrong


@pytest.mark.slow
def test_damaged_chunks(tmp_path: Path) -> None:
    report = damage.run(40, SEED, parent=tmp_path)
    assert not report.wrong, report.wrong


@pytest.mark.slow
def test_control_reads_that_verify_nothing_are_noticed(tmp_path: Path) -> None:
    report = damage.run(20, SEED, variant="no verification", parent=tmp_path, until_caught=True)
    assert any("wrong bytes" in sentence for sentence in report.wrong)


@pytest.mark.slow
def test_history_against_the_model() -> None:
    report = model.run(3000, SEED)
    assert not report.wrong, report.wrong


@pytest.mark.slow
def test_control_what_changes_behind_the_clients_is_noticed(server: StaddleProcess) -> None:
    """One key lost, one overwritten by the same bytes, one by others, an upload aborted, a stranger's object, a chunk that
    metadata does not know: each is a violation."""
    workload = Workload(server, 2, SEED, LARGEST)
    workload.make_bucket()
    client, wanted = workload.clients[0], ACKNOWLEDGED
    while not client.uploads:                         # the check has forgotten those that are not open: they may have ended
        workload.start()                              # with the last request, so only a client that rests can be asked
        while workload.outcomes["acknowledged"] < wanted:
            time.sleep(0.01)
        workload.stop()
        assert checker.check(workload, everything=True) == []
        wanted = workload.outcomes["acknowledged"] + 10
    assert leftovers.check_listed(server) == []
    lost, again, other = [key for key, held in sorted(client.possible.items()) if None not in held ][:3]
    upload = client.uploads[0]
    with Talker(server) as talker:
        talker.ask("DELETE", f"/{BUCKET}/{lost}")
        _, body, _ = talker.ask("GET", f"/{BUCKET}/{again}")
        talker.ask("PUT", f"/{BUCKET}/{again}", body=body)                    # without the mark of who wrote it last
        talker.ask("PUT", f"/{BUCKET}/{other}", body=b"not what the client wrote")
        talker.ask("PUT", f"/{BUCKET}/{client.name}/stranger", body=b"nobody asked for it")
        talker.ask("DELETE", f"/{BUCKET}/{upload.key}", f"uploadId={upload.id}")
    found = "\n".join(checker.check(workload, everything=True))
    for name in (lost, again, other, f"{client.name}/stranger", f"upload {upload.id}"):
        assert name in found


def test_a_content_is_the_same_bytes_whole_and_in_parts() -> None:
    content = Content("seed", 200_000)
    whole = content.bytes()
    assert len(whole) == 200_000
    assert content.bytes(70_000, 100_000) == whole[70_000:170_000]
    assert content.bytes(199_000, 5_000) == whole[199_000:]
    assert whole[:1 << 16] != whole[1 << 16:1 << 17]
    assert Pool(1).contents == Pool(1).contents != Pool(2).contents


def test_the_reference_cuts_parts_as_they_lie_on_the_disk() -> None:
    """A part of a part refers to the chunks that it overlaps, of each content that it comes from."""
    first, second = Content("first", 25), Content("second", 10)
    both = joined([value_of(first, 10), value_of(second, 6)])
    assert both.bytes == first.bytes() + second.bytes()
    part = part_of(both, 22, 28)
    assert part.bytes == both.bytes[22:28]            # the last chunk of the first, and the first of the second
    reference = Reference(buckets={"b": Bucket()})
    reference.buckets["b"].put("key", part, "")
    assert sorted(reference.live_chunks().values()) == [5, 6]
