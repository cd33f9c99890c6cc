"""Annotations of AudioSet and Speech Commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data.audioset_json import (
    label_lists,
    read_audioset_json,
    read_audioset_segments,
    write_audioset_json,
)
from models.data.speech_commands import TEST, TRAIN, VALIDATION, WORDS, read_speech_commands
from models.errors import DataError

TABLE = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "class_labels_indices.csv").write_text(TABLE)
    (tmp_path / "audio").mkdir()
    for name in ("a.wav", "b.flac"):
        (tmp_path / "audio" / name).write_bytes(b"")
    return tmp_path


def write(path: Path, *items: tuple[str, str]) -> None:
    path.write_text(json.dumps({"data": [{"wav": wav, "labels": labels} for wav, labels in items]}))


def test_json_files_are_folds_and_flac_stands_in_for_wav(folder: Path) -> None:
    write(folder / "train.json", ("audio/a.wav", "/m/09x0r,/m/05zppz"), ("audio/gone.wav", "/m/09x0r"))
    write(folder / "eval.json", ("audio/b.wav", "/m/05zppz"))
    examples = read_audioset_json(folder)
    assert examples.labels == ("Speech", "Male speech, man speaking")
    assert [(e.path.name, e.labels, e.fold) for e in examples.examples] == [
        ("a.wav", ("Speech", "Male speech, man speaking"), 1), ("b.flac", ("Male speech, man speaking",), 2)
    ]  # fmt: skip
    assert [path.name for path in examples.missing] == ["gone.wav"]


def test_paths_of_another_machine_are_looked_for_by_name(folder: Path) -> None:
    write(folder / "train.json", ("/data/sls/a.wav", "/m/09x0r"), ("D:\\sounds\\b.wav", "/m/09x0r"))
    examples = read_audioset_json(folder, annotations=["train.json"], audio="audio")
    assert [e.path.name for e in examples.examples] == ["a.wav", "b.flac"]


def test_unknown_labels_are_named_and_skipped(folder: Path) -> None:
    write(folder / "train.json", ("audio/a.wav", "/m/09x0r,/m/unknown"))
    with pytest.warns(UserWarning, match="/m/unknown"):
        examples = read_audioset_json(folder, annotations=["train.json"])
    assert examples.examples[0].labels == ("Speech",)


def test_annotations_that_are_something_else_are_refused(folder: Path) -> None:
    (folder / "train.json").write_text("[1, 2]")
    with pytest.raises(DataError):
        read_audioset_json(folder, annotations=["train.json"])
    write(folder / "train.json", ("audio/none.wav", "/m/09x0r"))
    with pytest.raises(DataError, match="None of the 1 files"):
        read_audioset_json(folder, annotations=["train.json"])


def test_written_annotations_read_the_same(folder: Path) -> None:
    write(folder / "train.json", ("audio/a.wav", "/m/09x0r"), ("audio/b.flac", "/m/05zppz"))
    examples = read_audioset_json(folder, annotations=["train.json"])
    mids = {"Speech": "/m/09x0r", "Male speech, man speaking": "/m/05zppz"}
    write_audioset_json(folder / "again.json", examples, mids)
    assert read_audioset_json(folder, annotations=["again.json"]) == examples
    assert label_lists(json.loads((folder / "again.json").read_text())["data"]) == [["/m/09x0r"], ["/m/05zppz"]]


def test_segment_tables(folder: Path) -> None:
    (folder / "eval.csv").write_text(
        "# Segments csv created\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
        'a, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n../../etc/b, 0.000, 10.000, "/m/09x0r"\n'
    )
    examples = read_audioset_segments(folder, segments={"eval.csv": "audio"})
    assert [(e.path, len(e.labels)) for e in examples.examples] == [
        (folder / "audio" / "a.wav", 2), (folder / "audio" / "b.flac", 1)
    ]  # fmt: skip
    (folder / "eval.csv").write_text("a, 30.0\n")
    with pytest.raises(DataError, match="four columns"):
        read_audioset_segments(folder, segments={"eval.csv": "audio"})


def test_speech_commands_are_split_by_their_lists(tmp_path: Path) -> None:
    for name in ("yes/one.wav", "yes/two.wav", "no/three.wav", "_background_noise_/hum.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="validation_list"):
        read_speech_commands(tmp_path)
    (tmp_path / "validation_list.txt").write_text("yes/two.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/three.wav\nno/gone.wav\n../../outside/yes/four.wav\n")
    examples = read_speech_commands(tmp_path)
    folds = {example.path.name: example.fold for example in examples.examples}
    assert folds == {"one.wav": TRAIN, "two.wav": VALIDATION, "three.wav": TEST}
    assert sorted(path.name for path in examples.missing) == ["four.wav", "gone.wav"]
    assert len(examples.labels) == len(set(WORDS)) == 35
