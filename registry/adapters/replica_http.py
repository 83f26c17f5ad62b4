"""Requests of workers, passed on to the replica they are for; see ADR 0013."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.adapters.addresses import AddressGuard
from registry.adapters.wire import Ask, Pace, Reply, Wire
from registry.ports.links import Passed

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_CONNECT_S = 5.0
_STALL_S = 30.0


class ReplicaWire:
    """`Courier` over HTTP."""

    def __init__(self) -> None:
        guard = AddressGuard(_EVERYWHERE, loopback=True)  # the addresses are rows of our own
        self._wire = Wire(guard, Pace(_CONNECT_S, _STALL_S))

    @asynccontextmanager
    async def send(self, url: str, passed: Passed) -> AsyncIterator[Reply]:
        """See `Courier`."""
        headers = dict(passed.headers)
        if passed.body is not None:
            headers["Transfer-Encoding"] = "chunked"
        ask = Ask(passed.method, url + passed.path, headers, passed.body)
        async with self._wire.send(ask) as reply:
            yield reply

    async def close(self) -> None:
        """Drop all connections."""
        await self._wire.close()


def own_address(toward: str) -> str:
    """The address of this machine that packets to a host come from; loopback if none do."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((toward, 9))  # sends nothing
                address = str(probe.getsockname()[0])
                return f"[{address}]" if ":" in address else address
        except OSError:
            continue
    return "127.0.0.1"
