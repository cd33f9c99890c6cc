"""Measuring recognizers on a data set: one, several together, with one or more views of every clip."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.card import Metric
from models.checkpoint import write_card
from models.clip import Clip, open_clip
from models.data import READERS, ExampleSet
from models.errors import DataError, EarwitnessError, SettingsError
from models.prediction import predict
from models.recognizer import Recognizer
from models.training.averaging import PredictionAverage
from models.training.metrics import average_precision, confusion_matrix, d_prime, roc_auc, top_right
from models.training.multiview import Ensemble, score_views
from models.training.waveforms import annotated_part


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class; None where its clips do not say.

    `accuracy` is the share of its clips that are recognised (single-label models only).
    """

    label: str
    clips: int
    average_precision: float | None
    auc: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures on a data set; None where they mean nothing for the task or the data.

    Attributes
    ----------
    accuracy, top_5_accuracy
        Share of clips whose class is the best, or among the five best; of groups of classes (verbs and nouns), in every group.
        None for multi-label models.
    mean_average_precision, mean_auc
        Means over the classes that have both kinds of clips (scikit-learn's definitions, ties included).
    d_prime
        ``sqrt(2) * inverse normal CDF(mean AUC)``; None if that is infinite.
    classes
        Figures of every class with a positive clip.
    confusion
        Counts ``[true class, predicted class]``.
    skipped
        Clips that could not be used, and why.
    """

    model: str
    data: str
    clips: int
    accuracy: float | None
    top_5_accuracy: float | None
    mean_average_precision: float
    mean_auc: float | None
    d_prime: float | None
    classes: list[ClassFigures]
    confusion: list[list[int]]
    labels: list[str]
    skipped: list[str]

    @property
    def per_class(self) -> dict[str, float]:
        """Average precision by class."""
        return {one.label: one.average_precision for one in self.classes if one.average_precision is not None}

    @property
    def figures(self) -> dict[str, float]:
        """The summary, by the names that cards use."""
        values = {
            "accuracy": self.accuracy, "mean average precision": self.mean_average_precision,
            "top-5 accuracy": self.top_5_accuracy, "mean AUC": self.mean_auc, "d-prime": self.d_prime,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def table(self) -> str:
        """For people."""
        lines = [f"{self.model} on {self.data}, {self.clips} clips"]
        for name, value in self.figures.items():
            shown = f"{100 * value:6.2f} %" if "accuracy" in name else f"{value:8.4f}"
            lines.append(f"  {name:24s}{shown}")
        last = "" if self.accuracy is None else "     right"
        lines.append(f"  {'class':30s} {'clips':>6s} {'AP':>8s} {'AUC':>8s}{last}")
        for one in self.classes:
            right = "" if one.accuracy is None else f" {100 * one.accuracy:7.1f} %"
            lines.append(f"  {one.label:30s} {one.clips:6d} {_shown(one.average_precision)} {_shown(one.auc)}{right}")
        lines += [f"  skipped: {reason}" for reason in self.skipped]
        return "\n".join(lines)

    def csv(self) -> str:
        """A row for every class; its first line names the columns."""
        target = io.StringIO()
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(["class", "clips", "average_precision", "auc", "accuracy"])
        for one in self.classes:
            # A label that begins like a formula must not become one in a spreadsheet.
            label = f"'{one.label}" if one.label[:1] in "=+-@\t\r" else one.label
            writer.writerow([label, one.clips, one.average_precision, one.auc, one.accuracy])
        return target.getvalue()


def _shown(value: float | None) -> str:
    return "       -" if value is None else f"{value:8.4f}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def figures_of(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], *, single_label: bool, groups: Sequence[int] = ()
) -> dict[str, Any]:
    """The fields of an `Evaluation` that follow from scores and multi-hot targets, ``[n, n_classes]`` each."""
    precision, area = average_precision(scores, targets), roc_auc(scores, targets)
    mean_area = float(np.nanmean(area)) if np.isfinite(area).any() else float("nan")
    right = top_right(scores, targets, 1, groups) if single_label else None
    # With groups, a class is recognised if its own group is right.
    by_class = np.full(len(labels), np.nan)
    if single_label:
        bounds = np.cumsum([0, *(groups or [len(labels)])])
        for first, last in itertools.pairwise(bounds):
            own = top_right(scores[:, first:last], targets[:, first:last])
            for c in range(first, last):
                if targets[:, c].any():
                    by_class[c] = own[targets[:, c] > 0].mean()
    classes = [
        ClassFigures(label, int(targets[:, c].sum()), _finite(precision[c]), _finite(area[c]), _finite(by_class[c]))
        for c, label in enumerate(labels)
        if targets[:, c].any()
    ]
    return {
        "accuracy": None if right is None else float(right.mean()),
        "top_5_accuracy": float(top_right(scores, targets, 5, groups).mean()) if single_label else None,
        "mean_average_precision": float(np.nanmean(precision)),
        "mean_auc": _finite(mean_area),
        "d_prime": _finite(d_prime(mean_area)) if math.isfinite(mean_area) else None,
        "classes": classes,
        "confusion": confusion_matrix(scores, targets).tolist(),
        "labels": list(labels),
    }


def _together(recognizers: Sequence[Recognizer]) -> None:
    """Refuse models whose answers cannot be averaged."""
    first = recognizers[0]
    for other in recognizers[1:]:
        if list(other.labels) != list(first.labels):
            difference = sorted(set(other.labels) ^ set(first.labels))
            detail = f"such as {', '.join(difference[:3])}" if difference else "in another order"
            raise SettingsError(
                f"{other.name} knows other classes than {first.name} ({detail}), so their answers cannot be averaged.",
                "Choose models with the same classes.",
            )
        if other.card.task != first.card.task or other.card.label_groups != first.card.label_groups:
            raise SettingsError(
                f"{other.name} is a {other.card.task} model, {first.name} a {first.card.task} one.",
                "Choose models of the same task.",
            )


def _scores(recognizer: Recognizer, clip: Clip, views: int | None, combine: Ensemble) -> np.ndarray:
    waveform = clip.at(recognizer.sample_rate)
    if views is None:
        return predict(recognizer, waveform, video=clip.video).scores
    combined = score_views(recognizer, waveform, views, combine).combined
    # The mean has the order of the sum, and can be averaged with other models' scores.
    return combined / views if combine == "sum" else combined


def evaluate(
    models: Recognizer | Sequence[Recognizer],
    root: Path,
    data_format: str = "esc",
    folds: Sequence[int] = (),
    options: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    views: int | None = None,
    combine: Ensemble = "sum",
) -> Evaluation:
    """Run every clip of a data set (as any clip of a user: opened, resampled, windowed) and compare with its labels.

    Parameters
    ----------
    models
        One recognizer, or several whose probabilities are averaged.
    root, data_format, options
        Folder of the data, and how it is read (a key of `models.data.READERS`).
    folds
        Folds to hear; none: all.
    views
        Test views of every clip, spread evenly over it (SlowFast: 2 for VGG-Sound, 10 for EPIC-KITCHENS); None: as for users,
        in overlapping windows.
    combine
        ``sum`` or ``max`` of the views' probabilities.

    Raises
    ------
    EarwitnessError
        If the data cannot be read, its classes are not the model's, or the models do not go together.
    """
    recognizers = [models] if isinstance(models, Recognizer) else list(models)
    _together(recognizers)
    if views is not None and any(one.reads_video for one in recognizers):
        raise SettingsError("Test views are for models that only listen.", "Leave out --views.")
    first = recognizers[0]
    examples = read_part(root, data_format, folds, options)
    usable = [e for e in examples.examples if set(e.labels) & set(first.labels)]
    if not usable:
        raise DataError(
            f"None of the clips has a class that {first.name} knows.",
            f"It knows: {', '.join(first.labels[:12])}.",
        )
    listens = any("audio" in one.network.modalities for one in recognizers)
    scores, targets, skipped = [], [], [f"{p.name} is missing" for p in examples.missing]
    for number, example in enumerate(usable, start=1):
        try:
            clip = annotated_part(open_clip(example.path, require_audio=listens), example)
            average = PredictionAverage()
            for one in recognizers:
                mean = average.add(_scores(one, clip, views, combine))
        except SettingsError:
            raise
        except EarwitnessError as error:
            skipped.append(f"{example.path.name}: {error.message}")
            continue
        scores.append(mean)
        targets.append([label in example.labels for label in first.labels])
        if progress is not None:
            progress(number, len(usable))
    if not scores:
        raise DataError("No clip of this data set could be opened.", skipped[0] if skipped else "")
    name = root.name + (f", fold {', '.join(map(str, folds))}" if folds else "")
    return Evaluation(
        model=" + ".join(one.name for one in recognizers),
        data=name + (f", {views} views" if views is not None else ""),
        clips=len(scores),
        skipped=skipped,
        **figures_of(
            np.stack(scores), np.array(targets, dtype=np.float64), first.labels,
            single_label=first.card.task == "single-label", groups=first.card.label_groups,
        ),
    )  # fmt: skip


def read_part(root: Path, data_format: str, folds: Sequence[int], options: dict[str, Any] | None = None) -> ExampleSet:
    """The examples of some folds of a data set, of all if none are named.

    Raises
    ------
    EarwitnessError
        If there is no such format, or the data cannot be read.
    """
    if data_format not in READERS:
        raise SettingsError(f"There is no data format named {data_format!r}.", f"Known are: {', '.join(READERS)}.")
    try:
        examples = READERS[data_format](root, **(options or {}))
    except TypeError as error:
        raise SettingsError(
            f"The format {data_format!r} cannot be read with these options: {error}.", "See docs/registry.md."
        ) from error
    return examples.folds(folds) if folds else examples


def store_in_card(recognizer: Recognizer, result: Evaluation, command: str) -> None:
    """Replace the card's figures for this data by the measured ones.

    Raises
    ------
    SettingsError
        If the recognizer was not loaded from a folder, or the figures are those of several models.
    """
    if recognizer.folder is None:
        raise SettingsError("This model has no folder to write its card to.", "Save it first.")
    measured = [
        Metric(name=name, value=round(value, 4), data=result.data, command=command)
        for name, value in result.figures.items()
    ]
    others = [m for m in recognizer.card.metrics if m.data != result.data]
    recognizer.card = recognizer.card.model_copy(update={"metrics": measured + others})
    write_card(recognizer.folder, recognizer.card)
