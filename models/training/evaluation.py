"""Measuring a recognizer on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.card import Metric
from models.checkpoint import write_card
from models.clip import open_clip
from models.data import READERS
from models.errors import DataError, EarwitnessError, SettingsError
from models.prediction import predict
from models.recognizer import Recognizer
from models.training.metrics import accuracy, average_precision, confusion_matrix
from models.training.waveforms import annotated_part


@dataclass(frozen=True)
class Evaluation:
    """Figures of a recognizer on a data set.

    `accuracy` is None for multi-label models; `per_class` is the average precision of every class with a positive clip.
    """

    model: str
    data: str
    clips: int
    accuracy: float | None
    mean_average_precision: float
    per_class: dict[str, float]
    confusion: list[list[int]]
    labels: list[str]
    skipped: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def table(self) -> str:
        """For people."""
        lines = [f"{self.model} on {self.data}, {self.clips} clips"]
        if self.accuracy is not None:
            lines.append(f"  accuracy                {100 * self.accuracy:6.2f} %")
        lines.append(f"  mean average precision  {self.mean_average_precision:8.4f}")
        for label, value in self.per_class.items():
            lines.append(f"    {label:20s}  {value:8.4f}")
        lines += [f"  skipped: {reason}" for reason in self.skipped]
        return "\n".join(lines)


def evaluate(
    recognizer: Recognizer,
    root: Path,
    data_format: str = "esc",
    folds: Sequence[int] = (),
    options: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run every clip of a data set (as any clip of a user: opened, resampled, windowed) and compare with its labels.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or its classes are not the model's.
    """
    if data_format not in READERS:
        raise SettingsError(f"There is no data format named {data_format!r}.", f"Known are: {', '.join(READERS)}.")
    examples = READERS[data_format](root, **(options or {}))
    if folds:
        examples = examples.folds(folds)
    usable = [e for e in examples.examples if set(e.labels) & set(recognizer.labels)]
    if not usable:
        raise DataError(
            f"None of the clips has a class that {recognizer.name} knows.",
            f"It knows: {', '.join(recognizer.labels[:12])}.",
        )
    scores, targets, skipped = [], [], [f"{p.name} is missing" for p in examples.missing]
    for number, example in enumerate(usable, start=1):
        try:
            clip = annotated_part(open_clip(example.path), example)
        except EarwitnessError as error:
            skipped.append(f"{example.path.name}: {error.message}")
            continue
        scores.append(predict(recognizer, clip.at(recognizer.sample_rate)).scores)
        targets.append([label in example.labels for label in recognizer.labels])
        if progress is not None:
            progress(number, len(usable))
    if not scores:
        raise DataError("No clip of this data set could be opened.", skipped[0] if skipped else "")
    score_matrix, target_matrix = np.stack(scores), np.array(targets, dtype=np.float64)
    precision = average_precision(score_matrix, target_matrix)
    name = root.name + (f", fold {', '.join(map(str, folds))}" if folds else "")
    return Evaluation(
        recognizer.name, name, len(scores),
        accuracy(score_matrix, target_matrix) if recognizer.card.task == "single-label" else None,
        float(np.nanmean(precision)),
        {label: float(v) for label, v in zip(recognizer.labels, precision, strict=True) if np.isfinite(v)},
        confusion_matrix(score_matrix, target_matrix).tolist(), list(recognizer.labels), skipped,
    )  # fmt: skip


def store_in_card(recognizer: Recognizer, result: Evaluation, command: str) -> None:
    """Replace the card's figures for this data by the measured ones.

    Raises
    ------
    SettingsError
        If the recognizer was not loaded from a folder.
    """
    if recognizer.folder is None:
        raise SettingsError("This model has no folder to write its card to.", "Save it first.")
    measured = [
        Metric(
            name="mean average precision",
            value=round(result.mean_average_precision, 4),
            data=result.data,
            command=command,
        )
    ]
    if result.accuracy is not None:
        measured.insert(0, Metric(name="accuracy", value=round(result.accuracy, 4), data=result.data, command=command))
    others = [m for m in recognizer.card.metrics if m.data != result.data]
    recognizer.card = recognizer.card.model_copy(update={"metrics": measured + others})
    write_card(recognizer.folder, recognizer.card)
