"""Signed requests as bytes, made before the load starts, so that the generator only has to send them.

A small signer of its own (signature version 4, headers): the key is derived once, a request costs a few hashes.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(kw_only=True)
class Signer:
    host: str                     # with the port, as in the Host header
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    _keys: dict[str, bytes] = field(default_factory=dict)

    def request(self, method: str, path: str, *, query: str = "", body: bytes = b"", payload: str | None = None,
                headers: tuple[tuple[str, str], ...] = (), length: int | None = None) -> bytes:
        """Head and body of one request. `path` is decoded text; `query` is `name=value&…` already encoded and sorted.

        `payload` is what x-amz-content-sha256 says: the body's digest by default. With `length` the head announces so
        many bytes, and the caller sends them.
        """
        now = time.gmtime()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", now)
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        target = quote(path, safe="/-_.~")
        digest = payload or (hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256)
        signed = sorted([("host", self.host), ("x-amz-content-sha256", digest), ("x-amz-date", stamp), *headers])
        names = ";".join(name for name, _ in signed)
        canonical = "\n".join(
            [method, target, query, *[f"{name}:{value}" for name, value in signed], "", names, digest])
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._key(stamp[:8]), to_sign.encode(), "sha256").hexdigest()
        lines = [f"{method} {target}{'?' + query if query else ''} HTTP/1.1",
                 *[f"{name}: {value}" for name, value in signed],
                 f"authorization: AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, "
                 f"Signature={signature}"]
        announced = len(body) if length is None else length
        if announced or method in ("PUT", "POST"):
            lines.append(f"content-length: {announced}")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _key(self, date: str) -> bytes:
        if date not in self._keys:
            key = f"AWS4{self.secret_key}".encode()
            for step in (date, self.region, "s3", "aws4_request"):
                key = hmac.new(key, step.encode(), "sha256").digest()
            self._keys[date] = key
        return self._keys[date]
