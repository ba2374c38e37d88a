"""Which bucket a Host header means as a website. Pure.

`domains` are host names whose sub-domains are websites of buckets (``bucket.s3-website.example.com``); under a name of
`whole` the host itself is the bucket's name (``www.example.org``), as AWS has it for a domain of one's own; but not if it is
one of `s3`, the names of the S3 endpoint, or lies under one.
"""

import functools

from gateway.s3.names import HOSTS_REMEMBERED, bucket_of_host, is_bucket_name


@functools.lru_cache(maxsize=HOSTS_REMEMBERED)
def site_of_host(host: str, domains: tuple[str, ...], whole: tuple[str, ...], s3: tuple[str, ...] = ()) -> str:
    """The bucket, or "" for a host that is no website."""
    bucket = bucket_of_host(host, domains)
    if bucket or not whole:
        return bucket
    name = host_name(host)
    return name if _under(name, whole) and not _under(name, s3) and name not in domains and is_bucket_name(name) else ""


def _under(name: str, suffixes: tuple[str, ...]) -> bool:
    return name in suffixes or any(name.endswith(f".{suffix}") for suffix in suffixes)


def host_name(host: str) -> str:
    """Without the port, in lower case."""
    name = host.lower()
    before, colon, port = name.rpartition(":")
    return (before if colon and (port.isdigit() or not port) else name).removesuffix(".")
