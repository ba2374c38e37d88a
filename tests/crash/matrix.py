"""Recordings and their checks together: the runs that tests and `make crash` share, and the table of steps."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tests.crash.check import check
from tests.crash.disk import CRASH, LOST, TORN
from tests.crash.faults import FAULTS
from tests.crash.record import Kinds, Recording, Taken, only, record
from tests.crash.script import second_life, short_life

SECOND_LIVES = (0.35, 0.6, 0.85)
"""Where in the first life the power goes, after which a second one is recorded."""

NEEDED = frozenset({
    "journal.write", "journal.ahead", "journal.fdatasync", "journal.segment.write", "journal.segment.fdatasync",
    "journal.segment.fsync_dir", "journal.trim.unlink", "journal.trim.fsync_dir", "metadata.commit",
    "metadata.checkpoint", "metadata.current.rename", "snapshot.vacuum", "snapshot.fsync", "snapshot.rename",
    "snapshot.descriptor.rename", "snapshot.trim", "snapshot.unlink", "store.incarnation.rename", "segment.header",
    "segment.header_fdatasync", "segment.fsync_dir", "segment.allocate", "segment.write", "segment.ahead", "segment.fdatasync",
    "segment.truncate", "segment.unlink", "open", "file.write", "file.table", "file.header", "file.fdatasync",
    "file.rename", "file.fsync_dir", "file.discard", "store.unlink", "index.commit", "index.synced", "index.checkpoint",
})
"""Steps that the first life must have: a script that misses one tests less than it says."""


class Violation(NamedTuple):
    taken: Taken
    sentences: list[str]

    def __str__(self) -> str:
        taken = self.taken
        head = f"{taken.kind} (seed {taken.seed}) at step {taken.number}, {taken.step} {taken.path}"
        told = f"after {taken.said.answers} answers, the last to \"{taken.said.last}\", asking {list(taken.said.asked)}"
        return "\n  ".join([f"{head}, {told}:", *self.sentences])


def violations(taken: Iterable[Taken]) -> Iterator[Violation]:
    """One after the other, in this process."""
    for image in taken:
        if wrong := check(image.image, image.said):
            yield Violation(image, wrong)


def violations_in_parallel(taken: list[Taken]) -> list[Violation]:
    """In as many processes as there are processors."""
    found = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        checks = {pool.submit(check, image.image, image.said): image for image in taken}
        for done in as_completed(checks):
            if wrong := done.result():
                found.append(Violation(checks[done], wrong))
    return sorted(found, key=lambda violation: violation.taken.number)


def caught(name: str) -> Violation | None:
    """The first violation under a fault, when everything that wasn't synced is lost."""
    recording = record(short_life, only(LOST), fault=FAULTS[name], least_answers=1)
    return next(violations(recording.taken), None)


def life_after(first: Recording, number: int, wanted: Kinds) -> tuple[Taken, Recording]:
    """A second life, recorded from what a fault has left of the first: one of several places in it."""
    share, kind = SECOND_LIVES[number % len(SECOND_LIVES)], (LOST, TORN, CRASH)[number % 3]
    fitting = [taken for taken in first.taken if taken.kind == kind]
    start = fitting[int(share * (len(fitting) - 1))]
    return start, record(second_life, wanted, start=start)


def table(recording: Recording) -> str:
    """Every step: its number, name, file, and what the client had been told by then."""
    lines = [f"{'step':>5}  {'name':<28} {'answers':>7}  {'last answer':<36} file"]
    repeated: Counter[str] = Counter()
    for number, (step, path, said) in enumerate(recording.steps):
        repeated[step] += 1
        if step in ("store.mkdir", "store.unlink_fsync_dir") and repeated[step] > 3:
            continue
        lines.append(f"{number:>5}  {step:<28} {said.answers:>7}  {said.last:<36} {path}")
    alike = [f"{repeated[step]} x {step}" for step in ("store.mkdir", "store.unlink_fsync_dir") if repeated[step] > 3]
    if alike:
        lines.append(f"       ({', '.join(alike)}: the first three of each are shown, and have images)")
    return "\n".join(lines)
