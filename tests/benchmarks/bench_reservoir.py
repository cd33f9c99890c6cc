"""The two rules of the reservoir on the same streams: distance of stored and observed classes, over many seeds.

Run: python tests/benchmarks/bench_reservoir.py
"""

from __future__ import annotations

import numpy as np

from models.training.reservoir import simulate_reservoir


def main() -> None:
    """Print the table of docs/reservoir.md."""
    print("| stream | rule | mean | worst | at most |\n|---|---|---|---|---|")
    for policy in ("matched", "published"):
        last = [simulate_reservoir(5, 50, 100, 0.7, policy=policy, seed=seed).distance[-1] for seed in range(200)]
        print(
            f"| simulation: 5 classes, 50 places, 100 clips, 200 seeds | {policy} | {np.mean(last):.4f} | {max(last):.4f} | |"
        )
    zipf = 1 / np.arange(1, 22)
    streams = {
        "5 classes, 50 places": (5, 50, [0.4, 0.3, 0.15, 0.1, 0.05]),
        "5 equal classes, 50 places": (5, 50, [0.2] * 5),
        "21 classes (Zipf), 100 places": (21, 100, list(zipf / zipf.sum())),
    }
    for name, (n_classes, capacity, probabilities) in streams.items():
        for policy in ("matched", "published"):
            late = [
                simulate_reservoir(
                    n_classes, capacity, 2000, 0.7, policy=policy, probabilities=probabilities, most_labels=1, seed=seed
                ).distance[-500:]
                for seed in range(20)
            ]
            print(
                f"| one label, {name}, last 500 of 2000 clips, 20 seeds | {policy} | {np.mean(late):.4f} | {np.max(late):.4f} "
                f"| {n_classes / (4 * capacity):.4f} |"
            )


if __name__ == "__main__":
    main()
