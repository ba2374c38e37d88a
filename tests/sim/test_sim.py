"""That the simulation is the same for the same seed, and catches broken products. `make test` runs forty seeds before these
tests, with the machine to itself; `make sim SEEDS=…` runs many, `make sim-controls` every control."""

import os
import re
import subprocess
import sys

import pytest

QUICK = ("metadata that was acknowledged is not on a disk", "copies that count are deleted", "blocks are not checked",
         "reads are stale", "a wiped member votes", "a rename leaves the old name")
"""Controls that take a few seeds at most."""


def run(*arguments: str, hash_seed: str = "random") -> str:
    """What it prints. In a process of its own: it takes the clock away, and what other tests have left behind in this one would
    be part of what the seed decides."""
    done = subprocess.run([sys.executable, "-m", "tests.sim", *arguments], capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": hash_seed})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_same_seed_is_the_same_run() -> None:
    hashes = [re.findall(r"hash (\w+)", run("--seed", seed, "--seconds", "8", hash_seed=hash_seed))
              for seed, hash_seed in (("3", "1"), ("3", "2"), ("4", "1"))]
    assert len(hashes[0]) == 1
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("control", QUICK)
def test_a_broken_product_is_caught(control: str) -> None:
    run("--control", control)
