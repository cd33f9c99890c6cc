"""Class names: files that list them, and the published lists that a number of classes may stand for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from models.errors import CheckpointError
from models.import_settings import label_groups_of
from models.network import NetworkConfig

_NAME_COLUMNS = ("display_name", "name", "label", "class", "class_name", "category")
_INDEX_COLUMNS = ("index", "class_id", "id", "idx")
_MAX_LENGTH = 200
_FORMATS = "Give a .txt (one name a line), .csv (index and name) or .json (a list, or names by index) file."


def known_label_sets(family: str) -> dict[str, list[str]]:
    """Published lists by data set, in the order in which published checkpoints of a family have their outputs."""
    from models.data.audioset_table import audioset_classes
    from models.data.speech_commands import WORDS
    from models.data.vggsound import vggsound_classes
    from models.layers.hetero_settings import AUDIOSET_33

    sets = {"AudioSet": audioset_classes(), "VGG-Sound": [name for name, _ in vggsound_classes()]}
    if family == "ast":
        sets["Speech Commands"] = list(WORDS)
    if family == "hetero_graph":
        sets["AudioSet (33 classes)"] = list(AUDIOSET_33)
    return sets


def read_labels(path: Path) -> list[str]:
    """Class names in the order of the outputs.

    Text: one name a line. Tables: a column with the name (``display_name``, ``name``, ``label``, ``class``) and, where there
    is one, a column with the index (``index``, ``class_id``, ``id``), which gives the order. JSON: a list, names by index, or
    a table with ``id2label`` or ``labels``.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is empty, repeats a name, or its indices are not 0, 1, 2, ...
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The label file {path.name} cannot be read as text.", _FORMATS) from error
    suffix = path.suffix.lower()
    if suffix == ".json":
        labels = _from_json(text, path.name)
    elif suffix in (".csv", ".tsv"):
        labels = _from_table(text, path.name, "\t" if suffix == ".tsv" else ",")
    else:
        labels = text.splitlines()
    labels = [label.strip() for label in labels]
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise CheckpointError(f"The label file {path.name} holds no names.", _FORMATS)
    for number, label in enumerate(labels):
        if not label or len(label) > _MAX_LENGTH or re.search(r"[\x00-\x1f]", label):
            raise CheckpointError(f"Name {number} in {path.name} is empty, too long, or no plain text.", _FORMATS)
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None:
        raise CheckpointError(f"The label file {path.name} names {repeated!r} twice.", "Rename one of the two.")
    return labels


def _from_json(text: str, name: str) -> list[str]:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"The label file {name} is not valid JSON.", _FORMATS) from error
    for key in ("id2label", "labels", "classes"):
        if isinstance(content, dict) and isinstance(content.get(key), (dict, list)):
            content = content[key]
    if isinstance(content, list) and all(isinstance(label, str) for label in content):
        return list(content)
    if isinstance(content, dict) and content:
        # Either {"0": "dog"} or {"dog": 0}.
        by_name = all(isinstance(value, int) for value in content.values())
        pairs = [(v, k) for k, v in content.items()] if by_name else list(content.items())
        return _in_order(pairs, name)
    raise CheckpointError(f"The label file {name} is neither a list of names nor names by index.", _FORMATS)


def _from_table(text: str, name: str, delimiter: str) -> list[str]:
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True) if row]
    except csv.Error as error:
        raise CheckpointError(f"The label file {name} is not a table: {error}.", _FORMATS) from error
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    name_at = next((header.index(column) for column in _NAME_COLUMNS if column in header), None)
    index_at = next((header.index(column) for column in _INDEX_COLUMNS if column in header), None)
    if name_at is None:
        # No header: names alone, or an index and a name.
        name_at = 1 if len(rows[0]) > 1 and rows[0][0].strip().isdigit() else 0
        index_at = 0 if name_at else None
    else:
        rows = rows[1:]
    if any(len(row) <= max(name_at, index_at or 0) for row in rows):
        raise CheckpointError(f"The label file {name} has rows with too few columns.", _FORMATS)
    if index_at is None:
        return [row[name_at] for row in rows]
    return _in_order([(row[index_at], row[name_at]) for row in rows], name)


def _in_order(pairs: Sequence[tuple[Any, Any]], name: str) -> list[str]:
    try:
        numbered = sorted((int(index), str(label)) for index, label in pairs)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The indices in {name} are not whole numbers.", _FORMATS) from error
    if [index for index, _ in numbered] != list(range(len(numbered))):
        raise CheckpointError(f"The indices in {name} are not 0, 1, 2, ... without a gap.", _FORMATS)
    return [label for _, label in numbered]


def known_set_of(labels: Sequence[str], family: str) -> str | None:
    """The published list that most of some names come from, None if there is none."""
    given = set(labels)
    for title, names in known_label_sets(family).items():
        if len(given & set(names)) > 0.5 * len(given) and len(given) > 0.5 * len(names):
            return title
    return None


def choose_labels(
    path: Path | str | None, family: str, settings: NetworkConfig, cfg: Any, notes: list[str]
) -> tuple[list[str], str]:
    """Class names of a checkpoint and where they come from; what is odd about them is appended to `notes`.

    Parameters
    ----------
    path
        Label file; None: the family's published list with as many classes, else numbers.
    cfg
        Settings text inside the checkpoint, which may name its data set.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or its names are not those of the checkpoint.
    """
    n_classes = settings.n_classes
    known = known_label_sets(family)
    if family == "play_it_back" and not getattr(settings, "corrected", False):
        from models.data.audioset_table import published_outputs

        known["AudioSet"] = published_outputs()
    fitting = next((title for title, names in known.items() if len(names) == n_classes), None)
    if path is None:
        if family == "equiav_pretraining":
            notes.append("This model has no classes: its outputs are the dimensions of an embedding.")
            return [f"dimension {i}" for i in range(n_classes)], "numbers"
        if fitting is not None:
            return list(known[fitting]), fitting
        notes.append(f"The names of the {n_classes} classes are not known; give a file of labels to name them.")
        groups = label_groups_of(settings)
        if len(groups) == 2:
            pairs = zip(("verb", "noun"), groups, strict=True)
            return [f"{kind}: {i}" for kind, size in pairs for i in range(size)], "numbers"
        return [f"class {i}" for i in range(n_classes)], "numbers"
    path = Path(path)
    given = read_labels(path)
    origin = known_set_of(given, family)
    if len(given) != n_classes:
        whose = f" (they are those of {origin})" if origin is not None else ""
        raise CheckpointError(
            f"{path.name} holds {len(given)} labels{whose}, but the checkpoint has {n_classes} classes.",
            "Use the label file that the model was trained with.",
        )
    if fitting is not None and given != known[fitting]:
        if origin != fitting and _data_set(cfg) == fitting:
            raise CheckpointError(
                f"The labels in {path.name} are of another data set: the checkpoint was trained on {fitting}.",
                "Leave the labels out, or use the file that the model was trained with.",
            )
        order = "are in another order" if set(given) == set(known[fitting]) else "have other names"
        notes.append(f"{fitting} has as many classes, but the labels in {path.name} {order}.")
    return given, path.name


def _data_set(cfg: Any) -> str | None:
    """The data set that the settings inside a published checkpoint name."""
    names = {"vggsound": "VGG-Sound", "audioset": "AudioSet"}
    try:
        train = yaml.safe_load(cfg)["TRAIN"]["DATASET"] if isinstance(cfg, str) else None
    except (yaml.YAMLError, KeyError, TypeError):
        return None
    return names.get(str(train).lower())
