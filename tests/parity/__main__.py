"""``python -m tests.parity CASE.json ...``: a row per case and output; exit status 1 if one differs."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

import torch

from tests.parity.cases import Case, Comparison, load_case

# First part of a case's family -> module with ``run(case) -> list[Comparison]``; everything else is audio tagging.
SYSTEMS = {
    "slowfast_lep": "slowfast_lep",
    "play_it_back": "play_it_back",
    "hetero_graph": "hetero_graph",
    "hetero_graph_fixed": "hetero_graph",
    "equiav": "equiav",
}


def run_case(case: Case) -> list[Comparison]:
    """Compare every output of a case; an exception becomes a failed row."""
    module = SYSTEMS.get(case.family.split("/")[0], "audio_tagging")
    try:
        # Some cases draw random numbers; each starts from the same state whatever ran before it.
        torch.manual_seed(0)
        rows = importlib.import_module(f"tests.parity.{module}").run(case)
    except Exception as error:
        note = traceback.format_exception_only(error)[-1].strip()
        return [Comparison(case.path.stem, "-", float("inf"), 0.0, note[:300])]
    if not rows:
        return [Comparison(case.path.stem, "-", float("inf"), 0.0, "no output was compared")]
    return rows


def main() -> int:
    """Run the cases given on the command line (files, or folders of them)."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--failed", action="store_true", help="print only rows that failed")
    arguments = parser.parse_args()
    paths: list[Path] = []
    for path in arguments.cases:
        paths += sorted(path.glob("**/*.json")) if path.is_dir() else [path]
    failed_cases = 0
    for path in paths:
        rows = run_case(load_case(path))
        failed_cases += any(not row.passed for row in rows)
        for row in rows:
            if row.passed and arguments.failed:
                continue
            verdict = "ok" if row.passed else "FAILED"
            print(
                f"{row.case:42s} {row.output:34s} {row.error:10.3e} {row.tolerance:10.3e} {verdict} {row.note}".rstrip()
            )
    print(f"{len(paths) - failed_cases} of {len(paths)} cases pass")
    return 1 if failed_cases else 0


if __name__ == "__main__":
    sys.exit(main())
