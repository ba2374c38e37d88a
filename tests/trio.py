"""Three machines on this one: three `staddle serve`, each with all its processes, that form a cluster.

Each machine has an address of its own: on the loopback network (127.x.y.z, which every Linux has), or, where root allows,
in a network namespace with a cable to a common bridge. There cables can be cut, in one direction or both; clients sit at
the bridge and reach all machines always.

    with Trio(folder).start() as trio:
        trio.machines[0].kill_all()
        trio.start_again(0)

    with Trio(folder, network=Namespaces()) as trio:
        trio.start()
        trio.network.cut({(0, 1), (1, 0)})

What a machine is told is what its operator would write: a name, where it listens, its peers, that a cluster may begin here,
and the cluster's secret.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self

from consensus.client import MetadataClient
from consensus.core.errors import ClusterError
from consensus.protocol import Status
from gateway.folders import Folders, cluster_secret
from tests.clock_skew import Clock
from tests.servers import NotReady, StaddleProcess, end_with_parent

S3_PORT = 9000
CLUSTER_PORT = 9400
READY_TIMEOUT_S = 60.0
"""Three machines start a dozen Pythons at the same time."""

STATUS_TIMEOUT_S = 0.5
POLL_S = 0.02
Direction = tuple[int, int]
"""From one machine to another, by number."""


class Network(Protocol):
    def address(self, number: int) -> str:
        """The machine's, made if it is new."""

    def enter(self, number: int) -> None:
        """In a child that is about to become a process of the machine."""

    def cut(self, directions: Collection[Direction]) -> None:
        """Nothing gets through in these directions, and everything in the others."""

    def close(self) -> None: ...


class Loopback:
    """127.x.y.z with x.y of its own. Cables cannot be cut."""

    def __init__(self) -> None:
        self._net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"

    def address(self, number: int) -> str:
        return f"{self._net}.{number + 11}"

    def enter(self, number: int) -> None:
        pass

    def cut(self, directions: Collection[Direction]) -> None:
        assert not directions, "on loopback nothing can be cut"

    def close(self) -> None:
        pass


class NoNamespaces(Exception):
    """This machine lets us make none."""


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_NAMES = re.compile(r"\bst(\d+)-\w+")


class Namespaces:
    """One for each machine. Names and addresses hold the number of our process, so that runs don't meet, and that what a
    killed run left can be told and removed."""

    def __init__(self) -> None:
        _sweep()
        self._id = f"st{os.getpid()}"
        self._net = _unused_net()
        self._machines: dict[int, str] = {}
        self._blocked: frozenset[Direction] = frozenset()
        try:
            _ip("link", "add", f"{self._id}-b", "type", "bridge")
            _ip("addr", "add", f"{self._net}.1/24", "dev", f"{self._id}-b")
            _ip("link", "set", f"{self._id}-b", "up")
        except OSError as error:
            self.close()
            raise NoNamespaces(str(error)) from error

    def _address(self, number: int) -> str:
        return f"{self._net}.{number + 11}"

    def address(self, number: int) -> str:
        address = self._address(number)
        if number not in self._machines:
            space, cable = f"{self._id}-{number}", f"{self._id}-c{number}"
            try:
                _ip("netns", "add", space)
                self._machines[number] = space
                _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
                _ip("link", "set", cable, "master", f"{self._id}-b", "up")
                for words in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                              ("link", "set", "lo", "up")):
                    _ip("-n", space, *words)
            except OSError as error:
                self.close()
                raise NoNamespaces(str(error)) from error
        return address

    def enter(self, number: int) -> None:
        fd = os.open(f"/run/netns/{self._machines[number]}", os.O_RDONLY)
        if _libc.setns(fd, _CLONE_NEWNET):
            os._exit(99)                              # nothing of ours may run in the wrong place
        os.close(fd)

    def cut(self, directions: Collection[Direction]) -> None:
        wanted = frozenset(directions)
        for number, space in self._machines.items():
            if {pair for pair in wanted ^ self._blocked if pair[1] == number}:
                rules = "".join(f"-A INPUT -s {self._address(source)} -j DROP\n"
                                for source, target in sorted(wanted) if target == number)
                subprocess.run(["ip", "netns", "exec", space, "iptables-restore"], input=f"*filter\n{rules}COMMIT\n",
                               text=True, check=True, capture_output=True)
        self._blocked = wanted

    def close(self) -> None:
        for space in self._machines.values():
            with contextlib.suppress(OSError):
                _ip("netns", "del", space)
        self._machines.clear()
        with contextlib.suppress(OSError):
            _ip("link", "del", f"{self._id}-b")


def _ip(*words: str) -> str:
    """Raises OSError."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _sweep() -> None:
    """What runs have left that were killed."""
    if shutil.which("ip") is None or os.geteuid():
        raise NoNamespaces("needs root and the command ip")
    spaces, bridges = _ip("netns", "list"), _ip("-o", "link", "show", "type", "bridge")
    for listed, kind in ((spaces, "netns"), (bridges, "link")):
        for name in {match[0]: match[1] for match in _NAMES.finditer(listed)}.items():
            if not Path(f"/proc/{name[1]}").exists():
                with contextlib.suppress(OSError):
                    _ip(kind, "del", name[0])


def _unused_net() -> str:
    used = _ip("-o", "-4", "addr", "show")
    for _ in range(1000):
        net = f"10.213.{secrets.randbelow(254) + 1}"
        if f" {net}." not in used:
            return net
    raise NoNamespaces("no network is free")


class Machine(StaddleProcess):
    """One of them. `number` counts from 0, its name is n1 and so on."""

    def __init__(self, trio: "Trio", number: int, *, settings: Mapping[str, str] | None = None, token: str = "") -> None:
        self.trio, self.number, self.name, self._token = trio, number, f"n{number + 1}", token
        self.host = trio.network.address(number)
        self.clock: Clock | None = None
        self._stopped: list[int] = []
        super().__init__(trio.folder / self.name, port=S3_PORT, data_folders=trio.disks, settings={
            "name": self.name, "cluster_listen": self.cluster_address, **trio.settings, **(settings or {})})

    @property
    def cluster_address(self) -> str:
        return f"{self.host}:{CLUSTER_PORT}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def command(self) -> list[str]:
        command = super().command()
        command[command.index("--listen") + 1] = f"{self.host}:{self.port}"
        if self._token and not (self.data[0] / "secret").exists():
            at = command.index("serve")
            command[at:at + 1] = ["join", self._token]
        return command

    def environment(self) -> dict[str, str]:
        told = {"STADDLE_CLUSTER_SECRET": self.trio.secret} if self.trio.secret else {}
        if not self._token and (peers := [peer.cluster_address for peer in self.trio.peers_of(self)]):
            told["STADDLE_PEERS"] = ",".join(peers)
        return super().environment() | told | (self.clock.variables if self.clock else {})

    def before_exec(self) -> None:
        end_with_parent()
        self.trio.network.enter(self.number)

    def own_clock(self) -> Clock:
        """From its next start on."""
        self.clock = Clock(self.folder)
        return self.clock

    def pause(self) -> None:
        """All its processes stand still, as a machine does whose hypervisor is busy elsewhere."""
        self._stopped = [process.pid for process in self.processes()]
        self._signal(signal.SIGSTOP)

    def unpause(self) -> None:
        self._signal(signal.SIGCONT)
        self._stopped = []

    def _signal(self, number: int) -> None:
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wipe(self, disk: int = 0) -> None:
        """A disk's chunks and metadata are gone, as after it was replaced: only for a machine that doesn't run."""
        assert not self.running
        shutil.rmtree(self.data[disk])


class Trio:
    """`machines` are those that have been added, running or not. Every setting in `settings` is all machines'."""

    def __init__(self, folder: Path, *, count: int = 3, network: Network | None = None, disks: int = 1,
                 settings: Mapping[str, str] | None = None, secret: str | None = None) -> None:
        self.folder, self.disks = folder, disks
        self.network = network or Loopback()
        self.settings = {"workers": "1", **(settings or {})}
        self.secret = secrets.token_hex(32) if secret is None else secret
        self.machines: list[Machine] = []
        self._founders = count
        for _ in range(count):
            self.add(initial=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.machines)

    def add(self, *, initial: bool = False, settings: Mapping[str, str] | None = None, token: str = "") -> Machine:
        """One more machine, not started. With `initial` it may begin the cluster; with a `token` its first start is `staddle
        join`, and it is told neither peers nor the secret."""
        machine = Machine(self, len(self.machines), token=token,
                          settings={**({"initial": "true"} if initial else {}), **(settings or {})})
        self.machines.append(machine)
        return machine

    def peers_of(self, machine: Machine) -> list[Machine]:
        return [other for other in self.machines if other is not machine]

    @property
    def running(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.running]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [machine.address for machine in self.machines]

    def start(self, *, wait: bool = True) -> Self:
        """All that don't run, at the same time. Raises NotReady."""
        for machine in self.machines:
            if not machine.running:
                machine.start(wait=False)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, machines: Iterable[Machine] | None = None, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Seconds until all of these are ready at the same look. Raises NotReady with all their logs' ends."""
        began = time.monotonic()
        waited = list(self.running if machines is None else machines)
        while not all(machine.ready() for machine in waited):
            ended = [machine.name for machine in waited if not machine.running]
            if ended or time.monotonic() - began > timeout_s:
                raise NotReady(f"{ended or [machine.name for machine in waited if not machine.ready()]} after "
                               f"{time.monotonic() - began:.1f} s:\n{self.logs()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def leader(self) -> Machine | None:
        """Who leads, as the members say who answer at once; the latest term counts. May be called from any thread."""
        told = [status for status in asyncio.run(self._statuses()) if status is not None and status.leader]
        latest = max(told, key=lambda status: status.term, default=None)
        return next((machine for machine in self.machines if latest is not None and machine.name == latest.leader), None)

    async def _statuses(self) -> list[Status | None]:
        return await asyncio.gather(*[_status(machine) for machine in self.running])

    def split(self, *sides: Collection[int]) -> None:
        """Machines of different sides don't hear each other."""
        self.network.cut({(one, other) for left, right in itertools.permutations(sides, 2) for one in left for other in right})

    def heal(self) -> None:
        self.network.cut(())

    def logs(self, lines: int = 40) -> str:
        return "\n".join(f"--- {machine.name}\n{machine.log(lines)}" for machine in self.machines)

    def stop(self) -> None:
        """All cleanly, at the same time."""
        for machine in self.running:
            machine.terminate()
        for machine in self.running:
            machine.stop()

    def kill_all(self) -> None:
        """Of all machines at once: none reacts to the end of another."""
        for machine in self.running:
            machine.pause()
        for machine in self.machines:
            machine.kill_all()

    def close(self) -> None:
        self.kill_all()
        self.network.close()


async def _status(machine: Machine) -> Status | None:
    folders = Folders(machine.data[0])
    try:
        client = MetadataClient(folders.meta_address, cluster_secret(folders.root), str(folders.meta), owner="test")
        async with asyncio.timeout(STATUS_TIMEOUT_S):
            try:
                await client.start()
                return await client.status()
            finally:
                await client.stop()
    except (ClusterError, OSError, TimeoutError):
        return None
