"""The files of one worker's records until they are delivered.

    FOLDER/open.<day>.<bucket>               records come here: the first line says where they go, in JSON
    FOLDER/<milliseconds>.<unique>.<bucket>  a batch that waits for its delivery; the name is kept for every attempt

Bytes are synced before anybody is told that they are kept; a line that a crash has cut is left out. Methods are called from a
thread, one at a time.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt
from consensus.disk import APPEND, Disk, make_folder
from gateway.s3.bucket_log import Logging, Source

BATCH_BYTES_MAX = 8 << 20
"""A batch that is as long is delivered at once; it is read whole then."""


_BATCH = re.compile(r"([0-9]{1,15})\.([0-9A-F]{16})\..+")


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a batch. `day` of its records, in days since 1970."""

    logging: Logging
    source: Source
    day: int


class _Open(NamedTuple):
    """A file that records are put to."""

    heading: Heading
    size: int


class Batch(NamedTuple):
    path: Path
    made_ms: int
    unique: str
    size: int


class Spool:
    """`waiting_bytes` are of all that is here, `waiting_of` those of each account whose buckets are logged."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder, self._disk = folder, disk or Disk()
        self._open: dict[tuple[str, int], _Open] = {}     # by bucket and day
        self.waiting_bytes = 0
        self.waiting_of: dict[str, int] = {}
        self.full = False
        """Whether a batch was closed because it was full, since all were closed."""

    def start(self, now_ms: int, inherited: Iterable[Path] = ()) -> None:
        """What a process before this one has left here waits for its delivery, and what is in the folders of workers that there
        are no more. Raises OSError."""
        make_folder(self._disk, str(self._folder.parent), "access_log.mkdir")
        make_folder(self._disk, str(self._folder), "access_log.mkdir")
        for folder in (self._folder, *inherited):
            for path in sorted(folder.iterdir()):
                if path.name.startswith("open."):
                    self._close(path, path.name.split(".", 2)[-1], now_ms)
                elif folder != self._folder:
                    self._disk.rename(str(path), str(self._folder / path.name), "access_log.rename")
            if folder != self._folder:
                self._disk.rmdir(str(folder), "access_log.rmdir")
        for batch in self.batches():
            try:
                self._count(self._heading(batch).source.account, batch.size)
            except Corrupt:
                self._count("", batch.size)          # whoever delivers it will say so

    def append(self, bucket: str, day: int, logging: Logging, source: Source, text: bytes, now_ms: int) -> None:
        """Records of one bucket and one day, whole lines. Raises OSError: none of them is kept then."""
        heading = Heading(logging=logging, source=source, day=day)
        known = self._open.get((bucket, day))
        if known is not None and (known.heading != heading or known.size + len(text) > BATCH_BYTES_MAX):
            self.close(bucket, day, now_ms)
            self.full = self.full or known.heading == heading
            known = None
        path = self._path(bucket, day)
        if known is None:
            text = msgspec.json.encode(heading) + b"\n" + text
        size = 0 if known is None else known.size
        fd = self._disk.open(str(path), APPEND)
        try:
            try:
                self._disk.write(fd, text, "access_log.write")
                self._disk.fdatasync(fd, "access_log.fdatasync")
            except OSError:
                self._disk.truncate(fd, size, "access_log.truncate")
                raise
        finally:
            self._disk.close(fd)
        if known is None:
            self._disk.fsync_dir(str(self._folder), "access_log.fsync_dir")
        self._open[bucket, day] = _Open(heading, size + len(text))
        self._count(source.account, len(text))

    def close(self, bucket: str, day: int, now_ms: int) -> None:
        """What has come so far is a batch. Raises OSError."""
        self._open.pop((bucket, day), None)
        self._close(self._path(bucket, day), bucket, now_ms)

    def close_all(self, now_ms: int) -> None:
        self.full = False
        for bucket, day in list(self._open):
            self.close(bucket, day, now_ms)

    def _close(self, path: Path, bucket: str, now_ms: int) -> None:
        if path.exists():
            made = self._folder / f"{now_ms}.{secrets.token_hex(8).upper()}.{bucket}"
            self._disk.rename(str(path), str(made), "access_log.rename")

    def batches(self) -> Iterator[Batch]:
        """Those that wait, the oldest first."""
        named = [(match, path) for path in self._folder.iterdir() if (match := _BATCH.fullmatch(path.name))]
        for match, path in sorted(named, key=lambda each: (int(each[0][1]), each[0][2])):
            yield Batch(path, int(match[1]), match[2], path.stat().st_size)

    def read(self, batch: Batch) -> tuple[Heading, bytes]:
        """Where it goes, and its whole lines. Raises Corrupt, OSError."""
        text = batch.path.read_bytes().partition(b"\n")[2]
        return self._heading(batch), text[:text.rfind(b"\n") + 1]

    def _heading(self, batch: Batch) -> Heading:
        """Raises Corrupt, OSError."""
        with batch.path.open("rb") as file:
            line = file.readline(BATCH_BYTES_MAX)
        try:
            return msgspec.json.decode(line, type=Heading)
        except UNDECODABLE as error:
            raise Corrupt(f"the batch of log records {batch.path} cannot be read: {error}") from error

    def remove(self, batch: Batch, account: str = "") -> None:
        """`account`: whose records they are; "" for a batch that cannot be read."""
        self._disk.unlink(str(batch.path), "access_log.unlink")
        self._count(account, -batch.size)

    def _count(self, account: str, more: int) -> None:
        self.waiting_of[account] = max(0, self.waiting_of.get(account, 0) + more)
        self.waiting_bytes = max(0, self.waiting_bytes + more)

    def _path(self, bucket: str, day: int) -> Path:
        return self._folder / f"open.{day}.{bucket}"
