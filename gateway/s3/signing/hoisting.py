"""Headers that the signer of a presigned URL moved into its query.

Whoever opens such a URL sends no headers of ours, so signers put ``x-amz-*`` headers into the query, where the
signature covers them all the same. Only presigned requests are read so: elsewhere the query is no place for headers.
"""

from gateway.s3.request import S3Request

_V4_PARAMETERS = frozenset((
    "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token", "x-amz-signature",
    "x-amz-signedheaders",
))

_NO_VALUES = frozenset(("x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"))


def effective_headers(request: S3Request) -> dict[str, str]:
    """The headers with those from a presigned URL's query; a header that was sent wins over the parameter.

    Checksums that stand only in the query stay out: the JavaScript SDK puts the checksum of an *empty* body there, so
    enforcing it would refuse every upload that it presigns.
    """
    query = request.query
    if not query:
        return request.headers
    if "X-Amz-Signature" in query:
        if len(query) == 6 and "X-Amz-Credential" in query:
            return request.headers            # nothing but the six parameters of the signature itself
        hoisted = {
            name.lower(): _as_header(value) for name, value in query.items()
            if name[:6].lower() == "x-amz-" and name.lower() not in _V4_PARAMETERS and not _is_checksum(name.lower())
        }
    elif "Signature" in query:
        hoisted = {name: value for name, value in _hoisted_by_v2(request).items() if not _is_checksum(name)}
    else:
        return request.headers
    return {**hoisted, **request.headers} if hoisted else request.headers


def signed_by_v2(request: S3Request) -> dict[str, str]:
    """All headers that a presigned URL of version 2 is signed over, checksums too."""
    return {**_hoisted_by_v2(request), **request.headers}


def _hoisted_by_v2(request: S3Request) -> dict[str, str]:
    """Version 2 signers move Content-Type and Content-MD5 as well."""
    return {
        name.lower(): _as_header(value) for name, value in request.query.items()
        if name[:6].lower() == "x-amz-" or name.lower() in ("content-type", "content-md5")
    }


def _is_checksum(name: str) -> bool:
    """A value, or what goes with one; not what asks for checksums (mode) or chooses those of an upload."""
    return (name.startswith("x-amz-checksum-") and name not in _NO_VALUES) or name == "x-amz-sdk-checksum-algorithm"


def _as_header(value: str) -> str:
    """A decoded query value in the form in which headers come: UTF-8 bytes seen as latin-1."""
    return value if value.isascii() else value.encode("utf-8").decode("latin-1")
