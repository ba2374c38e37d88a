"""Website configurations as documents, where their rules lead, and which hosts are websites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import S3Error
from gateway.s3.website.configuration import Redirect, Rule, Website, folder_location, location, matching, read, write
from gateway.website.hosts import site_of_host

INDEX = "<IndexDocument><Suffix>i</Suffix></IndexDocument>"


def rules(inner: str) -> str:
    return f"{INDEX}<RoutingRules><RoutingRule>{inner}</RoutingRule></RoutingRules>"


@pytest.mark.parametrize(("inner", "code"), [
    ("<IndexDocument/>", "InvalidArgument"), ("<IndexDocument><Suffix>/i</Suffix></IndexDocument>", "InvalidArgument"),
    (f"{INDEX}{INDEX}", "MalformedXML"), (f"{INDEX}<ErrorDocument/>", "MalformedXML"), (f"{INDEX}<Other/>", "MalformedXML"),
    (f"{INDEX}<ErrorDocument><Key></Key></ErrorDocument>", "MalformedXML"), (f"{INDEX}text", "MalformedXML"),
    ("<RedirectAllRequestsTo/>", "MalformedXML"), (f"{INDEX}<RoutingRules/>", "MalformedXML"),
    ("<RedirectAllRequestsTo><HostName>a b</HostName></RedirectAllRequestsTo>", "MalformedXML"),
    (rules("<Condition><KeyPrefixEquals>a</KeyPrefixEquals></Condition>"), "MalformedXML"),
    (rules("<Condition/><Redirect><HostName>h</HostName></Redirect>"), "InvalidRequest"),
    (rules("<Redirect><HttpRedirectCode>x</HttpRedirectCode></Redirect>"), "MalformedXML"),
    (rules("<Redirect><HttpRedirectCode>400</HttpRedirectCode></Redirect>"), "InvalidRequest"),
    (rules("<Redirect><Protocol>HTTP</Protocol></Redirect>"), "InvalidRequest"),
    (rules("<Redirect><HostName>h\r\nx: y</HostName></Redirect>"), "MalformedXML"),
])
def test_documents_that_are_refused(inner: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        read(f"<WebsiteConfiguration>{inner}</WebsiteConfiguration>".encode())
    assert caught.value.code == code


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
hosts = st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9})?", fullmatch=True)
redirects = st.builds(
    lambda protocol, host, replacement, code: Redirect(protocol=protocol, host=host, code=code, **replacement),
    st.sampled_from(["", "http", "https"]), st.one_of(st.just(""), hosts),
    st.sampled_from([{}, {"prefix": ""}, {"prefix": "p/"}, {"key": "k"}]), st.sampled_from([None, 301, 399]))
sites = st.one_of(
    st.builds(Website, all_to=hosts, all_protocol=st.sampled_from(["", "https"])),
    st.builds(Website, index=names.filter(lambda name: "/" not in name), error=st.one_of(st.just(""), names), rules=st.lists(
        st.builds(Rule, redirect=redirects, prefix=st.one_of(st.none(), names), error=st.sampled_from([None, 404, 503])),
        max_size=3).map(tuple)))


@given(sites)
def test_what_is_written_is_read_again(site: Website) -> None:
    assert read(write(site)) == site


@pytest.mark.parametrize(("redirect", "prefix", "key", "wanted"), [
    (Redirect(), None, "a b/ü", "http://h/a%20b/%C3%BC"),
    (Redirect(protocol="https", host="o"), None, "k", "https://o/k"),
    (Redirect(prefix="new/"), "old/", "old/a%", "http://h/new/a%25"),
    (Redirect(prefix=""), "old/", "old/a", "http://h/a"),
    (Redirect(prefix="x/"), None, "a", "http://h/x/a"),
    (Redirect(key="#!/page?x=1"), "a", "abc", "http://h/#!/page?x=1"),
    (Redirect(key="two\r\nlines"), None, "a", "http://h/two%0D%0Alines"),
    (Redirect(prefix="//evil.example/"), "a", "a", "http://h///evil.example/"),
])
def test_where_a_rule_leads(redirect: Redirect, prefix: str | None, key: str, wanted: str) -> None:
    assert location(Rule(redirect=redirect, prefix=prefix), "http", "h", key) == wanted


def test_the_first_rule_that_fits_counts() -> None:
    site = Website(index="i", rules=(
        Rule(redirect=Redirect(key="1"), prefix="a", error=404), Rule(redirect=Redirect(key="2"), prefix="a"),
        Rule(redirect=Redirect(key="3"), error=403)))
    found = [matching(site, key, error) for key, error in [("abc", None), ("b", None), ("abc", 404), ("b", 404), ("b", 403)]]
    assert [rule and rule.redirect.key for rule in found] == ["2", None, "1", None, "3"]


def test_a_folder_is_on_the_same_host() -> None:
    assert folder_location("a/b c") == "/a/b%20c/"
    assert folder_location("/evil.example") == "/%2Fevil.example/"


@pytest.mark.parametrize(("host", "bucket"), [
    ("a.b.s3-website.test:8080", "a.b"), ("A.s3-website.TEST.", "a"), ("s3-website.test", ""), ("xs3-website.test", ""),
    ("own.example", "own.example"), ("www.own.example:80", "www.own.example"), ("notown.example", ""), ("", ""),
    ("bad..own.example", ""), ("other.example", ""), ("s3.own.example", ""), ("bucket.s3.own.example", ""),
])
def test_which_hosts_are_websites(host: str, bucket: str) -> None:
    assert site_of_host(host, ("s3-website.test",), ("own.example",), ("s3.own.example",)) == bucket
