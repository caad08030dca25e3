"""Files of ours that lay on a disk are read as the web is: whatever is in them, there is an answer or an error of ours.

The ledger, the notes in it, the crash marker and the configuration, against hypothesis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fetcher import Config, Fetcher, Request, Response
from fetcher.cli import settings as cli_settings
from fetcher.cli.settings import make_config
from fetcher.config import OPTIONS, read_toml
from fetcher.errors import ConfigError, FetcherError, LedgerError, SinkError, StatusError
from fetcher.hosts.state import HostReport
from fetcher.job.crash_marker import CrashMarker
from fetcher.job.host_memory import delays_of, pauses_of, troubled_of
from fetcher.job.identity import JobIdentity
from fetcher.job.job import Job
from fetcher.job.report import report
from fetcher.job.resume import ResumeFilter
from fetcher.job.schema import TABLES
from fetcher.sinks import Layout, Mark, open_job_output

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
BYTES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
CELLS = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=30) | st.binary(max_size=30)
    | BYTES
)  # fmt: skip
URLS = [f"http://127.0.0.1/{name}" for name in "abcd"]


def columns() -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for table in TABLES:
            db.execute(table)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in db.execute(f"PRAGMA table_info({table})")]


async def transport(request: Request) -> Response:
    if request.url.endswith("c"):
        raise StatusError(404, "gone")
    return Response(request, request.url, 200, (("content-type", "text/html"),), b"<title>t</title>")


async def crawl(folder: Path, urls: list[str], **job: Any) -> None:
    config = Config.of(retries=0, robots=False)
    async with asyncio.timeout(60), Fetcher(config, transport=transport) as fetcher:
        async with Job(fetcher, folder / "a.csv", folder / "b.jsonl.gz", **job) as running:
            await running.run(urls)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with two outputs, some batches and a failure, not all of it done."""
    folder = tmp_path_factory.mktemp("jobs") / "template"
    folder.mkdir()
    for number in (2, 3):
        asyncio.run(crawl(folder, URLS[:number]))
    return folder


def taken_up(folder: Path, **job: Any) -> None:
    """Look at a job and go on with it; it must be told in our words where that cannot be."""
    with contextlib.suppress(LedgerError):
        report(f"{folder}/a.csv.job")
    try:
        with contextlib.suppress(FetcherError):
            asyncio.run(crawl(folder, URLS, **job))
    finally:
        shutil.rmtree(folder)


@few
@given(
    st.sampled_from(columns()),
    st.tuples(CELLS, st.booleans()),
    st.sampled_from([{}, {"retry": ["failed"]}, {"verify": True}]),
)
@example(("outputs", "id"), (1, True), {})
def test_whatever_value_is_in_a_ledger(
    template: Path, tmp_path: Path, place: tuple[str, str], cell: tuple[Any, bool], job: dict[str, Any]
) -> None:
    folder = tmp_path / "job"
    shutil.copytree(template, folder)
    (table, column), (value, all_rows) = place, cell
    with contextlib.closing(sqlite3.connect(folder / "a.csv.job/ledger.sqlite", isolation_level=None)) as db:
        one = "" if all_rows else f" WHERE {column} = (SELECT {column} FROM {table} LIMIT 1)"
        with contextlib.suppress(sqlite3.Error):  # what no ledger can hold
            db.execute(f"UPDATE OR REPLACE {table} SET {column} = ?{one}", (value,))
    taken_up(folder, **job)


@few
@given(st.integers(0, 2**20), st.binary(min_size=1, max_size=40), st.booleans())
def test_whatever_bytes_are_in_a_ledger(template: Path, tmp_path: Path, at: int, data: bytes, cut: bool) -> None:
    folder = tmp_path / "job"
    shutil.copytree(template, folder)
    path = folder / "a.csv.job/ledger.sqlite"
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + data + (b"" if cut else whole[at + len(data) :]))
    taken_up(folder)


@few
@given(st.sampled_from(["parked", "delays", "troubled", "unknown"]), BYTES)
def test_whatever_is_noted_of_hosts(template: Path, tmp_path: Path, name: str, note: bytes) -> None:
    folder = tmp_path / "job"
    shutil.copytree(template, folder)
    with contextlib.closing(sqlite3.connect(folder / "a.csv.job/ledger.sqlite", isolation_level=None)) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note {name}", note))
    taken_up(folder)


@settings(max_examples=200, deadline=None)
@given(BYTES | st.none(), BYTES | st.none(), st.floats(0, 1e12), st.floats(0, 1e6))
@example(None, b'{"":-1}', 0.0, 0.0)
def test_notes_are_read_or_refused(parked: bytes | None, delays: bytes | None, now: float, longest: float) -> None:
    with contextlib.suppress(LedgerError):
        pauses = pauses_of(parked, delays, now, longest, path="a")
        assert all(0.0 <= seconds <= longest for seconds in pauses.values())
    with contextlib.suppress(LedgerError):
        assert all(type(delay) is float and delay >= 0 for delay in delays_of(delays, path="a").values())
    with contextlib.suppress(LedgerError):
        assert all(isinstance(host, HostReport) for host in troubled_of(parked, path="a"))


@settings(max_examples=200, deadline=None)
@given(BYTES)
def test_an_identity_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(LedgerError, ConfigError):
        JobIdentity.from_json(data, path="a").check(JobIdentity.from_json(data, path="a"))


@few
@given(st.text(max_size=40) | JSON.map(json.dumps), st.sampled_from(["a.csv", "a.jsonl", "a.txt.gz"]))
def test_what_an_output_must_remember_is_read_or_refused(tmp_path: Path, state: str, name: str) -> None:
    output = open_job_output(tmp_path / name, Layout(), work=f"{tmp_path}/work")
    with contextlib.suppress(SinkError):
        output.resume(Mark(state=state), clean=False)
    output.discard()


@few
@given(st.binary(max_size=24))
def test_any_marker_is_a_row(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "parsing"
    path.write_bytes(data)
    marker = CrashMarker(str(path))
    assert 0 <= marker.suspect < 2**64
    marker.close()
    assert path.read_bytes()[:8] == bytes(8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**53), st.integers(0, 2**32 - 1)), max_size=5), st.integers(0, 5))
def test_any_finished_rows_are_found_or_refused(finished: list[tuple[int, int]], length: int) -> None:
    with contextlib.suppress(FetcherError):
        list(ResumeFilter(iter(sorted(finished))).left([f"http://host/{n}" for n in range(length)]))


# The configuration

KEYS = st.sampled_from(sorted(key.replace("_", "-") for key in (*OPTIONS, *cli_settings.RUN_KEYS)))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["@host a:b", "@host a=b", "@host X: y", "http://u:p@host", "1M", "2xx", "*", "auto", "none", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["per-host", "delay", "*.a.example", "x"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def configured(path: Path) -> None:
    """Read it as the library and as the command do."""
    with contextlib.suppress(ConfigError):
        Config.load(path)
    with contextlib.suppress(ConfigError):
        listed = read_toml(path)
        cli_settings._check(listed, "f: ")
        make_config({key.replace("-", "_"): value for key, value in listed.items()}, ["http://a.example/"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.dictionaries(KEYS | st.text(max_size=8), VALUES, max_size=4))
def test_any_settings_make_a_config_or_a_config_error(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "fetcher.toml"
    lines = [f"{json.dumps(key, ensure_ascii=False)} = {toml(value)}\n" for key, value in values.items()]
    path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))
    configured(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=60) | st.text(alphabet="a=[]{}\"'.#\n1-_ \x00é", max_size=60).map(str.encode))
def test_any_bytes_make_a_config_or_a_config_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fetcher.toml"
    path.write_bytes(data)
    configured(path)


def test_a_configuration_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="cannot read the configuration") as caught:
            read_toml(path)
        assert str(caught.value).startswith(str(path))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no file without an end")
def test_a_configuration_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: over 16 MiB: this is no configuration$"):
        read_toml("/dev/zero")
