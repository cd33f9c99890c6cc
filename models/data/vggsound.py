"""VGG-Sound: 309 classes of sounds in ten-second excerpts of videos.

Chen, Xie, Vedaldi, Zisserman: VGGSound: A Large-scale Audio-Visual Dataset. ICASSP 2020, arXiv 2004.14368. The official
annotation is CC BY 4.0; the videos have to be collected by everyone for themselves, so missing ones are normal.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.data.examples import Example, ExampleSet, collect
from models.data.tables import first_file, read_rows, whole_number
from models.errors import DataError

LABELS = Path(__file__).resolve().parent.parent.parent / "assets" / "labels" / "vggsound.csv"
MEDIA = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".mp4", ".webm", ".mkv")
FOLDS = {"train": 1, "test": 5}
WHERE_TO_GET_IT = (
    "Give a folder with vggsound.csv, or train and test tables (.csv or .pkl), from "
    "https://www.robots.ox.ac.uk/~vgg/data/vggsound/, and the clips in 'audio', named <YouTube id>_<start second>.wav."
)


def vggsound_classes() -> list[tuple[str, str]]:
    """Name and category of all classes in the order of published checkpoints' outputs (that of the official stat.csv)."""
    with LABELS.open(newline="", encoding="utf-8") as file:
        return [(row["name"], row["category"]) for row in csv.DictReader(file)]


def read_vggsound(
    root: Path, *, audio: Path | str | None = None, categories: Sequence[str] | None = None
) -> ExampleSet:
    """Examples of a VGG-Sound folder; the training split is fold 1, the test split fold 5.

    Parameters
    ----------
    root
        Folder with ``vggsound.csv`` (id, start second, label, split; no header), or with ``train`` and ``test`` tables:
        ``.pkl`` with the columns video, class, class_id, or ``.csv`` (video file, label; no header). Without any of them,
        folders named after classes, below ``train`` and ``test`` or directly in `root`.
    audio
        Folder of the clips, any common sound or video format; default ``audio`` in `root`, else `root`.
    categories
        Only these classes, in this order.

    Raises
    ------
    DataError
        If there is no annotation, it names unknown classes, or no clip is there.
    """
    root = Path(root)
    known = [name for name, _ in vggsound_classes()]
    labels = list(categories) if categories is not None else known
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise DataError(f"VGG-Sound has no class named {unknown[0]!r}.", "See assets/labels/vggsound.csv.")
    annotated = list(_annotated(root, known))
    if annotated:
        folder = Path(audio) if audio is not None else (root / "audio" if (root / "audio").is_dir() else root)
        files = media_by_stem(folder)
        examples = [
            Example(files.get(stem, folder / f"{stem}.wav"), (label,), FOLDS[split])
            for stem, label, split in annotated
            if label in set(labels)
        ]
        return collect(examples, labels)
    examples = list(_from_folders(Path(audio) if audio is not None else root, labels))
    if not examples:
        raise DataError(
            f"There is no VGG-Sound annotation and no folder named after a class in {root}.", WHERE_TO_GET_IT
        )
    return collect(examples, labels)


def media_by_stem(folder: Path) -> dict[str, Path]:
    """Media files of a folder by their name without suffix; of several formats the first in `MEDIA` wins."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if path.suffix.lower() in MEDIA]
    return {path.stem: path for path in sorted(found, key=lambda p: -MEDIA.index(p.suffix.lower()))}


def _annotated(root: Path, known: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """File stem, label and split of every annotated clip."""
    whole = root / "vggsound.csv"
    if whole.is_file():
        for number, row in enumerate(read_rows(whole, ("id", "start"), ("id", "start", "label", "split")), start=1):
            where = f"{whole.name}, line {number}"
            stem = f"{row['id']}_{whole_number(row, 'start', where):06d}"
            yield _checked(stem, row["label"], row["split"], known, where)
        return
    for split in FOLDS:
        path = first_file(root, (f"{split}.pkl", f"{split}.csv"))
        if path is None:
            continue
        pickled = path.suffix == ".pkl"
        rows = read_rows(path, ("video", "class"), None if pickled else ("video", "class"))
        for number, row in enumerate(rows, start=1):
            where = f"{path.name}, row {number}"
            label = str(row["class"])
            if "class_id" in row:
                index = whole_number(row, "class_id", where)
                if not (0 <= index < len(known) and known[index] == label):
                    raise DataError(
                        f"{where}: class {index} is {label!r}, but published models order the classes differently.",
                        "The order must be that of assets/labels/vggsound.csv.",
                    )
            # The suffix of the video always has four characters, dot included.
            yield _checked(str(row["video"])[:-4], label, split, known, where)


def _checked(stem: str, label: str, split: str, known: Sequence[str], where: str) -> tuple[str, str, str]:
    if label not in known:
        raise DataError(f"{where}: {label[:60]!r} is not a class of VGG-Sound.", "See assets/labels/vggsound.csv.")
    if split not in FOLDS:
        raise DataError(f"{where}: the split {split[:20]!r} is neither train nor test.")
    # Only the base name: an annotation must not reach outside the audio folder.
    return Path(stem).name, label, split


def _from_folders(root: Path, labels: Sequence[str]) -> Iterator[Example]:
    """Clips sorted into folders named after their class."""
    splits = [split for split in FOLDS if (root / split).is_dir()]
    for base, fold in [(root / split, FOLDS[split]) for split in splits] or [(root, FOLDS["train"])]:
        for label in labels:
            for path in media_by_stem(base / label).values():
                yield Example(path, (label,), fold)
