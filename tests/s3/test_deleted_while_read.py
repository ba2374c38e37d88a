"""A GET that has begun gets its bytes to the end, though the object is deleted and its contents taken apart meanwhile."""

import random
from pathlib import Path

import pytest

from gateway.ops.context import Settings
from tests.s3.conftest import MAIN, client
from tests.s3.in_process import InProcess

MIB = 1 << 20


@pytest.mark.parametrize(("chunk_bytes", "chunks"), [(MIB // 16, 384), (8 * MIB, 5)])
def test_the_rest_comes(tmp_path: Path, chunk_bytes: int, chunks: int) -> None:
    """More chunks than one look at the metadata gives; and fewer, which are all looked up at the start. Either way far more
    bytes than buffers and sockets take: when the object goes, most of it is still to be read."""
    with InProcess(tmp_path, [MAIN], settings=Settings(chunk_bytes=chunk_bytes)) as server:
        s3, data = client(server.endpoint), random.Random(chunks).randbytes(chunks * chunk_bytes)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=data)
        body = s3.get_object(Bucket="bucket", Key="k")["Body"]
        start = body.read(10_000)
        s3.delete_object(Bucket="bucket", Key="k")
        server.run(server._meta.housekeeper.drain())
        report = server.run(server.metadata.gc_report())
        assert (report.lingering.items, report.lingering.bytes) == ((1, len(data)) if chunks > 256 else (0, 0))
        for node in server._nodes:
            server.run(node.settler.take_hints())
            while server.run(node.settler.round()):
                pass
        assert start + body.read() == data
        server.run(server.metadata.housekeep(grace_s=0))
        report = server.run(server.metadata.gc_report())
        assert (report.queued, report.lingering.items, report.short) == ((), 0, 0)
