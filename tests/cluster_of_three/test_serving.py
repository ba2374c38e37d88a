"""Three machines are one store, and stay one while machines die, lose their disks and come back."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from tests.cluster_of_three.conftest import BUCKET, ask, await_copies, await_status, keys_for
from tests.torture import cluster as torture
from tests.torture.report import Report
from tests.trio import Trio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SEED = int(os.environ.get("STADDLE_TORTURE_SEED", str(random.randrange(10**6))))
LARGEST = 1 << 20
REFUSED_WITHIN_S = 20.0
"""Requests wait about ten for a majority that comes back."""

MIB = 1 << 20


def test_what_one_gateway_took_all_show(trio: Trio) -> None:
    clients = [boto3.client("s3", **keys_for(machine)) for machine in trio.machines]
    bytes_of = {"small": os.urandom(5000), "large": os.urandom(3 * MIB)}
    for (name, data), client in zip(bytes_of.items(), clients, strict=False):
        client.put_object(Bucket=BUCKET, Key=name, Body=data, Metadata={"from": name})
    upload = clients[2].create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    parts = [os.urandom(5 * MIB), os.urandom(100)]
    etags = [client.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=part)["ETag"]
             for number, (client, part) in enumerate(zip(clients, parts, strict=False), 1)]
    clients[2].complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]})
    bytes_of["parts"] = b"".join(parts)
    for client in clients:
        listed = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert {*bytes_of} <= {*listed}
        for name, data in bytes_of.items():
            assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == data
    clients[1].delete_object(Bucket=BUCKET, Key="small")
    assert all("small" not in [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]] for client in clients)
    for client in clients:
        client.close()
    await_copies(trio, 3, within_s=30)


def test_a_machine_is_killed_under_load_and_then_the_leader(trio: Trio) -> None:
    report = Report("kill -9", SEED, quiet=True)
    rounds = torture.Rounds(trio, report, torture.NODE, LARGEST)
    rounds.run(1, until_caught=True)
    rounds.kind = torture.LEADER
    rounds.run(1, until_caught=True)
    assert not report.wrong, report.wrong


def test_a_minority_serves_nothing_old_and_takes_nothing_new(trio: Trio) -> None:
    """It cannot know what the others acknowledge meanwhile. When one of them is back, so is the store."""
    leader = trio.leader()
    assert leader is not None
    last = next(machine for machine in trio.machines if machine is not leader)
    assert ask(last, "PUT", f"/{BUCKET}/kept", b"before")[0] == 200
    others = [machine for machine in trio.machines if machine is not last]
    for machine in others:
        machine.pause()
    for machine in others:
        machine.kill_all()
    asked = (("GET", f"/{BUCKET}/kept", b""), ("HEAD", f"/{BUCKET}/kept", b""), ("GET", f"/{BUCKET}", b""),
             ("PUT", f"/{BUCKET}/new", b"x"), ("DELETE", f"/{BUCKET}/kept", b""))
    began = time.monotonic()
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda each: ask(last, *each), asked))
    assert all(status in (500, 503) for status, _ in answers), answers
    assert time.monotonic() - began < REFUSED_WITHIN_S
    assert not last.ready()
    others[0].start(wait=False)
    await_status(last, 200, "PUT", f"/{BUCKET}/new", b"x", within_s=30)
    status, answer = ask(last, "GET", f"/{BUCKET}/kept")      # of the deletion it may be unknown whether it was done
    assert (status, answer) == (200, b"before") or status == 404


def test_a_wiped_disk_is_filled_again_by_itself(trio: Trio) -> None:
    """The machine comes back as a new one: its metadata from the others, then its copies. Reads never wait for it."""
    bodies = {f"wiped/{number}": os.urandom(20_000) for number in range(40)} | {"wiped/large": os.urandom(3 * MIB)}
    for number, (key, body) in enumerate(bodies.items()):
        assert ask(trio.machines[number % 3], "PUT", f"/{BUCKET}/{key}", body)[0] == 200
    victim = trio.machines[SEED % 3]
    victim.kill_all()
    victim.wipe()
    victim.start(wait=False)
    others = [machine for machine in trio.machines if machine is not victim]
    await_status(others[0], 200, "GET", f"/{BUCKET}/wiped/0", within_s=10)
    for number, (key, body) in enumerate(bodies.items()):
        assert ask(others[number % 2], "GET", f"/{BUCKET}/{key}") == (200, body)
    trio.wait_ready()
    await_copies(trio, 3, within_s=90)
    for key, body in bodies.items():
        assert ask(victim, "GET", f"/{BUCKET}/{key}") == (200, body)
