"""Folders of rendered audio-video scenes: written by the command, read as a data set, the same from the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.clip import open_clip
from models.data import READERS
from models.data.audio_visual_scenes import read_audio_visual_scenes
from models.data.scenes.__main__ import RENDER, main
from models.data.scenes.training_folder import FolderSettings, render_folder
from models.errors import DataError, SettingsError

SMALL = ["--scenes", "3", "--test-scenes", "1", "--frame-rate", "5", "--height", "48", "--width", "64"]


@pytest.fixture(scope="module")
def esc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("esc")
    (root / "audio").mkdir()
    t = np.arange(16_000) / 16_000
    soundfile.write(root / "audio" / "1-a.flac", np.where(t % 0.5 < 0.2, np.sin(3000 * t), 0.0), 16_000)
    soundfile.write(root / "audio" / "5-b.flac", np.sin(2000 * t) * t, 16_000)
    (root / "meta.csv").write_text("filename,fold,category\n1-a.flac,1,dog\n5-b.flac,5,rain\n", encoding="utf-8")
    return root


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The small folder has two of the ten classes; distractors that are quickly made.
    monkeypatch.setattr("models.data.scenes.training_folder.PORTRAITS", {"dog": None, "rain": None})
    monkeypatch.setattr(
        "models.data.scenes.audio_visual.PORTRAITS", dict.fromkeys(("dog", "rain", "clock_tick", "sneezing"))
    )


@pytest.mark.usefixtures("few_classes")
def test_the_command_writes_a_folder_that_is_read(esc: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert main([RENDER, "--esc", str(esc), "--output", str(first), "--mismatched", "0.2", *SMALL]) == 0
    found = READERS["audio_visual_scenes"](first)
    assert found.labels == ("dog", "rain") and not found.missing
    folds = {example.path.name: example.fold for example in found.examples}
    assert folds == {
        "esc-1-a-0.mp4": 1, "esc-5-b-0.mp4": 5,
        "scene-6-000000.mp4": 6, "scene-6-000001.mp4": 6, "scene-6-000002.mp4": 6, "scene-7-000000.mp4": 7,
    }  # fmt: skip
    truths = [json.loads(line) for line in (first / "scenes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [truth["filename"] for truth in truths] == list(folds)
    for truth, example in zip(truths, found.examples, strict=True):
        clip = open_clip(example.path)
        assert clip.video is not None and (clip.video.width, clip.video.height) == (64, 48)
        assert clip.video.duration == pytest.approx(truth["duration"], abs=0.21)
        assert {event["label"] for event in truth["events"]} == set(example.labels)
        assert bool(truth["correspondences"]) == (truth["kind"] != "mismatch")
    assert len(read_audio_visual_scenes(first, origins=["recording"]).examples) == 2
    assert len(read_audio_visual_scenes(first, origins=["generated"]).folds([6]).examples) == 3
    kinds = [truth["kind"] for truth in truths]
    for kind in set(kinds):
        assert len(read_audio_visual_scenes(first, kinds=[kind]).examples) == kinds.count(kind)
    # Every clip depends on the seed and its own number alone: fewer scenes are the same ones.
    settings = FolderSettings(scenes=1, test_scenes=1, mismatched=0.2, frame_rate=5, height=48, width=64)
    assert render_folder(again, None, settings) == 2
    for line in (again / "scenes.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line) in truths


def test_bad_wishes_are_refused(esc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="not empty"):
        render_folder(esc, None, FolderSettings())
    assert main([RENDER, "--output", str(esc)]) == 1 and "not empty" in capsys.readouterr().err
    for wrong in ({"scenes": -1}, {"height": 47}, {"alone": 0.7, "mismatched": 0.7}, {"frame_rate": 0.0}):
        with pytest.raises(SettingsError):
            FolderSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be read"):
        read_audio_visual_scenes(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,fold\na.mp4,1\n", "columns"),
        ("filename,fold,category,origin,kind\na.mp4,one,dog,generated,alone\n", "line 2"),
        ("filename,fold,category,origin,kind\n../../a.mp4,1,dog,generated,alone\n", "None of the 1 files"),
        ("filename,fold,category,origin,kind\n", "columns"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"outside")
    (tmp_path / "data" / "clips").mkdir(parents=True)
    (tmp_path / "data" / "meta.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_audio_visual_scenes(tmp_path / "data")
    with pytest.raises(DataError):
        read_audio_visual_scenes(tmp_path / "data", kinds=["nonsense"])
