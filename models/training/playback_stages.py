"""Training Play It Back in corrected mode: first the encoder, then what selects and what decides."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.card import Card
from models.checkpoint import save_checkpoint
from models.errors import SettingsError
from models.families.play_it_back import PlayItBack, PlayItBackConfig
from models.frontends import FrontEnd
from models.layers.replay import inside, keep_and_drop
from models.training.augment import augment_waveforms, mask_features
from models.training.config import TrainConfig
from models.training.playback_published import learning_rate
from models.training.playback_slots import answer_loss, decoder_loss, slot_loss, valid_frames
from models.training.trainer import EpochReport, measured_frontend, read_examples
from models.training.waveforms import load_waveforms


class PlaybackStages(BaseModel):
    """Settings of the stages beside those of the recipe, which are the encoder's.

    Attributes
    ----------
    decoder_epochs
        Second stage: slots and decoder, the encoder frozen.
    joint_epochs
        Third stage: the encoder too, at a tenth of its rate, by the decoder's loss only.
    slot_learning_rate, decoder_learning_rate
        AdamW for the slots, SGD with Nesterov momentum for the decoder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder_epochs: int = Field(default=20, ge=0)
    joint_epochs: int = Field(default=0, ge=0)
    slot_learning_rate: float = Field(default=1e-3, gt=0)
    decoder_learning_rate: float = Field(default=5e-3, gt=0)


def random_segments(n_cells: int, total: int, generator: torch.Generator) -> np.ndarray:
    """One to three segments at random places, together `total` cells, int64 ``[n, 2]``."""
    total = min(total, n_cells)
    if total < 1:
        return np.zeros((0, 2), dtype=np.int64)

    def split(amount: int, parts: int) -> np.ndarray:
        cuts = torch.randint(0, amount + 1, (parts - 1,), generator=generator).sort().values.tolist()
        return np.diff([0, *cuts, amount])

    pieces = min(int(torch.randint(1, 4, (1,), generator=generator)), total)
    lengths = split(total, pieces)
    gaps = split(n_cells - total, pieces + 1)[:pieces]
    starts = np.cumsum(gaps) + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    found = np.stack([starts, starts + lengths], axis=1).astype(np.int64)
    return found[found[:, 1] > found[:, 0]]


def encoder_inputs(network: PlayItBack, features: Tensor, generator: torch.Generator) -> Tensor:
    """Level 0 of features of all levels, half the time replayed and half the time partly hidden.

    The encoder meets both later, so neither may be foreign to it: 10 to 40 % of a clip is replayed at a random level,
    and 10 to 60 % of it (or all but that) becomes the clip's floor.
    """
    clock, batch = network.clock(), features.shape[0]

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    valid = network.valid_cells(features, clock, None)
    starts = np.concatenate([[0], np.cumsum(clock.lengths)])
    index, hidden, there = [], [], []
    for cells in valid:
        level, segments = 0, np.zeros((0, 2), dtype=np.int64)
        if len(clock.lengths) > 1 and uniform() < 0.5:
            level = int(torch.randint(1, len(clock.lengths), (1,), generator=generator))
            segments = random_segments(cells, round(uniform(0.1, 0.4) * cells), generator)
        seconds, levels, frames = clock.replay(segments, level)
        index.append(starts[levels] + frames)
        there.append(seconds < cells * clock.cell_seconds - 1e-9)
        mask = np.zeros(clock.n_cells, dtype=bool)
        if uniform() < 0.5:
            covered = random_segments(cells, round(uniform(0.1, 0.6) * cells), generator)
            mask = inside(seconds, covered * clock.cell_seconds)
            mask = ~mask if uniform() < 0.5 else mask
        hidden.append(mask)
    rows = torch.from_numpy(np.stack(index)).to(features.device)
    inputs = features[torch.arange(batch, device=features.device)[:, None], rows]
    silent, heard = (torch.from_numpy(np.stack(part)).to(features.device) for part in (hidden, there))
    return keep_and_drop(inputs, silent.to(inputs), heard)[1]


def explore(share: float, generator: torch.Generator) -> Callable[[int, list[np.ndarray], list[int]], list[np.ndarray]]:
    """A choice for `PlayItBack.listen`: with probability `share` random segments of the same total."""

    def choose(_: int, segments: list[np.ndarray], valid: list[int]) -> list[np.ndarray]:
        return [
            random_segments(cells, int((found[:, 1] - found[:, 0]).sum()), generator)
            if torch.rand((), generator=generator).item() < share
            else found
            for found, cells in zip(segments, valid, strict=True)
        ]

    return choose


def explored_share(progress: float) -> float:
    """Share of random replays: from 1 down to 0.1 over the first 30 % of the steps, then 0.1."""
    return max(0.1, 1.0 - 0.9 * progress / 0.3)


def encoder_step(
    network: PlayItBack, features: Tensor, targets: Tensor, config: TrainConfig, generator: torch.Generator,
    silence: float,
) -> Tensor:  # fmt: skip
    """Loss of the encoder alone."""
    inputs = encoder_inputs(network, features, generator)
    inputs = mask_features(inputs, config.augment, silence, generator)
    tokens, _ = network.encoder(inputs.unsqueeze(1))
    logits = network.encoder.classify(network.encoder.pool(tokens))
    smoothing, sizes = config.optimizer.label_smoothing, list(network.config.heads)
    truth = targets.split(sizes, dim=1)
    if config.task == "single-label":
        truth = tuple(y * (1 - smoothing) + smoothing / y.shape[1] for y in truth)
    return answer_loss(logits, list(truth), config.task == "multi-label")


def playback_step(
    network: PlayItBack, features: Tensor, targets: Tensor, progress: float, generator: torch.Generator,
    multi_label: bool, with_slots: bool = True,
) -> Tensor:  # fmt: skip
    """Loss of decoder and slots; `with_slots` is off for batches with mixed labels."""
    passes = network.listen(features, choose=explore(explored_share(progress), generator))
    total = decoder_loss(network, passes, targets, multi_label)
    if not with_slots:
        return total
    heard = passes[int(torch.randint(0, len(passes), (1,), generator=generator))]
    return total + slot_loss(network, heard, valid_frames(network, features, heard, None), targets, multi_label).total


def optimizers(network: PlayItBack, stages: PlaybackStages, joint: float | None) -> list[torch.optim.Optimizer]:
    """Of slots and decoder; of the encoder too if a rate is given."""
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(network.time_slots.parameters(), lr=stages.slot_learning_rate),
        torch.optim.SGD(
            [
                {"params": [p for p in network.decoder.parameters() if p.ndim > 1], "weight_decay": 1e-4},
                {"params": [p for p in network.decoder.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=stages.decoder_learning_rate, momentum=0.9, nesterov=True,
        ),
    ]  # fmt: skip
    if joint is not None:
        found.append(torch.optim.AdamW(network.encoder.parameters(), lr=joint))
    return found


def train_playback(
    config: TrainConfig, stages: PlaybackStages | None = None, report: Callable[[EpochReport], None] | None = None
) -> Path:
    """Train a corrected Play It Back as a recipe says, stage after stage, and write the checkpoint.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    stages = stages or PlaybackStages()
    set_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    examples = read_examples(config)
    held_out = set(config.data.validation_folds) | set(config.data.test_folds)
    part = examples.folds(set(config.data.train_folds) - held_out)
    settings = PlayItBackConfig.model_validate(config.config | {"n_classes": len(examples.labels)})
    if not settings.corrected or settings.playbacks == 0:
        raise SettingsError(
            "Only corrected models with playback are trained in stages.",
            "Set config.schedule.corrected to true and config.playbacks to 1 or more.",
        )
    samples = settings.schedule.clip_samples
    waveforms, targets = load_waveforms(part, settings.schedule.sample_rate, samples)
    frontend = PlayItBack.default_frontend(settings).model_dump() | config.frontend
    fitted = measured_frontend(config.model_copy(update={"frontend": frontend}), waveforms).to(device)
    network = PlayItBack(settings).to(device)
    card = Card(
        name=config.name, title=config.title, description=config.description, family=config.family,
        config=settings.model_dump(mode="json"), frontend=fitted.config.model_dump(mode="json"),
        labels=list(examples.labels), label_groups=list(settings.groups), task=config.task,
        training_data=config.training_data, license=config.license, citation=config.citation,
        training={
            "recipe": config.model_dump(mode="json", exclude={"output", "data"}), "stages": stages.model_dump(),
            "clips": len(part.examples),
        },
    )  # fmt: skip
    config.output.mkdir(parents=True, exist_ok=True)
    run_stages(config, stages, network, fitted, (waveforms, targets), report)
    save_checkpoint(config.output / config.name, network.eval(), card, half=config.half)
    return config.output / config.name


def run_stages(
    config: TrainConfig, stages: PlaybackStages, network: PlayItBack, frontend: FrontEnd, data: tuple[Tensor, Tensor],
    report: Callable[[EpochReport], None] | None,
) -> None:  # fmt: skip
    """The optimisation itself."""
    device, settings = next(network.parameters()).device, config.optimizer
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data), settings.batch_size, shuffle=True,
        drop_last=len(data[0]) >= settings.batch_size,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(config.seed)
    plan = [("encoder", settings.epochs), ("playback", stages.decoder_epochs), ("joint", stages.joint_epochs)]
    total, done, started = sum(epochs for _, epochs in plan), 0, time.monotonic()
    # No mix-up where the slots are trained: a mixed clip has no single truth to find.
    plain = config.augment.model_copy(update={"mixup": 0.0})
    history = config.output / f"{config.name}.jsonl"
    history.unlink(missing_ok=True)
    for stage, epochs in plan:
        if stage == "encoder":
            active: list[torch.optim.Optimizer] = [
                torch.optim.AdamW(
                    network.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
                )
            ]
        else:
            active = optimizers(network, stages, settings.learning_rate / 10 if stage == "joint" else None)
        bases = [[group["lr"] for group in one.param_groups] for one in active]
        network.train()
        network.encoder.train(stage != "playback")
        network.encoder.requires_grad_(stage != "playback")
        for epoch in range(epochs):
            losses = []
            for step, (batch, target) in enumerate(loader):
                progress = (epoch + step / len(loader)) / epochs
                for one, rates in zip(active, bases, strict=True):
                    for group, base in zip(one.param_groups, rates, strict=True):
                        warm = min(settings.warmup_epochs, epochs / 4)
                        group["lr"] = learning_rate(progress * epochs, base, 0.0, epochs, warm, base / 100)
                augment = config.augment if stage == "encoder" else plain
                mixed, wanted = augment_waveforms(batch, target, augment, generator)
                with torch.no_grad():
                    features = frontend(mixed.to(device))
                wanted = wanted.to(device)
                if stage == "encoder":
                    loss = encoder_step(network, features, wanted, config, generator, frontend.silence)
                else:
                    loss = playback_step(network, features, wanted, progress, generator, config.task == "multi-label")
                if not torch.isfinite(loss):
                    raise SettingsError(
                        f"The loss is not a number any more in epoch {done + 1}.", "Lower optimizer.learning_rate."
                    )
                for one in active:
                    one.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
                for one in active:
                    one.step()
                losses.append(loss.item())
            done += 1
            entry = EpochReport(
                done, total, float(np.mean(losses)), active[0].param_groups[0]["lr"], None, time.monotonic() - started
            )
            with history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry) | {"stage": stage}) + "\n")
            if report is not None:
                report(entry)
    network.requires_grad_(True)
