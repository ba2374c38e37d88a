"""`staddle serve`: the whole store on this machine, in the foreground. See running.py."""

from typing import Annotated

import typer

from gateway.cli.options import ConfigFile, settings


def serve(
    data: Annotated[list[str] | None, typer.Option(
        "--data", metavar="DIR", help="Data folder; give one for each disk. (default: data)")] = None,
    listen: Annotated[str | None, typer.Option(
        "--listen", metavar="HOST:PORT", help="Where the S3 endpoint listens. (default: 127.0.0.1:9000)")] = None,
    config: ConfigFile = None,
) -> None:
    """Serve S3 from this machine until Ctrl-C or SIGTERM.

    The first start makes the data folder and a root key, which it shows once and keeps in DIR/root-key.
    STADDLE_ROOT_ACCESS_KEY and STADDLE_ROOT_SECRET_KEY set the root key instead.

    Example: staddle serve --data /srv/staddle --listen 0.0.0.0:9000
    """
    in_force = settings(config, {"data": data or None, "listen": listen})
    from gateway.cli.running import run

    run(in_force)
