"""Version ids: opaque, random, never used twice by any two gateways. They order nothing (ARCHITECTURE, Metadata)."""

import base64
import os
import re

from consensus.core.ids import NULL_VERSION, VersionId
from gateway.s3.errors import S3Error

_RANDOM_BYTES = 24
"""A multiple of three, so that base64 needs no padding."""

_AHEAD = 128
_ahead: list[str] = []
"""Names not used yet: made a hundred at once they cost a tenth of what each would by itself."""

_FORM = re.compile(r"[A-Za-z0-9_-]{32}")


def new_version_id() -> VersionId:
    """32 URL-safe characters."""
    while not _ahead:
        text = base64.urlsafe_b64encode(os.urandom(_RANDOM_BYTES * _AHEAD)).decode()
        width = len(text) // _AHEAD
        _ahead.extend(text[place:place + width] for place in range(0, len(text), width) if text[place] != "-")
    return VersionId(_ahead.pop())


def random_name(random_bytes: int) -> str:
    """URL-safe characters that nobody can guess; never `-` first, as command lines would take that for an option."""
    while (name := base64.urlsafe_b64encode(os.urandom(random_bytes)).decode())[0] == "-":
        pass
    return name


def parse_version_id(text: str, argument: str = "versionId") -> VersionId:
    """"null" is one too. S3Error InvalidArgument for what can't be one of ours; `argument` is what it is called there."""
    if not text:
        raise S3Error("InvalidArgument", "Version id cannot be the empty string", ArgumentName=argument, ArgumentValue="")
    if text != NULL_VERSION and _FORM.fullmatch(text) is None:
        raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName=argument, ArgumentValue=text)
    return VersionId(text)


def named_version(text: str | None) -> VersionId | None:
    """The version that a query or a document names; None where it names none. S3Error InvalidArgument."""
    return None if text is None else parse_version_id(text)
