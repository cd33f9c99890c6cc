"""Annotation formats of VGG-Sound, EPIC-KITCHENS and EPIC-SOUNDS, and pickles that must not run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import soundfile

from models.data.epic import read_epic_kitchens, read_epic_sounds, seconds_of
from models.data.restricted_pickle import read_pickled_table
from models.data.vggsound import read_vggsound, vggsound_classes
from models.errors import DataError


def wav(path: Path, seconds: float = 0.1, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(-0.5, 0.5, round(seconds * rate), dtype=np.float32), rate, subtype="FLOAT")


# --- pickles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("text", ["str", "object"])
@pytest.mark.parametrize("index", [None, ["P01_0", "P01_1", "P01_2"]])
def test_tables_are_read_as_pandas_reads_them(
    tmp_path: Path, protocol: int, text: str, index: list[str] | None
) -> None:
    frame = pd.DataFrame(
        {
            "video": ["a_000001.mp4", "b_000002.mp4", "c_000003.mp4"], "class": ["x", "é, y", "z"], "class_id": [0, 1, 2],
            "other": [5, 7, 9], "all": [["one"], [], ["two", "three"]], "share": [0.5, -1.0, 2.0],
            "good": [True, False, True],
        },
        index=index,
    ).astype({"video": text, "class": text})  # fmt: skip
    for table in (frame, frame.iloc[1:], frame[["class_id", "video"]], frame.iloc[::-1]):
        path = tmp_path / "table.pkl"
        path.write_bytes(pickle.dumps(table, protocol=protocol))
        found = read_pickled_table(path)
        assert found.columns == {name: table[name].tolist() for name in table.columns}
        assert found.index == table.index.tolist() and len(found) == len(table)


class Hostile:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.parts = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.parts


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "table.pkl"
    attacks: list[Any] = [
        Hostile(os.system, f"touch {marker}"), Hostile(eval, "1"), Hostile(exec, "1"), Hostile(getattr, "a", "upper"),
        Hostile(Path.touch, marker), Hostile(np.load, str(marker)), Hostile(pd.read_pickle, str(marker)),
        Hostile(bytearray, 2**62), Hostile(pd.eval, "1"),
        # A table with something hostile in a cell.
        pd.DataFrame({"a": pd.Series([Hostile(os.system, f"touch {marker}")], dtype=object)}),
        {"a": 1}, [1], np.zeros(3), pd.Series([1]), pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}),
    ]  # fmt: skip
    for attack in attacks:
        path.write_bytes(pickle.dumps(attack))
        with pytest.raises(DataError, match=r"table\.pkl"):
            read_pickled_table(path)
        assert not marker.exists()
    good = pickle.dumps(pd.DataFrame({"a": [1, 2]}))
    for damaged in (b"", b"junk", good[: len(good) // 2], b"\x80\x05]\x94(" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"table\.pkl"):
            read_pickled_table(path)


# --- VGG-Sound ---------------------------------------------------------------------------------------------------------


def test_classes_are_in_the_order_of_published_models() -> None:
    classes = vggsound_classes()
    assert len(classes) == 309 == len({name for name, _ in classes})
    assert [classes[i][0] for i in (0, 1, 2, 308)] == [
        "ambulance siren", "basketball bounce", "bird chirping, tweeting", "air horn",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["official", "split csv", "pickle"])
def test_vggsound_annotations(tmp_path: Path, layout: str) -> None:
    rows = [
        ("--abc_d", 30, "bird chirping, tweeting", "train"),
        ("xyz", 5, "air horn", "test"),
        ("gone", 0, "air horn", "test"),
    ]
    names = [name for name, _ in vggsound_classes()]
    if layout == "official":
        (tmp_path / "vggsound.csv").write_text("".join(f'{i},{s},"{c}",{p}\n' for i, s, c, p in rows))
    for split in ("train", "test"):
        part = [(f"{i}_{s:06d}.mp4", c, names.index(c)) for i, s, c, p in rows if p == split]
        if layout == "split csv":
            (tmp_path / f"{split}.csv").write_text("".join(f'{v},"{c}"\n' for v, c, _ in part))
        if layout == "pickle":
            pd.DataFrame(part, columns=["video", "class", "class_id"]).to_pickle(tmp_path / f"{split}.pkl")
    wav(tmp_path / "audio" / "--abc_d_000030.wav")
    wav(tmp_path / "audio" / "xyz_000005.wav")
    found = read_vggsound(tmp_path)
    assert [(e.path.name, e.labels, e.fold) for e in found.examples] == [
        ("--abc_d_000030.wav", ("bird chirping, tweeting",), 1), ("xyz_000005.wav", ("air horn",), 5),
    ]  # fmt: skip
    assert found.labels == tuple(names) and [p.name for p in found.missing] == ["gone_000000.wav"]
    assert len(read_vggsound(tmp_path, categories=["air horn"]).examples) == 1


def test_vggsound_folders_and_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no VGG-Sound annotation"):
        read_vggsound(tmp_path)
    wav(tmp_path / "test" / "air horn" / "anything.wav")
    found = read_vggsound(tmp_path, categories=["air horn"])
    assert [(e.path.name, e.fold) for e in found.examples] == [("anything.wav", 5)]
    with pytest.raises(DataError, match="no class named"):
        read_vggsound(tmp_path, categories=["unheard of"])
    for text, message in [
        ("a,x,air horn,train", "line 1: start is 'x'"), ("a,1,noise of nothing,train", "not a class"),
        ("a,1,air horn,dev", "neither train nor test"), ("../../etc/passwd,1,air horn,train", "None of the 1 files"),
    ]:  # fmt: skip
        (tmp_path / "vggsound.csv").write_text(text + "\n")
        with pytest.raises(DataError, match=message):
            read_vggsound(tmp_path)
    (tmp_path / "vggsound.csv").unlink()
    pd.DataFrame({"video": ["a_000001.mp4"], "class": ["air horn"], "class_id": [0]}).to_pickle(tmp_path / "train.pkl")
    with pytest.raises(DataError, match="order the classes differently"):
        read_vggsound(tmp_path)


# --- EPIC --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:01.10", 1.1), ("01:02:03.045", 3723.045), ("00:10:00", 600.0), ("0:0:5.5", 5.5)]
)
def test_timestamps(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "12", "00:61:00", "a:b:c", "00:00:-1.0", None])
def test_broken_timestamps(text: Any) -> None:
    with pytest.raises(DataError, match="HH:MM:SS"):
        seconds_of(text)


def kitchens(root: Path, pickled: bool) -> None:
    frame = pd.DataFrame(
        {
            "video_id": ["P01_11", "P02_05"], "start_timestamp": ["00:00:00.25", "00:00:00.00"],
            "stop_timestamp": ["00:00:00.75", "00:00:01.00"], "verb_class": [3, 0], "noun_class": [299, 1],
            "all_nouns": [["cup"], ["pan", "lid"]],
        },
        index=pd.Index(["P01_11_0", "P02_05_7"], name="narration_id"),
    )  # fmt: skip
    if pickled:
        frame.to_pickle(root / "EPIC_100_validation.pkl")
    else:
        frame.to_csv(root / "EPIC_100_validation.csv")
    (root / "EPIC_100_verb_classes.csv").write_text("id,key,instances,category\n3,open,\"['open']\",access\n")


@pytest.mark.parametrize("pickled", [True, False])
def test_kitchens_with_long_recordings(tmp_path: Path, pickled: bool) -> None:
    kitchens(tmp_path, pickled)
    wav(tmp_path / "audio" / "P01_11.wav", 2.0, 24000)
    found = read_epic_kitchens(tmp_path)
    assert len(found.labels) == 397 and found.labels[3] == "verb: open" and found.labels[97] == "noun: 0"
    (example,) = found.examples
    assert example.labels == ("verb: open", "noun: 299") and (example.start, example.stop, example.fold) == (
        0.25,
        0.75,
        5,
    )
    assert [p.name for p in found.missing] == ["P02_05.wav"]
    (cut,) = read_epic_kitchens(tmp_path, segments=tmp_path / "parts").examples
    samples, rate = soundfile.read(cut.path, dtype="float32")
    whole, _ = soundfile.read(tmp_path / "audio" / "P01_11.wav", dtype="float32")
    np.testing.assert_array_equal(samples, whole[6000:18000])
    assert rate == 24000 and cut.start is None and cut.path.name == "P01_11_0.wav"


def test_kitchens_from_hdf5(tmp_path: Path) -> None:
    kitchens(tmp_path, True)
    recording = np.linspace(-1, 1, 48000, dtype=np.float32)
    with h5py.File(tmp_path / "audio.hdf5", "w") as file:
        file["P01_11"] = recording
        file["P02_05"] = h5py.ExternalLink("/etc/hostname", "x")
    with pytest.raises(DataError, match="cut into segments"):
        read_epic_kitchens(tmp_path, audio=tmp_path / "audio.hdf5")
    found = read_epic_kitchens(tmp_path, audio=tmp_path / "audio.hdf5", segments=tmp_path / "parts")
    samples, rate = soundfile.read(found.examples[0].path, dtype="float32")
    np.testing.assert_array_equal(samples, recording[6000:18000])
    assert rate == 24000 and [p.name for p in found.missing] == ["P02_05_7.wav"]
    (tmp_path / "audio.hdf5").write_bytes(b"not hdf5")
    with pytest.raises(DataError, match="HDF5"):
        read_epic_kitchens(tmp_path, audio=tmp_path / "audio.hdf5", segments=tmp_path / "others")


def test_epic_sounds(tmp_path: Path) -> None:
    rows = "annotation_id,video_id,start_timestamp,stop_timestamp,class,class_id\n"
    rows += "P01_1,P01_11,00:00:00.100,00:00:00.600,water,1\nP01_2,P01_11,00:00:00.000,00:00:01.000,rustle,0\n"
    (tmp_path / "EPIC_Sounds_train.csv").write_text(rows)
    wav(tmp_path / "audio" / "P01_11.wav", 1.0, 24000)
    found = read_epic_sounds(tmp_path)
    assert found.labels == ("rustle", "water") and [e.fold for e in found.examples] == [1, 1]
    assert found.examples[0].start == pytest.approx(0.1)
    for broken, message in [
        (rows.replace("water,1", "water,one"), "class_id is 'one'"),
        (rows + "P01_3,P01_11,00:00:02.0,00:00:01.0,water,1\n", "before"),
        (rows + "P01_3,P01_11,00:00:00.0,00:00:01.0,dripping,1\n", "two names"), ("video_id\nP01\n", "no column"), ("", "is empty"),
    ]:  # fmt: skip
        (tmp_path / "EPIC_Sounds_train.csv").write_text(broken)
        with pytest.raises(DataError, match=message):
            read_epic_sounds(tmp_path)
