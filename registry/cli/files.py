"""From files on this machine to a create request: find them, hash them, upload what is missing.

The server never sees a Modelfile: its FROM, ADAPTER and DRAFT lines are read here, relative to the
Modelfile's folder, and every file goes up as a blob under its digest. A folder stands for the files
in it that make a model, by the patterns of the stock command line.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from registry.cli.client import Client, Report
from registry.core.digest import Digest
from registry.core.errors import ModelfileInvalid, OperationFailed
from registry.core.modelfile import Modelfile, decode
from registry.core.names import ModelName

_CHUNK_BYTES = 1 << 20
_MODELFILE_BYTES = 16 << 20  # a request with more would not be accepted

# The first group with a match gives the weights. Ollama prefers safetensors to GGUF, and so do we.
_WEIGHTS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("pytorch_model*.bin",),
    ("consolidated*.pth",),
    ("*.gguf",),
    ("*.bin",),
)
_ADAPTER_WEIGHTS = ("adapter*.safetensors",)
_BESIDE = (
    "*.json",
    "*/*.json",
    "chat_template.jinja",
    "tokenizer.model",
    "*/tokenizer.model",
    "vocab.txt",
    "sentencepiece.bpe.model",
)
_SUFFIXES = {".gguf", ".safetensors", ".bin", ".pth"}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

Watch = Callable[[Report], None]


@dataclass(slots=True)
class Sources:
    """What a model is to be made of: fields of the request, and files by their name in it."""

    request: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    adapters: list[Path] = field(default_factory=list)
    draft_files: list[Path] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def read_modelfile(path: Path) -> str:
    """The text of a Modelfile in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ModelfileInvalid: it cannot be read, is too large or no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MODELFILE_BYTES + 1)
    except OSError as error:
        raise ModelfileInvalid(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MODELFILE_BYTES:
        raise ModelfileInvalid(f"{path} is larger than {_MODELFILE_BYTES >> 20} MiB: no Modelfile")
    return decode_modelfile(data, str(path))


def decode_modelfile(data: bytes, name: str) -> str:
    """The text in the bytes of a Modelfile; see `read_modelfile`."""
    text = decode(data)
    if "\0" in text:
        raise ModelfileInvalid(f"{name} is no text; is it a model? then use --gguf")
    return text


def sources_of(modelfile: Modelfile, folder: Path) -> Sources:
    """What a Modelfile in `folder` asks for, its files found and checked but not yet read.

    Raises:
        ModelfileInvalid: a file it names is missing or not fit to be sent.
    """
    request, warnings = modelfile.request()
    sources = Sources(request, warnings=warnings)
    for text in modelfile.values("from"):
        found = _find(text, folder)
        if found:
            sources.files += found
        else:
            sources.request["from"] = text
    for text in modelfile.values("adapter"):
        sources.adapters += _find(text, folder, required="ADAPTER")
    for text in modelfile.values("draft"):
        sources.draft_files += _find(text, folder, required="DRAFT")
    return sources


def _find(text: str, folder: Path, required: str = "") -> list[Path]:
    """The files that `text` names; none if it is rather the name of a model."""
    try:
        path = folder / Path(text).expanduser()
    except RuntimeError as error:  # ~user, and there is no such user
        raise ModelfileInvalid(f"{text}: {error}") from error
    may_be_model = not required and not _looks_like_path(text) and ModelName.parse(text).is_valid
    try:
        if path.is_dir():
            return [] if may_be_model and not _has_weights(path) else model_files(path)
        if path.exists():
            return [checked_file(path)]
    except OSError as error:
        raise ModelfileInvalid(f"cannot read {text}: {error.strerror}") from error
    if may_be_model:
        return []
    raise ModelfileInvalid(f"{required or 'FROM'} {text}: no such file or folder in {folder}")


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~", "\\")) or Path(text).suffix.lower() in _SUFFIXES


def checked_file(path: Path) -> Path:
    """`path`, if it is a file that can be sent.

    Raises:
        ModelfileInvalid: a device or pipe, a file that cannot be read, or a Git LFS pointer.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could wait for ever
            raise ModelfileInvalid(f"{path} is not a regular file")
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
    except OSError as error:
        raise ModelfileInvalid(f"cannot read {path}: {error.strerror}") from error
    if head == _LFS_POINTER:
        raise ModelfileInvalid(
            f"{path} is a Git LFS pointer, not the file it stands for; run `git lfs pull` there"
        )
    return path


def _has_weights(folder: Path) -> bool:
    return bool(_weights(folder))


def _weights(folder: Path) -> list[Path]:
    for group in (*_WEIGHTS, _ADAPTER_WEIGHTS):
        if _matches(folder, group[0]):
            return [path for pattern in group for path in _matches(folder, pattern)]
    return []


def _matches(folder: Path, pattern: str) -> list[Path]:
    """Files of a pattern, sorted; hidden ones and those in hidden folders (`.cache`) left out."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def model_files(folder: Path) -> list[Path]:
    """The files of a folder that make a model: its weights of one kind and what describes them.

    Raises:
        ModelfileInvalid: there are no weights, or a link leads out of the folder.
    """
    found = _weights(folder)
    if not found:
        raise ModelfileInvalid(
            f"no model in {folder}: no *.safetensors, *.gguf, *.bin or *.pth files of a known name"
        )
    if found[0].suffix != ".gguf":  # which needs nothing beside it
        found += [path for pattern in _BESIDE for path in _matches(folder, pattern)]
    root = folder.resolve()
    for path in found:
        if not path.resolve().is_relative_to(root):
            raise ModelfileInvalid(
                f"{path} is a link that leads out of {folder}; copy the model without links "
                "(`hf download` does with --local-dir)"
            )
    return [checked_file(path) for path in dict.fromkeys(found)]


def request_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Each file under the name it has in a request: relative to the folder they share, with `/`."""
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links stay links
    if len(absolute) == 1:
        return {absolute[0].name: absolute[0]}
    shared = Path(os.path.commonpath([path.parent for path in absolute])) if absolute else Path()
    return {path.relative_to(shared).as_posix(): path for path in absolute}


def upload_all(client: Client, sources: Sources, watch: Watch) -> dict[str, Any]:
    """Upload what the server does not have; return the request with the digests filled in."""
    request = dict(sources.request)
    for key, paths in (
        ("files", sources.files),
        ("adapters", sources.adapters),
        ("draft_files", sources.draft_files),
    ):
        if paths:
            names = request_names(paths).items()
            request[key] = {name: str(_upload(client, path, watch)) for name, path in names}
    return request


def _upload(client: Client, path: Path, watch: Watch) -> Digest:
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest = _hash(file, path.name, size, watch)
            if client.has_blob(digest):
                watch(Report(f"already there: {path.name}"))
                return digest
            file.seek(0)
            status = f"uploading {path.name}"
            client.upload(digest, _watched(file, size, str(digest), status, watch), size)
    except OSError as error:
        raise OperationFailed(f"cannot read {path}: {error.strerror}") from error
    return digest


def _hash(file: BinaryIO, name: str, size: int, watch: Watch) -> Digest:
    hasher = hashlib.sha256()
    for chunk in _watched(file, size, name, f"hashing {name}", watch):
        hasher.update(chunk)
    return Digest.sha256(hasher.hexdigest())


def _watched(file: BinaryIO, size: int, key: str, status: str, watch: Watch) -> Iterator[bytes]:
    """The first `size` bytes of a file, its progress told after each piece."""
    done = 0
    while done < size:
        watch(Report(status, key, size, done))
        chunk = file.read(min(_CHUNK_BYTES, size - done))
        if not chunk:
            raise OperationFailed(f"{status}: the file became shorter meanwhile")
        done += len(chunk)
        yield chunk
    watch(Report(status, key, size, size))
