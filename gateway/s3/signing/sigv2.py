"""Signature version 2, the arithmetic: what is signed, and the comparison. Pure functions.

It is old, and alive: boto3 still presigns with it by default. It covers method, Content-MD5, Content-Type, date, every
``x-amz-*`` header, the path, and those query parameters that choose an operation or change the answer; it covers
neither the body nor the rest of the query.

Source: "Signing and authenticating REST requests (AWS signature version 2)".
"""

import base64
import hmac
from collections.abc import Mapping

from gateway.s3.operations import SUBRESOURCES
from gateway.s3.request import S3Request, decode_query

_DOCUMENTED = frozenset((
    # The documented sub-resources, with those that SDKs' version 2 signers add.
    "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location",
    "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
    "restore", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId",
    "versioning", "versions", "website",
    # They replace headers of the answer.
    "response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
    "response-content-type", "response-expires",
))

SIGNED_PARAMETERS = _DOCUMENTED | SUBRESOURCES
"""Every sub-resource we know has to be signed, the ones younger than version 2 too: were they left out, whoever holds a
presigned PUT of an object could add ``&legal-hold`` to it and change another thing than the signer meant."""


def strings_to_sign(request: S3Request, headers: Mapping[str, str], expires: str | None) -> list[bytes]:
    """What the signer may have signed: usually one text. Bucket URLs have two, since signers disagree on the last slash
    of ``/bucket``, and both mean the same resource. Signers leave out sub-resources that are younger than they are;
    where that only means to read, and is no link that was handed out for something else, it is let pass.

    `headers` with those moved into a presigned URL's query; `expires` is that URL's, None for header authentication.
    """
    amz = sorted([name for name in headers if name[:6] == "x-amz-"])
    date = expires if expires is not None else "" if "x-amz-date" in headers else headers.get("date", "")
    positional = [headers.get(name, "").strip(" ") for name in ("content-md5", "content-type")]
    head = "\n".join([request.method, *positional, date, *[f"{name}:{headers[name].strip(' ')}" for name in amz]])
    parameters = [_parameters(request.raw_query, SIGNED_PARAMETERS)]
    if expires is None and request.method in ("GET", "HEAD"):
        documented = _parameters(request.raw_query, _DOCUMENTED)
        if documented != parameters[0]:
            parameters.append(documented)
    return [f"{head}\n{path}{query}".encode("latin-1", "replace") for path in _paths(request) for query in parameters]


def _paths(request: S3Request) -> list[str]:
    path = request.raw_path.decode("latin-1") or "/"
    if request.host_style:
        path = f"/{request.bucket}{path}"
    if request.bucket and not request.key:
        return [path, path[:-1] if path.endswith("/") else path + "/"]
    return [path]


def _parameters(raw_query: bytes, names: frozenset[str]) -> str:
    """``?acl&versionId=…``: sorted by name, values decoded, a name without "=" without it."""
    if not raw_query:
        return ""
    signed = []
    for item in raw_query.split(b"&"):
        for name, value in decode_query(item):
            if name in names:
                signed.append((name, f"{name}={value}" if b"=" in item else name))
    signed.sort(key=lambda pair: pair[0])
    if not signed:
        return ""
    return "?" + "&".join([text for _, text in signed]).encode("utf-8").decode("latin-1")


def matches(secret: str, text: bytes, signature: str) -> bool:
    """Constant time, on bytes."""
    expected = base64.b64encode(hmac.digest(secret.encode(), text, "sha1"))
    return hmac.compare_digest(expected, signature.encode("utf-8", "replace"))


def verify_policy(secret: str, policy: str, signature: str) -> bool:
    """A browser's POST form: the signature is over the base64 text of the policy, as sent."""
    return matches(secret, policy.encode("utf-8", "replace"), signature)
