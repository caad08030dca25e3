"""Web archives: WARC 1.1 (ISO 28500:2017), a gzip member for each record, and the CDXJ that says where they are.

A row has a request and a response record for each message that was kept of it, and one metadata record: its record as
in JSON Lines. What another try of a row gives is appended; its last metadata record counts. A response is as it came,
after the transfer coding: where its head said otherwise, those lines are called ``X-Archive-Orig-…``, and
``Content-Length`` is that of what is stored. Its content codings are left on.

Laws: each record is a member of its own, so that the file can be cut between any two (6). Request records have no
credential, and since answers may set cookies the file is for its owner alone (7). The index is sorted on the disk (3).

A record is a few lines and its block, and put together here; fastwarc reads them, for the index.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import sqlite3
import tempfile
import time
from base64 import b32encode
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha1
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from fetcher import __version__
from fetcher.compression import Compressor, packing_of_path
from fetcher.errors import ConfigError, InvalidURL, SinkError, missing_extra
from fetcher.files import PRIVATE, create_like, move, sync, write_all
from fetcher.model import Message, Outcome, Page
from fetcher.sinks.durable import DurableFile
from fetcher.sinks.job_output import Batch, KeptRow, Mark, Rewrite
from fetcher.sinks.layout import DEFAULT_LAYOUT, Layout, RecordMaker, to_json
from fetcher.sinks.opening import already_exists, check_path, display_name, is_special, write_error
from fetcher.sinks.stream import StreamSink
from fetcher.urls import DEFAULT_PORTS, parse

__all__ = ["WARCOutput", "WARCSink", "check_archive", "index_of", "surt_of"]

CONFORMS_TO = "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
NOT_MODIFIED = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
INDEX_BLOCK_BYTES = 256 * 1024
MAX_HEAD_BYTES = 128 * 1024  # of an answer: what is kept of one is less
BODILESS = (b"204", b"304")

_SHA1 = sha1(usedforsecurity=False)  # each digest begins as a copy: to ask OpenSSL for one takes six times as long
_FRAMING = re.compile(rb"(?im)^(transfer-encoding|content-length)[ \t]*:[ \t]*([^\r\n]*)")
_STATUS = re.compile(rb"(?i)HTTP/[0-9.]+[ \t]+([0-9]{3})")
_CONTENT_TYPE = re.compile(rb"(?im)^content-type[ \t]*:[ \t]*([^\r\n;]+)")
_WWW = re.compile(r"^www[0-9]*\.")
_URI_CHARACTERS = "!#$%&'()*+,-./:;=?@[]_~"


def check_archive(path: str, *, fresh: bool = True) -> None:
    """Raise ``ConfigError`` where there can be no archive at ``path``: its library or its suffix, an index that is there.

    ``fresh`` overwrites that. Raises ``SinkError`` where none can be written.
    """
    if packing_of_path(path) not in (None, "gzip"):
        raise ConfigError(f"{path}: a WARC is compressed by gzip: name it .warc.gz")
    if importlib.util.find_spec("fastwarc") is None:
        raise ConfigError(f"{display_name(path)}: {missing_extra('fastwarc', 'warc')}")
    if not fresh and not is_special(path):
        check_path(index_of(path), fresh=False)


def index_of(path: str) -> str:
    """Return where the CDXJ of the archive at ``path`` is: ``pages.cdxj`` beside ``pages.warc.gz``."""
    suffix = ".warc.gz"
    return f"{path[: -len(suffix)] if path.lower().endswith(suffix) else path}.cdxj"


class ArchivedResponse(NamedTuple):
    """What the index says of a response: its URL, when it was asked for, its head, the digest of its payload, its place.

    ``start`` and ``end`` are bytes from the beginning of the row's records, or of the archive.
    """

    url: str
    sent_at: float
    head: bytes
    digest: str
    start: int
    end: int


class WARCSink(StreamSink):
    """Write each outcome as records of a WARC. Raises ``ConfigError`` where the library is missing.

    The messages are there where ``Config.keep_messages`` asks for them; without them a row has its metadata alone.
    """

    packs_itself = True
    mode = PRIVATE

    def __init__(self, path: str | os.PathLike[str], layout: Layout = DEFAULT_LAYOUT, *, fresh: bool = False) -> None:
        check_archive(os.fspath(path))
        super().__init__(path, layout, fresh=fresh)
        self.indexed = 0  # bytes of the file that its index is about
        self.answers: deque[list[ArchivedResponse]] | None = (
            None  # where somebody notes them: those of each row that is encoded
        )
        self._fresh = fresh
        columns = [name for name in layout.columns if name != "item"]  # a page is here as it is, all items together
        self._record = RecordMaker(columns).record

    async def __aenter__(self) -> WARCSink:
        if not is_special(self.output.path):
            _take_index_place(self.output.path, fresh=self._fresh)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if kind is None and not is_special(self.output.path):
            await asyncio.to_thread(self._index)

    def _index(self) -> None:
        folder = os.path.dirname(os.path.realpath(self.output.path))
        try:
            with tempfile.TemporaryDirectory(prefix=".index.", dir=folder) as work:
                IndexLines(self.output.path, os.path.join(work, "lines"), os.path.getsize(self.output.path)).write()
        except OSError as error:
            raise write_error(index_of(self.output.path), "cannot write", error) from error

    def encode(self, outcome: Outcome) -> bytes:
        """Return the records of a row, compressed."""
        date, links = "", ""
        members: list[bytes] = []
        answers: list[ArchivedResponse] = []
        last = outcome.messages[-1] if outcome.messages else None
        for message in outcome.messages:
            date = _date(message.sent_at)
            if message is last and _is_revisit(outcome, message):
                name, digest = _add_revisit(message, date, members, known=_date(outcome.fetched_at)), ""
            else:
                name, digest = _add_records(message, date, members)
            links += f"WARC-Concurrent-To: {name}\r\n"
            if self.answers is not None and digest:
                end = sum(map(len, members))
                answers.append(
                    ArchivedResponse(
                        message.url, message.sent_at, message.response, digest, end - len(members[-1]), end
                    )
                )
        target = outcome.messages[0].url if outcome.messages else _uri(outcome.url or outcome.request.url)
        headers = f"WARC-Target-URI: {target}\r\n{links}Content-Type: application/json\r\n"
        made = date or _date(outcome.fetched_at)
        members.append(_member("metadata", _name(), made, headers, to_json(self._record(outcome))))
        if self.answers is not None:
            self.answers.append(answers)
        return b"".join(members)

    def preamble(self, *, empty: bool = False) -> bytes:  # noqa: ARG002  # an archive without a page has it too
        """Return the warcinfo record."""
        block = f"software: fetcher/{__version__}\r\nformat: WARC File Format 1.1\r\nconformsTo: {CONFORMS_TO}\r\n"
        filename = quote(os.path.basename(self.output.path))
        headers = f"WARC-Filename: {filename}\r\nContent-Type: application/warc-fields\r\n"
        return _member("warcinfo", _name(), _date(0), headers, block.encode())

    def state(self) -> str:
        """Return how much of the file its index is about."""
        return f"{self.indexed}" if self.indexed else ""

    def restore(self, state: str) -> None:
        """Take that. Raises ``ValueError`` for anything else."""
        self.indexed = int(state) if state else 0

    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002  # of other formats
        """Raise: nothing is ever taken out of an archive."""
        raise RuntimeError(f"{self.output.path}: rows are added to an archive, not taken out of it")


def _add_records(message: Message, date: str, members: list[bytes]) -> tuple[str, str]:
    """Append the records of a message to ``members``; return the name of the response and the digest of its payload.

    Without an answer they are the name of the request, and nothing.
    """
    target = f"WARC-Target-URI: {message.url}\r\n"
    if message.address is not None:
        target += f"WARC-IP-Address: {message.address}\r\n"
    asked = _name()
    if not message.response:
        headers = f"{target}Content-Type: application/http;msgtype=request\r\n"
        members.append(_member("request", asked, date, headers, message.request))
        return asked, ""
    name = _name()
    headers = f"{target}WARC-Concurrent-To: {name}\r\nContent-Type: application/http;msgtype=request\r\n"
    members.append(_member("request", asked, date, headers, message.request))
    digest = _digest(message.body)
    truncated = f"WARC-Truncated: {message.truncated}\r\n" if message.truncated is not None else ""
    headers = (
        f"{target}WARC-Concurrent-To: {asked}\r\nContent-Type: application/http;msgtype=response\r\n"
        f"WARC-Payload-Digest: {digest}\r\n{truncated}"
    )
    members.append(_member("response", name, date, headers, _stored_head(message), message.body))
    return name, digest


def _is_revisit(outcome: Outcome, message: Message) -> bool:
    """Whether a message is the 304 by which a page of an earlier run still stands."""
    return isinstance(outcome, Page) and outcome.change == "unchanged" and _status_of(message) == b"304"


def _status_of(message: Message) -> bytes | None:
    found = _STATUS.match(message.response.lstrip(b"\r\n"))
    return None if found is None else found[1]


def _add_revisit(message: Message, date: str, members: list[bytes], *, known: str) -> str:
    """Append the records of a message that says that what was ``known`` at that date still stands (6.7 of the standard).

    Return the name of the second.
    """
    target = f"WARC-Target-URI: {message.url}\r\n"
    if message.address is not None:
        target += f"WARC-IP-Address: {message.address}\r\n"
    asked, name = _name(), _name()
    headers = f"{target}WARC-Concurrent-To: {name}\r\nContent-Type: application/http;msgtype=request\r\n"
    members.append(_member("request", asked, date, headers, message.request))
    headers = (
        f"{target}WARC-Concurrent-To: {asked}\r\nContent-Type: application/http;msgtype=response\r\n"
        f"WARC-Profile: {NOT_MODIFIED}\r\nWARC-Refers-To-Target-URI: {message.url}\r\nWARC-Refers-To-Date: {known}\r\n"
    )
    members.append(_member("revisit", name, date, headers, _stored_head(message)))
    return name


def _stored_head(message: Message) -> bytes:
    """Return the head of an answer with the length that its body has here; that to a HEAD as it came."""
    head = message.response.lstrip(b"\r\n")
    if not head.endswith((b"\n\r\n", b"\n\n")):
        head += b"\r\n"
    size = len(message.body)
    found = _FRAMING.findall(head)
    if not found or message.request.startswith(b"HEAD "):
        return head
    if len(found) == 1 and found[0][0].lower() == b"content-length" and found[0][1].rstrip() == b"%d" % size:
        return head
    head = _FRAMING.sub(lambda line: b"X-Archive-Orig-" + line[0], head)
    if not size and head.split(None, 2)[1:2][0] in BODILESS:
        return head
    end = len(head) - (2 if head.endswith(b"\r\n") else 1)
    return b"%bContent-Length: %d\r\n%b" % (head[:end], size, head[end:])


def _member(kind: str, name: str, date: str, headers: str, *pieces: bytes) -> bytes:
    """Return one record, compressed; its block is given in pieces, so that a large one is not copied.

    A body has its payload's digest in ``headers``: one of the whole block would take as long again.
    """
    block = "" if len(pieces) > 1 else f"WARC-Block-Digest: {_digest(*pieces)}\r\n"
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Record-ID: {name}\r\nWARC-Date: {date}\r\n{headers}"
        f"{block}Content-Length: {sum(map(len, pieces))}\r\n\r\n"
    )
    stream = Compressor("gzip")
    if len(pieces) == 1:
        return stream.update(b"".join((head.encode(), *pieces, b"\r\n\r\n"))) + stream.end()
    return b"".join((stream.update(head.encode()), *map(stream.update, (*pieces, b"\r\n\r\n")), stream.end()))


def _name() -> str:
    """Return a new record's name: a random UUID (RFC 9562, 5.4), for a fifth of what the library's takes."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"<urn:uuid:{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}>"


def _digest(*pieces: bytes) -> str:
    made = _SHA1.copy()
    for piece in pieces:
        made.update(piece)
    return f"sha1:{b32encode(made.digest()).decode()}"


def _date(moment: float) -> str:
    """Return seconds since the epoch, 0 for now, as a WARC-Date to the microsecond."""
    return datetime.fromtimestamp(moment or time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _uri(listed: str) -> str:
    """Return a URI for what stands in a list: it may be none."""
    try:
        return parse(listed).wire
    except InvalidURL:
        return quote(listed.encode("utf-8", "replace"), safe=_URI_CHARACTERS)


class WARCOutput(DurableFile):
    """The archive of a job. A row that is tried again keeps its records, and its new ones are appended.

    ``work`` is a folder for what the index will say: of this run's answers that is noted as they come, and of those
    before it the archive is asked. Several may share what encodes, and its ``answers``.
    """

    def __init__(
        self, path: str, sink: WARCSink, *, work: str, answers: deque[list[ArchivedResponse]] | None = None
    ) -> None:
        super().__init__(path, sink)
        self._warc = sink
        self._work = work
        self._lines: IndexLines | None = None
        self._answers = deque[list[ArchivedResponse]]() if answers is None else answers
        sink.answers = self._answers

    def create(self, *, fresh: bool = False) -> None:
        """Make the file; of its index ``fresh`` removes one that is there. Raises as ``DurableFile`` does."""
        _take_index_place(self.path, fresh=fresh)
        super().create(fresh=fresh)

    def append(self, chunks: list[bytes]) -> Mark:
        """Write the records of a batch of rows, and note where its answers are."""
        start = self._mark.position
        mark = super().append(chunks)
        if self._lines is None:
            self._lines = IndexLines(self.path, self._work, start)
        at = mark.position - sum(map(len, chunks))
        found: list[ArchivedResponse] = []
        for chunk in chunks:
            answers = self._answers.popleft()
            found += [answer._replace(start=at + answer.start, end=at + answer.end) for answer in answers]
            at += len(chunk)
        self._lines.add(found)
        return mark

    def complete(self) -> Mark:
        """Make the file what it is without a row, where there was none, and write its index anew. Raises ``SinkError``."""
        mark = super().complete()
        if self._warc.indexed != mark.position or not os.path.exists(index_of(self.path)):
            lines = self._lines or IndexLines(self.path, self._work, mark.position)
            self._lines = None
            lines.write()
            self._warc.indexed = mark.position
        self._mark = msgspec.structs.replace(mark, state=self._warc.state())
        return self._mark

    def discard(self) -> None:
        """Close the file as it is, and forget what was noted."""
        super().discard()
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()

    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:  # noqa: ARG002  # nothing is taken out
        """Return the file as it is: the records of a row that is tried again stay."""
        return Rewrite(self._mark, list(batches or ()))

    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:  # noqa: ARG002  # there is none
        """Go on at ``mark``."""
        self.discard()
        self.resume(mark, clean=True)


def _take_index_place(path: str, *, fresh: bool) -> None:
    """See that an index can be put beside a new archive: one that is there, of another, only goes where that is asked for."""
    index = index_of(path)
    if os.path.lexists(index):
        if not fresh:
            raise already_exists(index)
        try:
            os.unlink(index)
        except OSError as error:
            raise write_error(index, "cannot be replaced", error) from error


# The index


class IndexLines:
    """The lines of the index of the archive at ``path``, sorted in a file in the folder ``work``, which is gone in the end.

    What stands from the byte ``start`` on is told by ``add``, what is before is read. Everything raises ``SinkError``.
    """

    def __init__(self, path: str, work: str, start: int) -> None:
        self._path = path
        self._index = index_of(path)
        self._filename = os.path.basename(path)
        self._work = work
        self._start = start
        with self._explained():
            shutil.rmtree(work, ignore_errors=True)
            os.makedirs(work, mode=0o700)
            self._table = sqlite3.connect(os.path.join(work, "index"), isolation_level=None, check_same_thread=False)
            self._table.execute("PRAGMA journal_mode=OFF")
            self._table.execute("PRAGMA synchronous=OFF")
            self._table.execute("CREATE TABLE lines (key TEXT, timestamp TEXT, said BLOB)")

    def add(self, answers: Iterable[ArchivedResponse]) -> None:
        """Take what there is in a batch."""
        with self._explained():
            self._table.execute("BEGIN")
            self._table.executemany("INSERT INTO lines VALUES (?, ?, ?)", map(self._line, answers))
            self._table.execute("COMMIT")

    def write(self) -> None:
        """Write the index, and close."""
        made = f"{self._index}.new"
        try:
            self.add(_answers_of(self._path, self._start))
            with self._explained():
                descriptor = create_like(made, os.stat(self._path))
                try:
                    self._write(descriptor)
                    sync(descriptor)
                finally:
                    os.close(descriptor)
                move(made, self._index)
        finally:
            self.close()

    def close(self) -> None:
        """Remove what is kept of the lines. Harmless twice."""
        with contextlib.suppress(sqlite3.Error):
            self._table.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _line(self, answer: ArchivedResponse) -> tuple[str, str, bytes]:
        status, kind = _STATUS.match(answer.head.lstrip()), _CONTENT_TYPE.search(answer.head)
        said = {
            "url": answer.url,
            "mime": kind[1].rstrip().decode("latin-1").lower() if kind is not None else "unk",
            "status": status[1].decode() if status is not None else "-",
            "digest": answer.digest,
            "length": str(answer.end - answer.start),
            "offset": str(answer.start),
            "filename": self._filename,
        }
        moment = time.gmtime(answer.sent_at)
        return surt_of(answer.url), time.strftime("%Y%m%d%H%M%S", moment), to_json(said)

    def _write(self, descriptor: int) -> None:
        block = bytearray()
        for key, timestamp, said in self._table.execute("SELECT * FROM lines ORDER BY key, timestamp, rowid"):
            block += b"%b %b %b\n" % (key.encode(), timestamp.encode(), said)
            if len(block) >= INDEX_BLOCK_BYTES:
                write_all(descriptor, bytes(block))
                block.clear()
        write_all(descriptor, bytes(block))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SinkError(f"{self._index}: cannot be sorted in {self._work}: {error}") from error
        except OSError as error:
            raise write_error(self._index, "cannot write", error) from error


def _answers_of(path: str, size: int) -> Iterator[ArchivedResponse]:
    """Yield the responses in the first ``size`` bytes of the archive. Raises ``SinkError`` where it cannot be read."""
    if not size:
        return
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    found: ArchivedResponse | None = None
    try:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.any_type, parse_http=False):
                if found is not None:
                    yield found._replace(end=record.stream_pos)
                    found = None
                if record.stream_pos >= size:
                    break
                if record.record_type == WarcRecordType.response:
                    said, head = record.headers, record.reader.read(MAX_HEAD_BYTES).partition(b"\r\n\r\n")[0]
                    moment = record.record_date.timestamp()
                    url, digest = said["WARC-Target-URI"], said["WARC-Payload-Digest"]
                    found = ArchivedResponse(url, moment, head, digest, record.stream_pos, 0)
    except OSError as error:  # what is damaged in it, too
        raise SinkError(f"{path}: cannot be read again, for its index: {error.strerror or error}") from error
    if found is not None:
        yield found._replace(end=size)


def surt_of(url: str) -> str:
    """Return the key of a URL by which archives sort: the host from behind, all in lower case, arguments in order.

    ``com,example)/a?b=1&c=2``: what the ``surt`` library of the Internet Archive returns, but for session ids, which
    stay.
    """
    target = parse(url)
    rest = target.wire[target.wire.index("/", len(target.scheme) + 3) :].lower()
    path, _, query = rest.partition("?")
    path = re.sub("/{2,}", "/", path)
    path = path.rstrip("/") or "/"
    host = target.host.strip("[]")
    if host == target.host:  # no IPv6 address
        host = ",".join(reversed(_WWW.sub("", host, count=1).split(".")))
    port = "" if target.port == DEFAULT_PORTS[target.scheme] else f":{target.port}"
    arguments = "&".join(sorted(query.split("&"))) if query else ""
    return f"{host}{port}){path}{'?' if arguments else ''}{arguments}"
