"""Bytes that need no memory: a content is a seed and a size, and its bytes can be made again, whole or in part.

Each block of 64 KiB is different, so a block in the wrong place, or of another content, never looks right.
"""

import functools
import hashlib
import math
import random
from typing import NamedTuple

BLOCK = 1 << 16
KIB, MIB = 1 << 10, 1 << 20

SIZES = ((0.88, 1_000, 256 * KIB), (0.10, 256 * KIB, 8 * MIB), (0.02, 8 * MIB, 64 * MIB))
"""Share, from, to: log-uniform within each. Small ones go into segments, others into files of their own."""

DIGESTS_KEPT = 4096


class Content(NamedTuple):
    seed: str
    size: int

    def bytes(self, start: int = 0, length: int | None = None) -> bytes:
        end = self.size if length is None else min(self.size, start + length)
        first = start // BLOCK
        made = b"".join(
            [random.Random(f"{self.seed}/{number}").randbytes(BLOCK) for number in range(first, -(-end // BLOCK))])
        return made[start - first * BLOCK:end - first * BLOCK]

    @property
    def sha256(self) -> str:
        return _digests(self)[0]

    @property
    def md5(self) -> str:
        return _digests(self)[1]


@functools.lru_cache(DIGESTS_KEPT)
def _digests(content: Content) -> tuple[str, str]:
    data = content.bytes()
    return hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()


def random_size(choose: random.Random, largest: int = SIZES[-1][2]) -> int:
    _, low, high = choose.choices(SIZES, [share for share, _, _ in SIZES])[0]
    high = min(high, largest)
    low = min(low, high)
    return round(math.exp(choose.uniform(math.log(low), math.log(high))))


class Pool:
    """Contents that are written again and again, so that most writes of large ones are duplicates."""

    FRESH = 0.5
    FRESH_LARGE = 0.1
    LARGE = 1 * MIB

    def __init__(self, seed: int | str, count: int = 60, largest: int = SIZES[-1][2]) -> None:
        choose = random.Random(f"pool {seed}")
        self._largest = largest
        self.contents = [Content(f"{seed}/pool/{number}", random_size(choose, largest)) for number in range(count)]
        self._large = [content for content in self.contents if content.size >= self.LARGE] or self.contents
        self._small = [content for content in self.contents if content.size < self.LARGE] or self.contents

    def choose(self, choose: random.Random, name: str) -> Content:
        """One of the pool, or a new one called `name`."""
        size = random_size(choose, self._largest)
        large = size >= self.LARGE
        if choose.random() < (self.FRESH_LARGE if large else self.FRESH):
            return Content(name, size)
        return choose.choice(self._large if large else self._small)
