"""The table domain error -> HTTP status."""

from registry.core import errors
from registry.core.errors import RegistryError

STATUS: dict[type[RegistryError], int] = {
    errors.RegistryError: 500,
    errors.RequestInvalid: 400,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.UploadOutOfOrder: 416,
    errors.BlobInUse: 405,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.TooOften: 429,
    errors.WorkerFailed: 500,
    errors.StorageFull: 507,
    errors.OperationFailed: 500,
    errors.UpstreamFailed: 500,
}


def status_of(error: RegistryError) -> int:
    """The status of an error: its own, or that of its nearest ancestor in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def headers_of(error: RegistryError) -> dict[str, str]:
    """Headers that an error's answer has besides."""
    if isinstance(error, errors.Unavailable):
        return {"Retry-After": str(error.retry_after_s)}
    return {}
