import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.core.digest import Digest
from registry.core.errors import ManifestInvalid
from registry.core.manifest import (
    MAX_DESCRIPTORS,
    MAX_MARKS,
    Descriptor,
    Index,
    Manifest,
    Referrer,
    encode_model,
    encode_referrers,
    parse,
)
from registry.core.media import (
    CONFIG,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    MODEL,
    OCI_INDEX,
    OCI_MANIFEST,
)

STORE = Path(__file__).parents[2] / "golden" / "wire" / "store.json"
A, B = Digest.of(b"a"), Digest.of(b"b")
ORAS = "application/vnd.oci.artifact.manifest.v1+json"


def descriptor(media_type: str = MODEL, digest: object = str(A), size: object = 1) -> Any:
    return {"mediaType": media_type, "digest": digest, "size": size}


def document(**changes: Any) -> bytes:
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG),
        "layers": [descriptor()],
    }
    value.update(changes)
    return json.dumps({key: item for key, item in value.items() if item != "absent"}).encode()


def index(**changes: Any) -> bytes:
    value: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    value.update(changes)
    return json.dumps({key: item for key, item in value.items() if item != "absent"}).encode()


def test_an_image_says_its_config_layers_and_subject() -> None:
    body = document(
        layers=[descriptor(digest=str(B), size=2), descriptor()],
        subject=descriptor(OCI_MANIFEST),
        annotations={"a": "b"},
        unknown={"kept": [1.5, None]},
    )
    manifest = parse(body, OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.body is body and manifest.digest == Digest.of(body)
    assert manifest.config == Descriptor(CONFIG, A, 1)
    assert [item.digest for item in manifest.blobs] == [A, B, A]
    assert manifest.children == ()
    assert manifest.subject == Descriptor(OCI_MANIFEST, A, 1)
    assert manifest.artifact_type == CONFIG
    assert manifest.annotations == {"a": "b"}


def test_an_index_says_its_children() -> None:
    manifest = parse(index(manifests=[descriptor(OCI_MANIFEST)], artifactType="x/y"), OCI_INDEX)
    assert isinstance(manifest, Index)
    assert manifest.blobs == ()
    assert manifest.children == (Descriptor(OCI_MANIFEST, A, 1),)
    assert manifest.artifact_type == "x/y"
    assert manifest.subject is None


def test_layers_that_need_not_be_here_are_not_among_the_blobs() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    elsewhere = descriptor() | {"urls": ["https://example.com/x"]}
    manifest = parse(document(layers=[descriptor(foreign), elsewhere, descriptor()]))
    assert isinstance(manifest, Manifest)
    assert [item.distributable for item in manifest.layers] == [False, False, True]
    assert len(manifest.blobs) == 2


@pytest.mark.parametrize("key", ["config", "layers", "annotations", "artifactType", "subject"])
def test_null_means_absent(key: str) -> None:
    parse(document(**{key: None, "mediaType": DOCKER_MANIFEST}))


@pytest.mark.parametrize(
    ("body", "content_type", "expected", "kind"),
    [
        (document(), OCI_MANIFEST, OCI_MANIFEST, Manifest),
        (document(), None, OCI_MANIFEST, Manifest),
        (document(mediaType="absent"), None, OCI_MANIFEST, Manifest),
        (document(mediaType="absent"), DOCKER_MANIFEST, DOCKER_MANIFEST, Manifest),
        (document(), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST, Manifest),
        (index(mediaType="absent"), None, OCI_INDEX, Index),
        (index(mediaType="absent", manifests=None), OCI_INDEX, OCI_INDEX, Index),
        (index(mediaType=DOCKER_MANIFEST_LIST), None, DOCKER_MANIFEST_LIST, Index),
        (index(mediaType="some/list", schemaVersion="absent"), None, "some/list", Index),
        (b"{}", "application/json", "application/json", Manifest),
        (document(mediaType=DOCKER_MANIFEST, config=descriptor("", "", 0)), None, DOCKER_MANIFEST,
         Manifest),
    ],
)  # fmt: skip
def test_the_media_type_is_the_one_that_body_and_sender_agree_on(
    body: bytes, content_type: str | None, expected: str, kind: type
) -> None:
    manifest = parse(body, content_type)
    assert (manifest.media_type, type(manifest)) == (expected, kind)


def test_the_blobs_of_an_artifact_manifest_are_its_layers() -> None:
    body = json.dumps({"mediaType": ORAS, "blobs": [descriptor()], "artifactType": "a/b"})
    manifest = parse(body.encode())
    assert [item.digest for item in manifest.blobs] == [A]
    assert manifest.artifact_type == "a/b"


def test_an_artifact_of_no_known_kind_has_no_type() -> None:
    assert parse(b"{}", "x/y").artifact_type is None


@pytest.mark.parametrize(
    ("body", "content_type", "fault"),
    [
        (b"", None, "invalid manifest: "),
        (b"[]", None, "not a JSON object"),
        (b'{"a":NaN}', None, "invalid manifest: "),
        (b'{"a":"\\ud800"}', None, "invalid manifest: "),
        (b'{"a":"\xff"}', None, "invalid manifest: "),
        (b'{"a":1,"a":2}', None, "a key stands twice"),
        (b'{"x":{"a":1,"a":2}}', None, "a key stands twice"),
        (b'{"a":9223372036854775808}', None, "out of range"),
        (b'{"a":-9223372036854775809}', None, "out of range"),
        (b'{"a":' + b"9" * 5000 + b"}", None, "invalid manifest: "),
        (b"[" * 33 + b"]" * 33, None, "nested deeper"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, None, "nested deeper"),
        (b"[" * 1000 + b"]" * 1000, None, "nested deeper"),
        (b"[" * 100_000, None, "invalid manifest: "),
        (b"[" * 100_000 + b"]" * 100_000, None, "invalid manifest: "),
        (document(mediaType=7), None, "mediaType is not a string"),
        (document(mediaType="no type"), None, "not a media type"),
        (document(mediaType="a/b\n"), None, "not a media type"),
        (document(), DOCKER_MANIFEST, "mediaType is not the Content-Type"),
        (document(mediaType="absent"), "x y", "not a media type"),
        (document(schemaVersion=1), None, "schema 1"),
        (document(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), None,
         "schema 1"),
        (document(schemaVersion=3), None, "schemaVersion"),
        (document(schemaVersion="absent"), None, "schemaVersion"),
        (document(schemaVersion=True), None, "schema"),
        (document(config="absent"), None, "config is missing"),
        (document(config=7), None, "config is not a descriptor"),
        (document(manifests=[]), None, "manifests as well as"),
        (document(mediaType=OCI_INDEX), None, "an index has no config"),
        (index(mediaType=OCI_MANIFEST), None, "only an index"),
        (index(manifests={}), None, "manifests is not a list"),
        (document(layers="x"), None, "layers is not a list"),
        (document(layers=[7]), None, r"layers\[0\] is not a descriptor"),
        (document(layers=[descriptor(), descriptor(size=-1)]), None, r"layers\[1\] .* size"),
        (document(layers=[descriptor(size=True)]), None, "size"),
        (document(layers=[descriptor(size=1.0)]), None, "size"),
        (document(layers=[descriptor(size="1")]), None, "size"),
        (document(layers=[descriptor(size=2**63 - 1)] * 2), None, "sizes are too large"),
        (document(layers=[descriptor(digest="md5:00")]), None, "digest"),
        (document(layers=[descriptor(digest=None)]), None, "digest"),
        (document(layers=[descriptor(digest="")]), None, "digest"),
        (document(layers=[descriptor("")]), None, "mediaType"),
        (document(layers=[descriptor("a/b\r\nx: y")]), None, "mediaType"),
        (document(layers=[descriptor() | {"name": 1}]), None, r"name of layers\[0\]"),
        (document(subject="x"), None, "subject is not a descriptor"),
        (document(subject=descriptor(digest="")), None, "subject has no valid digest"),
        (document(artifactType=7), None, "artifactType"),
        (document(artifactType="\u2028"), None, "artifactType"),
        (document(annotations=[1]), None, "annotations"),
        (document(annotations={"a": 1}), None, "annotations"),
    ],
)  # fmt: skip
def test_a_bad_manifest_costs_one_clear_error(
    body: bytes, content_type: str | None, fault: str
) -> None:
    with pytest.raises(ManifestInvalid, match=fault):
        parse(body, content_type)


def test_the_number_of_layers_is_bounded() -> None:
    parse(document(layers=[descriptor()] * MAX_DESCRIPTORS))
    with pytest.raises(ManifestInvalid, match="more than"):
        parse(document(layers=[descriptor()] * (MAX_DESCRIPTORS + 1)))


def test_so_many_values_are_not_even_read() -> None:
    body = b'{"schemaVersion":2,"x":[' + b"[]," * MAX_MARKS
    with pytest.raises(ManifestInvalid, match="more than 200000 commas and brackets"):
        parse(body)


def test_nesting_up_to_the_limit_is_kept() -> None:
    assert parse(b'{"schemaVersion":2,"config":null,"a":' + b"[" * 31 + b"]" * 31 + b"}", "a/b")


@pytest.mark.parametrize("example", json.loads(STORE.read_text())["examples"])
def test_a_recorded_manifest_comes_out_byte_for_byte(example: Any) -> None:
    body = example["manifest"].encode()
    manifest = parse(body, DOCKER_MANIFEST)
    assert isinstance(manifest, Manifest) and manifest.config is not None
    assert encode_model(manifest.config, manifest.layers) == body
    assert manifest.digest.hex == example["manifest_sha256"]


def test_a_model_without_layers_is_written_as_go_writes_it() -> None:
    body = encode_model(Descriptor(CONFIG, A, 1), ())
    assert body.endswith(b'"layers":null}\n')
    assert parse(body).blobs == (Descriptor(CONFIG, A, 1),)


def test_origin_and_name_of_a_layer_survive() -> None:
    layer = Descriptor(MODEL, A, 1, origin="a&b <c>.gguf", name='tensor "1"')
    body = encode_model(Descriptor(CONFIG, B, 2), [layer])
    assert b'"from":"a\\u0026b \\u003cc\\u003e.gguf","name":"tensor \\"1\\""' in body
    assert isinstance(manifest := parse(body), Manifest) and manifest.layers == (layer,)


def test_referrers_are_an_image_index() -> None:
    body = encode_referrers(
        [
            Referrer(OCI_MANIFEST, A, 5, "x/y", '{"k":"v"}'),
            Referrer(OCI_INDEX, B, 6, None, None),
        ]
    )
    assert json.loads(body) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(A),
                "size": 5,
                "artifactType": "x/y",
                "annotations": {"k": "v"},
            },
            {"mediaType": OCI_INDEX, "digest": str(B), "size": 6},
        ],
    }
    assert isinstance(parse(body, OCI_INDEX), Index)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
_keys = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "subject"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary() | st.dictionaries(_keys, _json | st.just([descriptor()])).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_the_bytes_it_is_a_manifest_or_one_error(body: bytes) -> None:
    try:
        manifest = parse(body)
    except ManifestInvalid:
        return
    assert manifest.body == body
