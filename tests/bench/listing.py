"""A page of a listing costs what it shows, not what its bucket holds: the same pages in a large and a small bucket.

Both have 1,000 folders; the large one's are a hundred times as full. Pages of both take turns. STADDLE_BENCH_KEYS makes
the large bucket smaller.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

from consensus import queries
from tests.bench import costs, running
from tests.bench.filling import fill, metadata
from tests.bench.load import Load
from tests.bench.report import Report, median, spread
from tests.servers import StaddleProcess

FOLDERS = 1000
KEYS = {"large": int(os.environ.get("STADDLE_BENCH_KEYS", "1000000")), "small": 10_000}
PAGES_A_ROUND = 150
ROUNDS = 5
RATIO_WANTED = 2.0


def main() -> None:
    report = Report("Listings", f"pages of 1,000 in buckets of {KEYS['large']:,} and {KEYS['small']:,} keys")
    with running.folder() as where, running.server(where) as server:
        for name, keys in KEYS.items():
            running.make_bucket(server, name)
            began = time.perf_counter()
            asyncio.run(filled(server, name, keys))
            report.say(f"filled {name}: {keys:,} keys in {time.perf_counter() - began:.0f} s")
        for kind in ("keys anywhere", "1,000 prefixes"):
            spent: dict[str, list[dict[str, float]]] = {name: [] for name in KEYS}
            waits: dict[str, list[float]] = {name: [] for name in KEYS}
            with Load(server.address, 1) as load:
                for number in range(ROUNDS + 1):
                    for name in KEYS:
                        requests = list(pages(server, name, kind, number))
                        before = costs.cpu_s(server)
                        outcome = load.run(requests, on_answer=whole_page(kind)).all_succeeded()
                        if number:                       # the first round warms the caches
                            spent[name].append(costs.each(before, costs.cpu_s(server), len(requests)))
                            waits[name].append(outcome.wait_ms(0.5))
            report.table([kind, *KEYS], [
                ["server CPU a page, ms", *[spread([each["all"] / 1000 for each in spent[name]]) for name in KEYS]],
                ["wait p50, ms", *[spread(waits[name]) for name in KEYS]]])
            report.target(f"{kind}: CPU in the large bucket against the small, ratio", median(
                [large["all"] / small["all"] for large, small in zip(spent["large"], spent["small"], strict=True)]),
                at_most=RATIO_WANTED)


async def filled(server: StaddleProcess, name: str, keys: int) -> None:
    async with metadata(server) as client:
        bucket = await client.read(queries.bucket, name)
        assert bucket is not None
        await fill(client, bucket.id, bucket.owner, (
            f"folder{number % FOLDERS:04}/object{number // FOLDERS:06}" for number in range(keys)))


def pages(server: StaddleProcess, name: str, kind: str, seed: int) -> Iterator[bytes]:
    signer, choose = running.signer(server), random.Random(seed)
    last = KEYS[name] - 1001                     # a page that starts before this key, in listing order, is a full one
    for _ in range(PAGES_A_ROUND):
        if kind == "1,000 prefixes":
            yield signer.request("GET", f"/{name}", query="delimiter=%2F&list-type=2&max-keys=1000")
        else:
            each = KEYS[name] // FOLDERS
            folder, number = divmod(choose.randrange(last), each)
            after = quote(f"folder{folder:04}/object{number:06}", safe="")
            yield signer.request("GET", f"/{name}", query=f"list-type=2&max-keys=1000&start-after={after}")


def whole_page(kind: str) -> Callable[[int, bytes], None]:
    """A check that each answer really is a page of 1,000."""
    wanted = b"<CommonPrefixes>" if kind == "1,000 prefixes" else b"<Contents>"

    def check(status: int, answer: bytes) -> None:
        assert answer.count(wanted) == 1000, answer[:2000]

    return check
