"""Tar archives: written the same each time, read by anybody, and never walked out of."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.adapters.tar_file import TarWriter, index_of
from registry.core.errors import OperationFailed

FILES = {"a": b"", "blobs/sha256/b": b"x" * 1000, "c.json": b"y" * 512}


def written(path: Path, files: dict[str, bytes] = FILES) -> Path:
    path.unlink(missing_ok=True)
    writer = TarWriter(path)
    for name, content in files.items():
        writer.begin(name, len(content))
        for begin in range(0, len(content), 300):
            writer.write(content[begin : begin + 300])
    writer.close(whole=True)
    return path


def read(path: Path) -> dict[str, bytes]:
    with io.FileIO(path) as file:
        found = index_of(file)
        content = path.read_bytes()
        return {name: content[start : start + size] for name, (start, size) in found.items()}


def test_what_is_written_is_read_here_and_elsewhere(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar")
    assert read(path) == FILES
    with tarfile.open(path, "r:") as archive:
        for name, content in FILES.items():
            file = archive.extractfile(name)
            assert file is not None
            assert file.read() == content
    assert path.read_bytes() == written(tmp_path / "b.tar").read_bytes()


def test_a_file_of_more_than_eight_gigabytes_fits(tmp_path: Path) -> None:
    writer = TarWriter(tmp_path / "a.tar")
    size = 9 << 30
    writer.begin("big", size)
    with (tmp_path / "a.tar").open("r+b") as file:
        writer._file.flush()
        start = file.seek(0, 2)
        file.truncate(start + size)
    writer._file.seek(0, 2)
    writer.close(whole=True)
    with io.FileIO(tmp_path / "a.tar") as file:
        assert index_of(file) == {"big": (start, size)}
    with tarfile.open(tmp_path / "a.tar", "r:") as archive:
        assert archive.getmember("big").size == size


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_others_are_read(tmp_path: Path, form: int) -> None:
    long = "blobs/" + "d" * 90 + "/" + "e" * 60
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        folder = tarfile.TarInfo("blobs")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("./index.json", long):
            member = tarfile.TarInfo(name)
            member.size = 5
            if form == tarfile.PAX_FORMAT:
                member.pax_headers = {"comment": "ü" * 20}
            archive.addfile(member, io.BytesIO(b"12345"))
    assert read(tmp_path / "a.tar") == {"index.json": b"12345", long: b"12345"}


def hostile(path: Path, name: str = "x", content: bytes = b"12345", **fields: Any) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        for key, value in fields.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "a//x", ".", "..", ".hidden", "a/.hidden", "a\\x\n"],
)
def test_names_that_walk_out_are_not_seen(tmp_path: Path, name: str) -> None:
    assert read(hostile(tmp_path / "a.tar", name)) == {}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_are_not_seen(tmp_path: Path, kind: bytes) -> None:
    path = hostile(tmp_path / "a.tar", type=kind, linkname="/etc/passwd", content=b"")
    assert read(path) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b" + bytes(1000), "compressed"),
        (b"garbage" * 200, "no tar"),
        (b"short", "no tar"),
        (tarfile.TarInfo("x").tobuf()[:300], "no tar"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(OperationFailed, match=said):
        read(tmp_path / "a.tar")


def test_an_archive_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", {"a": b"x" * 5000})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(OperationFailed, match="cut off"):
        read(path)


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(2 << 30)
    with pytest.raises(OperationFailed, match="too long"):
        read(tmp_path / "a.tar")


def test_a_size_in_an_extended_header_is_bounded_by_the_file(tmp_path: Path) -> None:
    record = b"26 size=99999999999999999\n"
    extended = tarfile.TarInfo("PaxHeader")
    extended.type, extended.size = tarfile.XHDTYPE, len(record)
    blocks = [
        extended.tobuf(tarfile.USTAR_FORMAT),
        record.ljust(512, b"\0"),
        tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT),
    ]
    (tmp_path / "a.tar").write_bytes(b"".join(blocks) + bytes(1024))
    with pytest.raises(OperationFailed, match="cut off"):
        read(tmp_path / "a.tar")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzz.tar")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read(path)
    except OperationFailed:
        return
    assert all(len(value) <= len(content) for value in found.values())
