"""Version ids: opaque, random, never used twice by any two gateways. They order nothing (ARCHITECTURE, Metadata)."""

import re
import secrets

from consensus.core.ids import NULL_VERSION, VersionId
from gateway.s3.errors import S3Error

_RANDOM_BYTES = 24
_FORM = re.compile(r"[A-Za-z0-9_-]{32}")


def new_version_id() -> VersionId:
    """32 URL-safe characters."""
    return VersionId(random_name(_RANDOM_BYTES))


def random_name(random_bytes: int) -> str:
    """URL-safe characters that nobody can guess; never `-` first, as command lines would take that for an option."""
    while (name := secrets.token_urlsafe(random_bytes)).startswith("-"):
        pass
    return name


def parse_version_id(text: str) -> VersionId:
    """"null" is one too. S3Error InvalidArgument for what can't be one of ours."""
    if text != NULL_VERSION and _FORM.fullmatch(text) is None:
        raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName="versionId", ArgumentValue=text)
    return VersionId(text)
