"""A real node process, killed with SIGKILL while 32 writers put: everything it acknowledged is there after the restart."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.core.commands import RegisterNode
from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, NodeId, digest
from storage_node.replicas import Replicas
from storage_node.server import NodeServer
from tests.unit.storage_node.cluster import GENERATION, SECRET, everything, located
from tests.unit.storage_node.fakes import FakeMetadata

ROUNDS = 4
WRITERS = 32


def serve(folder: str) -> None:
    async def main() -> None:
        server = NodeServer(data=folder, node=NodeId("n1"), address=f"unix:{folder}/node.sock", secret=SECRET,
                            metadata=FakeMetadata(), settle_interval_s=3600)
        await server.start()
        print("ready", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def start(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-m", __name__, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_node_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        metadata = FakeMetadata()
        await metadata.register(RegisterNode(node=NodeId("n1"), incarnation=bytes(16), address=f"unix:{tmp_path}/node.sock"))
        acknowledged: dict[Digest, bytes] = {}
        chance = random.Random(1)
        process = start(tmp_path)
        try:
            for _ in range(ROUNDS):
                replicas = Replicas(metadata, SECRET)
                enough = asyncio.Event()
                target = len(acknowledged) + 400 + chance.randrange(400)

                async def writer(replicas: Replicas = replicas, enough: asyncio.Event = enough, target: int = target) -> None:
                    while True:
                        large = chance.random() < 0.02
                        data = os.urandom(1_200_000 if large else chance.randrange(1, 20_000))
                        try:
                            if large:
                                stream = await replicas.open_writer(GENERATION)
                                await stream.write(data)
                                await stream.finish(digest(data))
                            else:
                                await replicas.write(data, digest(data), GENERATION)
                        except ClusterError:
                            return
                        acknowledged[digest(data)] = data
                        if len(acknowledged) >= target:
                            enough.set()

                writers = [asyncio.ensure_future(writer()) for _ in range(WRITERS)]
                await asyncio.wait_for(enough.wait(), 60)
                process.send_signal(signal.SIGKILL)
                process.wait()
                await asyncio.gather(*writers)
                await replicas.stop()
                process.stdout.close()  # type: ignore[union-attr]
                process = start(tmp_path)
                replicas = Replicas(metadata, SECRET)
                for data in acknowledged.values():
                    assert await everything(replicas, located(data, "n1")) == data
                client = replicas.client(metadata.map[NodeId("n1")])
                assert (await client.statistics()).damaged == 0
                await replicas.stop()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    asyncio.run(main())


if __name__ == "__main__":
    serve(sys.argv[1])
