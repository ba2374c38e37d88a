"""Reading the XML that clients send, into frozen values. What is not exactly the schema is MalformedXML.

Read by expat as UTF-8, with limits: bytes, depth, children. No document type, so no entities; no processing
instructions. The namespace may be any or none. Element order is free, repetition of a single element is not.
Texts are kept to the byte (keys may end in blanks); only numbers and words are stripped.
"""

import itertools
from collections.abc import Collection
from typing import NamedTuple, NoReturn
from xml.parsers import expat

from gateway.s3.body.checksums import ALGORITHMS
from gateway.s3.errors import S3Error
from gateway.s3.xml.pieces import BLOCK_FIELDS, XSI

DEPTH_MAX = 20
"""Levels of a document. S3's deepest has seven."""

ELEMENTS_MAX = 150_000
"""Elements of a document. A list of 10,000 parts, each with every checksum there is, has 130,001."""

DELETE_BYTES_MAX = 2 << 20
"""AWS's limit for a DeleteObjects document: 1,000 keys of 1,024 bytes with version ids."""

COMPLETE_BYTES_MAX = 4 << 20
"""10,000 parts with the longest checksum take about 2.5 MB."""

SMALL_BYTES_MAX = 64 << 10
"""Everything else that is read here: a few elements."""

DELETE_KEYS_MAX = 1000
PARTS_MAX = 10_000

CHECKSUM_ELEMENTS = {f"Checksum{name}": name for name in ALGORITHMS}
"""Element name -> algorithm."""


class ObjectToDelete(NamedTuple):
    key: str
    version_id: str | None = None
    etag: str | None = None             # without quotes, or "*"
    size: int | None = None
    last_modified: str | None = None    # RFC 1123, as sent


class Delete(NamedTuple):
    objects: tuple[ObjectToDelete, ...]
    quiet: bool


class CompletePart(NamedTuple):
    number: int
    etag: str                                       # without quotes
    checksums: tuple[tuple[str, str], ...] = ()     # (algorithm, base64)


class Versioning(NamedTuple):
    status: str                                     # Enabled | Suspended
    mfa_delete: str | None = None                   # Enabled | Disabled


class NewBucket(NamedTuple):
    constraint: str = ""                            # "" for none
    tags: tuple[tuple[str, str], ...] = ()


class Element:
    """A node while a document is read: local name, own text, children, and what ``xsi:type`` says it is."""

    __slots__ = ("children", "name", "pieces", "type")

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = ""
        self.pieces: list[str] = []        # of text; joined once, since text between many children comes in many
        self.children: list[Element] = []

    @property
    def text(self) -> str:
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else "".join(pieces)


_TYPE = f"{XSI} type"
"""As expat calls it."""


def parse(body: bytes, root: str, limit: int) -> Element:
    """The document's tree. S3Error MaxMessageLengthExceeded above `limit` bytes, MalformedXML for all else."""
    if len(body) > limit:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
    if body.startswith((b"\xfe\xff", b"\xff\xfe")):
        malformed()  # UTF-16 is told by its mark, whatever encoding expat is given
    document = Element("")
    open_elements = [document]
    elements = itertools.count(1)

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > DEPTH_MAX or next(elements) > ELEMENTS_MAX:
            malformed()
        element = Element(name.rpartition(" ")[2])
        if attributes:
            element.type = attributes.get(_TYPE, "").strip()
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_name: str) -> None:
        open_elements.pop()

    def text(data: str) -> None:
        open_elements[-1].pieces.append(data)

    # A namespace separator makes expat resolve prefixes: what comes before the last blank is the namespace.
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = lambda *_: malformed()
    parser.ProcessingInstructionHandler = lambda *_: malformed()
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        malformed()
    (element,) = document.children
    if element.name != root:
        malformed()
    return element


def malformed() -> NoReturn:
    raise S3Error("MalformedXML")


def fields_of(element: Element, known: frozenset[str]) -> dict[str, Element]:
    """An element's children by name: each known, each once."""
    fields = {child.name: child for child in element.children}
    if len(fields) != len(element.children) or not known.issuperset(fields) or element.text.strip():
        malformed()
    return fields


def text_of(fields: dict[str, Element], name: str) -> str | None:
    field = fields.get(name)
    if field is None:
        return None
    if field.children:
        malformed()
    return field.text


def number_of(text: str) -> int:
    """A whole number as XML Schema has it, of at most 18 digits (sizes fit, and `int` stays cheap)."""
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        malformed()
    return int(text)


def _unquoted(etag: str) -> str:
    return etag.strip().strip('"')


_CREATE_FIELDS = frozenset({"LocationConstraint", "Location", "Bucket", "Tags"})


def create_bucket(body: bytes) -> NewBucket:
    """`tags.check` says whether S3 allows the tags. S3Error NotImplemented for directory buckets."""
    fields = fields_of(parse(body, "CreateBucketConfiguration", SMALL_BYTES_MAX), _CREATE_FIELDS)
    for unsupported in ("Location", "Bucket"):
        if unsupported in fields:
            raise S3Error("NotImplemented", f"Creating a bucket with {unsupported} is not implemented.")
    tags = fields.get("Tags")
    if tags is not None and tags.text.strip():
        malformed()
    constraint = (text_of(fields, "LocationConstraint") or "").strip()
    if not constraint and tags is None:
        malformed()      # AWS: who sends a document says something with it
    return NewBucket(constraint, () if tags is None else tuple(map(_tag, tags.children)))


_PART_FIELDS = frozenset({"PartNumber", "ETag", *CHECKSUM_ELEMENTS})


def complete_multipart_upload(body: bytes) -> tuple[CompletePart, ...]:
    """The parts in the order sent; whether they ascend and exist is for the operation to say.

    S3Error InvalidRequest for no document, InvalidArgument for a part number below 1 (both recorded from AWS), MalformedXML
    for a list of none.
    """
    if not body:
        raise S3Error("InvalidRequest", "You must specify at least one part")
    root = parse(body, "CompleteMultipartUpload", COMPLETE_BYTES_MAX)
    if not 0 < len(root.children) <= PARTS_MAX or root.text.strip():
        malformed()
    return tuple(map(_complete_part, root.children))


def _complete_part(element: Element) -> CompletePart:
    if element.name != "Part":
        malformed()
    fields = fields_of(element, _PART_FIELDS)
    number, etag = text_of(fields, "PartNumber"), text_of(fields, "ETag")
    if number is None or etag is None:
        malformed()
    checksums: tuple[tuple[str, str], ...] = ()
    if len(fields) > 2:
        checksums = tuple(
            (CHECKSUM_ELEMENTS[name], (text_of(fields, name) or "").strip())
            for name in fields
            if name in CHECKSUM_ELEMENTS
        )
    part = number_of(number)
    if part < 1:
        raise S3Error(
            "InvalidArgument", "PartNumber must be >= 1", ArgumentName="PartNumber", ArgumentValue=number.strip()
        )
    return CompletePart(part, _unquoted(etag), checksums)


_OBJECT_FIELDS = frozenset({"Key", "VersionId", "ETag", "Size", "LastModifiedTime"})


def delete(body: bytes) -> Delete:
    """A DeleteObjects document: 1 to 1,000 entries."""
    root = parse(body, "Delete", DELETE_BYTES_MAX)
    objects, quiet = [], None
    for child in root.children:
        if child.name == "Object":
            objects.append(_object_to_delete(child))
        elif child.name == "Quiet" and quiet is None and not child.children:
            quiet = _boolean(child.text)
        else:
            malformed()
    if not 1 <= len(objects) <= DELETE_KEYS_MAX or root.text.strip():
        malformed()
    return Delete(tuple(objects), quiet is True)


def _object_to_delete(element: Element) -> ObjectToDelete:
    fields = fields_of(element, _OBJECT_FIELDS)
    key = text_of(fields, "Key")
    if not key:
        malformed()
    if len(fields) == 1:
        return ObjectToDelete(key)
    etag, size = text_of(fields, "ETag"), text_of(fields, "Size")
    return ObjectToDelete(
        key,
        text_of(fields, "VersionId"),
        None if etag is None else _unquoted(etag),
        None if size is None else number_of(size),
        text_of(fields, "LastModifiedTime"),
    )


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false"):
        malformed()
    return word == "true"


_VERSIONING_FIELDS = frozenset({"Status", "MfaDelete"})


def versioning_configuration(body: bytes) -> Versioning:
    """S3Error IllegalVersioningConfigurationException without Status, MalformedXML for an unknown one (recorded)."""
    fields = fields_of(parse(body, "VersioningConfiguration", SMALL_BYTES_MAX), _VERSIONING_FIELDS)
    status, mfa_delete = text_of(fields, "Status"), text_of(fields, "MfaDelete")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status not in ("Enabled", "Suspended") or mfa_delete not in (None, "Enabled", "Disabled"):
        malformed()
    return Versioning(status, mfa_delete)


_TAGGING_FIELDS = frozenset({"TagSet"})
_TAG_FIELDS = frozenset({"Key", "Value"})


def tagging(body: bytes) -> tuple[tuple[str, str], ...]:
    """The tags of a Tagging document in the order sent; `tags.check` says whether S3 allows them."""
    fields = fields_of(parse(body, "Tagging", SMALL_BYTES_MAX), _TAGGING_FIELDS)
    tag_set = fields.get("TagSet")
    if tag_set is None or tag_set.text.strip():
        malformed()
    return tuple(map(_tag, tag_set.children))


def _tag(element: Element) -> tuple[str, str]:
    if element.name != "Tag":
        malformed()
    fields = fields_of(element, _TAG_FIELDS)
    key, value = text_of(fields, "Key"), text_of(fields, "Value")
    if key is None or value is None:
        malformed()
    return key, value


def public_access_block(body: bytes) -> tuple[bool, ...]:
    """PublicAccessBlockConfiguration: its four switches in this order; one that is left out is off. S3Error InvalidRequest
    where all are."""
    fields = fields_of(parse(body, "PublicAccessBlockConfiguration", SMALL_BYTES_MAX), frozenset(BLOCK_FIELDS))
    if not fields:
        raise S3Error("InvalidRequest", "Must specify at least one configuration.")
    return tuple(_boolean(text_of(fields, name) or "false") for name in BLOCK_FIELDS)


def ownership_controls(body: bytes, modes: Collection[str]) -> str:
    """OwnershipControls: the mode of its one rule. S3Error MalformedXML."""
    rules = parse(body, "OwnershipControls", SMALL_BYTES_MAX).children
    if len(rules) != 1 or rules[0].name != "Rule":
        malformed()
    mode = text_of(fields_of(rules[0], frozenset({"ObjectOwnership"})), "ObjectOwnership")
    if mode is None or mode not in modes:
        malformed()
    return mode
