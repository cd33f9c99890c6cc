"""Videos sorted into one folder per class, as the published event-graph network's data are kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from models.data.examples import Example, ExampleSet
from models.errors import DataError

LAYOUT = "Give the folder that holds one folder of .mp4 files for each class, named after the class."


def read_av_folders(
    root: Path, *, classes: Sequence[str] | None = None, n_folds: int = 10, seed: int = 0
) -> ExampleSet:
    """Examples of ``root/<class>/<anything>.mp4``; one class a clip.

    Folds 1..`n_folds` are drawn class by class, so that every fold has its share of every class; they depend on the file
    names and `seed` alone.

    Parameters
    ----------
    classes
        Only these, in the order of their indices; default all, in alphabetical order. Folders of classes that are not there are
        listed as missing.

    Raises
    ------
    DataError
        If there is no folder or no clip.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.", LAYOUT)
    if n_folds < 1:
        raise DataError(f"Examples cannot be put into {n_folds} folds.", "Give a number of at least 1.")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    labels = list(classes) if classes is not None else found
    examples: list[Example] = []
    missing: list[Path] = []
    for label in labels:
        # A name from a recipe must not reach outside the data set.
        clips = []
        if label in found:
            clips = sorted(p for p in (root / label).iterdir() if p.suffix.lower() == ".mp4" and p.is_file())
        if not clips:
            missing.append(root / Path(label).name)
            continue
        folds = [1 + index % n_folds for index in range(len(clips))]
        random.Random(f"{seed} {label}").shuffle(folds)
        examples += [Example(clip, (label,), fold) for clip, fold in zip(clips, folds, strict=True)]
    if not examples:
        raise DataError(f"There is no .mp4 file in the class folders of {root}.", LAYOUT)
    return ExampleSet(tuple(examples), tuple(labels), tuple(missing))
