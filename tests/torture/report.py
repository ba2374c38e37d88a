"""How runs are told: one line for each round as it ends, a summary, and the folder that a failed run leaves behind."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHOWN_MAX = 8
LINE_MAX = 400


class Report:
    """Of one run. `wrong` collects every violation; the run has failed if there is one."""

    def __init__(self, title: str, seed: int | str, *, quiet: bool = False) -> None:
        self.title, self.seed, self._quiet = title, seed, quiet
        self.wrong: list[str] = []
        self._began = time.monotonic()
        self.say(f"{title}, seed {seed}")

    def say(self, line: str) -> None:
        if not self._quiet:
            print(line if len(line) <= LINE_MAX else line[:LINE_MAX] + " …", flush=True)

    def violations(self, where: str, sentences: list[str]) -> None:
        self.wrong += [f"{where}: {sentence}" for sentence in sentences]
        for sentence in sentences[:SHOWN_MAX]:
            self.say(f"    VIOLATION {sentence}")
        if len(sentences) > SHOWN_MAX:
            self.say(f"    and {len(sentences) - SHOWN_MAX} more")

    def end(self, summary: str) -> int:
        """The process's exit status."""
        verdict = f"FAILED: {len(self.wrong)} violations" if self.wrong else "0 violations"
        self.say(f"{self.title}, seed {self.seed}: {summary}; {verdict}, {time.monotonic() - self._began:.0f} s")
        return int(bool(self.wrong))


@contextmanager
def scratch(report: Report, parent: Path | None = None, *, keep: bool = True) -> Iterator[Path]:
    """A folder for the run. With `keep` it stays, and is named, when the run has failed."""
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=parent))
    failed = True
    try:
        yield folder
        failed = bool(report.wrong)
    finally:
        if failed and keep:
            report.say(f"data and logs are kept in {folder}")
        else:
            shutil.rmtree(folder)
