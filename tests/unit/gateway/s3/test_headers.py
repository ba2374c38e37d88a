"""Headers: what is stored comes back, nothing breaks a response apart, nothing is dropped in silence."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3 import headers, tags
from gateway.s3.errors import S3Error
from gateway.s3.headers import Stored


def refused(call) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call()
    return caught.value


def test_everything_that_is_stored_comes_back() -> None:
    sent = {
        "host": "h", "content-length": "5", "authorization": "secret",
        "content-type": "text/plain; charset=utf-8", "cache-control": "no-cache", "content-encoding": "gzip",
        "content-disposition": 'attachment; filename="\xe9"', "content-language": "de, en", "expires": "never",
        "x-amz-meta-under_score": "1", "x-amz-meta-empty": "", "x-amz-meta-b": " a , b\xc3\xa9\t",
        "x-amz-website-redirect-location": "/there", "x-amz-tagging": "a=1&b=2", "x-amz-storage-class": "STANDARD_IA",
    }
    back = dict(headers.given_back(headers.stored(sent), {}))
    for name in ("host", "content-length", "authorization", "x-amz-tagging"):
        del sent[name]
    assert back == {**sent, "x-amz-tagging-count": "2"}


def test_defaults() -> None:
    assert headers.stored({}) == Stored("binary/octet-stream", (), (), (), "STANDARD")
    assert headers.stored({"content-type": ""}).content_type == "binary/octet-stream"
    assert headers.given_back(headers.stored({}), {}) == [("content-type", "binary/octet-stream")]


@pytest.mark.parametrize(("sent", "kept"), [
    ("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), ("AWS-Chunked", None),
    ("gzip, aws-chunked, br", "gzip,br"), ("gzip, br", "gzip, br"), ("", None), ("aws-chunked,", None),
])
def test_aws_chunked_is_never_stored(sent: str, kept: str | None) -> None:
    assert dict(headers.stored({"content-encoding": sent}).headers).get("content-encoding") == kept


def test_metadata_is_limited() -> None:
    fits = {"x-amz-meta-a": "x" * 2000, "x-amz-meta-bcd": "y" * 44}
    assert len(headers.stored(fits).metadata) == 2
    error = refused(lambda: headers.stored({**fits, "x-amz-meta-e": ""}))
    assert (error.code, error.detail) == ("MetadataTooLarge", {"Size": 2049, "MaxSizeAllowed": 2048})


@pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "a\x1fb", "a\x7fb"])
@pytest.mark.parametrize("name", [
    "content-type", "cache-control", "content-encoding", "x-amz-meta-a", "x-amz-website-redirect-location",
])
def test_control_characters_do_not_get_in(name: str, bad: str) -> None:
    value = f"/{bad}" if name.endswith("location") else bad
    assert refused(lambda: headers.stored({name: value})).code == "InvalidArgument"


def test_control_characters_do_not_get_out() -> None:
    query = {"response-content-type": "text/html\r\nset-cookie: a"}
    assert refused(lambda: headers.given_back(headers.stored({}), query)).code == "InvalidArgument"


def test_overrides() -> None:
    attributes = headers.stored({"content-type": "a/b", "expires": "x", "x-amz-meta-k": "v"})
    query = {"response-content-type": "c/d", "response-content-disposition": "attachment; filename=é",
             "response-expires": "", "versionId": "1"}
    assert headers.given_back(attributes, query) == [
        ("expires", "x"), ("x-amz-meta-k", "v"), ("content-type", "c/d"),
        ("content-disposition", "attachment; filename=" + "é".encode().decode("latin-1")),
    ]
    assert refused(lambda: headers.given_back(attributes, query, anonymous=True)).code == "InvalidRequest"
    assert headers.given_back(attributes, {"versionId": "1"}, anonymous=True)
    assert refused(lambda: headers.given_back(attributes, {"response-other": "z"})).code == "InvalidArgument"


@given(st.text(), st.sampled_from(["content-type", "cache-control", "expires", "content-language"]))
def test_an_override_is_a_safe_latin_1_line_or_an_error(text: str, name: str) -> None:
    try:
        given_back = headers.given_back(headers.stored({}), {f"response-{name}": text})
    except (S3Error, UnicodeEncodeError):    # the latter only for lone surrogates, which no request can hold
        return
    for _, value in given_back:
        assert not set(value.encode("latin-1")) & {*range(9), *range(10, 32), 127}


@pytest.mark.parametrize("value", ["x", "ftp://a", ""])
def test_redirect_location(value: str) -> None:
    assert refused(lambda: headers.stored({"x-amz-website-redirect-location": value})).code == "InvalidRedirectLocation"


@pytest.mark.parametrize("value", ["glacier", "standard", "OTHER"])
def test_storage_class(value: str) -> None:
    error = refused(lambda: headers.stored({"x-amz-storage-class": value}))
    assert (error.code, error.detail) == ("InvalidStorageClass", {"StorageClassRequested": value})


@pytest.mark.parametrize(("name", "value", "code"), [
    ("x-amz-server-side-encryption", "AES256", "NotImplemented"),
    ("x-amz-server-side-encryption", "aws:kms", "NotImplemented"),
    ("x-amz-server-side-encryption", "rot13", "InvalidArgument"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "k", "NotImplemented"),
    ("x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"),
    ("x-amz-copy-source-server-side-encryption-customer-key", "k", "NotImplemented"),
    ("x-amz-write-offset-bytes", "0", "NotImplemented"),
])
def test_what_is_not_done_is_refused(name: str, value: str, code: str) -> None:
    assert refused(lambda: headers.stored({name: value})).code == code
    assert refused(lambda: headers.refuse_unsupported({name: value})).code == code


@pytest.mark.parametrize(("name", "value", "code"), [
    ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
    ("x-amz-acl", "everyone", "InvalidArgument"),
    ("x-amz-acl", "", "InvalidArgument"),
    ("x-amz-grant-read", "id=1", "AccessControlListNotSupported"),
])
def test_a_part_has_no_access_list(name: str, value: str, code: str) -> None:
    assert refused(lambda: headers.refuse_unsupported({name: value})).code == code


def test_canned_and_granted() -> None:
    sent = {"x-amz-acl": "private", "x-amz-grant-read": "id=1"}
    assert refused(lambda: headers.refuse_unsupported(sent)).code == "InvalidRequest"


@pytest.mark.parametrize("value", ["private", "bucket-owner-full-control"])
def test_access_lists_that_ask_for_nothing(value: str) -> None:
    assert headers.stored({"x-amz-acl": value}) == headers.stored({})


@pytest.mark.parametrize(("name", "value", "code"), [
    ("x-amz-object-ownership", "Nobody", "InvalidArgument"),
    ("x-amz-bucket-namespace", "account-regional", "NotImplemented"),
])
def test_buckets(name: str, value: str, code: str) -> None:
    assert refused(lambda: headers.refuse_unsupported_bucket({name: value})).code == code


def test_plain_bucket() -> None:
    headers.refuse_unsupported_bucket({
        "x-amz-bucket-object-lock-enabled": "false", "x-amz-object-ownership": "BucketOwnerEnforced",
        "x-amz-acl": "private", "content-type": "application/xml",
    })


def test_reads() -> None:
    key = {"x-amz-server-side-encryption-customer-algorithm": "AES256"}
    assert refused(lambda: headers.refuse_unsupported_read(key)).code == "InvalidRequest"
    headers.refuse_unsupported_read({})


@pytest.mark.parametrize("what", ["metadata", "tagging"])
def test_directives(what: str) -> None:
    name = f"x-amz-{what}-directive"
    assert not headers.replaces({}, what)
    assert not headers.replaces({name: "COPY"}, what)
    assert headers.replaces({name: "REPLACE"}, what)
    assert refused(lambda: headers.replaces({name: "replace"}, what)).detail["ArgumentName"] == name


# Tags

TAG_TEXT = st.text(st.sampled_from("abcXYZ0189 +-=._:/@äßЖ中"), min_size=1, max_size=20)


@given(st.dictionaries(TAG_TEXT, TAG_TEXT | st.just(""), max_size=10))
def test_tags_in_a_header(pairs: dict[str, str]) -> None:
    pairs = {key: value for key, value in pairs.items() if not key.startswith("aws:")}
    assert tags.parse_header(urlencode(pairs)) == tuple(pairs.items())


@pytest.mark.parametrize(("value", "code"), [
    ("a=1&a=2", "InvalidArgument"), ("a=%FF", "InvalidArgument"), ("=1", "InvalidArgument"), ("a=%00", "InvalidTag"),
    ("a=%0A", "InvalidTag"), ("a%3B=1", "InvalidTag"), ("aws:a=1", "InvalidTag"), ("k" * 129, "InvalidTag"),
    ("a=" + "v" * 257, "InvalidTag"), ("&".join(f"k{n}=" for n in range(11)), "BadRequest"),
])
def test_bad_tags_in_a_header(value: str, code: str) -> None:
    assert refused(lambda: tags.parse_header(value)).code == code
    assert refused(lambda: headers.stored({"x-amz-tagging": value})).code == code


def test_tag_limits() -> None:
    assert tags.parse_header("") == ()
    assert tags.parse_header("a") == (("a", ""),)
    assert len(tags.parse_header("k" * 128 + "=" + "v" * 256)) == 1
    assert len(tags.parse_header("&".join(f"k{n}=" for n in range(10)))) == 10
    tags.check([(f"k{n}", "") for n in range(50)], tags.BUCKET_TAGS_MAX)
    error = refused(lambda: tags.check([("a", "1"), ("a", "2")], tags.OBJECT_TAGS_MAX))
    assert (error.code, error.detail) == ("InvalidTag", {"TagKey": "a"})
