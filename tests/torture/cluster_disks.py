"""What becomes of disks of three machines: one is wiped, or copies rot on all of them.

wiped   a machine is killed, its disk emptied, and the machine started again, as after a disk was replaced. Every object is
        read through each gateway at once, whole and right, and again and again until all have three copies.
rotten  copies are damaged on all machines, of each object at most one. Every object reads right through each gateway; after
        a scrub that was asked for, every copy is whole again.
"""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import OperationalError

from tests.servers import NotReady
from tests.talker import NotSent, Talker, Unanswered
from tests.torture import admin, damage, leftovers
from tests.torture.contents import Content
from tests.torture.report import Report, scratch
from tests.trio import Machine, Trio

BUCKET = "disks"
SIZES = ((0.8, 1_000, 64_000), (0.18, 64_000, 1_000_000), (0.02, 1_000_000, 4_000_000))
WHOLE_PATIENCE_S = 300.0
HEALED_WITHIN_S = 60.0
COPIES = 3
POLL_S = 0.2


class Objects:
    """So many, written through all gateways in turn."""

    def __init__(self, trio: Trio, count: int, seed: int) -> None:
        choose = random.Random(f"objects {seed}")
        self._trio = trio
        self.contents = {}
        for number in range(count):
            _, low, high = choose.choices(SIZES, [share for share, _, _ in SIZES])[0]
            self.contents[f"o{number:05}"] = Content(f"{seed}/{number}", choose.randint(low, high))

    def put(self) -> list[str]:
        with Talker(self._trio.machines[0]) as talker:
            status, answer, _ = talker.ask("PUT", f"/{BUCKET}")
            assert status == 200, answer
        return self._spread(self._put, self._trio.machines)

    def read(self, machines: list[Machine]) -> list[str]:
        """Every object through one of these, in turn: what was not answered rightly."""
        return self._spread(self._get, machines)

    def _spread(self, work, machines: list[Machine]) -> list[str]:  # type: ignore[no-untyped-def]
        def some(number: int) -> list[str]:
            wrong = []
            with Talker(machines[number]) as talker:
                for key, content in list(self.contents.items())[number::len(machines)]:
                    try:
                        wrong += work(talker, key, content)
                    except (NotSent, Unanswered) as error:
                        wrong.append(f"{key} through {machines[number].name}: {error!r}")
            return wrong

        with ThreadPoolExecutor(len(machines)) as pool:
            return [sentence for found in pool.map(some, range(len(machines))) for sentence in found]

    @staticmethod
    def _put(talker: Talker, key: str, content: Content) -> list[str]:
        status, answer, _ = talker.ask("PUT", f"/{BUCKET}/{key}", body=content.bytes(), digest=content.sha256)
        return [] if status == 200 else [f"PUT {key}: {status} {answer[:200]!r}"]

    @staticmethod
    def _get(talker: Talker, key: str, content: Content) -> list[str]:
        status, answer, _ = talker.ask("GET", f"/{BUCKET}/{key}")
        if status != 200:
            return [f"GET {key}: {status} {answer[:200]!r}"]
        return [] if answer == content.bytes() else [f"GET {key}: WRONG BYTES"]


def lacking(trio: Trio) -> frozenset[bytes] | None:
    """Chunks of which there are fewer than three copies; None while a wiped disk has no files yet."""
    try:
        counts = leftovers.look(trio.machines[0], trio.machines[1:]).copies()
    except (OperationalError, FileNotFoundError):
        return None
    return frozenset(digest for digest, count in counts.items() if count < COPIES)


@contextmanager
def _filled(report: Report, count: int, parent: Path | None) -> Iterator[tuple[Trio, Objects]]:
    with scratch(report, parent) as folder, Trio(folder) as trio:
        try:
            trio.start()
            objects = Objects(trio, count, int(report.seed))
            began = time.monotonic()
            report.violations("writing", objects.put())
            written_s = time.monotonic() - began
            _await_whole(trio, time.monotonic() + WHOLE_PATIENCE_S)
            report.say(f"{count} objects, {sum(content.size for content in objects.contents.values()) >> 20} MiB, written in "
                       f"{written_s:.1f} s, three copies of each after {time.monotonic() - began:.1f} s")
            yield trio, objects
        except NotReady as error:
            report.violations("the machines", [f"do not come back: {error}"])


def _await_whole(trio: Trio, deadline: float) -> frozenset[bytes] | None:
    while (short := lacking(trio)) != frozenset() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return short


def wiped(count: int, seed: int, *, quiet: bool = False, parent: Path | None = None) -> Report:
    report = Report(f"a wiped disk, {count} objects", seed, quiet=quiet)
    with _filled(report, count, parent) as (trio, objects):
        victim = random.Random(f"wiped {seed}").choice(trio.machines)
        others = [machine for machine in trio.machines if machine is not victim]
        led = trio.leader() is victim
        victim.kill_all()
        victim.wipe()
        began = time.monotonic()
        victim.start(wait=False)
        wrong: list[str] = []
        reads = 0
        stopping = threading.Event()

        def read_on() -> None:
            nonlocal reads
            while not stopping.is_set():
                wrong.extend(objects.read(others))
                reads += len(objects.contents)

        reader = threading.Thread(target=read_on, daemon=True)
        reader.start()
        trio.wait_ready()
        ready_s = time.monotonic() - began
        left = _await_whole(trio, began + WHOLE_PATIENCE_S)
        whole_s = time.monotonic() - began
        stopping.set()
        reader.join(120)
        report.violations("while copies came back", wrong)
        if left != frozenset():
            report.violations("copies", [f"{left and len(left)} chunks lack some after {whole_s:.0f} s\n{trio.logs(15)}"])
        report.violations("through the machine itself", objects.read([victim]))
        report.violations("fsck", admin.fsck(trio.machines[0], thorough=True))
        report.say(f"{victim.name}{' (led)' if led else ''} wiped: ready {ready_s:.1f} s, all copies back {whole_s:.1f} s; "
                   f"{reads} reads through the others meanwhile, {len(wrong)} wrong or refused")
    return report


def rotten(count: int, seed: int, *, quiet: bool = False, parent: Path | None = None) -> Report:
    """At least `count` copies."""
    report = Report(f"rot on three machines, {count} copies", seed, quiet=quiet)
    with _filled(report, round(count * 1.2), parent) as (trio, objects):
        choose = random.Random(f"rot {seed}")
        done = sum(damage.rot(machine.data[0], -(-count // 3), choose, lambda digest, n=machine.number: digest[-1] % 3 == n)
                   for machine in trio.machines)
        for turn in range(3):
            machines = trio.machines[turn:] + trio.machines[:turn]
            report.violations(f"read through {machines[0].name} and so on", objects.read(machines))
        began = time.monotonic()
        found = admin.run(trio.machines[0], "scrub/run", full_speed=True)
        scrubbed_s = time.monotonic() - began
        wrong = [f"scrub of {node['node']}: {node['error']}" for node in found["nodes"] if node["error"]]
        while True:
            left = [finding for machine in trio.machines[:1] for finding in admin.fsck(machine, thorough=True)]
            short = lacking(trio)
            healed_s = time.monotonic() - began
            if not left and short == frozenset():
                break
            if healed_s > 2 * HEALED_WITHIN_S:
                wrong += [*left, f"{short and len(short)} chunks lack copies"]
                break
            time.sleep(POLL_S)
        if healed_s > HEALED_WITHIN_S:
            wrong.append(f"healed only after {healed_s:.1f} s")
        report.violations("healing", wrong)
        report.violations("read at the end", objects.read(trio.machines))
        report.say(f"{done} copies damaged; the scrub took {scrubbed_s:.1f} s and found "
                   f"{sum(node['damaged'] for node in found['nodes'])}; all whole {healed_s:.1f} s after it was begun")
    return report
