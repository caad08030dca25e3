"""What a run tells Prometheus: at a port while it goes on, in a file, and the same sums as the summary's in the end."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fetcher import Fetcher
from fetcher.errors import ConfigError, missing_extra
from fetcher.report.metrics import Metrics, MetricsPlace
from fetcher.stats import Stats
from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def read(text: str) -> dict[tuple[str, str], float]:
    """Return the samples by their names and the values of their labels."""
    return {
        (sample.name, ",".join(sorted(filter(None, sample.labels.values())))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(url: str) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return read(answer.read().decode())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9464", MetricsPlace(port=9464)),
        ("0", MetricsPlace()),
        ("0.0.0.0:9464", MetricsPlace("0.0.0.0", 9464)),
        ("[::1]:9464", MetricsPlace("::1", 9464)),
        (":9464", MetricsPlace(port=9464)),
        ("node/fetcher.prom", MetricsPlace(path="node/fetcher.prom")),
        ("./a:b", MetricsPlace(path="./a:b")),
        ("./a:1", MetricsPlace(path="./a:1")),
        ("fetcher.prom", MetricsPlace(path="fetcher.prom")),
    ],
)
def test_a_place_is_a_port_or_a_file(text: str, place: MetricsPlace) -> None:
    assert MetricsPlace.of(text) == place


def test_a_run_is_scraped_while_it_goes_on(desk: Desk) -> None:
    held = HeldCase()
    desk.lab.add("/held", held)
    desk.write([*desk.urls(*range(5)), desk.lab.url("/status/404"), "no url", *desk.urls(1, 2, path="/held")])
    words = desk.words("--metrics", "0", "--accept", "200")
    with Running(*words, folder=desk.folder) as running:
        try:
            running.until_said("/metrics\n")
            line = next(line for line in running.err.decode().splitlines() if "metrics: " in line)
            url = line.partition("metrics: ")[2]
            while True:
                told = scraped(url)
                done = sum(told["fetcher_rows_total", outcome] for outcome in ("ok", "failed", "skipped"))
                if done == 7 and told["http_client_active_requests", ""] == 2:
                    break
            assert told["fetcher_rows_total", "ok"] == 5
            assert told["fetcher_errors_total", "http_404"] == told["fetcher_errors_total", "invalid_url"] == 1
            assert told["fetcher_rows_pending", ""] == 2
            assert told["fetcher_list_rows", ""] == 9
            assert told["http_client_request_duration_seconds_count", "200"] == 5
            assert told["http_client_request_duration_seconds_count", "404,http_404"] == 1
            assert told["http_client_response_body_size_bytes_count", ""] == 5
            assert not any("127.0.0" in label for _, label in told)
        finally:
            held.open()
        assert running.end().code == 0
    with pytest.raises(urllib.error.URLError):
        scraped(url)


def test_the_file_has_in_the_end_what_the_summary_has(desk: Desk) -> None:
    desk.write([*desk.urls(*range(20)), desk.lab.url("/status/500"), "no url"])
    ended = desk.crawl("--metrics", "fetcher.prom")
    assert ended.code == 0
    told, stats = read((desk.folder / "fetcher.prom").read_text()), desk.stats()
    for outcome in ("ok", "failed", "skipped"):
        assert told["fetcher_rows_total", outcome] == stats[outcome]
    assert told["fetcher_rows_taken_total", ""] == stats["input"] == 22
    assert told["fetcher_body_bytes_total", ""] == stats["bytes"]
    assert told["fetcher_rows_pending", ""] == told["http_client_active_requests", ""] == 0
    assert {label: value for (name, label), value in told.items() if name == "fetcher_errors_total"} == stats["codes"]
    assert [name for name in os.listdir(desk.folder) if "prom" in name] == ["fetcher.prom"]


def test_every_name_is_as_prometheus_wants_it(desk: Desk) -> None:
    desk.pages(1)
    desk.crawl("--metrics", "fetcher.prom")
    text = (desk.folder / "fetcher.prom").read_text()
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.name.startswith(("fetcher_", "http_client_", "process_", "python_"))
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        else:
            assert not family.name.endswith("_total")


def test_a_port_in_use_is_found_before_anything_is_written(desk: Desk) -> None:
    desk.pages(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(*desk.words("--metrics", str(port)), folder=desk.folder)
    assert ended.code == 2
    assert f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use; give another port" in ended.said
    assert not (desk.folder / "pages.jsonl").exists()
    assert not desk.lab.log


def test_without_the_extra_the_pip_command_is_named_before_the_first_request(desk: Desk) -> None:
    desk.pages(1)
    (desk.folder / "prometheus_client.py").write_text("raise ImportError('it is not here')\n")
    ended = run(
        *desk.words("--metrics", "0"),
        folder=desk.folder,
        env={"PYTHONPATH": os.pathsep.join([str(desk.folder), str(Path(__file__).parents[1])])},
        anew=True,
    )
    assert ended.code == 2
    assert missing_extra("prometheus_client", "metrics") in ended.said
    assert not desk.lab.log


def test_the_library_tells_as_well(lab: LabServer, tmp_path: Path) -> None:
    lab.clear()
    path = tmp_path / "fetcher.prom"

    async def main() -> int:
        async with (
            Fetcher(robots=False) as fetcher,
            fetcher.stream([lab.url(f"/ok?n={n}") for n in range(3)]) as outcomes,
        ):
            busy = fetcher.in_flight
            with Metrics(MetricsPlace.of(str(path)), lambda: outcomes.stats, lambda: len(busy())) as metrics:
                return len([outcome async for outcome in metrics.observed(outcomes)])

    assert asyncio.run(main()) == 3
    assert read(path.read_text())["fetcher_rows_total", "ok"] == 3


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write"):
        Metrics(MetricsPlace(path=str(tmp_path / "a.prom")), Stats, lambda: 0).__enter__()
