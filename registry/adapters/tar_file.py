"""Plain tar archives: read by an index of their files, and written the same each time.

Nothing is ever unpacked: a file is read where it lies in the archive. Only plain files are seen;
links, devices and what walks out of the archive by its name do not exist here. Extended headers are
bounded, which the standard library's own reader does not do.

Source: POSIX.1-2017, pax, "ustar Interchange Format", "pax Extended Header".
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from registry.core.errors import OperationFailed

BLOCK = tarfile.BLOCKSIZE
_MAX_FILES = 1_000_000
_MAX_EXTENDED = 64 << 10
_RECORD = re.compile(rb"(\d{1,10}) (path|size)=([^\n]*)\n")
_NAME = re.compile(r"(?:\./)?((?:[A-Za-z0-9_-][A-Za-z0-9._-]*/){0,8}[A-Za-z0-9_-][A-Za-z0-9._-]*)")
_PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}
_BARE = {
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
}
"""Have no bytes, whatever their size says."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK")


def index_of(file: io.FileIO) -> dict[str, tuple[int, int]]:
    """The plain files of an archive: offset and size by name; of two of a name, the last.

    Raises:
        OperationFailed: it is no archive, is compressed, is cut off, or has too many files.
    """
    length = os.fstat(file.fileno()).st_size
    found: dict[str, tuple[int, int]] = {}
    for header, offset in _headers(file, length):
        match = _NAME.fullmatch(header.name)
        if header.type in _PLAIN and match is not None:
            found[match[1]] = (offset, header.size)
        if len(found) > _MAX_FILES:
            raise OperationFailed(f"the archive has more than {_MAX_FILES} files")
    return found


def _headers(file: io.FileIO, length: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Each file's header, what extended headers say put in, and where its bytes begin."""
    position = 0
    extended: dict[str, str] = {}
    while position < length:
        block = os.pread(file.fileno(), BLOCK, position)
        if block == bytes(BLOCK):
            return
        header = _header(block, first=position == 0)
        position += BLOCK
        size = _size(extended.get("size", ""), header.size)
        if header.type not in _BARE and position + size > length:
            raise OperationFailed("the archive is cut off")
        if header.type in {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE}:
            content = _extended(file, position, size)
            if header.type != tarfile.XGLTYPE:
                extended |= _records(header.type, content)
        else:
            header.name = extended.get("path", header.name)
            header.size = size
            yield header, position
            extended = {}
            if header.type in _BARE:
                continue
        position += -(-size // BLOCK) * BLOCK


def _header(block: bytes, *, first: bool) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if first and block.startswith(_COMPRESSED):
            raise OperationFailed("the archive is compressed: unpack it to a plain tar") from error
        raise OperationFailed("it is no tar archive, or a damaged one") from error


def _size(text: str, given: int) -> int:
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else given
    if size < 0:
        raise OperationFailed("the archive is damaged: a size below nothing")
    return size


def _extended(file: io.FileIO, position: int, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise OperationFailed("the archive has a header that is too long")
    return os.pread(file.fileno(), size, position)


def _records(kind: bytes, content: bytes) -> dict[str, str]:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    return {
        match[2].decode(): match[3].decode("utf-8", "surrogateescape")
        for match in _RECORD.finditer(content)
        if int(match[1]) == len(match[0])
    }


class TarWriter:
    """An archive that is written file by file; its bytes depend on nothing but theirs."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb"
        )
        self._left = 0

    def begin(self, name: str, size: int) -> None:
        """Begin a file; `write` is to be called with `size` bytes in all."""
        header = tarfile.TarInfo(name)
        header.size = size
        self._file.write(header.tobuf(tarfile.PAX_FORMAT))
        self._left = size

    def write(self, data: bytes) -> None:
        """Go on with a file."""
        self._file.write(data)
        self._left -= len(data)
        if self._left == 0:
            self._file.write(bytes(-self._file.tell() % BLOCK))

    def close(self, *, whole: bool) -> None:
        """End the archive, durably if it is `whole`."""
        with self._file:
            if whole:
                self._file.write(bytes(2 * BLOCK))
                self._file.flush()
                os.fsync(self._file.fileno())
