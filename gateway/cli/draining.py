"""What is less safe once a storage node has been drained: said before, while it can still be left. Pure.

Nothing of this refuses anything: a node that fails has to go, whatever the others can hold.
"""

from gateway.admin import values
from gateway.cli import printing


def concerns(found: values.NodeList, name: str) -> list[str]:
    """Sentences for people; none if the others can take what it holds and keep as many copies, as far apart, as now."""
    node = next((each for each in found.nodes if each.node == name), None)
    if node is None or node.asked == "draining":
        return []
    counted = [each for each in found.nodes if each.counts]
    left = [each for each in counted if each.node != name]
    if not left:
        return ["No other storage node is there: nothing can take what it holds, and writes will be refused."]
    said: list[str] = []
    if len(left) < found.copies:
        said.append(f"{_count(len(left), 'storage node')} will be left, so of {found.copies} copies of each chunk "
                    f"{len(left)} will be kept.")
    if len(_zones(left)) == 1 < len(_zones(counted)) and found.copies > 1:
        said.append(f"All storage nodes that will be left are in one zone ({left[0].zone or left[0].address}): what fails "
                    "together there takes all copies with it.")
    if len(left) >= found.copies:       # else each of them has a copy of everything already
        holds = _figure(node, "chunk_bytes")
        free = sum(_figure(each, "free_bytes") for each in left if each.state == "up" and not each.error)
        if holds > free:
            said.append(f"It holds {printing.size(holds)}, and the others have {printing.size(free)} free: what they "
                        "cannot take stays on it.")
    return said


def _zones(nodes: list[values.NodeStat]) -> set[str]:
    return {node.zone for node in nodes}


def _figure(node: values.NodeStat, name: str) -> float:
    value = node.statistics.get(name, 0)
    return value if isinstance(value, int | float) else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
