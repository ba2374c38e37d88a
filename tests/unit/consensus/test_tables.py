"""The schema: docs/format/metadata.md names every table and column, and a newer schema is not touched."""

import re
from pathlib import Path

import pytest

from consensus.tables import TABLES, open_database

PAGE = Path(__file__).parents[3] / "docs" / "format" / "metadata.md"


def test_the_page_about_the_format_names_every_column() -> None:
    sections = dict(re.findall(r"^\*\*(\w+)\*\* (.*?)(?=\n\n)", PAGE.read_text(), re.S | re.M))
    for table in TABLES:
        name = table._meta.table_name
        described = set(re.findall(r"`(\w+)`", sections.pop(name)))
        if name == "history":
            described |= set(re.findall(r"`(\w+)`", dict(re.findall(r"^\*\*(object)\*\* (.*?)(?=\n\n)", PAGE.read_text(),
                                                                    re.S | re.M))["object"]))
        assert set(table._meta.columns) <= described, name
    assert not sections, "and no table that is not there"


def test_the_format_of_a_slice_is_as_the_page_says() -> None:
    from consensus.core.model import Slice
    from consensus.rows import pack_slices, unpack_slices

    slices = (Slice(b"d" * 32, 1, 2), Slice(b"e" * 32, 3, 4))  # type: ignore[arg-type]
    packed = pack_slices(slices)
    assert packed == b"d" * 32 + bytes((0, 0, 0, 1, 0, 0, 0, 2)) + b"e" * 32 + bytes((0, 0, 0, 3, 0, 0, 0, 4))
    assert tuple(unpack_slices(packed)) == slices


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "db"))
    database.execute_sql("UPDATE meta SET v = 99 WHERE k = 'schema'")
    database.close()
    with pytest.raises(ValueError, match="schema 99"):
        open_database(str(tmp_path / "db"))
