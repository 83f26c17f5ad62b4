"""Runs a program under limits: `python -m registry.tensors.confined JOB PROGRAM ARGUMENT…`.

`JOB` is JSON: the bytes of memory and of any file that it may have, and who started it. It runs
behind everything else, not longer than the server, and becomes the program.
"""

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_FILES = 64


def follow(parent: int) -> None:
    """Run behind everything else, and not longer than the server."""
    os.nice(10)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it went before we asked to go with it
        os._exit(1)


def main() -> None:
    """Run as a program."""
    job, command = json.loads(sys.argv[1]), sys.argv[2:]
    follow(job["parent"])
    for limit, value in (
        (resource.RLIMIT_DATA, job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, job["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        resource.setrlimit(limit, (value, value))
    os.execv(command[0], command)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
