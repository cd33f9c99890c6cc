"""ESC-50 and ESC-10: environmental sounds in five folds.

K. J. Piczak: ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015.
The official folder (``meta/esc50.csv`` beside ``audio/``) is distributed at github.com/karolpiczak/ESC-50.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from models.data.examples import Example, ExampleSet, collect
from models.errors import DataError

WHERE_TO_GET_IT = (
    "Download ESC-50 from https://github.com/karolpiczak/ESC-50 (600 MB), unpack it, and give the folder that holds "
    "'meta' and 'audio'."
)


def read_esc(root: Path, *, only_esc10: bool = False, categories: Sequence[str] | None = None) -> ExampleSet:
    """Examples of an ESC folder.

    Parameters
    ----------
    root
        The official folder, or one with ``meta.csv`` (columns filename, fold, category) beside ``audio/``.
    only_esc10
        Of the official folder, only the ten classes of ESC-10.
    categories
        Only these classes, in this order.

    Raises
    ------
    DataError
        If there is no annotation, it lacks a column, or no audio is there.
    """
    candidates = [root / "meta" / "esc50.csv", root / "meta.csv"]
    annotation = next((path for path in candidates if path.is_file()), None)
    if annotation is None:
        raise DataError(f"There is no ESC annotation (meta/esc50.csv or meta.csv) in {root}.", WHERE_TO_GET_IT)
    try:
        # Spreadsheet programs put a byte order mark in front.
        with annotation.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{annotation.name} cannot be read as a table: {error}.", WHERE_TO_GET_IT) from error
    needed = {"filename", "fold", "category"}
    if not rows or not needed <= set(rows[0]):
        raise DataError(f"{annotation.name} must have the columns {', '.join(sorted(needed))}.", WHERE_TO_GET_IT)
    numbered = list(enumerate(rows, start=2))
    if only_esc10 and "esc10" in rows[0]:
        numbered = [(number, row) for number, row in numbered if row["esc10"].strip().lower() == "true"]
    if categories is not None:
        unknown = sorted(set(categories) - {row["category"] for _, row in numbered})
        if unknown:
            raise DataError(f"{annotation.name} has no class named {', '.join(map(repr, unknown))}.")
        numbered = [(number, row) for number, row in numbered if row["category"] in set(categories)]
    labels = list(categories) if categories is not None else sorted({row["category"] for _, row in numbered})
    examples = []
    for number, row in numbered:
        try:
            fold = int(row["fold"])
        except ValueError as error:
            raise DataError(f"{annotation.name}, line {number}: the fold {row['fold']!r} is not a number.") from error
        # Only the base name: an annotation must not reach outside the audio folder.
        examples.append(Example(root / "audio" / Path(row["filename"]).name, (row["category"],), fold))
    return collect(examples, labels)
