"""The index of an OCI image layout: what we write, what others write, what nobody should."""

import json

import pytest

from registry.core.digest import Digest
from registry.core.errors import ManifestInvalid
from registry.core.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from registry.core.oci_layout import Entry, blob_path, encode_index, parse_index

DIGEST = Digest.of(b"a manifest")


def index(**item: object) -> bytes:
    whole = {"mediaType": OCI_MANIFEST, "digest": str(DIGEST), "size": 10, **item}
    return json.dumps({"schemaVersion": 2, "manifests": [whole]}).encode()


def test_what_is_written_is_read_again() -> None:
    entries = [Entry(DIGEST, 10, OCI_MANIFEST, "team/a:b"), Entry(DIGEST, 10, OCI_INDEX, "c:d")]
    assert parse_index(encode_index(entries)) == entries
    assert encode_index(entries) == encode_index(entries)


def test_dockers_manifests_are_called_ocis_too_and_first() -> None:
    found = parse_index(encode_index([Entry(DIGEST, 10, DOCKER_MANIFEST, "a:b")]))
    assert [entry.media_type for entry in found] == [OCI_MANIFEST, DOCKER_MANIFEST]
    assert {(entry.digest, entry.label) for entry in found} == {(DIGEST, "a:b")}


@pytest.mark.parametrize(
    ("annotations", "label", "name"),
    [
        ({"org.opencontainers.image.ref.name": "team/a:b"}, "team/a:b", "team/a:b"),
        ({"org.opencontainers.image.ref.name": "latest"}, "latest", None),
        ({"org.opencontainers.image.ref.name": "../../etc/x"}, "../../etc/x", None),
        ({"org.opencontainers.image.ref.name": 7}, "", None),
        (
            {
                "io.containerd.image.name": "host.example/team/a:b",
                "org.opencontainers.image.ref.name": "b",
            },
            "host.example/team/a:b",
            "host.example/team/a:b",
        ),
        ([], "", None),
        (None, "", None),
    ],
)
def test_a_label_is_a_name_if_it_can_be_one(
    annotations: object, label: str, name: str | None
) -> None:
    (entry,) = parse_index(index(annotations=annotations))
    assert entry.label == label
    assert (entry.name.short if entry.name else None) == name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifests": {}}',
        b'{"manifests": [7]}',
        index(digest="sha256:../../x"),
        index(size=-1),
        index(size="10"),
        index(mediaType=None),
        json.dumps({"manifests": [0] * 100_001}).encode(),
    ],
)
def test_what_is_no_index_is_said_so(body: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_index(body)


def test_a_blob_lies_under_its_algorithm() -> None:
    assert blob_path(DIGEST) == f"blobs/sha256/{DIGEST.hex}"
