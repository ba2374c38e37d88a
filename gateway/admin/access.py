"""What users may do: their policies, and which statement decides about a request.

Only admins learn why something is allowed or denied; whoever is denied is told nothing but that.
"""

import re
from urllib.parse import parse_qsl

from consensus.core.commands import SetUserPolicy
from consensus.core.results import Done, NoUser
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.admin.users import show_user, tell, unknown_user
from gateway.authorization import Case, caller_of, decide, owner_account
from gateway.bucket_access import ALL_BLOCKED, REQUESTER, defaults
from gateway.identities import Identity
from gateway.s3.errors import S3Error
from gateway.s3.policy import context as policy_context
from gateway.s3.policy.actions import KIND_OF, SPELLING, known_key, spelt
from gateway.s3.policy.evaluation import Caller, Policy
from gateway.s3.policy.read import of_identity, user_policy
from gateway.s3.times import iso8601
from gateway.s3.xml.pieces import BLOCK_FIELDS

_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
"""As AWS names policies."""


async def list_policies(ctx: AdminContext, asked: values.OneUser) -> values.PolicyList:
    """List the policies of a user. One without any may do all that its account may."""
    known = await show_user(ctx, asked)
    if known.source == "metadata":
        kept = await ctx.metadata.policies_of(asked.name)
        found = [values.UserPolicy(user=asked.name, name=name, document=document.decode()) for name, document in kept]
    else:
        found = [values.UserPolicy(user=asked.name, name=of_identity(entry)[0], document=entry)
                 for _, identity in ctx.admin.configured() if identity.name == asked.name for entry in identity.policies]
    return values.PolicyList(policies=found)


async def set_policy(ctx: AdminContext, asked: values.SetPolicy) -> values.Done:
    """Give a user a policy, or replace it. From the first one on the user may do what its policies allow, and nothing else."""
    if not _NAME.fullmatch(asked.policy):
        raise AdminError("InvalidArgument", "A policy's name is 1 to 128 letters, digits and any of + = , . @ - _")
    document = asked.document.encode()
    try:
        user_policy(document)
    except S3Error as error:
        detail = f" ({error.detail['Detail']})" if "Detail" in error.detail else ""
        raise AdminError("MalformedPolicy", f"{error.message}{detail}") from None
    return await _commit(ctx, SetUserPolicy(name=asked.name, policy=asked.policy, document=document))


async def remove_policy(ctx: AdminContext, asked: values.OnePolicy) -> values.Done:
    """Take a policy from a user. After the last one the user may do all that its account may: disable it if that is too much."""
    known = await list_policies(ctx, values.OneUser(name=asked.name))
    if asked.policy not in [policy.name for policy in known.policies]:
        raise AdminError("NoSuchPolicy", f"The user {asked.name!r} has no policy {asked.policy!r}; `staddle user policy list` "
                         "shows them.")
    return await _commit(ctx, SetUserPolicy(name=asked.name, policy=asked.policy, document=None))


async def _commit(ctx: AdminContext, command: SetUserPolicy) -> values.Done:
    outcome = await ctx.commit(command)
    if isinstance(outcome, NoUser):
        raise unknown_user(ctx, command.name)
    assert isinstance(outcome, Done), outcome
    await tell(ctx, command)
    return values.Done()


async def explain(ctx: AdminContext, asked: values.Explain) -> values.Explanation:
    """Say whether somebody may do something, and which statement or grant decides. Nothing is done."""
    action = next((action for action in KIND_OF if action == asked.action.lower().strip()), None)
    if action is None:
        raise AdminError("InvalidArgument", f"{asked.action!r} is no action of S3, such as s3:GetObject.")
    services = ctx.admin.services
    caller, policies = await _caller(ctx, asked.user)
    now_ms = services.clock.now_ms()
    given = {key: value for key, value in policy_context.of_caller(caller).items() if value is not None} | {
        "aws:currenttime": iso8601(now_ms), "aws:epochtime": str(now_ms // 1000), "aws:requestedregion": services.settings.region,
        "aws:securetransport": "true", "aws:viaawsservice": "false", "aws:principalisawsservice": "false"}
    context = {key: (value,) for key, value in given.items()}
    for key, value in parse_qsl(asked.context, keep_blank_values=True):
        if not known_key(key):
            raise AdminError("InvalidArgument", f"{key!r} is no condition key, such as aws:SourceIp or s3:prefix.")
        context[spelt(key)] = (*context.get(spelt(key), ()), value) if spelt(key) not in given else (value,)
    case = Case(caller, policies, context, bucket_name=asked.bucket, key=asked.key)
    facts: list[str] = []
    if asked.bucket and action != "s3:createbucket":
        case, facts = await _about_bucket(ctx, case, asked)
    elif KIND_OF[action] != "account" and action != "s3:createbucket":
        raise AdminError("InvalidArgument", f"{asked.action} is about a bucket: say which.")
    named = SPELLING[action]
    decision = decide(case, named)
    return values.Explanation(
        action=named, caller=caller.arn if not caller.anonymous else "anonymous", allowed=decision.allowed, why=decision.why,
        facts=facts)


async def _about_bucket(ctx: AdminContext, case: Case, asked: values.Explain) -> tuple[Case, list[str]]:
    services = ctx.admin.services
    bucket = await ctx.bucket(asked.bucket)
    default = defaults(services.settings.object_ownership, services.settings.block_public_access)
    rules = await services.rules.of(ctx.metadata, bucket, default)
    blocked = [name for name, on in zip(BLOCK_FIELDS, rules.blocked, strict=True) if on]
    public = "public" if rules.public else "not public"
    policy = "none" if rules.policy is None else f"{len(rules.policy.statements)} statements, {public}"
    facts = [
        f"bucket {bucket.name} belongs to account {bucket.account}", f"bucket policy: {policy}",
        f"object ownership: {rules.ownership or 'none set (objects are their writers’)'}"
        f"{', access lists are off' if rules.acls_off else ''}",
        f"public access block: {'all four' if rules.blocked == ALL_BLOCKED else ', '.join(blocked) or 'none'}",
    ]
    if rules.payer == REQUESTER:
        facts.append("the requester pays: callers of other accounts are denied unless they send x-amz-request-payer: requester, "
                     "and anonymous ones always")
    case = case._replace(bucket=bucket, rules=rules, context={
        **case.context, "aws:resourceaccount": (bucket.account,), "s3:resourceaccount": (bucket.account,)})
    if asked.key:
        version = await ctx.metadata.current(bucket.id, asked.key)
        if version is None or version.delete_marker:
            facts.append(f"there is no object {asked.key!r}")
        else:
            owner = owner_account(services.identities, bucket, version.owner)
            facts.append(f"the object belongs to {version.owner} (account {owner or 'unknown'})")
            tags = policy_context.of_object(version.attributes.tags)
            case = case._replace(version=version, owner_account=owner, context={**case.context, **tags})
    return case, facts


async def _caller(ctx: AdminContext, name: str) -> tuple[Caller, tuple[tuple[str, Policy], ...]]:
    """As requests of that user find it; "" is anybody. Raises AdminError NoSuchUser."""
    if not name:
        return Caller(), ()
    identities = ctx.admin.services.identities
    known: Identity | None = next((identity for _, identity in ctx.admin.configured() if identity.name == name), None)
    if known is not None:
        policies = tuple(map(of_identity, known.policies))
        return caller_of(identities, known.account, known.name, known.user_id, limited=bool(policies)), policies
    user = await ctx.metadata.user(name)
    if user is None:
        raise unknown_user(ctx, name)
    policies = tuple((policy, user_policy(document)) for policy, document in await ctx.metadata.policies_of(name))
    return caller_of(identities, user.account, user.name, user.user_id, limited=bool(policies)), policies
