"""What the client has been told, and what it has asked without an answer yet: the yardstick for what must be there.

A *register* is one thing with a value: a bucket (there or not), an object (the SHA-256 of its body, or None), an upload
(open, complete, aborted), a part (its source). A request in flight adds a value that the register may have as well; its
answer leaves that one only. A request that fails leaves both.
"""

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

OPEN, COMPLETE, ABORTED = "open", "complete", "aborted"

Register = tuple[str, ...]
Value = str | bool | None


class Part(NamedTuple):
    """What was uploaded as a part: enough to make its bytes again."""

    name: str
    size: int

    @property
    def data(self) -> bytes:
        return body(self.name, self.size)


def body(name: str, size: int) -> bytes:
    """The same bytes for the same name, whichever process asks."""
    return random.Random(name).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def bucket(name: str) -> Register:
    return "bucket", name


def key(name: str) -> Register:
    return "object", name


def upload(id: str, key: str) -> Register:
    return "upload", id, key


def part(id: str, number: int) -> Register:
    return "part", id, str(number)


class Snapshot(NamedTuple):
    """At one moment. A value is str(Part) for parts: `parts` finds it again."""

    values: dict[Register, frozenset[Value]]
    parts: dict[str, Part]
    answers: int
    last: str
    asked: tuple[str, ...]

    def of_kind(self, kind: str) -> dict[Register, frozenset[Value]]:
        return {register: values for register, values in self.values.items() if register[0] == kind}


class Told:
    """Used by the client; `snapshot` in any thread."""

    def __init__(self, start: Snapshot | None = None) -> None:
        self._lock = threading.Lock()
        self._values: dict[Register, set[Value]] = {}
        self._parts: dict[str, Part] = {}
        self._asked: list[str] = []
        self._answers, self._last = 0, "nothing"
        if start is not None:
            self._values = {register: set(values) for register, values in start.values.items()}
            self._parts, self._answers, self._last = dict(start.parts), start.answers, start.last

    @contextmanager
    def asking(self, what: str, changes: dict[Register, Value]) -> Iterator[None]:
        with self._lock:
            for register, value in changes.items():
                self._values.setdefault(register, {False if register[0] == "bucket" else None}).add(value)
            self._asked.append(what)
        answered = False
        try:
            yield
            answered = True
        finally:
            with self._lock:
                self._asked.remove(what)
                if answered:
                    for register, value in changes.items():
                        self._values[register] = {value}
                    self._answers, self._last = self._answers + 1, what

    def uploading(self, what: Part) -> str:
        """The value of a part's register."""
        with self._lock:
            self._parts[what.name] = what
        return what.name

    def seen(self, register: Register, value: Value) -> None:
        """The client has read this: whoever asked, it is there from now on."""
        with self._lock:
            self._values[register] = {value}

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot({register: frozenset(values) for register, values in self._values.items()},
                            dict(self._parts), self._answers, self._last, tuple(self._asked))
