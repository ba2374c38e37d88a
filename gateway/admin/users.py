"""Users and their access keys: made, looked at, changed, disabled, rotated, deleted.

Users of the metadata are changed here; those of the configuration file and the root key are shown and left alone. After
a change every gateway worker of this host is told, so that a disabled key is refused from the answer on.
"""

import logging
import secrets
from typing import NamedTuple

from consensus.core import commands
from consensus.core.errors import ClusterError
from consensus.core.model import AccessKey, User
from consensus.core.results import AnyResult, Done, KeyExists, NoAccessKey, NoUser, UserExists
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.folders import new_access_key, new_secret_key
from gateway.ops.context import ACCOUNT_DIGITS
from gateway.s3.times import iso8601
from gateway.sealing import seal

log = logging.getLogger("staddle.admin")

SECRET_CHARACTERS_MIN = 8
SECRET_CHARACTERS_MAX = 128
"""As AWS's own limits are around 40: below, a secret can be guessed from one signature."""


class Owner(NamedTuple):
    """What a bucket takes from its owner."""

    account: str
    user_id: str


async def list_users(ctx: AdminContext, asked: values.Page) -> values.UserList:
    """List users with their access keys: root and those of the configuration first, then those made here, by name."""
    users = await ctx.metadata.users(asked.after, asked.limit)
    made = [_info(user, await ctx.metadata.keys_of(user.name)) for user in users]
    return values.UserList(users=made if asked.after else [*_configured(ctx), *made],
                           next=users[-1].name if len(users) == asked.limit else "")


async def show_user(ctx: AdminContext, asked: values.OneUser) -> values.UserInfo:
    """Show one user with its access keys."""
    user = await ctx.metadata.user(asked.name)
    if user is not None:
        return _info(user, await ctx.metadata.keys_of(user.name))
    for known in _configured(ctx):
        if known.name == asked.name:
            return known
    raise unknown_user(ctx, asked.name)


async def create_user(ctx: AdminContext, asked: values.CreateUser) -> values.UserInfo:
    """Create a user, without a key: create one next."""
    if any(identity.name == asked.name for _, identity in ctx.admin.configured()):
        raise AdminError("UserExists", f"The configuration has a user {asked.name!r} already. Take another name.")
    user = User(
        name=asked.name, account=asked.account or _new_account(), user_id=asked.user_id or secrets.token_hex(32),
        display_name=asked.display_name or asked.name, email=asked.email, admin=asked.admin)
    await _commit(ctx, commands.CreateUser(user=user), asked.name)
    return await show_user(ctx, values.OneUser(name=asked.name))


async def change_user(ctx: AdminContext, asked: values.ChangeUser) -> values.UserInfo:
    """Change a user: its names, whether it is an admin, whether it is disabled."""
    await _commit(ctx, commands.ChangeUser(
        name=asked.name, display_name=asked.display_name, email=asked.email, admin=asked.admin, disabled=asked.disabled,
    ), asked.name)
    return await show_user(ctx, values.OneUser(name=asked.name))


async def delete_user(ctx: AdminContext, asked: values.OneUser) -> values.Done:
    """Delete a user and its keys. Its buckets stay, with its account."""
    await _commit(ctx, commands.DeleteUser(name=asked.name), asked.name)
    return values.Done()


async def list_keys(ctx: AdminContext, asked: values.ListKeys) -> values.KeyList:
    """List access keys, of one user or of all. Secrets are never shown again."""
    if asked.user:
        return values.KeyList(keys=(await show_user(ctx, values.OneUser(name=asked.user))).keys, next="")
    made = await ctx.metadata.access_keys(asked.after, asked.limit)
    keys = [] if asked.after else [key for user in _configured(ctx) for key in user.keys]
    return values.KeyList(keys=[*keys, *map(_key_info, made)], next=made[-1].access_key if len(made) == asked.limit else "")


async def create_key(ctx: AdminContext, asked: values.CreateKey) -> values.NewKey:
    """Create an access key for a user. The secret is shown this once."""
    return await _new_key(ctx, asked.user, asked.access_key, asked.secret_key)


async def change_key(ctx: AdminContext, asked: values.ChangeKey) -> values.Done:
    """Disable an access key, or enable it again."""
    await _commit(ctx, commands.ChangeKey(access_key=asked.access_key, disabled=asked.disabled), "", replaces=asked.access_key)
    return values.Done()


async def rotate_key(ctx: AdminContext, asked: values.OneKey) -> values.NewKey:
    """Replace an access key by a new one of the same user, in one step. The secret is shown this once."""
    old = await ctx.metadata.access_key(asked.access_key)
    if old is None:
        raise _no_key(ctx, asked.access_key)
    return await _new_key(ctx, old.user, "", "", replaces=old.access_key)


async def delete_key(ctx: AdminContext, asked: values.OneKey) -> values.Done:
    """Delete an access key."""
    await _commit(ctx, commands.DeleteKey(access_key=asked.access_key), "", replaces=asked.access_key)
    return values.Done()


async def owner_of(ctx: AdminContext, name: str) -> Owner:
    """Account and canonical id of a user, wherever it is defined. Raises AdminError NoSuchUser."""
    user = await show_user(ctx, values.OneUser(name=name))
    return Owner(user.account, user.user_id)


async def _new_key(ctx: AdminContext, user: str, access_key: str, secret_key: str, *, replaces: str = "") -> values.NewKey:
    if secret_key and not SECRET_CHARACTERS_MIN <= len(secret_key) <= SECRET_CHARACTERS_MAX:
        raise AdminError("InvalidArgument", f"A secret key has {SECRET_CHARACTERS_MIN} to {SECRET_CHARACTERS_MAX} characters.")
    access_key, secret_key = access_key or new_access_key(), secret_key or new_secret_key()
    if any(identity.access_key == access_key for _, identity in ctx.admin.configured()):
        raise AdminError("AccessKeyExists", f"The access key {access_key} is in use. Leave it away for a new one.")
    key = AccessKey(access_key=access_key, user=user, sealed=seal(ctx.admin.secret, access_key, secret_key))
    await _commit(ctx, commands.CreateKey(key=key, replaces=replaces), user, access_key, replaces)
    return values.NewKey(user=user, access_key=access_key, secret_key=secret_key)


async def _commit(ctx: AdminContext, command: commands.AnyCommand, name: str, access_key: str = "", replaces: str = "") -> None:
    """Carry it out and tell the workers. `name` is the user's, `access_key` the one that comes, `replaces` the one that
    must be there. Raises AdminError."""
    outcome: AnyResult = await ctx.commit(command)
    match outcome:
        case Done():
            await tell(ctx, command)
        case UserExists():
            raise AdminError("UserExists", f"There is a user {name!r} already.")
        case NoUser():
            raise unknown_user(ctx, name)
        case KeyExists():
            raise AdminError("AccessKeyExists", f"The access key {access_key} is in use. Leave it away for a new one.")
        case NoAccessKey():
            raise _no_key(ctx, replaces)
        case _:
            raise AssertionError(f"unexpected outcome {outcome!r}")


async def tell(ctx: AdminContext, command: commands.AnyCommand) -> None:
    """Return when every worker knows. One that does not answer reads it within a second of coming back: a new key may wait
    for that (its secret is shown only now), but nobody should believe that a key is refused everywhere when it isn't."""
    try:
        await ctx.admin.reload()
    except ClusterError as error:
        if not isinstance(command, commands.CreateUser | commands.CreateKey):
            raise AdminError("NotYetEverywhere", f"It is done, but {error}. There it takes effect in a moment.") from None
        log.warning("%s", error, extra={"request_id": ctx.request_id})


def unknown_user(ctx: AdminContext, name: str) -> AdminError:
    """None that the metadata knows: only the configuration can change those that it has."""
    for source, identity in ctx.admin.configured():
        if identity.name == name:
            return AdminError("ConfiguredIdentity", f"The user {name!r} {_SOURCE_TEXT[source]}")
    return AdminError("NoSuchUser", f"There is no user {name!r}; `staddle user list` shows them.")


def _no_key(ctx: AdminContext, access_key: str) -> AdminError:
    for source, identity in ctx.admin.configured():
        if identity.access_key == access_key:
            return AdminError("ConfiguredIdentity", f"This key of {identity.name!r} {_SOURCE_TEXT[source]}")
    return AdminError("NoSuchAccessKey", f"There is no access key {access_key}; `staddle key list` shows them.")


_SOURCE_TEXT = {
    "root": "comes from the file DIR/root-key or from the environment: change it there (docs/OPERATIONS.md, Users and keys).",
    "configuration": "comes from the configuration file: change it there and start the server again.",
}


def _configured(ctx: AdminContext) -> list[values.UserInfo]:
    """The root key and the identities of the configuration; several of one name are one user with several keys."""
    found: dict[str, values.UserInfo] = {}
    for source, identity in ctx.admin.configured():
        key = values.KeyInfo(access_key=identity.access_key, user=identity.name, disabled=False, created="")
        keys = [*found[identity.name].keys, key] if identity.name in found else [key]
        found[identity.name] = values.UserInfo(
            name=identity.name, account=identity.account, user_id=identity.user_id, display_name=identity.display_name,
            email=identity.email, admin=identity.admin, disabled=False, created="", source=source, keys=keys)
    return list(found.values())


def _info(user: User, keys: list[AccessKey]) -> values.UserInfo:
    return values.UserInfo(
        name=user.name, account=user.account, user_id=user.user_id, display_name=user.display_name, email=user.email,
        admin=user.admin, disabled=user.disabled, created=iso8601(user.created_ms), source="metadata",
        keys=list(map(_key_info, keys)))


def _key_info(key: AccessKey) -> values.KeyInfo:
    return values.KeyInfo(access_key=key.access_key, user=key.user, disabled=key.disabled, created=iso8601(key.created_ms))


def _new_account() -> str:
    return str(secrets.randbelow(9 * 10 ** (ACCOUNT_DIGITS - 1)) + 10 ** (ACCOUNT_DIGITS - 1))
