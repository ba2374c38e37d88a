"""Syncs that fail, once or for a while, on one kind of file under load; then a power cut.

After a failed sync the kernel takes the pages for clean: they can be read, a second sync succeeds, and the power cut
shows that they never reached the disk. A round: load; the syncs of one target fail; whoever they failed handles that (a
node gives the file up, the metadata member ends and is started again); the cut, either right after one of the first
acknowledgements that follow, or once the server works again and has gone on for a while.
"""

import time
from pathlib import Path

from tests.servers import NotReady
from tests.torture.contents import SIZES
from tests.torture.power import LOST, Rounds, play, told
from tests.torture.report import Report
from tests.torture.shim.log import Op, Rule, ShimLog

TARGETS = {
    "the journal": ("meta/journal/*", Op.SYNC),
    "segments": ("chunks/segments/*", Op.SYNC),
    "large chunks": ("chunks/incoming/*", Op.SYNC),
    "write-back of large chunks": ("chunks/incoming/*", Op.RANGE),
    "the metadata's log": ("meta/meta.*.sqlite-wal", Op.SYNC),
    "the metadata": ("meta/meta.*.sqlite", Op.SYNC),
    "the index's log": ("chunks/index.sqlite-wal", Op.SYNC),
    "the index": ("chunks/index.sqlite", Op.SYNC),
    "folders of large chunks": ("chunks/[0-9a-f][0-9a-f]", Op.SYNC),
    "the folder of segments": ("chunks/segments", Op.SYNC),
    "the journal's folder": ("meta/journal", Op.SYNC),
    "anything": ("*", Op.SYNC),
}
FAILURES = (1, 1, 2, 4)
EVERY = 2
"""The first fails, the next one succeeds: what a program that merely tries again is waiting for."""

LIMP_S = 0.03
"""Later syncs of the target take so long: else the next one could write the page of a short record again, with what the
failed one has lost."""

BEFORE_S = (0.0, 1.0)
HIT_TIMEOUT_S = 2.0
AT_ACKNOWLEDGEMENT = 0.6
ACKNOWLEDGEMENTS = (1, 4)
BACK_TIMEOUT_S = 20.0
AFTERWARDS_S = (0.0, 1.0)
FRESH_LARGE = 0.7
"""The share of large objects with new bytes: those of a duplicate are not needed, so losing them would not show."""

POLL_S = 0.001


class FailedSyncs(Rounds):
    lives = (("small files",), ("small files", "hurried collection"))
    """Else most targets would not be synced in a round."""

    _deck: tuple[str, ...] = ()
    _rules: list[int]
    """Of this round."""

    def round(self) -> str:
        workload, choose, log, cut = self.workload, self.choose, self.switch.log, self.switch.cut
        if not self._deck:
            self._deck = tuple(choose.sample(list(TARGETS), len(TARGETS)))
        target, *rest = self._deck
        self._deck = tuple(rest)
        self._rules = []
        before = workload.outcomes
        self.switch.wire(workload)
        workload.pool.FRESH_LARGE = FRESH_LARGE       # type: ignore[misc]
        workload.start()
        try:
            cut.came.wait(choose.uniform(*BEFORE_S))
            at_once = choose.random() < AT_ACKNOWLEDGEMENT
            if at_once:
                cut.arm(choose.randint(*ACKNOWLEDGEMENTS), lambda: self._hits(log) > 0)
            failures = choose.choice(FAILURES)
            self._fail(target, failures)
            if not self._await_hit(HIT_TIMEOUT_S):    # nobody syncs that now
                target += ", then anything"
                self._fail("anything", failures)
                self._await_hit(BACK_TIMEOUT_S)
            failed_at = time.monotonic()
            if at_once:
                cut.came.wait(BACK_TIMEOUT_S)
                how = "cut at once"
            else:
                how = f"written again after {self._await_back(failed_at):.2f} s"
                cut.came.wait(choose.uniform(*AFTERWARDS_S))
            hits = self._hits(log)
            disk = self.cut()
        finally:
            workload.stop()
        return f"{target}: {hits} syncs failed, {how}; {told(workload, before)}; {disk.failed_syncs} failed before the cut"

    def _fail(self, target: str, failures: int) -> None:
        pattern, ops = TARGETS[target]
        log = self.switch.log
        self._rules.append(log.add(Rule(pattern=pattern, ops=ops, count=failures, every=EVERY)))
        log.add(Rule(pattern=pattern, ops=ops, error=0, skip=1, count=None, delay_s=LIMP_S))

    def _hits(self, log: ShimLog) -> int:
        return sum(log.hits(number) for number in self._rules)

    def _await_hit(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not (hit := self._hits(self.switch.log)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return hit > 0

    def _await_back(self, failed_at: float) -> float:
        """Until a write that began after the failure was acknowledged: unaided. Raises NotReady."""
        while (at := self.workload.acknowledged_after(failed_at)) is None:
            if time.monotonic() - failed_at > BACK_TIMEOUT_S:
                raise NotReady(f"no write was acknowledged within {BACK_TIMEOUT_S} s:\n{self.server.log()}")
            time.sleep(POLL_S)
        return at - failed_at


def run(rounds: int, seed: int | str, *, form: str = LOST, variant: str = "", collect: bool = True, quiet: bool = False,
        parent: Path | None = None, largest: int = SIZES[-1][2], until_caught: bool = False) -> Report:
    title = f"failed syncs, {rounds} rounds" + (f", with the variant {variant!r}" if variant else "")
    return play(FailedSyncs, title, rounds, seed, form=form, variant=variant, collect=collect, quiet=quiet, parent=parent,
                largest=largest, until_caught=until_caught)
