"""Domain errors: what is wrong, and with what. None of them knows HTTP; `web/errors.py` maps them.

RegistryError
├── RequestInvalid            the caller's request cannot mean anything
│   ├── NameInvalid           a model, repository or tag name
│   ├── DigestInvalid         a digest's spelling or algorithm
│   ├── DigestMismatch        bytes that are not those of their digest
│   ├── SizeInvalid           a length that disagrees with the bytes
│   ├── TooLarge              a body or document over its limit
│   ├── GgufInvalid           a file that is not a GGUF we accept
│   ├── TemplateInvalid       a Go template that does not parse
│   ├── ModelfileInvalid      a Modelfile that does not parse
│   ├── PromptTooLong         more tokens than the model's context holds
│   └── ManifestInvalid       a manifest's JSON, schema or media type
│       └── ManifestBlobUnknown   it refers to a blob or manifest that is not here
├── NotFound                  the thing named is not here (or not for this caller)
│   ├── ModelUnknown  ├── RepositoryUnknown  ├── ManifestUnknown
│   ├── BlobUnknown   ├── UploadUnknown
│   ├── BlobDamaged           a BlobUnknown whose bytes are here, but wrong
│   └── AccountUnknown        no such user, robot, node or team
├── Conflict                  it is here, but not in a state that allows this
│   ├── UploadOutOfOrder      a chunk that does not start where the last one ended
│   └── BlobInUse             a manifest still refers to it
├── Unauthenticated           credentials that prove nothing, or none where some are needed
├── Forbidden                 what this server will not do, for this caller or for anyone
│   ├── Denied                the caller has not the right
│   ├── TagImmutable          a tag that is made once and never moved
│   └── QuotaExceeded         more bytes than a namespace may have
├── Unsupported               an operation this server does not offer
├── Unavailable               try again later: a worker, a lock, a queue
│   └── TooOften              this caller has asked too often
├── WorkerFailed              a worker did not do what it was asked
│   ├── CannotRun             it never will, with this model
│   └── WorkerLost            it, or the model's runner, went away meanwhile
├── StorageFull               no space left for the bytes
├── OperationFailed           work that was begun and cannot be finished
│   └── CheckpointInvalid     files that cannot be converted to a model
└── UpstreamFailed            another registry's fault
    ├── UpstreamUnknown       it does not have the thing
    ├── UpstreamRefused       it will not let us, or we will not go there
    ├── UpstreamBusy          not now: a rate limit, an overload, an answer that broke off
    └── UpstreamUnreachable   no answer
"""

RUNNER_STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal "
    "error, check the worker's log for details"
)


class RegistryError(Exception):
    """Root of every error that is the domain's own. `str()` is a sentence fit for the caller."""


class RequestInvalid(RegistryError):
    """The request cannot mean anything; nothing was done."""


class NameInvalid(RequestInvalid):
    """A name outside the grammar of `core/names.py`."""


class DigestInvalid(RequestInvalid):
    """A digest whose spelling or algorithm is not accepted."""


class DigestMismatch(RequestInvalid):
    """Bytes that hash to something else than the caller said; none of them is kept."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"')
        self.expected = expected
        self.got = got


class SizeInvalid(RequestInvalid):
    """A stated length that disagrees with the bytes."""


class TooLarge(RequestInvalid):
    """A body or document over its limit."""


class GgufInvalid(RequestInvalid):
    """A file that is not a GGUF we accept; the message names the fault.

    `offset` is the byte where it lies, also where the message is Ollama's own and does not tell.
    `not_gguf` is set for a file that does not even begin as one.
    """

    def __init__(self, message: str, offset: int | None = None, *, not_gguf: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.not_gguf = not_gguf


class TemplateInvalid(RequestInvalid):
    """A Go template that does not parse; the message is Go's, `template error` left out."""


class ModelfileInvalid(RequestInvalid):
    """A Modelfile that does not parse."""


class PromptTooLong(RequestInvalid):
    """More tokens than the context holds. Both counts are 0 where the engine does not tell."""

    def __init__(self, message: str, tokens: int = 0, num_ctx: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.num_ctx = num_ctx


class ManifestInvalid(RequestInvalid):
    """A manifest whose JSON, schema or media type is wrong."""


class ManifestBlobUnknown(ManifestInvalid):
    """A manifest that refers to a blob or manifest its repository does not have."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob unknown to repository: {digest}")
        self.digest = digest


class NotFound(RegistryError):
    """The thing named is not here, or not for this caller: the two look alike."""


class ModelUnknown(NotFound):
    """No model of that name. The quotes differ by endpoint, so the caller words the message."""


class RepositoryUnknown(NotFound):
    """No repository of that name."""


class ManifestUnknown(NotFound):
    """No such tag or manifest in the repository."""


class BlobUnknown(NotFound):
    """No such blob, or none that this repository refers to."""

    def __init__(self, digest: str) -> None:
        super().__init__(f'blob "{digest}" not found')
        self.digest = digest


class BlobDamaged(BlobUnknown):
    """A blob whose stored bytes were found to be wrong: as good as absent until it is put again."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.args = (
            f"blob {digest} is damaged in the store: push its model again, or have it repaired",
        )


class UploadUnknown(NotFound):
    """No such upload session in this repository, or it has expired."""


class AccountUnknown(NotFound):
    """No user, robot, node or team of that name."""

    def __init__(self, name: str, kind: str = "user") -> None:
        super().__init__(f"there is no {kind} {name[:80]!r}")


class Conflict(RegistryError):
    """The thing is here, but not in a state that allows this."""


class UploadOutOfOrder(Conflict):
    """A chunk that does not start where the last accepted one ended; the session goes on."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"chunk out of order: the next byte expected is {offset}")
        self.offset = offset


class BlobInUse(Conflict):
    """A manifest of the repository still refers to the blob."""


class Unauthenticated(RegistryError):
    """Credentials that prove nothing: unknown, wrong, expired, revoked; or none at all."""


class Forbidden(RegistryError):
    """What this server will not do, for this caller or for anyone."""


class Denied(Forbidden):
    """The caller has not the right. Says nothing about whether the thing is here."""


class TagImmutable(Forbidden):
    """A tag that is made once and then neither moved nor, but by who manages it, deleted."""


class QuotaExceeded(Forbidden):
    """More bytes than a namespace may have; none of them is kept."""

    def __init__(self, namespace: str, size: int, used: int, wanted: int) -> None:
        super().__init__(
            f"the quota of {namespace} is {size} bytes: {used} are used, {wanted} more do not fit"
        )
        self.namespace = namespace


class Unsupported(RegistryError):
    """An operation this server does not offer."""


class Unavailable(RegistryError):
    """Not now: no worker, a full queue, a busy lock. `retry_after_s` says when to ask again."""

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooOften(Unavailable):
    """This caller has asked, or failed, too often; `retry_after_s` says when it may again."""


class WorkerFailed(RegistryError):
    """A worker did not do what it was asked; the message is the engine's own where it has one."""


class CannotRun(WorkerFailed):
    """The worker can never run this model: no engine, a foreign file, too little memory."""


class WorkerLost(WorkerFailed):
    """The worker or the model's runner went away. Another may be asked if nothing was sent yet."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or RUNNER_STOPPED)


class StorageFull(RegistryError):
    """No space left for the bytes; none of them is kept."""


class OperationFailed(RegistryError):
    """Work that was begun and cannot be finished; the message says why."""


class CheckpointInvalid(OperationFailed):
    """A checkpoint that cannot be converted; the message names the file, the key or the tensor."""


class UpstreamFailed(RegistryError):
    """Another registry answered with something we cannot use."""


class UpstreamUnknown(UpstreamFailed):
    """The other registry does not have the thing."""


class UpstreamRefused(UpstreamFailed):
    """The other registry will not let us, or its address is one we do not go to."""


class UpstreamBusy(UpstreamFailed):
    """The other registry cannot answer now; `retry_after_s` is its own wish, 0 if it has none."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamUnreachable(UpstreamFailed):
    """No connection to the other registry, or one that broke too often."""
