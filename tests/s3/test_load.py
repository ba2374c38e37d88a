"""Many at once: each request gets its own right answer."""

import concurrent.futures
import hashlib

from tests.s3.conftest import MIB, client
from tests.s3.in_process import InProcess

REQUESTS = 8


def test_large_deletes_side_by_side(server: InProcess, bucket: str) -> None:
    """8,000 commands in one turn of the loop are more than one session keeps answers for."""
    clients = [client(server.endpoint) for _ in range(REQUESTS)]

    def delete(number: int) -> int:
        keys = [{"Key": f"{number}-{place}"} for place in range(1000)]
        answer = clients[number].delete_objects(Bucket=bucket, Delete={"Objects": keys})
        assert "Errors" not in answer, answer["Errors"][:3]
        return len(answer["Deleted"])

    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
        assert list(threads.map(delete, range(REQUESTS))) == [1000] * REQUESTS


def test_uploads_and_reads_side_by_side(server: InProcess, bucket: str) -> None:
    clients = [client(server.endpoint) for _ in range(REQUESTS)]

    def round_trip(number: int) -> None:
        s3 = clients[number]
        for size in (0, 10, 4096, 300_000, 3 * MIB + number):
            body = hashlib.shake_128(f"{number} {size}".encode()).digest(size)
            key = f"{number}/{size}"
            s3.put_object(Bucket=bucket, Key=key, Body=body)
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
        assert s3.list_objects_v2(Bucket=bucket, Prefix=f"{number}/")["KeyCount"] == 5

    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
        list(threads.map(round_trip, range(REQUESTS)))


def test_one_key_written_by_many_is_always_whole(server: InProcess, bucket: str) -> None:
    clients = [client(server.endpoint) for _ in range(REQUESTS)]
    bodies = [bytes([number]) * (MIB + number * 100_000) for number in range(REQUESTS)]

    def write_and_read(number: int) -> None:
        for _ in range(5):
            clients[number].put_object(Bucket=bucket, Key="key", Body=bodies[number])
            got = clients[number].get_object(Bucket=bucket, Key="key")["Body"].read()
            assert got in bodies

    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
        list(threads.map(write_and_read, range(REQUESTS)))
