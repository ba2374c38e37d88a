"""Documents that are kept as they were sent: a schema as data, which reads them strictly and writes them in S3's order.

*Field*     one element: its name, what it may hold, whether it must be there and whether it may come several times
*Content*   of a field: a check of its text (`any_text`, `whole_number`, `true_or_false`, `word(…)`), or the fields inside it
*Tree*      a document that was read: names to texts, trees, or lists of them where a field may repeat

Whoever needs more than a shape (this or that, unique ids) looks at the tree. What is not the schema is MalformedXML.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from gateway.s3.xml.read import Element, malformed, number_of
from gateway.s3.xml.text import escape

Check: TypeAlias = Callable[[str], str]
"""The text as it is kept. S3Error MalformedXML for one that can't be."""

Tree: TypeAlias = dict[str, "str | Tree | list[str] | list[Tree]"]


class Field(NamedTuple):
    name: str
    content: "Check | tuple[Field, ...]"
    required: bool = False
    many: bool = False


def any_text(text: str) -> str:
    return text


def whole_number(text: str) -> str:
    return str(number_of(text))


def true_or_false(text: str) -> str:
    return word("true", "false")(text.strip().lower())


def word(*allowed: str) -> Check:
    """One of these, spelt just so."""

    def check(text: str) -> str:
        if text not in allowed:
            malformed()
        return text

    return check


def read(element: Element, fields: tuple[Field, ...]) -> Tree:
    """The tree of an element with these fields. S3Error MalformedXML."""
    if element.text.strip():
        malformed()
    by_name: dict[str, list[Element]] = {}
    for child in element.children:
        by_name.setdefault(child.name, []).append(child)
    tree: Tree = {}
    for field in fields:
        found = by_name.pop(field.name, [])
        if (field.required and not found) or (len(found) > 1 and not field.many):
            malformed()
        if not found:
            continue
        if isinstance(field.content, tuple):
            inner = [read(child, field.content) for child in found]
            tree[field.name] = inner if field.many else inner[0]
        else:
            texts = [_text(child, field.content) for child in found]
            tree[field.name] = texts if field.many else texts[0]
    if by_name:
        malformed()
    return tree


def _text(element: Element, check: Check) -> str:
    if element.children:
        malformed()
    return check(element.text)


def write(tree: Tree, fields: tuple[Field, ...]) -> str:
    """What is between the tags of the element, in the order of the fields."""
    return "".join(
        f"<{field.name}>{_inner(value, field)}</{field.name}>"
        for field in fields if field.name in tree
        for value in _each(tree[field.name])
    )


def _each(value: "str | Tree | list[str] | list[Tree]") -> "list[str] | list[Tree] | list[str | Tree]":
    return value if isinstance(value, list) else [value]


def _inner(value: "str | Tree", field: Field) -> str:
    if isinstance(value, str):
        return escape(value)
    assert isinstance(field.content, tuple)
    return write(value, field.content)


def branch(tree: Tree, name: str) -> Tree:
    """The tree under that name; empty where there is none."""
    found = tree.get(name, {})
    assert isinstance(found, dict)
    return found


def branches(tree: Tree, name: str) -> list[Tree]:
    """Of a field that may repeat."""
    return [found for found in _each(tree.get(name, [])) if isinstance(found, dict)]


def leaf(tree: Tree, name: str) -> str:
    """The text under that name; "" where there is none."""
    found = tree.get(name, "")
    assert isinstance(found, str)
    return found
