"""Deletion of links by importance against random order, for every measure, over the example videos of a model.

python tests/benchmarks/bench_event_graph.py [MODEL]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from models.checkpoint import load_recognizer
from saliency.graph import MEASURES, encode_clip, explain_graph
from saliency.graph_ablation import deletion_curve
from workbench.examples import example_clips, open_example


def main(model: str = "event-graph-scenes") -> None:
    """Print a table of area ratios and of times."""
    recognizer = load_recognizer(model)
    ratios: dict[str, list[float]] = {name: [] for name in MEASURES}
    changes, seconds = [], {"encoding": 0.0} | dict.fromkeys(MEASURES, 0.0) | {"deletion curve": 0.0}
    rows = []
    for example in example_clips().values():
        if not example.is_video or not set(example.labels) & set(recognizer.labels):
            continue  # nothing that the model could name
        clip = open_example(example.id)
        waveform = clip.at(recognizer.sample_rate)
        begin = time.perf_counter()
        encoded = encode_clip(recognizer, waveform, clip.video)
        seconds["encoding"] += time.perf_counter() - begin
        said = []
        for name in MEASURES:
            begin = time.perf_counter()
            graph = explain_graph(recognizer, waveform, clip.video, measure=name, encoded=encoded)
            middle = time.perf_counter()
            curve = deletion_curve(recognizer, graph)
            seconds[name] += middle - begin
            seconds["deletion curve"] += (time.perf_counter() - middle) / len(MEASURES)
            ratios[name].append(curve.area_ratio)
            said.append(f"{curve.area_ratio:.2f}")
        changes.append(float(curve.by_importance[-1]))
        rows.append(
            f"| {example.title} | {graph.target} {100 * graph.score:.0f} % | {100 * changes[-1]:.0f} % | {' | '.join(said)} |"
        )
    print(f"| clip | model says | without any link | {' | '.join(m.title.lower() for m in MEASURES.values())} |")
    print(f"|---|---|---|{'---|' * len(MEASURES)}")
    print("\n".join(rows))
    means = " | ".join(f"**{np.mean(ratios[name]):.2f}**" for name in MEASURES)
    print(f"| **mean of {len(rows)}** | | {100 * np.mean(changes):.0f} % | {means} |")
    print(", ".join(f"{name} {1000 * total / max(1, len(rows)):.0f} ms" for name, total in seconds.items()), "a clip")


if __name__ == "__main__":
    main(*sys.argv[1:2])
