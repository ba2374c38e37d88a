"""Files that commands write: whole or not there at all, and never over something else's."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gateway.cli.keys import CommandError

NAMES_OF_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))

NAME_SHOWN = 50
"""Characters of the target's name that its unfinished file bears: with all of them its name could become too long."""


def is_stream(target: Path) -> bool:
    """Whether it is written as it is: a device or a FIFO would be lost if a file took its name."""
    return target.exists() and not target.is_file()


@contextmanager
def written(target: Path, *, private: bool) -> Iterator[IO[bytes]]:
    """A file takes the target's name when all is written and on disk; after a failure the target is what it was. Meanwhile it
    has a name that nobody else can have taken, so that nothing else is overwritten, nor anything that a link of that name leads
    to. `private`: only its owner may read it; others get what their umask says. Raises OSError, CommandError."""
    if is_stream(target):
        with os.fdopen(os.open(target, os.O_WRONLY), "wb") as sink:     # neither made nor cut off, should it be a file by now
            yield sink
        return
    if target.parent in NAMES_OF_STREAMS:       # such as /dev/stdout with a file behind it: the link there is everybody's
        raise CommandError(f"{target} stands for a file that is open already: give that file's own name.", status=2)
    number, unfinished = tempfile.mkstemp(prefix=f".{target.name[:NAME_SHOWN]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as sink:
            yield sink
            if not private:
                os.fchmod(sink.fileno(), 0o666 & ~_umask())
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(unfinished, target)
    except BaseException:
        os.unlink(unfinished)
        raise


def _umask() -> int:
    """It can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found
