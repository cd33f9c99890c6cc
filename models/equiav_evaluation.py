"""EquiAV's published interface, part three: measure a model on a labelled metadata file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from models.data.equiav_json import read_class_table, read_metadata, resolve_path, split_labels
from models.equiav_inference import audio_event_classification
from models.errors import DataError
from models.training.equiav_metrics import TaggingStatistics, evaluation_tables, tagging_statistics


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes
    ----------
    statistics
        Average precision, ROC AUC and the rest.
    n_clips
        How many clips were judged.
    errors
        Messages by id for clips that could not be read.
    unknown_labels
        True labels that are not in the class table; they were skipped.
    """

    statistics: TaggingStatistics
    n_clips: int
    errors: dict[str, str]
    unknown_labels: int


def evaluate_metadata(
    metadata: str | Path, class_indices: str | Path, model: nn.Module, output_folder: str | Path, **options: Any
) -> Evaluation:
    """Classify every clip of a metadata file and write confusion_matrix.csv, predictions.csv and inference_times.csv.

    Parameters
    ----------
    metadata, class_indices
        JSON with the items, and the class table of the model.
    model
        Of `load_audio_model`.
    options
        As of `audio_event_classification` (target_length, norm_mean, threshold, ...).

    Raises
    ------
    DataError
        If no clip could be read.
    """
    table = read_class_table(class_indices)
    items = [item for item in read_metadata(metadata) if item.get("wav")]
    names = [str(item.get("video_id") or item["wav"]) for item in items]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, start=1)]
    folder = Path(metadata).parent
    files = {name: resolve_path(item["wav"], folder) for name, item in zip(names, items, strict=True)}
    truths = {name: split_labels(item.get("labels")) for name, item in zip(names, items, strict=True)}
    labels = pd.DataFrame({"mid": table.mids, "display_name": table.names})
    errors: dict[str, str] = {}
    _, times, scores = audio_event_classification(files, model, labels, errors=errors, return_scores=True, **options)
    if not scores:
        raise DataError(f"None of the {len(items)} clips could be read.", next(iter(errors.values()), ""))
    # Rows and columns in the order of the class table's file, as published.
    rows = {table.mids[i]: (i, table.names[i]) for i in table.file_order}
    tables = evaluation_tables(scores, truths, rows, list(times.values()), options.get("threshold", 0.5))
    output = Path(output_folder)
    output.mkdir(parents=True, exist_ok=True)
    for file, text in (
        ("confusion_matrix.csv", tables.confusion_matrix),
        ("predictions.csv", tables.predictions),
        ("inference_times.csv", tables.inference_times),
    ):
        (output / file).write_text(text, encoding="utf-8", newline="")
    targets = np.zeros((len(scores), len(table)))
    for row, name in enumerate(scores):
        targets[row, [table.index[mid] for mid in truths[name] if mid in table.index]] = 1.0
    statistics = tagging_statistics(np.stack(list(scores.values())), targets)
    return Evaluation(statistics, len(scores), errors, tables.unknown_labels)
