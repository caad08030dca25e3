"""The report as text: its table and bars, its recommendation, and what it says where there is little to say."""

from __future__ import annotations

import re
from typing import Any

from fetcher.bench.results import Machine, Mismatch, Mode, Report, Round, Sample, Spread
from fetcher.bench.text_report import mismatch_lines, render_text


def mode(name: Any, slots: int, wall: float, **more: Any) -> Mode:
    settings: dict[str, Any] = {
        "rounds": 3,
        "wall": Spread(wall, wall * 0.99, wall * 1.01),
        "pages_per_second": 200 / wall,
        "cpu_ms_per_page": 0.8,
        "latency": {"p50": 0.04, "p95": 0.06, "p99": 0.061},
        "bytes": 6_000_000,
        "failures": {},
        "peak_memory": 52_000_000,
        "most_in_flight": slots,
        "speed_up": Spread(8 / wall, 7.9 / wall, 8.1 / wall),
        "least": wall * 0.95,
        "efficiency": 0.95,
    }
    return Mode(mode=name, concurrency=slots, **settings | more)


def reported(*modes: Mode, **more: Any) -> Report:
    machine = Machine("Linux", "CPython 3.11", "0.1.0", "3.14", "uvloop", 2, "2026-11-21T09:00:00Z")
    settings: dict[str, Any] = {
        "command": [], "source": "urls.txt", "rows": 200, "hosts": 1, "per_host": 6, "machine": machine,
        "modes": list(modes), "rounds": [], "recommended": None, "warnings": [], "mismatches": [],
    }  # fmt: skip
    return Report(**settings | more)


def test_the_table() -> None:
    report = reported(mode("sequential", 1, 8.0), mode("concurrent", 50, 0.25), recommended=50)
    assert render_text(report).splitlines() == [
        "urls.txt: 200 rows, 1 host, at most 6 to a host at once",
        "3 rounds of each mode, in turn",
        "",
        "              wall  pages/s  CPU/page      p50      p95      p99    bytes   memory  in flight  failed",
        "sequential  8.00 s     25.0  0.800 ms  40.0 ms  60.0 ms  61.0 ms  2.00 MB  52.0 MB          1       0",
        "-c 50       250 ms      800  0.800 ms  40.0 ms  60.0 ms  61.0 ms  2.00 MB  52.0 MB         50       0",
        "",
        "            speed-up      low to high  efficiency  pages/s",
        "sequential     1.00×  0.988× to 1.01×      95.0 %  █",
        "-c 50          32.0×   31.6× to 32.4×      95.0 %  ██████████████████████████████",
        "",
        "recommended: -c 50, the least that is within 5 % of the best time: 32.0× as fast as one by one",
    ]


def test_what_was_not_measured_is_a_dash() -> None:
    text = render_text(reported(mode("concurrent", 50, 0.25, speed_up=None, peak_memory=None, most_in_flight=None)))
    assert re.search(r"^-c 50  250 ms .* MB       –          –       0$", text, re.MULTILINE)
    assert re.search(r"^-c 50         –                   95\.0 %  █+$", text, re.MULTILINE)
    assert "recommended: nothing, for one concurrency was measured (-c 10,50,100 compares three)" in text


def test_failures_stand_below_the_table_by_code() -> None:
    failing = mode("concurrent", 50, 0.25, failures={"http_500": 1_200, "read_timeout": 3})
    text = render_text(reported(failing))
    assert "-c 50 failed: http_500 1,200, read_timeout 3" in text.splitlines()
    assert re.search(r"^-c 50 .* 1,203$", text, re.MULTILINE)


def test_nothing_but_failures_is_laid_out_as_well() -> None:
    dead = mode("concurrent", 50, 1.0, pages_per_second=0.0, efficiency=0.0, speed_up=None)
    assert "█" not in render_text(reported(dead))
    assert render_text(reported(dead, dead)).endswith("\nrecommended: nothing, for no page came\n")


def test_a_bench_stopped_in_its_baseline_is_laid_out_as_well() -> None:
    text = render_text(reported(mode("sequential", 1, 8.0), complete=False))
    assert text.endswith("\nrecommended: nothing, for no concurrent round is complete\n")


def test_one_by_one_may_be_as_fast() -> None:
    slow = mode("concurrent", 10, 8.0, speed_up=Spread(0.9, 0.9, 0.9))
    text = render_text(reported(slow, mode("concurrent", 50, 8.0), recommended=10))
    assert text.endswith("best time: 0.900× as fast as one by one, though one by one is as fast here\n")


def test_warm_ups_are_reported() -> None:
    samples = [Sample(row, "a", 0, 1, 1) for row in range(20)]
    rounds = [Round("sequential", 1, 0, True, 0.8, 0.1, None, None, samples)]
    text = render_text(reported(mode("sequential", 1, 8.0), rounds=rounds))
    assert "after warm-ups that do not count: sequential 800 ms for 20 rows" in text
    assert "no counted round is complete" in render_text(reported(rounds=rounds))


def test_of_many_mismatches_the_first_are_named() -> None:
    found = [Mismatch(row, f"http://a/{row}", "1 character", "http_500", "concurrent", 50) for row in range(1, 31)]
    lines = mismatch_lines(found)
    assert lines[0] == "row 1 http://a/1: 1 character, and with -c 50 http_500"
    assert (len(lines), lines[-1]) == (21, "… and 10 more")
