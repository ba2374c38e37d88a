"""The machines of the cluster: who is a member of the metadata, tokens that let machines in, members that leave."""

import asyncio

from consensus import queries
from consensus.core.commands import CreateToken, DeleteToken
from consensus.core.errors import Refused, Unavailable, UnknownOutcome
from consensus.core.results import Done as Carried
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.cluster.tokens import named, new_token, text_of
from gateway.s3.times import iso8601

HOUR_MS = 3_600_000

GONE_LOOKS, GONE_LOOK_S = 30, 0.2
"""How often and how long it is looked whether a member is gone: an election takes about a second."""


async def status(ctx: AdminContext, asked: values.Nothing) -> values.ClusterStatus:
    """Show the members of the metadata: who leads, who votes, how far each is. `known_by` is the member that was asked."""
    found = await ctx.metadata.status()
    told = {member.name: member for member in found.members}
    members = []
    for member in await ctx.metadata.read(queries.members):
        of = told.get(member.name)
        behind = None if of is None or of.match is None else max(0, found.commit_index - of.match)
        members.append(values.ClusterMember(
            name=member.name, address=member.address, voter=member.voter, leads=member.name == found.leader,
            applied_behind=behind, heard_s=None if of is None else of.heard_s))
    return values.ClusterStatus(alone=ctx.admin.machine is None, leader=found.leader, term=found.term, known_by=found.name,
                                commit_index=found.commit_index, applied_index=found.applied_index, members=members)


async def create_token(ctx: AdminContext, asked: values.NewToken) -> values.MadeToken:
    """Make a token that lets one machine join, once. Whoever has it gets the cluster's secret: keep it as a password."""
    machine = ctx.admin.machine
    if machine is None:
        raise _alone("set cluster_listen (or --cluster-listen) and restart it, then others can join")
    from consensus.core.tls import Authority  # here: a machine that is alone loads nothing of it

    members = [member.address for member in await ctx.metadata.read(queries.members) if member.address]
    addresses = tuple(dict.fromkeys((machine.address(), *members)))
    now_ms = ctx.admin.services.clock.now_ms()
    token = new_token(addresses, Authority(ctx.admin.secret).fingerprint, now_ms + asked.hours * HOUR_MS)
    outcome = await ctx.commit(CreateToken(id=token.id.hex(), hash=token.hash, expires_ms=token.expires_ms))
    assert isinstance(outcome, Carried), outcome
    return values.MadeToken(token=text_of(token), id=token.id.hex(), expires=iso8601(token.expires_ms))


async def list_tokens(ctx: AdminContext, asked: values.Nothing) -> values.TokenList:
    """List the join tokens: those that may be used, and what became of the others."""
    now_ms = ctx.admin.services.clock.now_ms()
    return values.TokenList(tokens=[values.TokenInfo(
        id=token.id, created=iso8601(token.created_ms), expires=iso8601(token.expires_ms),
        state="used" if token.spent_by is not None else "expired" if token.expires_ms <= now_ms else "may be used",
        used_by=named(token.spent_by or ""), used="" if token.spent_at_ms is None else iso8601(token.spent_at_ms))
        for token in await ctx.metadata.read(queries.join_tokens)])


async def revoke_token(ctx: AdminContext, asked: values.OneToken) -> values.Done:
    """Delete a join token: nobody can join with it any more. A machine that has joined with it stays."""
    if not isinstance(await ctx.commit(DeleteToken(id=asked.id)), Carried):
        raise AdminError("NoSuchToken", f"There is no join token {asked.id!r}; `staddle cluster tokens` shows them.")
    return values.Done()


async def remove_member(ctx: AdminContext, asked: values.OneMember) -> values.Done:
    """Take a machine's metadata member out of the cluster, living or lost. Its storage nodes are another matter: drain and
    remove those first (`node/drain`)."""
    if ctx.admin.machine is None:
        raise _alone("there is no member to take out")
    try:
        await ctx.metadata.remove_member(asked.name)
    except Refused as error:
        raise AdminError("NoSuchMember", f"Not removed: {error}.") from None
    except UnknownOutcome:
        if not await _gone(ctx, asked.name):
            raise
    return values.Done()


def _alone(then: str) -> AdminError:
    return AdminError("NoCluster", f"This machine is alone: {then}.")


async def _gone(ctx: AdminContext, name: str) -> bool:
    """A leader that was removed itself may be gone before it can say so; its successor knows."""
    for _ in range(GONE_LOOKS):
        try:
            if all(member.name != name for member in await ctx.metadata.read(queries.members)):
                return True
        except Unavailable:
            pass                                       # nobody leads just now
        await asyncio.sleep(GONE_LOOK_S)
    return False
