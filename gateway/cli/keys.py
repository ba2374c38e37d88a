"""Whose keys sign what a command asks, and the one kind of failure that commands have.

Keys come from --data DIR (the root key that `staddle serve` keeps there), else from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, else from ./data. They are never printed.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

DEFAULT_DATA = Path("data")


class CommandError(Exception):
    """A command could not do what it was asked to. `code` is the server's word for it, if it was the server."""

    def __init__(self, sentence: str, *, status: int = 1, code: str = "") -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


class Keys(NamedTuple):
    """`source` says where they come from, for errors."""

    access_key: str
    secret_key: str
    source: str

    def __repr__(self) -> str:
        return f"Keys({self.access_key!r}, '***', {self.source!r})"


def find_keys(data: Path | None, environ: Mapping[str, str]) -> Keys:
    """Raises CommandError if there are none."""
    if data is not None and ((data / "root-key").exists() or not (data / "secret").exists()):
        return _root_key(data)
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if access_key and secret_key:
        return Keys(access_key, secret_key, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if access_key or secret_key:
        raise CommandError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both, or give --data DIR.", status=2)
    if data is not None:
        raise CommandError(
            f"{data} has no root-key: its server was given one in STADDLE_ROOT_ACCESS_KEY. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY to it.", status=2)
    if (DEFAULT_DATA / "root-key").exists():
        return _root_key(DEFAULT_DATA)
    raise CommandError(
        "no keys to sign with. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to an admin's, or, on the server's own machine, "
        "give its folder with --data DIR.", status=2)


def _root_key(data: Path) -> Keys:
    path = data / "root-key"
    try:
        found = tomllib.loads(path.read_text())
        return Keys(str(found["access_key"]), str(found["secret_key"]), str(path))
    except FileNotFoundError:
        what = "is no data folder of a Staddle server" if data.is_dir() else "does not exist"
        raise CommandError(f"{data} {what}: --data is the folder that `staddle serve --data` was given.", status=2) from None
    except PermissionError:
        raise CommandError(f"{path} may only be read by the user who runs the server: run this command as that user.") from None
    except (OSError, KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandError(f"the root key {path} cannot be read: {error!r}") from None
