"""How a metadata member's process ends by itself: what its supervisor reads out of the exit status."""

import logging
import os

log = logging.getLogger("staddle.meta")

EXIT_FAILED = 70
"""Exit status of a member that stopped itself (EX_SOFTWARE)."""

EXIT_RESTART = 75
"""Exit status of a member that has put another state in its folder, and wants to be started again at once."""


def exit_process(error: BaseException) -> None:
    """The default of `on_failure`: end at once, without another write, flush or answer."""
    log.critical("the metadata member stops: %s", error, exc_info=error)
    os._exit(EXIT_FAILED)


def exit_for_restart() -> None:
    """The default of `on_restart`."""
    log.info("the metadata member begins anew, on a state that it has fetched")
    os._exit(EXIT_RESTART)
