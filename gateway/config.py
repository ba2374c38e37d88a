"""All settings of `staddle serve`, with what each does: docs/CONFIGURATION.md is printed from this file."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from consensus.core.events import EVENT_QUEUE_MAX
from consensus.core.settings import Size, parse_size
from gateway.events.addresses import AllowList
from gateway.events.targets import Webhook, is_name
from gateway.identities import Identity
from gateway.s3.errors import S3Error
from gateway.s3.headers import STORAGE_CLASSES
from gateway.s3.policy.read import MANAGED, of_identity

CHUNK_BYTES_MIN = 1 << 20
CHUNK_BYTES_MAX = 1 << 30
"""Below, the list of a large object's chunks grows out of proportion; above, a repair moves too much at once."""

ROOT_VARIABLES = frozenset({"STADDLE_ROOT_ACCESS_KEY", "STADDLE_ROOT_SECRET_KEY", "STADDLE_CLUSTER_SECRET", "STADDLE_CONFIG",
                            "STADDLE_ENDPOINT"})
"""Variables that are no settings: keys are secrets and have no place in a file of settings."""

_REGION = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""It stands between slashes in every signature's scope."""

_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Host headers are compared in lower case."""

_TOKEN = re.compile(r"[!-~]{16,200}")
"""Shorter ones can be guessed; a header takes no others unharmed."""

_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")

_STORAGE_CLASS = re.compile(r"[A-Z0-9_]{1,64}")
"""It stands in XML, headers and settings of lifecycles."""

_NAME = re.compile(r"[a-z0-9-]{1,32}")
"""Of a machine: it stands in certificates, file names and log lines."""

ROLES = ("meta", "node", "gateway")

DATA_FOLDERS_MAX = 99
DOOR_PORT = 100
"""The ports of a machine in a cluster, counted from that of `cluster_listen`: 0 the metadata member, 1 to 99 the storage nodes,
100 the door (gateway/cluster/door.py), above it the gateway workers."""

_LIMITS = {"copies": (1, 9), "meta_members": (1, 9), "workers": (0, 256), "connections_max": (1, 1_000_000),
           "requests_max": (1, 1_000_000),
           "shutdown_seconds": (1, 3600), "read_grace_seconds": (0, 604_800), "upload_expire_days": (0, 36_500),
           "lifecycle_day_seconds": (1, 86_400), "compact_dead_percent": (5, 95), "scrub_interval_hours": (0, 24 * 3650),
           "log_delivery_seconds": (1, 86_400), "event_queue_max": (1, 10_000_000), "event_retention_hours": (1, 24 * 14)}
"""Least and greatest values: above, it is a slip of the finger and would end in a machine without memory."""


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Raises ValueError, with a sentence, for settings that contradict each other."""

    data: Annotated[tuple[Path, ...], _about(
        "Data folders. The first holds the metadata too; each is a storage node, so give one for each disk.")] = (Path("data"),)
    listen: Annotated[str, _about("HOST:PORT of the S3 endpoint. Port 0 takes a free one.")] = "127.0.0.1:9000"
    region: Annotated[str, _about("The region that clients must sign for, and that buckets report.")] = "us-east-1"
    any_region: Annotated[bool, _about("Accept signatures for any region, for clients that cannot be configured.")] = False
    domains: Annotated[tuple[str, ...], _about(
        "Host names under which buckets are sub-domains: with \"s3.example.com\", bucket.s3.example.com is a bucket.")] = ()
    website_domains: Annotated[tuple[str, ...], _about(
        "Host names under which buckets are websites: with \"s3-website.example.com\", bucket.s3-website.example.com shows the "
        "pages of a bucket that has a website configuration. Give one for each form that clients use, "
        "\"s3-website-us-east-1.example.com\" for instance.")] = ()
    website_hosts: Annotated[tuple[str, ...], _about(
        "Domains of websites' own: with \"example.org\", requests for example.org or www.example.org are for the website of the "
        "bucket that is called so. Names of the S3 endpoint that lie under one must be in `domains`.")] = ()
    tls_cert: Annotated[Path | None, _about("PEM file with the certificate chain of the S3 endpoint.")] = None
    tls_key: Annotated[Path | None, _about("PEM file with the certificate's private key.")] = None
    workers: Annotated[int, _about("Gateway processes. 0: one for each core but one; two on two cores.")] = 0
    chunk_bytes: Annotated[Size, _about(
        "Objects are cut into chunks of this size, 1MiB to 1GiB. It may change at any time: "
        "what is stored stays readable.")] = Size(64 << 20)
    replication: Annotated[Literal["sync", "async", "all"], _about(
        "When a write is acknowledged: \"sync\" with a majority of its copies on disk, \"async\" with one, "
        "\"all\" with all.")] = "sync"
    copies: Annotated[int, _about("Copies of each chunk, as far as there are storage nodes. 1 to 9.")] = 3
    signature_v2: Annotated[bool, _about(
        "Accept the old signature version 2, which boto3 still uses for presigned links.")] = True
    object_ownership: Annotated[Literal["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"], _about(
        "What holds in a bucket whose ownership controls were never set: AWS's default of today, which turns access lists off, "
        "or another one. ObjectWriter is the classic one, and is shown as none.")] = "BucketOwnerEnforced"
    block_public_access: Annotated[bool, _about(
        "What holds in a bucket whose public access block was never set: all four switches on, or none.")] = True
    default_encryption: Annotated[bool, _about(
        "What a bucket answers whose encryption was never set: AES256 as AWS does today, or none. It shapes this answer only: "
        "Staddle does not encrypt yet, so the default is none.")] = False
    connections_max: Annotated[int, _about("Client connections of one gateway process; more are closed at once.")] = 4096
    requests_max: Annotated[int, _about(
        "Requests under way in one gateway process; more are answered 503 SlowDown, which clients try again.")] = 1024
    shutdown_seconds: Annotated[int, _about(
        "How long requests under way may take to finish when the server is stopped.")] = 30
    metrics_token: Annotated[str | None, _about(
        "A token of at least 16 characters that may read /-/metrics (`Authorization: Bearer`), as Prometheus sends it. "
        "An admin's signature always may.")] = None
    metrics_listen: Annotated[str | None, _about(
        "HOST:PORT of a listener that shows /-/metrics without credentials, and nothing else. Strangers must not reach it."
    )] = None
    access_log: Annotated[Path | None, _about(
        "File for the S3 server access log, a line for each request in AWS's format. All workers append to it; it may be "
        "moved away at any time.")] = None
    log_delivery_seconds: Annotated[int, _about(
        "How often the records of buckets with logging (PutBucketLogging) are delivered to their target buckets: an object for "
        "each of them from each worker that has any. 1 to 86400.")] = 300
    read_grace_seconds: Annotated[int, _about(
        "How long a client that has begun to read an object may go on after it was deleted or replaced: the space is kept "
        "for so long. 0 to 604800 (a week).")] = 3600
    scrub_interval_hours: Annotated[int, _about(
        "How long after a scrub the next one begins: it reads every chunk from the disk and compares it with its name. "
        "14 days, as is usual for disks; 0: only when asked (`staddle scrub`).")] = 14 * 24
    scrub_bytes_per_second: Annotated[Size, _about(
        "A scrub reads at most so much of each data folder a second, and gives way to clients. At 20MiB, 1 TB takes 14 "
        "hours. 0: no limit.")] = Size(20 << 20)
    repair_bytes_per_second: Annotated[Size, _about(
        "Each storage node fetches at most so much a second to make copies that are lacking, or that belong there since nodes "
        "have come or gone; while clients are served, in half of the time. At 64MiB, 1 TB takes 4.5 hours. 0: no limit."
    )] = Size(64 << 20)
    compact_dead_percent: Annotated[int, _about(
        "The space of deleted small objects comes back by copying what lives beside them: once so many per cent of a segment "
        "are dead (any, when space is short). Less gives back more and copies more. 5 to 95.")] = 40
    upload_expire_days: Annotated[int, _about(
        "Multipart uploads that were begun so many days ago and are neither completed nor aborted are aborted, and their "
        "parts deleted. 0: never, as on AWS, where parts that were acknowledged stay until somebody deletes them or a "
        "lifecycle rule does.")] = 0
    storage_classes: Annotated[tuple[str, ...], _about(
        "Names besides STANDARD that objects may be stored under, or moved to by a lifecycle. They are labels: bytes lie where "
        "they lay, and read at once. An object keeps a name that is taken off the list.")] = STORAGE_CLASSES
    archive_classes: Annotated[tuple[str, ...], _about(
        "Storage classes whose objects must be restored (RestoreObject, done at once) before they can be read or copied, as "
        "GLACIER and DEEP_ARCHIVE are on AWS. None: all are read at any time.")] = ()
    lifecycle_day_seconds: Annotated[int, _about(
        "How long a day of a lifecycle lasts. Less than 86400 is for trying rules out: what has \"Days\" comes so much sooner, "
        "nothing is rounded up to midnight, and AWS's least times and sizes for a move do not hold. Dates stay dates, and what "
        "clients are told about expiration stays in real days.")] = 86_400
    webhooks: Annotated[dict[str, Webhook], _about(
        "Targets of event notifications, as [webhooks.NAME] tables: url, authorization (a header), secret (signs what is sent), "
        "ca (PEM file), timeout_seconds (10), connections (4), accounts (whose buckets may tell it; all). Buckets' notifications "
        "name them by ARNs that end in NAME.")] = {}
    webhook_allow: Annotated[tuple[str, ...], _about(
        "Networks (\"10.1.0.0/16\") and host names that webhooks may reach although their addresses are not public: loopback, "
        "private and link-local ones are refused otherwise, whatever a name resolves to.")] = ()
    event_queue_max: Annotated[int, _about(
        "Most events that wait for one target. A full queue drops its oldest for the newest.")] = EVENT_QUEUE_MAX
    event_retention_hours: Annotated[int, _about(
        "For how long a target is tried again; what is older is given up. 1 to 336.")] = 24
    name: Annotated[str | None, _about(
        "Of this machine, one that no other in the cluster has: 1 to 32 of a-z, 0-9 and \"-\". Kept in the data folder from "
        "the first start as a cluster on. Without it: the host's name.")] = None
    cluster_listen: Annotated[str | None, _about(
        "HOST:PORT where the other machines of a cluster reach this one; with it, this machine is part of a cluster or may "
        "become one. The ports above PORT are used too: PORT+1 and on by the storage nodes, PORT+100 and on by machines that "
        "join and by the gateways. All of them take mutual TLS only.")] = None
    cluster_address: Annotated[str | None, _about(
        "Host name or address that other machines dial, where it is not the host in cluster_listen.")] = None
    peers: Annotated[tuple[str, ...], _about(
        "HOST:PORT of other machines of the cluster (their cluster addresses; this machine's own may be among them). An empty "
        "data folder asks them to join, and never begins a cluster of its own.")] = ()
    initial: Annotated[bool, _about(
        "An empty data folder may begin a cluster although it has peers, once every one of them has answered that it has "
        "none.")] = False
    roles: Annotated[tuple[str, ...], _about(
        "What this machine does: \"meta\" (metadata), \"node\" (storage nodes), \"gateway\" (S3).")] = ROLES
    zone: Annotated[str | None, _about(
        "What fails together with this machine (a rack, a room): copies go to different zones where possible. Without it: the "
        "machine's name.")] = None
    meta_members: Annotated[int, _about(
        "Machines with the role meta that vote, 3 or 5: two of 3, or three of 5, must live. Further ones follow, and take the "
        "place of one that is removed.")] = 3
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _about(
        "The least important lines that are logged.")] = "info"
    identity: Annotated[tuple[Identity, ...], _about(
        "Identities besides the root key, as [[identity]] tables: name, account, user_id (canonical id), display_name, "
        "email, access_key, secret_key, admin, policies: a list of JSON (after `name:` if it has a name), AmazonS3ReadOnlyAccess "
        "or AmazonS3FullAccess. Without any, an identity may do all that its account may.")] = ()

    def _check_metrics_listen(self) -> None:
        if self.metrics_listen is None:
            return
        host, port = parse_listen(self.metrics_listen, "metrics_listen")
        if not port:
            raise ValueError("setting 'metrics_listen': port 0 would be another one in each worker; choose one")
        own_host, own_port = parse_listen(self.listen)
        if port == own_port and (host == own_host or {host, own_host} & {"0.0.0.0", "::"}):  # noqa: S104 - compared, not bound
            raise ValueError(f"setting 'metrics_listen': port {port} is that of 'listen', whose clients would get metrics")

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("setting 'data': at least one data folder is needed")
        places = [Path(os.path.abspath(folder)) for folder in self.data]
        if len(set(places)) != len(places):
            raise ValueError("setting 'data': the same folder is given twice; copies on it would be one copy")
        for place in places:
            if inside := next((other for other in places if other in place.parents), None):
                raise ValueError(f"setting 'data': {place} lies inside {inside}; give each folder a place of its own")
        if not _REGION.fullmatch(self.region):
            raise ValueError(f"setting 'region': {self.region!r} is not a name of letters, digits, '-', '_' and '.'")
        for name in ("domains", "website_domains", "website_hosts"):
            for domain in getattr(self, name):
                if not _DOMAIN.fullmatch(domain):
                    raise ValueError(f"setting {name!r}: {domain!r} is not a host name in lower case, such as s3.example.com")
        if both := set(self.domains) & set(self.website_domains):
            raise ValueError(f"setting 'website_domains': {min(both)!r} is in 'domains' too; a bucket there would be both")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("settings 'tls_cert' and 'tls_key' belong together: give both or none")
        if not CHUNK_BYTES_MIN <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise ValueError(f"setting 'chunk_bytes': {self.chunk_bytes} is not between 1MiB and 1GiB")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"setting {name!r}: {getattr(self, name)} is not between {least} and {most}")
        for storage_class in self.storage_classes:
            if not _STORAGE_CLASS.fullmatch(storage_class):
                raise ValueError(f"setting 'storage_classes': {storage_class!r} is not 1 to 64 of A-Z, 0-9 and '_'")
        for storage_class in self.archive_classes:
            if storage_class not in self.storage_classes:
                raise ValueError(f"setting 'archive_classes': {storage_class!r} is not among 'storage_classes'")
        parse_listen(self.listen)
        self._check_cluster()
        if self.metrics_token is not None and not _TOKEN.fullmatch(self.metrics_token):
            raise ValueError("setting 'metrics_token': a token has 16 to 200 printable characters and no blanks")
        self._check_metrics_listen()
        for name in self.webhooks:
            if not is_name(name):
                raise ValueError(f"setting 'webhooks': {name!r} is not 1 to 80 letters, digits, '-' and '_'")
        try:
            AllowList(self.webhook_allow)
        except ValueError as error:
            raise ValueError(f"setting 'webhook_allow': {error}") from None
        seen: set[str] = set()
        for identity in self.identity:
            if identity.access_key in seen:
                raise ValueError(f"setting 'identity': the access key {identity.access_key!r} is given twice")
            seen.add(identity.access_key)
            for policy in identity.policies:
                try:
                    of_identity(policy)
                except S3Error as error:      # to leave it out would give more than was meant
                    raise ValueError(f"setting 'identity': a policy of {identity.name!r} is neither JSON nor one of "
                                     f"{', '.join(MANAGED)}: {error.message}") from None

    def _check_cluster(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(f"setting 'name': {self.name!r} is not 1 to 32 of a-z, 0-9 and '-'")
        for role in self.roles:
            if role not in ROLES:
                raise ValueError(f"setting 'roles': {role!r} is not one of 'meta', 'node', 'gateway'")
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise ValueError("setting 'roles': give each role at most once, and at least one")
        if self.meta_members % 2 == 0:
            raise ValueError(f"setting 'meta_members': {self.meta_members} members bear no more losses than one less; give an "
                             "odd number")
        for peer in self.peers:
            if not parse_listen(peer, "peers")[1]:
                raise ValueError(f"setting 'peers': {peer!r} has no port")
        if self.cluster_listen is None:
            for name, given in (("cluster_address", self.cluster_address), ("peers", self.peers), ("initial", self.initial),
                                ("roles", set(self.roles) != set(ROLES))):
                if given:
                    raise ValueError(f"setting {name!r}: it is of use only in a cluster, with 'cluster_listen'")
            return
        host, port = parse_listen(self.cluster_listen, "cluster_listen")
        last = port + DOOR_PORT + self.gateway_workers
        if not port or last > 65535:
            raise ValueError(f"setting 'cluster_listen': the ports from {port} to {last} are used; choose a lower one, not 0")
        if len(self.data) > DATA_FOLDERS_MAX:
            raise ValueError(f"setting 'data': a machine of a cluster has at most {DATA_FOLDERS_MAX} data folders")
        if host in ("0.0.0.0", "::") and self.cluster_address is None:  # noqa: S104 - compared, not bound
            raise ValueError("setting 'cluster_address': others cannot dial the host in 'cluster_listen'; give a name or an "
                             "address of this machine")
        if self.cluster_address is not None and not _HOST.fullmatch(self.cluster_address):
            raise ValueError(f"setting 'cluster_address': {self.cluster_address!r} is not a host name or address")

    @property
    def gateway_workers(self) -> int:
        cores = os.cpu_count() or 1
        return self.workers or max(cores - 1, min(cores, 2))


SECRETS = frozenset({"secret_key", "metrics_token", "authorization", "secret", "url"})
"""Names of values that are never shown. URLs of webhooks end in secrets, as a rule."""


def without_secrets(config: Config) -> dict[str, Any]:
    """Setting to value, as JSON has them, with every secret masked."""
    def masked(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: "***" if name in SECRETS and inner else masked(inner) for name, inner in value.items()}
        return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value

    shown: dict[str, Any] = masked(msgspec.to_builtins(
        config, enc_hook=lambda value: int(value) if isinstance(value, int) else str(value)))
    return shown


def parse_listen(text: str, setting: str = "listen") -> tuple[str, int]:
    """Host and port. Raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"setting {setting!r}: {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


class Described(NamedTuple):
    """A setting as documentation shows it."""

    name: str
    kind: str
    default: str
    about: str


def described() -> list[Described]:
    """Every setting in order, from the struct itself."""
    found = []
    for field in msgspec.structs.fields(Config):
        annotated = get_type_hints(Config, include_extras=True)[field.name]
        kind, about = get_args(annotated)[0], get_args(annotated)[1].description
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        found.append(Described(field.name, _kind_text(kind), _default_text(field.name, default), about))
    return found


def _kind_text(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) is dict:
        return "tables"
    if get_origin(kind) is tuple:
        return "tables" if get_args(kind)[0] is Identity else "list"
    for known, text in ((bool, "true or false"), (Size, "size"), (int, "number"), (str, "text"), (str | None, "text")):
        if kind == known:
            return text
    return "path"


def _default_text(name: str, default: Any) -> str:
    if isinstance(default, Size):
        return f"{default >> 20}MiB"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | dict):
        return ", ".join(map(str, default)) or "none"
    return "none" if default is None else str(default)


__all__ = [
    "CHUNK_BYTES_MAX", "CHUNK_BYTES_MIN", "ROOT_VARIABLES", "Config", "Described", "Size", "described", "parse_listen",
    "parse_size", "without_secrets",
]
