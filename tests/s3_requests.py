"""S3Request values for tests, from a method, a URL as it goes over the wire, and headers."""

from urllib.parse import unquote, urlsplit

from gateway.http.body import NO_BODY
from gateway.s3.request import S3Request, decode_query


def s3_request(
    method: str, url: str, headers: dict[str, str] | None = None, *, bucket_of_host: str = "", now_ms: int = 0
) -> S3Request:
    """As the HTTP edge makes it. `bucket_of_host` for virtual-host style. A Host header is added if none is given."""
    parts = urlsplit(url)
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    sent.setdefault("host", parts.netloc)
    query: dict[str, str] = {}
    for name, value in decode_query(parts.query.encode()):
        query.setdefault(name, value)
    bucket, key = bucket_of_host, parts.path[1:]
    if not bucket_of_host:
        bucket, _, key = key.partition("/")
    return S3Request(
        id="TEST", method=method, raw_path=parts.path.encode(), raw_query=parts.query.encode(), headers=sent,
        query=query, bucket=unquote(bucket), key=unquote(key), host_style=bool(bucket_of_host), secure=False,
        remote="127.0.0.1", now_ms=now_ms, body=NO_BODY,
    )
