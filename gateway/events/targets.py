"""Targets of event notifications: webhooks that the operator names in the settings. Clients choose among these names and can
bring no address of their own."""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What a queue's name may be on AWS: it stands in ARNs."""

_HEADER = re.compile(r"[\t -~]*")

LABEL_MAX = 63
"""Between two dots of a host's name (RFC 1035). Nothing longer can be looked up."""

CONNECTIONS_MAX = 64
TIMEOUT_S_MAX = 300


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One [webhooks.NAME] table. Raises ValueError, with a sentence, for one that cannot be used. `secret` and `authorization`
    stay out of repr, so that no log line holds one by accident."""

    url: str
    authorization: str = ""       # the value of the Authorization header
    secret: str = ""              # signs the body: X-Hub-Signature-256
    ca: Path | None = None        # PEM file with the authorities to trust; None: the system's
    timeout_seconds: int = 10     # for one delivery, all of it
    connections: int = 4          # at once
    accounts: tuple[str, ...] = ()    # whose buckets may tell it anything; none given: all

    def __post_init__(self) -> None:
        place_of(self.url)
        if not _HEADER.fullmatch(self.authorization):
            raise ValueError("'authorization' is one line of ASCII")
        if not 1 <= self.timeout_seconds <= TIMEOUT_S_MAX:
            raise ValueError(f"'timeout_seconds': {self.timeout_seconds} is not between 1 and {TIMEOUT_S_MAX}")
        if not 1 <= self.connections <= CONNECTIONS_MAX:
            raise ValueError(f"'connections': {self.connections} is not between 1 and {CONNECTIONS_MAX}")

    def __repr__(self) -> str:
        return f"Webhook({self.address})"

    @property
    def address(self) -> str:
        """The URL as it may be shown and logged: what comes after the host is often a secret."""
        place = place_of(self.url)
        return f"{'https' if place.tls else 'http'}://{place.authority}/"


class Place(NamedTuple):
    """Where a webhook is. `authority` as it stands in the Host header."""

    tls: bool
    host: str
    port: int
    authority: str
    target: str


def place_of(url: str) -> Place:
    """Raises ValueError for what is no plain http or https URL."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("'url' has characters that no URL has")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise ValueError("'url' has a port that is none") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("'url' is not http://HOST/... or https://HOST/...")
    if "@" in parts.netloc:
        raise ValueError("'url' has a user in it: give 'authorization'")
    if parts.fragment or port == 0:
        raise ValueError("'url' has a fragment, or port 0")
    if not all(0 < len(label) <= LABEL_MAX for label in parts.hostname.removesuffix(".").split(".")):
        raise ValueError("'url' has a host that is none")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(tls, parts.hostname, port or (443 if tls else 80), parts.netloc, target)


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
