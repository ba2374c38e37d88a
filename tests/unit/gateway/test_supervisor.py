"""When a process that has ended is started again."""

from pathlib import Path

import anyio
import pytest

from gateway import supervisor as supervisors
from gateway.config import Config
from gateway.folders import Folders
from gateway.launch import EX_CONFIG, EX_RESTART, Launch, launches
from gateway.supervisor import RESTART_DELAY_S_MIN, RESTARTS_AT_ONCE_MAX, SetupError, Supervisor
from tests.unit.gateway.cluster.test_door import ROOT


def kept(monkeypatch: pytest.MonkeyPatch, ends: list[int]) -> tuple[list[float], list[bool]]:
    """A member that ends with these statuses, the last one for good: the pauses before its starts, and whether it was told
    that it has been ready before."""
    pauses: list[float] = []
    told: list[bool] = []
    left = iter(ends)

    async def run_once(self: Supervisor, launch: Launch) -> tuple[int, float]:
        told.append(launch.restarted)
        return next(left), 0.5

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Supervisor, "_run_once", run_once)
    monkeypatch.setattr(supervisors.anyio, "sleep", sleep)
    launch = launches(Config(), Folders(Path("/nowhere")), b"s" * 32, ROOT, "127.0.0.1", 0)[0]

    async def announce() -> None:
        pass

    async def main() -> None:
        await Supervisor([launch], shutdown_s=1.0).run(announce)

    with pytest.raises(SetupError):
        anyio.run(main)
    return pauses, told


def test_a_process_that_asks_for_it_begins_anew_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, told = kept(monkeypatch, [EX_RESTART, EX_RESTART, EX_CONFIG])
    assert pauses == []
    assert told == [False, True, True]


def test_one_that_asks_again_and_again_waits_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, _ = kept(monkeypatch, [*[EX_RESTART] * (RESTARTS_AT_ONCE_MAX + 1), 1, EX_CONFIG])
    assert pauses == [RESTART_DELAY_S_MIN, RESTART_DELAY_S_MIN * 2]
