"""Teaching the shipped models three new classes from a few clips; prints the table of docs/teaching.md.

``python tests/benchmarks/bench_class_extension.py NEW_CLASSES ESC10 [--models M ...] [--clips 5 10 20] [--seeds 0 1 2]``

Both folders are in the ESC layout. New classes are learned from folds 1-4; everything is tested on fold 5: the new classes, and
the old ones on the fold that no training has seen. Seconds are those of `teach` (decoding, embedding, training, testing,
writing) without the old classes' test clips; with ``BENCH_CLOCK=cpu`` processor time counts.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import mean

import torch
from bench_class_extension_video import embedded
from side_by_side import parsed, table

from models.checkpoint import load_recognizer
from models.data import READERS, Example
from models.recognizer import Recognizer
from models.teaching import TeachingExample, TeachSettings, teach
from models.training.trainer import score
from models.training.waveforms import load_waveforms

TRAIN_FOLDS, TEST_FOLD = (1, 2, 3, 4), 5


def accuracies(recognizer: Recognizer, examples: list[Example], waveforms: torch.Tensor) -> float:
    """Share of clips whose best class is right; a model that sees is shown no picture."""
    if recognizer.reads_video:
        hidden = embedded(recognizer, [TeachingExample(e.path.name, e.path, e.labels) for e in examples])
        best = recognizer.network.forward_head(hidden).argmax(dim=1).tolist()
    else:
        best = score(recognizer, waveforms).argmax(dim=1).tolist()
    labels = recognizer.labels
    return mean(float(labels[index] in e.labels) for index, e in zip(best, examples, strict=True))


def sample(examples: list[Example], labels: tuple[str, ...], clips: int, seed: int) -> list[TeachingExample]:
    """So many clips of every class, drawn from the training folds."""
    chosen = []
    for label in labels:
        own = [e for e in examples if e.fold in TRAIN_FOLDS and label in e.labels]
        chosen += random.Random(f"{seed} {label}").sample(own, clips)
    return [TeachingExample(e.path.name, e.path, e.labels) for e in chosen]


def main() -> None:
    """One row for every model and number of clips."""
    parser = argparse.ArgumentParser()
    parser.add_argument("new_classes", nargs="?", type=Path)
    parser.add_argument("esc10", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet-esc10", "ast-esc10"])
    parser.add_argument("--clips", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", default="auto")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--test-fold", type=int, default=TEST_FOLD, help="another one for choosing settings")
    options = parsed(parser, "new_classes", "esc10")
    clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
    global TRAIN_FOLDS
    TRAIN_FOLDS = tuple(fold for fold in (1, 2, 3, 4) if fold != options.test_fold)
    new, old = READERS["esc"](options.new_classes), READERS["esc"](options.esc10)
    tests = [examples.folds([options.test_fold]) for examples in (new, old)]
    extra = dict(pair.split("=", 1) for pair in options.set)
    print(f"{torch.get_num_threads()} thread(s), train={options.train} {extra}\n")
    rows = []
    for name in options.models:
        base = load_recognizer(name)
        samples = base.window_samples or 5 * base.sample_rate
        waveforms = [load_waveforms(part, base.sample_rate, samples)[0] for part in tests]
        old_before = accuracies(base, list(tests[1].examples), waveforms[1])
        for clips in options.clips:
            figures = []
            for seed in options.seeds:
                examples = sample(list(new.examples), new.labels, clips, seed)
                settings = TeachSettings.model_validate(
                    {"train": options.train, "held_out_share": 0.0, "seed": seed} | extra
                )
                with tempfile.TemporaryDirectory() as folder:
                    begun = clock()
                    result = teach(name, examples, settings, Path(folder), name="taught")
                    seconds = clock() - begun
                    taught = load_recognizer(result.folder)
                found = [accuracies(taught, list(p.examples), w) for p, w in zip(tests, waveforms, strict=True)]
                figures.append((*found, seconds))
                print(
                    f"# {name} {clips} seed {seed}: new {found[0]:.3f} old {found[1]:.3f} {seconds:.1f} s", flush=True
                )
            new_after, old_after, seconds = (mean(column) for column in zip(*figures, strict=True))
            rows.append([
                name, str(clips), f"{100 * new_after:.1f} %", f"{100 * old_before:.1f} %", f"{100 * old_after:.1f} %",
                f"{100 * (old_after - old_before):+.1f}", f"{seconds:.1f} s",
            ])  # fmt: skip
    print(table(["model", "clips a class", "new classes", "old before", "old after", "points", "time"], rows))


if __name__ == "__main__":
    main()
