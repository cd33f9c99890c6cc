"""Measuring a recognizer on a data set, and writing the figures into its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.catalog import read_card
from models.checkpoint import load_recognizer, save_checkpoint
from models.clip import open_clip
from models.errors import DataError, SettingsError
from models.prediction import predict
from models.recognizer import Recognizer
from models.training.evaluation import Evaluation, evaluate, store_in_card
from tests.conftest import make_recognizer

CLASSES = ("dog", "rain", "clock")


def data_set(root: Path, labels: tuple[str, ...] = CLASSES, each: int = 2) -> Path:
    (root / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["filename,fold,category"]
    for number in range(each * len(labels)):
        soundfile.write(root / "audio" / f"{number}.wav", 0.1 * rng.standard_normal(6000 + 900 * number), 16000)
        lines.append(f"{number}.wav,{1 + number // len(labels)},{labels[number % len(labels)]}")
    (root / "meta.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return make_recognizer("resnet_attention")


def test_figures_are_those_of_every_clip_opened_by_itself(model: Recognizer, tmp_path: Path) -> None:
    root = data_set(tmp_path / "sounds")
    seen: list[tuple[int, int]] = []
    result = evaluate(model, root, progress=lambda done, total: seen.append((done, total)))
    scores = np.stack([predict(model, open_clip(root / "audio" / f"{n}.wav").at(16000)).scores for n in range(6)])
    truth = np.arange(6) % 3
    guesses = scores.argmax(axis=1)
    assert result.clips == 6 and result.accuracy == pytest.approx((guesses == truth).mean())
    expected = np.zeros((3, 3), dtype=int)
    for true, guess in zip(truth, guesses, strict=True):
        expected[true, guess] += 1
    assert result.confusion == expected.tolist()
    for c, label in enumerate(CLASSES):
        hits = (truth == c)[np.argsort(-scores[:, c])]
        precision = np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)])
        assert result.per_class[label] == pytest.approx(precision)
    assert result.mean_average_precision == pytest.approx(np.mean(list(result.per_class.values())))
    assert seen == [(n, 6) for n in range(1, 7)] and result.skipped == [] and result.data == "sounds"
    assert result.as_dict()["labels"] == list(CLASSES)
    assert "6 clips" in result.table() and "accuracy" in result.table()


def test_only_some_folds(model: Recognizer, tmp_path: Path) -> None:
    result = evaluate(model, data_set(tmp_path / "sounds"), folds=[2])
    assert result.clips == 3 and result.data == "sounds, fold 2"


def test_multi_label_models_have_no_accuracy(tmp_path: Path) -> None:
    result = evaluate(make_recognizer("resnet_attention", task="multi-label"), data_set(tmp_path / "sounds"))
    assert result.accuracy is None and "accuracy" not in result.table() and 0 < result.mean_average_precision <= 1


def test_what_cannot_be_used_is_skipped_and_said(model: Recognizer, tmp_path: Path) -> None:
    root = data_set(tmp_path / "sounds")
    (root / "audio" / "1.wav").unlink()
    (root / "audio" / "2.wav").write_bytes(b"not a sound")
    result = evaluate(model, root)
    assert result.clips == 4 and len(result.skipped) == 2
    assert result.skipped[0] == "1.wav is missing" and result.skipped[1].startswith("2.wav: ")
    assert all(f"skipped: {reason}" in result.table() for reason in result.skipped)


def test_classes_that_the_model_does_not_know_are_left_out(model: Recognizer, tmp_path: Path) -> None:
    result = evaluate(model, data_set(tmp_path / "sounds", ("dog", "violin", "clock")))
    assert result.clips == 4 and set(result.per_class) == {"dog", "clock"} and result.labels == list(CLASSES)


def test_impossible_evaluations_are_refused(model: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no data format named 'tape'"):
        evaluate(model, tmp_path, "tape")
    with pytest.raises(DataError, match="None of the clips has a class"):
        evaluate(model, data_set(tmp_path / "other", ("violin", "drum")))
    with pytest.raises(DataError, match="None of the clips"):
        evaluate(model, data_set(tmp_path / "sounds"), folds=[9])
    for path in (tmp_path / "sounds" / "audio").iterdir():
        path.write_bytes(b"not a sound")
    with pytest.raises(DataError, match="No clip of this data set could be opened"):
        evaluate(model, tmp_path / "sounds")


def test_figures_replace_those_of_the_same_data_in_the_card(model: Recognizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny", model.network, model.card)
    loaded = load_recognizer(tmp_path / "tiny", "cpu")
    first = Evaluation("tiny", "A", 2, 0.5, 0.61237, {}, [], [], [])
    store_in_card(loaded, first, "command 1")
    store_in_card(loaded, Evaluation("tiny", "B", 2, None, 0.9, {}, [], [], []), "command 2")
    store_in_card(loaded, Evaluation("tiny", "A", 2, 0.75, 0.7, {}, [], [], []), "command 3")
    written = [(m.name, m.value, m.data, m.command) for m in read_card(tmp_path / "tiny").metrics]
    assert sorted(written) == [
        ("accuracy", 0.75, "A", "command 3"), ("mean average precision", 0.7, "A", "command 3"),
        ("mean average precision", 0.9, "B", "command 2"),
    ]  # fmt: skip
    assert loaded.card == read_card(tmp_path / "tiny") == load_recognizer(tmp_path / "tiny", "cpu").card
    with pytest.raises(SettingsError, match="no folder"):
        store_in_card(make_recognizer("resnet_attention"), first, "command")
