"""Which names may exist, and that a path is decoded exactly once."""

from urllib.parse import quote_from_bytes, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import S3Error
from gateway.s3.names import (
    CopySource,
    Target,
    bucket_of_host,
    check_bucket_name,
    check_key,
    is_bucket_name,
    listing_encode,
    parse_copy_source,
    target,
    uri_encode,
)

DOMAINS = ("s3.example.com", "localhost", "example.com")
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@pytest.mark.parametrize("name", ["abc", "a" * 63, "1.2.3", "a.b-c", "192.168.5.4a", "a--b", "x-s3"])
def test_allowed_bucket_names(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize("name", [
    "", "ab", "a" * 64, "Abc", "a_b", "-abc", "abc-", ".abc", "abc.", "a..b", "192.168.5.4", "xn--abc", "sthree-abc",
    "amzn-s3-demo-x", "abc-s3alias", "abc--ol-s3", "abc.mrap", "abc--x-s3", "abc--table-s3", "abc\n", "äbc", "a/b",
    "a b",
])
def test_refused_bucket_names(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        check_bucket_name(name)
    assert (caught.value.code, caught.value.detail) == ("InvalidBucketName", {"BucketName": name})


def test_key_length_is_in_bytes() -> None:
    check_key("é" * 512)
    for key in ("é" * 513, "a" * 1025):
        with pytest.raises(S3Error) as caught:
            check_key(key)
        assert caught.value.detail == {"Size": len(key.encode()), "MaxSizeAllowed": 1024}


@pytest.mark.parametrize(("path", "bucket", "key"), [
    (b"/", "", ""),
    (b"/b", "b", ""),
    (b"/b/", "b", ""),
    (b"/b/k", "b", "k"),
    (b"/b//k", "b", "/k"),
    (b"/b/a//b/", "b", "a//b/"),
    (b"/b/../c/./d", "b", "../c/./d"),
    (b"/b/a+b", "b", "a+b"),
    (b"/b/a%2Bb%20c%2Fd", "b", "a+b c/d"),
    (b"/b/%2541", "b", "%41"),
    (b"/b/%00%0a", "b", "\0\n"),
    ("/b/é".encode(), "b", "é"),
    (b"/b/%F0%9F%98%80", "b", "\U0001f600"),
])
def test_path_style(path: bytes, bucket: str, key: str) -> None:
    assert target("127.0.0.1:9000", DOMAINS, path) == Target(bucket, key, False)
    assert target("127.0.0.1:9000", (), path) == Target(bucket, key, False)


@pytest.mark.parametrize(("host", "bucket"), [
    ("b.localhost:9000", "b"),
    ("B.LocalHost", "b"),
    ("a.b.s3.example.com", "a.b"),
    ("b.s3.example.com.", "b"),
    ("localhost", ""),
    ("s3.example.com", ""),
    ("s3.example.com:443", ""),
    ("other.org", ""),
    ("notlocalhost", ""),
    ("[::1]:9000", ""),
    ("", ""),
])
def test_host_style(host: str, bucket: str) -> None:
    assert bucket_of_host(host, DOMAINS) == bucket
    if bucket:
        assert target(host, DOMAINS, b"//x/%2F") == Target(bucket, "/x//", True)
        assert target(host, DOMAINS, b"/") == Target(bucket, "", True)


@pytest.mark.parametrize("path", [b"/b/%", b"/b/%4", b"/b/%zz", b"/b/\xff", b"/b/%C3", b"/b/%ED%A0%80", b"", b"b"])
def test_broken_paths(path: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        target("h", DOMAINS, path)
    assert caught.value.code == "InvalidURI"


@pytest.mark.parametrize("path", [b"//", b"//k"])
def test_an_empty_bucket_is_no_service(path: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        target("h", DOMAINS, path)
    assert caught.value.code == "InvalidBucketName"


@given(KEYS)
def test_key_survives_path(key: str) -> None:
    assert target("h", DOMAINS, b"/b/" + uri_encode(key.encode(), keep_slash=True).encode()).key == key
    assert target("h", DOMAINS, b"/b/" + uri_encode(key.encode()).encode()).key == key
    assert unquote_plus(listing_encode(key)) == unquote(listing_encode(key)) == key


@given(st.binary(max_size=40), st.booleans())
def test_uri_encoding_is_as_sigv4_says(raw: bytes, keep_slash: bool) -> None:
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" + (b"/" if keep_slash else b"")
    assert uri_encode(raw, keep_slash) == "".join(chr(c) if c in safe else f"%{c:02X}" for c in raw)


@pytest.mark.parametrize(("value", "expected"), [
    ("/bkt/k", CopySource("bkt", "k", None)),
    ("bkt/k", CopySource("bkt", "k", None)),
    ("bkt%2Fa%2Fb", CopySource("bkt", "a/b", None)),
    ("/bkt//k", CopySource("bkt", "/k", None)),
    ("/bkt/k?versionId=v1", CopySource("bkt", "k", "v1")),
    ("/bkt/k%3FversionId=v1", CopySource("bkt", "k?versionId=v1", None)),
    ("/bkt/k%3Fa?versionId=null", CopySource("bkt", "k?a", "null")),
    ("/bkt/a+b%2Bc%2541", CopySource("bkt", "a+b+c%41", None)),
    ("/bkt/" + "é".encode().decode("latin-1"), CopySource("bkt", "é", None)),
])
def test_copy_source(value: str, expected: CopySource) -> None:
    assert parse_copy_source(value) == expected


@given(KEYS)
def test_copy_source_of_any_key(key: str) -> None:
    assert parse_copy_source("/bkt/" + quote_from_bytes(key.encode())) == CopySource("bkt", key, None)


@pytest.mark.parametrize("value", [
    "", "/", "bkt", "bkt/", "/bkt/", "BKT/k", "/bkt/%zz", "/bkt/%FF", "/bkt/k?versionId=", "/bkt/" + "k" * 1025,
    "arn:aws:s3:us-east-1:1:accesspoint/p/object/k",
])
def test_bad_copy_source(value: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_copy_source(value)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.detail["ArgumentName"] == "x-amz-copy-source"


def test_is_bucket_name_agrees_with_check() -> None:
    assert is_bucket_name("abc")
    assert not is_bucket_name("-")
