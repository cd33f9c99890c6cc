"""Training the event graph as published: iterations instead of epochs, an evaluation now and then, early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models.errors import SettingsError
from models.families.hetero_graph import HeteroGraph
from models.frontends import FrontEnd
from models.layers.wav2vec2_frontend import start_from_mel
from models.network import Network
from models.training.augmentations import standard
from models.training.clips import Draw, TrainingClips, collate, key_of
from models.training.config import TrainConfig
from models.training.hetero_graph import (
    Activation,
    LossName,
    PublishedLoop,
    PublishedSolver,
    balanced_class_weights,
    balanced_sampling,
    classification_loss,
    evaluate_logits,
    parameter_norms,
)
from models.training.processes import SharedBatch, backward, check_processes
from models.training.run_state import load_state, not_finite, save_state, state_path
from models.training.synchrony import synchrony_loss
from models.training.tracking import RunLog
from models.training.trainer import EpochReport, begin, make_card, prepare_training, write_checkpoint

_LEAST_GAIN = 1e-4
_NETWORK = 1  # purpose of random numbers, beside those of clips


class EventGraphLoop(BaseModel):
    """Settings of the loop ``event_graph``; of the recipe's optimizer only `batch_size` counts, over all processes.

    Attributes
    ----------
    solver
        Optimizer and schedule under their published names, see `models.training.hetero_graph.PublishedSolver`.
    loss, label_smoothing, class_weights, activation
        See `models.training.hetero_graph.classification_loss`.
    parameter_norms
        Add half the sum of all parameters' norms (published option).
    balanced
        Draw clips of rare classes more often (repeat factors), as the predecessor did.
    evaluate_every
        Iterations between evaluations on the validation folds, and between saved states.
    patience
        Stop after so many evaluations without a lower loss.
    augment
        Change clips as the recipe's `augment` says (of the kind ``standard``); published: they stay as they are.
    mel_start
        Begin with band-pass filters in the first convolution on the sound
        (`models.layers.wav2vec2_frontend.mel_filters`), not with random ones; for training without public backbones.
    synchrony
        Weight of `models.training.synchrony.synchrony_loss`: what is seen and heard at the same time shall resemble each
        other where sound and picture meet. Published: 0, the nearest neighbours follow from the classes alone.
    picture
        Weight of a second classification loss, of the pictures' half of the read-out alone: sounds are learned sooner, and
        then hardly anything asks for the picture. Published: 0.
    keep
        ``best``: the weights with the lowest validation loss; ``last``, which is what the published code keeps by mistake.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    solver: dict[str, Any] = Field(default_factory=dict)
    loss: LossName = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: bool = False
    activation: Activation = ""
    parameter_norms: bool = False
    balanced: bool = False
    evaluate_every: int = Field(default=1000, ge=1)
    patience: int = Field(default=5, ge=1)
    augment: bool = False
    mel_start: bool = False
    synchrony: float = Field(default=0.0, ge=0)
    picture: float = Field(default=0.0, ge=0)
    keep: str = Field(default="best", pattern="^(best|last)$")


def settings_of(config: TrainConfig) -> tuple[EventGraphLoop, PublishedSolver]:
    """Settings of the loop and its solver.

    Raises
    ------
    SettingsError
        If one is unknown or not valid.
    """
    try:
        loop = EventGraphLoop.model_validate(config.loop.settings)
        unknown = sorted(set(loop.solver) - set(PublishedSolver.model_fields))
        if unknown:
            raise SettingsError(
                f"The solver has no setting {unknown[0]!r}.", f"Known are: {', '.join(PublishedSolver.model_fields)}."
            )
        return loop, PublishedSolver.model_validate(loop.solver)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise SettingsError(f"The settings of the loop 'event_graph' are not valid: {details}.") from error


class Rounds:
    """Endless indices: every round is a fresh permutation, or a balanced draw; batches go on across rounds."""

    def __init__(self, labels: Tensor, balanced: bool, generator: torch.Generator) -> None:
        self.labels, self.balanced, self.generator = labels, balanced, generator
        self.waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next indices."""
        while len(self.waiting) < count:
            if self.balanced:
                fresh = balanced_sampling(self.labels.numpy(), self.generator)
            else:
                fresh = torch.randperm(len(self.labels), generator=self.generator)
            self.waiting += fresh.tolist()
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


@torch.no_grad()
def logits_of(
    network: Network, frontend: FrontEnd, clips: TrainingClips, batch_size: int, workers: int, accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    """Logits and true classes of all clips, in evaluation mode; processes share the clips among them."""
    network.eval()
    # Running statistics of batch norms on the CPU are each process's own.
    broadcast(list(network.buffers()))
    device, shared, logits = accelerator.device, SharedBatch(accelerator, len(clips)), []
    for batch in DataLoader(
        clips, batch_size, sampler=shared.mine(range(len(clips))), collate_fn=collate, num_workers=workers,
        generator=torch.Generator(),
    ):  # fmt: skip
        frames = None if batch.frames is None else batch.frames.to(device)
        logits.append(network(frontend(batch.waveforms.to(device)), frames).float())
    network.train()
    return shared.whole(torch.cat(logits)).cpu(), clips.targets.argmax(dim=1)


def train_event_graph(config: TrainConfig, report: Callable[[EpochReport], None] | None = None) -> Path:
    """Train the event graph with its published loop and write the checkpoint.

    Reports count evaluations: epoch n is over after ``n * evaluate_every`` iterations. Several processes share each batch
    (`models.training.processes`).

    Raises
    ------
    EarwitnessError
        If the data cannot be read or the settings do not fit together.
    """
    own, solver = settings_of(config)
    accelerator = begin(config)
    device, main = accelerator.device, accelerator.is_main_process
    if accelerator.num_processes > 1 and not config.config.get("batch_independent"):
        raise SettingsError(
            "In the published event graph the clips of a batch change each other's answers, so several processes cannot "
            "share a batch.",
            "Set config.batch_independent to true, or start it without torchrun.",
        )
    prepared = prepare_training(config)
    network, clips, frontend = prepared.network, prepared.clips, prepared.frontend.to(device)
    if accelerator.num_processes > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network = network.to(device)
    # Whatever a machine rounds differently, all begin alike.
    broadcast(list(network.state_dict().values()))
    labels = clips.targets.argmax(dim=1)
    weights = balanced_class_weights(labels.numpy(), clips.targets.shape[1]).to(device) if own.class_weights else None
    network.train()
    assert isinstance(network, HeteroGraph)
    if own.mel_start and not config.resume:
        start_from_mel(network.audio_head, frontend.sample_rate)
    # The order of numbers in which convolutions of pictures are fastest; the values are the same.
    network.video_head.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if own.synchrony > 0:
        # Their scales belong to nodes by number: with them, nodes could be told apart by their place alone.
        for norm in (network.pre_norm_audio, network.pre_norm_video):
            norm.requires_grad_(False)
    loop = PublishedLoop(network, solver, partial(backward, accelerator, list(network.parameters())))
    generator = torch.Generator().manual_seed(config.seed)
    rounds = Rounds(labels, own.balanced, generator)
    batch_size, workers = config.optimizer.batch_size, config.data.workers
    shared = SharedBatch(accelerator, batch_size)
    best, waited, best_weights = float("inf"), 0, {k: v.clone() for k, v in network.state_dict().items()}
    path = state_path(config)
    if config.resume:
        state = load_state(path, config)
        check_processes(accelerator, state)
        network.load_state_dict(state["network"])
        restore_loop(loop, state["loop"])
        rounds.waiting = list(state["waiting"])
        best, waited, best_weights = state["best"], state["waited"], state["best_weights"]
        generator.set_state(state["generator"])
    done = -(-loop.iteration // own.evaluate_every)
    records = RunLog(config, done, loop.iteration, main=main)
    started, total = time.monotonic(), -(-solver.MAX_ITER // own.evaluate_every)
    while loop.iteration < solver.MAX_ITER and waited < own.patience:
        losses = []
        count = min(own.evaluate_every, solver.MAX_ITER - loop.iteration)
        order = [
            list(shared.mine([
                Draw(index, key=key_of(config.seed, loop.iteration + step, place))
                for place, index in enumerate(rounds.take(batch_size))
            ]))
            for step in range(count)
        ]  # fmt: skip
        for batch in DataLoader(clips, batch_sampler=order, collate_fn=collate, num_workers=workers):
            with torch.no_grad():
                if own.augment:
                    features = standard(batch, frontend, config.augment, device)[0]
                else:
                    features = frontend(batch.waveforms.to(device))
            frames = None if batch.frames is None else batch.frames.to(device)
            set_seed(key_of(config.seed, loop.iteration, accelerator.process_index, _NETWORK) % 2**32)
            run = network.reason(network.encode_audio(features), network.video_nodes(frames, len(features)))
            truth = shared.whole(batch.targets.to(device)).argmax(dim=1)
            classify = partial(
                classification_loss, labels=truth, loss=own.loss, label_smoothing=own.label_smoothing,
                class_weights=weights, activation=own.activation,
            )  # fmt: skip
            loss = classify(shared.whole(network.forward_head(run.hidden)))
            losses.append(loss.item())
            if own.picture > 0:
                width = network.config.hidden_channels
                seen = torch.cat([torch.zeros_like(run.hidden[:, :width]), run.hidden[:, width:]], dim=1)
                loss = loss + own.picture * classify(shared.whole(network.forward_head(seen)))
            if own.synchrony > 0:
                meeting = {layer: (shared.whole(a), shared.whole(v)) for layer, (a, v) in run.meeting.items()}
                loss = loss + own.synchrony * synchrony_loss(replace(run, meeting=meeting), network.config)
            if own.parameter_norms:
                loss = loss + parameter_norms(network) / accelerator.num_processes
            loop.step(loss)
        done += 1
        if not torch.tensor(losses).isfinite().all():
            raise not_finite("The loss", done, loop.iteration, max(loop.rates))
        figure = None
        if prepared.validation is not None:
            answers = logits_of(network, frontend, prepared.validation, batch_size, workers, accelerator)
            found = evaluate_logits(*answers, own.loss)
            figure, waited = found.accuracy, waited + 1
            if found.loss + _LEAST_GAIN < best:
                best, waited = found.loss, 0
                best_weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        entry = EpochReport(done, total, sum(losses) / len(losses), max(loop.rates), figure, time.monotonic() - started)
        records.write(entry, loop.iteration)
        if main:
            save_state(path, config, {
                "network": network.state_dict(), "loop": loop_state(loop), "waiting": rounds.waiting, "best": best,
                "waited": waited, "best_weights": best_weights, "generator": generator.get_state(),
                "processes": accelerator.num_processes,
            })  # fmt: skip
        if report is not None and main:
            report(entry)
    records.close()
    if own.keep == "best" and prepared.validation is not None:
        network.load_state_dict(best_weights)
    network.video_head.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if main:
        write_checkpoint(config, network.eval(), make_card(config, prepared, processes=accelerator.num_processes))
        path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return config.output / config.name


def loop_state(loop: PublishedLoop) -> dict[str, Any]:
    """What a published loop goes on from; gradients may be waiting for their step."""
    gradients = {name: p.grad for name, p in loop.network.named_parameters() if p.grad is not None}
    return {
        "optimizer": loop.optimizer.state_dict(), "iteration": loop.iteration, "counter": loop._counter,
        "gradients": gradients,
    }  # fmt: skip


def restore_loop(loop: PublishedLoop, state: dict[str, Any]) -> None:
    """Go on from `loop_state`."""
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.iteration, loop._counter = state["iteration"], state["counter"]
    for name, parameter in loop.network.named_parameters():
        gradient = state["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
