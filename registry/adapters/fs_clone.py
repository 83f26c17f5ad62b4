"""A second file with the bytes of a first, without copying them: a clone or a hard link.

Source: ioctl_ficlone(2). A clone shares blocks until one of the two is changed; btrfs, XFS and a
few others can. A hard link is a second name of one file, and what changes it changes both.
"""

import errno
import fcntl
import io
import os
import stat
from pathlib import Path

_FICLONE = 0x40049409
_CANNOT = {
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
}


def share(source: Path, target: Path, *, link: bool) -> bool:
    """Make `target`, which is not there yet; False where the file system cannot."""
    try:
        if link:
            os.link(source, target, follow_symlinks=False)
        else:
            _clone(source, target)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _clone(source: Path, target: Path) -> None:
    with open_regular(source) as given, target.open("xb") as made:
        try:
            fcntl.ioctl(made.fileno(), _FICLONE, given.fileno())
        except OSError:
            target.unlink()
            raise


def open_regular(path: Path) -> io.FileIO:
    """Open a file that others made: no link is followed, and nothing but a plain file is taken.

    Raises:
        OSError: it is not there, or is a link, a pipe, a device, a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = io.FileIO(descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file")
    return file
