"""Losses, schedule and online fine-tuning of EquiAV (specification, sections 7 and 9.2)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor, nn

from models.errors import SettingsError

EventLoss = Literal["bceloss", "celoss"]
HeadParameters = Literal["published", "head", "all new layers"]


# --- losses ---------------------------------------------------------------------------------------------------------


class ContrastiveResult(NamedTuple):
    """A loss and the share of queries, in percent, whose own partner is the most similar."""

    loss: Tensor
    accuracy: Tensor


def _gathered(keys: Tensor, *, with_gradient: bool) -> tuple[Tensor, int]:
    """Keys of all processes ``[world * batch, size]`` and the row of this process's first one."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_world_size() == 1:
        return keys, 0
    offset = torch.distributed.get_rank() * keys.shape[0]
    if with_gradient:
        return torch.cat(torch.distributed.nn.functional.all_gather(keys)), offset
    parts = [torch.empty_like(keys) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, keys.detach().contiguous())
    return torch.cat(parts), offset


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == targets).float().mean() * 100.0


def inter_modal_loss(audio: Tensor, video: Tensor, temperature: float | Tensor = 0.07) -> ContrastiveResult:
    """NT-Xent between modalities, ``[batch, size]`` each: the mean of both directions' cross entropies.

    The accuracy is that of audio -> video. With several processes keys are gathered without gradient, as published; in one
    process both sides carry gradient.
    """
    audio, video = nn.functional.normalize(audio, dim=1), nn.functional.normalize(video, dim=1)
    losses, first_logits = [], None
    for queries, keys in ((audio, video), (video, audio)):
        everyone, offset = _gathered(keys, with_gradient=False)
        logits = queries @ everyone.T / temperature
        targets = torch.arange(queries.shape[0], device=queries.device) + offset
        losses.append(nn.functional.cross_entropy(logits, targets))
        first_logits = logits if first_logits is None else first_logits
    assert first_logits is not None
    return ContrastiveResult((losses[0] + losses[1]) / 2, _hits(first_logits, targets))


def intra_modal_loss(predicted: Tensor, augmented: Tensor, temperature: float | Tensor = 0.07) -> ContrastiveResult:
    """SimCLR's loss between predicted and actual features of augmented inputs, ``[batch, size]`` each.

    Every row is compared with all rows of the other kind and all other rows of its own; the accuracy is that of the
    predicted side. With several processes keys are gathered with gradient.
    """
    q, k = nn.functional.normalize(predicted, dim=1), nn.functional.normalize(augmented, dim=1)
    all_q, offset = _gathered(q, with_gradient=True)
    all_k, _ = _gathered(k, with_gradient=True)
    targets = torch.arange(q.shape[0], device=q.device) + offset
    own = torch.zeros(q.shape[0], all_q.shape[0], device=q.device)
    own[torch.arange(q.shape[0]), targets] = 1e9
    logits_q = torch.cat([q @ all_k.T / temperature, q @ all_q.T / temperature - own], dim=1)
    logits_k = torch.cat([k @ all_q.T / temperature, k @ all_k.T / temperature - own], dim=1)
    loss = (nn.functional.cross_entropy(logits_q, targets) + nn.functional.cross_entropy(logits_k, targets)) / 2
    return ContrastiveResult(loss, _hits(logits_q, targets))


class PretrainingResult(NamedTuple):
    """The weighted sum and its three parts."""

    loss: Tensor
    inter: ContrastiveResult
    intra_audio: ContrastiveResult
    intra_video: ContrastiveResult


class PretrainingLoss(nn.Module):
    """Inter-modal plus one intra-modal loss per modality.

    Parameters
    ----------
    inter_temperature, intra_temperature
        0 makes the temperature a learnable scalar starting at 0.07.
    inter_scale, audio_scale, video_scale
        Weights of the three parts.
    """

    def __init__(
        self,
        inter_temperature: float = 0.07,
        intra_temperature: float = 0.07,
        inter_scale: float = 1 / 3,
        audio_scale: float = 1 / 3,
        video_scale: float = 1 / 3,
    ) -> None:
        super().__init__()
        self.scales = (inter_scale, audio_scale, video_scale)
        self.inter_temperature = self._temperature(inter_temperature)
        self.intra_temperature = self._temperature(intra_temperature)

    @staticmethod
    def _temperature(value: float) -> float | nn.Parameter:
        if value < 0:
            raise SettingsError(f"A temperature cannot be {value}.", "Give a positive one, or 0 to learn it.")
        return value if value > 0 else nn.Parameter(torch.tensor(0.07))

    def forward(self, embeddings: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> PretrainingResult:
        """Loss of the six embeddings of `EquiAVPretraining.forward_views`."""
        audio_inv, video_inv, audio_equi, video_equi, audio_aug, video_aug = embeddings
        inter = inter_modal_loss(audio_inv, video_inv, self.inter_temperature)
        audio = intra_modal_loss(audio_equi, audio_aug, self.intra_temperature)
        video = intra_modal_loss(video_equi, video_aug, self.intra_temperature)
        parts = zip(self.scales, (inter, audio, video), strict=True)
        total = torch.stack([scale * part.loss for scale, part in parts]).sum()
        return PretrainingResult(total, inter, audio, video)


def event_loss(kind: EventLoss) -> Callable[[Tensor, Tensor], Tensor]:
    """The fine-tuning loss: binary cross entropy, or cross entropy with soft targets; ``[batch, n_classes]`` each.

    Raises
    ------
    SettingsError
        If it is neither ``bceloss`` nor ``celoss``.
    """
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "bceloss": nn.functional.binary_cross_entropy_with_logits, "celoss": nn.functional.cross_entropy
    }  # fmt: skip
    if kind not in losses:
        raise SettingsError(f"There is no fine-tuning loss {kind!r}.", f"Known are {', '.join(losses)}.")
    return losses[kind]


# --- schedule and groups --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine; called before every optimizer step with its number from 0.

    Attributes
    ----------
    after_end
        ``final`` stays at the last rate; ``published`` rises again along the cosine.
    """

    lr: float = 1e-4
    start_lr: float = 2e-7
    final_lr: float = 1e-6
    warmup_epoch: float = 3
    max_epoch: float = 5
    iteration_per_epoch: int = 10
    after_end: Literal["final", "published"] = "final"

    def __call__(self, step: int) -> float:
        """Learning rate of a step."""
        warmup = int(self.warmup_epoch * self.iteration_per_epoch)
        rest = int(self.max_epoch * self.iteration_per_epoch) - warmup
        if step < warmup:
            return self.start_lr + step / max(1, warmup) * (self.lr - self.start_lr)
        progress = (step - warmup) / max(1, rest)
        if self.after_end == "final":
            progress = min(1.0, progress)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return max(self.final_lr, self.final_lr + (self.lr - self.final_lr) * cosine)


def is_head_parameter(name: str, which: HeadParameters) -> bool:
    """Whether a parameter trains at the head's rate, and is what `freeze_base` leaves trainable.

    ``published``: the first layer of the head and its norm only, so that the last layer of an MLP head counts as base;
    ``head``: the whole head; ``all new layers``: the head and the projections in front of it, which pre-training does not
    provide when they are linear.
    """
    if which == "published":
        return name.startswith(("mlp_head.0.", "mlp_head.1."))
    if which == "all new layers":
        return name.startswith(("mlp_head.", "pred_a_inter.", "pred_v_inter."))
    return name.startswith("mlp_head.")


def build_optimizer(
    kind: str, base: list[nn.Parameter], head: list[nn.Parameter], lr: float, head_lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW (betas 0.9, 0.95), Adam (0.95, 0.999) or SGD (momentum 0.9) with the groups base and head.

    Raises
    ------
    SettingsError
        If the kind is unknown.
    """
    groups = [{"params": base, "lr": lr}, {"params": head, "lr": head_lr}]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay)
    if kind == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=(0.95, 0.999), weight_decay=weight_decay)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=weight_decay)
    raise SettingsError(f"There is no optimizer {kind!r}.", "Known are adamw, adam and sgd.")


# --- online fine-tuning ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnlineSettings:
    """Settings of `OnlineTrainer`; the defaults are those of the published script, with its mistakes mended.

    Attributes
    ----------
    head_lr
        Learning rate of the head, absolute (``head_lr_mode="absolute"``), or a ratio that has no effect because the schedule
        overwrites it (``"published"``). None: the same as `lr`.
    frozen_mode
        ``eval``: a frozen encoder runs without stochastic depth, so that the features of a clip are fixed; ``published``: it
        stays active.
    head_params
        None: ``head`` with a frozen base, else ``all new layers``.
    seed
        Of dropout and stochastic depth; None leaves torch's own state in charge.
    """

    loss: EventLoss = "bceloss"
    optimizer: str = "adamw"
    weight_decay: float = 1e-5
    schedule: WarmupCosine = WarmupCosine()
    head_lr: float | None = None
    head_lr_mode: Literal["absolute", "published"] = "absolute"
    freeze_base: bool = True
    head_params: HeadParameters | None = None
    frozen_mode: Literal["eval", "published"] = "eval"
    mixed_precision: bool = True
    seed: int | None = None


class OnlineTrainer:
    """Fine-tunes a network one labelled clip at a time.

    Parameters
    ----------
    network
        Its parameters are changed in place.
    settings
        See `OnlineSettings`.
    """

    def __init__(self, network: nn.Module, settings: OnlineSettings) -> None:
        self.network, self.settings = network, settings
        self.loss = event_loss(settings.loss)
        schedule = settings.schedule
        absolute = settings.head_lr_mode == "absolute"
        head_lr = schedule.lr if settings.head_lr is None else settings.head_lr
        if absolute and not 0 <= head_lr <= 1:
            raise SettingsError(
                f"The learning rate of the head cannot be {head_lr}.",
                "It is an absolute rate such as 1e-4; for the published ratio, which has no effect, say "
                "head_lr_mode='published'.",
            )
        which = settings.head_params or ("head" if settings.freeze_base else "all new layers")
        base: list[nn.Parameter] = []
        head: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            is_head = is_head_parameter(name, which)
            if settings.freeze_base and not is_head:
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                (head if is_head else base).append(parameter)
        self._head_scale = head_lr / schedule.lr if absolute and schedule.lr else 1.0
        first_head_lr = head_lr if absolute else schedule.lr * head_lr
        self.optimizer = build_optimizer(
            settings.optimizer, base, head, schedule.lr, first_head_lr, settings.weight_decay
        )
        self.steps = 0
        device = next(network.parameters()).device
        self._half = settings.mixed_precision and device.type == "cuda"
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._half)
        self._generator_state: Tensor | None = None
        if settings.seed is not None:
            self._generator_state = torch.Generator().manual_seed(settings.seed).get_state()

    @property
    def learning_rate(self) -> float:
        """Rate of the base group in the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What training goes on from, beside the network's weights."""
        return {
            "optimizer": self.optimizer.state_dict(), "steps": self.steps, "scaler": self._scaler.state_dict(),
            "random": self._generator_state,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self._generator_state = state["steps"], state["random"]
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def step(self, forward: Callable[[], Tensor], target: Tensor) -> float:
        """One update; returns the loss before it.

        Parameters
        ----------
        forward
            Gives the logits ``[batch, n_classes]``.
        target
            ``[batch, n_classes]`` or ``[n_classes]``.

        Raises
        ------
        SettingsError
            If the loss is not a number; the weights are left as they were.
        """
        target = target if target.ndim == 2 else target.unsqueeze(0)
        with self._training_mode(target.shape[0]), self._random_state():
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=torch.float16, enabled=self._half):
                logits = forward()
            if logits.shape != target.shape:
                raise SettingsError(
                    f"The target is for {target.shape[-1]} classes, but the model knows {logits.shape[-1]}.",
                    "Use the class table that the model was built with.",
                )
            loss = self.loss(logits.float(), target.to(logits.device))
            if not torch.isfinite(loss):
                raise SettingsError("The loss is not a number any more.", "Lower the learning rate, or check the clip.")
            rate = self.settings.schedule(self.steps)
            base, head = self.optimizer.param_groups
            base["lr"], head["lr"] = rate, rate * self._head_scale
            self._scaler.scale(loss).backward()
            self._scaler.step(self.optimizer)
            self._scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return float(loss.detach())

    @contextlib.contextmanager
    def _training_mode(self, batch: int) -> Iterator[None]:
        """Training mode where it makes sense; every module returns to the mode it was in."""
        modes = {module: module.training for module in self.network.modules()}
        self.network.train()
        if self.settings.freeze_base and self.settings.frozen_mode == "eval":
            for name, module in self.network.named_modules():
                module.training = name.startswith("mlp_head") or module is self.network
        if batch == 1:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.training = False  # one clip has no variance
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    @contextlib.contextmanager
    def _random_state(self) -> Iterator[None]:
        """The trainer's own random numbers, if it was given a seed."""
        if self._generator_state is None:
            yield
            return
        with torch.random.fork_rng():
            torch.set_rng_state(self._generator_state)
            yield
            self._generator_state = torch.get_rng_state()
