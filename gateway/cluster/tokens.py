"""A join token: one line of text that lets one machine into one cluster, once.

It says where doors are, the SHA-256 of the certificate of the cluster's authority (so its holder knows the right door), when
it ends, and an id with 32 random bytes. The log keeps the id and the hash of the random bytes, and spends them once.
"""

import base64
import hashlib
import re
import secrets

import msgspec

PREFIX = "staddle-join-"
ID_BYTES, SECRET_BYTES = 8, 32
TEXT_CHARACTERS_MAX = 4096
_BASE64 = re.compile(r"[A-Za-z0-9_-]+")


class JoinToken(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`addresses` are the cluster addresses of machines whose doors may be knocked at."""

    version: int = 1
    addresses: tuple[str, ...]
    authority: bytes
    id: bytes
    secret: bytes = msgspec.field(default=b"")
    expires_ms: int = 0

    def __repr__(self) -> str:                   # holds a secret
        return f"JoinToken({self.id.hex()})"

    @property
    def hash(self) -> bytes:
        """What the log keeps: nobody who reads it can join."""
        return hash_of(self.secret)


def hash_of(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def visitor(name: str, nonce: bytes) -> str:
    """As whom a token is spent: a machine that asks again because the answer was lost is still the same one."""
    return f"{name} {nonce.hex()}"


def named(visitor: str) -> str:
    """The machine of a visitor."""
    return visitor.partition(" ")[0]


def new_token(addresses: tuple[str, ...], authority: bytes, expires_ms: int) -> JoinToken:
    return JoinToken(addresses=addresses, authority=authority, expires_ms=expires_ms, id=secrets.token_bytes(ID_BYTES),
                     secret=secrets.token_bytes(SECRET_BYTES))


def text_of(token: JoinToken) -> str:
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).decode().rstrip("=")


def parse_token(text: str) -> JoinToken:
    """Raises ValueError with a sentence."""
    text = text.strip()
    body = text.removeprefix(PREFIX)
    if body == text or len(text) > TEXT_CHARACTERS_MAX or not _BASE64.fullmatch(body):
        raise ValueError(f"that is no join token: it begins with {PREFIX} and is one line, as `staddle cluster token` prints it")
    try:
        token = msgspec.msgpack.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=JoinToken)
    except (msgspec.MsgspecError, ValueError):
        raise ValueError("the join token is damaged: copy it again, whole") from None
    if token.version != 1:
        raise ValueError(f"the join token is of version {token.version}; this Staddle knows 1")
    if len(token.id) != ID_BYTES or len(token.secret) != SECRET_BYTES or len(token.authority) != 32 or not token.addresses:
        raise ValueError("the join token is damaged: copy it again, whole")
    return token
