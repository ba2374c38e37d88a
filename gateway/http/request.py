"""Exchange -> S3Request: names and values decoded once, raw bytes kept for signatures. Then frozen."""

from typing import TYPE_CHECKING

from gateway.s3.names import in_site, target
from gateway.s3.request import S3Request, decode_query

if TYPE_CHECKING:
    from gateway.http.asgi import AsgiExchange
    from gateway.http.exchange import Exchange


def s3_request(
    exchange: "Exchange | AsgiExchange", request_id: str, domains: tuple[str, ...], now_ms: int, site: str = "",
) -> S3Request:
    """`site`: the bucket whose website it is; queries mean nothing there.

    Raises S3Error InvalidURI, InvalidBucketName for a path that names nothing.
    """
    headers = exchange.headers
    bucket, key, host_style = in_site(site, exchange.target) if site else target(headers["host"], domains, exchange.target)
    query: dict[str, str] = {}
    if exchange.query and not site:
        for name, value in decode_query(exchange.query):
            query.setdefault(name, value)
    return S3Request(
        id=request_id, method=exchange.method, raw_path=exchange.target, raw_query=exchange.query, headers=headers,
        query=query, bucket=bucket, key=key, host_style=host_style, secure=exchange.secure, remote=exchange.remote,
        now_ms=now_ms, body=exchange.body, tls=exchange.cipher[1] if exchange.secure else "",
        arrived=exchange.arrived,
    )
