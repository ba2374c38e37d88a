"""A bucket's notification configuration: what S3 takes, what it refuses and in which words, and how it is shown."""

import itertools
import time

import pytest

from gateway.s3 import notification
from gateway.s3.errors import S3Error
from gateway.s3.notification import Configuration, Rule

QUEUE = "arn:aws:sqs:us-east-1:000000000000:hook"
TOPIC = "arn:aws:sns:us-east-1:000000000000:hook"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:hook"


def read(inner: str) -> Configuration:
    numbers = itertools.count(1)
    return notification.read(
        f'<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</NotificationConfiguration>'.encode(),
        lambda: f"id-{next(numbers)}")


def queue(*events: str, id: str = "", arn: str = QUEUE, **filters: str) -> str:
    rules = "".join(f"<FilterRule><Name>{name}</Name><Value>{value}</Value></FilterRule>" for name, value in filters.items())
    return (f"<QueueConfiguration>{f'<Id>{id}</Id>' if id else ''}<Queue>{arn}</Queue>"
            + "".join(f"<Event>{event}</Event>" for event in events or ("s3:ObjectCreated:*",))
            + (f"<Filter><S3Key>{rules}</S3Key></Filter>" if filters else "") + "</QueueConfiguration>")


def test_every_kind_of_rule_is_read_and_written_as_it_was() -> None:
    found = read(
        queue("s3:ObjectCreated:*", "s3:ObjectRemoved:Delete", id="one", prefix="a&amp;b/", suffix=".jpg")
        + f"<TopicConfiguration><Topic>{TOPIC}</Topic><Event>s3:ObjectRestore:*</Event></TopicConfiguration>"
        + f"<CloudFunctionConfiguration><CloudFunction>{FUNCTION}</CloudFunction><Event>s3:ObjectAcl:Put</Event>"
          "<InvocationRole>arn:aws:iam::1:role/r</InvocationRole></CloudFunctionConfiguration><EventBridgeConfiguration/>")
    assert found == Configuration((
        Rule("id-1", "Topic", TOPIC, ("s3:ObjectRestore:*",)),
        Rule("one", "Queue", QUEUE, ("s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"), (("Prefix", "a&b/"), ("Suffix", ".jpg"))),
        Rule("id-2", "CloudFunction", FUNCTION, ("s3:ObjectAcl:Put",)),
    ), True)
    written = notification.write(found)
    assert (b"<QueueConfiguration><Id>one</Id><Queue>arn:aws:sqs:us-east-1:000000000000:hook</Queue>"
            b"<Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:Delete</Event>"
            b"<Filter><S3Key><FilterRule><Name>Prefix</Name><Value>a&amp;b/</Value></FilterRule>"
            b"<FilterRule><Name>Suffix</Name><Value>.jpg</Value></FilterRule></S3Key></Filter></QueueConfiguration>") in written
    assert notification.read(written, lambda: "none is made") == found


def test_nothing_is_an_empty_document() -> None:
    assert read("") == Configuration()
    assert notification.write(Configuration()) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b'<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></NotificationConfiguration>')


@pytest.mark.parametrize("inner", [
    "text", "<Other/>", "<QueueConfiguration/>", queue().replace(f"<Queue>{QUEUE}</Queue>", ""),
    queue().replace("<Event>s3:ObjectCreated:*</Event>", ""), queue().replace("<Event>", "<Id>a</Id><Id>b</Id><Event>"),
    queue().replace("QueueConfiguration", "TopicConfiguration"), queue().replace("<Event>", "text<Event>"),
    queue().replace("<Event>", "<InvocationRole>r</InvocationRole><Event>"),
    queue(prefix="a").replace("<Value>a</Value>", ""), queue(prefix="a").replace("FilterRule>", "Rule>"),
    "<EventBridgeConfiguration/><EventBridgeConfiguration/>", "<EventBridgeConfiguration><a/></EventBridgeConfiguration>",
    '<!DOCTYPE x [<!ENTITY e "v">]>',
])
def test_what_is_not_the_schema_is_malformed(inner: str) -> None:
    with pytest.raises(S3Error) as refused:
        read(inner)
    assert refused.value.code == "MalformedXML"


@pytest.mark.parametrize(("inner", "message", "name", "value"), [
    (queue("s3:ObjectAccessed:Get"), "The event is not supported for notifications", "Event", "s3:ObjectAccessed:Get"),
    (queue("s3:*"), "The event is not supported for notifications", "Event", "s3:*"),
    (queue("ObjectCreated:Put"), "The event is not supported for notifications", "Event", "ObjectCreated:Put"),
    (queue(arn="http://169.254.169.254/latest"), "The ARN could not be parsed", "Queue", "http://169.254.169.254/latest"),
    (queue(arn=TOPIC), "The ARN could not be parsed", "Queue", TOPIC),
    (queue(arn="hook"), "The ARN could not be parsed", "Queue", "hook"),
    (queue(infix="a"), "filter rule name must be either prefix or suffix", "FilterRule.Name", "infix"),
    (queue(prefix="a", PREFIX="b"), "Cannot specify more than one prefix rule in a filter.", "FilterRule.Name", "PREFIX"),
    (queue(prefix="ü" * 513), "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation", "FilterRule.Value",
     "ü" * 513),
])
def test_what_aws_refuses_is_refused_in_its_words(inner: str, message: str, name: str, value: str) -> None:
    with pytest.raises(S3Error) as refused:
        read(inner)
    assert (refused.value.code, refused.value.status, refused.value.message) == ("InvalidArgument", 400, message)
    assert refused.value.detail == {"ArgumentName": name, "ArgumentValue": value}


@pytest.mark.parametrize(("first", "second", "meet"), [
    (queue("s3:ObjectCreated:*"), queue("s3:ObjectCreated:Put"), True),
    (queue("s3:ObjectCreated:Put"), queue("s3:ObjectCreated:*"), True),
    (queue("s3:ObjectCreated:Put"), queue("s3:ObjectCreated:Post"), False),
    (queue("s3:ObjectCreated:*"), queue("s3:ObjectRemoved:*"), False),
    (queue("s3:ObjectRemoved:Delete", "s3:ObjectCreated:Put"), queue("s3:ObjectCreated:Put"), True),
    (queue(prefix="images/"), queue(prefix="logs/"), False),
    (queue(prefix="images/"), queue(prefix="images/a"), True),
    (queue(prefix="images/"), queue(), True),
    (queue(suffix=".jpg"), queue(suffix=".png"), False),
    (queue(suffix=".jpg"), queue(suffix="a.jpg"), True),
    (queue(prefix="images/"), queue(suffix=".jpg"), True),
    (queue(prefix="images/", suffix=".jpg"), queue(prefix="images/", suffix=".png"), False),
    (queue(prefix="images/", suffix=".jpg"), queue(prefix="logs/", suffix=".jpg"), False),
    (queue(prefix=""), queue(suffix=".jpg"), True),
])
def test_two_rules_may_not_tell_the_same_twice(first: str, second: str, meet: bool) -> None:
    if not meet:
        assert len(read(first + second).rules) == 2
        return
    with pytest.raises(S3Error) as refused:
        read(first + second)
    assert refused.value.message == (
        "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes are overlapping for "
        "the same event type." if "<Filter>" in first + second else
        "Configurations overlap. Configurations on the same bucket cannot share a common event type.")
    assert ("ArgumentValue" in refused.value.detail) is ("<Filter>" not in first + second)


def test_the_events_that_two_rules_share_are_told() -> None:
    with pytest.raises(S3Error) as refused:
        read(queue("s3:ObjectRemoved:*", "s3:ObjectCreated:*") + queue("s3:ObjectCreated:Put"))
    assert refused.value.detail == {"ArgumentName": "Event", "ArgumentValue": "s3:ObjectCreated:*, s3:ObjectCreated:Put"}


def test_ids_are_unique_and_bounded_and_so_are_rules() -> None:
    apart = (queue(id="x", prefix="a"), queue(id="x", prefix="b"))
    for inner in ("".join(apart), queue(id="x" * 256), "".join(queue(prefix=f"{number:03}") for number in range(101))):
        with pytest.raises(S3Error) as refused:
            read(inner)
        assert refused.value.code == "InvalidArgument"
    assert len(read("".join(queue(prefix=f"{number:03}") for number in range(100))).rules) == 100


@pytest.mark.parametrize(("kind", "arn", "name"), [
    ("Queue", QUEUE, "hook"), ("Topic", TOPIC, "hook"), ("CloudFunction", FUNCTION, "hook"),
    ("CloudFunction", f"{FUNCTION}:prod", "hook"), ("CloudFunction", "arn:aws:lambda:r:1:layer:hook", ""),
    ("Queue", "arn:aws-cn:sqs:cn-north-1:1:hook", "hook"), ("Queue", "arn:minio:sqs:us-east-1:hook:webhook", "hook"),
    ("Queue", "arn:minio:sqs::hook:kafka", ""), ("Queue", "arn:aws:sqs:::hook", "hook"),
])
def test_an_arn_says_the_name_of_its_target(kind: str, arn: str, name: str) -> None:
    assert notification.target_of(kind, arn) == name


def test_all_destinations_that_are_not_there_are_told() -> None:
    rules = [Rule("1", "Queue", QUEUE, ()), Rule("2", "Topic", TOPIC, ()), Rule("3", "CloudFunction", FUNCTION, ())]
    error = notification.no_such_targets(rules)
    assert error.message == "Unable to validate the following destination configurations"
    assert error.detail == {
        "ArgumentName1": QUEUE, "ArgumentValue1": "The destination queue does not exist",
        "ArgumentName2": TOPIC, "ArgumentValue2": "The destination topic does not exist",
        "ArgumentName3": f"{FUNCTION}, null", "ArgumentValue3": f"Not authorized to invoke function [{FUNCTION}]"}


def test_the_names_of_events_are_those_of_the_service_model() -> None:
    from botocore.session import Session

    model = Session().get_service_model("s3").shape_for("Event")
    assert set(model.enum) == notification.EVENTS


def test_the_largest_configuration_is_compared_at_once() -> None:
    """A hundred rules with all events, which meet only in their last pair."""
    every = sorted(notification.EVENTS)
    rules = [queue(*every, prefix=f"{number:03}", suffix="x" * 900) for number in range(99)]
    began = time.process_time()
    with pytest.raises(S3Error, match="ambiguously defined"):
        read("".join([*rules, queue(*every, prefix="098")]))
    assert time.process_time() - began < 1
