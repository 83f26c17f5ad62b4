"""Which addresses outgoing requests may reach."""

import pytest

from registry.adapters.addresses import AddressGuard

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "fd00::1",
    "fd00:ec2::254",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "2001:0:a00:1:0:0:f5ff:fffe",  # Teredo, client 10.0.0.1
]
NOT_FOR_HOSTS = [
    "169.254.169.254",
    "168.63.129.16",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "ff0e::1",
    "0.0.0.0",
    "::",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
]


def permits(address: str, *allow: str, loopback: bool = False, host: str = "h.example") -> bool:
    return AddressGuard(allow, loopback=loopback).permits(host, 443, address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert permits(address)


@pytest.mark.parametrize("address", PRIVATE + NOT_FOR_HOSTS)
@pytest.mark.parametrize("loopback", [True, False])
def test_others_may_not(address: str, loopback: bool) -> None:
    assert not permits(address, loopback=loopback)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_may_be_reached_by_a_server_that_is_there_itself(address: str) -> None:
    assert permits(address, loopback=True)
    assert not permits(address, loopback=False)


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        ("h.example", True),
        ("H.Example", True),
        ("h.example:443", True),
        ("h.example:444", False),
        ("example", False),
        ("10.0.0.1", True),
        ("10.0.0.0/8", True),
        ("10.0.0.1:443", True),
        ("10.0.0.1:444", False),
        ("10.0.0.2", False),
        ("0.0.0.0/0", True),
        ("fd00::/8", False),
        (" h.example ", True),
        ("", False),
    ],
)
def test_the_setting_names_hosts_ports_and_networks(allow: str, expected: bool) -> None:
    assert permits("10.0.0.1", allow) is expected


@pytest.mark.parametrize("allow", ["[fd00::1]:443", "fd00::1", "[fd00::1]", "fd00::/8"])
def test_the_setting_may_name_ipv6(allow: str) -> None:
    assert permits("fd00::1", allow, host="fd00::1")


def test_a_network_allows_its_mapped_addresses_too() -> None:
    assert permits("::ffff:10.0.0.1", "10.0.0.0/8")
