"""One run after the other: record through all gateways, disturb, let everything come back, look once more, judge.

Each run also judges itself: lies are told into its own history (`controls`), and a lie that passes fails the run.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.linear import checker, controls
from tests.linear.clients import BUCKET, CLIENTS, GROUPS, KEYS_A_GROUP, Client, Recorder
from tests.linear.disturbing import Disturbance
from tests.linear.history import WRITES, Kind, by_group, save
from tests.servers import NotReady
from tests.torture.report import Report
from tests.trio import Trio

LOOK_TIMEOUT_S = 30.0
READS = frozenset({Kind.GET, Kind.HEAD, Kind.LIST})


async def record(addresses: Sequence[tuple[str, int]], seconds: float, seed: int | str, *, clients: int = CLIENTS,
                 groups: int = GROUPS, bucket: str = BUCKET, disturbance: Disturbance | None = None) -> Recorder:
    """A history that ends with a look at every key through every gateway, all of them whole again."""
    recorder = Recorder(addresses, seed, clients=clients, groups=groups, bucket=bucket)
    await recorder.make_bucket()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run(seconds))
        if disturbance is not None:
            tasks.create_task(disturbance.run(seconds))
    await last_look(recorder)
    return recorder


async def last_look(recorder: Recorder) -> None:
    """Raises AssertionError when a gateway does not answer."""
    client = Client(recorder, 1000)
    deadline = time.monotonic() + LOOK_TIMEOUT_S
    for gateway in range(len(recorder.addresses)):
        for group in recorder.groups:
            for kind, key in [(Kind.LIST, group), *((Kind.GET, f"{group}/k{number}") for number in range(KEYS_A_GROUP))]:
                while not await client.once(kind, key, gateway):
                    assert time.monotonic() < deadline, f"gateway {gateway} does not answer {kind} {key}"
                    await asyncio.sleep(0.1)
    client.close()


def untold_lies(recorder: Recorder, seed: int | str) -> list[str]:
    """Names of lies that the checker believes. Only their group is judged: the others are as they were."""
    believed = []
    for name, control in controls.CONTROLS.items():
        spoilt = control(recorder.history, random.Random(f"{seed} {name}"))
        if spoilt is None:
            continue
        told = set(spoilt) - set(recorder.history)
        groups = by_group(spoilt)
        if not any(checker.check(groups[group]).violations for group in {key for op in told for key in by_group([op])}):
            believed.append(name)
    return believed


def judge(recorder: Recorder, report: Report, where: str, *, began: float, ended: float, keep: Path | None = None) -> None:
    """Says what was recorded and adds what is wrong."""
    checking = time.monotonic()
    verdict = checker.check(recorder.history)
    wrong = [*recorder.wrong, *map(str, verdict.violations)]
    wrong += [f"the checker believes a lie: {name}" for name in untold_lies(recorder, report.seed)]
    unknown = sum(op.end > ended + LOOK_TIMEOUT_S for op in recorder.history)
    silent_s = [recorder.longest_silence_s(began, ended, kinds) for kinds in (WRITES, READS)]
    report.say(
        f"{where}: {len(recorder.history)} operations, {unknown} unknown, answers {dict(sorted(recorder.counts.items()))}, "
        f"refused {sum(recorder.refusals.values())}; longest without a write {silent_s[0]:.2f} s, "
        f"without a read {silent_s[1]:.2f} s; judged in "
        f"{time.monotonic() - checking:.1f} s{f', {verdict.alone} groups key by key only' if verdict.alone else ''}: "
        f"{len(wrong)} violations")
    report.violations(where, wrong)
    if wrong and keep is not None:
        save(recorder.history, keep)
        report.say(f"     the history is kept in {keep}")


def runs(trio: Trio, report: Report, *, count: int, seconds: float, operations_min: int = 0, until_caught: bool = False,
         clients: int = CLIENTS, gateways: int = 3, **kinds: bool) -> int:
    """On machines that serve, through the first `gateways` of them; `kinds` are those of Disturbance. Returns how many
    operations there were in all."""
    total = 0
    for number in range(1, count + 1):
        disturbance = Disturbance(trio, f"{report.seed} {number}", **kinds)
        began = time.monotonic()
        try:
            recorder = asyncio.run(record(
                trio.addresses[:gateways], seconds, f"{report.seed}-{number}", bucket=f"linear-{number}",
                disturbance=disturbance, clients=clients))
        except (AssertionError, ExceptionGroup) as error:
            report.violations(f"run {number}", [f"{error!r}\n{trio.logs(15)}"])
            return total
        total += len(recorder.history)
        for line in disturbance.done:
            report.say(f"        {line}")
        report.violations(f"run {number}", disturbance.failed)
        judge(recorder, report, f"run {number}", began=began, ended=began + seconds,
              keep=trio.folder / f"history-{number}.jsonl")
        if len(recorder.history) < operations_min:
            report.violations(f"run {number}", [f"only {len(recorder.history)} operations, {operations_min} were wanted"])
        if report.wrong and until_caught:
            break
        try:
            trio.wait_ready()
        except NotReady as error:
            report.violations(f"after run {number}", [f"the machines do not come back: {error}"])
            break
    return total
