"""Running a script once and keeping an image of each of its steps."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.crash.check import SHM
from tests.crash.disk import CHECKPOINT, CRASH, LOST, TORN, Image, RecordingDisk
from tests.crash.faults import NO_FAULT, Fault
from tests.crash.roles import Roles
from tests.crash.script import Script
from tests.crash.told import Snapshot, Told

ALIKE = ("store.mkdir", "store.unlink_fsync_dir")
ALIKE_KEPT = 3
"""A first start makes 258 folders one after the other, and the stop of that life syncs 256: of these steps the first few
have images."""

Kinds = Callable[[int, str], list[tuple[str, int]]]
"""Which images are wanted of a step, by its number and name: (kind, seed)."""


class Taken(NamedTuple):
    """An image of a step, and what the client had been told before it was taken."""

    number: int
    step: str
    path: str
    kind: str
    seed: int
    image: Image
    said: Snapshot


class Recording(NamedTuple):
    steps: list[tuple[str, str, Snapshot]]
    """Name, file, what had been told."""
    taken: list[Taken]


def record(script: Script, wanted: Kinds, *, start: Taken | None = None, fault: Fault = NO_FAULT,
           least_answers: int = 0) -> Recording:
    """On an empty folder, or on what a fault has left. Ends with an orderly stop. Images are taken from some number of
    answers on."""
    with _folder() as folder:
        if start is None:
            (folder / "meta").mkdir()
        else:
            start.image.lay_out(folder)
            (folder / "meta").mkdir(exist_ok=True)
        disk = RecordingDisk(folder, fault)
        said = Told(start.said if start is not None else None)
        result = Recording([], [])

        def taken(number: int, step: str, path: str) -> None:
            snapshot = said.snapshot()                # before the image: what is answered meanwhile isn't owed yet
            result.steps.append((step, path, snapshot))
            if step in ALIKE and disk.steps.count(step) > ALIKE_KEPT:
                return
            for kind, seed in wanted(number, step) if snapshot.answers >= least_answers else ():
                if kind != CHECKPOINT:
                    image = disk.crash() if kind == CRASH else disk.power(None if kind == LOST else seed)
                    result.taken.append(Taken(number, step, path, kind, seed, image, snapshot))

        def mid_checkpoint(number: int, image: Image) -> None:
            step, path, snapshot = result.steps[number]
            if any(kind == CHECKPOINT for kind, _ in wanted(number, step)):
                result.taken.append(Taken(number, step, path, CHECKPOINT, number, image, snapshot))

        disk.taken, disk.mid_checkpoint = taken, mid_checkpoint
        asyncio.run(_live(folder, disk, script, said))
        for kind, image in ((CRASH, disk.crash()), (LOST, disk.power()), (TORN, disk.power(0))):
            result.taken.append(Taken(len(disk.steps), "after the stop", "", kind, 0, image, said.snapshot()))
        return result


async def _live(folder: Path, disk: RecordingDisk, script: Script, said: Told) -> None:
    async with Roles(folder, disk) as roles:
        await script(roles, said)
    assert not roles.failures, roles.failures


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=SHM) as folder:
        yield Path(folder)


def everything(number: int, step: str) -> list[tuple[str, int]]:
    return [(CRASH, 0), (LOST, 0), (TORN, 2 * number), (TORN, 2 * number + 1), (CHECKPOINT, 0)]


def one_each(seed: int) -> Kinds:
    """One kind of fault for each step, another with each seed."""
    def wanted(number: int, step: str) -> list[tuple[str, int]]:
        kind = (CRASH, LOST, TORN)[(number + seed) % 3]
        return [(kind, seed * 1000 + number), (CHECKPOINT, 0)]

    return wanted


def a_third(seed: int) -> Kinds:
    """One kind of fault at a third of the steps. Every step has its turn, with each kind, within nine seeds."""
    def wanted(number: int, step: str) -> list[tuple[str, int]]:
        if number % 3 != seed % 3:
            return []
        return [((CRASH, LOST, TORN)[(number // 3 + seed // 3) % 3], seed * 1000 + number), (CHECKPOINT, 0)]

    return wanted


def only(kind: str) -> Kinds:
    return lambda number, step: [(kind, number)]
