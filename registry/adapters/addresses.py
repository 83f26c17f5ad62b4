"""Which network addresses outgoing requests may reach, and connecting to none but those.

A name in a request ("pull this model") must not make the service fetch from its own network. The
check happens where connections are made: a name is resolved once, each of its addresses is judged,
and the connection goes to the judged address, so that neither a redirect nor a second, different
answer of the name server gets around it.

Source: spec registry-protocol 8.5; IANA special-purpose address registries by way of `ipaddress`.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpcore2

from registry.core.errors import UpstreamRefused, UpstreamUnreachable

Address = IPv4Address | IPv6Address
SETTING = "REGISTRY_UPSTREAM_ALLOW"

_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")
_AZURE_METADATA = ip_address("168.63.129.16")  # a public address that is not public


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64 …), else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class AddressGuard:
    """The rule: public addresses, what the setting names, and loopback if we are there ourselves.

    `allow` holds host names, `host:port`, addresses and networks, in any mixture.
    """

    def __init__(self, allow: Iterable[str], *, loopback: bool) -> None:
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        self._loopback = loopback
        for entry in allow:
            text = entry.strip().lower()
            try:
                self._networks.append(ip_network(text.strip("[]"), strict=False))
            except ValueError:
                self._names.add(text)

    def names(self, host: str, port: int) -> bool:
        """Whether the setting names the host, or the host with that port."""
        host = host.lower().strip("[]")
        return bool({host, f"{host}:{port}", f"[{host}]:{port}"} & self._names)

    def permits(self, host: str, port: int, address: str) -> bool:
        """Whether `host`, found to be at `address`, may be reached at `port`."""
        ip = ip_address(address.partition("%")[0])
        if self.names(host, port) or self.names(str(ip), port):
            return True
        real = embedded(ip)
        if any(candidate in network for network in self._networks for candidate in (ip, real)):
            return True
        if real.is_loopback:
            return self._loopback
        return real.is_global and not real.is_multicast and real != _AZURE_METADATA


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections, but only where the guard permits."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, judge and connect to the first address that answers.

        Raises:
            UpstreamRefused: every address of the host is one we do not go to.
            UpstreamUnreachable: no such host, or nobody answers there.
        """
        first: UpstreamUnreachable | None = None
        for address in await self._permitted(host, port, timeout):
            try:
                return await self._backend.connect_tcp(address, port, timeout)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                spot = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                first = first or UpstreamUnreachable(f"dial tcp {spot}: {_reason(error)}")
        raise first or UpstreamUnreachable(f"dial tcp: lookup {host}: no such host")

    async def _permitted(self, host: str, port: int, timeout: float | None) -> list[str]:
        addresses = await _resolve(host, port, timeout)
        found = [item for item in addresses if self._guard.permits(host, port, item)]
        if addresses and not found:
            raise UpstreamRefused(
                f"{host} is a private, loopback or otherwise reserved address; "
                f"an administrator can allow it with {SETTING}"
            )
        return found


async def _resolve(host: str, port: int, timeout: float | None) -> list[str]:
    """The addresses of a host, each once, in the resolver's order."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise UpstreamUnreachable(f"dial tcp: lookup {host}: i/o timeout") from error
    except (OSError, UnicodeError) as error:
        raise UpstreamUnreachable(f"dial tcp: lookup {host}: no such host") from error
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def cause_of(error: BaseException) -> OSError | None:
    """The system's or TLS library's own error behind one of the HTTP library's."""
    found: OSError | None = None
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and (seen.errno or isinstance(seen, ssl.SSLError)):
            found = seen
        seen = seen.__cause__ or seen.__context__
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, httpcore2.ConnectTimeout):
        return "i/o timeout"
    system = cause_of(error)
    # The library words errno anew ("Connect call failed (…)"): take the system's own words.
    text = os.strerror(system.errno) if system and system.errno else "failed"
    return f"connect: {text.lower()}"
