"""`python -m tests.bench.against FOLDER`: what a PUT and a GET of 4 KiB cost here, against another tree of Staddle.

FOLDER is a checkout of another version (`git worktree add FOLDER COMMIT`). Both servers run at once, and rounds take turns,
so a busy minute hits both. The buckets have no versions, policies or other features: what comes new must not cost them.
"""

import sys
from pathlib import Path

from tests.bench import gets, puts, running
from tests.bench.load import Load
from tests.bench.report import Report, median, spread
from tests.servers import StaddleProcess

REQUESTS_A_ROUND = 8000
ROUNDS = 9
MORE_WANTED = 1.05
TREES = ("here", "there")


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "gateway").is_dir():
        sys.exit("give the folder of another checkout of Staddle")
    report = Report("Small PUTs and GETs, here and there", f"4 KiB, {gets.CONCURRENCY} at a time, there = {sys.argv[1]}")
    trees = dict(zip(TREES, (str(Path(__file__).parents[2]), str(Path(sys.argv[1]).resolve())), strict=True))
    spent: dict[str, dict[str, list[float]]] = {what: {tree: [] for tree in TREES} for what in ("PUT", "GET")}
    with (running.folder() as where,
          running.server(where / "here", variables={"PYTHONPATH": trees["here"]}) as here,
          running.server(where / "there", variables={"PYTHONPATH": trees["there"]}) as there):
        both = {"here": here, "there": there}
        for server in both.values():
            put(server, "k", gets.OBJECTS)
            get(server, 2000)
        for number in range(ROUNDS):
            for tree in TREES if number % 2 else TREES[::-1]:
                spent["PUT"][tree].append(put(both[tree], f"r{number}", REQUESTS_A_ROUND))
                spent["GET"][tree].append(get(both[tree], REQUESTS_A_ROUND))
    report.table(["server CPU, µs", *TREES], [[what, *[spread(spent[what][tree]) for tree in TREES]] for what in spent])
    for what, of in spent.items():
        report.target(f"CPU of a {what}, here to there",
                      median([ours / theirs for ours, theirs in zip(of["here"], of["there"], strict=True)]),
                      at_most=MORE_WANTED)


def put(server: StaddleProcess, name: str, count: int) -> float:
    """Microseconds of server CPU for each of so many PUTs of new objects."""
    with Load(server.address, gets.CONCURRENCY) as load:
        return puts.run(server, load, count, name)[1]["all"]


def get(server: StaddleProcess, count: int) -> float:
    """The same for GETs of random objects."""
    with Load(server.address, gets.CONCURRENCY) as load:
        return gets.get(server, load, count)[1]["all"]


if __name__ == "__main__":
    main()
