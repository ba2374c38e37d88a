"""Every product that breaks a rule on purpose must be caught: by the torture that is about the rule, soon, for each seed."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.torture import damage, fsyncfail, kill, power
from tests.torture.report import Report

ROUNDS_MAX = 10
SEEDS = 5
CHUNKS = 100
LARGEST = 8 << 20
"""Of the objects: large ones show no rule that smaller ones don't, and take the time of a round."""


def _cut(form: str) -> Callable[[str, int, Path], Report]:
    def run(variant: str, seed: int, parent: Path) -> Report:
        return power.run(ROUNDS_MAX, seed, form=form, variant=variant, collect=False, quiet=True, until_caught=True,
                         parent=parent, largest=LARGEST)
    return run


def _failed(variant: str, seed: int, parent: Path) -> Report:
    return fsyncfail.run(ROUNDS_MAX, seed, variant=variant, collect=False, quiet=True, until_caught=True, parent=parent,
                         largest=LARGEST)


def _damaged(variant: str, seed: int, parent: Path) -> Report:
    return damage.run(CHUNKS, seed, variant=variant, quiet=True, until_caught=True, parent=parent)


def _killed(variant: str, seed: int, parent: Path) -> Report:
    return kill.run(ROUNDS_MAX, seed, variant=variant, collect=False, quiet=True, until_caught=True, parent=parent)


CONTROLS: tuple[tuple[str, str, Callable[[str, int, Path], Report]], ...] = (
    ("no fsync", "power cuts", _cut(power.LOST)),
    ("no fsync", "torn writes", _cut(power.TORN)),
    ("no folder fsync", "power cuts", _cut(power.LOST)),
    ("no folder fsync", "torn writes", _cut(power.TORN)),
    ("acknowledged before commit", "power cuts", _cut(power.LOST)),
    ("acknowledged before commit", "kill -9", _killed),
    ("swallowed fsync error", "failed syncs", _failed),
    ("merely fsync again", "failed syncs", _failed),
    ("no verification", "damage", _damaged),
)


def _is_mere_delay(sentence: str) -> bool:
    """A server that says why it does not start has noticed; one that is only slow has not."""
    return "not ready" in sentence and "could not start" not in sentence


def run(seed: int, seeds: int = SEEDS, parent: Path | None = None) -> Report:
    """What nobody noticed is what is wrong."""
    report = Report(f"broken variants, {seeds} seeds each", seed)
    for variant, what, play in CONTROLS:
        rounds = []
        for number in range(seed, seed + seeds):
            with tempfile.TemporaryDirectory(prefix="torture-", dir=parent) as folder:    # a run that fails keeps its own
                played = play(variant, number, Path(folder))
            noticed = [sentence for sentence in played.wrong if not _is_mere_delay(sentence)]
            if noticed:
                rounds.append(noticed[0].partition(":")[0])
            else:
                report.violations(f"{variant!r}", [f"{what} with seed {number} do not notice it"])
        report.say(f"{variant!r} by {what}: caught {len(rounds)} of {seeds} times, in {', '.join(rounds)}")
    return report
