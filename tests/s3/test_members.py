"""No wish of a client is dropped in silence: each member of the service model's inputs, in each operation that has it.

members.txt says of every header and parameter what comes of it. A member that AWS adds fails here until that is decided, and
so does one of an answer.
Of the documents the service model's own examples are taken, those of test_every_operation.py: each of their elements gets a
child that S3 has not, which must be refused wherever it is.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from gateway.s3.operations import OPERATION
from tests.s3.conftest import MAIN, OTHER, SETTINGS, client
from tests.s3.in_process import InProcess
from tests.s3.test_every_operation import BODY, CASES, MODEL, Place, filled

HERE = Path(__file__).parent
TABLE = HERE / "members.txt"


class Said(NamedTuple):
    """What comes of a member in some operations; none stands for all others that have it."""

    verdict: str
    operations: frozenset[str]


class Row(NamedTuple):
    where: str                    # header | query
    name: str
    value: str
    said: tuple[Said, ...]

    def of(self, operation: str) -> str | None:
        """The verdict that names the operation, or the one for all."""
        named = [each.verdict for each in self.said if operation in each.operations]
        others = [each.verdict for each in self.said if not each.operations]
        assert max(len(named), len(others)) <= 1, f"{self.name}: two verdicts"
        return next(iter(named + others), None)


def rows() -> Iterator[Row]:
    blocks = [block.splitlines() for block in TABLE.read_text().split("\n\n") if re.match(r"(header|query) ", block)]
    for first, *lines in blocks:
        member, _, value = first.partition(" = ")
        where, _, name = member.partition(" ")
        said = [line.strip().partition(" @ ") for line in lines]
        yield Row(where, name, value or "nonsense",
                  tuple(Said(verdict, frozenset(names.split())) for verdict, _, names in said))


ROWS = {(row.where, row.name): row for row in rows()}


def absent(operation: str) -> bool:
    """Whether Staddle has not got it at all."""
    return CASES[operation].code == "NotImplemented" and operation not in ("PutBucketAbac", "PutBucketReplication")


THERE = [name for name in sorted(CASES) if not absent(name)]


def members(operation: str) -> Iterator[tuple[str, Row]]:
    """Python's names and rows of what goes into headers and the query."""
    shape = MODEL.operation_model(operation).input_shape
    for member, inner in shape.members.items() if shape is not None else ():
        where = {"header": "header", "querystring": "query"}.get(inner.serialization.get("location", ""))
        if where is not None:
            yield member, ROWS[where, inner.serialization["name"]]


class Injected:
    """A client whose next requests are changed before they are signed."""

    def __init__(self, endpoint: str) -> None:
        self.s3 = client(endpoint, style="when-required")
        self.change: Callable[[Any], None] | None = None
        self.body: Callable[[bytes], bytes] | None = None
        self.s3.meta.events.register("before-sign.s3", self._before_sign)
        self.s3.meta.events.register("before-call.s3", self._before_call)
        self._buckets = 0

    def _before_sign(self, request: Any, **_: Any) -> None:
        if self.change is not None:
            self.change(request)

    def _before_call(self, params: Any, **_: Any) -> None:
        if self.body is not None:
            params["body"] = self.body(params["body"])

    def place(self, operation: str) -> tuple[Place, dict[str, Any]]:
        """Somewhere new, and what to ask there so that the operation is done."""
        self._buckets += 1
        bucket = f"members-{self._buckets}"
        self.s3.create_bucket(Bucket=bucket)
        self.s3.put_object(Bucket=bucket, Key="key", Body=BODY)
        case = CASES[operation]
        place = case.before(Place(self.s3, bucket))
        return place, {**({} if operation == "ListBuckets" else {"Bucket": bucket}), **filled(case.asked, place)}

    def ask(self, operation: str, asked: dict[str, Any]) -> tuple[int, str]:
        """Status and code."""
        try:
            answer = getattr(self.s3, xform_name(operation))(**asked)
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
        return answer["ResponseMetadata"]["HTTPStatusCode"], ""


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injected]:
    with InProcess(tmp_path_factory.mktemp("members"), [MAIN, OTHER], settings=SETTINGS) as running:
        yield Injected(running.endpoint)


def with_member(row: Row) -> Callable[[Any], None]:
    value = row.value.replace("{now}", formatdate(usegmt=True))

    def change(request: Any) -> None:
        if row.where == "header":
            del request.headers[row.name]
            request.headers[row.name] = value
            return
        address = urlsplit(request.url)
        kept = [item for item in address.query.split("&") if item and item.partition("=")[0] != row.name]
        request.url = address._replace(query="&".join([*kept, f"{row.name}={quote(value)}"])).geturl()

    return change


def file_of(named: str) -> str:
    """The text of the file with the test that is called so."""
    file, _, test = named.partition(" ")
    text = (HERE / file).read_text()
    assert re.search(rf"^def {test}\(", text, re.MULTILINE), named
    return text


@pytest.mark.parametrize("operation", THERE)
def test_a_member_is_refused_honoured_or_ignored_for_a_reason(injected: Injected, operation: str) -> None:
    asked: dict[str, Any] | None = None
    changes = OPERATION[operation].method not in ("GET", "HEAD")
    for member, row in members(operation):
        verdict = row.of(operation)
        assert verdict is not None, f"{row.name} of {operation}: nothing is said of it"
        kind, _, rest = verdict.partition(" ")
        if kind == "honoured":
            text = file_of(rest)
            assert member in text or row.name.lower() in text.lower(), f"{rest}: the file never says {member}"
            continue
        if asked is None:
            _, asked = injected.place(operation)
        injected.change = with_member(row)
        status, code = injected.ask(operation, asked)
        injected.change = None
        if kind == "ignored":
            case = CASES[operation]
            assert (status, code) == (case.status or OPERATION[operation].status, case.code), row.name
        else:
            head = OPERATION[operation].method == "HEAD"
            assert (status, code) == (int(kind), kind if head else rest), f"{row.name}: {row.value}"
        if changes and status < 300:
            asked = None          # it is done: the next one needs a place of its own


def test_the_table_has_no_row_for_nothing() -> None:
    used: dict[tuple[str, str], set[str]] = {}
    for operation in THERE:
        for _, row in members(operation):
            used.setdefault((row.where, row.name), set()).add(operation)
    for place, row in ROWS.items():
        named = frozenset().union(*(each.operations for each in row.said))
        assert named <= used.get(place, set()), f"{place}: {named - used.get(place, set())}"
        others = any(not each.operations for each in row.said)
        assert others == bool(used.get(place, set()) - named), f"{place}: a verdict for no operation"


NEVER = {
    "nothing is encrypted here": (
        "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-bucket-key-enabled", "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key-MD5"),
    "nothing is replicated to other buckets": ("x-amz-replication-status",),
    "holds until an event are refused": (
        "x-amz-object-lock-event-hold", "x-amz-object-lock-event-hold-duration-days",
        "x-amz-object-lock-event-hold-duration-years"),
    "what came as a header is given back as one": ("x-amz-missing-meta",),
    "of directory buckets": ("x-amz-bucket-location-type", "x-amz-bucket-location-name"),
    "of tiers that objects move to by themselves": ("x-amz-archive-status",),
    "restores to other places are refused": ("x-amz-restore-output-path",),
    "there are no metadata tables": ("GetBucketMetadataConfigurationResult", "GetBucketMetadataTableConfigurationResult"),
}
"""Members of answers, by their names on the wire, that are never sent, and why."""


SPELLED = {
    "ChecksumCRC32C": "test_writing.py test_each_checksum_is_stored_and_returned",
    "AnalyticsConfiguration": "test_configurations.py test_a_family_is_kept_by_id",
    "AnalyticsConfigurationList": "test_configurations.py test_a_family_is_kept_by_id",
    "IntelligentTieringConfiguration": "test_configurations.py test_a_family_is_kept_by_id",
    "IntelligentTieringConfigurationList": "test_configurations.py test_a_family_is_kept_by_id",
    "CloudFunctionConfiguration": "test_notifications.py test_the_old_operations_are_the_same",
}
"""Members that tests look at under a name that they put together, or AWS's newer one."""


def test_every_member_of_an_answer_is_what_some_test_looks_at_or_is_never_sent() -> None:
    never = {name.lower() for names in NEVER.values() for name in names}
    tests = "".join(file.read_text() for file in HERE.glob("*.py") if file != Path(__file__)).lower()
    unseen, met = set(), set()
    for operation in THERE:
        shape = MODEL.operation_model(operation).output_shape
        for member, inner in shape.members.items() if shape is not None else ():
            name = inner.serialization.get("name", member).lower()
            met.add(name)
            if name not in never and member not in SPELLED and member.lower() not in tests and name not in tests:
                unseen.add(f"{operation}: {member}")
    assert not unseen, "; ".join(sorted(unseen))
    assert never <= met, "no answer has that"
    for named in SPELLED.values():
        file_of(named)


DOCUMENTS = [
    name for name in THERE
    if (shape := MODEL.operation_model(name).input_shape) is not None
    and (payload := shape.serialization.get("payload")) and shape.members[payload].type_name == "structure"
    and payload in CASES[name].asked
]


@pytest.mark.parametrize("operation", DOCUMENTS)
def test_what_a_document_must_not_say_is_refused_wherever_it_is(injected: Injected, operation: str) -> None:
    _, asked = injected.place(operation)
    place, count = 0, 1
    while place < count:
        def stuffed(body: bytes, place: int = place) -> bytes:
            nonlocal count
            document = ElementTree.fromstring(body)
            elements = list(document.iter())
            count = len(elements)
            ElementTree.SubElement(elements[place], "Nonsense")
            return ElementTree.tostring(document)

        injected.body = stuffed
        status, code = injected.ask(operation, asked)
        injected.body = None
        assert status == 400, f"element {place}: {status} {code}"
        place += 1
