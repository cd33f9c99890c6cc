"""Folders of rendered audio-video scenes (``python -m models.data.scenes render-audio-visual``)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from models.data.examples import Example, ExampleSet, collect
from models.errors import DataError

_NEEDED = {"filename", "fold", "category", "origin", "kind"}
HOW_TO_MAKE_IT = (
    "Give a folder with meta.csv (columns filename, fold, category, origin, kind) beside clips/, as "
    "'python -m models.data.scenes render-audio-visual' writes it."
)


def read_audio_visual_scenes(
    root: Path, *, origins: Sequence[str] | None = None, kinds: Sequence[str] | None = None
) -> ExampleSet:
    """Examples of a rendered folder: recordings in folds 1 to 5, generated scenes in 6 (train) and 7 (test).

    Parameters
    ----------
    origins
        Only clips whose sound is a `recording`, or `generated`; default both.
    kinds
        Only scenes in which what sounds is `alone`, stands beside a silent `distractor`, or is not in the picture
        (`mismatch`); default all.

    Raises
    ------
    DataError
        If there is no such table, or none of its clips is there.
    """
    root = Path(root)
    try:
        with (root / "meta.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The table meta.csv in {root} cannot be read: {error}.", HOW_TO_MAKE_IT) from error
    if not rows or not set(rows[0]) >= _NEEDED:
        raise DataError(f"meta.csv must have the columns {', '.join(sorted(_NEEDED))}.", HOW_TO_MAKE_IT)
    labels = sorted({row["category"] for row in rows})
    examples = []
    for number, row in enumerate(rows, start=2):
        if (origins is not None and row["origin"] not in origins) or (kinds is not None and row["kind"] not in kinds):
            continue
        if not row["fold"].strip().isdecimal():
            raise DataError(f"meta.csv, line {number}: the fold {row['fold']!r} is not a number.", HOW_TO_MAKE_IT)
        # Only the base name: a table must not reach outside the folder.
        examples.append(Example(root / "clips" / Path(row["filename"]).name, (row["category"],), int(row["fold"])))
    if not examples:
        raise DataError("No clip of the table has the chosen origin and kind.", "Choose others, or all.")
    return collect(examples, labels)
