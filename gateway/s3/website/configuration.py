"""Website configuration of a bucket: read from XML with AWS's checks and words, written as XML, and its routing rules. Pure.

A bucket is a website in one of two ways: all requests are redirected to another host, or there is an *index document* (the
name of the page of each folder), perhaps an *error document* (a key), and *routing rules*: under a condition (how the key
begins, which error came of it) a request is redirected. Source: AWS, PutBucketWebsite and "Hosting a static website".
"""

from urllib.parse import quote

import msgspec

from gateway.s3.errors import S3Error
from gateway.s3.names import uri_encode
from gateway.s3.xml.pieces import document, optional
from gateway.s3.xml.read import Element, fields_of, malformed, number_of, parse, text_of
from gateway.s3.xml.text import escape

BYTES_MAX = 128 << 10
"""AWS: 50 rules with two keys each fit."""

RULES_MAX = 50
PROTOCOLS = ("http", "https")

DEFAULT_CODE = 301
"""Of a redirect that names none."""


class Redirect(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is left out stays as in the request. `key` replaces the whole key, `prefix` the beginning that the condition names."""

    protocol: str = ""
    host: str = ""
    prefix: str | None = None
    key: str | None = None
    code: int | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Both conditions must hold where both are given; without any, every request is redirected."""

    redirect: Redirect
    prefix: str | None = None
    error: int | None = None


class Website(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`all_to` is a host; then there is nothing else."""

    all_to: str = ""
    all_protocol: str = ""
    index: str = ""
    error: str = ""
    rules: tuple[Rule, ...] = ()


_ROOT = frozenset({"RedirectAllRequestsTo", "IndexDocument", "ErrorDocument", "RoutingRules"})
_ALL = frozenset({"HostName", "Protocol"})
_RULE = frozenset({"Condition", "Redirect"})
_CONDITION = frozenset({"KeyPrefixEquals", "HttpErrorCodeReturnedEquals"})
_REDIRECT = frozenset({"Protocol", "HostName", "ReplaceKeyPrefixWith", "ReplaceKeyWith", "HttpRedirectCode"})


def read(body: bytes) -> Website:
    """A WebsiteConfiguration. S3Error MalformedXML, InvalidArgument, InvalidRequest."""
    fields = fields_of(parse(body, "WebsiteConfiguration", BYTES_MAX), _ROOT)
    if "RedirectAllRequestsTo" in fields:
        return _all_redirected(fields)
    index = _inner(fields, "IndexDocument", "Suffix")
    if index is None:
        raise S3Error("InvalidArgument", "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
                      ArgumentName="IndexDocument", ArgumentValue="null")
    if not index or "/" in index:
        raise S3Error("InvalidArgument", "The IndexDocument Suffix is not well formed",
                      ArgumentName="IndexDocument", ArgumentValue=index)
    error = _inner(fields, "ErrorDocument", "Key")
    if "ErrorDocument" in fields and not error:
        malformed()
    return Website(index=index, error=error or "", rules=_rules(fields["RoutingRules"]) if "RoutingRules" in fields else ())


def _all_redirected(fields: dict[str, Element]) -> Website:
    if len(fields) > 1:
        raise S3Error("InvalidArgument", "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.",
                      ArgumentName="RedirectAllRequestsTo", ArgumentValue="not null")
    inner = fields_of(fields["RedirectAllRequestsTo"], _ALL)
    host = (text_of(inner, "HostName") or "").strip()
    if not host:
        malformed()
    _check_line(host)
    return Website(all_to=host, all_protocol=_protocol(inner))


def _inner(fields: dict[str, Element], name: str, inner: str) -> str | None:
    """The text of the one element in another; None where there is none."""
    return text_of(fields_of(fields[name], frozenset({inner})), inner) if name in fields else None


def _rules(element: Element) -> tuple[Rule, ...]:
    children = element.children
    if not children or element.text.strip() or any(child.name != "RoutingRule" for child in children):
        malformed()
    rules = tuple(map(_rule, children))
    if len(rules) > RULES_MAX:
        raise S3Error("InvalidRequest", f"{len(rules)} routing rules provided, the number of routing rules in a website "
                      f"configuration is limited to {RULES_MAX}.")
    return rules


def _rule(element: Element) -> Rule:
    fields = fields_of(element, _RULE)
    if "Redirect" not in fields:
        malformed()
    redirect = _redirect(fields_of(fields["Redirect"], _REDIRECT))
    if "Condition" not in fields:
        return Rule(redirect=redirect)
    condition = fields_of(fields["Condition"], _CONDITION)
    if not condition:
        raise S3Error("InvalidRequest", "Condition cannot be empty. To redirect all requests without a condition, the "
                      "condition element shouldn't be present.")
    error = _number(condition, "HttpErrorCodeReturnedEquals")
    if error is not None and not 400 <= error <= 599:
        raise S3Error("InvalidRequest", f"The provided HTTP error code ({error}) is not valid. Valid codes are 4XX or 5XX.")
    return Rule(redirect=redirect, prefix=text_of(condition, "KeyPrefixEquals"), error=error)


def _redirect(fields: dict[str, Element]) -> Redirect:
    prefix, key = text_of(fields, "ReplaceKeyPrefixWith"), text_of(fields, "ReplaceKeyWith")
    if prefix is not None and key is not None:
        raise S3Error("InvalidRequest", "You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
    code = _number(fields, "HttpRedirectCode")
    if code is not None and not 301 <= code <= 399:
        raise S3Error("InvalidRequest",
                      f"The provided HTTP redirect code ({code}) is not valid. Valid codes are 3XX except 300.")
    host = (text_of(fields, "HostName") or "").strip()
    _check_line(host)
    return Redirect(protocol=_protocol(fields), host=host, prefix=prefix, key=key, code=code)


def _protocol(fields: dict[str, Element]) -> str:
    protocol = (text_of(fields, "Protocol") or "").strip()
    if protocol and protocol not in PROTOCOLS:
        raise S3Error("InvalidRequest", "Invalid protocol, protocol can be http or https. If not defined the protocol will be "
                      "selected automatically.")
    return protocol


def _number(fields: dict[str, Element], name: str) -> int | None:
    text = text_of(fields, name)
    return None if text is None else number_of(text)


def _check_line(host: str) -> None:
    """It becomes part of a header."""
    if not host.isprintable() or " " in host:
        malformed()


def write(website: Website) -> bytes:
    """The WebsiteConfiguration that was set."""
    if website.all_to:
        return document("WebsiteConfiguration", f"<RedirectAllRequestsTo><HostName>{escape(website.all_to)}</HostName>"
                        f"{optional('Protocol', website.all_protocol or None)}</RedirectAllRequestsTo>")
    inner = f"<IndexDocument><Suffix>{escape(website.index)}</Suffix></IndexDocument>"
    if website.error:
        inner += f"<ErrorDocument><Key>{escape(website.error)}</Key></ErrorDocument>"
    if website.rules:
        inner += f"<RoutingRules>{''.join(map(_written, website.rules))}</RoutingRules>"
    return document("WebsiteConfiguration", inner)


def _written(rule: Rule) -> str:
    condition = optional("KeyPrefixEquals", rule.prefix) + optional("HttpErrorCodeReturnedEquals", rule.error)
    to = rule.redirect
    redirect = (optional("Protocol", to.protocol or None) + optional("HostName", to.host or None)
                + optional("ReplaceKeyPrefixWith", to.prefix) + optional("ReplaceKeyWith", to.key)
                + optional("HttpRedirectCode", to.code))
    condition = f"<Condition>{condition}</Condition>" if condition else ""
    return f"<RoutingRule>{condition}<Redirect>{redirect}</Redirect></RoutingRule>"


# Serving


def matching(website: Website, key: str, error: int | None = None) -> Rule | None:
    """The first rule for this key before it is looked for, or, with `error`, after that has come of it."""
    return next((rule for rule in website.rules
                 if rule.error == error and (rule.prefix is None or key.startswith(rule.prefix))), None)


_AS_WRITTEN = "".join(chr(code) for code in range(0x21, 0x7F))


def location(rule: Rule, scheme: str, host: str, key: str, query: str = "") -> str:
    """Where the rule leads. `query` is the request's, raw. A replacement goes out as it was written, since people put marks
    like ``#!/`` into it on purpose; only what no address can hold is percent-encoded."""
    to = rule.redirect
    if to.key is not None:
        path = quote(to.key, safe=_AS_WRITTEN)
    elif to.prefix is not None:
        path = quote(to.prefix, safe=_AS_WRITTEN) + _encoded(key[len(rule.prefix or ""):])
    else:
        path = _encoded(key)
    return f"{to.protocol or scheme}://{to.host or host}/{path}{f'?{query}' if query else ''}"


def _encoded(key: str) -> str:
    return uri_encode(key.encode(), keep_slash=True)


def folder_location(key: str) -> str:
    """Where the page of the folder `key` is. Two slashes at the beginning would lead to another host."""
    path = _encoded(key)
    return f"/%2F{path[1:]}/" if path.startswith("/") else f"/{path}/"
