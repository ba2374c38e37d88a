"""What is bound quickly is the value that was given."""

import sqlite3

import pytest

from consensus.core.binding import bind_quickly


@pytest.mark.parametrize("value", [b"", b"\0\xff", None, "", "text", 0, -1, 1.5, bytearray(b"x"), memoryview(b"y")])
def test_values_come_back_as_they_went(value: object) -> None:
    bind_quickly()
    with sqlite3.connect(":memory:") as database:
        (back,), = database.execute("SELECT ?", (value,)).fetchall()
    database.close()
    assert back == value
    assert type(back) is (bytes if isinstance(value, bytearray | memoryview) else type(value))


def test_adapters_are_found() -> None:
    """Else sqlite3 would search in vain for each parameter: nothing but time would show it."""
    bind_quickly()
    for kind in (bytes, type(None)):
        assert (kind, sqlite3.PrepareProtocol) in sqlite3.adapters  # type: ignore[attr-defined]
