"""`staddle run`: a store for as long as a command runs, for tests and trials in any language. staddle.Server does it.

The command finds the store as clients of S3 do, by environment variables; without a command they are printed, for
another terminal. The data lies in a temporary folder that goes at the end, or in a folder that is given and stays.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import EX_USAGE, errors, fail

EX_NOT_FOUND = 127
EX_NOT_RUNNABLE = 126
"""As a shell has them."""

NO_INTERSPERSED = {"allow_interspersed_args": False}
"""What comes after the command's name is the command's."""


def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND…]", show_default=False)] = None,
    bucket: Annotated[list[str] | None, typer.Option(
        "--bucket", metavar="NAME", help="Make this bucket first; may be given several times.")] = None,
    data: Annotated[Path | None, typer.Option(
        "--data", metavar="DIR", help="Keep the data in this folder. (default: a temporary one)")] = None,
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="On 127.0.0.1. (default: a free one)", min=0,
                                      max=65535, show_default=False)] = 0,
    region: Annotated[str, typer.Option("--region", metavar="REGION", help="What it calls its region.")] = "us-east-1",
) -> None:
    """Run a command with an S3 store of its own, which ends with it.

    The command finds it by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION. Without a command,
    prints these variables and serves until Ctrl-C or SIGTERM. The status is the command's.

    STADDLE_ROOT_ACCESS_KEY and STADDLE_ROOT_SECRET_KEY set the key. (default: a new one)

    Example: staddle run --bucket uploads npm test

    Example: staddle run --bucket uploads --port 9000
    """
    import staddle  # which most commands do not need

    if command and shutil.which(command[0]) is None:
        fail(f"{command[0]}: there is no such program.", EX_NOT_FOUND)
    access_key, secret_key = (os.environ.get(f"STADDLE_ROOT_{name}_KEY") or None for name in ("ACCESS", "SECRET"))
    # SIGTERM ends what is waited for below, so that the store is stopped and its folder removed.
    signal.signal(signal.SIGTERM, _leave)
    try:
        with staddle.Server(data, access_key=access_key, secret_key=secret_key, region=region, port=port) as server:
            _make(server, bucket or [])
            status = _until_ended(command, server.env()) if command else _until_told(server.env())
    except (staddle.ServerError, ValueError) as error:
        fail(str(error), 1)
    raise typer.Exit(status)


def _make(server: "staddle.Server", names: list[str]) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Buckets; one that a kept folder has already is no error."""
    client = server.client()
    for name in names:
        try:
            client.create_bucket(Bucket=name)
        except client.exceptions.BucketAlreadyOwnedByYou:
            continue
        except client.exceptions.ClientError as error:
            fail(f"bucket {name}: {error.response['Error'].get('Message') or error}", EX_USAGE)


def _until_ended(command: list[str], variables: dict[str, str]) -> int:
    """The command's status, as a shell tells it."""
    try:
        child = subprocess.Popen(command, env=_environment() | variables)
    except OSError as error:
        fail(f"{command[0]}: {error.strerror}", EX_NOT_RUNNABLE)
    # A Ctrl-C reaches the command too, which decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    return status if status >= 0 else 128 - status


def _environment() -> dict[str, str]:
    """This one, without what would lead a client elsewhere: a profile of the user, a proxy."""
    kept = {name: value for name, value in os.environ.items() if name not in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")}
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, (kept.get(name), "127.0.0.1")))
    return kept


def _until_told(variables: dict[str, str]) -> int:
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()
    errors.print("Serving until Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
