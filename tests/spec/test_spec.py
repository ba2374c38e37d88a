"""Runs the scripts tests/spec/*.txt (those in folders have richer formats, and runners of their own).

A script is a list of cases with one blank line between them: a command and its arguments on the first line, more input
lines if it needs them, ``----``, then the answer. Lines that begin with ``#`` before a case explain it. The first word
of a command chooses the function below. ``pytest tests/spec --rewrite`` writes the answers anew.
"""

import pathlib
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

import pytest

from gateway.s3 import conditions, ranges, times
from gateway.s3.errors import S3Error

HERE = pathlib.Path(__file__).parent
SCRIPTS = sorted(HERE.glob("*.txt"))
SEPARATOR = "----"


class Case(NamedTuple):
    comment: str
    command: str
    input: str
    answer: str


def parse_script(text: str) -> list[Case]:
    cases = []
    for block in re.split(r"\n{2,}", text.strip("\n")):
        lines = block.split("\n")
        first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
        comment = "".join(f"{line}\n" for line in lines[:first])
        if first == len(lines):
            cases.append(Case(comment, "", "", ""))
            continue
        split = lines.index(SEPARATOR)
        cases.append(Case(comment, lines[first], "\n".join(lines[first + 1 : split]), "\n".join(lines[split + 1 :])))
    return cases


def write_script(cases: list[Case]) -> str:
    blocks = []
    for case in cases:
        block = case.comment
        if case.command:
            block += "\n".join([case.command, *([case.input] if case.input else []), SEPARATOR, case.answer])
        blocks.append(block.rstrip("\n"))
    return "\n\n".join(blocks) + "\n"


def told(error: S3Error) -> str:
    detail = "".join(f" {name}={value}" for name, value in error.detail.items())
    return f"{error.status} {error.code}{detail}"


def arguments(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def run_range(words: list[str], _input: str) -> str:
    """range <size> <header>"""
    span = ranges.parse(words[1], int(words[0]))
    if span is None:
        return "200 whole"
    return f"206 {ranges.content_range(span, int(words[0]))} length {span.length}"


def run_copy_range(words: list[str], _input: str) -> str:
    """copy-range <size> <header>"""
    span = ranges.parse_copy(words[1], int(words[0]))
    return f"{span.length} bytes from {span.start}"


def run_part(words: list[str], _input: str) -> str:
    """part count=<parts of the object> number=<partNumber> [range=<header>]"""
    given = arguments(words)
    return f"part {ranges.wanted_part(given['number'], given.get('range'), int(given['count']))}"


MODIFIED_MS = 1_255_369_830_789   # Mon, 12 Oct 2009 17:50:30.789 GMT
NOW_MS = MODIFIED_MS + 86_400_000


def run_read(words: list[str], _input: str) -> str:
    """read <header>=<value>…: the object has ETag abc; `older`, `same`, `newer` and `future` stand for dates."""
    not_modified = conditions.not_modified(_dated(words), etag="abc", modified_ms=MODIFIED_MS, now_ms=NOW_MS)
    return "304" if not_modified else "200"


def run_copy_source(words: list[str], _input: str) -> str:
    """copy-source <header>=<value>…: the same for the headers x-amz-copy-source-…"""
    headers = {f"x-amz-copy-source-{name}": value for name, value in _dated(words).items()}
    conditions.check_copy_source(headers, etag="abc", modified_ms=MODIFIED_MS, now_ms=NOW_MS)
    return "200"


def run_write(words: list[str], _input: str) -> str:
    """write <header>=<value>…"""
    return str(conditions.for_write(_dated(words)))


def run_delete(words: list[str], _input: str) -> str:
    """delete <header>=<value>…"""
    return str(conditions.for_delete(_dated(words)))


def _dated(words: list[str]) -> dict[str, str]:
    moments = {"older": MODIFIED_MS - 1000, "same": MODIFIED_MS, "newer": MODIFIED_MS + 1000, "future": NOW_MS + 60_000}
    return {
        name: times.http_date(moments[value]) if value in moments else value
        for name, value in arguments(words).items()
    }


COMMANDS: dict[str, Callable[[list[str], str], str]] = {
    "range": run_range,
    "copy-range": run_copy_range,
    "part": run_part,
    "read": run_read,
    "copy-source": run_copy_source,
    "write": run_write,
    "delete": run_delete,
}


def run(case: Case) -> str:
    name, *words = shlex.split(case.command)
    try:
        return COMMANDS[name](words, case.input)
    except S3Error as error:
        return told(error)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script: pathlib.Path, request: pytest.FixtureRequest) -> None:
    before = script.read_text()
    cases = parse_script(before)
    assert any(case.command for case in cases)
    if not all(not case.command or case.command.split()[0] in COMMANDS for case in cases):
        pytest.fail(f"unknown command in {script.name}")
    after = write_script([case._replace(answer=run(case)) if case.command else case for case in cases])
    if request.config.getoption("--rewrite"):
        script.write_text(after)
    else:
        assert after == before
