"""Objects by the hundred thousand, sent through the metadata of a running server as a gateway sends them, but empty: no
body, so no chunk. A million of them take minutes, where a million PUTs would take an hour.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable

from consensus.client import MetadataClient
from consensus.core.commands import NewContent, PutVersion
from consensus.core.ids import BucketId, VersionId
from consensus.core.model import Attributes
from consensus.core.results import Committed
from gateway.folders import Folders
from tests.servers import StaddleProcess

EMPTY_MD5 = hashlib.md5(b"").hexdigest()
AT_ONCE = 1000


@contextlib.asynccontextmanager
async def metadata(server: StaddleProcess) -> AsyncIterator[MetadataClient]:
    """A client of the server's metadata, with the cluster's secret from its data folder."""
    folders = Folders(server.data[0])
    secret = bytes.fromhex((folders.root / "secret").read_text().strip())
    client = MetadataClient(folders.meta_address, secret, str(folders.meta), owner="bench")
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def fill(client: MetadataClient, bucket: BucketId, owner: str, keys: Iterable[str]) -> int:
    """Put an empty object under each key; how many. Raises AssertionError when one is refused."""
    source = iter(keys)
    count = 0
    content = NewContent(size=0, etag=EMPTY_MD5)

    async def worker() -> None:
        nonlocal count
        for key in source:
            result = await client.commit(PutVersion(
                bucket=bucket, key=key, version_id=VersionId("null"), attributes=Attributes(), owner=owner,
                content=content))
            assert isinstance(result, Committed), result
            count += 1

    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(worker())
    return count
