"""The real S3 clients that tests run: where they are, and how those come that the virtual environment can't bring.

aws, rclone, s3cmd and s5cmd are Python packages of the `test` extra. restic is a Debian package: it is fetched and
unpacked into `.tools/`, so nothing outside the checkout changes. A client that can't be had is left out, its name is
printed; the tests that need it skip by its name.

Run as a script by `make clients`. Uses the standard library only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENTS = ("aws", "rclone", "s3cmd", "s5cmd", "restic")

DEBIAN_PACKAGES = {"restic": "restic"}
"""Client -> the Debian package that holds it. Only packages that need no other package than libc, as they are unpacked
and not installed."""

TOOLS = Path(__file__).resolve().parents[2] / ".tools"

APT_TIMEOUT_S = 120
"""A mirror that doesn't answer must not stop the tests of all other clients."""


def find(client: str) -> Path | None:
    """The client's program: of this virtual environment, else of `.tools/`, else of the system."""
    places = [str(Path(sys.executable).parent), str(TOOLS / "usr" / "bin"), os.environ.get("PATH", os.defpath)]
    found = shutil.which(client, path=os.pathsep.join(places))
    return Path(found) if found else None


def missing() -> list[str]:
    """Names of the clients that are not here."""
    return [client for client in CLIENTS if find(client) is None]


def install(client: str) -> str | None:
    """Bring a client from its Debian package into `.tools/`. Returns why it could not be done, or None."""
    package = DEBIAN_PACKAGES.get(client)
    if package is None:
        return "comes with the Python packages of the test extra, which do not hold it on this platform"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "this system has no apt-get"
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        why = _run("apt-get", "download", package, folder=folder)
        if why and os.geteuid() == 0 and _run("apt-get", "update", "-qq", folder=folder) is None:
            # A fresh container has no package lists at all; only root may fetch them.
            why = _run("apt-get", "download", package, folder=folder)
        if why:
            return why
        for archive in Path(folder).glob("*.deb"):
            if why := _run("dpkg-deb", "-x", str(archive), str(TOOLS), folder=folder):
                return why
    return None if find(client) else f"the package {package} does not hold it"


def _run(*command: str, folder: str) -> str | None:
    """None when it went well, else the last thing it said."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=APT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"{command[0]} ended with {done.returncode}"


def main() -> int:
    """Install what is missing and say what is there. Never fails: a missing client only skips its own tests."""
    for client in missing():
        if why := install(client):
            print(f"{client}: left out: {why}")
    present = [client for client in CLIENTS if find(client)]
    print("clients:", ", ".join(present) or "none")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
