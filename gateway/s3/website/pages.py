"""Error pages of website endpoints: HTML in AWS's form, and headers that say the same. Pure.

What a client chose (a key, a bucket's name) is escaped for HTML, and encoded where it stands in a header.
"""

import html
import http
from urllib.parse import quote

from gateway.s3.errors import S3Error

HTML = "text/html; charset=utf-8"

DETAIL_CHARACTERS_MAX = 1024
"""Of what a client chose, in a header."""


class SiteError(S3Error):
    """The error of a request, and the one that came when its error document was looked for."""

    __slots__ = ("of_document",)

    def __init__(self, error: S3Error, of_document: S3Error) -> None:
        super().__init__(error.code, error.message, error.headers, **error.detail)
        self.of_document = of_document


def error_headers(error: S3Error) -> list[tuple[str, str]]:
    """x-amz-error-*: they stand beside an error document too, which says what its author likes."""
    return [("x-amz-error-code", error.code), ("x-amz-error-message", _one_line(error.message)),
            *((f"x-amz-error-detail-{name}", _one_line(str(value))) for name, value in error.detail.items())]


def error_page(error: S3Error, request_id: str, host_id: str) -> bytes:
    title = f"{error.status} {http.HTTPStatus(error.status).phrase}"
    return page(title, [*_items(error), ("RequestId", request_id), ("HostId", host_id)],
                _items(error.of_document) if isinstance(error, SiteError) else [])


def _items(error: S3Error) -> list[tuple[str, str]]:
    return [("Code", error.code), ("Message", error.message), *((name, str(value)) for name, value in error.detail.items())]


def found_page(request_id: str, host_id: str) -> bytes:
    """Of the redirect to a folder."""
    return page("302 Found", [("Code", "Found"), ("Message", "Resource Found"), ("RequestId", request_id), ("HostId", host_id)])


FOUND_HEADERS = [("x-amz-error-code", "Found"), ("x-amz-error-message", "Resource Found")]


def page(title: str, items: list[tuple[str, str]], of_document: list[tuple[str, str]] | None = None) -> bytes:
    more = ("<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n" + _list(of_document)
            if of_document else "")
    return (f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{_list(items)}{more}"
            "<hr/>\n</body>\n</html>\n").encode("utf-8", "replace")


def _list(items: list[tuple[str, str]]) -> str:
    return "<ul>\n" + "".join(f"<li>{name}: {html.escape(value)}</li>\n" for name, value in items) + "</ul>\n"


def _one_line(text: str) -> str:
    return text if text.isascii() and text.isprintable() else quote(text[:DETAIL_CHARACTERS_MAX], safe=" /")
