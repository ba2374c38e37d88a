"""`staddle user` and `staddle key`: who may ask, and with which keys."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, Yes, remote
from gateway.cli.keys import CommandError

user_app = typer.Typer(no_args_is_help=True, help="Users: who may ask. Each belongs to an account, which owns its buckets.")
key_app = typer.Typer(no_args_is_help=True, help="Access keys of users.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
AccessKey = Annotated[str, typer.Argument(metavar="ACCESS_KEY", help="The access key.")]

NEVER_AGAIN = "The secret is shown this once and cannot be had again."


@remote(user_app, "create")
def create_user(
    server: Server, name: Name,
    account: Annotated[str, typer.Option(
        "--account", metavar="ID", help="Account that owns the user's buckets. (default: a new one of its own)")] = "",
    user_id: Annotated[str, typer.Option("--user-id", metavar="ID", help="Canonical id. (default: a new one)")] = "",
    display_name: Annotated[str, typer.Option("--display-name", metavar="TEXT", help="Shown as owner. (default: NAME)")] = "",
    email: Annotated[str, typer.Option("--email", metavar="ADDRESS", help="For grants by e-mail address.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API, and so these commands.")] = False,
    key: Annotated[bool, typer.Option("--key/--no-key", help="Make an access key too, and show it.")] = True,
) -> None:
    """Create a user, with an access key whose secret is shown once.

    Users of one account share its buckets; without --account the user gets an account of its own.

    Example: staddle user create backup --email backup@example.com
    """
    user = server.post("user/create", values.UserInfo, name=name, account=account, user_id=user_id, display_name=display_name,
                       email=email, admin=admin)
    made = server.post("key/create", values.NewKey, user=name) if key else None

    def people() -> None:
        printing.print_fields([("User", user.name), ("Account", user.account), ("Admin", printing.yes(user.admin))])
        if made is not None:
            _show_key(made)

    server.show({"user": user, "key": made}, people)


@remote(user_app, "list", "ls")
def list_users(server: Server) -> None:
    """List all users and their access keys.

    Example: staddle user list
    """
    users = [each for page in server.pages("user/list", values.UserList) for each in page.users]
    server.show(users, lambda: printing.print_table(
        ("user", "account", "admin", "state", "from", "access keys"),
        ((user.name, user.account, printing.yes(user.admin), _state(user.disabled), user.source,
          ", ".join(key.access_key + (" (disabled)" if key.disabled else "") for key in user.keys)) for user in users),
        empty="There are no users."))


@remote(user_app, "show")
def show_user(server: Server, name: Name) -> None:
    """Show one user.

    Example: staddle user show backup
    """
    _show(server, server.get("user/show", values.UserInfo, name=name))


@remote(user_app, "change")
def change_user(
    server: Server, name: Name,
    display_name: Annotated[str | None, typer.Option("--display-name", metavar="TEXT", help="Shown as owner.")] = None,
    email: Annotated[str | None, typer.Option("--email", metavar="ADDRESS", help="For grants by e-mail address.")] = None,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin", help="May use the admin API, or no longer.")] = None,
) -> None:
    """Change a user. What is not given stays.

    Example: staddle user change backup --admin
    """
    if display_name is None and email is None and admin is None:
        raise CommandError("nothing to change: give --display-name, --email, --admin or --no-admin.", status=2)
    given = {"display_name": display_name, "email": email, "admin": admin}
    _show(server, server.post("user/change", values.UserInfo, name=name, **given))


@remote(user_app, "disable")
def disable_user(server: Server, name: Name) -> None:
    """Refuse all keys of a user until it is enabled again. Nothing is deleted.

    Example: staddle user disable backup
    """
    _show(server, server.post("user/change", values.UserInfo, name=name, disabled=True))


@remote(user_app, "enable")
def enable_user(server: Server, name: Name) -> None:
    """Accept the keys of a user again that was disabled.

    Example: staddle user enable backup
    """
    _show(server, server.post("user/change", values.UserInfo, name=name, disabled=False))


@remote(user_app, "delete", "rm")
def delete_user(server: Server, name: Name, yes: Yes = False) -> None:
    """Delete a user and all its keys. Its buckets stay, with its account.

    Example: staddle user delete backup
    """
    server.confirm(f"Delete the user {name!r} and all its access keys?", yes)
    server.show(server.post("user/delete", values.Done, name=name), lambda: printing.say(f"User {name} is deleted."))


@remote(key_app, "create")
def create_key(
    server: Server, name: Name,
    access_key: Annotated[str, typer.Option(
        "--access-key", metavar="ACCESS_KEY", help="A key that is known elsewhere already. (default: a new one)")] = "",
    secret_file: Annotated[str, typer.Option(
        "--secret-file", metavar="FILE", help="File with its secret, - for standard input: so that no process list shows it. "
        "(default: a new one)")] = "",
) -> None:
    """Create an access key for a user. Its secret is shown once.

    Example: staddle key create backup
    """
    made = server.post("key/create", values.NewKey, user=name, access_key=access_key, secret_key=_secret(secret_file))
    server.show(made, lambda: _show_key(made))


@remote(key_app, "list", "ls")
def list_keys(
    server: Server, name: Annotated[str, typer.Argument(metavar="NAME", help="Of this user only.", show_default=False)] = "",
) -> None:
    """List access keys, without their secrets.

    Example: staddle key list backup
    """
    keys = [each for page in server.pages("key/list", values.KeyList, user=name) for each in page.keys]
    server.show(keys, lambda: printing.print_table(
        ("access key", "user", "state", "created"),
        ((key.access_key, key.user, _state(key.disabled), printing.moment(key.created)) for key in keys),
        empty="There are no access keys."))


@remote(key_app, "disable")
def disable_key(server: Server, access_key: AccessKey) -> None:
    """Refuse an access key until it is enabled again.

    Example: staddle key disable AKEXAMPLE
    """
    server.show(server.post("key/change", values.Done, access_key=access_key, disabled=True),
                lambda: printing.say(f"{access_key} is disabled: requests signed with it are refused from now on."))


@remote(key_app, "enable")
def enable_key(server: Server, access_key: AccessKey) -> None:
    """Accept an access key again that was disabled.

    Example: staddle key enable AKEXAMPLE
    """
    server.show(server.post("key/change", values.Done, access_key=access_key, disabled=False),
                lambda: printing.say(f"{access_key} is enabled."))


@remote(key_app, "rotate")
def rotate_key(server: Server, access_key: AccessKey, yes: Yes = False) -> None:
    """Replace an access key by a new one of the same user, in one step: the old one is refused from then on.

    To change programs over without haste, create a second key first and delete the old one later.

    Example: staddle key rotate AKEXAMPLE
    """
    server.confirm(f"Replace {access_key}? Programs that use it are refused until they have the new one.", yes)
    made = server.post("key/rotate", values.NewKey, access_key=access_key)
    server.show(made, lambda: _show_key(made))


@remote(key_app, "delete", "rm")
def delete_key(server: Server, access_key: AccessKey, yes: Yes = False) -> None:
    """Delete an access key.

    Example: staddle key delete AKEXAMPLE
    """
    server.confirm(f"Delete the access key {access_key}? Programs that use it are refused from then on.", yes)
    server.show(server.post("key/delete", values.Done, access_key=access_key),
                lambda: printing.say(f"{access_key} is deleted."))


def _secret(file: str) -> str:
    if not file:
        return ""
    try:
        secret = (sys.stdin.read() if file == "-" else Path(file).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--secret-file {file}: {error}", status=2) from None
    if not secret:                          # the server would take it for "a new one"
        raise CommandError(f"--secret-file {file} is empty.", status=2)
    return secret


def _show_key(made: values.NewKey) -> None:
    printing.print_fields([("Access key", made.access_key), ("Secret key", made.secret_key), ("", NEVER_AGAIN)])


def _show(server: Server, user: values.UserInfo) -> None:
    server.show(user, lambda: printing.print_fields([
        ("User", user.name), ("Account", user.account), ("Canonical id", user.user_id), ("Display name", user.display_name),
        ("E-mail", user.email), ("Admin", printing.yes(user.admin)), ("State", _state(user.disabled)),
        ("Created", printing.moment(user.created)), ("From", user.source),
        *(("Access key", key.access_key + (" (disabled)" if key.disabled else "")) for key in user.keys)]))


def _state(disabled: bool) -> str:
    return "disabled" if disabled else "enabled"
