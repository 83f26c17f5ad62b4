"""This process by a name that others of the same machine can check.

A name holds the host, the pid namespace and the pid. Of a process of another machine, or of another
container, nothing can be told here.
"""

import os
import secrets
import socket
from pathlib import Path

_NAMESPACE = Path("/proc/self/ns/pid")


def _machine() -> str:
    namespace = _NAMESPACE.stat().st_ino if _NAMESPACE.exists() else 0
    return f"{socket.gethostname()}/{namespace}"


def own_name() -> str:
    """A new name of this process."""
    return f"{_machine()}/{os.getpid()}/{secrets.token_hex(6)}"


def is_gone(name: str) -> bool:
    """Whether it is certain that the process of that name has ended.

    It must not be asked about names of this process itself.
    """
    machine, _, rest = name.rpartition("/")[0].rpartition("/")
    if machine != _machine() or not rest.isdecimal():
        return False
    if int(rest) == os.getpid():  # a container that started again
        return True
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
