"""What is learned from a teacher's embeddings: by hand, exactly the same after a stop, and nothing where it is not asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from models.catalog import read_card
from models.checkpoint import load_recognizer, save_checkpoint
from models.errors import SettingsError
from models.training.clips import collate
from models.training.config import TrainConfig, load_train_config
from models.training.distillation import Teacher, channel_axis, pooled
from models.training.provenance import checkpoint_hash
from models.training.sections import TeacherConfig
from models.training.standard_loop import Learner, StandardLoop
from models.training.trainer import prepare_training, train
from tests.conftest import TINY, make_recognizer
from tests.models.test_training_options import recipe, same, weights
from tests.models.test_training_resume import SAVED, Stop, stopping
from tests.models.training_data import write_sounds

LABELS = ("high", "low")
AST = {
    "family": "ast", "config": TINY["ast"], "frontend": {"kind": "kaldi_fbank", "n_mels": 32, "target_length": 128},
}  # fmt: skip


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "esc", (9, 4))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that embeds in 32 channels x 4 steps."""
    known = make_recognizer("resnet_attention", labels=LABELS)
    folder = tmp_path_factory.mktemp("teacher") / "resnet"
    save_checkpoint(folder, known.network, known.card)
    return folder


def guided(sounds: Path, output: Path, teacher: Path, weight: float | None, **changes: Any) -> TrainConfig:
    """A recipe of a tiny AST with a teacher; None: its answers only, and nothing said about embeddings."""
    section = {"checkpoint": str(teacher)} | ({} if weight is None else {"embedding_weight": weight})
    values = recipe(sounds, output, teacher=section, **changes).model_dump()
    return TrainConfig.model_validate(values | AST)


def loop_of(config: TrainConfig) -> StandardLoop:
    prepared = prepare_training(config)
    assert config.teacher is not None
    return StandardLoop(
        config, prepared.network, prepared.frontend, prepared.clips, None,
        load_recognizer(config.teacher.checkpoint, "cpu"), Accelerator(cpu=True),
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_channels_are_those_that_the_head_reads(name: str) -> None:
    network = make_recognizer(name).network
    hidden = network.forward_features(torch.randn(2, 128, 32))
    axis = channel_axis(network, hidden)
    assert axis == 1 and pooled(hidden, axis).shape == (2, 32)


def test_the_largest_value_over_time_is_taken() -> None:
    hidden = torch.tensor([[[1.0, 5.0, 2.0], [-3.0, -4.0, -9.0]]])
    assert pooled(hidden, 1).tolist() == [[5.0, -3.0]] and pooled(hidden, 2).tolist() == [[1.0, 5.0, 2.0]]
    sequence = make_recognizer("resnet_attention").network
    reads = torch.nn.Linear(6, 2)
    sequence.forward_head = lambda hidden: reads(hidden).mean(dim=1)  # type: ignore[method-assign]
    sequence.attention = reads
    assert channel_axis(sequence, torch.zeros(1, 3, 6)) == 2


def test_a_teacher_says_the_same_with_and_without_embeddings(teacher: Path, chirp: np.ndarray) -> None:
    known, waveforms = load_recognizer(teacher, "cpu"), torch.from_numpy(chirp).repeat(2, 1)
    plain = Teacher(known, TeacherConfig(checkpoint="x")).listen(waveforms)
    both = Teacher(known, TeacherConfig(checkpoint="x", embedding_weight=1.0)).listen(waveforms)
    assert plain.embeddings is None and both.embeddings is not None and both.logits.equal(plain.logits)
    largest = known.network.forward_features(known.features(waveforms)).detach().numpy().max(axis=2)
    expected = (largest - largest.mean(axis=1, keepdims=True)) / largest.std(axis=1, keepdims=True)
    np.testing.assert_allclose(both.embeddings.numpy(), expected, atol=1e-3)


def test_the_loss_by_hand(sounds: Path, tmp_path: Path, teacher: Path) -> None:
    losses: list[Tensor] = []
    loop = loop_of(guided(sounds, tmp_path, teacher, 3.0))
    learner = loop.learner
    assert isinstance(learner, Learner) and learner.projection is not None and loop.teacher is not None
    batch = collate([loop.clips[index] for index in range(4)])
    for weight in (0.0, 3.0):
        loop.teacher.settings = TeacherConfig(checkpoint="x", embedding_weight=weight)
        losses.append(loop.loss(batch, 1, 0, 0).detach())
    loop.teacher.settings = TeacherConfig(checkpoint="x", embedding_weight=1.0)
    features, _, _, heard = loop._heard(batch)  # the student's are masked, the teacher hears all of it
    assert isinstance(heard, Tensor)
    wanted = loop.teacher.listen(heard).embeddings
    with torch.no_grad():
        found = learner.projection.linear(loop.network.forward_features(features))
    assert wanted is not None and float(losses[1] - losses[0]) > 0.5
    torch.testing.assert_close(losses[1] - losses[0], 3.0 * (found - wanted).square().mean(), rtol=1e-4, atol=1e-5)


def test_it_is_learned_and_thrown_away(sounds: Path, tmp_path: Path, teacher: Path) -> None:
    """The distance falls; the checkpoint holds what it would hold without; 0 is the same as nothing said."""
    settings: dict[str, Any] = {"optimizer": {"epochs": 12, "learning_rate": 0.003, "average_decay": 0.0}}
    loop = loop_of(guided(sounds, tmp_path / "a", teacher, 1.0, **settings))
    batch = collate([loop.clips[index] for index in range(8)])

    def distance() -> float:
        assert isinstance(batch.waveforms, Tensor) and loop.teacher is not None
        with torch.no_grad():
            lesson = loop.teacher.listen(batch.waveforms)
            return float(loop.learner(loop.frontend(batch.waveforms), None, batch.targets, lesson.embeddings)[2])

    before = distance()
    loop.run()
    assert distance() < 0.5 * before
    found = [
        weights(train(guided(sounds, tmp_path / str(weight), teacher, weight))) for weight in (None, 0.0, 1.0)
    ]  # fmt: skip
    assert same(found[0], found[1]) and set(found[2]) == set(found[0]) and not same(found[0], found[2])


def test_interrupted_anywhere_is_uninterrupted(
    sounds: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"optimizer": {"epochs": 2, "average_decay": 0.5, "mixed_precision": "bf16"}}
    whole = train(guided(sounds, tmp_path / "whole", teacher, 2.0, **settings))
    for at in (1, 3):
        config = guided(sounds, tmp_path / str(at), teacher, 2.0, **settings, **SAVED)
        with stopping(monkeypatch, StandardLoop, at), pytest.raises(Stop):
            train(config)
        torch.rand(7)  # whatever else happens in between
        assert same(weights(whole), weights(train(config.model_copy(update={"resume": True}))))


def test_it_is_refused_where_no_head_reads_an_embedding(sounds: Path, tmp_path: Path, teacher: Path) -> None:
    for changes in ({"loop": {"kind": "playback_stages"}}, {"loss": {"kind": "play_it_back"}}):
        with pytest.raises(ValueError, match="embedding_weight is for the loop standard"):
            guided(sounds, tmp_path, teacher, 1.0, **changes)
        guided(sounds, tmp_path, teacher, 0.0, **changes)
    with pytest.raises(SettingsError, match="embedding_weight"):
        (tmp_path / "r.yaml").write_text("name: a\nfamily: ast\nfrontend: {kind: kaldi_fbank}\ndata: {root: x}\n")
        load_train_config(tmp_path / "r.yaml", ["teacher.checkpoint=x", "teacher.embedding_weight=-1"])


def test_the_card_names_the_weights_that_a_run_came_from(sounds: Path, tmp_path: Path, teacher: Path) -> None:
    first = train(guided(sounds, tmp_path / "first", teacher, 0.0))
    named = {path: {"name": path.name, "content_hash": read_card(path).content_hash} for path in (first, teacher)}
    assert read_card(first).training["checkpoints"] == [named[teacher]]
    start = [{"kind": "whole", "checkpoint": str(first)}]
    again = train(guided(sounds, tmp_path / "again", teacher, 0.0, start=start))
    assert read_card(again).training["checkpoints"] == [named[first], named[teacher]]
    assert "checkpoints" not in read_card(train(recipe(sounds, tmp_path / "alone"))).training
    weights_file = tmp_path / "published.pth"
    weights_file.write_bytes(b"abc")
    assert checkpoint_hash(str(weights_file)) == hashlib.sha256(b"abc").hexdigest()
    assert checkpoint_hash(str(tmp_path / "gone")) == "not found any more"
