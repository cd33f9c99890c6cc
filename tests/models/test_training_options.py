"""What a recipe can choose: losses, optimizers, schedules, drawing of clips, averages, starts, and going on after a stop."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.data import Example, ExampleSet
from models.errors import CheckpointError, DataError, SettingsError
from models.families.linear import Linear, LinearConfig
from models.families.play_it_back import PlayItBack
from models.families.slowfast import SlowFast
from models.frontends import build_frontend
from models.layers.slowfast_settings import SlowFastConfig
from models.training.augmentations import AUGMENTATIONS
from models.training.clips import Batch, Draw, TrainingClips, collate, picture_reader
from models.training.config import AugmentConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from models.training.equiav import WarmupCosine
from models.training.losses import LOSSES, build_criterion
from models.training.optimization import RateSchedule, build_optimizer
from models.training.plan import EpochPlan
from models.training.playback_published import learning_rate
from models.training.published import PublishedRecipe, train_published
from models.training.run_state import state_path
from models.training.sgd import VGGSOUND_POLICY
from models.training.trainer import EpochReport, train
from models.training.validation import figure_of
from tests.models.options_table import options_table
from tests.models.test_equiav_pretraining import TINY as EQUIAV_PRETRAINING
from tests.models.training_data import write_sounds, write_videos

FRONTEND = {"kind": "slaney_db", "n_mels": 16, "target_length": 41, "padding": "zero", "mean": -50.0, "std_scale": 60.0}
PUBLISHED = {
    "kind": "adam", "betas": [0.95, 0.999], "weight_decay": 5e-7, "decay_of": "all", "label_smoothing": 0.0,
    "gradient_clip": 0.0, "average_decay": 0.0,
}  # fmt: skip


class Stop(Exception):
    """Somebody pulls the plug."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "esc", (8, 4))


def recipe(root: Path, output: Path, **changes: Any) -> TrainConfig:
    """A linear network; `changes` are sections."""
    values: dict[str, Any] = {
        "name": "tiny", "family": "linear", "config": {"n_mels": 16, "hidden_size": 8, "n_layers": 1},
        "frontend": FRONTEND, "normalize": "given", "half": False, "output": output,
        "data": {"root": root, "train_folds": [1], "test_folds": [2]},
        "optimizer": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01},
    }  # fmt: skip
    for key, value in changes.items():
        values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    return TrainConfig.model_validate(values)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(first[key].equal(second[key]) for key in first)


# --- going on -------------------------------------------------------------------------------------------------------

RESUMED: dict[str, dict[str, Any]] = {
    "as shipped": {"optimizer": {"mixed_precision": "bf16"}},
    "published": {
        "augment": {"kind": "audio_tagging", "mixup": 0.5, "frequency_mask": 4, "time_mask": 8, "noise": True},
        "optimizer": PUBLISHED | {"average_epochs": [1, 3]}, "sampling": {"kind": "balanced"}, "loss": {"kind": "bce"},
        "schedule": {"kind": "milestones", "milestones": [1, 2]},
    },
    "best epoch": {
        "data": {"validation_folds": [2], "test_folds": []}, "validation": {"keep": "best"},
        "optimizer": {"average_decay": 0.0, "kind": "sgd", "accumulate": 2, "batch_size": 2},
        "schedule": {"kind": "half_cosine"},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMED)
def test_interrupted_and_resumed_is_uninterrupted(case: str, sounds: Path, tmp_path: Path) -> None:
    whole = train(recipe(sounds, tmp_path / "whole", **RESUMED[case]))
    config = recipe(sounds, tmp_path / "parts", **RESUMED[case])

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(config, stop)
    assert state_path(config).is_file() and not (config.output / "tiny").exists()
    torch.rand(7)  # whatever else happens in between
    resumed = train(config.model_copy(update={"resume": True}))
    assert same(weights(whole), weights(resumed))
    assert not state_path(config).exists()
    lines = [json.loads(line) for line in (config.output / "tiny.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "whole" / "tiny.jsonl").read_text().splitlines()]
    assert [line | {"seconds": 0} for line in lines] == [line | {"seconds": 0} for line in expected]


def test_only_the_same_training_is_resumed(sounds: Path, tmp_path: Path) -> None:
    config = recipe(sounds, tmp_path)

    def stop(_: EpochReport) -> None:
        raise Stop

    with pytest.raises(SettingsError, match="no interrupted training"):
        train(config.model_copy(update={"resume": True}))
    with pytest.raises(Stop):
        train(config, stop)
    other = recipe(sounds, tmp_path, optimizer={"learning_rate": 0.5}, resume=True)
    with pytest.raises(SettingsError, match="other settings"):
        train(other)
    content = state_path(config).read_bytes()
    state_path(config).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        train(config.model_copy(update={"resume": True}))


def test_the_event_graph_is_resumed(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "videos") / "classes"
    graph = {
        "hidden_channels": 8, "n_layers": 1, "n_audio_nodes": 5, "n_video_nodes": 4, "audio_segment_ms": 50,
        "video_segment_ms": 150, "sample_rate": 8000, "clip_seconds": 1.0, "video_width": 2, "audio_span": 1,
        "conv_layers": ((6, 10, 5), (8, 3, 2)),
    }  # fmt: skip
    results = []
    for name in ("whole", "parts"):
        config = TrainConfig.model_validate({
            "name": "graph", "family": "hetero_graph", "config": graph, "normalize": "given", "half": False,
            "frontend": {"kind": "waveform", "n_mels": 0, "sample_rate": 8000, "target_length": 8000},
            "data": {"format": "av_folders", "root": root, "options": {"n_folds": 4}, "train_folds": [1, 2],
                     "test_folds": [3, 4], "video": True},
            "optimizer": {"batch_size": 1}, "output": tmp_path / name,
            "loop": {"kind": "event_graph", "evaluate_every": 2, "class_weights": True, "balanced": True,
                     "solver": {"MAX_ITER": 4, "ITERS_TO_ACCUMULATE": 3, "WARMUP_ITERS": 2, "BASE_LR": 0.1}},
        })  # fmt: skip
        if name == "parts":

            def stop(report: EpochReport) -> None:
                if report.epoch == 1:
                    raise Stop

            with pytest.raises(Stop):
                train(config, stop)
            config = config.model_copy(update={"resume": True})
        results.append(weights(train(config)))
    assert same(*results)


def test_pre_training_is_resumed(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "videos")
    results = []
    for name in ("whole", "parts"):
        config = TrainConfig.model_validate({
            "name": "views", "family": "equiav_pretraining", "config": EQUIAV_PRETRAINING, "normalize": "given",
            "frontend": {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64}, "half": False,
            "data": {"root": root, "train_folds": [1], "test_folds": [2], "video": True},
            "augment": {"kind": "equiav", "mixup": 0.0}, "output": tmp_path / name,
            "optimizer": {"epochs": 2, "batch_size": 3, "learning_rate": 1e-3}, "schedule": {"kind": "half_cosine"},
            "loop": {"kind": "pretraining", "time_mask": 8, "inter_temperature": 0},
        })  # fmt: skip
        if name == "parts":

            def stop(report: EpochReport) -> None:
                if report.epoch == 1:
                    raise Stop

            with pytest.raises(Stop):
                train(config, stop)
            config = config.model_copy(update={"resume": True})
        results.append(weights(train(config)))
    assert same(*results)


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["standard", "audio_tagging", "slowfast", "equiav"])
def test_decoding_while_training_changes_nothing(augment: str, sounds: Path, tmp_path: Path) -> None:
    found = [
        weights(train(recipe(sounds, tmp_path / name, augment={"kind": augment, "mixup": 0.5}, data=data)))
        for name, data in (("memory", {}), ("disk", {"memory_limit_gb": 0, "workers": 1}))
    ]
    assert same(*found)


def test_decoding_processes_can_be_sent_the_data_set(sounds: Path) -> None:
    from models.families.equiav import EquiAV
    from models.families.hetero_graph import HeteroGraph
    from tests.models.test_equiav import TINY as EQUIAV
    from tests.models.test_hetero_graph import TINY as GRAPH

    examples = ExampleSet((Example(sounds / "audio" / "0.wav", ("high",)),), ("high", "low"))
    for network in (HeteroGraph(HeteroGraph.Config(**GRAPH)), EquiAV(EquiAV.Config(**EQUIAV | {"mode": "multimodal"}))):
        clips = TrainingClips(examples, 16000, 100, picture=picture_reader(network))
        assert len(pickle.loads(pickle.dumps(clips))) == 1
    assert picture_reader(Linear(LinearConfig())) is None


def example_set(labels: list[str]) -> ExampleSet:
    return ExampleSet(tuple(Example(Path(f"{i}.wav"), (label,)) for i, label in enumerate(labels)), ("a", "b"))


def drawn_in(plan: EpochPlan, epochs: int) -> list[Draw]:
    """Everything that is drawn in the first epochs."""
    return [draw for epoch in range(1, epochs + 1) for batch in plan.batches(epoch) for draw in batch]


def test_balanced_sampling_hears_rare_classes_as_often(tmp_path: Path) -> None:
    clips = TrainingClips(example_set(["a"] * 90 + ["b"] * 10), 16000, 100)
    config = recipe(tmp_path, tmp_path, sampling={"kind": "balanced"})
    torch.manual_seed(0)
    drawn = [draw.index for draw in drawn_in(EpochPlan(config, clips), 20)]
    assert len(drawn) == 2000 and 0.45 < np.mean([index >= 90 for index in drawn]) < 0.55
    plain = drawn_in(EpochPlan(recipe(tmp_path, tmp_path), clips), 2)
    assert sorted(draw.index for draw in plain) == [index for index in range(100) for _ in range(2)]
    assert [draw.index for draw in plain[:100]] != [draw.index for draw in plain[100:]]
    (tmp_path / "weights.csv").write_text("\n".join(["0"] * 99 + ["1"]))
    file = recipe(tmp_path, tmp_path, sampling={"kind": "balanced", "weights": tmp_path / "weights.csv"})
    assert {draw.index for draw in drawn_in(EpochPlan(file, clips), 1)} == {99}


def test_partners_are_drawn_uniformly_or_by_the_weights(tmp_path: Path) -> None:
    clips = TrainingClips(example_set(["a"] * 90 + ["b"] * 10), 16000, 100)
    for weighted, low, high in ((False, 0.05, 0.15), (True, 0.42, 0.58)):
        config = recipe(
            tmp_path,
            tmp_path,
            sampling={"weighted_partners": weighted},
            augment={"kind": "audio_tagging", "mixup": 0.5},
        )
        draws = drawn_in(EpochPlan(config, clips), 20)
        partners = [draw.partner for draw in draws if draw.partner is not None]
        assert 0.4 < len(partners) / len(draws) < 0.6
        assert low < np.mean([partner >= 90 for partner in partners]) < high


def test_windows_begin_anywhere_and_short_clips_stay_short(sounds: Path) -> None:
    examples = ExampleSet((Example(sounds / "audio" / "0.wav", ("high",)),), ("high", "low"))
    whole = TrainingClips(examples, 16000, 16000)[0][0]
    cropped = TrainingClips(examples, 16000, 4000, padded=False, cropped=True)
    assert cropped[Draw(0, place=0.0)][0].equal(whole[:4000])
    assert cropped[Draw(0, place=1.0)][0].equal(whole[11999:15999])
    assert TrainingClips(examples, 16000, 99999, padded=False)[0][0].shape == (16000,)
    part = ExampleSet((Example(sounds / "audio" / "0.wav", ("high",), start=0.25, stop=0.5),), ("high", "low"))
    assert TrainingClips(part, 16000, 99999, padded=False)[0][0].equal(whole[4000:8000])
    batch = collate([cropped[0], TrainingClips(examples, 16000, 100)[0]])
    assert isinstance(batch.waveforms, list) and batch.targets.tolist() == [[1, 0], [1, 0]]


def test_a_data_set_without_training_or_validation_clips_is_refused(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training fold"):
        train(recipe(sounds, tmp_path, data={"train_folds": [7]}))
    with pytest.raises(DataError, match="validation fold"):
        train(recipe(sounds, tmp_path, data={"validation_folds": [7]}))
    with pytest.raises(SettingsError, match="reads no picture"):
        train(recipe(sounds, tmp_path, data={"video": True}))


# --- augmentations --------------------------------------------------------------------------------------------------


def prepared(kind: str, frontend: Any, waveforms: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    config = AugmentConfig(kind=kind, **settings)  # type: ignore[arg-type]
    draws = tuple(Draw(index, key=index + 1) for index in range(len(waveforms)))
    batch = Batch(waveforms, torch.eye(2).repeat(len(waveforms) // 2, 1), None, draws, (None,) * len(waveforms))
    features, targets, _ = AUGMENTATIONS[kind](batch, frontend, config, torch.device("cpu"))
    return features, targets


def test_published_masks_are_zeros_before_normalisation() -> None:
    frontend = build_frontend(FRONTEND)
    waveforms = 0.1 * torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    plain, _ = prepared("audio_tagging", frontend, waveforms, frequency_mask=0, time_mask=0)
    torch.testing.assert_close(plain, frontend(waveforms - waveforms.mean(dim=1, keepdim=True)))
    masked, _ = prepared("audio_tagging", frontend, waveforms, frequency_mask=12, time_mask=0)
    changed = masked != plain
    assert changed.any() and masked[changed].unique().tolist() == pytest.approx([50 / 60])
    noisy, _ = prepared("audio_tagging", frontend, waveforms, frequency_mask=0, time_mask=0, noise=True)
    # Noise only adds, up to a tenth; the roll keeps the sum of the rest.
    added = (noisy - plain).mean(dim=(1, 2))
    assert (added > 0).all() and (added < 0.06).all()


def test_slowfast_masks_hold_the_mean_and_equiav_rolls() -> None:
    frontend = build_frontend(FRONTEND)
    waveforms = 0.1 * torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    masked, _ = prepared("slowfast", frontend, waveforms, frequency_mask=12, time_mask=20)
    plain = frontend(waveforms)
    changed = masked != plain
    assert changed.any() and not changed.all()
    assert all(len(clip[cells].unique()) <= 4 for clip, cells in zip(masked, changed, strict=True))
    only_time, _ = prepared("slowfast", frontend, waveforms, frequency_mask=0, time_mask=20)
    rows = (only_time != plain).any(dim=2)
    assert rows.any() and ((only_time != plain).all(dim=2) == rows).all()
    rolled, _ = prepared("equiav", frontend, waveforms)
    quiet = frontend(waveforms - waveforms.mean(dim=1, keepdim=True))
    assert not rolled.equal(quiet)
    torch.testing.assert_close(rolled.sort(dim=1).values, quiet.sort(dim=1).values)
    assert prepared("equiav", frontend, waveforms, shift=False)[0].equal(quiet)


def test_play_it_back_mixes_all_levels_alike() -> None:
    schedule = {"clip_seconds": 0.5, "num_frames": 50, "hop_factor": 0.2, "crop_frames": 50}
    frontend = build_frontend({"kind": "play_it_back", "n_mels": 32, "n_levels": 2, "schedule": schedule})
    waveforms = 0.1 * torch.randn(2, 7999, generator=torch.Generator().manual_seed(0))
    plain = frontend(waveforms)
    mixed, targets = prepared("play_it_back", frontend, waveforms, frequency_mask=0, time_mask=0, mixup=1.0, cutmix=0.0)
    share = targets[0, 0].item()
    assert 0 < share < 1 and targets.sum(dim=1).tolist() == pytest.approx([1, 1])
    torch.testing.assert_close(mixed, share * plain + (1 - share) * plain.flip(0))
    boxed, targets = prepared("play_it_back", frontend, waveforms, frequency_mask=0, time_mask=0, mixup=1.0, cutmix=1.0)
    replaced = (boxed == plain.flip(0)).float().mean().item()
    assert replaced == pytest.approx(1 - targets[0, 0].item(), abs=0.05)


# --- losses ---------------------------------------------------------------------------------------------------------


def loss_of(logits: Tensor, targets: Tensor, network: nn.Module | None = None, **changes: Any) -> float:
    config = recipe(Path(), Path(), **changes)
    examples = example_set(["a", "a", "a", "b"])
    network = network or Linear(LinearConfig(n_mels=16, n_classes=2))
    criterion = build_criterion(config, network, examples)  # type: ignore[arg-type]
    return criterion(lambda _: logits, network, torch.zeros(1), None, targets)[0].item()


def test_losses() -> None:
    logits, targets = torch.tensor([[2.0, -1.0], [0.5, 1.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = targets.argmax(dim=1)
    plain = {"label_smoothing": 0.0}
    assert loss_of(logits, targets, optimizer=plain) == pytest.approx(
        nn.functional.cross_entropy(logits, labels).item()
    )
    smooth = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1).item()
    assert loss_of(logits, targets, optimizer={"label_smoothing": 0.1}) == pytest.approx(smooth)
    # Three clips of a, one of b: weights 2/3 and 2; soft targets are not divided by the weights' sum.
    parts = nn.functional.cross_entropy(logits, labels, reduction="none")
    weighed = loss_of(logits, targets, optimizer=plain, loss={"class_weights": True})
    assert weighed == pytest.approx(((2 / 3) * parts[0] + 2 * parts[1]).item() / 2)
    binary = nn.functional.binary_cross_entropy(logits.sigmoid(), targets).item()
    assert loss_of(logits, targets, task="multi-label") == pytest.approx(binary)
    defect = nn.functional.binary_cross_entropy_with_logits(logits.sigmoid(), targets).item()
    changed = loss_of(logits, targets, loss={"kind": "bce", "probabilities_as_logits": True})
    assert changed == pytest.approx(defect)
    p = logits.softmax(dim=1)[[0, 1], labels]
    focal = loss_of(logits, targets, loss={"kind": "focal"})
    assert focal == pytest.approx((0.5 * (1 - p) ** 2 * -p.log()).mean().item(), abs=1e-4)


def test_verbs_and_nouns_count_the_same() -> None:
    network = SlowFast(SlowFastConfig(n_classes=5, class_groups=(2, 3), width=8, n_frames=32))
    logits = torch.tensor([[1.0, 0.0, 3.0, 0.0, 1.0]])
    targets = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]])
    verb = nn.functional.cross_entropy(logits[:, :2], torch.tensor([1]))
    noun = nn.functional.cross_entropy(logits[:, 2:], torch.tensor([0]))
    found = loss_of(logits, targets, network, loss={"kind": "heads"}, optimizer={"label_smoothing": 0.0})
    assert found == pytest.approx((verb + noun).item() / 2)
    assert figure_of(logits, targets, "accuracy", (2, 3)) == 0.0
    assert figure_of(logits.flip(0) * torch.tensor([-1, 1, 1, 1, 1]), targets, "accuracy", (2, 3)) == 1.0
    with pytest.raises(SettingsError, match="groups"):
        loss_of(logits, targets, loss={"kind": "heads"})


def test_label_embeddings(tmp_path: Path) -> None:
    network = SlowFast(SlowFastConfig(n_classes=2, width=8, n_frames=32, label_embedding_size=3))
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "table.npy", table)
    logits, targets = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 1.0]])
    section = {"kind": "label_embeddings", "embeddings": tmp_path / "table.npy", "embedding_weight": 0.25}
    expected = 0.75 * nn.functional.cross_entropy(logits, torch.tensor([1])) + 0.25 * nn.functional.mse_loss(
        network.label_embedding(logits), torch.from_numpy(table[1:])
    )
    found = loss_of(logits, targets, network, loss=section, optimizer={"label_smoothing": 0.0})
    assert found == pytest.approx(expected.item())
    with pytest.raises(SettingsError, match="dimensions"):
        loss_of(logits, targets, loss=section)
    with pytest.raises(SettingsError, match="needs a table"):
        loss_of(logits, targets, network, loss={"kind": "label_embeddings"})


def test_play_it_back_learns_from_every_pass() -> None:
    from tests.models.test_play_it_back import noise, tiny

    network, front = tiny(playbacks=1)
    assert isinstance(network, PlayItBack)
    network.train()
    config = recipe(Path(), Path(), loss={"kind": "play_it_back"})
    criterion = LOSSES["play_it_back"](config, network, example_set(["a"]))
    targets = torch.eye(5)[:2]
    loss, logits = criterion(network, network, front(noise()), None, targets)
    assert logits.shape == (2, 5) and loss.item() > nn.functional.cross_entropy(logits, targets.argmax(dim=1)).item()
    loss.backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if name.startswith("decoder.fc"))
    with pytest.raises(SettingsError, match="Play It Back only"):
        LOSSES["play_it_back"](config, Linear(LinearConfig()), example_set(["a"]))


# --- optimizers and schedules ---------------------------------------------------------------------------------------


def rates(schedule: dict[str, Any], settings: dict[str, Any], steps: int, per_epoch: int = 10) -> list[float]:
    own = OptimizerConfig(**settings)
    groups = build_optimizer(nn.Linear(2, 2), own).param_groups
    plan, found = RateSchedule(ScheduleConfig(**schedule), own, per_epoch), []
    for step in range(steps):
        plan.before_step(groups, step)
        found.append(groups[0]["lr"])
        if (step + 1) % per_epoch == 0:
            plan.after_epoch(groups, (step + 1) // per_epoch)
    return found


def test_schedules_are_the_published_ones() -> None:
    found = rates({"kind": "milestones", "milestones": [2, 4], "warmup_steps": 1000}, {"learning_rate": 0.1}, 130, 30)
    assert found[:50] == [0.0] * 50 and found[50] == pytest.approx(0.005) and found[60] == pytest.approx(0.0025)
    assert found[100] == pytest.approx(0.01) and found[120] == pytest.approx(0.005)
    slow = {"kind": "steps", "steps": [0, 30, 40], "factors": [1.0, 0.1, 0.01]}
    found = rates(slow, {"learning_rate": 0.01, "epochs": 50, "warmup_epochs": 0}, 500)
    assert found == pytest.approx([VGGSOUND_POLICY.at(step / 10) for step in range(500)])
    play = {"kind": "play_it_back", "start": 5e-5, "end": 1e-4}
    found = rates(play, {"learning_rate": 5e-3, "epochs": 50, "warmup_epochs": 2.5}, 500)
    assert found == pytest.approx([learning_rate(step / 10, 5e-3, 1e-4, 50, 2.5, 5e-5) for step in range(500)])
    half = {"kind": "half_cosine", "start": 2e-7, "end": 1e-6}
    found = rates(half, {"learning_rate": 1e-4, "epochs": 5, "warmup_epochs": 3}, 50)
    assert found == pytest.approx([WarmupCosine()(step) for step in range(50)])
    found = rates({}, {"learning_rate": 1.0, "epochs": 4, "warmup_epochs": 1}, 40)
    assert found[0] == pytest.approx(0.1) and max(found) == found[10] == 1.0 and found[25] == pytest.approx(0.5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.bn, self.head = nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"body.weight": (0.02, 1e-3), "body.bias": (0, 1e-3), "bn.weight": (0, 1e-3)}),
        ({"decay_of": "all", "kind": "adam"}, {"body.bias": (0.02, 1e-3), "bn.weight": (0.02, 1e-3)}),
        ({"decay_of": "not_batch_norm", "kind": "sgd"}, {"body.bias": (0.02, 1e-3), "bn.weight": (0, 1e-3)}),
        ({"head_learning_rate": 0.5, "head_names": ["head."]}, {"head.weight": (0.02, 0.5), "head.bias": (0, 0.5),
                                                                "body.weight": (0.02, 1e-3)}),
    ],
)  # fmt: skip
def test_parameter_groups(settings: dict[str, Any], expected: dict[str, tuple[float, float]]) -> None:
    network = Small()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (group["weight_decay"], group["lr"])
        for group in build_optimizer(network, OptimizerConfig(**settings)).param_groups
        for parameter in group["params"]
    }
    assert set(found) == set(names.values())
    assert {key: found[key] for key in expected} == expected


def test_the_published_loop_and_the_recipe_agree(sounds: Path, tmp_path: Path) -> None:
    """The same weights as `train_published`, which reproduces published trajectories, for batches of the whole set."""
    augment = {"kind": "audio_tagging", "mixup": 0.0, "frequency_mask": 0, "time_mask": 0}
    changes = {
        "config": {"dropout": 0.0}, "loss": {"kind": "bce"}, "augment": augment,
        "optimizer": PUBLISHED | {"epochs": 6, "batch_size": 8, "average_epochs": [3, 6]},
        "schedule": {"kind": "milestones", "milestones": [2, 4]},
    }  # fmt: skip
    config = recipe(sounds, tmp_path, **changes)
    found = weights(train(config))
    torch.manual_seed(config.seed)
    network = Linear(LinearConfig(n_mels=16, hidden_size=8, n_layers=1, n_classes=2, dropout=0.0))
    from models.data import read_esc

    clips = TrainingClips(read_esc(sounds).folds([1]), 16000, 16000)
    front = build_frontend(FRONTEND)
    waveforms = torch.stack([clips[index][0] for index in range(8)])
    waveforms = waveforms[:, : front.window_samples]
    features = front(waveforms - waveforms.mean(dim=1, keepdim=True))
    published = PublishedRecipe(0.01, 6, milestones=(2, 4), average=(3, 6))
    batches = lambda: [(features, clips.targets)]  # noqa: E731
    expected = train_published(network, batches, batches, published).averaged_weights
    assert expected is not None
    for key, value in expected.items():
        if key == "fc_att.bias":  # without effect, so its gradient is rounding, which Adam scales up
            continue
        torch.testing.assert_close(found[key], value, atol=2e-4, rtol=1e-3)


def test_accumulated_batches_make_one_step(sounds: Path, tmp_path: Path) -> None:
    augment = {"kind": "audio_tagging", "mixup": 0.0, "frequency_mask": 0, "time_mask": 0}
    found = [
        weights(train(recipe(
            sounds, tmp_path / str(size), augment=augment, config={"dropout": 0.0},
            optimizer={"batch_size": size, "accumulate": 8 // size, "average_decay": 0.0},
        )))
        for size in (8, 2)
    ]  # fmt: skip
    for key, value in found[0].items():
        if key != "fc_att.bias":  # without effect
            torch.testing.assert_close(found[1][key], value, atol=1e-4, rtol=1e-3)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_patience_and_the_best_epoch(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: Iterator[float] = iter([0.2, 0.6, 0.6, 0.1, 0.9])
    kept: list[dict[str, Tensor]] = []

    def pretend(network: nn.Module, *_: object) -> float:
        kept.append({key: value.clone() for key, value in network.state_dict().items()})
        return next(figures)

    monkeypatch.setattr("models.training.standard_loop.validate", pretend)
    reports: list[EpochReport] = []
    config = recipe(
        sounds, tmp_path, optimizer={"epochs": 9}, data={"validation_folds": [2], "test_folds": []},
        validation={"metric": "mAP", "keep": "best", "patience": 2},
    )  # fmt: skip
    folder = train(config, reports.append)
    assert [report.validation_accuracy for report in reports] == [0.2, 0.6, 0.6, 0.1]
    assert same(weights(folder), kept[1]) and not same(weights(folder), kept[3])


def test_validation_reports_accuracy_and_mean_average_precision() -> None:
    logits, targets = torch.tensor([[3.0, 1.0], [2.0, 1.0], [0.0, 2.0]]), torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    assert figure_of(logits, targets, "accuracy") == pytest.approx(2 / 3)
    # Class 0 is ranked first; of class 1 one clip is first and the other shares the last ranks.
    assert figure_of(logits, targets, "mAP") == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)
    assert figure_of(-logits, targets, "mAP") < 0.7


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("optimizer", {"average_epochs": [2, 9]}),
        ("optimizer", {"kind": "lion"}),
        ("schedule", {"kind": "steps", "steps": [0, 1], "factors": [1.0]}),
        ("validation", {"keep": "best"}),
        ("augment", {"kind": "louder"}),
    ],
)
def test_settings_that_cannot_work_are_refused(section: str, values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="valid"):
        recipe(tmp_path, tmp_path, **{section: values})


# --- starts ---------------------------------------------------------------------------------------------------------


def test_starting_from_other_weights(sounds: Path, tmp_path: Path) -> None:
    first = train(recipe(sounds, tmp_path / "first"))
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "average_decay": 0.0}
    second = recipe(sounds, tmp_path / "second", optimizer=still, start={"checkpoint": str(first)})
    folder = train(second)
    assert str(tmp_path) not in (folder / "card.yaml").read_text()  # folders of this machine stay here
    for key, value in weights(folder).items():
        torch.testing.assert_close(value, weights(first)[key], atol=1e-6, rtol=0)
    # Another number of classes: everything but the classifier.
    wide = write_sounds(tmp_path / "wide", (4,))
    rows = (wide / "meta.csv").read_text().replace("0.wav,1,high", "0.wav,1,hiss")
    (wide / "meta.csv").write_text(rows)
    other = recipe(wide, tmp_path / "third", optimizer=still, start={"checkpoint": str(first), "kind": "matching"})
    found = weights(train(other))
    torch.testing.assert_close(found["linear.0.weight"], weights(first)["linear.0.weight"], atol=1e-6, rtol=0)
    assert found["fc_prob.weight"].shape[0] == 3
    with pytest.raises(CheckpointError, match="matching"):
        train(recipe(wide, tmp_path / "fourth", start={"checkpoint": str(first)}))
    with pytest.raises(SettingsError, match="AST only"):
        train(recipe(sounds, tmp_path / "fifth", start={"checkpoint": str(first), "kind": "deit"}))
    torch.save({"nothing": torch.zeros(2)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="No entry"):
        train(recipe(sounds, tmp_path / "sixth", start={"checkpoint": str(tmp_path / "odd.pth"), "kind": "matching"}))


def test_ast_starts_from_pictures(sounds: Path, tmp_path: Path) -> None:
    from models.families.ast import AST, ASTConfig

    settings = {"model_size": "custom", "width": 64, "n_heads": 1, "depth": 1, "n_mels": 36, "target_length": 96}
    torch.manual_seed(5)
    donor = {
        key.removeprefix("v."): value
        for key, value in AST(ASTConfig.model_validate(settings)).state_dict().items() if key.startswith("v.")
    } | {"pos_embed": torch.randn(1, 18, 64), "patch_embed.proj.weight": torch.randn(64, 3, 16, 16)}  # fmt: skip
    torch.save({"model": donor}, tmp_path / "deit.pth")
    config = TrainConfig.model_validate({
        "name": "ast", "family": "ast", "config": settings, "normalize": "given", "half": False, "output": tmp_path,
        "frontend": {"kind": "kaldi_fbank", "n_mels": 36, "target_length": 96},
        "data": {"root": sounds, "train_folds": [1], "test_folds": [2]},
        "optimizer": {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0},
        "start": {"kind": "deit", "checkpoint": str(tmp_path / "deit.pth")},
    })  # fmt: skip
    found = weights(train(config))
    expected = donor["patch_embed.proj.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(found["v.patch_embed.proj.weight"], expected, atol=1e-6, rtol=0)


# --- documentation --------------------------------------------------------------------------------------------------


def test_every_setting_is_documented() -> None:
    """`python -m tests.models.options_table` prints the tables anew."""
    table = options_table()
    assert "|  |" not in table
    assert table in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
