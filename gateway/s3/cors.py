"""Cross-origin rules of a bucket: read from XML, written as XML, and matched with requests (S3_SEMANTICS §18).

*Rule*: which origins may send which methods with which headers, and what their scripts may see of the answer. The first
rule that fits a request counts. Source: AWS, "Elements of a CORS configuration", and the Fetch standard's CORS protocol.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.s3.errors import S3Error
from gateway.s3.xml.pieces import document
from gateway.s3.xml.read import Element, fields_of, malformed, number_of, parse
from gateway.s3.xml.text import escape

BYTES_MAX = 64 << 10
RULES_MAX = 100
ID_CHARACTERS_MAX = 255
AGE_S_MAX = 2**31 - 1

REQUESTED_MAX = 100
"""Header names of one preflight: no script sends more, and each is compared with all patterns."""
METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")

VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"

NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
    "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)
"""AWS's own words, spelling included: clients compare them."""

NO_BUCKET = "CORSResponse: Bucket not found"

NOT_ENABLED = "CORSResponse: CORS is not enabled for this bucket."

_LISTS = ("AllowedHeader", "AllowedMethod", "AllowedOrigin", "ExposeHeader")
_KNOWN = frozenset({"ID", "MaxAgeSeconds", *_LISTS})


class Rule(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Texts as they were given. `max_age_s` is for how long a browser may remember the answer to a preflight."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_s: int | None = None
    id: str = ""


Rules = tuple[Rule, ...]


def read(body: bytes) -> Rules:
    """A CORSConfiguration. S3Error MalformedXML, InvalidRequest for what S3 doesn't allow in one."""
    root = parse(body, "CORSConfiguration", BYTES_MAX)
    if not root.children or root.text.strip():
        malformed()
    if len(root.children) > RULES_MAX:
        raise S3Error("InvalidRequest", f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules.")
    return tuple(map(_rule, root.children))


def _rule(element: Element) -> Rule:
    if element.name != "CORSRule" or element.text.strip():
        malformed()
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    single = Element("")
    for child in element.children:
        if child.name in lists and not child.children:
            lists[child.name].append(child.text)
        else:
            single.children.append(child)
    fields = fields_of(single, _KNOWN)
    methods, origins, headers = lists["AllowedMethod"], lists["AllowedOrigin"], lists["AllowedHeader"]
    if not methods or not origins or not all(text.strip() for texts in lists.values() for text in texts):
        malformed()
    for method in methods:
        if method not in METHODS:
            raise S3Error("InvalidRequest", "Found unsupported HTTP method in CORS config. Unsupported method is "
                          f"{method}")
    for name, texts in (("AllowedOrigin", origins), ("AllowedHeader", headers)):
        for text in texts:
            if text.count("*") > 1:
                raise S3Error("InvalidRequest", f"{name} \"{text}\" can not have more than one wildcard.")
    for text in lists["ExposeHeader"]:
        if not text.isascii() or not text.isprintable():
            malformed()
        if "*" in text:
            raise S3Error("InvalidRequest", f"ExposeHeader \"{text}\" contains wildcard. We currently do not support "
                          "wildcard for ExposeHeader.")
    age = fields.get("MaxAgeSeconds")
    seconds = None if age is None else number_of(age.text)
    if (seconds is not None and not 0 <= seconds <= AGE_S_MAX) or ("ID" in fields and len(fields["ID"].text) > ID_CHARACTERS_MAX):
        malformed()
    return Rule(origins=tuple(origins), methods=tuple(methods), headers=tuple(headers),
                exposed=tuple(lists["ExposeHeader"]), max_age_s=seconds,
                id=fields["ID"].text if "ID" in fields else "")


def write(rules: Rules) -> bytes:
    """The CORSConfiguration that was set."""
    return document("CORSConfiguration", "".join(
        "<CORSRule>"
        + (f"<ID>{escape(rule.id)}</ID>" if rule.id else "")
        + _elements("AllowedHeader", rule.headers) + _elements("AllowedMethod", rule.methods)
        + _elements("AllowedOrigin", rule.origins) + _elements("ExposeHeader", rule.exposed)
        + (f"<MaxAgeSeconds>{rule.max_age_s}</MaxAgeSeconds>" if rule.max_age_s is not None else "")
        + "</CORSRule>"
        for rule in rules
    ))


def _elements(name: str, texts: Iterable[str]) -> str:
    return "".join(f"<{name}>{escape(text)}</{name}>" for text in texts)


def matching(rules: Rules, origin: str, method: str, headers: Sequence[str] = ()) -> Rule | None:
    """The first rule that lets scripts of `origin` send `method` with these headers."""
    return next((
        rule for rule in rules
        if method in rule.methods and _any_fits(rule.origins, origin)
        and _all_fit([text.lower() for text in rule.headers], headers)
    ), None)


def _all_fit(patterns: Sequence[str], texts: Sequence[str]) -> bool:
    return all(_any_fits(patterns, text) for text in texts)


def _any_fits(patterns: Iterable[str], text: str) -> bool:
    """At most one star in each pattern stands for any characters."""
    return any(_fits(pattern, text) for pattern in patterns)


def _fits(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def requested_headers(text: str) -> tuple[str, ...]:
    """Access-Control-Request-Headers, split."""
    return tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))


def answer(rule: Rule, origin: str, requested: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The headers that tell a browser what its script may do and see. `requested` only in answer to a preflight."""
    everyone = "*" in rule.origins
    said = [("access-control-allow-origin", "*" if everyone else origin),
            ("access-control-allow-methods", ", ".join(rule.methods))]
    if requested:
        said.append(("access-control-allow-headers", ", ".join(requested)))
    if rule.exposed:
        said.append(("access-control-expose-headers", ", ".join(rule.exposed)))
    if rule.max_age_s is not None:
        said.append(("access-control-max-age", str(rule.max_age_s)))
    if not everyone:
        said.append(("access-control-allow-credentials", "true"))
    return [*said, ("vary", VARY)]
