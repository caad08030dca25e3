"""What an error of a store means: whether it may pass, and what is said of it in one line.

Law 7: the text of an error may quote a request, so that of the library is never passed on: the codes that stores have
are.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["code_of", "is_conflict", "is_missing", "is_of_store", "is_transient", "is_unknown", "reason_of"]

_TRANSIENT_ERRNOS = frozenset({
    errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EPIPE, errno.ECONNABORTED, errno.EAGAIN,
})  # fmt: skip

_TRANSIENT_NAMES = frozenset({
    # botocore
    "HTTPClientError", "ConnectionError", "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError",
    "ConnectionClosedError", "ResponseStreamingError", "IncompleteReadError", "ResponseParserError",
    # aiohttp, fsspec
    "ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "FSTimeoutError",
    # google-auth, azure-core
    "TransportError", "RefreshError", "ServiceRequestError", "ServiceResponseError",
})  # fmt: skip

_TRANSIENT_CODES = frozenset({
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "ServerBusy", "OperationTimedOut",
    "BandwidthLimitExceeded", "500", "502", "503", "504", "429", "408",
})  # fmt: skip

_CONFLICTS = frozenset({
    "PreconditionFailed", "ConditionalRequestConflict", "412", "conditionNotMet", "BlobAlreadyExists", "ConditionNotMet",
})  # fmt: skip

_UNKNOWN = frozenset({"NotImplemented", "501"})

_FULL = frozenset({
    "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "EntityTooLarge", "StorageFull", "507", "AccountProblem",
    "InsufficientCapacity", "XMinioAdminBucketQuotaExceeded", "TooManyEntities",
})  # fmt: skip

_NO_CREDENTIALS = frozenset({
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError",
    "DefaultCredentialsError", "CredentialUnavailableError", "CredentialRetrievalError", "SSOTokenLoadError",
})  # fmt: skip

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}", re.ASCII)


_LIBRARIES = frozenset({
    "aiobotocore", "aiohttp", "adlfs", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs",
})  # fmt: skip


def is_of_store(error: BaseException) -> bool:
    """Tell an error of the store, or of the way there, from one that is a bug."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES


def is_transient(error: BaseException) -> bool:
    """Tell whether the same call may succeed later."""
    if is_conflict(error) or is_missing(error) or isinstance(error, PermissionError):
        return False
    code = code_of(error)
    if code is not None:
        return code in _TRANSIENT_CODES
    for each in _causes(error):
        if isinstance(each, TimeoutError | ConnectionError):
            return True
        if not _TRANSIENT_NAMES.isdisjoint(kind.__name__ for kind in type(each).__mro__):
            return True
        if isinstance(each, OSError) and each.errno in _TRANSIENT_ERRNOS:
            return True
    return False


def is_conflict(error: BaseException) -> bool:
    """Tell whether an object that was to be made is there."""
    return isinstance(error, FileExistsError) or code_of(error) in _CONFLICTS


def is_unknown(error: BaseException) -> bool:
    """Tell whether the store does not know what it was asked for."""
    return code_of(error) in _UNKNOWN


def is_missing(error: BaseException) -> bool:
    """Tell whether an object, or its bucket, is not there."""
    return isinstance(error, FileNotFoundError)


def code_of(error: BaseException) -> str | None:
    """Return the code that the store gave, if it gave one."""
    for each in _causes(error):
        response: Any = getattr(each, "response", None)
        found: Any = None
        if isinstance(response, dict):
            found = response.get("Error", {}).get("Code")
        if found is None:
            found = getattr(each, "error_code", None) or getattr(each, "code", None)
        if isinstance(found, str | int) and _CODE.fullmatch(str(found)):
            return str(found)
    return None


def reason_of(error: BaseException, bucket: str, *, writing: bool) -> str:
    """Return in half a line why the store did not do what it was asked for."""
    code = code_of(error)
    told = f" ({code})" if code else f" ({type(error).__name__})"
    names = {kind.__name__ for each in _causes(error) for kind in type(each).__mro__}
    if names & _NO_CREDENTIALS:
        return f"no credentials were found{told}: give them as the store's own tools find them, in the environment or a profile"
    if code in _FULL or any(isinstance(each, OSError) and each.errno == errno.ENOSPC for each in _causes(error)):
        return f"the store is full, or its quota is used up{told}: make room"
    if isinstance(error, PermissionError):
        what = "write to" if writing else "read"
        return f"no permission to {what} the bucket {bucket}{told}: look at the credentials and the bucket's policy"
    if code == "NoSuchBucket" or (is_missing(error) and writing):
        return f"there is no bucket {bucket}{told}: make it, or name another"
    if is_missing(error):
        return "no such object"
    if is_transient(error):
        return f"the connection to the store is lost{told}"
    return f"the store refused{told}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
