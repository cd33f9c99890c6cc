"""EquiAV's data files: metadata JSON and class table, in CAV-MAE's conventions.

The ``weights.csv`` beside them is read by `models.training.sampling.read_weights`.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from models.data.examples import Example, ExampleSet, collect
from models.errors import DataError

_FORMAT = 'The file must look like {"data": [{"video_id": ..., "wav": ..., "labels": "/m/...,/m/..."}, ...]}.'


@dataclass(frozen=True)
class ClassTable:
    """Classes by index.

    Attributes
    ----------
    mids, names
        Ids (such as ``/m/09x0r``) and display names, in index order.
    file_order
        Indices in the order of the file's rows, which need not be sorted.
    """

    mids: tuple[str, ...]
    names: tuple[str, ...]
    file_order: tuple[int, ...]

    @property
    def index(self) -> dict[str, int]:
        """Index of every id."""
        return {mid: i for i, mid in enumerate(self.mids)}

    def __len__(self) -> int:
        return len(self.mids)

    def check_extends(self, old: ClassTable, *, allow_shrink: bool = False) -> None:
        """Whether a model for `old` can go on with this table: shared ids keep their index, new ones come after.

        Raises
        ------
        DataError
            Naming the ids that moved, or that would be lost.
        """
        index = self.index
        moved = [mid for i, mid in enumerate(old.mids) if mid in index and index[mid] != i]
        lost = [mid for mid in old.mids if mid not in index]
        if moved:
            raise DataError(
                f"These classes have another index than in the old table: {', '.join(moved[:8])}.",
                "Keep the indices of the old classes and append the new ones.",
            )
        if lost and not allow_shrink:
            raise DataError(
                f"These classes of the old table are missing in the new one: {', '.join(lost[:8])}.",
                "Append new classes to the old table, or allow dropping classes (allow_shrink).",
            )
        replaced = [self.mids[i] for i in range(min(len(old), len(self))) if self.mids[i] != old.mids[i]]
        if replaced:
            raise DataError(
                f"These new classes stand at the place of old ones: {', '.join(replaced[:8])}.",
                f"New classes have to take the indices from {len(old)} on.",
            )


def read_class_table(path: str | Path) -> ClassTable:
    """Read ``class_labels_indices.csv`` (header ``index,mid,display_name``); rows may be in any order.

    Raises
    ------
    DataError
        If it cannot be read, lacks a column, repeats an id, or the indices are not 0 to the number of classes - 1.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except OSError as error:
        raise DataError(f"The class table {path.name} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"The class table {path.name} is not a CSV file: {error}.") from error
    needed = {"index", "mid", "display_name"}
    if not rows or not needed <= set(rows[0]) or any(row[column] is None for row in rows for column in needed):
        raise DataError(f"The class table {path.name} must have the columns index, mid and display_name in every row.")
    try:
        order = [int(row["index"]) for row in rows]
    except ValueError as error:
        raise DataError(f"An index in the class table {path.name} is not a number.") from error
    if sorted(order) != list(range(len(rows))):
        raise DataError(
            f"The indices in the class table {path.name} must be 0 to {len(rows) - 1}, each once.",
            "Number the classes without gaps.",
        )
    by_index = dict(zip(order, rows, strict=True))
    mids = [by_index[i]["mid"] for i in range(len(rows))]
    repeated = [mid for mid, count in Counter(mids).items() if count > 1]
    if repeated:
        raise DataError(f"The class table {path.name} has {repeated[0]} more than once.")
    return ClassTable(tuple(mids), tuple(by_index[i]["display_name"] for i in range(len(rows))), tuple(order))


def split_labels(text: str | Sequence[str] | None) -> list[str]:
    """Ids of a label string ``mid,mid`` (or of a list of ids), without empty ones."""
    parts = text.split(",") if isinstance(text, str) else list(text or ())
    return [part.strip() for part in parts if part.strip()]


def known_labels(text: str | Sequence[str] | None, index: Mapping[str, int]) -> tuple[list[int], list[str]]:
    """Indices of the ids of a label string (each once, in its order), and the ids that the table lacks."""
    mids = list(dict.fromkeys(split_labels(text)))
    return [int(index[mid]) for mid in mids if mid in index], [mid for mid in mids if mid not in index]


def resolve_path(text: str, folder: Path) -> Path:
    """A path of the metadata: back-slashes are separators, relative paths are relative to the metadata's folder."""
    # A drive letter makes a path absolute for Windows only; elsewhere it would be an odd folder name.
    return folder / Path(PurePosixPath(text.replace("\\", "/")))


def read_metadata(path: str | Path) -> list[dict[str, Any]]:
    """The items of a metadata file, each a dictionary.

    Raises
    ------
    DataError
        If it cannot be read, is no JSON, or holds no items.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"The metadata {path.name} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"The metadata {path.name} is not valid JSON.", _FORMAT) from error
    items = content.get("data") if isinstance(content, dict) else None
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise DataError(f"The metadata {path.name} has no list of items named 'data'.", _FORMAT)
    return items


def read_equiav_json(
    root: Path, *, metadata: str = "train.json", labels: str = "class_labels_indices.csv", fold: int | None = None
) -> ExampleSet:
    """Examples of a metadata file, with display names as labels.

    Parameters
    ----------
    root
        Folder with metadata and class table, or the metadata file itself.
    metadata, labels
        File names within the folder.
    fold
        Fold that the examples get, so that train.json and test.json can be told apart.

    Warns
    -----
    UserWarning
        If labels are not in the class table; they are skipped. Examples left without a label stay.

    Raises
    ------
    DataError
        If a file is not what it should be, or no audio is there.
    """
    root = Path(root)
    file = root if root.is_file() else root / metadata
    table = read_class_table(file.parent / labels)
    repeated = [name for name, count in Counter(table.names).items() if count > 1]
    if repeated:
        raise DataError(f"Two classes have the same display name {repeated[0]!r}.", "Rename one in the class table.")
    examples, unknown = [], Counter[str]()
    for number, item in enumerate(read_metadata(file), start=1):
        if not item.get("wav") or not isinstance(item["wav"], str):
            raise DataError(f"Item {number} of {file.name} names no sound file ('wav').", _FORMAT)
        indices, odd = known_labels(item.get("labels"), table.index)
        unknown.update(odd)
        names = tuple(table.names[i] for i in indices)
        examples.append(Example(resolve_path(item["wav"], file.parent), names, fold))
    if unknown:
        warnings.warn(
            f"{unknown.total()} labels in {file.name} are not in the class table and were skipped "
            f"({', '.join(list(unknown)[:5])}).",
            stacklevel=2,
        )
    return collect(examples, table.names)
