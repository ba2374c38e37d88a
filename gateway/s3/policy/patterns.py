"""Texts of policies with ``*``, ``?`` and ``${variables}``, matched in time that grows with the text and no faster.

A value that comes from a request never acts as a wildcard: a user called ``*`` is a user called ``*``.
"""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

_PIECE = re.compile(r"\$\{([^}]*)\}|([*?])")
_VARIABLE = re.compile(r"\s*([A-Za-z0-9:/._@+=-]+)\s*(?:,\s*'([^']*)'\s*)?")
_ANY, _ONE = "*", "?"


class Variable(NamedTuple):
    key: str                  # lower case
    default: str | None


class Literal(NamedTuple):
    text: str


Piece = Literal | Variable | str
"""A str is a wildcard."""


class Pattern(NamedTuple):
    pieces: tuple[Piece, ...]
    text: str                 # as it was written

    @property
    def fixed(self) -> bool:
        """Whether it stands for one value only."""
        return all(type(piece) is Literal for piece in self.pieces)

    def matches(self, text: str, context: Mapping[str, tuple[str, ...]]) -> bool:
        """False if a variable has no value in this request."""
        pieces = self.pieces
        for piece in pieces:
            if type(piece) is Variable:
                filled = _filled(pieces, context)
                return filled is not None and _compiled(filled).fullmatch(text) is not None
        return _compiled(pieces).fullmatch(text) is not None

    def literally(self, context: Mapping[str, tuple[str, ...]]) -> str | None:
        """The text with variables filled in, wildcards being themselves."""
        filled = _filled(self.pieces, context)
        return None if filled is None else "".join([piece.text if isinstance(piece, Literal) else piece for piece in filled])


def _filled(pieces: tuple[Piece, ...], context: Mapping[str, tuple[str, ...]]) -> tuple[Literal | str, ...] | None:
    filled: list[Literal | str] = []
    for piece in pieces:
        if isinstance(piece, Variable):
            values = context.get(piece.key, ())
            value = values[0] if len(values) == 1 else piece.default
            if value is None:
                return None
            filled.append(Literal(value))
        else:
            filled.append(piece)
    return tuple(filled)


def pattern(text: str, *, variables: bool = True, lower: bool = False) -> Pattern:
    """ValueError for a variable that is none. `variables` False: an old policy, in which ``${`` is just text."""
    source = text.lower() if lower else text
    pieces: list[Piece] = []
    at = 0
    for match in _PIECE.finditer(source):
        if match[1] is not None and not variables:
            continue
        if match.start() > at:
            pieces.append(Literal(source[at:match.start()]))
        at = match.end()
        pieces.append(match[2] if match[1] is None else _variable(match[1]))
    if at < len(source):
        pieces.append(Literal(source[at:]))
    return Pattern(tuple(pieces), text)


def _variable(inner: str) -> Piece:
    if inner in ("*", "?", "$"):
        return Literal(inner)
    match = _VARIABLE.fullmatch(inner)
    if match is None:
        raise ValueError(inner)
    return Variable(match[1].lower(), match[2])


@functools.lru_cache(4096)
def _compiled(pieces: tuple[Literal | str, ...]) -> re.Pattern[str]:
    """After each ``*`` the nearest fit of what follows is taken and never given back (an atomic group), which is right for all
    but the last one: so no pattern takes more than its length times that of the text."""
    runs: list[str] = [""]
    for piece in pieces:
        if isinstance(piece, Literal):
            runs[-1] += re.escape(piece.text)
        elif piece == _ONE:
            runs[-1] += "."
        elif runs[-1] or len(runs) == 1:
            runs.append("")
    if len(runs) == 1:
        return re.compile(runs[0], re.DOTALL)
    middle = "".join([f"(?>.*?{run})" for run in runs[1:-1]])
    return re.compile(f"{runs[0]}{middle}.*{runs[-1]}", re.DOTALL)
