"""What gateways keep of lifecycles: as new as the bucket, and bounded."""

import asyncio

import msgspec
import pytest

from consensus.core.ids import BucketId
from consensus.core.model import Bucket
from gateway.lifecycle import book as books
from gateway.lifecycle.book import LifecycleBook
from gateway.s3.lifecycle.rules import Expiration, Filter, Lifecycle, Rule


class Metadata:
    """Each bucket has `rules` rules."""

    def __init__(self, rules: int) -> None:
        self.asked = 0
        self._document = msgspec.msgpack.encode(Lifecycle(rules=tuple(
            Rule(id=str(number), enabled=True, filter=Filter(), expiration=Expiration(days=1)) for number in range(rules))))

    async def bucket_setting(self, bucket: BucketId, name: str) -> bytes:
        self.asked += 1
        return self._document


def bucket(number: int, lifecycle: int = 1) -> Bucket:
    return Bucket(id=BucketId(number), name=f"b{number}", account="a", owner="o", region="", created_ms=0, lifecycle=lifecycle)


async def ask(book: LifecycleBook, metadata: Metadata, *buckets: Bucket) -> None:
    for each in buckets:
        await book.of(metadata, each)                                   # type: ignore[arg-type]  # a stand-in


def test_it_is_read_once_for_each_change() -> None:
    book, metadata = LifecycleBook(), Metadata(1)
    asyncio.run(ask(book, metadata, bucket(1, 0), bucket(1), bucket(1), bucket(1, 2), bucket(1, 2)))
    assert metadata.asked == 2


def test_what_is_kept_is_bounded_by_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "RULES_MAX", 100)
    book, metadata = LifecycleBook(), Metadata(30)
    asyncio.run(ask(book, metadata, *(bucket(number) for number in range(3)), *(bucket(number) for number in range(3))))
    assert metadata.asked == 3, "they fit"
    asyncio.run(ask(book, metadata, bucket(3), bucket(0), bucket(3), bucket(0)))
    assert metadata.asked == 5, "one more, and all others are forgotten"
