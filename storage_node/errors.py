"""Disk errors as the callers of a store see them, and the one error that only a store knows: a copy that isn't here."""

import errno

from consensus.core.errors import ClusterError, NoSpace, Unavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotHere(ClusterError):
    """This node has no such copy. Says nothing about other nodes."""


def from_os(error: OSError, doing: str) -> ClusterError:
    """NoSpace or Unavailable, saying what was being done."""
    kind = NoSpace if error.errno in _FULL else Unavailable
    return kind(f"{doing}: {error.strerror or error}")
