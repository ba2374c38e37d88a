"""Times as S3 writes and reads them. Inside, a time is whole milliseconds since 1970 (UTC) and has no zone.

Headers carry RFC 1123 in whole seconds, XML carries ISO 8601 with milliseconds. A page of a listing holds a thousand
times, so days, minutes, seconds and milliseconds are looked up, not formatted.
"""

import calendar
import functools
import re

DAY_MS = 86_400_000
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MINUTES = tuple(f"{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))
_SECONDS = tuple(f"{second:02}" for second in range(60))
_MILLIS = tuple(f".{milli:03}Z" for milli in range(1000))

DAYS_REMEMBERED = 1024
"""Formatted dates kept; a page rarely spans more days."""

_MONTH = f"({'|'.join(_MONTHS)})"
_DAY_NAME = f"(?:{'|'.join(_WEEKDAYS)})"
_CLOCK = r"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_RFC1123 = re.compile(rf"{_DAY_NAME}, ([0-9]{{1,2}}) {_MONTH} ([0-9]{{4}}) {_CLOCK} (?:GMT|UTC|[+-]0000)")
_RFC850 = re.compile(rf"{_DAY_NAME}[a-z]*, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_CLOCK} GMT")
_ASCTIME = re.compile(rf"{_DAY_NAME} {_MONTH} ([ 0-9][0-9]) {_CLOCK} ([0-9]{{4}})")
_ISO8601 = re.compile(rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})T{_CLOCK}(?:\.([0-9]{{1,9}}))?(?:Z|\+00:?00)")


def iso8601(ms: int) -> str:
    """``2009-10-12T17:50:30.000Z``: times in XML."""
    rest = ms % DAY_MS
    day, clock = _iso_day(ms // DAY_MS), _MINUTES[rest // 60_000]
    return f"{day}{clock}{_SECONDS[rest // 1000 % 60]}{_MILLIS[rest % 1000]}"


def iso8601_seconds(ms: int) -> str:
    """``2009-10-12T17:50:30.000Z``: when something was made, cut to whole seconds as in headers. Clients compare the two: to a
    framework that lists a folder and opens a file later, another time is another file."""
    rest = ms % DAY_MS
    return f"{_iso_day(ms // DAY_MS)}{_MINUTES[rest // 60_000]}{_SECONDS[rest // 1000 % 60]}.000Z"


def http_date(ms: int) -> str:
    """``Mon, 12 Oct 2009 17:50:30 GMT``: times in headers, cut to whole seconds."""
    rest = ms % DAY_MS
    return f"{_http_day(ms // DAY_MS)}{_MINUTES[rest // 60_000]}{_SECONDS[rest // 1000 % 60]} GMT"


@functools.lru_cache(maxsize=DAYS_REMEMBERED)
def _iso_day(day: int) -> str:
    year, month, day_of_month = _civil(day)
    return f"{year:04}-{month:02}-{day_of_month:02}T"


@functools.lru_cache(maxsize=DAYS_REMEMBERED)
def _http_day(day: int) -> str:
    year, month, day_of_month = _civil(day)
    return f"{_WEEKDAYS[(day + 3) % 7]}, {day_of_month:02} {_MONTHS[month - 1]} {year:04} "


def pacific(ms: int) -> str:
    """``Tue Dec 31 16:00:00 PST 2019``: how some of AWS's messages say a time, wherever the bucket is. Without
    tables of zones, which not every machine has: the rule is that of 2007."""
    year = _civil((ms // 1000 - 8 * 3600) // 86_400)[0]
    summer = year > 2006 and _sunday_s(year, 3, 2) + 10 * 3600 <= ms // 1000 < _sunday_s(year, 11, 1) + 9 * 3600
    local_s = ms // 1000 - (7 if summer else 8) * 3600
    day, rest = divmod(local_s, 86_400)
    local_year, month, day_of_month = _civil(day)
    return (f"{_WEEKDAYS[(day + 3) % 7]} {_MONTHS[month - 1]} {day_of_month:02} {_MINUTES[rest // 60]}{_SECONDS[rest % 60]} "
            f"{'PDT' if summer else 'PST'} {local_year}")


def _sunday_s(year: int, month: int, nth: int) -> int:
    """When the nth Sunday of a month begins in UTC, in seconds since 1970."""
    first_s = calendar.timegm((year, month, 1, 0, 0, 0))
    weekday = (first_s // 86_400 + 3) % 7
    return first_s + ((6 - weekday) % 7 + 7 * (nth - 1)) * 86_400


def _civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970, by Hinnant's algorithm: no limits of `datetime`."""
    shifted = day + 719_468
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = year_of_era + era * 400 + (month <= 2)
    return year, month, day_of_year - (153 * shifted_month + 2) // 5 + 1


def parse_http_date(text: str) -> int | None:
    """Seconds since 1970 of an RFC 1123, RFC 850 or asctime date; None for anything else (RFC 9110 §5.6.7)."""
    text = text.strip()
    if match := _RFC1123.fullmatch(text):
        day, month, year, *clock = match.groups()
    elif match := _RFC850.fullmatch(text):
        day, month, year, *clock = match.groups()
        year = f"20{year}" if int(year) < 70 else f"19{year}"
    elif match := _ASCTIME.fullmatch(text):
        month, day, *clock, year = match.groups()
    else:
        return None
    return _seconds(int(year), _MONTHS.index(month) + 1, int(day), [int(field) for field in clock])


def parse_iso8601(text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time in UTC; None for anything else."""
    match = _ISO8601.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction = match.groups()
    seconds = _seconds(int(year), int(month), int(day), [int(hour), int(minute), int(second)])
    return None if seconds is None else seconds * 1000 + int(f"{fraction or 0:0<3}"[:3])


def _seconds(year: int, month: int, day: int, clock: list[int]) -> int | None:
    hour, minute, second = clock
    if not (1 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    if hour > 23 or minute > 59 or second > 60 or (second == 60 and year == 9999):
        return None
    return calendar.timegm((year, month, day, hour, minute, second))
