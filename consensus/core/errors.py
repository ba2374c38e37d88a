"""The world's faults, as every layer above may see them. A client's mistake is never one of these."""


class ClusterError(Exception):
    """Something outside this process did not do what was needed. Says what was being done to what."""


class Unavailable(ClusterError):
    """Not done and will not happen by itself: nobody took it. Safe to try again."""


class Busy(Unavailable):
    """Not done, because too much is waiting already: come back, and more slowly."""


class ReadOnly(Unavailable):
    """Not done, because a disk takes no writes: it may be a while until it does."""


class NotYet(Unavailable):
    """Not done, because some machine of the cluster runs an older release that could not follow: try again after the upgrade."""


class UnknownOutcome(ClusterError):
    """It may have happened or may still happen. Never to be reported as done nor as not done (promise 6)."""


class Corrupt(ClusterError):
    """Stored bytes are not what was stored. Never turned into "not found"."""


class NoSpace(ClusterError):
    """The disk is full or its quota is used up."""


class Refused(ClusterError):
    """The other side does not know us or speaks another version: a set-up fault, trying again does not help."""
