"""What `staddle serve` does: folders and keys, then the supervisor with all processes, until a signal.

Apart from the command itself because all that a server is made of is imported here: other commands start in a third of
the time.
"""

import errno
import logging
import os
import ssl

import anyio
import msgspec
from rich.console import Console
from rich.text import Text

from consensus.core import logs
from gateway.cli.options import fail
from gateway.cluster.machine import Machine, machine_of, remembered_peers
from gateway.config import Config, parse_listen
from gateway.folders import (
    FolderError,
    Folders,
    cluster_secret,
    has_chunks,
    has_metadata,
    known_root,
    name_nodes,
    prepare,
    root_identity,
)
from gateway.http.server import tls_context
from gateway.identities import Identity, IdentityStore
from gateway.launch import EX_CONFIG, launches
from gateway.supervisor import SetupError, Supervisor, reserve_port, stop_on_signals

_LISTEN_HINTS = {errno.EADDRINUSE: "Another server there? Choose with --listen.",
                 errno.EACCES: "Ports below 1024 need the capability CAP_NET_BIND_SERVICE, or root."}
_NO_ADDRESS = "--listen takes an address of this machine, or 0.0.0.0 for all that it has."


def run(in_force: Config) -> None:
    """Serve until a signal. Ends the command with a sentence and status 78 when it can never work as it is set up."""
    try:
        machine, folders, missing = prepared(in_force)
        secret = cluster_secret(folders.root, os.environ.get("STADDLE_CLUSTER_SECRET") or None)
        keys = os.environ.get("STADDLE_ROOT_ACCESS_KEY"), os.environ.get("STADDLE_ROOT_SECRET_KEY")
        root, made = known_root(folders.root, *keys), False
        if root is None and (machine is None or not machine.peers):
            root, made = root_identity(folders.root, *keys)
        if root is not None:
            IdentityStore((root, *in_force.identity))
    except FolderError as error:
        fail(str(error), EX_CONFIG)
    except ValueError as error:              # the root key is also an identity's
        fail(f"setting 'identity': {error}", EX_CONFIG)
    _check_certificate(in_force)
    host, port = parse_listen(in_force.listen)
    reserved = None
    if "gateway" in in_force.roles:
        try:
            reserved = reserve_port(host, port)
        except OSError as error:
            fail(f"{error.strerror}. {_LISTEN_HINTS.get(error.errno or 0, _NO_ADDRESS)}", EX_CONFIG)
        port = reserved.getsockname()[1]
    logs.set_up(in_force.log_level, "supervisor")
    for sentence in missing:
        logging.getLogger("staddle.supervisor").warning(sentence)

    async def supervise(root: Identity, made: bool) -> None:
        supervisor = Supervisor(launches(in_force, folders, secret, root, host, port, machine),
                                shutdown_s=in_force.shutdown_seconds)

        async def announce() -> None:
            _welcome(in_force, folders, root, host, port, made, machine)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_on_signals, supervisor.stop, float(in_force.shutdown_seconds))
            await supervisor.run(announce)
            tasks.cancel_scope.cancel()

    async def serve() -> None:
        if machine is None:
            assert root is not None
            await supervise(root, made)
            return
        from gateway.cluster.doorkeeping import at_the_door  # here: a machine that is alone loads nothing of it

        async with at_the_door(machine, folders, in_force, secret, root) as found:
            if found is not None:            # else it was stopped before it knew
                IdentityStore((found[0], *in_force.identity))
                await supervise(found[0], made or found[1])

    try:
        anyio.run(serve)
    except* SetupError as failures:
        fail(_first(failures), EX_CONFIG)
    except* FolderError as failures:
        fail(_first(failures), EX_CONFIG)
    except* ValueError as failures:
        fail(f"setting 'identity': {_first(failures)}", EX_CONFIG)
    finally:
        if reserved is not None:
            reserved.close()


def prepared(config: Config) -> tuple[Machine | None, Folders, list[str]]:
    """The folders, made where they are missing; this machine if it is of a cluster; and what the operator should know of the
    folders. Raises FolderError."""
    folders = Folders(config.data[0].absolute())
    alone = config.cluster_listen is None
    elsewhere = not alone and bool(config.peers or remembered_peers(folders))
    prepare(config.data, elsewhere=elsewhere or "meta" not in config.roles)
    if not alone and not elsewhere and not config.initial and _has_forgotten(folders):
        raise FolderError(f"{folders.root} holds a cluster's secret and nothing else of it. Say with --peers where its other "
                          "machines are, and this one joins them again; or with --initial that it begins a new cluster")
    machine = machine_of(config, folders)
    missing = name_nodes(folders.root, config.data, machine.name if machine is not None else None)
    if machine is None:
        return None, folders, missing
    if machine.peers and not (folders.root / "secret").exists() and not os.environ.get("STADDLE_CLUSTER_SECRET"):
        raise FolderError("this machine has peers but not the secret of their cluster: use `staddle join TOKEN` with a token "
                          "from `staddle cluster token` there, or set STADDLE_CLUSTER_SECRET to the same on all machines")
    if machine.peers and machine.may_begin and not has_metadata(folders) and any(map(has_chunks, config.data)):
        missing.append("there are chunks but no metadata: this machine waits for its peers and begins no new cluster")
        machine = msgspec.structs.replace(machine, may_begin=False)
    return machine, folders, missing


def _has_forgotten(folders: Folders) -> bool:
    """Its secret was put into an empty folder, as after the loss of a disk: a machine that starts for the first time makes its
    name before its secret."""
    return (folders.root / "secret").exists() and not folders.machine_name.exists() and not has_metadata(folders)


def _first(failures: BaseExceptionGroup[BaseException]) -> str:
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found)


def _check_certificate(config: Config) -> None:
    """Said here, before anything has started, and not by each gateway."""
    if config.tls_cert is None or config.tls_key is None:
        return
    files = f"settings 'tls_cert' ({config.tls_cert}) and 'tls_key' ({config.tls_key})"
    try:
        for file in (config.tls_cert, config.tls_key):
            file.open("rb").close()
        tls_context(config.tls_cert, config.tls_key)
    except ssl.SSLError as error:
        fail(f"{files} are not a certificate in PEM form and its key: {error.reason or error}", EX_CONFIG)
    except OSError as error:
        fail(f"{files}: cannot read {error.filename}: {error.strerror}", EX_CONFIG)


def _welcome(config: Config, folders: Folders, root: Identity, host: str, port: int, made: bool,
             machine: Machine | None) -> None:
    """One screen: where it is, where the keys are, and a line to try."""
    scheme = "https" if config.tls_cert else "http"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(  # noqa: S104 - shown, not bound
        host, f"[{host}]" if ":" in host else host)
    endpoint = f"{scheme}://{reachable}:{port}"
    text = Text()
    text.append("\nStaddle is ready.\n\n", style="bold green")
    serves = "gateway" in config.roles
    rows = [("S3 endpoint", endpoint if serves else "on other machines"), ("Region", config.region),
            ("Data", ", ".join(str(folder.absolute()) for folder in config.data))]
    if machine is not None:
        rows.append(("Cluster", f"machine {machine.name} at {machine.address()}, {' and '.join(config.roles)}"))
        if made and serves and not os.environ.get("STADDLE_CLUSTER_SECRET"):
            rows.append(("Others join", f"staddle cluster token --data {folders.root} --endpoint {endpoint}"))
    if made:
        rows += [("Access key", root.access_key), ("Secret key", root.secret_key),
                 ("", f"shown this once, kept in {folders.root / 'root-key'}")]
    elif os.environ.get("STADDLE_ROOT_ACCESS_KEY"):
        rows.append(("Root key", f"{root.access_key}, from STADDLE_ROOT_ACCESS_KEY"))
    else:
        rows.append(("Root key", f"in {folders.root / 'root-key'}"))
    for name, value in rows:
        text.append(f"  {name:<12}", style="cyan")
        text.append(f"{value}\n")
    secret = root.secret_key if made else "..."
    if serves:
        text.append(f"""
  Try it:
    export AWS_ACCESS_KEY_ID={root.access_key} AWS_SECRET_ACCESS_KEY={secret} AWS_DEFAULT_REGION={config.region}
    aws --endpoint-url {endpoint} s3 mb s3://first-bucket
""")
    text.append("\n  Ctrl-C stops it; what was acknowledged is on disk.\n")
    Console(soft_wrap=True, highlight=False).print(text)
