"""Disk errors as the callers of a store see them, and the one error that only a store knows: a copy that isn't here."""

import errno

from consensus.core.errors import Busy, ClusterError, Corrupt, NoSpace, Unavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotHere(ClusterError):
    """This node has no such copy. Says nothing about other nodes."""


def from_os(error: OSError, doing: str) -> ClusterError:
    """NoSpace or Unavailable, saying what was being done."""
    kind = NoSpace if error.errno in _FULL else Unavailable
    return kind(f"{doing}: {error.strerror or error}")


def combined(failures: list[ClusterError]) -> ClusterError:
    """What several failures are together: a full disk or damage only if it explains all of them."""
    assert failures
    text = "; ".join(dict.fromkeys(str(failure) for failure in failures))
    if all(isinstance(failure, NoSpace) for failure in failures):
        return NoSpace(text)
    if all(isinstance(failure, Busy) for failure in failures):
        return Busy(text)
    if any(isinstance(failure, Corrupt) for failure in failures) and not any(
            isinstance(failure, Unavailable) for failure in failures):
        return Corrupt(text)
    return Unavailable(text)
