"""Comparisons: verified first, then timed turn by turn with their peers, and printed as one table of ratios."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

ROWS: list[dict[str, Any]] = []


def cpu_name() -> str:
    """The processor's name as Linux says it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _iterations(function: Callable[[], Any], seconds: float) -> int:
    function()
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    return max(1, min(10_000, int(seconds / max(once, 1e-7))))


@pytest.fixture
def compare(benchmark, request):
    """compare(case, ours, peers, check=None): time ours against every peer, interleaved round by round.

    check(name) must raise where a result is wrong; a wrong result is not timed. What is timed is a batch of calls long
    enough for the clock; the table shows one call.
    """

    def run(
        case: str,
        ours: Callable[[], Any],
        peers: dict[str, Callable[[], Any]],
        check: Callable[[], None] | None = None,
        target: dict[str, float] | None = None,
        rounds: int = 15,
        batch_seconds: float = 0.004,
    ) -> None:
        if check is not None:
            check()
        counts = {name: _iterations(f, batch_seconds) for name, f in {**peers, "fastdiff": ours}.items()}
        times: dict[str, list[float]] = {name: [] for name in peers}

        def timed(name: str, f: Callable[[], Any]) -> None:
            start = time.perf_counter()
            for _ in range(counts[name]):
                f()
            times[name].append((time.perf_counter() - start) / counts[name])

        def peers_first() -> None:
            for name, f in peers.items():
                timed(name, f)

        def batch() -> None:
            for _ in range(counts["fastdiff"]):
                ours()

        benchmark.pedantic(batch, setup=peers_first, rounds=rounds, warmup_rounds=1)
        if benchmark.stats is None:  # --benchmark-disable: verified, not timed
            return
        own = statistics.median(benchmark.stats.stats.data) / counts["fastdiff"]
        row = {
            "case": case,
            "fastdiff_seconds": own,
            "peers": {name: statistics.median(values[1:]) for name, values in times.items()},
            "target": target or {},
        }
        benchmark.extra_info.update(row, iterations=counts["fastdiff"])
        ROWS.append(row)

    return run


@pytest.fixture
def threads():
    """Set the number of threads; restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _show(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: what fastdiff takes, and how many times longer each peer does."""
    lines = ["| case | fastdiff | peers: time (times fastdiff's) | target |", "| --- | --- | --- | --- |"]
    for row in rows:
        own = row["fastdiff_seconds"]
        peers = ", ".join(f"{name} {_show(t)} ({t / own:.2f}x)" for name, t in row["peers"].items())
        verdicts = []
        for name, wanted in row["target"].items():
            ratio = row["peers"][name] / own
            verdicts.append(f"{wanted:g}x {name}: {'met' if ratio >= wanted else f'missed ({ratio:.2f}x)'}")
        lines.append(f"| {row['case']} | {_show(own)} | {peers} | {'; '.join(verdicts) or '-'} |")
    return "\n".join(lines)


def pytest_terminal_summary(terminalreporter) -> None:
    if ROWS:
        terminalreporter.section("fastdiff against its peers (medians, interleaved)")
        device = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        terminalreporter.write_line(device)
        terminalreporter.write_line(table(ROWS))
