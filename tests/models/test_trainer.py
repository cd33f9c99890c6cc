"""Training from a recipe: a tiny network on generated tones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.checkpoint import load_recognizer, save_checkpoint
from models.clip import open_clip
from models.data import Example, ExampleSet
from models.errors import DataError, EarwitnessError, SettingsError
from models.prediction import predict
from models.training.config import TrainConfig
from models.training.losses import distilled, soft_cross_entropy
from models.training.trainer import EpochReport, measured_frontend, score, train
from models.training.waveforms import fit_samples, load_waveforms
from tests.conftest import TINY, make_recognizer

TONES = {"clock": 2500.0, "dog": 400.0, "rain": 1000.0}
RATE = 16000
FRONTEND = {"kind": "kaldi_fbank", "n_mels": 32, "target_length": 48}
CALM = {
    "shift": False, "gain_db": [0, 0], "speed": [1, 1], "noise_db": None, "mixup": 0.0, "frequency_mask": 0, "time_mask": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folds of three tones, two clips each of half a second."""
    root = tmp_path_factory.mktemp("tones")
    (root / "audio").mkdir()
    rng = np.random.default_rng(0)
    lines = ["filename,fold,category"]
    for fold in (1, 2, 3, 4):
        for label, hz in TONES.items():
            for take in "AB":
                time = np.arange(8000) / RATE
                wave = 0.3 * np.sin(2 * np.pi * hz * rng.uniform(0.95, 1.05) * time + rng.uniform(0, 6))
                soundfile.write(
                    root / "audio" / f"{fold}-{label}-{take}.wav", wave + 0.003 * rng.standard_normal(8000), RATE
                )
                lines.append(f"{fold}-{label}-{take}.wav,{fold},{label}")
    (root / "meta.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def config(root: Path, output: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "name": "tones", "family": "resnet_attention", "config": TINY["resnet_attention"], "frontend": FRONTEND,
        "data": {"root": root, "train_folds": [1, 2], "test_folds": [3, 4]}, "augment": CALM, "half": False,
        "optimizer": {"learning_rate": 0.01, "epochs": 2, "batch_size": 2, "warmup_epochs": 0, "average_decay": 0.5},
        "output": output,
    }  # fmt: skip
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(values.get(key), dict) else value
    return TrainConfig.model_validate(values)


def test_it_learns_and_writes_what_it_learned(tones: Path, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    settings = config(tones, tmp_path, data={"validation_folds": [3], "test_folds": [4]}, license="CC0", title="Tones")
    folder = train(settings, reports.append)
    assert [r.epoch for r in reports] == [1, 2] and reports[1].loss < 0.7 * reports[0].loss
    assert reports[1].learning_rate < reports[0].learning_rate < 0.01
    assert all(r.epochs == 2 and r.seconds > 0 for r in reports)

    assert folder == tmp_path / "tones"
    model = load_recognizer(folder, "cpu")
    assert model.labels == sorted(TONES) and model.card.license == "CC0" and model.card.title == "Tones"
    assert model.card.training["clips"] == 12 and model.card.training["recipe"]["optimizer"]["epochs"] == 2
    assert str(tones) not in json.dumps(model.card.model_dump(mode="json"))  # folders of this machine stay here
    right = {
        fold: np.mean([
            predict(model, open_clip(tones / "audio" / f"{fold}-{label}-{take}.wav").at(RATE)).ranking()[0][0] == label
            for label in TONES for take in "AB"
        ])
        for fold in (3, 4)
    }  # fmt: skip
    assert right[3] == pytest.approx(reports[1].validation_accuracy, abs=1e-6) and right[4] > 0.6  # chance is 1/3

    history = [json.loads(line) for line in (tmp_path / "tones.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in history] == [r.loss for r in reports]
    train(settings)  # a second run replaces both
    assert len((tmp_path / "tones.jsonl").read_text().splitlines()) == 2


def test_the_same_seed_gives_the_same_weights(tones: Path, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # what happened before does not matter
        settings = config(
            tones, tmp_path / str(number), seed=seed, augment={"mixup": 0.7, "noise_db": [-60, -40], "shift": True}
        )
        hashes.append(load_recognizer(train(settings), "cpu").card.content_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_test_and_validation_folds_are_never_trained_on(tones: Path, tmp_path: Path) -> None:
    found = []
    for held_out in ([2], [2, 3, 4]):
        data = {"train_folds": [1, 2], "validation_folds": [], "test_folds": held_out}
        found.append(load_recognizer(train(config(tones, tmp_path, data=data)), "cpu").card)
    assert found[0].training["clips"] == 6 and found[0].content_hash == found[1].content_hash


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_teacher_guides_and_is_named(task: str, tones: Path, tmp_path: Path) -> None:
    teacher = make_recognizer("resnet_attention", labels=tuple(sorted(TONES)))
    card = save_checkpoint(tmp_path / "teacher", teacher.network, teacher.card)
    guided = config(tones, tmp_path / "a", task=task, teacher={"checkpoint": str(tmp_path / "teacher"), "weight": 1.0})
    alone = config(tones, tmp_path / "b", task=task)
    cards = [load_recognizer(train(c), "cpu").card for c in (guided, alone)]
    assert cards[0].parent == card.content_hash and cards[1].parent is None
    assert cards[0].content_hash != cards[1].content_hash and cards[0].task == task


def test_the_loss_by_hand() -> None:
    logits, targets = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0]])
    soft = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    log_p = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True))
    own = -np.mean(((0.9 * targets.numpy() + 0.1 / 3) * log_p).sum(axis=1))
    assert float(soft_cross_entropy(logits, targets, 0.1)) == pytest.approx(own, rel=1e-5)

    def softened(values: torch.Tensor) -> np.ndarray:
        raised = np.exp(values.numpy() / 2.0)
        return raised / raised.sum(axis=1, keepdims=True)

    student, master = softened(logits), softened(soft)
    distance = np.mean((master * np.log(master / student)).sum(axis=1))
    settings = config(Path(), Path(), teacher={"checkpoint": "x", "weight": 0.3, "temperature": 2.0})
    found = soft_cross_entropy(logits, targets, 0.1)
    assert float(distilled(settings, found, logits, soft)) == pytest.approx(0.7 * own + 0.3 * 4 * distance, rel=1e-5)
    assert float(distilled(settings, found, logits, None)) == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("kind", ["kaldi_fbank", "slaney_db", "waveform"])
def test_measured_features_have_mean_0_and_deviation_a_half(kind: str) -> None:
    waveforms = 0.1 * torch.randn(5, 16000, generator=torch.Generator().manual_seed(0)) + 0.02
    waveforms[:, 12000:] = 0.0  # silence does not count
    settings = config(Path(), Path())
    settings.frontend = {"kind": kind}
    frontend = measured_frontend(settings, waveforms)
    values = frontend.log_mel(waveforms)
    heard = frontend.normalize(values[(values - frontend.floor).abs() > 1e-3])
    assert heard.numel() < values.numel()
    assert float(heard.mean()) == pytest.approx(0.0, abs=1e-3) and float(heard.std()) == pytest.approx(0.5, abs=1e-2)
    settings.normalize = "given"
    assert measured_frontend(settings, waveforms).config.mean == 0.0


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_old_checkpoint(tones: Path, tmp_path: Path) -> None:
    before = load_recognizer(train(config(tones, tmp_path)), "cpu").card
    with pytest.raises(SettingsError, match=r"loss is not a number any more in epoch \d") as caught:
        train(config(tones, tmp_path, optimizer={"learning_rate": 1e30, "epochs": 5}))
    assert "learning_rate" in caught.value.advice
    assert load_recognizer(tmp_path / "tones", "cpu").card == before


@pytest.mark.parametrize(
    "optimizer",
    [{"batch_size": 100}, {"warmup_epochs": 2}, {"warmup_epochs": 1.5}, {"warmup_epochs": 9}, {"epochs": 1}, {"average_decay": 0}],
    ids=str,
)  # fmt: skip
def test_odd_schedules_work(optimizer: dict[str, Any], tones: Path, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    assert load_recognizer(train(config(tones, tmp_path, optimizer=optimizer), reports.append), "cpu").labels
    assert all(math.isfinite(r.loss) and 0 <= r.learning_rate <= 0.01 for r in reports)


def test_what_does_not_fit_together_is_refused(tones: Path, tmp_path: Path) -> None:
    other = make_recognizer("resnet_attention", labels=("cat", "dog", "rain"))
    save_checkpoint(tmp_path / "other", other.network, other.card)
    fast = make_recognizer("resnet_attention", labels=tuple(sorted(TONES)))
    card = fast.card.model_copy(update={"frontend": FRONTEND | {"sample_rate": 32000}})
    save_checkpoint(tmp_path / "fast", fast.network, card)
    cases: list[tuple[dict[str, Any], type[EarwitnessError], str]] = [
        ({"data": {"format": "tape"}}, SettingsError, "no data format named 'tape'"),
        ({"data": {"root": tmp_path / "absent"}}, DataError, "no ESC annotation"),
        ({"data": {"train_folds": [9]}}, DataError, "None of the 24 clips lies in a training fold"),
        ({"data": {"test_folds": [1, 2]}}, DataError, "None of the 24 clips lies in a training fold"),
        ({"family": "no_such"}, SettingsError, "no model family"),
        ({"frontend": {"kind": "ear"}}, SettingsError, "no front end"),
        ({"teacher": {"checkpoint": str(tmp_path / "absent")}}, EarwitnessError, "absent"),
        ({"teacher": {"checkpoint": str(tmp_path / "other")}}, SettingsError, "other classes"),
        ({"teacher": {"checkpoint": str(tmp_path / "fast")}}, SettingsError, "32000 Hz"),
    ]  # fmt: skip
    for changes, kind, message in cases:
        with pytest.raises(kind, match=message):
            train(config(tones, tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "tones").exists()


def test_silent_data_is_said_to_be_silent(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros(8000), RATE)
    (tmp_path / "meta.csv").write_text("filename,fold,category\na.wav,1,dog\n")
    with pytest.raises(DataError, match="silent"):
        train(config(tmp_path, tmp_path / "out"))


def test_scores_are_the_recognizer_s(chirp: np.ndarray) -> None:
    recognizer = make_recognizer("resnet_attention")
    waveforms = torch.from_numpy(np.stack([chirp, chirp[::-1], 0 * chirp]))
    found = score(recognizer, waveforms, batch_size=2)
    for row in range(3):
        np.testing.assert_allclose(found[row], predict(recognizer, waveforms[row].numpy()).scores, atol=1e-5)


# --- waveforms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 5, 9])
def test_waveforms_are_cut_or_padded_at_the_end(samples: int) -> None:
    found = fit_samples(np.arange(1.0, 6.0, dtype=np.float32), samples)
    assert found.tolist() == ([1, 2, 3, 4, 5] + 9 * [0])[:samples] and found.dtype == np.float32


def test_waveforms_and_targets_of_examples(tmp_path: Path) -> None:
    time = np.arange(4410) / 44100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 500 * time), np.zeros(4410)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100)
    soundfile.write(tmp_path / "b.wav", np.full(900, 0.25), RATE)
    examples = ExampleSet(
        (Example(tmp_path / "a.wav", ("z", "x")), Example(tmp_path / "b.wav", ("y",))), ("x", "y", "z")
    )
    seen: list[tuple[int, int]] = []
    waveforms, targets = load_waveforms(examples, RATE, 1000, lambda done, total: seen.append((done, total)))
    assert targets.tolist() == [[1, 0, 1], [0, 1, 0]] and seen == [(1, 2), (2, 2)]
    expected = 0.25 * np.sin(2 * np.pi * 500 * np.arange(1000) / RATE)  # both channels' mean, at another rate
    np.testing.assert_allclose(waveforms[0, 50:950], expected[50:950], atol=2e-3)
    assert (waveforms[1, 900:] == 0).all() and np.allclose(waveforms[1, :900], 0.25, atol=1e-4)


def test_the_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.wav").write_text("Dear model")
    with pytest.raises(DataError, match=r"letter\.wav cannot be used: "):
        load_waveforms(ExampleSet((Example(tmp_path / "letter.wav", ("x",)),), ("x",)), RATE, 100)
