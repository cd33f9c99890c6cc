"""AudioSet tables: pickles and .csv, order of published outputs, hostile cells."""

from __future__ import annotations

import pickle
from pathlib import Path

import pandas as pd
import pytest

from models.data.audioset_table import audioset_classes, published_outputs, read_audioset_tables
from models.errors import DataError

ROWS = {
    "video": ["abc_0_10.mp4", "../x_30_40.mp4", "gone_1_11.mp4"], "classes": [["Speech"], ["Rain", "Thunder"], ["Dog"]],
    "class_ids": [[0], [3, 526], [74]],
}  # fmt: skip


def test_published_outputs_are_shifted() -> None:
    names, outputs = audioset_classes(), published_outputs()
    assert len(names) == len(outputs) == len(set(names)) == 527
    assert names[0] == outputs[526] == "Speech" and outputs[2] == names[3] and outputs[525] == names[526]


@pytest.mark.parametrize("suffix", [".pkl", ".csv"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(ROWS)
    path = tmp_path / f"test{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_pickle(path)
    for name in ("abc_0_10.flac", "x_30_40.wav"):
        (tmp_path / name).write_bytes(b"")
    found = read_audioset_tables(tmp_path)
    names = audioset_classes()
    assert [example.labels for example in found.examples] == [("Speech",), (names[3], names[526])]
    assert [example.path.name for example in found.examples] == ["abc_0_10.flac", "x_30_40.wav"]
    assert all(example.path.parent == tmp_path and example.fold == 5 for example in found.examples)
    assert found.describe_missing().startswith("1 files are missing (gone_1_11.flac")


@pytest.mark.parametrize("cell", ["__import__('os')", "[600]", "[-1]", "dog", "[[1]]"])
def test_wrong_cells_are_refused(tmp_path: Path, cell: str) -> None:
    pd.DataFrame({"video": ["a.mp4"], "class_ids": [cell]}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match="class number"):
        read_audioset_tables(tmp_path)


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    (tmp_path / "test.pkl").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="not allowed"):
        read_audioset_tables(tmp_path)
    with pytest.raises(DataError, match="There is no table"):
        read_audioset_tables(tmp_path / "audio")
