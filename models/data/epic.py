"""EPIC-KITCHENS-100 and EPIC-SOUNDS: annotated parts of long kitchen recordings.

Damen et al.: Rescaling Egocentric Vision, IJCV 2022, arXiv 2006.13256. Huh et al.: EPIC-SOUNDS, ICASSP 2023, arXiv
2302.00646. Annotations: github.com/epic-kitchens/epic-kitchens-100-annotations and epic-sounds-annotations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from models.data.examples import Example, ExampleSet, collect
from models.data.tables import first_file, read_rows, whole_number
from models.data.vggsound import media_by_stem
from models.errors import DataError

FOLDS = {"train": 1, "validation": 5}
HDF5_RATE = 24000
N_VERBS, N_NOUNS = 97, 300
_TIMESTAMP = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


def seconds_of(timestamp: str) -> float:
    """Seconds of ``HH:MM:SS.cc`` or ``HH:MM:SS.mmm``.

    The fraction is a decimal one whatever its length; published code reads three digits as hundredths, ten times too long.

    Raises
    ------
    DataError
        If it is not such a time.
    """
    match = _TIMESTAMP.fullmatch(str(timestamp).strip())
    if match is None:
        raise DataError(f"{str(timestamp)[:40]!r} is not a time of the form HH:MM:SS.cc.")
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def read_epic_kitchens(
    root: Path, *, audio: Path | str | None = None, segments: Path | str | None = None
) -> ExampleSet:
    """Actions of EPIC-KITCHENS-100 with the labels ``verb: ...`` and ``noun: ...``; training is fold 1, validation 5.

    The classes are the 97 verbs before the 300 nouns, as published models order their two heads. Names come from
    ``EPIC_100_verb_classes.csv`` and ``EPIC_100_noun_classes.csv`` where they are, else they are numbers.

    Parameters
    ----------
    root
        Folder with ``EPIC_100_train`` and ``EPIC_100_validation``, ``.pkl`` or ``.csv``.
    audio
        Folder with a recording per video (``P01_11.wav``), or an HDF5 file with a data set per video at 24 kHz; default
        ``audio`` in `root`.
    segments
        Write every action into this folder as a WAV file of its own (once) and use that. Needed for HDF5; without it the
        examples point into the long recordings by `start` and `stop`.

    Raises
    ------
    DataError
        If annotations or audio cannot be used.
    """
    root = Path(root)
    verbs, nouns = _class_names(root, "verb", N_VERBS), _class_names(root, "noun", N_NOUNS)
    parts = []
    for split, fold in FOLDS.items():
        path = first_file(root, (f"EPIC_100_{split}.pkl", f"EPIC_100_{split}.csv"))
        if path is None:
            continue
        columns = ("narration_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
        for number, row in enumerate(read_rows(path, columns), start=1):
            where = f"{path.name}, row {number}"
            verb, noun = _index(row, "verb_class", N_VERBS, where), _index(row, "noun_class", N_NOUNS, where)
            parts.append((_part(row, "narration_id", where), (verbs[verb], nouns[noun]), fold))
    if not parts:
        raise DataError(f"There is neither EPIC_100_train nor EPIC_100_validation (.pkl or .csv) in {root}.")
    return _with_audio(parts, [*verbs, *nouns], root, audio, segments)


def read_epic_sounds(root: Path, *, audio: Path | str | None = None, segments: Path | str | None = None) -> ExampleSet:
    """Sounds of EPIC-SOUNDS, 44 classes in the order of their ids; training is fold 1, validation 5.

    Parameters as for `read_epic_kitchens`; the tables are ``EPIC_Sounds_train`` and ``EPIC_Sounds_validation``.
    """
    root = Path(root)
    parts, names = [], dict[int, str]()
    for split, fold in FOLDS.items():
        path = first_file(root, (f"EPIC_Sounds_{split}.pkl", f"EPIC_Sounds_{split}.csv"))
        if path is None:
            continue
        columns = ("annotation_id", "video_id", "start_timestamp", "stop_timestamp", "class", "class_id")
        for number, row in enumerate(read_rows(path, columns), start=1):
            where = f"{path.name}, row {number}"
            index = whole_number(row, "class_id", where)
            if names.setdefault(index, str(row["class"])) != str(row["class"]):
                raise DataError(
                    f"{where}: class {index} has two names, {names[index]!r} and {str(row['class'])[:60]!r}."
                )
            parts.append((_part(row, "annotation_id", where), (names[index],), fold))
    if not parts:
        raise DataError(f"There is neither EPIC_Sounds_train nor EPIC_Sounds_validation (.pkl or .csv) in {root}.")
    return _with_audio(parts, [names[index] for index in sorted(names)], root, audio, segments)


def _class_names(root: Path, kind: str, count: int) -> list[str]:
    names = [f"{kind}: {index}" for index in range(count)]
    path = root / f"EPIC_100_{kind}_classes.csv"
    if path.is_file():
        for number, row in enumerate(read_rows(path, ("id", "key")), start=2):
            names[_index(row, "id", count, f"{path.name}, line {number}")] = f"{kind}: {row['key']}"
    return names


def _index(row: dict[str, Any], column: str, count: int, where: str) -> int:
    index = whole_number(row, column, where)
    if not 0 <= index < count:
        raise DataError(f"{where}: {column} is {index}, but there are {count} classes, counted from 0.")
    return index


def _part(row: dict[str, Any], name: str, where: str) -> tuple[str, str, float, float]:
    """Name, video, start and stop of an annotated part."""
    try:
        start, stop = seconds_of(row["start_timestamp"]), seconds_of(row["stop_timestamp"])
    except DataError as error:
        raise DataError(f"{where}: {error.message}") from error
    if not start < stop:
        raise DataError(f"{where}: it ends at {stop} s, before it starts ({start} s).")
    # Only base names: an annotation must not reach outside the audio folder.
    return Path(str(row[name])).name, Path(str(row["video_id"])).name, start, stop


def _with_audio(
    parts: Sequence[tuple[tuple[str, str, float, float], tuple[str, ...], int]],
    labels: Sequence[str],
    root: Path,
    audio: Path | str | None,
    segments: Path | str | None,
) -> ExampleSet:
    source = Path(audio) if audio is not None else root / "audio"
    hdf5 = source.suffix.lower() in {".hdf5", ".h5"}
    if hdf5 and segments is None:
        raise DataError("Audio in an HDF5 file has to be cut into segments.", "Give a folder for them (segments).")
    if segments is not None:
        wanted = [part for part, _, _ in parts]
        folder = Path(segments)
        written = _cut_hdf5(source, wanted, folder) if hdf5 else _cut_files(source, wanted, folder)
        examples = [Example(written[part[0]], names, fold) for part, names, fold in parts]
        return collect(examples, labels)
    files = media_by_stem(source)
    examples = [
        Example(files.get(video, source / f"{video}.wav"), names, fold, start, stop)
        for (_, video, start, stop), names, fold in parts
    ]
    return collect(examples, labels)


def _cut_files(source: Path, parts: Sequence[tuple[str, str, float, float]], folder: Path) -> dict[str, Path]:
    """Segments of recordings in a folder; those whose recording is missing are named but not written."""
    files, paths = media_by_stem(source), {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, video, start, stop in parts:
        paths[name] = folder / f"{name}.wav"
        if paths[name].is_file() or video not in files:
            continue
        try:
            with soundfile.SoundFile(files[video]) as sound:
                first, last = round(start * sound.samplerate), round(stop * sound.samplerate)
                if first >= sound.frames:
                    continue
                sound.seek(first)
                _write(paths[name], sound.read(last - first, dtype="float32"), sound.samplerate)
        except (soundfile.SoundFileError, OSError) as error:
            raise DataError(f"{files[video].name} cannot be read as sound: {error}", "Convert it to WAV.") from error
    return paths


def _cut_hdf5(source: Path, parts: Sequence[tuple[str, str, float, float]], folder: Path) -> dict[str, Path]:
    """Segments of one-dimensional data sets at 24 kHz; only the slices that are needed are read."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    try:
        with h5py.File(source, "r") as file:
            for name, video, start, stop in parts:
                paths[name] = folder / f"{name}.wav"
                # A link could point to another file; only data sets of this one are read.
                if paths[name].is_file() or not isinstance(file.get(video, getlink=True), h5py.HardLink):
                    continue
                data = file[video]
                if not isinstance(data, h5py.Dataset) or data.ndim != 1 or data.external:
                    raise DataError(f"{source.name}: {video} is not a one-dimensional recording.")
                samples = np.asarray(data[round(start * HDF5_RATE) : round(stop * HDF5_RATE)], dtype=np.float32)
                if samples.size:
                    _write(paths[name], samples, HDF5_RATE)
    except OSError as error:
        raise DataError(f"{source.name} cannot be read as HDF5: {error}.") from error
    return paths


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write to a temporary name first, so that an interrupted run leaves no half segment."""
    temporary = path.with_name(f".{path.name}.tmp")
    soundfile.write(temporary, samples, rate, subtype="FLOAT", format="WAV")
    temporary.replace(path)
