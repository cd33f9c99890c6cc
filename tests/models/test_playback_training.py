"""Training of Play It Back's corrected mode: its slots learn to find what decides a class."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from models.checkpoint import load_recognizer
from models.errors import SettingsError
from models.families.play_it_back import PlayItBack
from models.frontends import build_frontend
from models.training.averaging import moving_average
from models.training.clips import Draw, TrainingClips
from models.training.config import TrainConfig
from models.training.playback_copies import CopiedClips, Drawn, FreshClips
from models.training.playback_evidence import selection_test
from models.training.playback_inputs import encoder_inputs, explore, explored_share, random_segments, roll_levels
from models.training.playback_slots import slot_loss
from models.training.playback_stages import (
    PlaybackStages,
    answer_step,
    plan_of,
    run_stages,
    train_playback,
)
from models.training.run_state import Saver
from models.training.trainer import EpochReport, read_examples, train, training_part
from tests.models.test_play_it_back import TINY_DECODER, noise, tiny, tiny_config
from tests.models.test_play_it_back_corrected import VGG_SCHEDULE

N_CLASSES, N_FRAMES, N_MELS = 6, 400, 64


def chirps(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with one chirp that tells the class, and two bursts that do not: features, labels, chirp ``[n, 2]``."""

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    features = 0.7 * torch.randn(count, N_FRAMES, N_MELS, generator=generator) - 1.0
    labels = torch.randint(0, N_CLASSES, (count,), generator=generator)
    bands, places = torch.arange(N_MELS), torch.zeros(count, 2, dtype=torch.long)
    for clip in range(count):
        length, label = integer(40, 70), int(labels[clip])
        start = integer(0, N_FRAMES - length)
        sweep = torch.linspace(-8, 8, length) * (1 if label % 2 else -1)
        centers = 12 + 20 * (label // 2) + sweep
        features[clip, start : start + length] += 2.2 * torch.exp(-0.5 * ((bands - centers[:, None]) / 1.5) ** 2)
        places[clip] = torch.tensor([start, start + length])
        for _ in range(2):
            while True:
                burst = integer(20, 60)
                at = integer(0, N_FRAMES - burst)
                if at + burst <= start or at >= start + length:
                    break
            features[clip, at : at + burst] += 1.5
    return features, labels, places


def network_for_chirps() -> PlayItBack:
    """The specification's small encoder with one playback."""
    encoder = {
        "embed_dim": 16, "depth": 4, "width_factors": [(1, 2), (2, 2), (3, 2)], "head_factors": [(1, 2), (2, 2), (3, 2)],
        "query_strides": [(1, 2, 2), (2, 2, 2), (3, 2, 2)], "drop_path": 0.1,
    }  # fmt: skip
    config = PlayItBack.Config.model_validate({
        "n_classes": N_CLASSES, "playbacks": 1, "n_mels": N_MELS, "encoder": encoder, "decoder": TINY_DECODER,
        "schedule": VGG_SCHEDULE, "slots": {"slot_dim": 64},
    })  # fmt: skip
    network = PlayItBack(config)
    for module in network.encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.05)
    return network


def all_levels(coarse: Tensor) -> Tensor:
    """Features with only level 0 filled."""
    return nn.functional.pad(coarse, (0, 0, 0, 800))


def train_encoder(network: PlayItBack, steps: int, generator: torch.Generator) -> None:
    """With stretches of clips hidden half the time, so that masked inputs are not foreign to it."""
    optimizer = torch.optim.AdamW(network.encoder.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    for _ in range(steps):
        features, labels, _ = chirps(32, generator)
        for clip in range(32):
            if torch.rand((), generator=generator) < 0.5:
                length = int(torch.randint(20, 200, (1,), generator=generator))
                start = int(torch.randint(0, N_FRAMES - length, (1,), generator=generator))
                features[clip, start : start + length] = features[clip].mean()
        tokens, _ = network.encoder(features.unsqueeze(1))
        loss = nn.functional.cross_entropy(network.encoder.classify(network.encoder.pool(tokens))[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


def train_slots(network: PlayItBack, steps: int, generator: torch.Generator) -> list[float]:
    """On the first pass, the encoder frozen; returns the losses."""
    optimizer = torch.optim.AdamW(network.time_slots.parameters(), lr=1e-3)
    valid, losses = torch.ones(16, N_FRAMES, dtype=torch.bool), []
    for _ in range(steps):
        coarse, labels, _ = chirps(16, generator)
        with torch.no_grad():
            frames = np.arange(N_FRAMES)
            heard = network.encode(all_levels(coarse), 0, np.zeros_like(frames), frames, [400, 800])
        loss = slot_loss(network, heard, valid, nn.functional.one_hot(labels, N_CLASSES).float()).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_mechanics_in_a_few_steps() -> None:
    """A few steps of both lower their loss and break nothing."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = network_for_chirps()
    train_encoder(network, 2, generator)
    losses = train_slots(network, 4, generator)
    assert all(math.isfinite(loss) for loss in losses)
    features, _, _ = chirps(8, generator)
    with torch.no_grad():
        tokens, _ = network.encoder(features.unsqueeze(1))
        guessed = network.encoder.classify(network.encoder.pool(tokens))[0].argmax(dim=1)
    targets = nn.functional.one_hot(guessed, N_CLASSES).float()
    result = selection_test(network, all_levels(features), targets, rotations=2)
    assert result.n_clips == 8 and -1 <= result.drop <= 1 and 0 <= result.keep <= 1


def test_random_segments() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = set()
    for _ in range(200):
        found = random_segments(50, 20, generator)
        lengths = found[:, 1] - found[:, 0]
        assert lengths.sum() == 20 and (lengths > 0).all() and found[0, 0] >= 0 and found[-1, 1] <= 50
        assert (found[1:, 0] >= found[:-1, 1]).all()
        counts.add(len(found))
    assert counts == {1, 2, 3}
    assert random_segments(50, 0, generator).shape == (0, 2)
    assert (np.diff(random_segments(5, 9, generator), axis=1)).sum() == 5


def test_exploring_falls_and_keeps_the_total() -> None:
    assert [explored_share(x) for x in (0.0, 0.15, 0.3, 1.0)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    generator = torch.Generator().manual_seed(0)
    selected = [np.array([[100, 140], [200, 230]]), np.zeros((0, 2), dtype=np.int64)]
    replaced = explore(1.0, [generator] * 2)(1, selected, [400, 400])
    assert (replaced[0][:, 1] - replaced[0][:, 0]).sum() == 70 and replaced[0].tolist() != selected[0].tolist()
    assert replaced[1].shape == (0, 2)
    assert explore(0.0, [generator] * 2)(1, selected, [400, 400])[0] is selected[0]


def test_encoder_meets_masked_and_replayed_clips() -> None:
    network, front = tiny(schedule={"corrected": True})
    features = front(noise(batch=32))
    generators = [torch.Generator().manual_seed(seed) for seed in range(32)]
    inputs = encoder_inputs(network, features, generators)
    coarse, finer = features[:, :50], features[:, 50:]
    assert inputs.shape == coarse.shape
    some = encoder_inputs(network, features[4:9], [torch.Generator().manual_seed(seed) for seed in range(4, 9)])
    assert some.equal(inputs[4:9])  # whatever else is heard

    def shared(rows: Tensor, others: Tensor) -> Tensor:
        return (rows[:, None] == others[None]).all(dim=2).any(dim=1)

    plain = (inputs == coarse).flatten(1).all(dim=1)
    # Every second frame of level 1 is also one of level 0.
    replayed = torch.tensor([
        int((shared(clip, fine) & ~shared(clip, own)).sum())
        for clip, fine, own in zip(inputs, finer, coarse, strict=True)
    ])  # fmt: skip
    hidden = torch.tensor([50 - len(clip.unique(dim=0)) for clip in inputs])
    # Nothing, one, the other and both each happen to about a quarter of the clips.
    assert 2 <= int(plain.sum()) <= 16
    assert 6 <= int((replayed > 2).sum()) <= 26
    assert 6 <= int((hidden > 4).sum()) <= 26


def recipe(folder: Path, **changes: object) -> TrainConfig:
    """Eight half-second clips of two classes, and a tiny model."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    rows = ["filename,fold,category"]
    for index in range(8):
        tone = np.sin(2 * np.pi * (500 if index % 2 else 2000) * np.arange(8000) / 16000)
        soundfile.write(folder / "audio" / f"{index}.wav", 0.3 * tone + 0.01 * rng.standard_normal(8000), 16000)
        rows.append(f"{index}.wav,1,{'low' if index % 2 else 'high'}")
    (folder / "meta.csv").write_text("\n".join(rows))
    config = tiny_config(n_classes=2, playbacks=2, schedule={"corrected": True}).model_dump(mode="json")
    values = {
        "name": "tiny", "family": "play_it_back", "config": config, "frontend": {"kind": "play_it_back"},
        "data": {"root": folder, "train_folds": [1], "test_folds": []}, "output": folder / "out",
        "optimizer": {"epochs": 1, "batch_size": 4},
    }  # fmt: skip
    return TrainConfig.model_validate(values | changes)


def clips_of(config: TrainConfig) -> TrainingClips:
    return TrainingClips(training_part(config, read_examples(config)), 16000, 8000)


def test_all_stages_write_a_checkpoint(tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    folder = train_playback(
        recipe(tmp_path), PlaybackStages(decoder_epochs=1, joint_epochs=1, answer_epochs=1), reports.append
    )
    assert [report.epoch for report in reports] == [1, 2, 3, 4] and all(math.isfinite(r.loss) for r in reports)
    stages = [json.loads(line)["stage"] for line in (tmp_path / "out" / "tiny.jsonl").read_text().splitlines()]
    assert stages == ["encoder", "playback", "joint", "answer"]
    recognizer = load_recognizer(folder)
    assert recognizer.labels == ["high", "low"]
    assert recognizer(recognizer.features(np.zeros(8000, dtype=np.float32))).isfinite().all()


def test_each_stage_trains_its_parts(tmp_path: Path) -> None:
    """Encoder alone first; then slots and decoder with the encoder fixed; then all; then the decoder."""
    config = recipe(tmp_path)
    config.output.mkdir()
    for epochs, stages, moved in (
        (1, PlaybackStages(decoder_epochs=0), {"encoder"}),
        (0, PlaybackStages(decoder_epochs=1), {"decoder", "time_slots"}),
        (0, PlaybackStages(decoder_epochs=0, joint_epochs=1), {"encoder", "decoder", "time_slots"}),
        (0, PlaybackStages(decoder_epochs=0, answer_epochs=1), {"decoder"}),
    ):
        network = PlayItBack(PlayItBack.Config.model_validate(config.config))
        front = build_frontend(PlayItBack.default_frontend(network.config))
        before = {name: value.clone() for name, value in network.state_dict().items()}
        settings = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"epochs": epochs})})
        clips = FreshClips(clips_of(config), front, config.augment, None, torch.device("cpu"))
        run_stages(settings, stages, network, clips, Saver(settings), Accelerator(cpu=True))
        changed = {name.split(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])}
        assert changed == moved


class Interrupted(Exception):
    """Stands for a process that ends."""


@pytest.mark.parametrize(("copies", "after"), [(0, 1), (2, 2), (2, 3)], ids=["between stages", "within", "later"])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, copies: int, after: int) -> None:
    loop = {"kind": "playback_stages", "decoder_epochs": 2, "answer_epochs": 1, "copies": copies}
    whole = recipe(tmp_path, loop=loop)
    train(whole)
    expected = load_recognizer(whole.output / "tiny").network.state_dict()
    assert not (whole.output / "tiny.state").exists()

    def stop(entry: EpochReport) -> None:
        if entry.epoch == after:
            raise Interrupted

    parts = whole.model_copy(update={"output": tmp_path / "parts"})
    with pytest.raises(Interrupted):
        train(parts, stop)
    with pytest.raises(SettingsError, match="other settings"):
        train(parts.model_copy(update={"resume": True, "seed": 1}))
    resumed: list[int] = []
    train(parts.model_copy(update={"resume": True}), lambda entry: resumed.append(entry.epoch))
    assert resumed == list(range(after + 1, 5))
    found = load_recognizer(parts.output / "tiny").network.state_dict()
    assert all(value.equal(found[name]) for name, value in expected.items())
    lines = [json.loads(line) for line in (parts.output / "tiny.jsonl").read_text().splitlines()]
    straight = [json.loads(line) for line in (whole.output / "tiny.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["loss"]) for line in lines] == [(line["stage"], line["loss"]) for line in straight]


def test_the_average_forgets_its_first_values() -> None:
    average, value = moving_average(0.998), torch.zeros(1)
    for step in range(1, 200):
        value = average(value, torch.ones(1), step)
    assert value.item() > 0.999
    slow = moving_average(0.998)(torch.zeros(1), torch.ones(1), 100_000)
    assert slow.item() == pytest.approx(0.002, rel=1e-3)


def test_a_teacher_has_a_say_in_the_last_stage() -> None:
    network, front = tiny(schedule={"corrected": True})
    features, targets = front(noise(batch=2)), torch.eye(network.config.n_classes)[[0, 1]]
    config = TrainConfig.model_validate({
        "name": "x", "family": "play_it_back", "frontend": {}, "data": {"root": "."},
        "teacher": {"checkpoint": "x", "weight": 1.0},
    })  # fmt: skip
    network.eval()
    losses = [
        answer_step(network, Drawn(features, targets, soft, (Draw(0, key=1), Draw(1, key=2))), config).item()
        for soft in (None, 50 * targets, 50 * targets.flip(0))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and abs(losses[0] - losses[2]) > 1e-3


def test_nothing_to_resume(tmp_path: Path) -> None:
    loop = {"kind": "playback_stages", "decoder_epochs": 1}
    with pytest.raises(SettingsError, match="no interrupted training"):
        train(recipe(tmp_path, loop=loop, resume=True))


def test_levels_are_rolled_together() -> None:
    """What sounds at one moment still does so at every level."""
    network, front = tiny(schedule={"corrected": True})
    clock = network.clock()
    click = torch.zeros(4, round(clock.seconds * clock.sample_rate))
    click[:, 2000:2100] = 1.0
    rolled = roll_levels(front(click), clock, [torch.Generator().manual_seed(seed) for seed in range(4)])
    parts = zip(rolled.split(clock.lengths, dim=1), clock.hops, strict=True)
    loudest = [part.mean(dim=2).argmax(dim=1) * hop for part, hop in parts]
    for finer in loudest[1:]:
        assert (loudest[0] - finer).abs().max() <= 2 * clock.hops[0]
    assert len(set(loudest[0].tolist())) == 4


def test_copies_of_the_clips(tmp_path: Path) -> None:
    """Every second copy has mix-up, and only they are left out where none is wanted."""
    network, front = tiny(schedule={"corrected": True})
    config = recipe(
        tmp_path, optimizer={"batch_size": 3},
        augment={"mixup": 1.0, "noise_db": None, "gain_db": [0, 0], "shift": False, "speed": [1, 1]},
    )  # fmt: skip
    clips = FreshClips(clips_of(config), front, config.augment, None, torch.device("cpu"))
    plan = plan_of(config, clips.clips)
    copied = CopiedClips(clips, 4, network.clock(), plan, Accelerator(cpu=True))
    plain = copied.draw([Draw(4), Draw(1)], False)
    assert plain.targets.equal(torch.eye(2)[[0, 1]]) and plain.soft is None
    whole = front(torch.stack([clips.clips[row].waveform for row in (4, 1)]))
    torch.testing.assert_close(plain.features, whole, atol=0.02, rtol=0.002)
    mixed = copied.draw([Draw(row, key=key) for row in range(8) for key in range(5)], True).targets
    assert 0 < int((mixed.max(dim=1).values < 1).sum()) < 40
    assert torch.allclose(mixed.sum(dim=1), torch.ones(40))


def test_only_corrected_models_are_trained_in_stages(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="corrected"):
        train_playback(recipe(tmp_path, config=tiny_config().model_dump(mode="json")))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_slots_find_the_chirp(seed: int) -> None:
    """After 200 steps: the profile peaks in the chirp, segments cover it, and without them the class is lost."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = network_for_chirps()
    train_encoder(network, 430, generator)
    losses = train_slots(network, 200, generator)
    assert all(math.isfinite(loss) for loss in losses)
    coarse, labels, places = chirps(128, generator)
    features = all_levels(coarse)
    with torch.no_grad():
        heard = network.listen(features, valid_seconds=[5.0] * 128)[0]
    assert heard.profile is not None and heard.segments is not None
    peak = heard.profile.argmax(dim=1)
    peak_inside = ((peak >= places[:, 0]) & (peak < places[:, 1])).float().mean().item()
    covered = []
    for (start, end), found in zip(places.tolist(), heard.segments, strict=True):
        cells = np.zeros(N_FRAMES, dtype=bool)
        for first, last in found:
            cells[first:last] = True
        covered.append(cells[start:end].mean())
    targets = nn.functional.one_hot(labels, N_CLASSES).float()
    result = selection_test(network, features, targets, valid_seconds=[5.0] * 128, rotations=1)
    print(f"peak {peak_inside:.2f} covered {np.mean(covered):.2f} {result}")
    assert peak_inside >= 0.6
    assert np.mean(covered) >= 0.7
    assert result.drop >= 3 * result.rotated_drop
    assert result.better_than_chance
