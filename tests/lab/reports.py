"""Owns made-up bench reports: rows with seeded answer times, put through slots by greedy scheduling. No network."""

from __future__ import annotations

import heapq
import random

from fetcher.bench.results import Machine, Report, Round, Sample, recommended, summarise

OVERHEAD = 0.0004
"""Seconds of the one core that every request takes."""

PER_HOST = 10

HOSTILE = "</script></style><img src=x onerror=alert(1)>\"'&\x00\u202egro.live\ud800"


def answers(rows: int, seed: int = 1, failing: float = 0.0, slow: float = 0.0) -> list[tuple[float, str | None]]:
    """Seconds and the failure's code, for each row."""
    rng = random.Random(seed)
    drawn: list[tuple[float, str | None]] = []
    for _ in range(rows):
        seconds = rng.uniform(0.02, 0.06) * (rng.uniform(8, 20) if rng.random() < slow else 1)
        code = (
            rng.choice(["http_503", "read_timeout", "connect_reset", "robots_denied"])
            if rng.random() < failing
            else None
        )
        drawn.append((seconds * (4 if code == "read_timeout" else 1), code))
    return drawn


def one_round(answered: list[tuple[float, str | None]], slots: int, index: int, *, warm_up: bool = False) -> Round:
    rng = random.Random(index * 1_000 + slots)
    ends = [0.0] * max(slots, 1)
    core = 0.0
    samples = []
    for number, (seconds, code) in enumerate(answered, 1):
        start = max(heapq.heappop(ends), core)
        core = start + OVERHEAD
        latency = seconds + rng.expovariate(1 / (0.0004 + 0.00002 * slots)) + (0.02 if warm_up else 0)
        end = start + OVERHEAD + latency
        heapq.heappush(ends, end)
        status = None if code else 200
        host = f"shop{number % 12}.test"
        samples.append(
            Sample(number, host, start, end, latency, code, status, None if code else 5_000, 0 if code else 21_000)
        )
    wall = max((sample.end for sample in samples), default=0.0) + 0.002
    return Round(
        mode="concurrent" if slots else "sequential",
        concurrency=max(slots, 1),
        index=index,
        warm_up=warm_up,
        wall=wall,
        cpu=0.0009 * len(samples),
        peak_memory=48_000_000 + 60_000 * slots,
        most_in_flight=max(slots, 1),
        samples=samples,
    )


def made(
    rows: int = 200,
    sweep: tuple[int, ...] = (10, 50, 100),
    rounds: int = 3,
    *,
    sequential: bool = True,
    failing: float = 0.0,
    slow: float = 0.0,
    source: str = "the built-in site",
    warnings: tuple[str, ...] = (),
) -> Report:
    """A report as ``fetcher bench`` could have measured it."""
    answered = answers(rows, failing=failing, slow=slow)
    slots = ([0] if sequential else []) + list(sweep)
    warm = [one_round(answered, slots[-1], 0, warm_up=True)] if slots else []
    ran = [one_round(answered, c, index) for index in range(1, rounds + 1) for c in slots]
    modes = summarise(ran, PER_HOST)
    return Report(
        command=[
            "fetcher",
            "bench",
            "--sequential",
            "-n",
            str(rows),
            "-c",
            ",".join(map(str, sweep)),
            "--html",
            "bench.html",
        ],
        source=source,
        rows=rows,
        hosts=12,
        per_host=PER_HOST,
        machine=Machine("Linux-6.1-x86_64", "3.11.7", "0.1.0", "3.14.5", "uvloop", 2, "2026-11-21 09:03 UTC"),
        modes=modes,
        rounds=warm + ran,
        recommended=recommended(modes),
        warnings=list(warnings),
        mismatches=[],
    )
