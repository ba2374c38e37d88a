"""Who is who between machines: certificates that each process of a cluster makes for itself, and TLS 1.3 with them.

Everything comes from the cluster's secret. The key of the certificate authority is derived from it, so every machine has
the same authority without anybody handing it out, and whoever knows the secret is a member already. A process makes a key
of its own and a *leaf* certificate whose common name is its machine and role: ``n1/meta``, ``n1/node-2``,
``n1/gateway-1``. Both sides show one; `Link.peer` is the other's name. Keys live in memory only.

Clocks may differ by hours: a leaf begins a day before it is made. It ends after 30 days and is made anew after half of
them, when the next connection is begun or accepted; connections that are open stay open.
"""

import datetime
import hashlib
import os
import secrets
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PURPOSE = b"staddle: key of the certificate authority, 1"
"""What the derived key is for: the cluster's secret serves other purposes too."""

LEAF_S = 30 * 86_400.0
"""How long a leaf is valid: a stolen one is worthless after that."""

BACKDATED_S = 86_400.0
"""A leaf begins so long before it is made: for machines whose clocks are behind ours."""

CLOCK_BACK_S = 3600.0
"""Our own clock was set back further than this: the leaf begins too late for others, and is made anew."""

_AUTHORITY_FROM = datetime.datetime(2020, 1, 1)
_AUTHORITY_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59)
"""As good as for ever: the secret is what is replaced. Fixed, so that the certificate is the same bytes everywhere."""


class Peer(NamedTuple):
    """The name in a certificate, taken apart."""

    machine: str
    role: str


def peer_of(name: str) -> Peer:
    """``n1/node-2`` is the role node-2 of machine n1."""
    machine, _, role = name.partition("/")
    return Peer(machine, role)


class Authority:
    """The certificate authority of the cluster that has this secret."""

    def __init__(self, secret: bytes) -> None:
        assert len(secret) >= 32
        self._key = Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, salt=None, info=PURPOSE).derive(secret))
        public = self._key.public_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "staddle cluster")])
        self.certificate = (
            x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name).public_key(public)
            .serial_number(1).not_valid_before(_AUTHORITY_FROM).not_valid_after(_AUTHORITY_UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, None))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate: by it a join token knows the cluster."""
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).digest()

    def leaf(self, name: str, made_s: float) -> bytes:
        """A new key and its certificate, as PEM."""
        key = Ed25519PrivateKey.generate()
        made = datetime.datetime.fromtimestamp(made_s, datetime.UTC).replace(tzinfo=None)
        certificate = (
            x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name).public_key(key.public_key()).serial_number(secrets.randbits(127) | 1)
            .not_valid_before(made - datetime.timedelta(seconds=BACKDATED_S))
            .not_valid_after(made + datetime.timedelta(seconds=LEAF_S))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                           critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, None))
        return (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                + certificate.public_bytes(Encoding.PEM))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False,
        decipher_only=False)


class Tls:
    """The identity of one process. Contexts are asked for anew for each connection: they renew the leaf when it is due."""

    def __init__(self, secret: bytes, name: str, *, now: Callable[[], float] = time.time) -> None:
        """`name` is MACHINE/ROLE; at most 64 characters, as X.509 has it."""
        self.name, self.authority, self._now = name, Authority(secret), now
        self._server, self._client = self._context(ssl.PROTOCOL_TLS_SERVER), self._context(ssl.PROTOCOL_TLS_CLIENT)
        self._server.num_tickets = 0              # a resumed session would outlive its certificate
        self._more: list[ssl.SSLContext] = []
        self._renew()

    @property
    def server(self) -> ssl.SSLContext:
        """For who listens. One context for ever: renewing it is enough for connections accepted later."""
        self.renew_if_due()
        return self._server

    @property
    def client(self) -> ssl.SSLContext:
        self.renew_if_due()
        return self._client

    def open_server(self) -> ssl.SSLContext:
        """For who listens to strangers too: the other side may show a certificate of the cluster, or none."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        self._more.append(context)
        self._renew()
        return context

    def renew_if_due(self) -> None:
        """Cheap when it isn't: called for each connection."""
        if not -CLOCK_BACK_S < self._now() - self._made_s < LEAF_S / 2:
            self._renew()

    def _renew(self) -> None:
        self._made_s = self._now()
        pem = self.authority.leaf(self.name, self._made_s)
        for context in (self._server, self._client, *self._more):
            _load(context, pem)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False            # who it is says the certificate's name, not the address we dialled
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority.certificate.public_bytes(Encoding.DER))
        return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """The key and certificate into a context. OpenSSL takes them from a file only, so one that exists in memory."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("staddle-leaf"), "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.NamedTemporaryFile() as named:  # readable by us alone, and gone at once
        named.write(pem)
        named.flush()
        context.load_cert_chain(named.name)


def name_in(certificate: Mapping[str, Any] | None) -> str:
    """The common name of what `getpeercert` gives; "" if there is none."""
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                return str(value)
    return ""
