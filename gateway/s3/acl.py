"""Access control lists: canned ones, grant headers and documents, into pairs of (grantee, permission). Pure.

Grantee     ``id:`` and a canonical id, or ``uri:`` and the address of one of S3's groups
Permission  READ, WRITE, READ_ACP, WRITE_ACP, FULL_CONTROL

A list that was never given is None: the owner alone has FULL_CONTROL. Lists are kept as they were understood when given; a
canned one is its grants. Source: AWS, "Access control list (ACL) overview".
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import GRANTS
from gateway.s3.xml.pieces import XSI, OwnerOf, document, owner_element, who
from gateway.s3.xml.read import SMALL_BYTES_MAX, Element, parse
from gateway.s3.xml.text import escape

Acl = tuple[tuple[str, str], ...]

_GROUPS = "http://acs.amazonaws.com/groups/"
ALL_USERS = f"uri:{_GROUPS}global/AllUsers"
AUTHENTICATED_USERS = f"uri:{_GROUPS}global/AuthenticatedUsers"
LOG_DELIVERY = f"uri:{_GROUPS}s3/LogDelivery"
GROUPS = frozenset({ALL_USERS, AUTHENTICATED_USERS, LOG_DELIVERY})
PUBLIC = frozenset({ALL_USERS, AUTHENTICATED_USERS})

FULL_CONTROL = "FULL_CONTROL"
PERMISSIONS = frozenset({"READ", "WRITE", "READ_ACP", "WRITE_ACP", FULL_CONTROL})

_GRANTEES = {"CanonicalUser": "ID", "Group": "URI", "AmazonCustomerByEmail": "EmailAddress"}
"""What a grantee of each ``xsi:type`` is named by. One without a type is what it is named by."""

GRANTS_MAX = 100
"""AWS's limit."""

_CANNED: dict[str, tuple[tuple[str, str], ...]] = {
    "private": (),
    "public-read": ((ALL_USERS, "READ"),),
    "public-read-write": ((ALL_USERS, "READ"), (ALL_USERS, "WRITE")),
    "authenticated-read": ((AUTHENTICATED_USERS, "READ"),),
    "aws-exec-read": (),
}
_CANNED_BUCKET = {**_CANNED, "log-delivery-write": ((LOG_DELIVERY, "WRITE"), (LOG_DELIVERY, "READ_ACP"))}
_CANNED_OBJECT = {**_CANNED, "bucket-owner-read": (("bucket-owner", "READ"),),
                  "bucket-owner-full-control": (("bucket-owner", FULL_CONTROL),)}
CANNED = frozenset(_CANNED_BUCKET) | frozenset(_CANNED_OBJECT)

SAYS_NOTHING = frozenset({"private", "bucket-owner-full-control"})
"""Canned lists that many tools send blindly with their writes, and that ask for what is the case anyhow."""

_HEADERS = frozenset({"x-amz-acl", *GRANTS})

FOR_HEADER = {name: name.removeprefix("x-amz-grant-").upper().replace("-", "_") for name in GRANTS}


class People(NamedTuple):
    """Who is who: whether a canonical id is somebody's, and the canonical id of an e-mail address."""

    known: Callable[[str], bool]
    by_email: Callable[[str], str | None]


def owned_by(owner: str) -> Acl:
    """What None stands for."""
    return ((f"id:{owner}", FULL_CONTROL),)


def in_headers(headers: Mapping[str, str]) -> bool:
    return not _HEADERS.isdisjoint(headers)


def from_headers(
    headers: Mapping[str, str], owner: str, people: People, *, bucket_owner: str, of_bucket: bool = False,
) -> Acl | None:
    """The list that a request asks for; None where it asks for none. S3Error InvalidArgument, InvalidRequest,
    UnresolvableGrantByEmailAddress."""
    canned = headers.get("x-amz-acl")
    given = [name for name in GRANTS if name in headers]
    if canned is not None:
        if canned not in CANNED:
            raise S3Error("InvalidArgument", "", ArgumentName="x-amz-acl", ArgumentValue=canned)     # AWS has no message for it
        if given:
            raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
        grants = (_CANNED_BUCKET if of_bucket else _CANNED_OBJECT).get(canned, ())
        named = ((f"id:{bucket_owner}" if grantee == "bucket-owner" else grantee, permission) for grantee, permission in grants)
        return (*owned_by(owner), *(grant for grant in named if grant[0] != f"id:{owner}"))
    if not given:
        return None
    found = [(grantee, FOR_HEADER[name]) for name in given for grantee in _header_grantees(name, headers[name], people)]
    if len(found) > GRANTS_MAX:
        raise S3Error("InvalidRequest", f"An access list has at most {GRANTS_MAX} grants.")
    return tuple(dict.fromkeys(found))


def _header_grantees(name: str, value: str, people: People) -> list[str]:
    found = []
    for item in value.split(","):
        kind, equals, text = item.strip().partition("=")
        text = text.strip()
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if not equals or not text:
            raise S3Error("InvalidArgument", "Argument format not recognized", ArgumentName=name, ArgumentValue=item.strip())
        match kind.strip().lower():
            case "id":
                found.append(_by_id(text, people, "id"))
            case "uri":
                found.append(_by_uri(text, "uri"))
            case "emailaddress":
                found.append(_by_email(text, people))
            case _:
                raise S3Error("InvalidArgument", "Argument format not recognized", ArgumentName=name, ArgumentValue=item.strip())
    return found


def _by_id(text: str, people: People, where: str) -> str:
    if not people.known(text):
        raise S3Error("InvalidArgument", "Invalid id", ArgumentName=where, ArgumentValue=text)
    return f"id:{text}"


def _by_uri(text: str, where: str) -> str:
    if f"uri:{text}" not in GROUPS:
        raise S3Error("InvalidArgument", "Invalid group uri", ArgumentName=where, ArgumentValue=text)
    return f"uri:{text}"


def _by_email(text: str, people: People) -> str:
    found = people.by_email(text)
    if found is None:
        raise S3Error("UnresolvableGrantByEmailAddress")
    return f"id:{found}"


def read(body: bytes, owner: str, people: People) -> Acl:
    """An AccessControlPolicy. S3Error MalformedACLError, InvalidArgument, AccessDenied for an owner who isn't it."""
    try:
        root = parse(body, "AccessControlPolicy", SMALL_BYTES_MAX)
    except S3Error as error:
        if error.code != "MalformedXML":
            raise
        raise S3Error("MalformedACLError") from None
    parts = {child.name: child for child in root.children}
    if len(parts) != len(root.children) or not parts.keys() <= {"Owner", "AccessControlList"} or "AccessControlList" not in parts:
        _malformed()
    if "Owner" not in parts:
        _malformed()
    said = _texts(parts["Owner"], {"ID", "DisplayName"})
    if not said.get("ID"):
        _malformed()
    if said["ID"] != owner:
        raise S3Error("AccessDenied")
    return read_grants(parts["AccessControlList"], people)


def read_grants(element: Element, people: People) -> Acl:
    """The Grant elements in one. S3Error as `read`."""
    grants = element.children
    if len(grants) > GRANTS_MAX or any(grant.name != "Grant" for grant in grants):
        _malformed()
    return tuple(dict.fromkeys(_grant(grant, people) for grant in grants))


def _grant(element: Element, people: People) -> tuple[str, str]:
    parts = {child.name: child for child in element.children}
    if parts.keys() != {"Grantee", "Permission"} or len(element.children) != 2:
        _malformed()
    permission = parts["Permission"].text.strip()
    if permission not in PERMISSIONS:
        _malformed()
    who = _texts(parts["Grantee"], {*_GRANTEES.values(), "DisplayName"})
    who.pop("DisplayName", None)
    if (kind := parts["Grantee"].type) and [_GRANTEES.get(kind)] != [*who]:
        _malformed()
    match list(who.items()):
        case [("ID", text)]:
            return _by_id(text, people, "CanonicalUser/ID"), permission
        case [("URI", text)]:
            return _by_uri(text, "Group/URI"), permission
        case [("EmailAddress", text)]:
            return _by_email(text, people), permission
    _malformed()


def _texts(element: Element, known: set[str]) -> dict[str, str]:
    found = {child.name: child.text.strip() for child in element.children}
    if len(found) != len(element.children) or not found.keys() <= known or any(child.children for child in element.children):
        _malformed()
    return found


def _malformed() -> NoReturn:
    raise S3Error("MalformedACLError")


def is_public(acl: Acl | None) -> bool:
    return acl is not None and any(grantee in PUBLIC for grantee, _ in acl)


def grants_others(acl: Acl | None, owner: str) -> bool:
    return acl is not None and any(grantee != f"id:{owner}" for grantee, _ in acl)


def write(acl: Acl | None, owner: str, owner_of: OwnerOf) -> bytes:
    shown = owned_by(owner) if acl is None else acl
    return document("AccessControlPolicy", f"{owner_element(owner_of(owner))}<AccessControlList>"
                    f"{written_grants(shown, owner_of)}</AccessControlList>")


def written_grants(grants: Acl, owner_of: OwnerOf) -> str:
    return "".join([_written(grantee, permission, owner_of) for grantee, permission in grants])


def _written(grantee: str, permission: str, owner_of: OwnerOf) -> str:
    kind, _, text = grantee.partition(":")
    if kind == "uri":
        shown = f'<Grantee xmlns:xsi="{XSI}" xsi:type="Group"><URI>{escape(text)}</URI></Grantee>'
    else:
        shown = f'<Grantee xmlns:xsi="{XSI}" xsi:type="CanonicalUser">{who(owner_of(text))}</Grantee>'
    return f"<Grant>{shown}<Permission>{permission}</Permission></Grant>"
