"""`staddle serve`: the whole store on this machine, in the foreground. See running.py."""

from typing import Annotated

import typer

from gateway.cli.options import ConfigFile, settings

CLUSTER = "Cluster"


def serve(
    data: Annotated[list[str] | None, typer.Option(
        "--data", metavar="DIR", help="Data folder; give one for each disk. (default: data)")] = None,
    listen: Annotated[str | None, typer.Option(
        "--listen", metavar="HOST:PORT", help="Where the S3 endpoint listens. (default: 127.0.0.1:9000)")] = None,
    name: Annotated[str | None, typer.Option(
        "--name", metavar="NAME", rich_help_panel=CLUSTER, help="This machine's name in its cluster. (default: the host's)",
    )] = None,
    cluster_listen: Annotated[str | None, typer.Option(
        "--cluster-listen", metavar="HOST:PORT", rich_help_panel=CLUSTER,
        help="Where other machines reach this one. It uses PORT and up to about 110 ports above it.")] = None,
    peers: Annotated[list[str] | None, typer.Option(
        "--peers", metavar="HOST:PORT[,…]", rich_help_panel=CLUSTER, help="Where other machines of the cluster are.")] = None,
    initial: Annotated[bool, typer.Option(
        "--initial", rich_help_panel=CLUSTER,
        help="May begin a cluster although it has peers, once all have answered that they have none.")] = False,
    config: ConfigFile = None,
) -> None:
    """Serve S3 from this machine until Ctrl-C or SIGTERM.

    The first start makes the data folder and a root key, which it shows once and keeps in DIR/root-key.
    STADDLE_ROOT_ACCESS_KEY and STADDLE_ROOT_SECRET_KEY set the root key instead.

    Example: staddle serve --data /srv/staddle --listen 0.0.0.0:9000

    Example: staddle serve --data /srv/staddle --listen 0.0.0.0:9000
        --name n2 --cluster-listen 10.0.0.2:9400 --peers 10.0.0.1:9400
    """
    in_force = settings(config, {"data": data or None, "listen": listen, "name": name, "cluster_listen": cluster_listen,
                                 "peers": listed(peers), "initial": initial or None})
    from gateway.cli.running import run

    run(in_force)


def listed(given: list[str] | None) -> list[str] | None:
    """An option that may be given several times, and each time several with commas between."""
    return [one.strip() for text in given for one in text.split(",") if one.strip()] if given else None
