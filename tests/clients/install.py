"""The real S3 clients that tests run: where they are, and how those come that the virtual environment can't bring.

Quick ones, for every run of the tests: aws (version 1), rclone, s3cmd, s5cmd are Python packages of the `test` extra. restic
is a Debian package that is fetched and unpacked. boto3 1.26, the last before default checksums, gets an environment of its
own. All others come with `--all`: Python packages in one more environment, npm packages, among them the official aws
command line 2, and Debian packages, which only root can install.

What is pinned is in `pins/`. All of it goes to `.tools/`, but for the Debian packages of `--all`, which need others and are
installed. A client that can't be had is left out, its name is printed; the tests that need it skip by its name.

Run as a script by `make quick-clients` and `make clients`. Uses the standard library only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "pins"
TOOLS = HERE.parents[1] / ".tools"
NODE = TOOLS / "node"
AWS_2 = TOOLS / "aws-cli-2"

CLIENTS = ("aws", "rclone", "s3cmd", "s5cmd", "restic")
"""Programs that `Shell.script` knows by name."""

DEBIAN_PACKAGES = {"restic": "restic"}
"""Client -> the Debian package that holds it. Only packages that need no other package than libc, as they are unpacked
and not installed."""

DEBIAN_INSTALLED = {
    "aws-2.9": "awscli", "barman-cloud-backup": "barman-cli-cloud", "docker-registry": "docker-registry",
    "duplicity": "duplicity", "pgbackrest": "pgbackrest", "postgres": "postgresql-15", "s3fs": "s3fs",
}
"""Client -> the Debian package that holds it; all of these need other packages."""

ENVIRONMENTS = {"boto3-1.26": True, "many": False}
"""Virtual environments, each of what `pins/NAME.txt` lists, and whether it is quick to make."""

STEP_TIMEOUT_S = 120
"""A mirror that doesn't answer must not stop the tests of all other clients."""

BIG_STEP_TIMEOUT_S = 900
"""The Python packages of `--all` are 800 MB."""


def find(client: str) -> Path | None:
    """The client's program: of this virtual environment, else of `.tools/`, else of the system."""
    own = {"aws-2": AWS_2 / "dist" / "aws", "aws-2.9": Path("/usr/bin/aws"),
           "postgres": next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), Path("/nothing"))}
    if client in own:
        return own[client] if own[client].exists() else None
    if client in ENVIRONMENTS:
        python = environment(client) / "bin" / "python"
        return python if python.exists() else None
    places = [str(Path(sys.executable).parent), str(TOOLS / "usr" / "bin"), str(environment("many") / "bin"),
              os.environ.get("PATH", os.defpath)]
    found = shutil.which(client, path=os.pathsep.join(places))
    return Path(found) if found else None


def missing() -> list[str]:
    """Names of the quick clients that are not here."""
    return [client for client in (*CLIENTS, *ENVIRONMENTS) if ENVIRONMENTS.get(client, True) and find(client) is None]


def environment(name: str) -> Path:
    return TOOLS / "environments" / name


def install(client: str) -> str | None:
    """Bring a client from its Debian package into `.tools/`. Returns why it could not be done, or None."""
    package = DEBIAN_PACKAGES.get(client)
    if package is None:
        return "comes with the Python packages of the test extra, which do not hold it on this platform"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "this system has no apt-get"
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        why = _with_lists(lambda: _run("apt-get", "download", package, folder=folder))
        if why:
            return why
        for archive in Path(folder).glob("*.deb"):
            if why := _run("dpkg-deb", "-x", str(archive), str(TOOLS), folder=folder):
                return why
    return None if find(client) else f"the package {package} does not hold it"


def make_environment(name: str) -> str | None:
    """Returns why it could not be done, or None. Does nothing if it is what the pins say already."""
    folder, pins = environment(name), PINS / f"{name}.txt"
    made_of = folder / "made-of.txt"
    if made_of.exists() and made_of.read_text() == pins.read_text():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    if why := _run(sys.executable, "-m", "venv", "--without-pip", str(folder)):
        return why
    if why := _run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python"),
                   "install", "-q", "--no-deps", "-r", str(pins), timeout_s=BIG_STEP_TIMEOUT_S):
        shutil.rmtree(folder, ignore_errors=True)
        return why
    made_of.write_text(pins.read_text())
    return None


def install_npm() -> str | None:
    """The npm packages, and the aws command line out of the one that holds it."""
    if shutil.which("npm") is None:
        return "this system has no npm"
    wanted, made_of = PINS / "package.json", NODE / "package.json"
    if not ((NODE / "node_modules").exists() and made_of.exists() and made_of.read_text() == wanted.read_text()):
        shutil.rmtree(NODE, ignore_errors=True)
        NODE.mkdir(parents=True)
        shutil.copy(wanted, made_of)
        # A package that has the aws command line in it names the whole of a framework as its peer.
        if why := _run("npm", "install", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund", folder=NODE,
                       timeout_s=BIG_STEP_TIMEOUT_S):
            made_of.unlink()
            return why
        shutil.rmtree(AWS_2, ignore_errors=True)
    archive = NODE / "node_modules" / "@aws-cdk" / "asset-awscli-v2" / "lib" / "layer.zip"
    if archive.exists() and not AWS_2.exists():
        _unpack_aws(archive)
    return None


def _unpack_aws(archive: Path) -> None:
    """Of `awscli/v2/VERSION/dist/…` only the last folder."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            _, found, name = info.filename.partition("/dist/")
            if not found or info.is_dir():
                continue
            to = AWS_2 / "dist" / name
            to.parent.mkdir(parents=True, exist_ok=True)
            with file.open(info) as source, to.open("wb") as target:
                shutil.copyfileobj(source, target)
            to.chmod(0o755)


def install_debian() -> dict[str, str]:
    """Client -> why it could not be installed."""
    lacking = {client: package for client, package in DEBIAN_INSTALLED.items() if find(client) is None}
    if not lacking:
        return {}
    if shutil.which("apt-get") is None:
        return dict.fromkeys(lacking, "this system has no apt-get")
    if os.geteuid() != 0:
        return dict.fromkeys(lacking, "only root can install Debian packages")
    why = _with_lists(lambda: _run("apt-get", "install", "-y", "-q", "--no-install-recommends", *lacking.values(),
                                   timeout_s=BIG_STEP_TIMEOUT_S))
    return {client: why or "its package does not hold it" for client in lacking if find(client) is None}


def _with_lists(step: Callable[[], str | None]) -> str | None:
    """A step of apt-get; again with fresh lists if it fails: a fresh container has none. Only root may fetch them."""
    why = step()
    if why and os.geteuid() == 0 and _run("apt-get", "update", "-qq") is None:
        why = step()
    return why


def _run(*command: str, folder: str | Path = TOOLS, timeout_s: float = STEP_TIMEOUT_S) -> str | None:
    """None when it went well, else the last thing it said."""
    settings = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False,
                              env=os.environ | settings)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"{command[0]} ended with {done.returncode}"


def main(*arguments: str) -> int:
    """Install what is missing and say what is there. Never fails: a missing client only skips its own tests."""
    everything = "--all" in arguments
    TOOLS.mkdir(exist_ok=True)
    left_out: dict[str, str | None] = {client: install(client) for client in CLIENTS if find(client) is None}
    for name, quick in ENVIRONMENTS.items():
        if quick or everything:
            left_out[name] = make_environment(name)
    if everything:
        left_out["the npm packages"] = install_npm()
        left_out |= install_debian()
    for client, why in left_out.items():
        if why:
            print(f"{client}: left out: {why}")
    named = [*CLIENTS, *ENVIRONMENTS, *(("aws-2", "litestream", "juicefs", *DEBIAN_INSTALLED) if everything else ())]
    print("clients:", ", ".join(client for client in named if find(client)) or "none")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
