"""What a bucket's owner wants to be told of, compiled: name of an event -> those who *watch* for it.

Rules of one bucket never overlap (the gateway refuses them); were they to, the first would count.
"""

from typing import NamedTuple

from consensus.core.events import EventRule, Notification


class Watch(NamedTuple):
    """A compiled rule."""

    prefix: bytes
    suffix: bytes
    target: str
    rule: str


class Watching(NamedTuple):
    """What is to be told of one bucket. `wide` are the names with a star, cut before it."""

    owner: str
    region: str
    exact: dict[str, tuple[Watch, ...]]
    wide: dict[str, tuple[Watch, ...]]

    def find(self, name: str, key: bytes) -> Watch | None:
        family = name.partition(":")[0]
        for watch in (*self.exact.get(name, ()), *self.wide.get(family, ())):
            if key.startswith(watch.prefix) and key.endswith(watch.suffix):
                return watch
        return None


def compiled(owner: str, region: str, notification: Notification) -> Watching | None:
    exact: dict[str, tuple[Watch, ...]] = {}
    wide: dict[str, tuple[Watch, ...]] = {}
    for rule in notification.rules:
        if not rule.target:
            continue
        watch = _watch(rule)
        for event in rule.events:
            name = event.removeprefix("s3:")
            if name.endswith(":*"):
                wide[name[:-2]] = (*wide.get(name[:-2], ()), watch)
            else:
                exact[name] = (*exact.get(name, ()), watch)
    return Watching(owner, region, exact, wide) if exact or wide else None


def _watch(rule: EventRule) -> Watch:
    given = {name.lower(): value.encode() for name, value in rule.filters or ()}
    return Watch(given.get("prefix", b""), given.get("suffix", b""), rule.target, rule.id)
