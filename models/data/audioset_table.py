"""AudioSet in the tables that Play It Back was trained from: video, class names and indices.

J. F. Gemmeke et al.: Audio Set: An ontology and human-labeled dataset for audio events. ICASSP 2017. The class names are
those of the AudioSet ontology (CC BY 4.0).
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path
from typing import Any

from models.data.examples import Example, ExampleSet, collect
from models.data.tables import first_file, read_rows
from models.errors import DataError

LABELS = Path(__file__).resolve().parent.parent.parent / "assets" / "labels" / "audioset.csv"
TABLES = {1: ("as2m_train", "as500k_train", "train"), 5: ("test",)}
MEDIA = (".flac", ".wav", ".ogg", ".mp3")


def audioset_classes() -> list[str]:
    """The 527 display names in the order of ``class_labels_indices.csv``."""
    with LABELS.open(newline="", encoding="utf-8") as file:
        return [row["name"] for row in csv.DictReader(file)]


def published_outputs() -> list[str]:
    """Names in the order of the outputs of published Play It Back models, which are shifted by one class.

    Output j is class ``(j + 1) mod 527``: the published loader counts classes from 1, so Speech is the last output.
    """
    names = audioset_classes()
    return [*names[1:], names[0]]


def read_audioset_tables(root: Path, *, audio: Path | str | None = None) -> ExampleSet:
    """Examples of tables with the columns video, classes, class_ids; training tables are fold 1, ``test`` is fold 5.

    Parameters
    ----------
    root
        Folder of ``as2m_train``, ``as500k_train`` or ``train``, and ``test`` (``.pkl`` or ``.csv``).
    audio
        Folder of the clips, named like the videos; default ``audio`` in `root`, else `root`.

    Raises
    ------
    DataError
        If there is no table, it is not as described, or no clip is there.
    """
    root = Path(root)
    folder = Path(audio) if audio is not None else (root / "audio" if (root / "audio").is_dir() else root)
    names = audioset_classes()
    examples = []
    for fold, stems in TABLES.items():
        path = first_file(root, [f"{stem}{suffix}" for stem in stems for suffix in (".pkl", ".csv")])
        if path is None:
            continue
        for number, row in enumerate(read_rows(path, ("video", "class_ids")), start=1):
            labels = tuple(
                names[index] for index in _indices(row["class_ids"], f"{path.name}, row {number}", len(names))
            )
            # Only the base name: an annotation must not reach outside the audio folder.
            stem = Path(str(row["video"])).name.removesuffix(".mp4")
            examples.append(Example(_media(folder, stem), labels, fold))
    if not examples:
        raise DataError(
            f"There is no table (train or test, .pkl or .csv) in {root}.",
            "Give the folder of the tables with the columns video, classes, class_ids.",
        )
    return collect(examples, names)


def _media(folder: Path, stem: str) -> Path:
    return next((folder / f"{stem}{suffix}" for suffix in MEDIA if (folder / f"{stem}{suffix}").is_file()),
                folder / f"{stem}{MEDIA[0]}")  # fmt: skip


def _indices(value: Any, where: str, count: int) -> list[int]:
    """Class indices of a cell: a list, or its text as tables of comma-separated values hold it."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
        indices = [int(index) for index in found]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"{where}: {str(value)[:40]!r} is not a list of class numbers.") from error
    if not all(0 <= index < count for index in indices):
        raise DataError(f"{where}: a class number is not between 0 and {count - 1}.")
    return indices
