"""Policy documents, read: JSON in, Policy out. What is not understood is refused when it is put, never ignored later.

A bucket's policy names principals and speaks of that bucket; a user's names none and speaks of anything. The messages are
AWS's, as far as they are known. Source: AWS, "IAM JSON policy grammar".
"""

import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import KIND_OF, LISTING_KEYS, LISTINGS, known_key, spelt
from gateway.s3.policy.conditions import Condition, operator
from gateway.s3.policy.evaluation import Policy, Principals, Statement
from gateway.s3.policy.patterns import Pattern, pattern

BYTES_MAX = 20 << 10
"""AWS's limit for a bucket's policy."""

VERSIONS = ("2012-10-17", "2008-10-17")

_POLICY_FIELDS = frozenset({"Version", "Id", "Statement"})
_STATEMENT_FIELDS = frozenset({
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
})
_ROOT = re.compile(r"arn:aws[a-z-]*:iam::([^:]+):root")
_USER = re.compile(r"arn:aws[a-z-]*:iam::([^:]*):user/(?:.*/)?([^/]+)")
_OTHER = re.compile(r"arn:aws[a-z-]*:(?:iam::[^:]*:role/.+|sts::[^:]*:(?:assumed-role|federated-user)/.+)")
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?")
_ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9*?]+")

_RESOURCE = "arn:aws:s3:::"
"""Another partition's name would be taken and never fit: a Deny that nobody feels."""

Exists = Callable[[Principals], bool]
"""Whether all those principals are somebody. AWS refuses a policy for people whom it doesn't know."""


def bucket_policy(document: bytes, bucket: str, exists: Exists = lambda _: True) -> Policy:
    """S3Error MalformedPolicy."""
    return _Reader(bucket, exists).policy(document)


def user_policy(document: bytes) -> Policy:
    """S3Error MalformedPolicy."""
    return _Reader(None, lambda _: True).policy(document)


@functools.lru_cache(4096)
def stored_bucket_policy(document: bytes, bucket: str) -> Policy:
    """One that was put once, so it is in order."""
    return bucket_policy(document, bucket)


MANAGED = {
    "AmazonS3FullAccess": '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}',
    "AmazonS3ReadOnlyAccess":
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:Get*","s3:List*"],"Resource":"*"}}',
}
"""Policies that have a name everywhere, as AWS calls them."""


@functools.lru_cache(4096)
def of_identity(entry: str) -> tuple[str, Policy]:
    """An identity's policy, with its name: the name of a managed one, or JSON after ``name:``. S3Error MalformedPolicy."""
    if entry in MANAGED:
        return entry, user_policy(MANAGED[entry].encode())
    name, brace, rest = entry.partition("{")
    policy = user_policy((brace + rest).encode())
    return name.strip().removesuffix(":") or policy.id or "without a name", policy


def _refuse(message: str, detail: str = "") -> NoReturn:
    error = S3Error("MalformedPolicy", message)
    if detail:
        error.detail["Detail"] = detail
    raise error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):                 # which of them is meant would be a matter of luck
        raise ValueError("a name stands twice in one object")
    return found


class _Reader:
    """Of one document. `bucket` None: of a user."""

    def __init__(self, bucket: str | None, exists: Exists) -> None:
        self._bucket, self._exists = bucket, exists
        self._variables = False

    def policy(self, document: bytes) -> Policy:
        if len(document) > BYTES_MAX:
            _refuse(f"Normalized policy document exceeds the maximum allowed size of {BYTES_MAX} bytes")
        if not document.lstrip(b" \t\r\n").startswith(b"{"):
            _refuse("Policies must be valid JSON and the first byte must be '{'")
        try:
            root = json.loads(document, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            _refuse("Policies must be valid JSON and the first byte must be '{'")
        _known_fields(root, _POLICY_FIELDS)
        version = root.get("Version", "2008-10-17")
        if version not in VERSIONS:
            _refuse("The policy must contain a valid version string")
        self._variables = version == "2012-10-17"
        statements = root.get("Statement")
        if isinstance(statements, dict):
            statements = [statements]
        if not isinstance(statements, list):
            _refuse("Missing required field Statement")
        if not statements:
            _refuse("Missing required field Statement cannot be empty!")
        id = root.get("Id", "")
        if not isinstance(id, str):
            _refuse("Policy has invalid Id")
        read = tuple(self._statement(number, statement) for number, statement in enumerate(statements, 1))
        sids = [statement.sid for statement in read if statement.sid]
        if len(set(sids)) != len(sids):
            _refuse("Statement IDs (SID) in a single policy must be unique.")
        return Policy(read, id)

    def _statement(self, number: int, fields: Any) -> Statement:
        if not isinstance(fields, dict):
            _refuse("Policies must be valid JSON and the first byte must be '{'")
        _known_fields(fields, _STATEMENT_FIELDS)
        sid = fields.get("Sid", "")
        if not isinstance(sid, str):
            _refuse("Policy has invalid Sid")
        effect = fields.get("Effect")
        if effect is None:
            _refuse("Missing required field Effect")
        if effect not in ("Allow", "Deny"):
            _refuse(f"Invalid effect : {effect}")
        principals, but_principals = self._principals(fields)
        actions, but_actions = _either(fields, "Action")
        resources, but_resources = _either(fields, "Resource")
        for action in actions:
            self._check_action(action)
        for resource in resources:
            self._check_resource(resource)
        conditions = tuple(self._conditions(fields.get("Condition", {})))
        if not but_actions and not but_resources:
            self._check_combination(actions, resources, conditions)
        return Statement(
            number=number, sid=sid, allows=effect == "Allow", principals=principals, but_principals=but_principals,
            actions=tuple(pattern(action, variables=False, lower=True) for action in actions), but_actions=but_actions,
            resources=tuple(self._pattern(resource) for resource in resources), but_resources=but_resources,
            conditions=conditions)

    def _pattern(self, text: str) -> Pattern:
        try:
            return pattern(text, variables=self._variables)
        except ValueError:
            _refuse("Policy has an invalid policy variable", text)

    # Principals

    def _principals(self, fields: dict[str, Any]) -> tuple[Principals | None, bool]:
        given = [name for name in ("Principal", "NotPrincipal") if name in fields]
        if self._bucket is None:
            if given:
                _refuse("Policy document should not specify a principal.")
            return None, False
        if not given:
            _refuse("Missing required field Principal")
        if len(given) == 2:
            _refuse("Statement cannot have both Principal and NotPrincipal")
        return self._principal(fields[given[0]]), given[0] == "NotPrincipal"

    def _principal(self, value: Any) -> Principals:
        if value == "*":
            return Principals(everyone=True)
        if not isinstance(value, dict) or not value:
            _bad_principal(value)
        everyone = False
        accounts: set[str] = set()
        users: set[tuple[str, str]] = set()
        canonical: set[str] = set()
        services: set[str] = set()
        for kind, names in value.items():
            texts = _texts(names)
            if not texts:
                _bad_principal({kind: names})
            for text in texts:
                match kind:
                    case "AWS" if text == "*":
                        everyone = True
                    case "AWS":
                        self._aws(text, accounts, users)
                    case "CanonicalUser":
                        canonical.add(text)
                    case "Service" if _SERVICE.fullmatch(text):
                        services.add(text)
                    case "Federated" if text:
                        pass
                    case _:
                        _bad_principal({kind: text})
        named = Principals(everyone, frozenset(accounts), frozenset(users), frozenset(canonical), frozenset(services))
        if not self._exists(named):
            _bad_principal(value)
        return named

    def _aws(self, text: str, accounts: set[str], users: set[tuple[str, str]]) -> None:
        if "*" in text or "?" in text or not text:
            _bad_principal({"AWS": text})          # S3 takes no wildcard within a principal
        if root := _ROOT.fullmatch(text):
            accounts.add(root[1])
        elif user := _USER.fullmatch(text):
            users.add((user[1], user[2]))
        elif not text.startswith("arn:"):
            accounts.add(text)
        elif not _OTHER.fullmatch(text):
            _bad_principal({"AWS": text})

    # Actions and resources

    def _check_action(self, action: str) -> None:
        if self._bucket is None and action != "*" and not action.lower().startswith("s3:"):
            if not _ACTION.fullmatch(action):
                _refuse("Policy has invalid action")
            return                                  # of another service: it never fits here
        if not any(_actions_of(action)):
            _refuse("Policy has invalid action")

    def _check_resource(self, resource: str) -> None:
        if self._bucket is None:
            if resource != "*" and not resource.startswith("arn:"):
                _refuse("Policy has invalid resource")
            return
        if not resource.startswith(_RESOURCE):
            _refuse("Policy has invalid resource")
        if not self._pattern(resource.removeprefix(_RESOURCE).partition("/")[0]).matches(self._bucket, {}):
            _refuse("Policy has invalid resource")

    def _check_combination(self, actions: list[str], resources: list[str], conditions: Iterable[Condition]) -> None:
        if self._bucket is not None:
            buckets = any(_is_of_bucket(resource, self._bucket) for resource in resources)
            objects = any("/" in resource or "*" in resource or "?" in resource for resource in resources)
            for action in actions:
                kinds = {KIND_OF[known] for known in _actions_of(action)}
                if not (("bucket" in kinds and buckets) or ("object" in kinds and objects)):
                    _refuse("Action does not apply to any resource(s) in statement")
        known = {name for action in actions for name in _actions_of(action)}
        for condition in conditions:
            if condition.key in LISTING_KEYS and not known & LISTINGS:
                _refuse("Conditions do not apply to combination of actions and resources in statement")

    # Conditions

    def _conditions(self, value: Any) -> Iterable[Condition]:
        if not isinstance(value, dict):
            _refuse("Policy has an invalid condition")
        for name, keys in value.items():
            found = operator(name)
            if found is None:
                _refuse(f"Invalid Condition type : {name}")
            if not isinstance(keys, dict) or not keys:
                _refuse(f"Policy has an invalid condition: {name} needs condition keys")
            for key, values in keys.items():
                yield self._condition(found, name, key, values)

    def _condition(self, found: Any, name: str, key: str, values: Any) -> Condition:
        kind, set_form, if_exists = found
        if not known_key(key):
            _refuse("Policy has an invalid condition key")
        texts = [_as_text(value) for value in (values if isinstance(values, list) else [values])]
        if not texts or not all(text is not None and kind.check(text) for text in texts):
            _refuse(f"Policy has an invalid value for {name} : {key}")
        made = (self._pattern(text) if kind.variables else pattern(text, variables=False) for text in texts if text is not None)
        return Condition(kind, set_form, if_exists, spelt(key), tuple(made))


def _known_fields(fields: dict[str, Any], known: frozenset[str]) -> None:
    for name in fields:
        if name not in known:
            _refuse(f"Unknown field {name}")


def _either(fields: dict[str, Any], name: str) -> tuple[list[str], bool]:
    given = [key for key in (name, f"Not{name}") if key in fields]
    if not given:
        _refuse("Statement is missing required element")
    if len(given) == 2:
        _refuse(f"Statement cannot have both {name} and Not{name}")
    texts = _texts(fields[given[0]])
    if texts is None:
        _refuse(f"Policy has invalid {name.lower()}")
    if not texts:
        _refuse(f"Missing required field {given[0]} cannot be empty!")
    return texts, given[0] != name


def _texts(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(text, str) for text in values) else None


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) else None


@functools.lru_cache(1024)
def _actions_of(action: str) -> frozenset[str]:
    """The known actions that a pattern covers."""
    wanted = pattern(action, variables=False, lower=True)
    return frozenset(known for known in KIND_OF if wanted.matches(known, {}))


def _is_of_bucket(resource: str, bucket: str) -> bool:
    """Whether it covers the bucket itself, and not only what is in it."""
    return pattern(resource.removeprefix(_RESOURCE), variables=False).matches(bucket, {})


def _bad_principal(value: Any) -> NoReturn:
    _refuse("Invalid principal in policy", json.dumps(value)[:200])
