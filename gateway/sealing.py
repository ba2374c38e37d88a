"""Secrets of access keys, sealed before they leave a gateway: journal, SQLite, snapshots and backups hold only this.

A request's signature can be checked only with the secret itself, so a hash will not do. It is encrypted with AES-256-GCM
under a key that HKDF derives from the cluster's secret (the file `secret` in the first data folder, which no backup
contains); the access key is authenticated with it, so that sealed secrets cannot be swapped between keys.

Sealed form: version (1 byte, 1), nonce (12 random bytes), ciphertext with its tag (16 bytes longer than the secret).
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
NONCE_BYTES = 12
PURPOSE = b"staddle: secrets of access keys, 1"
"""What the derived key is for: the cluster's secret serves other purposes too."""


class SealBroken(ValueError):
    """It was sealed for another access key, under another cluster's secret, or has changed since."""


class Sealer:
    """Seals and opens with one cluster's secret."""

    def __init__(self, cluster_secret: bytes) -> None:
        assert len(cluster_secret) >= 32
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=PURPOSE).derive(cluster_secret))

    def seal(self, access_key: str, secret_key: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return bytes((VERSION,)) + nonce + self._cipher.encrypt(nonce, secret_key.encode(), access_key.encode())

    def open(self, access_key: str, sealed: bytes) -> str:
        """Raises SealBroken."""
        if not sealed or sealed[0] != VERSION or len(sealed) <= 1 + NONCE_BYTES:
            raise SealBroken(f"the secret of access key {access_key} is sealed in a way that this Staddle doesn't know")
        nonce, encrypted = sealed[1:1 + NONCE_BYTES], sealed[1 + NONCE_BYTES:]
        try:
            secret_key = self._cipher.decrypt(nonce, encrypted, access_key.encode()).decode()
        except (InvalidTag, UnicodeDecodeError):
            secret_key = ""
        if not secret_key:
            raise SealBroken(f"the secret of access key {access_key} was not sealed for it with this cluster's secret")
        return secret_key


def seal(cluster_secret: bytes, access_key: str, secret_key: str) -> bytes:
    """For whoever seals one."""
    return Sealer(cluster_secret).seal(access_key, secret_key)
