"""The training clips of Play It Back: augmented anew for every step, or a number of augmented copies made once.

Features of all levels take longer to compute than the small encoder takes to learn from them; copies are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from models.families.play_it_back import PlayItBack
from models.frontends import FrontEnd
from models.layers.replay import Clock
from models.recognizer import Recognizer
from models.training.augmentations import standard
from models.training.clips import Draw, TrainingClips, collate
from models.training.config import AugmentConfig
from models.training.plan import EpochPlan
from models.training.playback_inputs import roll_levels
from models.training.processes import SharedBatch

# Purposes of a draw's random numbers, beside those of `models.training.augmentations` and `models.training.clips`.
_COPY, _ROLL = 200, 201


class Drawn(NamedTuple):
    """A batch: features of all levels, targets ``[batch, n_classes]``, a teacher's logits if there is one, the draws."""

    features: Tensor
    targets: Tensor
    soft: Tensor | None
    draws: tuple[Draw, ...]

    def generators(self, purpose: int) -> list[torch.Generator]:
        """Random numbers of every clip."""
        return [draw.generator(purpose) for draw in self.draws]


class FreshClips:
    """Clips that are augmented anew whenever they are drawn.

    Parameters
    ----------
    clips
        The clips.
    augment
        Changes of the waveforms; its masks are left to the encoder's stage, and mix-up to the draws.
    teacher
        Hears the same augmented waveforms.
    """

    def __init__(
        self, clips: TrainingClips, frontend: FrontEnd, augment: AugmentConfig, teacher: Recognizer | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.clips, self.frontend, self.teacher, self.device = clips, frontend, teacher, device
        self.augment = augment.model_copy(update={"frequency_mask": 0, "time_mask": 0})

    def __len__(self) -> int:
        return len(self.clips)

    @torch.no_grad()
    def draw(self, draws: Sequence[Draw], mixed: bool, noisy: bool = True) -> Drawn:
        """The drawn clips; `mixed`: with the guests that are to be mixed in."""
        draws = draws if mixed else [replace(draw, guest=None) for draw in draws]
        augment = self.augment if noisy else self.augment.model_copy(update={"noise_db": None})
        batch = collate(self.clips.__getitems__(draws))
        features, targets, heard = standard(batch, self.frontend, augment, self.device)
        assert isinstance(heard, Tensor)
        soft = None if self.teacher is None else self.teacher(self.teacher.features(heard))
        return Drawn(features, targets, soft, tuple(draws))


class CopiedClips:
    """Augmented copies of all clips, made once: every second one with mix-up, every other pair without noise.

    Of a drawn copy the levels are still rolled in time by a random amount. Features are kept as float16. Several processes
    share the work of making them, and all keep all of them.
    """

    def __init__(self, fresh: FreshClips, copies: int, clock: Clock, plan: EpochPlan, accelerator: Accelerator) -> None:
        self.clock, self.n_clips, self.shift, self.device = clock, len(fresh), fresh.augment.shift, fresh.device
        self.copies: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for copy in range(copies):
            # Drawn as epochs before the first, in a random order, so that classes meet where clips are mixed.
            order = plan.order(-copy)
            drawn = []
            for step in range(-(-len(order) // plan.step_size)):
                draws = plan.draws(-copy, order, step)
                shared = SharedBatch(accelerator, len(draws))
                own = fresh.draw(shared.mine(draws), copy % 2 == 1, noisy=(copy // 2) % 2 == 0)
                drawn.append([
                    None if part is None else shared.whole(part).cpu()
                    for part in (own.features.half(), own.targets, own.soft)
                ])  # fmt: skip
            features, targets, soft = (
                torch.cat(parts) if (parts := [part for part in column if part is not None]) else None
                for column in zip(*drawn, strict=True)
            )
            assert features is not None and targets is not None
            back = order.argsort()
            self.copies.append((features[back], targets[back], None if soft is None else soft[back]))

    def __len__(self) -> int:
        return self.n_clips

    def draw(self, draws: Sequence[Draw], mixed: bool) -> Drawn:
        """A random copy of each of the drawn clips; `mixed`: also copies with mix-up."""
        usable = self.copies if mixed else self.copies[::2]
        chosen = [
            (usable[int(torch.randint(0, len(usable), (), generator=draw.generator(_COPY)))], draw.index)
            for draw in draws
        ]
        features = torch.stack([copy[0][row] for copy, row in chosen]).float()
        if self.shift:
            features = roll_levels(features, self.clock, [draw.generator(_ROLL) for draw in draws])
        targets = torch.stack([copy[1][row] for copy, row in chosen])
        soft = [copy[2][row] for copy, row in chosen if copy[2] is not None]
        answers = torch.stack(soft).to(self.device) if soft else None
        return Drawn(features.to(self.device), targets.to(self.device), answers, tuple(draws))


class HeldOutClips:
    """Validation clips ``[clips, samples]`` with targets; their features are computed once if they are to be kept.

    Several processes share the clips among them.
    """

    def __init__(
        self, waveforms: Tensor, targets: Tensor, frontend: FrontEnd, keep: bool, accelerator: Accelerator
    ) -> None:
        self.targets, self.frontend, self.device = targets, frontend, accelerator.device
        self.shared = SharedBatch(accelerator, len(waveforms))
        self.waveforms = waveforms[list(self.shared.mine(range(len(waveforms))))]
        self.kept = [self._features(part) for part in self.waveforms.split(32)] if keep else None

    @torch.no_grad()
    def _features(self, waveforms: Tensor) -> Tensor:
        return self.frontend(waveforms.to(self.device)).half().cpu()

    @torch.no_grad()
    def accuracy(self, network: PlayItBack, alone: bool) -> float:
        """Share of clips that all heads get right: of the encoder `alone`, or of the whole network."""
        was_training = [module.training for module in (network, network.encoder)]
        network.eval()
        found = []
        for number, part in enumerate(self.waveforms.split(32)):
            features = (self._features(part) if self.kept is None else self.kept[number]).float().to(self.device)
            if alone:
                coarse = features[:, : network.clock().n_cells].unsqueeze(1)
                found.append(torch.cat(network.encoder.classify(network.encoder.pool(network.encoder(coarse)[0])), 1))
            else:
                found.append(network(features))
        network.train(was_training[0])
        network.encoder.train(was_training[1])
        sizes, right = list(network.config.heads), torch.ones(len(self.targets), dtype=torch.bool)
        logits = self.shared.whole(torch.cat(found)).cpu()
        for z, y in zip(logits.split(sizes, dim=1), self.targets.split(sizes, dim=1), strict=True):
            right &= z.argmax(dim=1) == y.argmax(dim=1)
        return right.float().mean().item()
