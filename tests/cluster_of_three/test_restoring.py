"""A cluster has lost its metadata, all of it. One machine is restored from a backup; the others join it with the chunks that
they have."""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from gateway import offline
from tests.cluster.test_restore import SIZES, assert_there, change_much, put, take_backup
from tests.cluster_of_three.conftest import await_copies
from tests.cluster_of_three.test_growing import await_voters
from tests.fsck import config_of
from tests.talker import BUCKET, Talker, make_bucket
from tests.trio import Trio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_backup_and_the_chunks_are_enough(tmp_path: Path) -> None:
    objects = {f"k{number}": os.urandom(SIZES[number % len(SIZES)]) for number in range(18)}
    with Trio(tmp_path, settings={"read_grace_seconds": "0"}) as trio:
        trio.start()
        await_voters(trio, 3)
        time.sleep(1.1)                               # until the gateways have looked which nodes there are
        make_bucket(trio.machines[0])
        for number, (key, body) in enumerate(objects.items()):
            with Talker(trio.machines[number % 3]) as talker:
                put(talker, key, body)
        take_backup(trio.machines[0], "one", tmp_path / "backup")
        with Talker(trio.machines[2]) as talker:
            change_much(talker, objects, random.Random(5))
        trio.stop()

        restored = asyncio.run(offline.restore(tmp_path / "backup", config_of(trio.machines[1]), replace=True))
        assert restored.restored.missing_count == 0
        assert restored.restored.problems == []
        for number in (0, 2):
            meta = trio.machines[number].data[0] / "meta"
            meta.rename(tmp_path / f"lost-{number}")
        trio.start()
        for machine in trio:
            assert_there(machine, objects)
        with Talker(trio.machines[0]) as talker:
            assert talker.ask("GET", f"/{BUCKET}/new1")[0] == 404
            put(talker, "after", b"x" * 10_000)
        await_voters(trio, 3)
        await_copies(trio, 3, within_s=60)
        trio.machines[1].kill_all()
        assert_there(trio.machines[0], {**objects, "after": b"x" * 10_000})
