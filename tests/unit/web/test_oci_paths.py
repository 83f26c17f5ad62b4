import pytest

from registry.core.errors import NameInvalid, NotFound, UploadUnknown
from registry.web.oci_paths import Kind, Target, parse

SESSION = "5f1c9e2a-6c0f-4f0e-9a3b-2d1f0c7a8b90"


@pytest.mark.parametrize(
    ("path", "kind", "name", "argument"),
    [
        ("/v2", Kind.PING, "", ""),
        ("/v2/", Kind.PING, "", ""),
        ("/v2/_catalog", Kind.CATALOG, "", ""),
        ("/v2/a/b/manifests/t", Kind.MANIFEST, "a/b", "t"),
        ("/v2/a/manifests/t", Kind.MANIFEST, "a", "t"),
        ("/v2/a/b/blobs/sha256:0", Kind.BLOB, "a/b", "sha256:0"),
        ("/v2/a/b/blobs/sha256%3A0", Kind.BLOB, "a/b", "sha256:0"),
        ("/v2/a/b/referrers/x", Kind.REFERRERS, "a/b", "x"),
        ("/v2/a/b/tags/list", Kind.TAGS, "a/b", ""),
        ("/v2/a/b/blobs/uploads/", Kind.UPLOADS, "a/b", ""),
        ("/v2/a/b/blobs/uploads", Kind.UPLOADS, "a/b", ""),
        (f"/v2/a/b/blobs/uploads/{SESSION}", Kind.UPLOAD, "a/b", SESSION),
        ("/v2/Team/Llama-3.Q4/manifests/8b", Kind.MANIFEST, "Team/Llama-3.Q4", "8b"),
        ("/v2/hf.co/ns/m/tags/list", Kind.TAGS, "hf.co/ns/m", ""),
        # names whose components are words of the protocol
        ("/v2/blobs/manifests/manifests/t", Kind.MANIFEST, "blobs/manifests", "t"),
        ("/v2/manifests/blobs/tags/list", Kind.TAGS, "manifests/blobs", ""),
        ("/v2/x/blobs/uploads/manifests/t", Kind.MANIFEST, "x/blobs/uploads", "t"),
        ("/v2/x/tags/list/blobs/uploads/", Kind.UPLOADS, "x/tags/list", ""),
        ("/v2/x/blobs/manifests/list", Kind.MANIFEST, "x/blobs", "list"),
    ],
)
def test_paths_are_read_from_the_right(path: str, kind: Kind, name: str, argument: str) -> None:
    target = parse(path.encode())
    assert (target.kind, target.name, target.argument) == (kind, name, argument)


def test_the_default_namespace_and_host_may_be_left_out() -> None:
    full = parse(b"/v2/registry.ollama.ai/library/m/tags/list").repository
    assert (
        parse(b"/v2/m/tags/list").repository == full == parse(b"/v2/library/m/tags/list").repository
    )


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v2/a", NotFound),
        ("/v2/a/b/c", NotFound),
        ("/v2//manifests", NotFound),
        ("/v2/manifests/t", NotFound),
        ("/v2/a/b/chunksums/sha256:0", NotFound),
        ("/v2/_catalog/", NotFound),
        ("/v2/a/tags/list/", NotFound),
        ("/v2/a//b/tags/list", NameInvalid),
        ("/v2//tags/list", NameInvalid),
        ("/v2/../tags/list", NameInvalid),
        ("/v2/a/../b/tags/list", NameInvalid),
        ("/v2/a/%2e%2e/b/tags/list", NameInvalid),
        ("/v2/a%2Fb/tags/list", NameInvalid),
        ("/v2/a%2fb/manifests/t", NameInvalid),
        ("/v2/a/manifests/x%2Fy", NameInvalid),
        ("/v2/a%5Cb/tags/list", NameInvalid),
        ("/v2/a%00/tags/list", NameInvalid),
        ("/v2/a%0A/tags/list", NameInvalid),
        ("/v2/a%/tags/list", NameInvalid),
        ("/v2/%C3%A9/tags/list", NameInvalid),
        ("/v2/\xe9/tags/list", NameInvalid),
        ("/v2/a b/tags/list", NameInvalid),
        ("/v2/-a/tags/list", NameInvalid),
        (f"/v2/{'a' * 10_000}/tags/list", NameInvalid),
        (f"/v2/{'a' * 600}/tags/list", NameInvalid),
        (f"/v2/{'a/' * 300}b/tags/list", NameInvalid),
        ("/v2/a/blobs/uploads/1", UploadUnknown),
        (f"/v2/a/blobs/uploads/{SESSION.upper()}", UploadUnknown),
        (f"/v2/a/blobs/uploads/{SESSION}%00", UploadUnknown),
        ("/v2/a/blobs/uploads/..%2f..", NameInvalid),
    ],
)  # fmt: skip
def test_hostile_and_unknown_paths_cost_one_error(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(path.encode("latin-1"))


def test_a_target_of_no_repository_has_no_name() -> None:
    assert Target(Kind.PING).name == ""
