"""The text of tests/spec: blocks of a command line, its input, ``----``, and the expected output up to an empty line.

Lines that begin with # between blocks are for the reader.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "spec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    place: str
    command: str
    arguments: dict[str, str]
    lines: tuple[str, ...]
    expected: str


def blocks(name: str) -> list[Block]:
    """All blocks of ``tests/spec/<name>.txt``."""
    found: list[Block] = []
    lines = (FOLDER / f"{name}.txt").read_text().split("\n")
    at = 0
    while at < len(lines):
        if not lines[at] or lines[at].startswith("#"):
            at += 1
            continue
        start = at
        command, *words = lines[at].split()
        divider = lines.index("----", at)
        end = next((index for index in range(divider, len(lines)) if not lines[index]), len(lines))
        assert end > divider + 1, f"{name}:{start + 1} expects nothing"
        found.append(Block(
            place=f"{name}:{start + 1}", command=command, arguments=dict(word.split("=", 1) for word in words),
            lines=tuple(lines[at + 1 : divider]), expected="\n".join(lines[divider + 1 : end]),
        ))
        at = end
    assert found, f"{name} has no blocks"
    return found
