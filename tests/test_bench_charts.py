"""The charts: which slot a request is drawn in, what is drawn as one bar, and which round stands for a mode."""

from __future__ import annotations

import pytest

from fetcher.bench.charts import Bar, assign_slots, count_kinds, merge_bars, on_wire
from fetcher.bench.results import Round, Sample, rounds_of, typical_round
from fetcher.drawing.svg import Scale
from tests.lab.reports import made

REPORTS = {
    "usual": made(),
    "failures": made(failing=0.2, slow=0.05),
    "many modes": made(100, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), 2),
}


def round_of(spans: list[tuple[float, float]], slots: int) -> Round:
    samples = [Sample(n, "a.test", start, end, end - start) for n, (start, end) in enumerate(spans, 1)]
    return Round("concurrent", slots, 1, False, max(end for _, end in spans), 0.0, None, None, samples)


def test_requests_go_to_the_first_free_slot() -> None:
    bars = assign_slots(round_of([(0, 3), (0, 1), (1, 2), (2, 5), (3, 4)], 2))
    assert [(bar.slot, bar.start, bar.end) for bar in bars] == [(0, 0, 1), (1, 0, 3), (0, 1, 2), (0, 2, 5), (1, 3, 4)]


@pytest.mark.parametrize("report_name", ["usual", "failures", "many modes"])
def test_a_slot_bears_one_request_at_a_time(report_name: str) -> None:
    for round_ in REPORTS[report_name].rounds:
        bars = assign_slots(round_)
        assert len(bars) == len(round_.samples)
        assert max(bar.slot for bar in bars) < round_.concurrency
        last: dict[int, float] = {}
        for bar in bars:
            assert bar.start >= last.get(bar.slot, 0.0) - 1e-9
            last[bar.slot] = bar.end


def test_more_at_once_than_slots_share_the_slot_soonest_free() -> None:
    bars = assign_slots(round_of([(0, 5), (0, 2), (1, 6)], 2))
    assert sorted(bar.slot for bar in bars) == [0, 0, 1]


def test_short_neighbours_are_drawn_as_one_but_no_failure_into_a_success() -> None:
    kinds = ["ok"] * 300 + ["incomplete"] + ["ok"] * 299
    bars = [Bar(0, n / 600, (n + 1) / 600, kind) for n, kind in enumerate(kinds)]
    drawn = merge_bars(bars, Scale(0.0, 1.0), 2.0)
    assert [kind for *_, kind in drawn] == ["ok", "incomplete", "ok"]
    assert [round(x) for _, x, _, _ in drawn] == [0, 500, 502]


def test_bars_long_enough_are_drawn_apart() -> None:
    bars = [Bar(0, n / 10, (n + 1) / 10, "ok") for n in range(10)]
    drawn = merge_bars(bars, Scale(0.0, 1.0), 2.0, gap=3)
    assert [x for _, x, _, _ in drawn] == pytest.approx([100.0 * n for n in range(10)])
    assert [width for _, _, width, _ in drawn] == pytest.approx([97.0] * 10)


def test_a_request_is_drawn_while_it_is_on_the_wire() -> None:
    assert on_wire(Sample(1, "a", 0.0, 5.0, 1.0)) == (4.0, 5.0)  # it waited for a slot
    assert on_wire(Sample(1, "a", 3.0, 5.0, 4.0)) == (3.0, 5.0)
    assert on_wire(Sample(1, "a", 3.0, 3.0, 0.0, code="robots_denied")) == (3.0, 3.0)


def test_kinds_are_told_apart_by_code() -> None:
    codes = [None, "http_404", "read_timeout", "dns_not_found", "robots_denied", "duplicate"]
    samples = [Sample(n, "a", 0, 1, 1, code=code) for n, code in enumerate(codes)]
    assert count_kinds(samples) == {"ok": 1, "http-error": 1, "incomplete": 2, "not-sent": 2}


def test_the_round_nearest_the_median_is_drawn_and_no_warm_up() -> None:
    report = made()
    for mode in report.modes:
        drawn = typical_round(report, mode)
        assert drawn in rounds_of(report, mode)
        assert drawn is not None
        assert not drawn.warm_up
        assert drawn.wall == mode.wall.median
