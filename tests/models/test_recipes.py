"""Every shipped recipe can be read and built, and every family is trained by one, made tiny."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from models import training
from models.checkpoint import load_recognizer
from models.data import READERS
from models.families.hetero_graph import HeteroGraph
from models.frontends import build_frontend
from models.registry import families, family
from models.training.config import TrainConfig, load_train_config
from models.training.event_graph_loop import settings_of
from models.training.loops import OnlineLoop, loop_settings
from models.training.playback_stages import PlaybackStages
from models.training.pretraining_loop import PretrainingLoop
from models.training.trainer import train
from tests.models.test_audio_tagging_families import TINY as TAGGING
from tests.models.test_equiav import TINY as EQUIAV
from tests.models.test_equiav_pretraining import TINY as EQUIAV_PRETRAINING
from tests.models.test_hetero_graph import TINY as HETERO_GRAPH
from tests.models.test_play_it_back import tiny_config
from tests.models.training_data import write_kitchen, write_sounds, write_videos

RECIPES = {path.stem: path for path in sorted((Path(training.__file__).parents[1] / "recipes").glob("*.yaml"))}
OWN_LOOPS: dict[str, type[BaseModel]] = {
    "online": OnlineLoop,
    "playback_stages": PlaybackStages,
    "pretraining": PretrainingLoop,
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_built(name: str) -> None:
    """Network on the meta device, front end, and that they belong together."""
    config = load_train_config(RECIPES[name])
    assert config.name == name and config.title and config.description and config.citation
    assert config.data.format in READERS
    cls = family(config.family)
    network_config = cls.Config.model_validate(config.config)
    with torch.device("meta"):
        network = cls(network_config)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1e5
    frontend = build_frontend(config.frontend)
    for key in ("n_mels", "target_length", "sample_rate"):
        wanted = getattr(network_config, key, None)
        if wanted is not None and not (key == "n_mels" and frontend.n_mels == 0):
            assert getattr(frontend, key) == wanted, key
    assert getattr(network_config, "n_frames", frontend.target_length) == frontend.target_length
    if hasattr(network_config, "schedule"):
        assert frontend.config.schedule == network_config.schedule  # type: ignore[attr-defined]
        assert frontend.config.n_levels == network_config.playbacks + 1  # type: ignore[attr-defined]
    assert config.data.video <= ("video" in network.modalities)
    if config.loop.kind == "event_graph":
        settings_of(config)
    elif config.loop.kind != "standard":
        loop_settings(config, OWN_LOOPS[config.loop.kind])
    if "classes" in config.data.options:
        assert len(config.data.options["classes"]) == network_config.n_classes
    for start in config.start:
        assert start.checkpoint.startswith("data/") or start.checkpoint in RECIPES


def test_published_settings_that_are_easily_mistaken() -> None:
    """A sample of the published tables, one row of each system."""
    full = load_train_config(RECIPES["ast-audioset-full"])
    assert full.sampling.kind == "balanced" and full.optimizer.learning_rate == 1e-5
    assert full.schedule.milestones == [2, 3, 4, 5] and full.optimizer.average_epochs == (1, 5)
    res = load_train_config(RECIPES["resnet-audioset"])
    assert (res.optimizer.learning_rate, res.optimizer.batch_size) == (4.8e-4, 512) and res.augment.time_mask == 75
    epic = load_train_config(RECIPES["slowfast-epic"])
    assert epic.optimizer.freeze_batch_norm and epic.schedule.steps == [0, 20, 25] and epic.loss.kind == "heads"
    small = load_train_config(RECIPES["play-it-back-vggsound-x1-s"])
    assert small.schedule.start == 1e-5 and small.optimizer.frozen == ["encoder."]
    loop, solver = settings_of(load_train_config(RECIPES["event-graph-audioset"]))
    assert loop.label_smoothing == 0.3 and not solver.SAME_LR and solver.rate_factor(1000) == 1.0
    equiav = load_train_config(RECIPES["equiav-vggsound"])
    assert equiav.optimizer.betas == (0.9, 0.95) and equiav.schedule.end == 1e-6


PLAYBACK = tiny_config(n_classes=2, playbacks=1).model_dump(mode="json")
CORRECTED = tiny_config(n_classes=2, playbacks=1, schedule={"corrected": True}).model_dump(mode="json")
SMALL = {"kind": "kaldi_fbank", "padding": "zero", "mean": -8.0, "std_scale": 8.0}
SLANEY = {"kind": "slaney_db", "n_mels": 16, "target_length": 41, "padding": "zero", "mean": -50.0, "std_scale": 60.0}
SLOWFAST = {
    "config": {"width": 8, "n_frames": 32},
    "frontend": {"kind": "htk_mel", "target_length": 32, "clip_seconds": 0.319},
}
HEAR = {"kind": "waveform", "n_mels": 0, "sample_rate": 8000, "target_length": 8000}
WATCH = {"kind": "kaldi_fbank", "n_mels": 128, "target_length": 64, "padding": "zero"}

# Recipe, data, and what makes it tiny. Families that no published recipe trains borrow the one of the linear baseline.
RUNS: dict[str, tuple[str, str, dict[str, object]]] = {
    "ast": ("ast-audioset", "sounds", {"config": TAGGING["ast"][1], "frontend": SMALL | {"n_mels": 36, "target_length": 56}}),
    "ast speech commands": (
        "ast-speech-commands", "sounds",
        {"config": TAGGING["ast"][1], "frontend": SMALL | {"n_mels": 36, "target_length": 56}, "data.validation_folds": [2]},
    ),
    "ast distilled": (
        "ast-esc10-first", "sounds",
        {"config": TAGGING["ast"][1], "frontend": SMALL | {"n_mels": 36, "target_length": 56}, "teacher": None,
         "optimizer.mixed_precision": "bf16"},
    ),
    "crnn": ("crnn-audioset", "sounds", {"config": TAGGING["crnn att"][1], "frontend": SLANEY}),
    "cnn_transformer": ("cnn-transformer-audioset", "sounds", {"config": TAGGING["cnn_transformer"][1], "frontend": SLANEY}),
    "psla": ("psla-audioset", "sounds", {"config": {"b": 0}, "frontend": SMALL | {"target_length": 65}}),
    "resnet_attention": (
        "resnet-audioset", "sounds",
        {"config": TAGGING["resnet"][1], "frontend": SMALL | {"n_mels": 64, "target_length": 70}, "augment.time_mask": 30},
    ),
    "linear": ("linear-audioset", "sounds", {"config": TAGGING["linear"][1], "frontend": SLANEY}),
    "fnet": ("fnet-audioset", "sounds", {"config": TAGGING["fnet"][1], "frontend": SLANEY}),
    "ffnet": ("linear-audioset", "sounds", {"family": "ffnet", "config": TAGGING["ffnet"][1], "frontend": SLANEY}),
    "transformer": (
        "linear-audioset", "sounds", {"family": "transformer", "config": TAGGING["transformer"][1], "frontend": SLANEY}
    ),
    "mobilenet": (
        "linear-audioset", "sounds",
        {"family": "mobilenet", "config": {}, "frontend": SMALL | {"n_mels": 40, "target_length": 50}},
    ),
    "slowfast": ("slowfast-vggsound", "sounds", SLOWFAST),
    "slowfast with label embeddings": (
        "slowfast-lep-vggsound", "sounds",
        SLOWFAST | {"config": {"width": 8, "n_frames": 32, "label_embedding_size": 3}, "loss.embeddings": "table.npy"},
    ),
    "slowfast in kitchens": (
        "slow-epic", "kitchen",
        {"config": {"width": 4, "n_frames": 16, "arch": "slow", "class_groups": [97, 300]},
         "frontend": {"kind": "htk_mel", "sample_rate": 24000, "win_length": 240, "hop_length": 480, "target_length": 16,
                      "clip_seconds": 0.319}},
    ),
    "play_it_back": (
        "play-it-back-vggsound-x1", "sounds",
        {"config": PLAYBACK, "augment.mixup": 1.0,
         "frontend": {"kind": "play_it_back", "n_mels": 32, "n_levels": 2, "schedule": PLAYBACK["schedule"]}},
    ),
    "play_it_back encoder": (
        "play-it-back-audioset-encoder", "sounds",
        {"config": PLAYBACK | {"playbacks": 0},
         "frontend": {"kind": "play_it_back", "n_mels": 32, "n_levels": 1, "schedule": PLAYBACK["schedule"]}},
    ),
    "play_it_back corrected": (
        "play-it-back-esc10", "sounds",
        {"config": CORRECTED, "loop.decoder_epochs": 1, "teacher": None,
         "frontend": {"kind": "play_it_back", "n_mels": 32, "n_levels": 2, "schedule": CORRECTED["schedule"]}},
    ),
    "hetero_graph": (
        "event-graph-audioset", "videos",
        {"config": {key: value for key, value in HETERO_GRAPH.items() if key != "n_classes"}, "frontend": HEAR,
         "data.format": "av_folders", "data.options": {"n_folds": 4}, "data.train_folds": [1, 2, 3],
         "data.validation_folds": [4], "data.test_folds": [], "loop.evaluate_every": 2, "loop.solver.MAX_ITER": 2},
    ),
    "equiav": ("equiav-household", "sounds", {"config": EQUIAV, "frontend": WATCH}),
    "equiav with pictures": (
        "equiav-vggsound", "videos", {"config": EQUIAV | {"mode": "multimodal"}, "frontend": WATCH, "augment.mixup": 1.0}
    ),
    "equiav_pretraining": (
        "equiav-pretraining", "videos",
        {"config": EQUIAV_PRETRAINING, "frontend": WATCH, "loop.time_mask": 8, "loop.frequency_mask": 8},
    ),
    "equiav online": ("equiav-online", "sounds", {"config": EQUIAV, "frontend": WATCH}),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "sounds": write_sounds(folder / "sounds"),
        "kitchen": write_kitchen(folder / "kitchen"),
        "videos": write_videos(folder / "videos"),
    }


def tiny_recipe(run: str, data: dict[str, Path], output: Path) -> TrainConfig:
    """A recipe with three clips a batch, so two steps an epoch, and one epoch."""
    name, kind, changes = RUNS[run]
    changes = {
        "data.format": "epic_kitchens" if kind == "kitchen" else "esc", "data.root": str(data[kind]), "data.options": {},
        "data.train_folds": [1], "data.validation_folds": [], "data.test_folds": [5], "data.workers": 0, "start": [],
        "optimizer.batch_size": 3, "optimizer.epochs": 1, "optimizer.mixed_precision": "no", "output": str(output),
        "half": False, "schedule.warmup_steps": 0,
    } | changes  # fmt: skip
    if load_train_config(RECIPES[name]).optimizer.average_epochs is not None:
        changes["optimizer.average_epochs"] = [1, 1]
    if kind == "videos" and changes["data.format"] == "av_folders":
        changes["data.root"] = str(data[kind] / "classes")
    if changes.get("loss.embeddings"):
        np.save(output / "table.npy", np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32))
        changes["loss.embeddings"] = str(output / "table.npy")
    return load_train_config(RECIPES[name], [f"{key}={json.dumps(value)}" for key, value in changes.items()])


@pytest.mark.parametrize("run", RUNS)
def test_a_tiny_recipe_trains(run: str, data: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_recipe(run, data, tmp_path)
    reports = []
    folder = train(config, reports.append)
    assert reports and all(np.isfinite(report.loss) and report.learning_rate >= 0 for report in reports)
    recognizer = load_recognizer(folder, "cpu")
    torch.manual_seed(config.seed)
    fresh = dict(family(config.family)(recognizer.network.config).named_parameters())
    moved = {key for key, value in recognizer.network.named_parameters() if not value.equal(fresh[key])}
    assert moved
    if config.optimizer.frozen:
        assert not [key for key in moved if key.startswith(tuple(config.optimizer.frozen))]
    assert len(recognizer.labels) == recognizer.network.config.n_classes
    assert sum(recognizer.card.label_groups) in (0, len(recognizer.labels))
    features = recognizer.features(np.zeros(recognizer.window_samples or 16000, dtype=np.float32))
    frames = None
    if config.data.video:
        frames = (
            torch.rand(1, 20, 3, 112, 112)
            if isinstance(recognizer.network, HeteroGraph)
            else torch.rand(1, 1, 3, 32, 32)
        )
    assert recognizer(features, frames).isfinite().all()


def test_every_family_is_trained() -> None:
    trained = {RUNS[run][2].get("family") or load_train_config(RECIPES[RUNS[run][0]]).family for run in RUNS}
    assert trained == set(families())
