"""Records: their places, their bytes, and what is no record."""

import hashlib

import pytest

from registry.core.digest import Digest
from registry.core.errors import DigestInvalid, ManifestInvalid
from registry.core.names import RepositoryName
from registry.core.records import Record, RecordName, folder_of, reference_of

REPOSITORY = RepositoryName("team/a/B")
BODY = b'{"schemaVersion":2}\nand a second line'
DIGEST = Digest.of(BODY)
SHA512 = Digest.of(BODY, "sha512")
TAG = Record(RecordName(REPOSITORY, "V1"), DIGEST)
MANIFEST = Record(RecordName(REPOSITORY, str(DIGEST)), DIGEST, "application/x", BODY)
ODD = Record(RecordName(REPOSITORY, str(SHA512)), SHA512, "application/x", BODY, {SHA512: DIGEST})


@pytest.mark.parametrize("record", [TAG, MANIFEST, ODD], ids=["tag", "manifest", "sha512"])
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert Record.decode(record.encode()) == record


def test_a_tag_says_where_it_points_and_a_manifest_is_there_byte_by_byte() -> None:
    assert TAG.encode() == (
        f'{{"repository":"team/a/B","tag":"V1","manifest":"{DIGEST}"}}\n'.encode()
    )
    assert MANIFEST.encode().endswith(b'"mediaType":"application/x"}\n' + BODY)


def test_two_spellings_have_one_place() -> None:
    folder = hashlib.sha256(b"team/a/b").hexdigest()[:32]
    assert folder_of(REPOSITORY) == folder
    assert RecordName(REPOSITORY, "V1").file_path == f"{folder}/tag-v1"
    assert RecordName(RepositoryName("TEAM/a/b"), "v1").file_path == f"{folder}/tag-v1"
    assert RecordName(REPOSITORY, str(DIGEST)).file_path == f"{folder}/sha256-{DIGEST.hex}"


def test_a_tag_named_like_a_digest_is_still_a_tag() -> None:
    name = RecordName(REPOSITORY, DIGEST.file_name)
    assert name.file_path != RecordName(REPOSITORY, str(DIGEST)).file_path
    assert reference_of(name.file_path.partition("/")[2]) == DIGEST.file_name


@pytest.mark.parametrize("reference", ["v1", str(DIGEST), str(SHA512)])
def test_a_files_name_tells_the_reference(reference: str) -> None:
    file_name = RecordName(REPOSITORY, reference).file_path.partition("/")[2]
    assert reference_of(file_name) == reference


def test_a_file_of_another_name_is_none() -> None:
    with pytest.raises(DigestInvalid):
        reference_of("notes.txt")


def test_names_are_shown_as_people_write_them() -> None:
    assert str(TAG.name) == "team/a/B:V1"
    assert MANIFEST.name.short == f"team/a/B@{DIGEST}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"repository":"a/b","repository":"a/c"}\n',
        b'{"repository":"../x","tag":"v1","manifest":"%s"}\n' % str(DIGEST).encode(),
        b'{"repository":"a/b","tag":"..","manifest":"%s"}\n' % str(DIGEST).encode(),
        b'{"repository":"a/b","tag":1,"manifest":"%s"}\n' % str(DIGEST).encode(),
        b'{"repository":"a/b","tag":"v1","manifest":"sha1:00"}\n',
        b'{"repository":"a/b","manifest":"%s"}\n' % str(DIGEST).encode(),
        MANIFEST.encode() + b"more",
        MANIFEST.encode().replace(b'"mediaType"', b'"blobs":[],"mediaType"'),
        MANIFEST.encode().replace(b'"mediaType"', b'"blobs":{"sha512:0":"x"},"mediaType"'),
        ODD.encode().replace(f'"{DIGEST}"'.encode(), b"7"),
    ],
)
def test_what_is_damaged_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        Record.decode(content)
