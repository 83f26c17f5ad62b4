"""Errors of the operating system in our words, with no path in them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from registry.core.errors import OperationFailed, StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def os_errors() -> Iterator[None]:
    """Raise `StorageFull` for a full disk or quota, `OperationFailed` for the rest."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("no space left in the store") from error
        reason = error.strerror or type(error).__name__
        raise OperationFailed(f"the store failed: {reason}") from error
