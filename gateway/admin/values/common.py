"""What all requests and answers of the admin API share."""

from typing import Annotated

import msgspec

PAGE = 1000
"""Entries of a page, unless asked for fewer."""

SECRET_FIELDS = frozenset({"secret_key"})
"""Never logged."""


def about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of a request. One that is not known is an error that names it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: a JSON object. New fields may be added."""


class Nothing(Request, frozen=True, kw_only=True):
    """No fields."""


class Done(Answer, frozen=True, kw_only=True):
    """It is so now."""


After = Annotated[str, about("`next` of the page before; empty for the first page.")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE, description="Entries of a page at most.")]


class Page(Request, frozen=True, kw_only=True):
    after: After = ""
    limit: Limit = PAGE
