"""The name of a data folder: by it a worker knows that a folder it sees is the library's own.

A random text in a file of the folder. It names no place, so that it may travel.
"""

import contextlib
import os
import re
import secrets
from pathlib import Path

FILE = "store-id"
_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")


def read_marker(folder: Path) -> str:
    """The folder's name; empty if it has none, or there is no such folder."""
    try:
        text = (folder / FILE).read_text(errors="replace")[:80].strip()
    except OSError:
        return ""
    return text if _NAME.fullmatch(text) else ""


def ensure_marker(folder: Path) -> str:
    """The same, after one was made where there was none. Empty where that cannot be."""
    found = read_marker(folder)
    if found or not folder.is_dir():
        return found
    part = folder / f".{FILE}-{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):
        part.write_text(secrets.token_urlsafe(24) + "\n")
        with contextlib.suppress(FileExistsError):  # another process made it: theirs counts
            os.link(part, folder / FILE)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
    return read_marker(folder)
