"""A bucket's notification configuration: read from XML, checked as S3 checks it, written as XML (S3_SEMANTICS §22).

*Rule*: a target by its ARN, the events that it is told of, and a filter by the beginning and the end of keys. The old
PutBucketNotification sends the same document with at most one rule of a kind.

Two rules of one bucket must not meet the same event of the same key, so that nothing is told twice. Events meet where they
are equal or a wildcard covers both; keys can meet unless both rules have prefixes of which neither begins the other, or
suffixes of which neither ends the other (AWS, "Configuring event notifications using object key name filtering").
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

from gateway.s3.errors import S3Error
from gateway.s3.xml.pieces import document
from gateway.s3.xml.read import Element, fields_of, malformed, parse, text_of
from gateway.s3.xml.text import escape

BYTES_MAX = 256 << 10
"""100 rules with every event and the longest filters take about 350 bytes an event and 2 KiB a filter."""

RULES_MAX = 100
"""AWS's limit for a bucket."""

ID_CHARACTERS_MAX = 255
FILTER_BYTES_MAX = 1024

EVENTS = frozenset(
    f"s3:{name}" for name in (
        "ReducedRedundancyLostObject", "ObjectCreated:*", "ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy",
        "ObjectCreated:CompleteMultipartUpload", "ObjectRemoved:*", "ObjectRemoved:Delete",
        "ObjectRemoved:DeleteMarkerCreated", "ObjectRestore:*", "ObjectRestore:Post", "ObjectRestore:Completed",
        "ObjectRestore:Delete", "Replication:*", "Replication:OperationFailedReplication",
        "Replication:OperationNotTracked", "Replication:OperationMissedThreshold",
        "Replication:OperationReplicatedAfterThreshold", "LifecycleTransition", "IntelligentTiering", "ObjectAcl:Put",
        "LifecycleExpiration:*", "LifecycleExpiration:Delete", "LifecycleExpiration:DeleteMarkerCreated",
        "ObjectTagging:*", "ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAnnotation:*", "ObjectAnnotation:Put",
        "ObjectAnnotation:Delete", "ObjectRetention:Put",
    )
)
"""All that a rule may name. Some never come here: nothing is lost, replicated or annotated."""

_MEANT = {event: [name for name in EVENTS if name == event or (event.endswith(":*") and name.startswith(event[:-1]))]
          for event in EVENTS}

_SERVICES = {"Topic": "sns", "Queue": "sqs", "CloudFunction": "lambda"}
_MISSING = {"Topic": "The destination topic does not exist", "Queue": "The destination queue does not exist"}
_KINDS = {f"{kind}Configuration": kind for kind in _SERVICES}
_ORDER = {kind: place for place, kind in enumerate(_SERVICES)}

_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):(?P<service>[a-z0-9-]+):(?P<region>[^:]*):(?P<account>[^:]*):(?P<resource>.+)")


class Rule(NamedTuple):
    """`filters` are (Prefix | Suffix, value) as given; None: the rule had no filter."""

    id: str
    kind: str                     # Topic | Queue | CloudFunction
    arn: str
    events: tuple[str, ...]
    filters: tuple[tuple[str, str], ...] | None = None

    @property
    def prefix(self) -> str:
        return dict(self.filters or ()).get("Prefix", "")

    @property
    def suffix(self) -> str:
        return dict(self.filters or ()).get("Suffix", "")


class Configuration(NamedTuple):
    rules: tuple[Rule, ...] = ()
    event_bridge: bool = False


def read(body: bytes, new_id: Callable[[], str]) -> Configuration:
    """`new_id` names rules that have no id. S3Error MalformedXML, InvalidArgument."""
    root = parse(body, "NotificationConfiguration", BYTES_MAX)
    if root.text.strip():
        malformed()
    rules: list[Rule] = []
    bridges = 0
    for child in root.children:
        if child.name == "EventBridgeConfiguration":
            bridges += 1
            if child.children or child.text.strip() or bridges > 1:
                malformed()
        elif child.name in _KINDS:
            rules.append(_rule(child, _KINDS[child.name], new_id))
        else:
            malformed()
    if len(rules) > RULES_MAX:
        raise S3Error("InvalidArgument", f"A bucket can have at most {RULES_MAX} notification configurations")
    rules.sort(key=lambda rule: _ORDER[rule.kind])
    _check_together(rules)
    return Configuration(tuple(rules), bridges > 0)


def _rule(element: Element, kind: str, new_id: Callable[[], str]) -> Rule:
    events: list[str] = []
    single = Element("")
    single.pieces = element.pieces
    for child in element.children:
        if child.name == "Event" and not child.children:
            events.append(child.text.strip())
        else:
            single.children.append(child)
    known = {"Id", kind, "Filter", *(["InvocationRole"] if kind == "CloudFunction" else [])}
    fields = fields_of(single, frozenset(known))
    arn = (text_of(fields, kind) or "").strip()
    if not events or kind not in fields:
        malformed()
    id = text_of(fields, "Id") or new_id()
    if len(id) > ID_CHARACTERS_MAX:
        raise S3Error("InvalidArgument", f"The length of Id must be less than or equal to {ID_CHARACTERS_MAX}",
                      ArgumentName="Id", ArgumentValue=id)
    service_of(kind, arn)
    for event in events:
        if event not in EVENTS:
            raise S3Error("InvalidArgument", "The event is not supported for notifications", ArgumentName="Event",
                          ArgumentValue=event)
    return Rule(id, kind, arn, tuple(dict.fromkeys(events)), _filters(fields.get("Filter")))


def _filters(element: Element | None) -> tuple[tuple[str, str], ...] | None:
    if element is None:
        return None
    keys = fields_of(element, frozenset({"S3Key"})).get("S3Key")
    if keys is None:
        return ()
    if keys.text.strip() or any(child.name != "FilterRule" for child in keys.children):
        malformed()
    found: dict[str, str] = {}
    for child in keys.children:
        fields = fields_of(child, frozenset({"Name", "Value"}))
        name, value = text_of(fields, "Name"), text_of(fields, "Value")
        if name is None or value is None:
            malformed()
        spelt = name.strip().capitalize()
        if spelt not in ("Prefix", "Suffix"):
            raise S3Error("InvalidArgument", "filter rule name must be either prefix or suffix",
                          ArgumentName="FilterRule.Name", ArgumentValue=name)
        if spelt in found:
            raise S3Error("InvalidArgument", f"Cannot specify more than one {spelt.lower()} rule in a filter.",
                          ArgumentName="FilterRule.Name", ArgumentValue=name)
        if len(value.encode()) > FILTER_BYTES_MAX:
            raise S3Error(
                "InvalidArgument", f"Size of filter rule value cannot exceed {FILTER_BYTES_MAX} bytes in UTF-8 representation",
                ArgumentName="FilterRule.Value", ArgumentValue=value)
        found[spelt] = value
    return tuple(found.items())


def _check_together(rules: Sequence[Rule]) -> None:
    ids = [rule.id for rule in rules]
    if len(set(ids)) < len(ids):
        raise S3Error("InvalidArgument", "Same ID used for multiple configurations. IDs must be unique")
    meant = [_meant_by(rule.events) for rule in rules]
    for one, other in combinations(range(len(rules)), 2):
        if not meant[one].isdisjoint(meant[other]) and _keys_meet(rules[one], rules[other]):
            raise _overlap(rules[one], rules[other])


def _overlap(one: Rule, other: Rule) -> S3Error:
    """AWS has one wording for rules that tell of every key, and another where filters leave it open which of them counts."""
    if one.filters or other.filters:
        return S3Error("InvalidArgument", "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules "
                       "if the prefixes are overlapping for the same event type.")
    shared = next(f"{mine}, {its}" for mine in one.events for its in other.events
                  if not set(_MEANT[mine]).isdisjoint(_MEANT[its]))
    return S3Error("InvalidArgument", "Configurations overlap. Configurations on the same bucket cannot share a common event "
                   "type.", ArgumentName="Event", ArgumentValue=shared)


def _meant_by(events: Sequence[str]) -> frozenset[str]:
    """With what wildcards stand for: 100 rules with every event are compared in milliseconds."""
    return frozenset(name for event in events for name in _MEANT[event])


def _keys_meet(one: Rule, other: Rule) -> bool:
    prefixes, suffixes = (one.prefix, other.prefix), (one.suffix, other.suffix)
    return (prefixes[0].startswith(prefixes[1]) or prefixes[1].startswith(prefixes[0])) and (
        suffixes[0].endswith(suffixes[1]) or suffixes[1].endswith(suffixes[0]))


def service_of(kind: str, arn: str) -> re.Match[str]:
    """The parts of an ARN of this kind of rule. S3Error InvalidArgument for what is none, a URL for instance."""
    parts = _ARN.fullmatch(arn)
    if parts is None or parts["service"] != _SERVICES[kind]:
        raise S3Error("InvalidArgument", "The ARN could not be parsed", ArgumentName=kind, ArgumentValue=arn)
    return parts


def target_of(kind: str, arn: str) -> str:
    """The name that an ARN gives its target: the queue's, the topic's, the function's. MinIO's clients write it elsewhere:
    ``arn:minio:sqs:REGION:NAME:webhook``."""
    parts = service_of(kind, arn)
    resource = str(parts["resource"])
    if parts["partition"] == "minio":
        return str(parts["account"]) if resource == "webhook" else ""
    if kind == "CloudFunction":
        return resource.split(":")[1] if resource.startswith("function:") else ""
    return resource


def no_such_targets(rules: Sequence[Rule]) -> S3Error:
    """What S3 says of destinations that it cannot reach: all of them, numbered."""
    error = S3Error("InvalidArgument", "Unable to validate the following destination configurations")
    for number, rule in enumerate(rules, 1):
        function = rule.kind == "CloudFunction"
        error.detail[f"ArgumentName{number}"] = f"{rule.arn}, null" if function else rule.arn
        error.detail[f"ArgumentValue{number}"] = (
            f"Not authorized to invoke function [{rule.arn}]" if function else _MISSING[rule.kind])
    return error


def write(configuration: Configuration) -> bytes:
    """What was set, or the empty document."""
    rules = "".join(
        f"<{rule.kind}Configuration><Id>{escape(rule.id)}</Id><{rule.kind}>{escape(rule.arn)}</{rule.kind}>"
        + "".join(f"<Event>{event}</Event>" for event in rule.events) + _filter_element(rule.filters)
        + f"</{rule.kind}Configuration>"
        for rule in configuration.rules
    )
    bridge = "<EventBridgeConfiguration></EventBridgeConfiguration>" if configuration.event_bridge else ""
    return document("NotificationConfiguration", rules + bridge)


def _filter_element(filters: tuple[tuple[str, str], ...] | None) -> str:
    if filters is None:
        return ""
    rules = "".join(f"<FilterRule><Name>{name}</Name><Value>{escape(value)}</Value></FilterRule>" for name, value in filters)
    return f"<Filter><S3Key>{rules}</S3Key></Filter>"
