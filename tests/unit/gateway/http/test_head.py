"""A head's meaning, as a table."""

import pytest

from gateway.http.head import Head, read_head, size_of
from gateway.s3.errors import S3Error


@pytest.mark.parametrize(("url", "headers", "version", "head"), [
    (b"/b/k?a=b?c", {"host": "a"}, "1.1", Head(b"/b/k", b"a=b?c", 0, False)),
    (b"/b//../%2F", {"host": "A.example:80"}, "1.1", Head(b"/b//../%2F", b"", 0, False)),
    (b"/", {"host": ""}, "1.1", Head(b"/", b"", 0, False)),
    (b"/", {}, "1.0", Head(b"/", b"", 0, False)),
    (b"/", {"host": "a", "content-length": "5", "expect": "100-Continue"}, "1.1", Head(b"/", b"", 5, True)),
    (b"/", {"host": "a", "content-length": "0", "expect": "100-continue"}, "1.1", Head(b"/", b"", 0, False)),
    (b"/", {"host": "a", "content-length": "5", "expect": "100-continue"}, "1.0", Head(b"/", b"", 5, False)),
    (b"/", {"host": "a", "content-length": "5", "expect": "tea"}, "1.1", Head(b"/", b"", 5, False)),
    (b"/", {"host": "a", "transfer-encoding": "Chunked"}, "1.1", Head(b"/", b"", None, False)),
    (b"HTTPS://a:9/b?c", {"host": "a:9"}, "1.1", Head(b"/b", b"c", 0, False)),
])
def test_good(url: bytes, headers: dict[str, str], version: str, head: Head) -> None:
    assert read_head(url, headers, version) == head
    assert "host" in headers


@pytest.mark.parametrize(("url", "headers", "version"), [
    (b"/", {}, "1.1"), (b"/", {"host": "a b"}, "1.1"), (b"/", {"host": "a,b"}, "1.1"), (b"/", {"host": "é"}, "1.1"),
    (b"/", {"host": "a/b"}, "1.0"), (b"/", {"host": "a"}, "2.0"), (b"*", {"host": "a"}, "1.1"), (b"", {"host": "a"}, "1.1"),
    (b"b/k", {"host": "a"}, "1.1"), (b"http://b/", {"host": "a"}, "1.1"), (b"http://a", {"host": "a"}, "1.1"),
    (b"file:///etc", {"host": "a"}, "1.1"), (b"/#a", {"host": "a"}, "1.1"), (b"/?a#b", {"host": "a"}, "1.1"),
    (b"/", {"host": "a", "transfer-encoding": "identity"}, "1.1"), (b"/", {"transfer-encoding": "chunked"}, "1.0"),
    (b"/", {"host": "a", "transfer-encoding": "chunked,chunked"}, "1.1"),
])
def test_refused(url: bytes, headers: dict[str, str], version: str) -> None:
    with pytest.raises(S3Error, match=r"BadRequest|InvalidURI"):
        read_head(url, headers, version)


def test_size() -> None:
    assert size_of(b"/abc", {"host": "a", "x-y": ""}) == 4 + 9 + 7
