"""What a refused call said: code, status, and the whole parsed answer."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError


@contextlib.contextmanager
def refused(code: str, status: int) -> Iterator[dict[str, Any]]:
    """The block must be refused just so. What it yields holds `Error` (with the extra elements) and `Headers` after."""
    said: dict[str, Any] = {}
    with pytest.raises(ClientError) as caught:
        yield said
    answer: dict[str, Any] = dict(caught.value.response)
    got = (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"])
    assert got == (code, status), answer["Error"]
    said.update(answer["Error"], Headers=answer["ResponseMetadata"]["HTTPHeaders"])
