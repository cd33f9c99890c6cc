"""Training a head on stored embeddings against the naive loop, which runs the whole network in every step.

``python tests/benchmarks/bench_head_training.py NEW_CLASSES [--models M ...] [--clips 20] [--steps 100]``

Both loops start from the same head, see the same clips in every step, and take the same steps, so that they end with the same
head up to rounding; the accuracy on fold 5 is that of the new classes alone. Embedding is part of the time. With
``BENCH_CLOCK=cpu`` processor time counts.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import parsed, table
from torch import Tensor, nn

from models.checkpoint import load_recognizer
from models.data import READERS
from models.recognizer import Recognizer
from models.teaching.course import Course, run
from models.teaching.extension import extend_recognizer, head_parameters
from models.teaching.head import LEARNING_RATE
from models.training.waveforms import load_waveforms


def train(recognizer: Recognizer, logits: Callable[[], Tensor], hidden: Tensor, target: Tensor, steps: int) -> None:
    """Full-batch steps on whatever gives the logits."""
    run(
        [(head_parameters(recognizer.network, hidden), LEARNING_RATE)], steps,
        lambda _: nn.functional.cross_entropy(logits(), target), Course(None),
    )  # fmt: skip


def main() -> None:
    """One row for every model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("new_classes", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet-esc10", "ast-esc10"])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    options = parsed(parser, "new_classes")
    clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
    examples = READERS["esc"](options.new_classes)
    rows = []
    for name in options.models:
        base = load_recognizer(name, "cpu")
        samples = base.window_samples or 5 * base.sample_rate
        parts = []
        for folds, count in (((1, 2, 3, 4), options.clips), ((5,), 8)):
            part = examples.folds(folds)
            chosen = [
                e
                for label in part.labels
                for e in random.Random(label).sample([e for e in part.examples if label in e.labels], count)
            ]
            parts.append(load_waveforms(type(part)(tuple(chosen), part.labels), base.sample_rate, samples))
        (waveforms, targets), (test_waveforms, test_targets) = parts
        target, first = targets.argmax(dim=1) + len(base.labels), waveforms[:1]
        times, accuracies, heads = [], [], []
        # What is only done once in a process (the optimizer's imports) belongs to neither loop.
        warm, _ = extend_recognizer(base, tuple(examples.labels))
        with torch.no_grad():
            hidden = warm.network.forward_features(warm.features(first))
        train(warm, lambda n=warm.network, h=hidden: n.forward_head(h), hidden, target[:1], 2)
        for cached in (True, False):
            taught, _ = extend_recognizer(base, tuple(examples.labels))
            network = taught.network
            begun = clock()
            with torch.no_grad():
                features = taught.features(waveforms)
                hidden = network.forward_features(features if cached else taught.features(first))
            if cached:
                train(taught, lambda n=network, h=hidden: n.forward_head(h), hidden, target, options.steps)
            else:
                train(taught, lambda n=network, f=features: n(f), hidden, target, options.steps)
            times.append(clock() - begun)
            with torch.no_grad():
                logits = torch.cat([taught(taught.features(part)) for part in test_waveforms.split(16)])
            best = logits[:, len(base.labels) :].argmax(dim=1)
            accuracies.append(float((best == test_targets.argmax(dim=1)).float().mean()))
            heads.append(logits)
        difference = ((heads[0] - heads[1]).abs().max() / heads[1].abs().max()).item()
        rows.append([
            name, str(len(target)), str(options.steps), f"{times[0]:.2f} s", f"{times[1]:.1f} s", f"{times[1] / times[0]:.0f}",
            f"{100 * accuracies[0]:.1f} %", f"{100 * accuracies[1]:.1f} %", f"{difference:.0e}",
        ])  # fmt: skip
    print(f"{torch.get_num_threads()} thread(s)\n")
    print(table(
        ["model", "clips", "steps", "embeddings", "naive", "ratio", "accuracy", "naive", "difference of logits"], rows
    ))  # fmt: skip


if __name__ == "__main__":
    main()
