"""A signer for tests and benches, written from AWS's description, not from our verifier: the two check each other.

    sign_request(…)     headers with an Authorization of version 4
    presign(…)          a URL with a signature of version 4 in its query
    ChunkSigner         the body of a signed aws-chunked upload, chunk by chunk
    sign_request_v2(…), presign_v2(…)

Times are Unix seconds. URLs are as they go over the wire (percent-encoded).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import quote, unquote_to_bytes, urlsplit

EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"

V2_PARAMETERS = (
    "acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy",
    "requestPayment", "restore", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions",
    "website",
    "response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
    "response-content-type", "response-expires",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    access_key: str = "AKIDEXAMPLE"
    secret_key: str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY="
    region: str = "us-east-1"
    service: str = "s3"


def sign_request(
    method: str, url: str, headers: dict[str, str] | None = None, *, keys: Keys, now_s: float, payload: str = EMPTY,
    unsigned: Iterable[str] = (),
) -> dict[str, str]:
    """All headers to send, lower-case names. `payload` is for x-amz-content-sha256; `unsigned` names aren't signed."""
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    sent.setdefault("host", urlsplit(url).netloc)
    sent.setdefault("x-amz-date", amz_date(now_s))
    sent.setdefault("x-amz-content-sha256", payload)
    names = sorted(name for name in sent if name not in set(unsigned))
    canonical = canonical_request(method, url, {name: sent[name] for name in names}, sent["x-amz-content-sha256"])
    date = sent["x-amz-date"]
    signature = _hex(signing_key(keys, date[:8]), string_to_sign(keys, date, canonical))
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope(keys, date)}, SignedHeaders={';'.join(names)}, "
        f"Signature={signature}"
    )
    return sent


def presign(
    method: str, url: str, headers: dict[str, str] | None = None, *, keys: Keys, now_s: float,
    expires_s: int | str = 3600, payload: str = UNSIGNED, extra: dict[str, str] | None = None,
) -> str:
    """The URL; whoever uses it must send `headers`. `extra` are further query parameters, or replacements."""
    date = amz_date(now_s)
    sent = {"host": urlsplit(url).netloc, **{name.lower(): value for name, value in (headers or {}).items()}}
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{keys.access_key}/{scope(keys, date)}",
        "X-Amz-Date": date, "X-Amz-Expires": str(expires_s), "X-Amz-SignedHeaders": ";".join(sorted(sent)),
        **(extra or {}),
    }
    added = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items())
    unsigned_url = f"{url}{'&' if urlsplit(url).query else '?'}{added}"
    canonical = canonical_request(method, unsigned_url, sent, payload)
    signature = _hex(signing_key(keys, date[:8]), string_to_sign(keys, date, canonical))
    return f"{unsigned_url}&X-Amz-Signature={signature}"


def canonical_request(method: str, url: str, signed: dict[str, str], payload: str) -> str:
    parts = urlsplit(url)
    path = quote(unquote_to_bytes(parts.path or "/"), safe="/~")
    pairs = []
    for item in filter(None, parts.query.split("&")):
        name, _, value = item.partition("=")
        pairs.append((quote(unquote_to_bytes(name), safe="~"), quote(unquote_to_bytes(value), safe="~")))
    query = "&".join(f"{name}={value}" for name, value in sorted(pairs))
    lines = "".join(f"{name}:{_trimmed(signed[name])}\n" for name in sorted(signed))
    return f"{method}\n{path}\n{query}\n{lines}\n{';'.join(sorted(signed))}\n{payload}"


def string_to_sign(keys: Keys, date: str, canonical: str) -> str:
    return f"AWS4-HMAC-SHA256\n{date}\n{scope(keys, date)}\n{hashlib.sha256(canonical.encode('latin-1')).hexdigest()}"


def scope(keys: Keys, date: str) -> str:
    return f"{date[:8]}/{keys.region}/{keys.service}/aws4_request"


def signing_key(keys: Keys, day: str) -> bytes:
    key = f"AWS4{keys.secret_key}".encode()
    for part in (day, keys.region, keys.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def amz_date(now_s: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))


def signature_of(headers: dict[str, str]) -> str:
    return headers["authorization"].rpartition("Signature=")[2]


def _trimmed(value: str) -> str:
    while "  " in value:
        value = value.replace("  ", " ")
    return value.strip(" ")


def _hex(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("latin-1"), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class ChunkSigner:
    """`seed` is the signature of the request; `trailer` closes the body of the kind with trailers."""

    keys: Keys
    date: str
    seed: str
    previous: str = field(init=False)

    def __post_init__(self) -> None:
        self.previous = self.seed

    def signature(self, data: bytes) -> str:
        text = "\n".join((
            "AWS4-HMAC-SHA256-PAYLOAD", self.date, scope(self.keys, self.date), self.previous, EMPTY,
            hashlib.sha256(data).hexdigest(),
        ))
        self.previous = _hex(signing_key(self.keys, self.date[:8]), text)
        return self.previous

    def chunk(self, data: bytes) -> bytes:
        return f"{len(data):x};chunk-signature={self.signature(data)}\r\n".encode() + data + b"\r\n"

    def last(self) -> bytes:
        """Of the kind without trailers."""
        return self.chunk(b"")

    def last_with_trailers(self, trailers: dict[str, str]) -> bytes:
        head = f"0;chunk-signature={self.signature(b'')}\r\n"
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(trailers.items()))
        text = "\n".join((
            "AWS4-HMAC-SHA256-TRAILER", self.date, scope(self.keys, self.date), self.previous,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ))
        signature = _hex(signing_key(self.keys, self.date[:8]), text)
        lines = "".join(f"{name}:{value}\r\n" for name, value in trailers.items())
        return f"{head}{lines}x-amz-trailer-signature:{signature}\r\n\r\n".encode()


def sign_request_v2(
    method: str, url: str, headers: dict[str, str] | None = None, *, keys: Keys, now_s: float, bucket_of_host: str = ""
) -> dict[str, str]:
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    sent.setdefault("host", urlsplit(url).netloc)
    if "x-amz-date" not in sent:
        sent.setdefault("date", formatdate(now_s, usegmt=True))
    date = "" if "x-amz-date" in sent else sent["date"]
    sent["authorization"] = f"AWS {keys.access_key}:{_v2_signature(method, url, sent, date, keys, bucket_of_host)}"
    return sent


def presign_v2(
    method: str, url: str, headers: dict[str, str] | None = None, *, keys: Keys, expires_at_s: int | str,
    bucket_of_host: str = "",
) -> str:
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    signature = _v2_signature(method, url, sent, str(expires_at_s), keys, bucket_of_host)
    values = {"AWSAccessKeyId": keys.access_key, "Expires": str(expires_at_s), "Signature": signature}
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    return f"{url}{'&' if urlsplit(url).query else '?'}{added}"


def _v2_signature(method: str, url: str, sent: dict[str, str], date: str, keys: Keys, bucket_of_host: str) -> str:
    parts = urlsplit(url)
    amz = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent) if name.startswith("x-amz-"))
    resource = (f"/{bucket_of_host}" if bucket_of_host else "") + (parts.path or "/")
    chosen = []
    for item in filter(None, parts.query.split("&")):
        name, equals, value = item.partition("=")
        if name in V2_PARAMETERS:
            chosen.append(f"{name}{equals}{unquote_to_bytes(value).decode()}")
    if chosen:
        resource += "?" + "&".join(sorted(chosen))
    text = f"{method}\n{sent.get('content-md5', '')}\n{sent.get('content-type', '')}\n{date}\n{amz}{resource}"
    return base64.b64encode(hmac.new(keys.secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()
