"""A server in place of a runner: it answers with the bytes it was given, and breaks off as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from registry.adapters.runner_wire import RunnerWire

KEY = "secret"


@dataclass
class Script:
    """What is sent, in pieces, and after each piece a pause; `cut` ends without an end."""

    pieces: list[bytes]
    pause_s: float = 0.0
    cut: bool = False
    asked: list[bytes] = field(default_factory=list)
    left: int = 0
    """How many clients went away before the end."""


def whole(body: bytes, status: str = "200 OK") -> Script:
    """One answer of known length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return Script([head + body])


def chunked(*chunks: bytes, cut: bool = False, pause_s: float = 0.0) -> Script:
    """A streamed answer; `cut` leaves out the last chunk that says that it is complete."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    end = [] if cut else [b"0\r\n\r\n"]
    return Script([head, *parts, *end], pause_s, cut)


@asynccontextmanager
async def runner(
    folder: Path, script: Script, told: list[int] | None = None, *, stall_s: float = 5.0
) -> AsyncIterator[RunnerWire]:
    """A wire to a server that plays the script to everybody; `told` hears when it breaks."""
    path = str(folder / "r.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            script.asked.append(head + await reader.readexactly(length))
            for piece in script.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(script.pause_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            script.left += 1
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    breaks: list[int] = [] if told is None else told
    try:
        yield RunnerWire(path, KEY, lambda: breaks.append(1), stall_s)
    finally:
        server.close()
        await server.wait_closed()
