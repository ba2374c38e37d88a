"""Who may ask: identities, found by their access key.

Identity   one access key with its secret, the account that owns what it makes, and how owner elements show it.
           Every field is an arbitrary string: account ids need not have 12 digits, canonical ids need not be hex,
           secrets may hold ``/ + =``.
Rules      a look-up never waits; the whole set is replaced at once, so a request sees one set. No identity exists
           unless somebody made it (promise 7). Secrets stay out of ``repr``, so no log line holds one by accident.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`user_id` is the canonical id shown as ``<Owner><ID>``. `policies` limit it to what they allow, without any it has all
    rights of its account; each is the name of a managed policy, or JSON, after ``name:`` if it has a name."""

    name: str
    account: str
    user_id: str
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    display_name: str = ""
    email: str = ""
    admin: bool = False
    policies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "account", "user_id", "access_key", "secret_key"):
            if not getattr(self, field):
                raise ValueError(f"identity {self.name!r}: {field} must not be empty")


class IdentityStore:
    """The identities in force. `replace` swaps all of them; readers hold no lock, since they read one reference.

    `on_unknown` is asked about an access key that is not among them: it may have been made just now.
    """

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        self._by_access_key: dict[str, Identity] = {}
        self._by_user_id: dict[str, Identity] = {}
        self._of_account: dict[str, frozenset[str]] = {}
        self._stands_for: dict[str, str] = {}
        self.on_unknown: Callable[[str], Identity | None] | None = None
        self.replace(identities)

    def replace(self, identities: Iterable[Identity]) -> None:
        """ValueError names a key that two identities claim: which of them signed would be a matter of luck."""
        by_access_key: dict[str, Identity] = {}
        for identity in identities:
            if identity.access_key in by_access_key:
                other = by_access_key[identity.access_key].name
                raise ValueError(f"identities {other!r} and {identity.name!r} have the same access key")
            by_access_key[identity.access_key] = identity
        self._by_access_key = by_access_key
        self._by_user_id = {identity.user_id: identity for identity in reversed(by_access_key.values())}
        of_account: dict[str, set[str]] = {}
        for identity in by_access_key.values():
            of_account.setdefault(identity.account, set()).add(identity.user_id)
        self._of_account = {account: frozenset(ids) for account, ids in of_account.items()}
        self._stands_for = {identity.account: identity.user_id for identity in reversed(by_access_key.values())
                            if not identity.policies}

    def by_access_key(self, access_key: str) -> Identity | None:
        found = self._by_access_key.get(access_key)
        if found is None and self.on_unknown is not None:
            return self.on_unknown(access_key)
        return found

    def by_user_id(self, user_id: str) -> Identity | None:
        """The first identity with this canonical id: grants and owner elements name people by it."""
        return self._by_user_id.get(user_id)

    def ids_of(self, account: str) -> frozenset[str]:
        """All canonical ids of an account: whoever grants something to one of them means the account."""
        return self._of_account.get(account, frozenset())

    def stands_for(self, identity: Identity) -> str:
        """The canonical id that owns what is made for the identity's account: that of the first who has all its rights."""
        return self._stands_for.get(identity.account, identity.user_id)

    def by_email(self, email: str) -> Identity | None:
        """For grants by ``AmazonCustomerByEmail``; letter case does not count. Not for hot paths."""
        wanted = email.casefold()
        return next((identity for identity in self if wanted and identity.email.casefold() == wanted), None)

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._by_access_key.values())

    def __len__(self) -> int:
        return len(self._by_access_key)
