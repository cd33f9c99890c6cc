"""Measuring side by side: candidates in turns, so that whatever else the machine does meets all of them.

With ``BENCH_CLOCK=cpu`` processor time is measured instead of time that passes: for machines that others use, too.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

CLOCK = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter


def fastest(
    candidates: Mapping[str, Callable[[], Any]], rounds: int = 7, seconds: float = 30.0, warm_up: bool = True
) -> dict[str, float]:
    """Shortest time in seconds of every candidate.

    Parameters
    ----------
    rounds
        How often each is run, in turns.
    seconds
        No new round begins after that time; each candidate is measured at least once.
    warm_up
        Run each once before, unmeasured.
    """
    if warm_up:
        for run in candidates.values():
            run()
    best = dict.fromkeys(candidates, float("inf"))
    end = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, run in candidates.items():
            started = CLOCK()
            run()
            best[name] = min(best[name], CLOCK() - started)
        if time.perf_counter() > end:
            break
    return best


def parsed(parser: argparse.ArgumentParser, *needed: str) -> argparse.Namespace:
    """The arguments; without those that are needed the script says which and ends well, so that all can be run in turn."""
    options = parser.parse_args()
    if any(getattr(options, name) is None for name in needed):
        parser.print_usage()
        parser.exit(0, f"Not measured: give {' and '.join(needed)}.\n")
    return options


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def milliseconds(seconds: float) -> str:
    """A time for the table, with three digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
