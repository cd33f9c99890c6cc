"""The command line as a person or a script calls it: a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

CLIPS = Path(__file__).parents[2] / "assets" / "clips"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench.cli", *arguments], capture_output=True, text=True, timeout=300
    )


def test_predict_writes_only_json_to_standard_output() -> None:
    done = run(
        "predict", str(CLIPS / "dog_garden.flac"), str(CLIPS / "rain_steady.flac"), "--model", "resnet-esc10", "--json"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [r["name"] for r in results] == ["dog_garden.flac", "rain_steady.flac"]
    assert results[0]["scores"][0]["label"] == "dog" and results[1]["scores"][0]["label"] == "rain"
    for result in results:
        assert result["model"] == "resnet-esc10"
        scores = [entry["score"] for entry in result["scores"]]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1.0, abs=1e-4)


def test_predict_takes_metadata_and_writes_csv(tmp_path: Path) -> None:
    items = [
        {"video_id": "yard, 1", "wav": str(CLIPS / "dog_garden.flac"), "labels": "/m/0bt9lr"},
        {"video_id": "gone", "wav": "missing.wav"}, {"video_id": "picture only", "wav": ""},
    ]  # fmt: skip
    (tmp_path / "test.json").write_text(json.dumps({"data": items}), encoding="utf-8")
    done = run("predict", "--metadata", str(tmp_path / "test.json"), "--csv", str(tmp_path / "predictions.csv"))
    assert done.returncode == 2 and "missing.wav" in done.stderr
    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["video_id,predicted_label", '"yard, 1",dog']


def test_explain_writes_everything(tmp_path: Path) -> None:
    clip = CLIPS / "rooster_farmyard.flac"
    done = run(
        "explain", str(clip), "--model", "resnet-esc10", "--method", "integrated_gradients", "--output", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "kept.wav", "removed.wav", "picture.png", "analysis.json", "analysis.earwitness"):
        assert (tmp_path / name).stat().st_size > 500
    original, rate = soundfile.read(clip, dtype="float32")
    kept, kept_rate = soundfile.read(tmp_path / "kept.wav", dtype="float32")
    removed, _ = soundfile.read(tmp_path / "removed.wav", dtype="float32")
    assert rate == kept_rate and np.abs(kept + removed - original).max() < 1e-5
    summary = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    assert summary["target"] == "rooster" and summary["attribution"]["completeness_gap"] < 0.1


def test_one_bad_file_does_not_lose_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear model, I am not a sound.")
    done = run("predict", str(bad), str(CLIPS / "dog_garden.flac"), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)[0]["name"] == "dog_garden.flac"
    assert "letter.wav" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", str(CLIPS / "dog_garden.flac"), "--model", "nonsense"], "nonsense"),
        (["explain", str(CLIPS / "dog_garden.flac"), "--target", "unicorn", "--output", "OUT"], "unicorn"),
        (["explain", str(CLIPS / "dog_garden.flac"), "--method", "magic", "--output", "OUT"], "magic"),
        (["explain", "missing.wav", "--output", "OUT"], "missing"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["evaluate", "--model", "resnet-esc10", "--data", "OUT"], "ESC-50"),
    ],
)
def test_errors_are_two_sentences_and_status_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run(*[str(tmp_path / "out") if a == "OUT" else a for a in arguments])
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ") and words in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_models_lists_cards() -> None:
    done = run("models", "--json")
    cards = json.loads(done.stdout)
    assert "resnet-esc10" in {card["name"] for card in cards}
    assert all(card["metrics"] and card["training_data"] for card in cards)


def test_doctor_says_what_it_looked_at() -> None:
    done = run("doctor")
    for word in ("Python", "torch", "Device", "Codecs", "Memory", "Models"):
        assert word in done.stdout
    assert done.returncode == 0, done.stdout
