"""EquiAV's published interface: recognising files, learning from clips, adding classes; formats read and written."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from models.card import Card
from models.checkpoint import load_recognizer, save_checkpoint
from models.equiav_api import (
    EquiAV_ft,
    ModelTrainer,
    WrappedModel,
    audio_event_classification,
    evaluate_metadata,
    fine_tune_online,
    format_label_data,
    format_model_input,
    load_audio_model,
    read_predictions,
    to_recognizer,
    write_predictions,
)
from models.errors import CheckpointError, DataError, MediaError, SettingsError
from models.training.equiav import OnlineSettings, OnlineTrainer, WarmupCosine
from tests.models.equiav_files import ROWS, TINY, make_home, write_sound, write_table


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


# --- recognising ----------------------------------------------------------------------------------------------------


def test_inference_script_of_the_description(home: Path) -> None:
    examples = json.loads((home / "train.json").read_text())["data"]
    wav_files = {e["video_id"]: str(home / e["wav"].replace("\\", "/")) for e in examples} | {"none": ""}
    model, class_labels_df = load_audio_model(
        home / "class_labels_indices.csv", home / "model.pth", "cpu", "linear", "audio_only", 128, num_heads=2
    )
    assert class_labels_df["display_name"].tolist() == ["Speech", "Dog", "Walk, footsteps"]
    results, inference_times, scores = audio_event_classification(
        wav_files, model, class_labels_df, 32, 128, -4.346, 4.332, return_scores=True
    )
    assert list(results) == list(inference_times) == ["id0", "id1", "id2", "id3"]
    names = class_labels_df["display_name"]
    assert results == {k: [names[i] for i in range(3) if p[i] > 0.5] for k, p in scores.items()}
    assert not model.training
    write_predictions(home / "predictions.csv", results | {"odd": ["Walk, footsteps", "Dog"], "empty": []})
    assert read_predictions(home / "predictions.csv") == results | {"odd": ["Walk, footsteps", "Dog"], "empty": []}
    lenient = audio_event_classification(wav_files, model, class_labels_df, 32, threshold=-1.0)[0]
    assert lenient["id0"] == names.tolist()


def test_unreadable_files_are_reported(home: Path) -> None:
    model, labels = load_audio_model(home / "class_labels_indices.csv", home / "model.pth", num_heads=2)
    (home / "broken.wav").write_bytes(b"RIFF nothing")
    short = write_sound(home / "short.wav", 0.01)
    files = {"broken": home / "broken.wav", "short": short, "gone": home / "gone.wav", "good": home / "clips/0.wav"}
    errors: dict[str, str] = {}
    results, _ = audio_event_classification(files, model, labels, 32, errors=errors)
    assert list(results) == ["good"]
    assert set(errors) == {"broken", "short", "gone"}
    assert "less than one analysis frame" in errors["short"]
    with pytest.warns(UserWarning, match="short was left out"):
        audio_event_classification({"short": short}, model, labels, 32)


def test_what_does_not_fit_is_named(home: Path) -> None:
    table, weights = home / "class_labels_indices.csv", home / "model.pth"
    with pytest.raises(FileNotFoundError, match="no class table"):
        load_audio_model(home / "gone.csv", weights)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_audio_model(table, home / "gone.pth")
    with pytest.raises(ValueError, match="'linear', not 'mlp'"):
        load_audio_model(table, weights, head_type="mlp")
    with pytest.raises(ValueError, match="not for multimodal"):
        load_audio_model(table, weights, modality_mode="multimodal")
    with pytest.raises(ValueError, match="3 classes, but the class table has 2"):
        load_audio_model(write_table(home / "two.csv", [(0, "/m/a", "A"), (1, "/m/b", "B")]), weights)
    with pytest.raises(SettingsError, match="no device"):
        load_audio_model(table, weights, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="no usable GPU"):
            load_audio_model(table, weights, device="gpu")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_not_run(home: Path) -> None:
    trap = Hostile(home / "trap")
    path = home / "hostile.pth"
    for content in (trap, {"mlp_head.0.weight": trap}, {"a": "text"}, {}):
        torch.save(content, path)
        with pytest.raises(CheckpointError):
            load_audio_model(home / "class_labels_indices.csv", path)
    path.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(CheckpointError):
        load_audio_model(home / "class_labels_indices.csv", path)
    assert not trap.path.exists()


def test_missing_entries_are_an_error(home: Path) -> None:
    state_dict = torch.load(home / "model.pth", weights_only=True)
    del state_dict["__M__.blocks_a.0.attn.proj.bias"]
    torch.save({"state_dict": {f"module.{k}": v for k, v in state_dict.items()}}, home / "less.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(blocks_a\.0\.attn\.proj\.bias\)"):
        load_audio_model(home / "class_labels_indices.csv", home / "less.pth", num_heads=2)


def test_features_of_files(tmp_path: Path) -> None:
    stereo = write_sound(tmp_path / "s.wav", 0.2, 44100, 2)
    native = format_model_input(stereo, 32)
    assert native.shape == (1, 3, 32, 128)
    assert torch.equal(native[:, 0], native[:, 2])
    # 0.2 s give 18 frames; the rest is padding with raw zeros.
    assert torch.allclose(native[0, 0, 18:], torch.tensor(4.346 / 4.332))
    assert not torch.allclose(native, format_model_input(stereo, 32, resample_to=16000), atol=0.1)
    assert not torch.allclose(native, format_model_input(stereo, 32, mono=True), atol=0.1)
    torch.manual_seed(0)
    rolled = format_model_input(stereo, 32, noise=True)
    assert any(torch.equal(rolled, native.roll(n, 2)) for n in range(32))
    short = write_sound(tmp_path / "short.wav", 0.01)
    with pytest.raises(MediaError):
        format_model_input(short, 32)
    assert torch.isfinite(format_model_input(short, 32, pad_short=True)).all()


def test_model_becomes_a_recognizer(home: Path) -> None:
    model, labels = load_audio_model(home / "class_labels_indices.csv", home / "model.pth", num_heads=2)
    recognizer = to_recognizer(model, labels)
    waveform, _ = soundfile.read(home / "clips" / "0.wav", dtype="float32")
    _, _, scores = audio_event_classification({"0": home / "clips/0.wav"}, model, labels, 32, return_scores=True)
    with torch.no_grad():
        probability = recognizer.probabilities(recognizer(recognizer.features(waveform)))[0].numpy()
    assert np.allclose(probability, scores["0"], atol=1e-5)
    save_checkpoint(home / "saved", recognizer.network, recognizer.card)
    assert load_recognizer(home / "saved", "cpu").labels == ["Speech", "Dog", "Walk, footsteps"]
    assert isinstance(recognizer.card, Card)


def test_evaluation_of_a_metadata_file(home: Path) -> None:
    items = json.loads((home / "train.json").read_text())["data"]
    items.append({"video_id": "gone", "wav": "gone.wav", "labels": "/m/a"})
    (home / "test.json").write_text(json.dumps({"data": items}))
    table = home / "class_labels_indices.csv"
    model, _ = load_audio_model(table, home / "model.pth", num_heads=2)
    found = evaluate_metadata(home / "test.json", table, model, home / "out", target_length=32, threshold=0.0)
    assert (found.n_clips, list(found.errors), found.unknown_labels) == (4, ["gone"], 0)
    rows = list(csv.reader((home / "out" / "confusion_matrix.csv").open(newline="")))
    # Everything is predicted: every class once for each clip in which another one is true.
    assert rows[0] == ["Actual \\ Predicted", "Speech", "Walk, footsteps", "Dog", "Total_Positive_Examples"]
    assert rows[1][1:] == ["2", "2", "2", "2"]
    predictions = list(csv.DictReader((home / "out" / "predictions.csv").open(newline="")))
    assert [row["Audio File"] for row in predictions] == ["id0", "id1", "id2", "id3"]
    assert len((home / "out" / "inference_times.csv").read_text().splitlines()) == 5
    assert found.statistics.skipped == 0


# --- learning -------------------------------------------------------------------------------------------------------


def test_fine_tuning_script_of_the_description(home: Path) -> None:
    args = argparse.Namespace(
        device="cpu", gpu=0, metadata=str(home / "train.json"), class_indices=str(home / "class_labels_indices.csv"),
        old_class_indices="DEFAULT", fold="1", bal=False, num_mel_bins=128, mixup=0.0, noise=False, ft_freqm=48,
        ft_timem=192, label_smooth=0.1, batch_size=1, nDataLoaderThread=8, max_epoch=5, trainfunc_ft="bceloss",
        model="ft_EquiAV", inter_linear=True, head_type="linear", aug_size_a=21, aug_size_v=17, drop_path=0.1,
        drop_out=0, freeze_base=True, data_aug=False, optimizer="adamw", weight_decay=1e-5, lr=1e-4, head_lr=1e-4,
        start_lr=2e-7, final_lr=1e-6, scheduler="warmupcos", warmup_epoch=3, save_path=str(home), model_save_freq=2,
        distributed=True, mixedprec=True, no_wandb=True, print_freq=10, iteration_per_epoch=10, label_dim=3,
    )  # fmt: skip
    options = vars(args) | TINY
    class_labels_df = pd.read_csv(args.class_indices, index_col="index")
    index_dict = pd.Series(class_labels_df.index.values, index=class_labels_df["mid"]).to_dict()
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
    trainer.loadParameters(home / "model.pth")
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    for example in json.loads((home / "train.json").read_text())["data"]:
        a_data = format_model_input(home / example["wav"].replace("\\", "/"), 32, 128, -4.346, 4.332)
        label_data = format_label_data(example["labels"], index_dict, args.label_dim, args.label_smooth)
        assert math.isfinite(trainer.train_on_audio_only(a_data, label_data))
    trainer.saveParameters(home / "model" / "online.pth")
    saved = torch.load(home / "model" / "online.pth", weights_only=True)
    changed = {k for k, v in before.items() if not torch.equal(saved[f"__M__.{k}"], v)}
    assert changed == {"mlp_head.0.weight", "mlp_head.0.bias"}


def test_online_fine_tuning_learns(home: Path) -> None:
    options = TINY | {"label_dim": 3, "lr": 0.05, "start_lr": 0.05, "final_lr": 0.05, "freeze_base": True, "seed": 0}
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
    trainer.loadParameters(home / "model.pth")
    audio, target = format_model_input(home / "clips/0.wav", 32), torch.tensor([1.0, 0.0, 0.0])
    losses = [trainer.train_on_audio_only(audio, target) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]
    assert trainer.network(audio).sigmoid()[0, 0] > 0.8


def test_whole_run_with_another_class(home: Path) -> None:
    new = write_table(home / "new.csv", [*ROWS, (3, "/m/d", "Doorbell")])
    path, losses = fine_tune_online(
        home / "train.json", new, home / "model.pth", home / "run",
        old_class_indices=home / "class_labels_indices.csv", lr=1e-9, **TINY,
    )  # fmt: skip
    assert len(losses) == 4
    assert path.parent == home / "run" / "model" and path.name.startswith("online_model-time_")
    model, labels = load_audio_model(new, path, num_heads=2)
    assert len(labels) == 4
    old = torch.load(home / "model.pth", weights_only=True)["__M__.mlp_head.0.weight"]
    assert torch.allclose(model.mlp_head[0].weight[:3], old, atol=1e-5)
    assert abs(float(model.mlp_head[0].bias[3].detach())) < 1e-5  # fresh, moved by the tiny learning rate only


def test_class_extension_is_checked(home: Path) -> None:
    old = home / "class_labels_indices.csv"
    options = TINY | {"old_class_indices": old}
    moved = write_table(
        home / "moved.csv", [(1, "/m/a", "Speech"), (0, "/m/b", "Dog"), (2, "/m/c", "W"), (3, "/m/d", "D")]
    )
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(label_dim=4, **TINY)), class_indices=moved, **options)
    with pytest.raises(DataError, match="another index"):
        trainer.loadParameters(home / "model.pth")
    between = write_table(home / "between.csv", [(0, "/m/a", "S"), (1, "/m/x", "X"), (2, "/m/c", "W")])
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(label_dim=3, **TINY)), class_indices=between, **options)
    with pytest.raises(DataError, match="/m/b"):
        trainer.loadParameters(home / "model.pth")
    smaller = ModelTrainer(WrappedModel(EquiAV_ft(label_dim=2, **TINY)))
    with pytest.raises(CheckpointError, match="knows 3 classes, but only 2"):
        smaller.loadParameters(home / "model.pth")
    allowed = ModelTrainer(WrappedModel(EquiAV_ft(label_dim=2, **TINY)), allow_shrink=True)
    assert allowed.loadParameters(home / "model.pth").rows_copied == 2
    other = ModelTrainer(WrappedModel(EquiAV_ft(label_dim=3, **TINY | {"proj_out_dim": 12})))
    with pytest.raises(CheckpointError, match="instead of"):
        other.loadParameters(home / "model.pth")


def test_frozen_features_do_not_wobble_and_modes_return() -> None:
    options = TINY | {
        "label_dim": 3,
        "drop_path": 0.5,
        "freeze_base": True,
        "lr": 0.0,
        "start_lr": 0.0,
        "final_lr": 0.0,
    }
    audio, target = torch.randn(1, 3, 32, 128), torch.tensor([1.0, 0.0, 0.0])
    torch.manual_seed(0)
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options, weight_decay=0.0)
    trainer.network.eval()
    assert len({trainer.train_on_audio_only(audio, target) for _ in range(6)}) == 1
    assert not any(module.training for module in trainer.network.modules())
    wobbling = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options, weight_decay=0.0, frozen_mode="published")
    assert len({wobbling.train_on_audio_only(audio, target) for _ in range(8)}) > 1


def test_seeded_training_repeats_itself() -> None:
    options = TINY | {"label_dim": 3, "drop_path": 0.5, "seed": 7}
    audio, target, runs = torch.randn(1, 3, 32, 128), torch.tensor([1.0, 0.0, 0.0]), []
    for noise in (1, 2):
        torch.manual_seed(0)
        trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
        torch.manual_seed(noise)
        runs.append([trainer.train_on_audio_only(audio, target) for _ in range(5)])
    assert runs[0] == runs[1]


def test_one_clip_does_not_break_batch_norm() -> None:
    options = TINY | {"label_dim": 3, "head_type": "mlp"}
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
    before = trainer.network.mlp_head[1].running_mean.clone()
    assert math.isfinite(trainer.train_on_audio_only(torch.randn(1, 3, 32, 128), torch.zeros(3)))
    assert torch.equal(trainer.network.mlp_head[1].running_mean, before)


def test_pairs_of_sound_and_picture() -> None:
    options = TINY | {"label_dim": 3, "ftmode": "multimodal"}
    trainer = ModelTrainer(WrappedModel(EquiAV_ft(**options)), **options)
    assert math.isfinite(
        trainer.train_on_single_pair(torch.randn(1, 3, 32, 128), torch.randn(1, 3, 32, 32), torch.zeros(3))
    )
    with pytest.raises(ValueError, match="needs an audio_only model"):
        trainer.train_on_audio_only(torch.randn(1, 3, 32, 128), torch.zeros(3))
    with pytest.raises(SettingsError, match="for 4 classes"):
        trainer.train_on_single_pair(torch.randn(1, 3, 32, 128), torch.randn(1, 3, 32, 32), torch.zeros(4))


def test_options_are_checked() -> None:
    with pytest.raises(SettingsError, match="label_dim"):
        EquiAV_ft(**TINY)
    with pytest.raises(SettingsError, match="head_type"):
        EquiAV_ft(label_dim=3, head_type="big")
    assert not EquiAV_ft(label_dim=3, **TINY | {"inter_linear": "False"}).network.config.inter_linear
    model = WrappedModel(EquiAV_ft(label_dim=3, **TINY))
    with pytest.raises(SettingsError, match="head_lr_mode='published'"):
        ModelTrainer(model, head_lr=50)
    for wrong in ({"trainfunc_ft": "other"}, {"optimizer": "other"}):
        with pytest.raises(SettingsError, match="'other'"):
            ModelTrainer(model, **wrong)


def test_schedule_ends_where_it_should() -> None:
    schedule = WarmupCosine()
    assert schedule(0) == 2e-7
    assert math.isclose(schedule(30), 1e-4)
    assert math.isclose(schedule(50), 1e-6)
    assert schedule(1000) == schedule(50)
    assert WarmupCosine(after_end="published")(70) > 5e-5


def test_head_has_its_own_rate() -> None:
    network = EquiAV_ft(label_dim=3, **TINY).network
    settings = OnlineSettings(freeze_base=False, head_lr=1e-3, schedule=WarmupCosine(lr=1e-4, warmup_epoch=0))
    trainer = OnlineTrainer(network, settings)
    trainer.step(lambda: network(torch.randn(2, 32, 128)), torch.zeros(2, 3))
    base, head = trainer.optimizer.param_groups
    assert math.isclose(head["lr"], 10 * base["lr"])
    names = {id(p): n for n, p in network.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in head["params"]} == {"mlp_head", "pred_a_inter", "pred_v_inter"}


def test_a_loss_that_is_not_a_number_changes_nothing() -> None:
    network = EquiAV_ft(label_dim=3, **TINY).network
    before = network.mlp_head[0].weight.clone()
    with pytest.raises(SettingsError, match="not a number"):
        OnlineTrainer(network, OnlineSettings()).step(
            lambda: network(torch.full((1, 32, 128), math.nan)), torch.zeros(3)
        )
    assert torch.equal(network.mlp_head[0].weight, before)
