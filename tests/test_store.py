"""The store's words and decisions, without one: addresses, what an error means, who is the owner, what stands beside a part."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fetcher.compression import compress
from fetcher.config import Config
from fetcher.errors import ConfigError, JobLocked, SinkError, SourceError
from fetcher.job.job import check_job_outputs
from fetcher.job.paths import folder_for
from fetcher.sinks import open_sink
from fetcher.sinks.job_output import Mark
from fetcher.sinks.store_parts import (
    PartMark,
    PartRow,
    pack_rows,
    part_name,
    part_number,
    read_sidecar,
    write_sidecar,
)
from fetcher.sources.inputs import format_of, is_url_argument
from fetcher.store import is_store_url, parse_address
from fetcher.store.owner import Owner
from fetcher.store.retrying import call
from fetcher.store.store import PIECE_BYTES, ObjectExistsError, Store, tag_of
from fetcher.store.trouble import is_conflict, is_of_store, is_transient, reason_of

# Addresses


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://lab/pages/", "lab", "pages"),
        ("S3://lab", "lab", ""),
        ("gs://lab/a/b c/urls.csv", "lab", "a/b c/urls.csv"),
        ("az://box/x", "box", "x"),
    ],
)
def test_an_address_is_a_bucket_and_a_key(url: str, bucket: str, key: str) -> None:
    address = parse_address(url, SinkError)
    assert (address.scheme, address.bucket, address.key) == (url[:2].lower(), bucket, key)
    assert is_store_url(url)
    assert not is_url_argument(url)


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "s3://lab box/x", "s3://lab?x/y", "s3://lab:9000/x"])
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="names no bucket"):
        parse_address(url, SourceError)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(SinkError, match="credentials do not belong") as raised:
        parse_address("s3://AKIAME:hush@lab/x", SinkError)
    assert "hush" not in str(raised.value)
    assert "AKIAME" not in str(raised.value)


def test_other_schemes_are_no_store() -> None:
    assert not any(map(is_store_url, ("http://a.example/", "ftp://a.example/", "pages/", "s3:/lab", "hdfs://a/b")))
    with pytest.raises(SourceError, match="s3://, gs:// and az://"):
        format_of("ftp://a.example/urls.txt", None)
    assert format_of("s3://lab/urls.csv.gz", None) == "csv"


def test_the_job_of_an_output_in_a_store_lies_here() -> None:
    assert folder_for(["s3://lab/some/pages/"]) == "pages.job"
    assert folder_for(["s3://lab"]) == "lab.job"


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for url, extra in (("s3://lab/x", "s3"), ("gs://lab/x", "gcs"), ("az://lab/x", "azure")):
        with pytest.raises(SinkError) as raised:
            Store(url, SinkError).check_installed()
        assert f"pip install 'fetcher-crawl[{extra}]'" in str(raised.value)


def test_what_does_not_go_together_with_a_store_is_refused() -> None:
    config = Config.of()
    for outputs, form, given, body, word in [
        (["s3://lab/a/", "b.jsonl"], None, config, "none", "only one"),
        (["s3://lab/a/"], "jsonl", Config.of(follow=True), "none", "follow"),
        (["s3://lab/a/"], "jsonl", config, "bodies", "--body inline"),
        (["s3://lab/a/"], None, config, "none", "-f"),
        (["s3://lab/a/"], "sqlite", config, "none", "sqlite is not written to a store"),
        (["s3://lab/a.parquet"], None, config, "none", "folder of parts"),
        (["s3://lab/a/"], "parquet", Config.of(with_=["links"]), "none", "a table of their own|pip install"),
    ]:
        with pytest.raises(ConfigError, match=word):
            check_job_outputs(outputs, form, given, body)
    with pytest.raises(ConfigError, match="job"):
        open_sink("s3://lab/a/", format="jsonl")


# What an error means


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str) -> None:
        super().__init__("it quotes AKIAME and hush")
        self.response = {"Error": {"Code": code}}


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def error_of(module: str, name: str) -> Exception:
    made: Exception = type(name, (Exception,), {"__module__": module})("it quotes AKIAME and hush")
    return made


TROUBLES: list[tuple[BaseException, bool, str]] = [
    (caused(OSError(errno.EBUSY, "x"), ClientError("SlowDown")), True, "connection to the store is lost"),
    (caused(OSError(errno.EINVAL, "x"), ClientError("QuotaExceeded")), False, "full"),
    (caused(OSError(errno.EINVAL, "x"), ClientError("XMinioStorageFull")), False, "full"),
    (caused(PermissionError("hush"), ClientError("AccessDenied")), False, "no permission to write to the bucket lab"),
    (caused(PermissionError("hush"), ClientError("InvalidAccessKeyId")), False, "no permission"),
    (caused(FileNotFoundError("hush"), ClientError("NoSuchBucket")), False, "no bucket lab"),
    (error_of("botocore.exceptions", "EndpointConnectionError"), True, "connection to the store is lost"),
    (error_of("botocore.exceptions", "NoCredentialsError"), False, "no credentials"),
    (error_of("google.auth.exceptions", "DefaultCredentialsError"), False, "no credentials"),
    (error_of("azure.core.exceptions", "ServiceRequestError"), True, "connection to the store is lost"),
    (ConnectionResetError(errno.ECONNRESET, "hush"), True, "connection to the store is lost"),
    (TimeoutError("hush"), True, "connection to the store is lost"),
    (caused(OSError(errno.EINVAL, "x"), ClientError("InvalidArgument")), False, "refused (InvalidArgument)"),
]


@pytest.mark.parametrize(("error", "transient", "words"), TROUBLES)
def test_an_error_is_told_in_one_line_without_its_text(error: BaseException, transient: bool, words: str) -> None:
    assert is_transient(error) is transient
    assert is_of_store(error)
    said = reason_of(error, "lab", writing=True)
    assert words in said
    assert "hush" not in said
    assert "AKIAME" not in said
    assert "\n" not in said


def test_an_object_that_is_there_is_a_conflict_and_not_tried_again() -> None:
    for error in (FileExistsError("x"), caused(OSError(errno.EINVAL, "x"), ClientError("PreconditionFailed"))):
        assert is_conflict(error)
        assert not is_transient(error)


def test_a_bug_is_no_trouble_of_the_store() -> None:
    assert not is_of_store(TypeError("x"))
    assert not is_transient(TypeError("x"))


def test_a_call_is_tried_again_until_it_succeeds_or_there_is_no_patience() -> None:
    told: list[BaseException] = []
    errors = [ConnectionResetError(1, "x"), ConnectionResetError(2, "x")]

    def act() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    closed = threading.Event()
    options: dict[str, Any] = {"longest": 0.01, "closed": closed, "told": told.append}
    assert call(act, is_transient, patience=60.0, **options) == "done"
    assert [error.args[0] for error in told] == [1]
    errors[:] = [ConnectionResetError(3, "x")]
    with pytest.raises(ConnectionResetError):
        call(act, is_transient, patience=0.0, **options)
    errors[:] = [ConnectionResetError(4, "x")]
    closed.set()
    with pytest.raises(ConnectionResetError):
        call(act, is_transient, patience=60.0, **options)


# The owner


class Shelf:
    """A store of one object, in memory."""

    address = "s3://lab/pages"

    def __init__(self) -> None:
        self.object: bytes | None = None
        self.reads = 0
        self.conditional: bool | None = None
        self.honours = True
        self.on_read: Callable[[int], None] = lambda _: None

    def read(self, name: str, *, patient: bool = True) -> bytes | None:
        self.reads += 1
        self.on_read(self.reads)
        return self.object

    def put(self, name: str, data: bytes, *, create: bool = False, patient: bool = True) -> None:
        if create and self.object is not None and self.honours:
            raise ObjectExistsError(name)
        self.object = data

    def remove(self, name: str, *, patient: bool = True) -> None:
        self.object = None


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr("fetcher.store.owner.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("fetcher.store.owner.BEAT_SECONDS", 3_600.0)
    monkeypatch.setattr("fetcher.store.owner.SETTLE_SECONDS", 0.0)
    return Shelf()


def owner(shelf: Shelf, path: Path) -> Owner:
    return Owner(shelf, "_job/owner", str(path))  # type: ignore[arg-type]  # all that an owner asks of a store


def ticking(step: float) -> Callable[[], float]:
    times = iter(range(10_000))
    return lambda: next(times) * step


def test_an_owner_that_lives_refuses_and_one_that_has_ended_does_not(shelf: Shelf, tmp_path: Path) -> None:
    first, second = owner(shelf, tmp_path / "one"), owner(shelf, tmp_path / "two")
    first.claim()

    def beat(reads: int) -> None:
        note = json.loads(shelf.object or b"{}")
        shelf.object = json.dumps({**note, "beat": reads}).encode()

    shelf.on_read = beat
    with pytest.raises(JobLocked, match=f"process {os.getpid()} on "):
        second.claim(clock=ticking(1.0))
    shelf.on_read = lambda _: None
    first.release()
    assert shelf.object is None
    second.claim(clock=ticking(1.0))
    second.verify()
    second.release()


def test_an_owner_that_is_silent_for_long_is_dead(shelf: Shelf, tmp_path: Path) -> None:
    first, second = owner(shelf, tmp_path / "one"), owner(shelf, tmp_path / "two")
    first.claim()
    second.claim(clock=ticking(1.0))
    assert shelf.reads > 25  # it was looked at for half a minute
    with pytest.raises(JobLocked, match="another run goes on"):
        first.verify()
    first.release()
    second.verify()  # what is not ours is not removed
    second.release()


def test_a_run_that_died_here_is_succeeded_at_once(shelf: Shelf, tmp_path: Path) -> None:
    first, second = owner(shelf, tmp_path / "one"), owner(shelf, tmp_path / "one")
    first.claim()
    second.claim(clock=ticking(1.0))
    assert shelf.reads == 2, "each has looked once"
    with pytest.raises(JobLocked):
        first.verify()
    second.release()


def test_an_owner_that_somebody_has_removed_is_put_back(shelf: Shelf, tmp_path: Path) -> None:
    one = owner(shelf, tmp_path / "one")
    one.claim()
    shelf.object = None
    one.verify()
    assert shelf.object is not None
    one.release()


def test_a_store_without_conditions_is_found_out_and_has_one_owner(shelf: Shelf, tmp_path: Path) -> None:
    """The second has looked before the first had written, and writes behind it: the last that has written goes on."""
    first, second = owner(shelf, tmp_path / "one"), owner(shelf, tmp_path / "two")
    shelf.honours = False

    hidden: list[bytes | None] = []

    def looked(_: int) -> None:
        shelf.on_read = lambda _: None
        second.claim(clock=ticking(1.0))
        hidden.append(shelf.object)
        shelf.object = None
        shelf.on_read = settled

    def settled(_: int) -> None:
        shelf.on_read = lambda _: None
        shelf.object = hidden.pop()

    shelf.on_read = looked
    with pytest.raises(JobLocked, match="in the same moment"):
        first.claim(clock=ticking(1.0))
    assert shelf.conditional is False
    first.release()
    second.verify()
    second.release()
    assert shelf.object is None


def test_a_store_with_conditions_is_not_waited_for(shelf: Shelf, tmp_path: Path) -> None:
    one = owner(shelf, tmp_path / "one")
    one.claim()
    assert shelf.conditional is True
    assert shelf.reads == 1
    one.release()


# What stands beside a part

PART = PartMark(17, 1, 3, 2, 99, 5, "ab", Mark(9, 9, 9, '["caf\u00e9"]'))
ROWS = [
    PartRow(1, 2**32 - 1, "ok", 200, 10, 5, "a.example", 1),
    PartRow(2**40, 0, "dns_not_found", None, None, 0, "", 3),
]


def sidecar(path: Path, part: PartMark = PART, rows: list[PartRow] = ROWS) -> bytes:
    write_sidecar(str(path), part, (pack_rows([row]) for row in rows))
    return path.read_bytes()


def read(data: bytes, number: int = 17) -> tuple[PartMark, list[PartRow]]:
    part, rows = read_sidecar(iter([data[:50], data[50:]]), number)
    return part, list(rows)


def test_a_sidecar_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(sidecar(tmp_path / "rows")) == (PART, ROWS)


def damaged() -> Iterator[bytes]:
    head = msgspec.json.encode(PART) + b"\n"
    rows = b"".join(msgspec.json.encode(row) + b"\n" for row in ROWS)
    yield b""
    yield b"not gzip at all"
    yield compress(b"{}\n", "gzip")
    yield compress(b"[" * 100_000 + b"\n", "gzip")
    yield compress(head + rows[:-10], "gzip")
    yield compress(head + rows + rows, "gzip")
    yield compress(head + b'[0,1,"ok",1,1,1,"a",1]\n' * 2, "gzip")
    yield compress(head + b'[1,99999999999,"ok",1,1,1,"a",1]\n' * 2, "gzip")
    yield compress(head + b'[1,1,"ok"]\n' * 2, "gzip")
    yield compress(b"x" * 100_000_000, "gzip")
    yield compress(head + rows, "gzip")[:-9]


@pytest.mark.parametrize("data", list(damaged()), ids=list(map(str, range(11))))
def test_a_sidecar_that_is_none_is_found_out(data: bytes) -> None:
    with pytest.raises(ValueError):  # each says another
        read(data)


def test_a_sidecar_of_another_part_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another part"):
        read(sidecar(tmp_path / "rows"), 18)


def test_names_of_parts_are_read_as_they_are_made() -> None:
    assert part_name(7, ".parquet") == "part-00007.parquet"
    assert part_number("part-00007.parquet", ".parquet") == 7
    assert part_number("part-1234567.warc.gz", ".warc.gz") == 1_234_567
    for name in ("part-7.parquet", "part-00007.parquet.joining", "part-00000.parquet", "part-00007.csv.gz", "x"):
        assert part_number(name, ".parquet") is None


def test_the_tag_of_a_file_is_the_one_of_a_store(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"abc")
    assert tag_of(str(small), "s3") == (3, 891568578, "900150983cd24fb0d6963f7d28e17f72")
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * PIECE_BYTES + 1))
    assert tag_of(str(large), "s3")[2].endswith("-3")
    assert "-" not in tag_of(str(large), "gs")[2]
