"""Settings from one TOML file, the environment and the command line, into a frozen struct. Whatever is wrong is named.

Later wins: the struct's defaults, the file, ``STADDLE_<KEY>`` in the environment, overrides (the command line). A key that
nobody knows is an error wherever it stands: a misspelt setting that is silently ignored is how data gets lost.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

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
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    for key, value in (_read_file(file) if file else {}).items():
        values[key], source[key] = value, f"in {file}"
    for name, value in environ.items():
        if name.startswith(PREFIX) and not name.startswith(FOR_TESTS) and name not in other_variables:
            key = name[len(PREFIX):].lower()
            values[key], source[key] = _from_text(value, types.get(key)), f"from {name}"
    for key, value in overrides.items():
        values[key], source[key] = value, "on the command line"
    for key in values:
        if key not in types:
            raise SettingsError(f"unknown setting {key!r} ({source[key]}). {_nearest(key, types)}")
    converted: dict[str, Any] = {}
    for key, value in values.items():
        try:
            converted[key] = msgspec.convert(value, types[key], strict=False, dec_hook=decode_setting)
        except (msgspec.ValidationError, ValueError) as error:
            raise SettingsError(f"setting {key!r} ({source[key]}): {_plain(error)}") from None
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
        return Path(str(value))
    raise NotImplementedError(kind)


def _plain(error: Exception) -> str:
    return str(error).replace(" - at `$`", "").replace("`", "'")


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else "docs/CONFIGURATION.md lists them all."
