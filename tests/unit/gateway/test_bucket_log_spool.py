"""The files that keep records of logged buckets until they are delivered."""

from pathlib import Path

import pytest

from consensus.disk import Buffer, Disk
from gateway.bucket_log import spool
from gateway.bucket_log.spool import Spool
from gateway.s3.bucket_log import Logging, Source

TO = Logging(bucket="logs", prefix="p/", partitioned="EventTime", shown=True)
ELSEWHERE = Logging(bucket="other-logs", prefix="")
SOURCE = Source("a.bucket", "111111111111", "us-east-1")


def started(folder: Path, *inherited: Path, disk: Disk | None = None) -> Spool:
    made = Spool(folder, disk)
    made.start(1000, inherited)
    return made


def append(to: Spool, text: bytes, logging: Logging = TO, day: int = 1, source: Source = SOURCE) -> None:
    to.append(source.bucket, day, logging, source, text, 2000)


def waiting(of: Spool) -> list[tuple[str, int, bytes]]:
    """Target bucket, day, records: of each batch."""
    found = [of.read(batch) for batch in of.batches()]
    return sorted((heading.logging.bucket, heading.day, text) for heading, text in found)


def test_records_of_one_bucket_and_day_are_one_batch(tmp_path: Path) -> None:
    kept = started(tmp_path / "logs" / "w")
    append(kept, b"one\n")
    append(kept, b"two\n")
    append(kept, b"three\n", day=2)
    assert waiting(kept) == []
    kept.close_all(3000)
    assert waiting(kept) == [("logs", 1, b"one\ntwo\n"), ("logs", 2, b"three\n")]
    (batch, _) = kept.batches()
    heading, _ = kept.read(batch)
    assert (heading.logging, heading.source) == (TO, SOURCE)
    for each in list(kept.batches()):
        kept.remove(each)
    assert kept.waiting_bytes == 0


def test_what_another_process_left_is_delivered_without_a_line_that_was_cut(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "w"
    append(started(folder), b"one\ntwo\n")
    (path,) = folder.iterdir()
    with path.open("ab") as file:
        file.write(b"cut in the mid")
    again = started(folder)
    append(again, b"three\n")
    again.close_all(3000)
    assert waiting(again) == [("logs", 1, b"one\ntwo\n"), ("logs", 1, b"three\n")]
    assert again.waiting_bytes == sum(batch.size for batch in again.batches())


def test_a_worker_that_is_no_more_leaves_its_records_to_another(tmp_path: Path) -> None:
    gone = started(tmp_path / "logs" / "w2")
    append(gone, b"one\n")
    gone.close_all(3000)
    append(gone, b"two\n")
    heir = started(tmp_path / "logs" / "w1", tmp_path / "logs" / "w2")
    assert waiting(heir) == [("logs", 1, b"one\n"), ("logs", 1, b"two\n")]
    assert not (tmp_path / "logs" / "w2").exists()


def test_another_target_begins_another_batch(tmp_path: Path) -> None:
    kept = started(tmp_path / "logs" / "w")
    append(kept, b"one\n")
    append(kept, b"two\n", ELSEWHERE)
    assert not kept.full
    kept.close_all(3000)
    assert waiting(kept) == [("logs", 1, b"one\n"), ("other-logs", 1, b"two\n")]


def test_another_owner_of_the_name_begins_another_batch(tmp_path: Path) -> None:
    kept = started(tmp_path / "logs" / "w")
    append(kept, b"one\n")
    append(kept, b"two\n", source=SOURCE._replace(account="222222222222"))
    kept.close_all(3000)
    found = [kept.read(batch) for batch in kept.batches()]
    assert {(heading.source.account, text) for heading, text in found} == {
        ("111111111111", b"one\n"), ("222222222222", b"two\n")}


def test_what_waits_is_counted_for_each_account(tmp_path: Path) -> None:
    kept = started(tmp_path / "logs" / "w")
    append(kept, b"one\n" * 10)
    append(kept, b"two\n" * 10, source=Source("b", "222222222222", ""))
    kept.close_all(3000)
    again = started(tmp_path / "logs" / "w")
    assert again.waiting_of == kept.waiting_of
    assert sum(again.waiting_of.values()) == again.waiting_bytes == sum(batch.size for batch in again.batches())
    for batch in list(again.batches()):
        again.remove(batch, again.read(batch)[0].source.account)
    assert set(again.waiting_of.values()) == {0}


def test_a_batch_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BATCH_BYTES_MAX", 300)
    kept = started(tmp_path / "logs" / "w")
    append(kept, b"x" * 199 + b"\n")
    append(kept, b"y" * 199 + b"\n")
    assert kept.full
    assert len(waiting(kept)) == 1
    kept.close_all(3000)
    assert (len(waiting(kept)), kept.full) == (2, False)


class FullDisk(Disk):
    """Takes some bytes of a write, and has no room for the rest."""

    room = 10_000

    def write(self, fd: int, data: Buffer, step: str) -> None:
        super().write(fd, bytes(data)[:self.room], step)
        if len(data) > self.room:
            raise OSError(28, "No space left on device")


def test_records_that_do_not_fit_leave_nothing_behind(tmp_path: Path) -> None:
    disk = FullDisk()
    kept = started(tmp_path / "logs" / "w", disk=disk)
    append(kept, b"one\n")
    disk.room = 2
    with pytest.raises(OSError, match="No space"):
        append(kept, b"two\n")
    with pytest.raises(OSError, match="No space"):
        append(kept, b"two\n", day=2)
    disk.room = 10_000
    append(kept, b"three\n")
    append(kept, b"four\n", day=2)
    kept.close_all(3000)
    assert waiting(kept) == [("logs", 1, b"one\nthree\n"), ("logs", 2, b"four\n")]
