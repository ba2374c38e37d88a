"""Which addresses may be connected to. A name is checked by what it resolves to, at each connection: who can change a name
must not reach what only this machine can reach (loopback, the cloud's metadata service, a private network).

Public addresses always may: targets are named by the operator. Others only if `webhook_allow` names them: as a network
("10.1.0.0/16", "127.0.0.1"), or by the host's name in the URL, which stands for all addresses that it resolves to but those
of the link (169.254.0.0/16, fe80::/10) and others where clouds give a machine its credentials: they are allowed as a network
only.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_OF_THE_CLOUD = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
"""Services for the machine itself that are not link-local: Azure's (a public address), Alibaba's, Oracle's, AWS's over IPv6."""

_NOBODYS = (ipaddress.ip_network("fec0::/10"), ipaddress.ip_network("192.0.0.0/24"))
"""Nobody's in public, though Python's table has (parts of) them as global: old private networks of IPv6, a host's own ends of
tunnels."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AllowList:
    """Raises ValueError for what is neither a network nor a host's name."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not entry or "/" in entry or entry.replace(".", "").isdigit() or ":" in entry:
                    raise ValueError(f"{entry!r} is neither a network such as 10.0.0.0/8 nor a host's name") from None
                self._hosts.add(entry.lower().rstrip("."))

    def allows(self, host: str, text: str) -> bool:
        """Whether a connection to the address `text` may be made for that host of a URL."""
        try:
            address = reached_by(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return False
        if any(address.version == network.version and address in network for network in self._networks):
            return True
        if address.is_link_local or address in _OF_THE_CLOUD:
            return False
        return _public(address) or host.lower().rstrip(".") in self._hosts


def reached_by(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does: mapped, through NAT64, 6to4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved and not any(
        address.version == network.version and address in network for network in _NOBODYS)
