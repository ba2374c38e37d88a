"""Version ids: opaque, random, never used twice by any two gateways. They order nothing (ARCHITECTURE, Metadata)."""

import base64
import os
import re

from consensus.core.ids import NULL_VERSION, VersionId
from gateway.s3.errors import S3Error

_RANDOM_BYTES = 24
"""A multiple of three, so that base64 needs no padding."""

_AHEAD_BYTES = 3072
_ahead = bytearray()
"""Random bytes not used yet: asking the kernel for a hundred names at once costs a tenth of asking for each."""

_FORM = re.compile(r"[A-Za-z0-9_-]{32}")


def new_version_id() -> VersionId:
    """32 URL-safe characters."""
    return VersionId(random_name(_RANDOM_BYTES))


def random_name(random_bytes: int) -> str:
    """URL-safe characters that nobody can guess; never `-` first, as command lines would take that for an option."""
    while True:
        if len(_ahead) < random_bytes:
            _ahead[:] = os.urandom(_AHEAD_BYTES)
        name = base64.urlsafe_b64encode(_ahead[-random_bytes:]).decode()
        del _ahead[-random_bytes:]
        if name[0] != "-":
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
