"""Names of models and of repositories, and how one maps to the other.

`ModelName` is the name of the Ollama API, `[host/][namespace/]model[:tag]`, right to left, with
defaults. `RepositoryName` is the path of the registry protocol, `/v2/<path>/…`. A model's
repository is its path without the default host: `mymodel` is `library/mymodel`, `hf.co/ns/model` is
itself. Both compare without regard to (ASCII) case and keep the case they were written in.

Source: Ollama `types/model/name.go` as described in spec ollama-api 1; OCI distribution-spec 1.1,
"Pulling manifests", for the path, widened to what Ollama's names need (upper case, `__`, `_x`).
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from registry.core.errors import NameInvalid

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MISSING = "!MISSING!"
"""Stands for a part whose separator was written and whose text was not: never valid."""

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_PATH = 512


@dataclass(frozen=True, slots=True)
class ModelName:
    """`host/namespace/model:tag`, each part as written or its default.

    A value may be invalid (`is_valid` tells): several answers quote an invalid name in full.
    """

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name and fill in the defaults; never fails (`is_valid`). A scheme is dropped."""
        rest, tag = text, DEFAULT_TAG
        colon = rest.rfind(":")
        if colon >= 0 and "/" not in rest[colon:]:
            rest, tag = rest[:colon], rest[colon + 1 :] or MISSING
        rest, slash, model = rest.rpartition("/")
        host, namespace = DEFAULT_HOST, DEFAULT_NAMESPACE
        if slash:
            model, rest = model or MISSING, rest or MISSING
            head, slash, namespace = rest.rpartition("/")
            namespace = namespace or MISSING
            if slash:
                host = head.split("://", 1)[-1] or MISSING
        return cls(host, namespace, model, tag)

    @classmethod
    def checked(cls, text: str, message: str = "invalid model name") -> Self:
        """`parse`, and refuse a name that is not valid.

        Raises:
            NameInvalid: with `message`.
        """
        name = cls.parse(text)
        if not name.is_valid:
            raise NameInvalid(message)
        return name

    @property
    def is_valid(self) -> bool:
        """Whether all four parts are there and legal."""
        return bool(
            _HOST.fullmatch(self.host)
            and _NAMESPACE.fullmatch(self.namespace)
            and _MODEL.fullmatch(self.model)
            and _MODEL.fullmatch(self.tag)
        )

    def __str__(self) -> str:
        """All four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """The name as listings show it: default host, then default namespace, left out."""
        if self.host != DEFAULT_HOST:
            return str(self)
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def repository(self) -> "RepositoryName":
        """Where the model lies under `/v2/`. Only for a valid name."""
        path = f"{self.namespace}/{self.model}"
        return RepositoryName(path if self.host == DEFAULT_HOST else f"{self.host}/{path}")

    @property
    def file_path(self) -> str:
        """`host/namespace/model/tag`: its manifest's place below a models folder's `manifests/`."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"

    def with_tag(self, tag: str) -> Self:
        """The same model under another tag."""
        return replace(self, tag=tag)


@dataclass(frozen=True, slots=True)
class RepositoryName:
    """A repository's path under `/v2/`, default host left out, in the spelling given."""

    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the `<name>` of a `/v2/` path.

        One component means the default namespace, and the default host is dropped, so that
        `foo`, `library/foo` and `registry.ollama.ai/library/foo` are one repository.

        Raises:
            NameInvalid: an empty or illegal component, or a path over 512 characters.
        """
        parts = text.split("/")
        if len(text) > _MAX_PATH or not all(_COMPONENT.fullmatch(part) for part in parts):
            raise NameInvalid(f"invalid repository name: {text[:100]!r}")
        if any(":" in part for part in parts[1:]) or (len(parts) < 3 and ":" in text):
            raise NameInvalid(f"invalid repository name: {text[:100]!r}")
        if len(parts) == 3 and parts[0].lower() == DEFAULT_HOST:
            parts = parts[1:]
        if len(parts) == 1:
            parts.insert(0, DEFAULT_NAMESPACE)
        return cls("/".join(parts))

    def __str__(self) -> str:
        return self.path

    @property
    def key(self) -> str:
        """What two spellings of one repository have in common."""
        return self.path.lower()

    def model_name(self, tag: str) -> ModelName:
        """The Ollama name of a tag here; not valid for paths that Ollama cannot address."""
        head, _, model = self.path.rpartition("/")
        host, slash, namespace = head.rpartition("/")
        return ModelName(host if slash else DEFAULT_HOST, namespace, model, tag)


def short_name(path: str, tag: str) -> str:
    """`ModelName.short` of a tag of the repository at `path`, without a name made on the way."""
    head, _, model = path.rpartition("/")
    return f"{model}:{tag}" if head == DEFAULT_NAMESPACE else f"{path}:{tag}"


def check_tag(text: str) -> str:
    """Return `text` if it is a tag by OCI's rule (1-128 characters), which holds Ollama's.

    Raises:
        NameInvalid: it is none.
    """
    if not _TAG.fullmatch(text):
        raise NameInvalid(f"invalid tag: {text[:100]!r}")
    return text
