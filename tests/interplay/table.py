"""The table of tests/interplay/*.txt, read. Each file is a list of rows with an empty line between two of them.

    ## versioning + tagging: a delete marker has no tags
    page: userguide/DeleteMarker.html
    bucket: versioned
    PUT k | body: one
    DELETE k -> x-amz-version-id as marker
    GET k?tagging&versionId={marker} => 405 MethodNotAllowed | allow: DELETE

Row      a pair of features, a situation, AWS's page, the bucket that it needs, and steps
Step     a request: [until] [who] METHOD target | items; and what is answered. After ``=>``: a status, a code, and items that
         must be so, which is what the row is about. After ``->`` or nothing: preparation, which must succeed
Item     of a request: a header, or one of the bodies below. Of an answer: a header, an element in ``<>``, ``message``, ``body``;
         ``none`` is its absence, ``*`` anything. ``X as name`` keeps a value for ``{name}`` further down
Target   a key and its query; ``?...`` the bucket; ``@second/k`` or ``@foreign/k`` another bucket; ``/...`` a path as it is.
         ``EVENTS k`` asks which events of that key have come to the webhook, in the order in which they came

A line `differs: ...` says that S3 answers otherwise, and why Staddle doesn't. Lines that begin with # are for the reader.
Every row has at least one answer that is checked.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
AWS = "https://docs.aws.amazon.com/AmazonS3/latest/"

BODIES = frozenset({"body", "mebibytes", "tags", "delete", "parts", "statement", "xml"})
"""Items of a request that are its body; `xml` is one as it is."""

CALLERS = ("owner", "other", "reader", "writer", "keeper", "nobody", "link")
"""The account that owns the bucket; another account; users of the owner's who may read, only write, or all but go around a
retention; without credentials; with a link that the owner has signed."""

BUCKETS = frozenset({"versioned", "suspended", "locked", "acls", "unblocked", "second", "foreign"})
"""What a row's bucket is: lists are on with `acls`; nothing public is blocked with `unblocked`; `second` and `foreign` are
further buckets, of the owner and of the other account."""


class Step(NamedTuple):
    text: str
    until: bool
    who: str
    method: str
    target: str
    sent: tuple[tuple[str, str], ...]
    checked: bool
    status: int = 0
    code: str = ""
    wanted: tuple[tuple[str, str], ...] = ()
    kept: tuple[tuple[str, str], ...] = ()      # (what, name)


class Row(NamedTuple):
    place: str
    features: tuple[str, ...]
    situation: str
    page: str
    differs: str
    bucket: frozenset[str]
    steps: tuple[Step, ...]

    @property
    def waits(self) -> bool:
        return any(step.until for step in self.steps)


class BadRow(Exception):
    """The text names the place."""


def rows() -> list[Row]:
    return [row for file in sorted(FOLDER.glob("*.txt")) for row in _of_file(file)]


def _of_file(file: Path) -> Iterator[Row]:
    lines: list[str] = []
    for number, line in enumerate([*file.read_text().split("\n"), ""], 1):
        if line.startswith("#") and not line.startswith("##"):
            continue
        if line:
            lines.append(line)
        elif lines:
            yield _row(f"{file.stem}:{number - len(lines)}", lines)
            lines = []


def _row(place: str, lines: list[str]) -> Row:
    head = re.fullmatch(r"## (.+?): (.+)", lines[0])
    if head is None:
        raise BadRow(f"{place}: no heading")
    fields, steps = {"page": "", "bucket": "", "differs": ""}, []
    for line in lines[1:]:
        name, colon, value = line.partition(": ")
        if colon and name in fields:
            fields[name] = value
        else:
            steps.append(_step(place, line))
    bucket = frozenset(fields["bucket"].split())
    if not fields["page"] or not bucket <= BUCKETS or not any(step.checked for step in steps):
        raise BadRow(f"{place}: no page, no answer, or an unknown kind of bucket")
    return Row(place, tuple(head[1].split(" + ")), head[2], fields["page"], fields["differs"], bucket, tuple(steps))


def _step(place: str, line: str) -> Step:
    asked, arrow, answer = line.partition(" => ")
    if not arrow:
        asked, _, answer = line.partition(" -> ")
    words, *items = asked.split(" | ")
    said = words.split()
    until = said[0] == "until"
    if until:
        said = said[1:]
    who = said.pop(0) if said[0] in CALLERS else "owner"
    if len(said) != 2 or not said[0].isupper():
        raise BadRow(f"{place}: {line}")
    sent = tuple(_pair(place, item) for item in items)
    status, code = 0, ""
    parts = [part for part in answer.split(" | ") if part]
    if arrow:
        first = parts.pop(0).split()
        status, code = int(first[0]), first[1] if len(first) > 1 else ""
    wanted = tuple(_pair(place, part) for part in parts if ": " in part)
    named = [part.partition(" as ") for part in parts if ": " not in part]
    kept = tuple((what, name) for what, word, name in named if word)
    if len(kept) + len(wanted) != len(parts):
        raise BadRow(f"{place}: {line}")
    return Step(line, until, who, said[0], said[1], sent, bool(arrow), status, code, wanted, kept)


def _pair(place: str, item: str) -> tuple[str, str]:
    name, colon, value = item.partition(": ")
    if not colon:
        raise BadRow(f"{place}: {item!r} is no item")
    return name, value


def page() -> str:
    """docs/INTERPLAY.md."""
    found = rows()
    lines = [
        "# What features do to each other",
        "<!-- Printed from tests/interplay/*.txt by `python -m tests.interplay`; edit those, not this page. -->", "",
        f"{len(found)} situations in which two features meet, with the answer that S3 gives and Staddle too: each is run as a",
        "test. A request is written as its caller (the bucket's owner if none is named), method, and key or bucket query; after",
        "the arrow stands what is answered. `other` is another account; `reader`, `writer` and `keeper` are users of the owner's",
        "account who may read, only write, and do all but go around a retention; `nobody` has no credentials; `link` is a",
        "presigned URL.", "",
        "| features | situation | answer | AWS's page |", "|---|---|---|---|",
    ]
    for row in found:
        answers = "<br>".join(f"`{_shown(step)}`" for step in row.steps if step.checked)
        name = row.page.rpartition("/")[2].removesuffix(".html")
        situation = row.situation + (f"<br>*Not as on AWS:* {row.differs}" if row.differs else "")
        lines.append(f"| {' + '.join(row.features)} | {situation} | {answers} | [{name}]({AWS}{row.page}) |")
    return "\n".join([*lines, ""])


def _shown(step: Step) -> str:
    asked, _, answer = step.text.removeprefix("until ").partition(" => ")
    return f"{asked} → {answer}".replace(" | ", ", ").replace("|", "\\|")
