"""Users, their keys and policies, and what the engine of access says of a request."""

from typing import Annotated

from gateway.admin.values.common import PAGE, After, Answer, Limit, Request, about

UserName = Annotated[str, about("Name of the user.")]


class UserList(Answer, frozen=True, kw_only=True):
    users: list["UserInfo"]
    next: str


class UserInfo(Answer, frozen=True, kw_only=True):
    """`source`: "metadata" for a user made here, "configuration" or "root" for one that only the configuration changes."""

    name: str
    account: str
    user_id: str
    display_name: str
    email: str
    admin: bool
    disabled: bool
    created: str
    source: str
    keys: list["KeyInfo"]


class UserPolicy(Answer, frozen=True, kw_only=True):
    """`document` is JSON as it was given, or the name of a managed policy."""

    user: str
    name: str
    document: str


class PolicyList(Answer, frozen=True, kw_only=True):
    policies: list[UserPolicy]


class SetPolicy(Request, frozen=True, kw_only=True):
    name: UserName
    policy: Annotated[str, about("Name of the policy.")]
    document: Annotated[str, about("The policy, in JSON, without principals.")]


class OnePolicy(Request, frozen=True, kw_only=True):
    name: UserName
    policy: Annotated[str, about("Name of the policy.")]


class Explain(Request, frozen=True, kw_only=True):
    action: Annotated[str, about("Such as s3:GetObject.")]
    bucket: Annotated[str, about("The bucket, if it is about one.")] = ""
    key: Annotated[str, about("The object, if it is about one.")] = ""
    user: Annotated[str, about("Name of who asks; empty: somebody without credentials.")] = ""
    context: Annotated[str, about("Condition keys of the request, written as a query: key=value&key=value.")] = ""


class Explanation(Answer, frozen=True, kw_only=True):
    """`why` names the statement or grant that decides; `facts` are the settings that counted."""

    caller: str
    action: str
    allowed: bool
    why: str
    facts: list[str]


class KeyInfo(Answer, frozen=True, kw_only=True):
    access_key: str
    user: str
    disabled: bool
    created: str


class KeyList(Answer, frozen=True, kw_only=True):
    keys: list[KeyInfo]
    next: str


class NewKey(Answer, frozen=True, kw_only=True):
    """The only time that the secret is shown."""

    user: str
    access_key: str
    secret_key: str


class CreateUser(Request, frozen=True, kw_only=True):
    name: UserName
    account: Annotated[str, about("The account that owns the user's buckets; empty for a new one of its own.")] = ""
    user_id: Annotated[str, about("Canonical id; empty for a new one.")] = ""
    display_name: Annotated[str, about("Shown as the owner's name; empty for `name`.")] = ""
    email: Annotated[str, about("For grants by e-mail address.")] = ""
    admin: Annotated[bool, about("Whether the user may use this API.")] = False


class OneUser(Request, frozen=True, kw_only=True):
    name: UserName


class ChangeUser(Request, frozen=True, kw_only=True):
    name: UserName
    display_name: Annotated[str | None, about("Absent: stays.")] = None
    email: Annotated[str | None, about("Absent: stays.")] = None
    admin: Annotated[bool | None, about("Absent: stays.")] = None
    disabled: Annotated[bool | None, about("A disabled user's keys are refused. Absent: stays.")] = None


class ListKeys(Request, frozen=True, kw_only=True):
    user: Annotated[str, about("Keys of this user only; empty for all.")] = ""
    after: After = ""
    limit: Limit = PAGE


class CreateKey(Request, frozen=True, kw_only=True):
    user: UserName
    access_key: Annotated[str, about("3 to 128 characters; empty for a new one.")] = ""
    secret_key: Annotated[str, about("At least 8 characters; empty for a new one, which is better.")] = ""


class OneKey(Request, frozen=True, kw_only=True):
    access_key: str


class ChangeKey(Request, frozen=True, kw_only=True):
    access_key: str
    disabled: bool
