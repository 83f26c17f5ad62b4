"""What all answers of workers have in common, however they travel."""

from collections.abc import AsyncGenerator
from contextlib import aclosing


async def beginning(chunks: AsyncGenerator[bytes, None], limit: int) -> bytes:
    """The bytes of a body, of which no more than `limit` are looked at; the rest is given up."""
    body = bytearray()
    async with aclosing(chunks):
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                break
    return bytes(body[:limit])
