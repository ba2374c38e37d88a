"""`staddle user policy` and `staddle explain`: what users may do, and why."""

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, Yes, remote
from gateway.cli.keys import CommandError
from gateway.cli.users import Name

policy_app = typer.Typer(no_args_is_help=True, help="Policies of users: with one, a user may do what they allow, and no more.")

PolicyName = Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")]


@remote(policy_app, "set")
def set_policy(
    server: Server, name: Name, policy: PolicyName,
    file: Annotated[str, typer.Argument(
        metavar="FILE", help="JSON policy document; - for standard input; or AmazonS3ReadOnlyAccess, AmazonS3FullAccess.")],
) -> None:
    """Give a user a policy, or replace the one of that name.

    A user without any may do all that its account may; from the first policy on only what its policies allow.

    Example: staddle user policy set alice readers readers.json

    Example: staddle user policy set alice readers AmazonS3ReadOnlyAccess
    """
    server.post("user/policy/set", values.Done, name=name, policy=policy, document=_document(file))
    server.show({"user": name, "policy": policy}, lambda: printing.say(f"Policy {policy} of {name} is in force."))


@remote(policy_app, "get", "show")
def get_policy(server: Server, name: Name, policy: PolicyName) -> None:
    """Print a policy of a user.

    Example: staddle user policy get alice readers
    """
    known = next((known for known in _policies(server, name) if known.name == policy), None)
    if known is None:
        raise CommandError(f"the user {name!r} has no policy {policy!r}; `staddle user policy list {name}` shows them.")
    server.show(known, lambda: printing.document(known.document))


@remote(policy_app, "list", "ls")
def list_policies(server: Server, name: Name) -> None:
    """List the policies of a user.

    Example: staddle user policy list alice
    """
    known = _policies(server, name)
    server.show(known, lambda: printing.print_table(
        ("policy", "bytes"), ((policy.name, str(len(policy.document.encode()))) for policy in known),
        empty=f"{name} has no policies: it may do all that its account may."))


@remote(policy_app, "remove", "rm")
def remove_policy(server: Server, name: Name, policy: PolicyName, yes: Yes = False) -> None:
    """Take a policy from a user. After the last one the user may do all that its account may.

    Example: staddle user policy remove alice readers
    """
    if len(_policies(server, name)) == 1:
        server.confirm(f"Without {policy!r}, {name!r} has no policy and may do all that its account may. Go on?", yes)
    server.post("user/policy/remove", values.Done, name=name, policy=policy)
    server.show({"user": name, "policy": policy}, lambda: printing.say(f"Policy {policy} of {name} is gone."))


def explain(
    server: Server,
    action: Annotated[str, typer.Argument(metavar="ACTION", help="Such as s3:GetObject.")],
    bucket: Annotated[str, typer.Argument(metavar="BUCKET", help="The bucket, if it is about one.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY", help="The object, if it is about one.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Who asks. (default: somebody without credentials)")] = "",
    context: Annotated[list[str] | None, typer.Option(
        "--context", metavar="KEY=VALUE", help="A condition key of the request, such as aws:SourceIp=10.0.0.1. May be repeated.",
    )] = None,
) -> None:
    """Say whether somebody may do something, and which statement or grant decides. Ends with 1 where it is denied.

    Example: staddle explain s3:GetObject photos cat.jpg --user alice
    """
    if any("=" not in item for item in context or []):
        raise CommandError("--context takes KEY=VALUE.", status=2)
    pairs = [(item.partition("=")[0], item.partition("=")[2]) for item in context or []]
    found = server.get("explain", values.Explanation, action=action, bucket=bucket, key=key, user=user, context=urlencode(pairs))
    server.show(found, lambda: printing.print_fields([
        ("Caller", found.caller), ("Action", found.action), ("Allowed", printing.yes(found.allowed)), ("Why", found.why),
        *(("", fact) for fact in found.facts)]))
    if not found.allowed:
        raise typer.Exit(1)


def _policies(server: Server, name: str) -> list[values.UserPolicy]:
    return server.get("user/policy/list", values.PolicyList, name=name).policies


def _document(file: str) -> str:
    """Of a file, or of a policy that has a name everywhere."""
    from gateway.s3.policy.read import MANAGED  # here: other commands need nothing of policies

    try:
        if file == "-":
            return sys.stdin.read()
        return MANAGED[file] if file in MANAGED else Path(file).read_text()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}", status=2) from None
    except UnicodeDecodeError:
        raise CommandError(f"cannot read {file}: it is no text.", status=2) from None
