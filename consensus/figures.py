"""How a metadata member is, in figures: its answer to STATUS."""

from typing import TYPE_CHECKING

from consensus import protocol, snapshot
from consensus.core.codec import ENTRY_NEWEST
from consensus.housekeeping import Housekeeper
from consensus.intake import Intake
from consensus.journal import Journal
from consensus.machine import Machine
from consensus.raft import RaftNode
from consensus.room import Room

if TYPE_CHECKING:
    from consensus.group.group import MemberStatus


def status(name: str, folder: str, raft: RaftNode, machine: Machine, journal: Journal, intake: Intake, room: Room,
           housekeeper: Housekeeper, *, alone: bool, links: int) -> protocol.Status:
    seen, kept, checked = raft.status(), snapshot.listed(folder), housekeeper.soundness.last
    return protocol.Status(
        role=seen.role, term=seen.term, leader=seen.leader, commit_index=seen.commit_index, applied_index=seen.applied_index,
        generation=machine.generation, sessions=len(machine.sessions.open), links=links, journal_bytes=journal.size_bytes,
        journal_segments=journal.segment_count, journal_written_bytes=journal.bytes_written, syncs=journal.syncs,
        sync_seconds=journal.sync_seconds, last_sync_s=journal.last_sync_s, entries=intake.entries, commands=intake.commands,
        snapshot_index=kept[-1].index if kept else 0, refusing=room.refusing, checked_ms=checked.at_ms,
        findings=checked.findings, name=name, alone=alone,
        members=tuple(_member(member, known=seen.role == "leader" or member.name == name) for member in seen.members),
        fetched_bytes=seen.fetched_bytes, of_bytes=seen.of_bytes, reads=ENTRY_NEWEST,
    )


def _member(member: "MemberStatus", *, known: bool) -> protocol.MemberStatus:
    """`known`: how far it is; only the leader knows that of others."""
    return protocol.MemberStatus(name=member.name, address=member.address, voter=member.voter, connected=member.connected,
                                 match=member.match if known else None, heard_s=member.heard_s)
