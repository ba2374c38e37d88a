"""Settings from one TOML file, the environment and the command line, into a frozen struct. Whatever is wrong is named.

Later wins: the struct's defaults, the file, ``STADDLE_<KEY>`` in the environment, overrides (the command line). A key that
nobody knows is an error wherever it stands: a misspelt setting that is silently ignored is how data gets lost.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

PREFIX = "STADDLE_"
FOR_TESTS = "STADDLE_TEST_"
"""Variables that steer test suites, which run beside servers."""

FILE_BYTES_MAX = 4 << 20

_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
          "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?i?b|)", re.IGNORECASE)

Kind = TypeVar("Kind", bound=msgspec.Struct)


class SettingsError(ValueError):
    """A sentence that names the key, where it was set, and what it may be."""


class Size(int):
    """A number of bytes, written as 67108864, "64MiB" or "64 MB"."""


def parse_size(text: str) -> Size:
    """Raises ValueError with a sentence for anything but digits and a unit."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or a number with KiB, MiB, GiB or TiB")
    return Size(int(match[1]) * _UNITS[match[2].lower()])


def load(
    kind: type[Kind], *, file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any],
    other_variables: frozenset[str] = frozenset(),
) -> Kind:
    """The settings in force. Raises SettingsError. `other_variables` are STADDLE_ names that aren't settings."""
    types = get_type_hints(kind)
    given: list[tuple[str, Any, str]] = []            # key, value, where it was set
    given += [(key, value, f"in {file}") for key, value in (_read_file(file) if file else {}).items()]
    for name, value in environ.items():
        if name.startswith(PREFIX) and not name.startswith(FOR_TESTS) and name not in other_variables:
            key = name[len(PREFIX):].lower()
            given.append((key, _from_text(value, types.get(key)), f"from {name}"))
    given += [(key, value, "on the command line") for key, value in overrides.items()]
    converted: dict[str, Any] = {}
    for key, value, where in given:                   # also what a later one replaces: a mistake is said at once
        if key not in types:
            raise SettingsError(f"unknown setting {key!r} ({where}). {_nearest(key, types)}")
        try:
            _refuse_unknown_fields(types[key], value)
            converted[key] = msgspec.convert(value, types[key], strict=False, dec_hook=decode_setting)
        except (msgspec.ValidationError, ValueError) as error:
            raise SettingsError(f"setting {key!r} ({where}): {_which(types[key], value)}{_plain(error, types[key])}") from None
    try:
        return kind(**converted)
    except ValueError as error:                      # the struct's own checks across settings
        raise SettingsError(str(error)) from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the configuration file {file}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise SettingsError(f"the configuration file {file} is larger than {FILE_BYTES_MAX} bytes")
    try:
        values = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration file {file} is not TOML: {error}") from None
    return {key.replace("-", "_"): value for key, value in values.items()}


def _from_text(value: str, kind: Any) -> Any:
    """Lists are comma-separated in the environment; everything else converts from its text."""
    if get_origin(kind) is tuple:
        return [item.strip() for item in value.split(",") if item.strip()]
    if kind is bool:
        return {"on": True, "yes": True, "off": False, "no": False}.get(value.strip().lower(), value)
    return value


def decode_setting(kind: type, value: Any) -> Any:
    """What msgspec doesn't know: our own types. A `dec_hook`; raises ValueError."""
    if kind is Size:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError("a size is a number of bytes or a text such as \"64MiB\"")
        return Size(value) if isinstance(value, int) else parse_size(value)
    if kind is Path:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError("a path is text that is not empty")
        return Path(value)
    raise NotImplementedError(kind)


def _refuse_unknown_fields(kind: Any, value: Any) -> None:
    """In lists of tables too, a key that nobody knows is an error. ValueError names it."""
    item = get_args(kind)[0] if get_origin(kind) is tuple else None
    if not (isinstance(item, type) and dataclasses.is_dataclass(item) and isinstance(value, list)):
        return
    known = {field.name: field for field in dataclasses.fields(item)}
    for number, table in enumerate(value, 1):
        for name in table if isinstance(table, dict) else ():
            if name not in known:
                raise ValueError(f"entry {number} has an unknown key {name!r}. {_nearest(name, known)}")


def _which(kind: Any, value: Any) -> str:
    """Of a table of named tables, which one is not as it should be: msgspec does not say."""
    if get_origin(kind) is dict and isinstance(value, dict):
        for name, table in value.items():
            try:
                msgspec.convert(table, get_args(kind)[1], strict=False, dec_hook=decode_setting)
            except (msgspec.ValidationError, ValueError):
                return f"entry {name!r}: "
    return ""


_KINDS = {"int": "a whole number", "str": "text", "float": "a number with a point", "bool": "true or false",
          "array": "a list", "object": "a table", "null": "nothing"}
"""What msgspec calls the kinds of values, in words."""

_EXPECTED = re.compile(r"Expected `(\w+)(?: \| \w+)?`, got `(\w+)`")


def _plain(error: Exception, kind: Any) -> str:
    """A ValidationError as a sentence for people who don't know msgspec."""
    text = str(error)
    place = re.search(r" - at `\$\[(\d+)\](?:\.(\w+))?`", text)
    text = re.sub(r" - at `.*`", "", text)
    if match := _EXPECTED.fullmatch(text):
        text = f"must be {_KINDS.get(match[1], match[1])}, not {_KINDS.get(match[2], match[2])}"
        if match[1] == "array" and match[2] == "object":
            text += ": write [[double brackets]] around its name"
    elif text.startswith("Invalid enum value"):
        choices = ", ".join(repr(choice) for choice in get_args(kind))
        text = f"{text.removeprefix('Invalid enum value ')} is not one of {choices}"
    elif unknown := re.fullmatch(r"Object contains unknown field `(.+)`", text):
        fields = get_type_hints(get_args(kind)[1]) if get_origin(kind) is dict else {}
        text = f"has an unknown key {unknown[1]!r}. {_nearest(unknown[1], fields)}"
    elif missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        text = f"{missing[1]} is missing"
    if place is not None:
        text = f"entry {int(place[1]) + 1}: {place[2] + ' ' if place[2] else ''}{text}"
    return text.replace("`", "'")


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.62)       # with less, any short word is like some setting
    return f"Did you mean {close[0]!r}?" if close else "docs/CONFIGURATION.md lists them all."
