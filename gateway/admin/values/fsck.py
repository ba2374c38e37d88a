"""Metadata and chunks compared, and what was found."""

from typing import Annotated

from gateway.admin.values.common import Answer, Request, about


class RunFsck(Request, frozen=True, kw_only=True):
    verify: Annotated[bool, about("Read every byte of every copy and compare it with its digest.")] = False
    deep: Annotated[bool, about("Have SQLite check the structure of its files.")] = False
    repair: Annotated[bool, about("Have the nodes mend what can be mended while the server runs.")] = False


class Finding(Answer, frozen=True, kw_only=True):
    """`severity`: loss (bytes that something refers to cannot be had), wrong (two records of a fact differ; nothing is lost),
    note (worth knowing). `remedy` says what to do."""

    kind: str
    severity: str
    text: str
    remedy: str
    digest: str = ""
    generation: str = ""
    node: str = ""


class Affected(Answer, frozen=True, kw_only=True):
    """A version of an object, or a part of an upload, that has lost bytes."""

    bucket: str
    key: str
    version_id: str = ""
    upload_id: str = ""
    part: int = 0


class FsckReport(Answer, frozen=True, kw_only=True):
    """`clean`: nothing is lost and nothing is wrong. `counts`: findings by kind, of which at most 10,000 are listed.
    `waiting`: copies that do not count, by reason; they are no fault. `affected`: what has lost bytes, at most 10,000 of
    `affected_count`. `repaired`: findings that the repair has made go away, by kind."""

    clean: bool
    chunks: int
    chunk_bytes: int
    copies: int
    verified: int
    waiting: dict[str, int]
    counts: dict[str, int]
    findings: list[Finding]
    affected_count: int
    affected: list[Affected]
    repaired: dict[str, int] = {}
