"""`staddle cluster`: tokens that let machines in, who is a member. `staddle init` and `staddle join`: how machines begin."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, Yes, remote
from gateway.cli.options import ConfigFile, fail, settings
from gateway.cli.serving import CLUSTER

cluster_app = typer.Typer(no_args_is_help=True, help="The machines of a cluster.")

EX_CONFIG = 78


@remote(cluster_app, "status")
def status(server: Server) -> None:
    """Show the members of the metadata: who leads, who votes, how far each is.

    Example: staddle cluster status
    """
    found = server.get("cluster/status", values.ClusterStatus)

    def people() -> None:
        if found.alone:
            printing.say("This machine is alone. With --cluster-listen it can become a cluster (docs/OPERATIONS.md).")
            return
        printing.print_fields([("Leader", found.leader or "none just now"), ("Term", found.term), ("Asked", found.known_by),
                               ("Applied", f"{found.applied_index} of {found.commit_index}")])
        _print_members(found)

    server.show(found, people)


@remote(cluster_app, "members")
def members(server: Server) -> None:
    """List the members of the metadata.

    Example: staddle cluster members
    """
    found = server.get("cluster/status", values.ClusterStatus)
    server.show(found.members, lambda: _print_members(found))


@remote(cluster_app, "duties")
def duties(server: Server) -> None:
    """List the work that one gateway does for all others (lifecycles, events), and which one does it.

    Example: staddle cluster duties
    """
    found = server.get("duty/list", values.DutyList).duties
    server.show(found, lambda: printing.print_table(
        ("duty", "done by", "since", "state"),
        ((each.name, each.holder, printing.moment(each.since), "held" if each.held else "free") for each in found),
        empty="Nobody has a duty now: there is no work of that kind."))


@remote(cluster_app, "token")
def token(
    server: Server,
    hours: Annotated[int, typer.Option("--hours", metavar="N", min=1, max=24 * 30, help="How long it may be used.")] = 1,
) -> None:
    """Make a token that lets one machine join, once. Keep it as a password: its holder gets the cluster's secret.

    Example: staddle cluster token
    """
    made = server.post("cluster/token", values.MadeToken, hours=hours)
    server.show(made, lambda: printing.say(made.token))


@remote(cluster_app, "tokens")
def tokens(server: Server) -> None:
    """List the join tokens, and which machine used which.

    Example: staddle cluster tokens
    """
    found = server.get("cluster/tokens", values.TokenList).tokens
    server.show(found, lambda: printing.print_table(
        ("token", "created", "expires", "state", "used by", "used"),
        ((each.id, printing.moment(each.created), printing.moment(each.expires), each.state, each.used_by,
          printing.moment(each.used)) for each in found),
        empty="There are no join tokens; `staddle cluster token` makes one."))


@remote(cluster_app, "revoke")
def revoke(server: Server, token: Annotated[str, typer.Argument(metavar="ID", help="Of the token, as listed.")]) -> None:
    """Delete a join token: nobody can join with it any more.

    Example: staddle cluster revoke 5f0d3a9c1be24477
    """
    server.show(server.post("cluster/revoke", values.Done, id=token), lambda: printing.say(f"Token {token} is deleted."))


@remote(cluster_app, "remove")
def remove(server: Server, name: Annotated[str, typer.Argument(metavar="MACHINE", help="Its name.")], yes: Yes = False) -> None:
    """Take a machine's metadata member out of the cluster, for good. Drain and remove its storage nodes first.

    Example: staddle cluster remove n4
    """
    server.confirm(f"Take the metadata member of {name} out of the cluster?", yes)
    server.show(server.post("cluster/remove", values.Done, name=name), lambda: printing.say(f"{name} is no member any more."))


def init(
    data: Annotated[list[str] | None, typer.Option(
        "--data", metavar="DIR", help="Data folder; give one for each disk. (default: data)")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="This machine's name. (default: the host's)")] = None,
    config: ConfigFile = None,
) -> None:
    """Prepare a new cluster: its secret, from which its certificates come, and a root key. This machine is its first.

    Example: staddle init --data /srv/staddle --name n1
    """
    in_force = settings(config, {"data": data or None, "name": name})
    from gateway.cluster.beginning import begin
    from gateway.folders import FolderError

    try:
        begun = begin(in_force)
    except FolderError as error:
        fail(str(error), EX_CONFIG)
    printing.say(f"""\
Machine {begun.name} may begin a cluster in {begun.folder}.

  Access key  {begun.access_key}
  Secret key  {begun.secret_key}

Start it:                  staddle serve --data {begun.folder} --cluster-listen HOST:PORT --listen HOST:9000
For each other machine:    staddle cluster token    (here)
                           staddle join TOKEN --data DIR --cluster-listen HOST:PORT --listen HOST:9000    (there)""")


def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="From `staddle cluster token` on a machine of the cluster.")],
    data: Annotated[list[str] | None, typer.Option(
        "--data", metavar="DIR", help="Data folder; give one for each disk. (default: data)")] = None,
    listen: Annotated[str | None, typer.Option(
        "--listen", metavar="HOST:PORT", help="Where the S3 endpoint listens. (default: 127.0.0.1:9000)")] = None,
    name: Annotated[str | None, typer.Option(
        "--name", metavar="NAME", rich_help_panel=CLUSTER, help="This machine's name in the cluster. (default: the host's)",
    )] = None,
    cluster_listen: Annotated[str | None, typer.Option(
        "--cluster-listen", metavar="HOST:PORT", rich_help_panel=CLUSTER, help="Where other machines reach this one.")] = None,
    prepare_only: Annotated[bool, typer.Option(
        "--prepare-only", rich_help_panel=CLUSTER, help="Do not serve yet: `staddle serve` will.")] = False,
    config: ConfigFile = None,
) -> None:
    """Join a cluster with a token, and serve from then on. After a stop, `staddle serve` with the same options goes on.

    Example: staddle join staddle-join-lQGRr… --data /srv/staddle --name n2 --cluster-listen 10.0.0.2:9400
    """
    in_force = settings(config, {"data": data or None, "listen": listen, "name": name, "cluster_listen": cluster_listen})
    if in_force.cluster_listen is None:
        fail("give --cluster-listen: where other machines reach this one.", 2)
    from consensus.core.errors import ClusterError
    from gateway.cluster.beginning import join_with
    from gateway.cluster.tokens import parse_token
    from gateway.folders import FolderError

    try:
        joined = join_with(parse_token(token), in_force)
    except ValueError as error:
        fail(f"{error}.", 2)
    except FolderError as error:
        fail(str(error), EX_CONFIG)
    except ClusterError as error:
        fail(f"not joined: {error}.", 1)
    printing.say(f"Machine {joined.name} is let into the cluster; what it needs is in {Path(joined.folder)}.")
    if not prepare_only:
        from gateway.cli.running import run

        run(in_force)


def _print_members(found: values.ClusterStatus) -> None:
    printing.print_table(
        ("machine", "address", "role", "behind>", "heard"),
        ((each.name, each.address, "leader" if each.leads else "voter" if each.voter else "follows, no vote",
          "" if each.applied_behind is None else each.applied_behind,
          "" if each.heard_s is None else f"{each.heard_s:.1f} s ago") for each in found.members),
        empty="There is one machine, and it is alone.")
