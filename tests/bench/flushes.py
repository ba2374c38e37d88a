"""The same as `puts`, on disks whose flush takes longer and longer. Needs root, a C compiler and libfuse 3 with its headers.

Where a flush costs next to nothing (a disk with a capacitor, or one that only says it has flushed) both ways to keep small
objects are bound by the processor. Where it costs what it costs most disks, what counts is how many of them a PUT needs.
"""

from pathlib import Path

from tests.bench import puts, running
from tests.bench.report import Report
from tests.faults.mounts import Refused, SlowFlush

FLUSH_MS = (1.0, 2.0, 4.0, 8.0)
PUTS_A_ROUND = 8000


def main() -> None:
    for flush_ms in FLUSH_MS:
        report = Report(f"Small durable PUTs, a flush takes {flush_ms:g} ms", f"{puts.CONCURRENCY} at a time")
        with running.folder() as where:
            try:
                disk = SlowFlush(where / "disk", flush_ms)
            except Refused as error:
                report.say(f"not possible here: {error}")
                return
            with disk:
                folder = Path(disk.path / "bench")
                folder.mkdir()
                puts.measure(report, folder, PUTS_A_ROUND)


if __name__ == "__main__":
    main()
