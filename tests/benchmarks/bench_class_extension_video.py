"""Teaching the models that see two new classes, bell and drum, from a few videos; prints the table of docs/teaching.md.

``python tests/benchmarks/bench_class_extension_video.py NEW_CLASSES SCENES [--models M ...] [--clips 5 10 20] [--seeds 0 1 2]``

Both folders are what ``python -m models.data.scenes render-audio-visual`` wrote: NEW_CLASSES with ``--classes bell drum``, SCENES
as the recipes of these models say. New classes are learned from fold 6 and tested on fold 7; the old ones are tested on fold 5
(recordings with drawn pictures) and 7 (generated). Seconds are those of `teach`; with ``BENCH_CLOCK=cpu`` processor time counts.
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
from side_by_side import parsed, table

from models.checkpoint import load_recognizer
from models.data import READERS, ExampleSet
from models.recognizer import Recognizer
from models.teaching import TeachingExample, TeachSettings, teach
from models.teaching.listening import embed, hear

TRAIN_FOLD, TEST_FOLD, RECORDINGS = 6, 7, 5


def as_examples(examples: ExampleSet) -> list[TeachingExample]:
    """What `teach` takes."""
    return [TeachingExample(e.path.name, e.path, e.labels) for e in examples.examples]


def embedded(recognizer: Recognizer, examples: list[TeachingExample]) -> torch.Tensor:
    """What the head reads of clips: it is the same before and after the head is taught."""
    heard, problems = hear(recognizer, examples)
    assert not problems, problems
    return torch.cat(list(embed(recognizer, [h.windows[0] for h in heard], [h.pictures[0] for h in heard])))


@torch.no_grad()
def accuracy(recognizer: Recognizer, examples: list[TeachingExample], hidden: torch.Tensor) -> float:
    """Share of clips whose best class is right."""
    best = recognizer.network.forward_head(hidden.to(recognizer.device)).argmax(dim=1).tolist()
    return mean(float(recognizer.labels[index] in e.labels) for index, e in zip(best, examples, strict=True))


def main() -> None:
    """One row for every model and number of clips."""
    parser = argparse.ArgumentParser()
    parser.add_argument("new_classes", nargs="?", type=Path)
    parser.add_argument("scenes", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=["event-graph-scenes", "equiav-scenes"])
    parser.add_argument("--clips", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parsed(parser, "new_classes", "scenes")
    clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
    read = READERS["audio_visual_scenes"]
    new, old = read(options.new_classes), read(options.scenes)
    tests = [as_examples(new.folds([TEST_FOLD])), *(as_examples(old.folds([fold])) for fold in (RECORDINGS, TEST_FOLD))]
    rows = []
    for name in options.models:
        base = load_recognizer(name)
        hidden = [embedded(base, part) for part in tests]
        before = [accuracy(base, part, h) for part, h in zip(tests[1:], hidden[1:], strict=True)]
        for clips in options.clips:
            figures = []
            for seed in options.seeds:
                learned = []
                for label in new.labels:
                    own = [e for e in as_examples(new.folds([TRAIN_FOLD])) if label in e.labels]
                    learned += random.Random(f"{seed} {label}").sample(own, clips)
                with tempfile.TemporaryDirectory() as folder:
                    begun = clock()
                    settings = TeachSettings(train="head", held_out_share=0.0, seed=seed)
                    result = teach(name, learned, settings, Path(folder), name="taught")
                    seconds = clock() - begun
                    taught = load_recognizer(result.folder)
                found = [accuracy(taught, part, h) for part, h in zip(tests, hidden, strict=True)]
                figures.append((*found, seconds))
                print(f"# {name} {clips} seed {seed}: {[round(f, 3) for f in found]} {seconds:.1f} s", flush=True)
            after = [mean(column) for column in zip(*figures, strict=True)]
            rows.append([
                name, str(clips), f"{100 * after[0]:.1f} %",
                *(f"{100 * a:.1f} % ({100 * (a - b):+.1f})" for a, b in zip(after[1:3], before, strict=True)),
                f"{after[3]:.1f} s",
            ])  # fmt: skip
    columns = ["model", "clips a class", "new classes", "old, recordings", "old, generated", "time"]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
