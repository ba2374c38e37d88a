"""Lifecycles as values: what is read is written again, what AWS refuses is refused in its words, and when what is due."""

import pytest

from gateway.s3.errors import S3Error
from gateway.s3.headers import STORAGE_CLASSES
from gateway.s3.lifecycle import due as lifecycle_due
from gateway.s3.lifecycle.due import Days, Version
from gateway.s3.lifecycle.read import read
from gateway.s3.lifecycle.rules import ALL_128K, RULES_MAX, VARIES, Lifecycle, write
from gateway.s3.times import DAY_MS, http_date, parse_iso8601

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
TAIL = "</LifecycleConfiguration>"
DAYS = "<Expiration><Days>1</Days></Expiration>"
ALL = "<Filter><Prefix></Prefix></Filter>"


def of(*rules: str, minimum: str | None = None, minima: bool = True) -> Lifecycle:
    """Of the insides of Rule elements; each gets an ID unless it has one."""
    inner = "".join(f"<Rule>{'' if '<ID>' in rule else f'<ID>r{number}</ID>'}{rule}</Rule>" for number, rule in enumerate(rules))
    return read(f"{HEAD}{inner}{TAIL}".encode(), minimum, STORAGE_CLASSES, lambda: "made", minima=minima)


def on(rule: str, about: str = ALL) -> str:
    return f"{about}<Status>Enabled</Status>{rule}"


def at(text: str) -> int:
    ms = parse_iso8601(f"{text}:00Z")
    assert ms is not None
    return ms


# Read and written

@pytest.mark.parametrize("rule", [
    on(DAYS), on(DAYS, "<Prefix>old/</Prefix>"), on(DAYS, "<Filter></Filter>"),
    on(DAYS, "<Filter><Tag><Key>k</Key><Value></Value></Tag></Filter>"),
    on(DAYS, "<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>"),
    on(DAYS, "<Filter><And><Prefix>a&amp;b</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><Tag><Key>l</Key><Value>w</Value></Tag>"
             "<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>"),
    on("<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>"),
    on("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"),
    on("<Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"
       "<Transition><Days>60</Days><StorageClass>GLACIER</StorageClass></Transition>"
       "<Expiration><Days>61</Days></Expiration>"
       "<NoncurrentVersionTransition><NoncurrentDays>30</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>"
       "<StorageClass>ONEZONE_IA</StorageClass></NoncurrentVersionTransition>"
       "<NoncurrentVersionExpiration><NoncurrentDays>31</NoncurrentDays><NewerNoncurrentVersions>100</NewerNoncurrentVersions>"
       "</NoncurrentVersionExpiration>"
       "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>"),
    on("<Transition><Days>0</Days><StorageClass>GLACIER</StorageClass></Transition>"),
    f"{ALL}<Status>Disabled</Status>{DAYS}",
])
def test_what_is_put_is_given_back_to_the_letter(rule: str) -> None:
    assert write(of(rule)).decode() == f"{HEAD}<Rule><ID>r0</ID>{rule}</Rule>{TAIL}"


def test_a_rule_without_an_id_is_given_one_and_a_date_may_lack_its_time() -> None:
    body = f"{HEAD}<Rule>{on('<Expiration><Date>2030-01-01</Date></Expiration>')}</Rule>" * 1 + TAIL
    rule, = read(body.encode(), None, STORAGE_CLASSES, lambda: "made").rules
    assert rule.id == "made"
    assert rule.expiration is not None
    assert rule.expiration.date_ms == at("2030-01-01T00:00")


def test_the_least_size_of_what_is_moved_is_kept() -> None:
    assert [of(on(DAYS), minimum=minimum).minimum for minimum in (None, ALL_128K, VARIES)] == [ALL_128K, ALL_128K, VARIES]
    with pytest.raises(S3Error, match="InvalidRequest") as caught:
        of(on(DAYS), minimum="large")
    assert caught.value.message == "Invalid TransitionDefaultMinimumObjectSize found: large"


def move(days: int, storage_class: str) -> str:
    return f"<Transition><Days>{days}</Days><StorageClass>{storage_class}</StorageClass></Transition>"


TAG = "<Tag><Key>k</Key><Value>v</Value></Tag>"
ABORT = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
MARKER = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
SIZE = "<ObjectSizeLessThan>9</ObjectSizeLessThan>"


@pytest.mark.parametrize(("rules", "code", "message"), [
    ([f"<Status>Enabled</Status>{DAYS}"], "MalformedXML", None),                                    # no filter
    ([f"{ALL}{DAYS}"], "MalformedXML", None),                                                       # no status
    ([f"{ALL}<Status>enabled</Status>{DAYS}"], "MalformedXML", None),
    ([on(f"{DAYS}{DAYS}")], "MalformedXML", None),
    ([on("<Unknown/>")], "MalformedXML", None),
    ([on("<Expiration></Expiration>")], "MalformedXML", None),
    ([on("<Expiration><Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>")],
     "MalformedXML", None),
    ([on("<Expiration><Days>1</Days><Date>2030-01-01T00:00:00Z</Date></Expiration>")], "MalformedXML", None),
    ([on("<Expiration><Days>soon</Days></Expiration>")], "MalformedXML", None),
    ([on("<Expiration><Days>3323232323232323</Days></Expiration>")], "MalformedXML", None),
    ([on("<Expiration><Date>never</Date></Expiration>")], "MalformedXML", None),
    ([on("<NoncurrentVersionExpiration/>")], "MalformedXML", None),
    ([on("<NoncurrentVersionExpiration><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>")],
     "MalformedXML", None),
    ([on("<Transition><StorageClass>GLACIER</StorageClass></Transition>")], "MalformedXML", None),
    ([on("<Transition><Days>1</Days></Transition>")], "MalformedXML", None),
    ([on(move(1, "STANDARD"))], "MalformedXML", None),
    ([on(move(1, "COLD"))], "MalformedXML", None),
    ([on(DAYS, f"<Filter><Prefix>a</Prefix>{TAG}</Filter>")], "MalformedXML", None),
    ([on(DAYS, f"<Filter><Prefix>a</Prefix><And><Prefix>a</Prefix>{TAG}</And></Filter>")], "MalformedXML", None),
    ([on(DAYS, "<Filter><And><Prefix>a</Prefix></And></Filter>")], "MalformedXML", None),
    ([on("<Expiration><Days>0</Days></Expiration>")], "InvalidArgument",
     "'Days' for Expiration action must be a positive integer"),
    ([on("<Expiration><Days>-1</Days></Expiration>")], "InvalidArgument",
     "'Days' for Expiration action must be a positive integer"),
    ([on("<NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>")], "InvalidArgument",
     "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer"),
    ([on(ABORT.replace("1", "0"))], "InvalidArgument",
     "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer"),
    ([on(move(-1, "GLACIER"))], "InvalidArgument", "'Days' in Transition action must be nonnegative"),
    ([on("<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>")], "InvalidArgument", "'Date' must be at midnight GMT"),
    ([on(f"<ID>{'i' * 256}</ID>{DAYS}")], "InvalidArgument", "ID length should not exceed allowed limit of 255"),
    ([on(f"<ID>i</ID>{DAYS}")] * 2, "InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule"),
    ([on("")], "InvalidRequest", "At least one action needs to be specified in a rule"),
    ([on(DAYS, f"<Filter><And>{TAG}{TAG}</And></Filter>")], "InvalidRequest", "Duplicate Tag Keys are not allowed."),
    ([on(DAYS, "<Filter><Tag><Key></Key><Value>v</Value></Tag></Filter>")], "InvalidRequest",
     "A Tag's Key must be a length between 1 and 128."),
    ([on(ABORT, f"<Filter>{TAG}</Filter>")], "InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Tags."),
    ([on(ABORT, f"<Filter>{SIZE}</Filter>")], "InvalidRequest",
     "AbortIncompleteMultipartUpload cannot be specified with Object Size."),
    ([on(MARKER, f"<Filter>{TAG}</Filter>")], "InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags."),
    ([on(DAYS, "<Filter><ObjectSizeLessThan>0</ObjectSizeLessThan></Filter>")], "InvalidRequest",
     "'ObjectSizeLessThan' should be between 1 and 1099511627776000."),
    ([on(DAYS, f"<Filter><And><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan>{SIZE}</And></Filter>")], "InvalidRequest",
     "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'."),
    ([on(DAYS, "<Prefix>a</Prefix>"), on(DAYS)], "InvalidRequest", "Filter element can only be used in Lifecycle V2."),
    ([on("<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>"
         "</NoncurrentVersionExpiration>", "<Prefix>a</Prefix>")], "InvalidRequest",
     "NewerNoncurrentVersions element can only be used in Lifecycle V2."),
    ([on(DAYS), on(DAYS, "<Prefix>a</Prefix>")], "InvalidRequest",
     "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter."),
    ([on(DAYS, "<Prefix>logs</Prefix>"), on(DAYS, "<Prefix></Prefix>")], "InvalidRequest",
     "Found overlapping prefixes 'logs' and '' for same action type 'Expiration'"),
    ([on(move(29, "STANDARD_IA"))], "InvalidArgument",
     "'Days' in Transition action must be greater than or equal to 30 for storageClass 'STANDARD_IA'"),
    ([on(move(30, "STANDARD_IA") + move(59, "GLACIER"))], "InvalidArgument",
     "'Days' in the 'Transition' action for StorageClass 'GLACIER' for filter '(prefix=)' must be 30 days more than "
     "'filter '(prefix=)'' in the 'Transition' action for StorageClass 'STANDARD_IA'"),
    ([on(move(30, "GLACIER") * 2)], "InvalidRequest",
     "'StorageClass' must be different for 'Transition' actions in same 'Rule' with filter '(prefix=)'"),
    ([on(f"{move(1, 'GLACIER')}{DAYS}")], "InvalidArgument",
     "'Days' in the Expiration action for filter '(prefix=)' must be greater than 'Days' in the Transition action"),
    ([on(f"{move(1, 'GLACIER')}{DAYS}", "<Prefix>a</Prefix>")], "InvalidArgument",
     "'Days' in the Expiration action for prefix 'a' must be greater than 'Days' in the Transition action"),
    ([on(f"{move(1, 'GLACIER')}<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>", "<Prefix>a</Prefix>")],
     "InvalidRequest", "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule for prefix 'a'"),
])
def test_what_aws_refuses_is_refused_in_its_words(rules: list[str], code: str, message: str | None) -> None:
    with pytest.raises(S3Error) as caught:
        of(*rules)
    assert caught.value.code == code, caught.value
    if message is not None:
        assert caught.value.message == message


def test_rules_that_overlap_where_aws_lets_them() -> None:
    of(on(DAYS), on(DAYS, "<Filter><Prefix>logs</Prefix></Filter>"))                    # with filters
    of(on(DAYS, "<Prefix>a</Prefix>"), on(ABORT, "<Prefix>a</Prefix>"))                 # other actions
    of(on(move(1, "STANDARD_IA")), minima=False)                                        # where a day is short


def test_limits_of_the_whole() -> None:
    rules = [on(DAYS, f"<Filter><Prefix>{number}/</Prefix></Filter>") for number in range(RULES_MAX)]
    assert len(of(*rules).rules) == RULES_MAX
    with pytest.raises(S3Error, match="InvalidRequest"):
        of(*rules, on(DAYS))
    for nothing in ("", "<LifecycleConfiguration/>", f"{HEAD}{TAIL}", f"{HEAD}x<Rule>{on(DAYS)}</Rule>{TAIL}"):
        with pytest.raises(S3Error, match="MalformedXML"):
            read(nothing.encode(), None, STORAGE_CLASSES, lambda: "made")


# When

MADE = at("2030-03-10T10:30")


@pytest.mark.parametrize(("days", "made", "due"), [
    (1, "2030-03-10T10:30", "2030-03-12T00:00"), (3, "2014-01-15T10:30", "2014-01-19T00:00"),
    (1, "2030-03-10T00:00", "2030-03-11T00:00"), (30, "2030-03-10T23:59", "2030-04-10T00:00"),
])
def test_days_are_rounded_up_to_the_next_midnight(days: int, made: str, due: str) -> None:
    found = lifecycle_due.expiration(of(on(DAYS.replace("1", str(days)))), Version("k", at(made)))
    assert found is not None
    assert http_date(found.at_ms) == http_date(at(due))


def test_short_days_are_not_rounded_and_dates_stay_dates() -> None:
    short = Days(10_000)
    assert lifecycle_due.expiration(of(on(DAYS)), Version("k", MADE), short)[0] == MADE + 10_000    # type: ignore[index]
    dated = of(on("<Expiration><Date>2031-01-01T00:00:00Z</Date></Expiration>"))
    assert lifecycle_due.expiration(dated, Version("k", MADE), short)[0] == at("2031-01-01T00:00")  # type: ignore[index]


def test_no_number_of_days_leads_out_of_the_calendar() -> None:
    found = lifecycle_due.expiration(of(on(DAYS.replace("1", str(2**31 - 1)))), Version("k", MADE))
    assert found is not None
    assert lifecycle_due.expiration_header(found)[1].startswith('expiry-date="Fri, 31 Dec 9999')


@pytest.mark.parametrize(("about", "key", "size", "tags", "fits"), [
    (ALL, "k", 0, (), True), ("<Filter/>", "k", 0, (), True), ("<Prefix>a/</Prefix>", "a/k", 0, (), True),
    ("<Filter><Prefix>a/</Prefix></Filter>", "b/k", 0, (), False),
    (f"<Filter>{TAG}</Filter>", "k", 0, (("k", "v"), ("l", "w")), True),
    (f"<Filter>{TAG}</Filter>", "k", 0, (("k", "w"),), False),
    (f"<Filter>{TAG}</Filter>", "k", 0, (), False),
    (f"<Filter>{SIZE}</Filter>", "k", 8, (), True), (f"<Filter>{SIZE}</Filter>", "k", 9, (), False),
    ("<Filter><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan></Filter>", "k", 9, (), False),
    (f"<Filter><And><Prefix>a</Prefix>{TAG}{SIZE}</And></Filter>", "ab", 1, (("k", "v"),), True),
    (f"<Filter><And><Prefix>a</Prefix>{TAG}{SIZE}</And></Filter>", "ab", 1, (), False),
])
def test_filters(about: str, key: str, size: int, tags: tuple[tuple[str, str], ...], *, fits: bool) -> None:
    found = lifecycle_due.expiration(of(on(DAYS, about)), Version(key, MADE, size, tags))
    assert (found is not None) is fits


def test_the_earliest_rule_counts_and_one_that_is_off_does_not() -> None:
    def days(count: int) -> str:
        return DAYS.replace("1", str(count))

    lifecycle = of(on(f"<ID>late</ID>{days(9)}"), on(f"<ID>early &amp; so</ID>{days(2)}"),
                   f"<ID>off</ID>{ALL}<Status>Disabled</Status>{days(1)}")
    found = lifecycle_due.expiration(lifecycle, Version("k", MADE))
    assert found is not None
    assert lifecycle_due.expiration_header(found) == (
        "x-amz-expiration", 'expiry-date="Wed, 13 Mar 2030 00:00:00 GMT", rule-id="early%20%26%20so"')


def test_newer_noncurrent_versions_are_spared() -> None:
    lifecycle = of(on("<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>"
                      "<NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration>"))
    found = [lifecycle_due.noncurrent_expiration(lifecycle, Version("k", MADE, newer=newer)) for newer in range(4)]
    assert [each is not None for each in found] == [False, False, True, True]


def test_markers_go_at_once_where_a_rule_asks_for_it_and_with_their_age_otherwise() -> None:
    assert lifecycle_due.marker_expiration(of(on(MARKER)), "k", MADE)[0] == 0                           # type: ignore[index]
    assert lifecycle_due.marker_expiration(of(on(DAYS)), "k", MADE)[0] == at("2030-03-12T00:00")        # type: ignore[index]
    for none in (on(MARKER.replace("true", "false")), on(ABORT), on(DAYS, f"<Filter>{TAG}</Filter>")):
        assert lifecycle_due.marker_expiration(of(none), "k", MADE) is None


@pytest.mark.parametrize(("lies", "size", "days", "goes"), [
    ("STANDARD", 1 << 20, 40, "STANDARD_IA"), ("STANDARD", 1 << 20, 100, "GLACIER"), ("STANDARD", 1 << 20, 20, None),
    ("GLACIER", 1 << 20, 40, None), ("DEEP_ARCHIVE", 1 << 20, 100, None), ("STANDARD_IA", 1 << 20, 40, None),
    ("STANDARD", 1000, 100, None), ("WARM", 1 << 20, 40, "STANDARD_IA"),
])
def test_moves_go_down_and_take_the_last_that_is_due(lies: str, size: int, days: int, goes: str | None) -> None:
    lifecycle = of(on(move(30, "STANDARD_IA") + move(90, "GLACIER")))
    found = lifecycle_due.transition(lifecycle, Version("k", MADE, size, (), lies), MADE + days * DAY_MS)
    assert (None if found is None else found.storage_class) == goes


def test_small_objects_move_where_a_rule_speaks_of_sizes_or_the_bucket_lets_them() -> None:
    now, small = MADE + 100 * DAY_MS, Version("k", MADE, 5)
    assert lifecycle_due.transition(of(on(move(90, "GLACIER")), minimum=VARIES), small, now) is not None
    assert lifecycle_due.transition(of(on(move(90, "STANDARD_IA")), minimum=VARIES), small, now) is None
    assert lifecycle_due.transition(of(on(move(90, "STANDARD_IA"), f"<Filter>{SIZE}</Filter>")), small, now) is not None
    assert lifecycle_due.transition(of(on(move(90, "STANDARD_IA"))), small, now, Days(1000)) is not None


def test_uploads_end_with_their_days() -> None:
    found = lifecycle_due.abort(of(on(ABORT)), "k", MADE)
    assert found is not None
    assert lifecycle_due.abort_headers(found) == [
        ("x-amz-abort-date", "Tue, 12 Mar 2030 00:00:00 GMT"), ("x-amz-abort-rule-id", "r0")]
