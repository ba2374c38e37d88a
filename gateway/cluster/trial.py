"""A cluster of several machines on this one, to try it and to test against: what `make cluster` runs.

    python -m gateway.cluster.trial --data data-cluster

Each machine is a whole `staddle serve` with a data folder of its own (n1, n2, …), and its log beside it. Ctrl-C stops all;
the next start goes on with what is there. A machine that is killed stays away until then: to start it by hand, its command
line is in the first line of its log.
"""

import argparse
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from gateway.config import ROOT_VARIABLES

CLUSTER_PORTS_APART = 20
"""Between the cluster ports of two machines: the nodes' lie between them, the doors' and gateways' a hundred above."""

READY_S = 60.0
STOP_S = 45.0
LOOK_S = 0.2
LOG_LINES_SHOWN = 15


class Trial(NamedTuple):
    """One machine of it."""

    name: str
    endpoint: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/-/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def main() -> int:
    asked = _arguments()
    data: Path = asked.data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("STADDLE_")},
                   **{name: os.environ[name] for name in ROOT_VARIABLES & os.environ.keys()},
                   "STADDLE_CLUSTER_SECRET": _secret(data / "secret"), "STADDLE_WORKERS": "1"}
    for wanted in (signal.SIGINT, signal.SIGTERM):        # a shell has its background jobs ignore the first
        signal.signal(wanted, _interrupt)
    machines: list[Trial] = []
    try:
        machines += [_start(number, asked, data, environment) for number in range(1, asked.machines + 1)]
        if not _wait_ready(machines):
            return 1
        _welcome(machines, data, environment)
        living = machines
        while living:
            time.sleep(LOOK_S)
            for machine in [one for one in living if one.process.poll() is not None]:
                _say(f"{machine.name} ended with status {machine.process.returncode}; see {machine.log}")
            living = [one for one in living if one.process.poll() is None]
        return 1
    except KeyboardInterrupt:
        _say("\nstopping all machines; what was acknowledged is on disk")
        return 0
    finally:
        _stop(machines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway.cluster.trial", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data-cluster"), metavar="DIR", help="folder of all machines")
    parser.add_argument("--machines", type=int, default=3, metavar="N", help="how many (default: 3)")
    parser.add_argument("--port", type=int, default=9000, help="of the first machine's S3 endpoint; the others' follow")
    parser.add_argument("--cluster-port", type=int, default=9400, help="of the first machine's cluster_listen")
    parser.add_argument("setting", nargs="*", metavar="NAME=VALUE", help="settings of all machines, as in docs/CONFIGURATION.md")
    asked = parser.parse_args()
    if not 1 <= asked.machines <= 5:
        parser.error("1 to 5 machines: their ports lie side by side")
    return asked


def _secret(path: Path) -> str:
    if not path.exists():
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text().strip()


def _start(number: int, asked: argparse.Namespace, data: Path, environment: dict[str, str]) -> Trial:
    name = f"n{number}"
    ports = [asked.cluster_port + CLUSTER_PORTS_APART * place for place in range(asked.machines)]
    endpoint = f"127.0.0.1:{asked.port + number - 1}"
    command = [sys.executable, "-P", "-m", "gateway.cli", "serve", "--data", str(data / name), "--listen", endpoint,
               "--name", name, "--cluster-listen", f"127.0.0.1:{ports[number - 1]}",
               "--peers", ",".join(f"127.0.0.1:{port}" for port in ports), *(["--initial"] if number == 1 else [])]
    settings = {f"STADDLE_{key.upper()}": value for key, _, value in (text.partition("=") for text in asked.setting)}
    log = data / f"{name}.log"
    with log.open("ab") as out:
        out.write(f"# {shlex.join(command)}\n".encode())
        out.flush()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                                   env={"STADDLE_WORKERS": "1", **environment, **settings})     # they share its cores
    return Trial(name, f"http://{endpoint}", log, process)


def _wait_ready(machines: list[Trial]) -> bool:
    until = time.monotonic() + READY_S
    while not all(machine.ready for machine in machines):
        for machine in machines:
            if machine.process.poll() is not None or time.monotonic() > until:
                why = "did not become ready" if machine.process.poll() is None else "ended"
                _say(f"{machine.name} {why}; the end of {machine.log}:")
                _say("\n".join(machine.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]))
                return False
        time.sleep(LOOK_S)
    return True


def _welcome(machines: list[Trial], data: Path, environment: dict[str, str]) -> None:
    access_key, secret_key = environment.get("STADDLE_ROOT_ACCESS_KEY"), environment.get("STADDLE_ROOT_SECRET_KEY")
    if not access_key or not secret_key:
        key = tomllib.loads((data / machines[0].name / "root-key").read_text())
        access_key, secret_key = key["access_key"], key["secret_key"]
    _say(f"\nA cluster of {len(machines)} machines is ready. Each serves the same buckets:\n")
    for machine in machines:
        _say(f"  {machine.name}  {machine.endpoint}   process {machine.process.pid}   log {machine.log}")
    _say(f"""
  export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key} AWS_DEFAULT_REGION=us-east-1
  aws --endpoint-url {machines[0].endpoint} s3 mb s3://first-bucket
  {_command()} cluster status --endpoint {machines[-1].endpoint}

  Ctrl-C stops all of them.
""")


def _command() -> str:
    """How a shell here calls staddle: `make cluster` has installed it where no PATH leads."""
    return "staddle" if shutil.which("staddle") else os.path.relpath(Path(sys.executable).parent / "staddle")


def _stop(machines: list[Trial]) -> None:
    for machine in machines:
        if machine.process.poll() is None:
            machine.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + STOP_S
    for machine in machines:
        with contextlib.suppress(subprocess.TimeoutExpired):
            machine.process.wait(max(0.1, until - time.monotonic()))
        if machine.process.poll() is None:
            _say(f"{machine.name} did not stop in time and is killed")
            machine.process.kill()
            machine.process.wait()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
