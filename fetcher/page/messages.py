"""What a worker process and its owner say to each other: messages of msgpack, each with its length before it.

Law 7: nothing is pickled, so that a worker which a hostile page controls can send messages and do no more; one of
another shape is refused. Law 3: so is one larger than ``MAX_MESSAGE_BYTES``.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from fetcher.config import Content
from fetcher.model import Response
from fetcher.page.found_links import LinkSearch
from fetcher.page.parse import Reading
from fetcher.page.select import Selection

__all__ = [
    "MAX_MESSAGE_BYTES",
    "OUT_OF_MEMORY",
    "START_SECONDS",
    "STOP_SECONDS",
    "Answer",
    "MessageBuffer",
    "NotPlain",
    "ParseFailed",
    "ParseTask",
    "WorkerFull",
    "WorkerReady",
    "WorkerRefused",
    "WorkerSettings",
    "encode",
    "encode_response",
    "is_plain",
    "response_of",
]

OUT_OF_MEMORY = "out_of_memory"
"""What stands for a ``MemoryError`` in a ``ParseFailed``: it is no page's fault, and so no code of a record."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # of an answer
START_SECONDS = 60.0  # that an extractor's module may take to be imported
STOP_SECONDS = 3.0  # that a process may take to end once its input has
_LENGTH = struct.Struct("!I")
_SCALARS = (str, int, float, bool, type(None), bytes)


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker is told first: how pages are to be read, and where the extractor is found.

    ``extract`` is ``module:name``, ``path`` and ``folder`` are the owner's ``sys.path`` and working directory,
    ``limit`` is seconds a page may take, ``exact`` says that data is to come back of the very same types, ``columns``
    are those of a record that are wanted and need a page's tree, ``content`` is what is read into columns of its own.
    """

    select: Selection | None
    preview: int
    extract: str | None
    path: list[bytes]
    folder: bytes
    limit: float
    exact: bool
    columns: frozenset[str]
    content: Content | None = None


class ParseTask(msgspec.Struct, frozen=True, array_like=True):
    """A response to be read: itself, or its head as JSON with the body beside it; and which links are looked for."""

    response: Response | str
    body: bytes = b""
    search: LinkSearch | None = None


class WorkerReady(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The worker can be given pages."""


class WorkerFull(msgspec.Struct, frozen=True, array_like=True, tag="full"):
    """The worker's memory has grown by more than it should: it goes on, but another should take its place."""


class WorkerRefused(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The worker can never be given pages, for this reason."""

    reason: str


class ParseFailed(msgspec.Struct, frozen=True, array_like=True, tag="trouble"):
    """A ``ParseError`` in place of a reading, and what had been read before it."""

    code: str
    message: str
    reading: Reading | None = None


class NotPlain(msgspec.Struct, frozen=True, array_like=True, tag="not plain"):
    """A reading without its data, which cannot cross over as it is, and why."""

    reading: Reading
    reason: str


Answer: TypeAlias = Reading | NotPlain | ParseFailed | WorkerFull | WorkerReady | WorkerRefused

_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytearray:
    """Return a message with its length before it. Raises what msgspec raises for values it cannot encode."""
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(message, frame, _LENGTH.size)
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return frame


def encode_response(response: Response, search: LinkSearch | None = None) -> bytearray:
    """Return a response as an ``ParseTask``, framed; without its tag, and without fields that nothing can carry."""
    if response.request.tag is not None:
        response = msgspec.structs.replace(response, request=msgspec.structs.replace(response.request, tag=None))
    try:
        _expect_names(response.request.fields)
        return encode(ParseTask(response, search=search))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return encode(ParseTask(_as_json(response), response.body, search))


def response_of(task: ParseTask) -> Response:
    """Return the response that ``encode_response`` was given."""
    if isinstance(task.response, Response):
        return task.response
    head = msgspec.convert(json.loads(task.response), Response)
    return msgspec.structs.replace(head, body=task.body)


def is_plain(value: Any, *, exact: bool) -> bool:
    """Tell whether a value comes out of msgpack as it went in.

    Without ``exact`` it need not be of the same type: a tuple may become a list, a ``defaultdict`` a ``dict``.
    """
    if type(value) in _SCALARS or (not exact and isinstance(value, _SCALARS)):
        return True
    if type(value) is list or (not exact and isinstance(value, list | tuple)):
        return all(is_plain(item, exact=exact) for item in value)
    if type(value) is dict or (not exact and isinstance(value, dict)):
        plain = all(type(key) in _SCALARS or (not exact and isinstance(key, _SCALARS)) for key in value)
        return plain and all(is_plain(item, exact=exact) for item in value.values())
    return False


def _as_json(response: Response) -> str:
    """Return the head of a response; the escapes of JSON keep lone surrogates, which headers and URLs may have."""
    request = response.request
    fields = None if request.fields is None else dict(_carried(request.fields))
    head = msgspec.structs.replace(response, request=msgspec.structs.replace(request, fields=fields), body=b"")
    return json.dumps(msgspec.to_builtins(head))


def _carried(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            _expect_names((name,))
            json.dumps(value)
            yield name, value


def _expect_names(fields: Iterable[Any] | None) -> None:
    if fields is not None and not all(isinstance(name, str) for name in fields):
        raise TypeError("a field's name is no text")


class MessageBuffer:
    """Cuts a stream of bytes into the messages in it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in ``data`` and return each message that is whole now. Raises ``ValueError`` for one too large."""
        self._rest += data
        begin = 0
        while len(self._rest) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, begin)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = begin + _LENGTH.size + length
            if end > len(self._rest):
                break
            yield bytes(memoryview(self._rest)[begin + _LENGTH.size : end])
            begin = end
        del self._rest[:begin]
