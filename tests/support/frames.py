"""Server-sent events, read back."""

import json
from typing import Any


def data_of(stream: bytes) -> list[Any]:
    """What unnamed frames hold; `[DONE]` as text."""
    found = []
    for frame in stream.split(b"\n\n")[:-1]:
        assert frame.startswith(b"data: ")
        text = frame.removeprefix(b"data: ")
        found.append("[DONE]" if text == b"[DONE]" else json.loads(text))
    return found


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """What named frames hold; each says its own name as `type`."""
    found = []
    for frame in stream.split(b"\n\n")[:-1]:
        name, told = frame.split(b"\n")
        event = json.loads(told.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    return found
