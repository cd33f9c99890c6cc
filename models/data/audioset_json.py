"""AudioSet-style annotations of the published taggers: JSON lists, class tables, and Google's segment tables.

J. F. Gemmeke et al.: Audio Set: An ontology and human-labeled dataset for audio events. ICASSP 2017.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from models.data.equiav_json import (
    ClassTable,
    known_labels,
    read_class_table,
    read_metadata,
    resolve_path,
    split_labels,
)
from models.data.examples import Example, ExampleSet, collect
from models.errors import DataError

# Published annotations name .wav files; the same recordings are mostly kept as .flac.
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def read_audioset_json(
    root: Path,
    *,
    annotations: Sequence[str] = ("train.json", "eval.json"),
    labels: str = "class_labels_indices.csv",
    audio: str | None = None,
) -> ExampleSet:
    """Examples of files ``{"data": [{"wav": path, "labels": "mid1,mid2"}, ...]}``, with display names as labels.

    Parameters
    ----------
    root
        Folder of the annotation and the class table.
    annotations
        Files; the examples of the first are fold 1, of the second fold 2, and so on.
    labels
        Class table with the columns index, mid, display_name.
    audio
        Folder (within `root`, or absolute) in which files are looked for by their base name, whatever path the annotation
        gives. Default: the annotation's paths. A missing file may lie there with another suffix, such as flac.

    Warns
    -----
    UserWarning
        If labels are not in the class table; they are skipped.

    Raises
    ------
    DataError
        If a file is not what it should be, or no audio is there.
    """
    root = Path(root)
    if isinstance(annotations, str):
        annotations = [annotations]
    table = read_class_table(root / labels)
    names = _unique_names(table)
    examples, unknown = [], Counter[str]()
    for fold, annotation in enumerate(annotations, start=1):
        for number, item in enumerate(read_metadata(root / annotation), start=1):
            wav = item.get("wav")
            if not wav or not isinstance(wav, str):
                raise DataError(f"Item {number} of {annotation} names no sound file ('wav').")
            path = resolve_path(wav, (root / annotation).parent)
            if audio is not None:
                path = root / audio / path.name
            indices, odd = known_labels(item.get("labels"), table.index)
            unknown.update(odd)
            examples.append(Example(with_any_suffix(path), tuple(names[i] for i in indices), fold))
    _warn_about(unknown, ", ".join(annotations))
    return collect(examples, names)


def read_audioset_segments(
    root: Path,
    *,
    segments: dict[str, str],
    labels: str = "class_labels_indices.csv",
) -> ExampleSet:
    """Examples of Google's tables ``YTID, start, end, "mid,mid"``, cut into one file a segment.

    Parameters
    ----------
    root
        Folder of the tables and the class table.
    segments
        Table and the folder of its files ``{YTID}.wav`` (or flac), such as
        ``{"balanced_train_segments.csv": "balance_wav", "eval_segments.csv": "eval_wav"}``. The first table is fold 1.
    labels
        Class table.

    Raises
    ------
    DataError
        If a table is not what it should be, or no audio is there.
    """
    root = Path(root)
    table = read_class_table(root / labels)
    names = _unique_names(table)
    examples, unknown = [], Counter[str]()
    for fold, (file, folder) in enumerate(segments.items(), start=1):
        for number, row in _segment_rows(root / file):
            if len(row) < 4:
                raise DataError(f"{file}, line {number}: there have to be four columns (YTID, start, end, labels).")
            indices, odd = known_labels(row[3], table.index)
            unknown.update(odd)
            # Only the base name: an annotation must not reach outside its folder.
            name = PurePosixPath(row[0].strip().replace("\\", "/")).name
            path = with_any_suffix(root / folder / f"{name}.wav")
            examples.append(Example(path, tuple(names[i] for i in indices), fold))
    _warn_about(unknown, ", ".join(segments))
    return collect(examples, names)


def write_audioset_json(path: Path, examples: ExampleSet, mids: dict[str, str]) -> None:
    """Write examples in the published format.

    Parameters
    ----------
    mids
        Code of every label of `examples`; codes hold no commas.
    """
    data = [
        {"wav": str(example.path), "labels": ",".join(mids[label] for label in example.labels)}
        for example in examples.examples
    ]
    path.write_text(json.dumps({"data": data}, indent=1), encoding="utf-8")


def with_any_suffix(path: Path) -> Path:
    """The path itself, or the same name with another audio suffix if only that is there."""
    if path.is_file():
        return path
    return next((other for s in _SUFFIXES if (other := path.with_name(path.stem + s)).is_file()), path)


def label_lists(items: Iterable[dict[str, object]]) -> list[list[str]]:
    """Class codes of the items of a JSON list, for `models.training.sampling.sampling_weights`."""
    return [split_labels(str(item.get("labels") or "")) for item in items]


def _segment_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(enumerate(csv.reader(file, skipinitialspace=True), start=1))
    except OSError as error:
        raise DataError(f"The segment table {path.name} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"The segment table {path.name} is not a CSV file: {error}.") from error
    return [(number, row) for number, row in rows if row and not row[0].startswith("#")]


def _unique_names(table: ClassTable) -> tuple[str, ...]:
    repeated = [name for name, count in Counter(table.names).items() if count > 1]
    if repeated:
        raise DataError(f"Two classes have the same display name {repeated[0]!r}.", "Rename one in the class table.")
    return table.names


def _warn_about(unknown: Counter[str], where: str) -> None:
    if unknown:
        warnings.warn(
            f"{unknown.total()} labels in {where} are not in the class table and were skipped "
            f"({', '.join(list(unknown)[:5])}).",
            stacklevel=3,
        )
