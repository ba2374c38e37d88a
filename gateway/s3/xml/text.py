"""Text for XML documents: escaping that keeps every key exact, or every document readable.

Keys may hold any Unicode character, XML 1.0 may not. `escape` writes what XML cannot hold as character references, as
AWS does: exact for a lenient reader, and a client that needs more asks for ``encoding-type=url``. `escape_readable` is
for errors, and for keys that are only echoed, in documents that a strict reader must always understand: there such a
character becomes U+FFFD.
"""

import re

_SPECIAL = re.compile('[\x00-\x1f&<>"\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
"""Everything that is not itself in XML: markup, controls (also the legal ones, which parsers would normalise), and what
is no XML character at all."""

_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """`text` for an element: markup escaped, controls as character references."""
    if text.isprintable() and "&" not in text and "<" not in text and ">" not in text and '"' not in text:
        return text  # the usual key: a few scans in C instead of a regular expression
    return _SPECIAL.sub(_reference, text)


def escape_readable(text: str) -> str:
    """As `escape`, but what XML 1.0 forbids even as a reference becomes U+FFFD: the document always parses."""
    if text.isprintable() and "&" not in text and "<" not in text and ">" not in text and '"' not in text:
        return text
    return _SPECIAL.sub(_readable_reference, text)


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    # A lone surrogate cannot come from valid UTF-8, and could not be encoded again.
    return _MARKUP.get(character) or ("\ufffd" if "\ud800" <= character <= "\udfff" else f"&#x{ord(character):X};")


def _readable_reference(match: re.Match[str]) -> str:
    character = match[0]
    if character in _MARKUP:
        return _MARKUP[character]
    legal = character in "\t\n\r" or "\x7f" <= character <= "\x9f"
    return f"&#x{ord(character):X};" if legal else "\ufffd"
