"""`registry import` and `export`: models out and in again, byte for byte, nothing by trickery."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.adapters import fs_clone
from registry.adapters.import_files import Lender
from registry.cli.library import opened
from registry.core.digest import Digest
from registry.core.names import ModelName
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST
from tests.support.place import Place, make
from tests.support.s3 import S3Server

NAMES = {"base:latest", "team/Other:Q4"}
OTHER = "manifests/registry.ollama.ai/team/Other/Q4"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / "old", monkeypatch)
    place.fill()
    return place


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "new", monkeypatch)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("to", "form"),
    [("a.tar", "oci"), ("folder", "oci"), ("a.tar", "ollama"), ("folder", "ollama")],
)
def test_what_goes_out_comes_in_again(
    old: Place, new: Place, tmp_path: Path, to: str, form: str
) -> None:
    out = old.run(f"export --all --to {tmp_path / to} --format {form}")
    assert out.exit_code == 0, out.stderr
    if (to, form) == ("a.tar", "ollama"):
        (tmp_path / "unpacked").mkdir()
        with tarfile.open(tmp_path / to) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
        to = "unpacked"
    taken = new.run(f"import {tmp_path / to}")
    assert taken.exit_code == 0, taken.stderr
    assert "Imported 2 models" in taken.stderr
    assert new.models() == old.models()
    assert tree(new.data / "manifests") == tree(old.data / "manifests")
    assert tree(new.data / "blobs") == tree(old.data / "blobs")
    (deed,) = json.loads(new.run("audit --json").stdout)
    assert (deed["action"], deed["target"], deed["result"]) == ("import", "every model", "done")
    again = new.run(f"import {tmp_path / to}")
    assert (again.exit_code, again.stderr.count("here already")) == (0, 2)


def test_the_same_models_make_the_same_archive(old: Place, new: Place, tmp_path: Path) -> None:
    assert old.run(f"export base team/other:q4 --to {tmp_path / 'a.tar'}").exit_code == 0
    assert new.run(f"import {tmp_path / 'a.tar'}").exit_code == 0
    assert new.run(f"export --all --to {tmp_path / 'b.tar'}").exit_code == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.folder("compares with the files of tags")
def test_a_models_folder_gets_models_besides_its_own(old: Place, tmp_path: Path) -> None:
    for name in ("base", "team/other:q4"):
        assert old.run(f"export {name} --to {tmp_path / 'm'} --format ollama").exit_code == 0
    assert tree(tmp_path / "m" / "manifests") == tree(old.data / "manifests")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("export nothing --to {tmp}/a.tar", 1, "not found"),
        ("export --to {tmp}/a.tar", 2, "--all"),
        ("export base --all --to {tmp}/a.tar", 2, "--all"),
        ("export base --to {tmp}/full", 1, "not empty"),
        ("export base --to {tmp}/no/such/a.tar", 1, "No such file"),
        ("export ../x --to {tmp}/a.tar", 1, "invalid model name"),
        ("import {tmp}/nothing", 1, "no file or folder"),
        ("import {tmp}/full", 1, "neither"),
        ("import {tmp}/full/file", 1, "no tar archive"),
        ("import registry://../x", 1, "invalid model name"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    old: Place, tmp_path: Path, command: str, code: int, said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("text")
    before = sorted(os.listdir(tmp_path))
    done = old.run(command.format(tmp=tmp_path))
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_a_damaged_blob_is_not_exported(old: Place, tmp_path: Path) -> None:
    stored = BACKENDS.stored(old.data, Digest.of(SMALLEST))
    stored.write(SMALLEST[:-1] + bytes([SMALLEST[-1] ^ 1]))
    for to in ("a.tar", "folder"):
        done = old.run(f"export base --to {tmp_path / to}")
        assert (done.exit_code, "digest mismatch" in done.stderr) == (1, True)
    assert not (tmp_path / "a.tar").exists()
    assert all(hashlib.sha256(body).hexdigest() in name for name, body in blobs_of(tmp_path))


def blobs_of(tmp_path: Path) -> list[tuple[str, bytes]]:
    return [(name, body) for name, body in tree(tmp_path / "folder").items() if "blobs/" in name]


# how folders are taken


def folder_of(old: Place, tmp_path: Path) -> Path:
    """A models folder as a real Ollama leaves it."""
    assert old.run(f"export --all --to {tmp_path / 'ollama'} --format ollama").exit_code == 0
    os.utime(tmp_path / "ollama" / OTHER, (1_500_000_000, 1_500_000_000))
    return tmp_path / "ollama"


@pytest.mark.parametrize("mode", ["auto", "copy", "link"])
@pytest.mark.folder("looks whether files are the same")
def test_a_folder_is_copied_or_linked(old: Place, new: Place, tmp_path: Path, mode: str) -> None:
    folder = folder_of(old, tmp_path)
    taken = new.run(f"import {folder} --mode {mode}")
    assert taken.exit_code == 0, taken.stderr
    assert new.models() == old.models()
    for path in (new.data / "blobs").iterdir():
        assert path.samefile(folder / "blobs" / path.name) == (mode == "link")
    assert list((new.data / "incoming").iterdir()) == []
    assert tree(folder / "blobs") == tree(old.data / "blobs")
    assert _updated(new, "team/Other:Q4") == 1_500_000_000 * 10**9


def _updated(place: Place, name: str) -> int:
    async def look() -> int:
        async with opened(place.settings) as library:
            models = await library.listing.models()
            return next(model.updated_at for model in models if model.name.short == name)

    return asyncio.run(look())


@pytest.mark.folder("links into the store")
def test_a_sweep_leaves_alone_what_was_just_linked(old: Place, new: Place) -> None:
    """A link has its file's time of writing, which may be years ago."""
    path = max((old.data / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    os.utime(path, (1, 1))

    async def sweep() -> int:
        async with opened(new.settings) as library:
            loan = Lender(new.data / "incoming", link=True).lend(path)
            assert loan is not None
            await library.store.sweep(frozenset(), time.time_ns() - 3_600 * 10**9)
            incoming = await library.store.resume(loan.key, loan.size)
            digest = await incoming.seal()
            await incoming.discard()
            assert path.name == digest.file_name
            return loan.size

    assert asyncio.run(sweep()) == path.stat().st_size


@pytest.mark.folder("clones into the store")
def test_a_clone_is_hashed_too(
    old: Place, new: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few file systems clone; here a copy stands for what the system call does."""
    monkeypatch.setattr(fs_clone, "_clone", shutil.copyfile)
    folder = folder_of(old, tmp_path)
    _flip(folder)
    done = new.run(f"import {folder}")
    assert (done.exit_code, done.stderr.count("left out")) == (1, 2)
    assert list((new.data / "incoming").iterdir()) == []
    assert list((new.data / "blobs").iterdir()) == []


@pytest.mark.folder("about the folder itself")
def test_the_own_folder_is_adopted_in_place(old: Place) -> None:
    before = old.models()
    (old.data / "registry.db").unlink()
    assert old.run(f"import {old.data}").exit_code == 0
    assert old.models() == before


def test_some_models_may_be_chosen_and_one_renamed(old: Place, new: Place, tmp_path: Path) -> None:
    old.run(f"export --all --to {tmp_path / 'a.tar'}")
    assert new.run(f"import {tmp_path / 'a.tar'} TEAM/other:q4 --as mine:v1").exit_code == 0
    assert set(new.models()) == {"mine:v1"}
    refused = new.run(f"import {tmp_path / 'a.tar'} --as mine:v2")
    assert (refused.exit_code, "--as needs one" in refused.stderr) == (1, True)
    refused = new.run(f"import {tmp_path / 'a.tar'} other")
    assert (refused.exit_code, "there is no 'other'" in refused.stderr) == (1, True)


def test_another_model_of_the_name_stays_unless_it_may_be_replaced(
    old: Place, new: Place, tmp_path: Path
) -> None:
    old.run(f"export base --to {tmp_path / 'a.tar'}")
    new.run(f"import {tmp_path / 'a.tar'}")

    async def change() -> None:
        async with opened(old.settings) as library:
            await make(library, "base", origin="base", system="Changed.")

    asyncio.run(change())
    old.run(f"export base --to {tmp_path / 'b.tar'}")
    before = new.models()
    refused = new.run(f"import {tmp_path / 'b.tar'}")
    assert (refused.exit_code, "--replace" in refused.stderr) == (1, True)
    assert new.models() == before
    assert new.run(f"import {tmp_path / 'b.tar'} --replace").exit_code == 0
    assert new.models()["base:latest"] == old.models()["base:latest"] != before["base:latest"]


# what nobody should send


def _flip(folder: Path) -> None:
    blobs = folder / "blobs"
    blobs = blobs / "sha256" if (blobs / "sha256").is_dir() else blobs
    for file in blobs.iterdir():
        if not file.read_bytes().startswith(b'{"schemaVersion"'):
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)


def _largest(folder: Path) -> Path:
    return max((folder / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)


def _gguf(folder: Path) -> Path:
    return next(
        path for path in (folder / "blobs" / "sha256").iterdir() if b"GGUF" in path.read_bytes()[:4]
    )


def _longer(folder: Path) -> None:
    with _gguf(folder).open("ab") as file:
        file.write(b"x" * 5_000_000)


def _shorter(folder: Path) -> None:
    os.truncate(_gguf(folder), 5)


def _absent(folder: Path) -> None:
    _gguf(folder).unlink()


def _linked(folder: Path) -> None:
    file = _gguf(folder)
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")


def _pipe(folder: Path) -> None:
    _gguf(folder).unlink()
    os.mkfifo(folder / "pipe")
    (folder / "pipe").rename(_largest(folder).parent / "x")
    gguf = json.loads(_manifest(folder))["layers"][0]["digest"].partition(":")[2]
    (_largest(folder).parent / "x").rename(_largest(folder).parent / gguf)


def _manifest(folder: Path) -> str:
    index = json.loads((folder / "index.json").read_text())
    digest = str(index["manifests"][0]["digest"]).partition(":")[2]
    return (folder / "blobs" / "sha256" / digest).read_text()


def _wrong_manifest(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    digest = index["manifests"][0]["digest"].partition(":")[2]
    (folder / "blobs" / "sha256" / digest).write_text(_manifest(folder) + " ")


def _bad_name(folder: Path) -> None:
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace("base:latest", "../../../etc:passwd"))


def _tag_only(folder: Path) -> None:
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace("base:latest", "latest"))


def _big_index(folder: Path) -> None:
    with (folder / "index.json").open("ab") as file:
        file.write(b" " * (5 << 20))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_flip, "digest mismatch"),
        (_longer, "more than its"),
        (_shorter, "bytes, not"),
        (_absent, "not found"),
        (_linked, "it is a link"),
        (_pipe, "cannot be read"),
        (_wrong_manifest, "its manifest is not"),
        (_bad_name, "no name that a model can have"),
        (_tag_only, "--as"),
        (_big_index, "larger than"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_hostile_layout_is_refused_and_leaves_nothing(
    old: Place, new: Place, tmp_path: Path, harm: Callable[[Path], None], said: str, packed: bool
) -> None:
    folder = tmp_path / "layout"
    assert old.run(f"export base --to {folder}").exit_code == 0
    harm(folder)
    source = folder
    if packed:
        if harm in (_linked, _pipe):
            said = "not found"  # links and pipes in an archive are not seen at all
        source = tmp_path / "layout.tar"
        subprocess.run(["tar", "cf", source, "-C", folder, "."], check=True)
    done = new.run(f"import {source}")
    assert done.exit_code == 1
    assert said in done.stderr, done.stderr
    assert str(tmp_path) not in done.stderr
    assert new.models() == {}
    assert not BACKENDS.kept(new.data)


def test_one_bad_model_leaves_the_others_alone(old: Place, new: Place, tmp_path: Path) -> None:
    folder = folder_of(old, tmp_path)
    (folder / OTHER).write_bytes(b"garbage")
    done = new.run(f"import {folder}")
    assert done.exit_code == 1
    assert "left out team/Other:Q4" in done.stderr
    assert "1 of 2 models could not be imported" in done.stderr
    assert set(new.models()) == {"base:latest"}


def test_images_with_an_index_come_with_all_below_it(
    old: Place, new: Place, tmp_path: Path
) -> None:
    """Not models, but they lie in the same registry: a list of manifests for two platforms."""
    layout = tmp_path / "layout"
    digest = _image_layout(layout, ["amd64", "arm64"])
    done = new.run(f"import {layout}")
    assert done.exit_code == 0, done.stderr
    assert new.run(f"export team/image:v1 --to {tmp_path / 'b.tar'}").exit_code == 0
    with tarfile.open(tmp_path / "b.tar") as archive:
        names = archive.getnames()
    assert f"blobs/sha256/{digest}" in names
    assert set(names) == {name for name in tree(layout) if "/" in name} | {
        "oci-layout",
        "index.json",
    }


def _image_layout(layout: Path, platforms: list[str]) -> str:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return f"sha256:{digest}", len(content)

    def described(content: bytes, kind: str) -> dict[str, object]:
        digest, size = put(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}

    children = [
        described(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": described(f'{{"architecture":"{name}"}}'.encode(), "config.v1+json"),
                    "layers": [described(name.encode() * 100, "layer.v1.tar")],
                }
            ).encode(),
            "manifest.v1+json",
        )
        for name in platforms
    ]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": children,
    }
    top = described(json.dumps(index).encode(), "index.v1+json")
    named = top | {"annotations": {"io.containerd.image.name": "registry.ollama.ai/team/image:v1"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(top["digest"]).partition(":")[2]


def test_an_index_that_never_ends_is_refused(new: Place, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = _image_layout(layout, ["amd64"])
    body = (layout / "blobs" / "sha256" / digest).read_bytes()
    for _ in range(5):  # each refers to the one before
        item = {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": f"sha256:{hashlib.sha256(body).hexdigest()}",
            "size": len(body),
        }
        body = json.dumps(
            {"schemaVersion": 2, "mediaType": item["mediaType"], "manifests": [item]}
        ).encode()
        (layout / "blobs" / "sha256" / hashlib.sha256(body).hexdigest()).write_bytes(body)
    named = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{hashlib.sha256(body).hexdigest()}",
        "size": len(body),
        "annotations": {"org.opencontainers.image.ref.name": "team/deep:v1"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    done = new.run(f"import {layout}")
    assert (done.exit_code, "indexes of indexes" in done.stderr) == (1, True)


def test_a_sparse_bomb_of_an_archive_costs_nothing(new: Place, tmp_path: Path) -> None:
    """An index of a terabyte by its header: the archive has not those bytes."""
    member = tarfile.TarInfo("index.json")
    member.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    done = new.run(f"import {tmp_path / 'a.tar'}")
    assert (done.exit_code, "cut off" in done.stderr) == (1, True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        packed.addfile(tarfile.TarInfo("index.json"))
    (tmp_path / "b.tar").write_bytes(archive.getvalue())
    done = new.run(f"import {tmp_path / 'b.tar'}")
    assert (done.exit_code, "compressed" in done.stderr) == (1, True)


@pytest.mark.folder("imports the folder of another library")
def test_what_is_imported_is_held_until_its_model_is_there(old: Place, new: Place) -> None:
    """Also with no grace at all: see the leases. Afterwards nothing is held."""
    assert new.run(f"import {old.data}").exit_code == 0

    async def left() -> int:
        async with opened(new.settings) as library:
            for name in NAMES:
                await library.models.delete(ModelName.parse(name))
            blobs = await library.catalog.scan(lambda tx: tx.blobs_after("", 10))
            return len(blobs)

    assert asyncio.run(left()) == 0


def test_object_stores_are_imported_into_and_exported_from(
    old: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    place = Place(tmp_path / "s3", monkeypatch, storage=s3.environ())
    folder = folder_of(old, tmp_path)
    refused = place.run(f"import {folder} --mode link")
    assert (refused.exit_code, "cannot share" in refused.stderr) == (1, True)
    taken = place.run(f"import {folder}")
    assert taken.exit_code == 0, taken.stderr
    assert place.models() == old.models()
    for target in (place, old):
        done = target.run(f"export --all --to {tmp_path / target.data.name}.tar")
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "s3.tar").read_bytes() == (tmp_path / "old.tar").read_bytes()
    _flip(folder)
    other = Place(tmp_path / "other", monkeypatch, storage=s3.environ())
    assert other.run(f"import {folder}").exit_code == 1
    assert other.models() == {}
