"""Times against the standard library, over many years."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.times import http_date, iso8601, pacific, parse_http_date, parse_iso8601

MOMENTS = st.integers(-62_135_596_800_000, 253_402_300_799_999)    # years 1 to 9999


@given(MOMENTS)
def test_formats_agree_with_datetime(ms: int) -> None:
    seconds, milli = divmod(ms, 1000)
    moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
    assert iso8601(ms) == f"{moment.isoformat()[:19]}.{milli:03}Z"
    assert http_date(ms) == format_datetime(moment, usegmt=True)


@given(st.integers(1_200_000_000, 4_000_000_000))
def test_the_clock_of_the_west_coast(seconds: int) -> None:
    assert pacific(seconds * 1000) == datetime.fromtimestamp(seconds, ZoneInfo("America/Los_Angeles")).strftime(
        "%a %b %d %H:%M:%S %Z %Y")


def test_the_west_coast_before_there_was_one() -> None:
    assert pacific(-62_135_596_800_000).endswith("16:00:00 PST 0")


@given(MOMENTS)
def test_what_is_written_is_read(ms: int) -> None:
    assert parse_iso8601(iso8601(ms)) == ms
    assert parse_http_date(http_date(ms)) == ms // 1000


@pytest.mark.parametrize("text", [
    "Mon, 12 Oct 2009 17:50:30 GMT", "Monday, 12-Oct-09 17:50:30 GMT", "Mon Oct 12 17:50:30 2009",
    "Mon, 12 Oct 2009 17:50:30 +0000", " Mon, 12 Oct 2009 17:50:30 GMT ",
])
def test_the_three_forms_of_a_date(text: str) -> None:
    assert parse_http_date(text) == 1_255_369_830


@pytest.mark.parametrize("text", [
    "", "yesterday", "2009-10-12T17:50:30Z", "Mon, 32 Oct 2009 17:50:30 GMT", "Mon, 12 Oct 2009 24:00:00 GMT",
    "Mon, 12 Okt 2009 17:50:30 GMT", "Mon, 30 Feb 2009 17:50:30 GMT", "Mon, 12 Oct 0000 17:50:30 GMT",
    "Mon, 12 Oct 2009 17:60:30 GMT", "1255369830", "Mon, ٣ Oct 2009 17:50:30 GMT",
])
def test_anything_else_is_no_date(text: str) -> None:
    assert parse_http_date(text) is None


@pytest.mark.parametrize(("text", "ms"), [
    ("2009-10-12T17:50:30Z", 1_255_369_830_000), ("2009-10-12T17:50:30.5Z", 1_255_369_830_500),
    ("2009-10-12T17:50:30.123456789Z", 1_255_369_830_123), ("2009-10-12T17:50:30+00:00", 1_255_369_830_000),
    ("2009-13-12T17:50:30Z", None), ("2009-10-12", None), ("", None),
])
def test_iso8601(text: str, ms: int | None) -> None:
    assert parse_iso8601(text) == ms
