"""What is wrong with one chunk: its row and all copies of it, as they are at one moment. A pure function, and its words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from consensus.core.ids import Digest
from consensus.holdings import ChunkPlace
from storage_node.index import SETTLED, Copy


class Problem(NamedTuple):
    kind: str
    text: str
    digest: Digest
    generation: bytes
    node: str


def judge(digest: Digest, row: ChunkPlace | None, copies: Mapping[str, Sequence[Copy]], damaged: Mapping[str, Mapping[
        tuple[bytes, bytes], str]], unreachable: set[str]) -> list[Problem]:
    """What is wrong with one chunk, given its row and all copies of it on the nodes that answer."""
    name, found = digest.hex()[:16], list[Problem]()
    if row is not None:
        generation = row.generation.pack()
        good, unknown = 0, 0
        for node in row.nodes:
            if node in unreachable:
                unknown += 1
                continue
            copy = next((copy for copy in copies.get(node, ()) if copy.generation == generation), None)
            why = damaged.get(node, {}).get((digest, generation))
            if copy is None:
                found.append(Problem("location", f"chunk {name} is listed for node {node}, which doesn't hold it", digest,
                                     generation, node))
            elif copy.size != row.size:
                found.append(Problem("size", f"chunk {name} has {row.size} bytes, its copy on node {node} {copy.size}", digest,
                                     generation, node))
            elif why is not None:
                found.append(Problem("damaged", f"chunk {name} on node {node}: {why}", digest, generation, node))
            else:
                good += 1
        if not good and not unknown:
            others = sorted({node for node, held in copies.items() for copy in held
                             if copy.size == row.size and (digest, copy.generation) not in damaged.get(node, {})})
            more = f"; the same bytes are on {', '.join(others)} from another upload" if others else ""
            found.append(Problem("missing", f"no good copy of chunk {name} is left where it is listed{more}", digest,
                                 generation, ""))
        elif good + unknown < row.wanted:
            found.append(Problem("short", f"chunk {name} has {good + unknown} of {row.wanted} copies", digest, generation, ""))
        elif good + unknown > row.wanted:
            found.append(Problem("over", f"chunk {name} has {good + unknown} copies instead of {row.wanted}", digest, generation,
                                 ""))
    for holder, held in copies.items():
        for copy in held:
            if copy.state == SETTLED and not listed(row, holder, copy):
                found.append(Problem("orphan", f"chunk {name} on node {holder} ({copy.size} bytes) is listed nowhere", digest,
                                     copy.generation, holder))
    return found


def listed(row: ChunkPlace | None, node: str, copy: Copy) -> bool:
    return row is not None and node in row.nodes and row.generation.pack() == copy.generation
