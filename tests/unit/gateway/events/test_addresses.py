"""Which addresses a webhook may be at: public ones, and what the operator has allowed, whatever a name resolves to."""

import pytest

from gateway.events.addresses import AllowList

NOT_PUBLIC = (
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0",
    "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2002:a9fe:a9fe::", "fec0::1", "192.0.0.8",
    "", "localhost", "127.1", "0x7f000001",
)
"""The last four are no addresses at all: resolvers never answer them."""


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_only_this_machine_can_reach_is_refused(address: str) -> None:
    assert not AllowList().allows("hooks.example.com", address)
    assert not AllowList(["other.example.com", "8.8.8.0/24"]).allows("hooks.example.com", address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_need_no_permission(address: str) -> None:
    assert AllowList().allows("hooks.example.com", address)


def test_a_network_is_allowed_for_whatever_name_leads_there() -> None:
    allow = AllowList(["10.1.0.0/16", "127.0.0.1", "169.254.7.0/24", "fd00::/8"])
    for address in ("10.1.2.3", "127.0.0.1", "169.254.7.9", "fd00::1", "::ffff:10.1.2.3"):
        assert allow.allows("hooks.example.com", address)
    for address in ("10.2.0.1", "127.0.0.2", "169.254.169.254", "fc00::1", "::ffff:10.2.0.1"):
        assert not allow.allows("hooks.example.com", address)


def test_a_name_is_allowed_but_not_to_the_services_of_the_link() -> None:
    allow = AllowList(["Hooks.internal."])
    for host in ("hooks.internal", "HOOKS.INTERNAL", "hooks.internal."):
        assert allow.allows(host, "10.0.0.1")
        assert allow.allows(host, "127.0.0.1")
        assert not allow.allows(host, "169.254.169.254"), "who can change the name must not reach these"
        assert not allow.allows(host, "::ffff:169.254.169.254")
        assert not allow.allows(host, "fe80::1")
    for address in ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "::ffff:168.63.129.16"):
        assert not allow.allows("hooks.internal", address)
        assert not AllowList().allows("hooks.example.com", address), "one of them is public"
    assert AllowList(["168.63.129.16"]).allows("hooks.example.com", "168.63.129.16")
    assert not allow.allows("hooks.internal.example.com", "10.0.0.1")


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "10.0.0", "300.1.1.1", "http://a/", "a:80", "1::2::3"])
def test_what_is_neither_a_network_nor_a_name_is_said(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a network"):
        AllowList([entry])
