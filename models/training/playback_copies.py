"""The training clips of Play It Back: augmented anew for every step, or a number of augmented copies made once.

Features of all levels take longer to compute than the small encoder takes to learn from them; copies are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.families.play_it_back import PlayItBack
from models.frontends import FrontEnd
from models.layers.replay import Clock
from models.recognizer import Recognizer
from models.training.augment import augment_waveforms
from models.training.config import AugmentConfig
from models.training.playback_inputs import roll_levels


class Drawn(NamedTuple):
    """A batch: features of all levels, targets ``[batch, n_classes]``, and the logits of a teacher if there is one."""

    features: Tensor
    targets: Tensor
    soft: Tensor | None


class FreshClips:
    """Clips that are augmented anew whenever they are drawn.

    Parameters
    ----------
    waveforms, targets
        ``[clips, samples]`` and ``[clips, n_classes]``.
    augment
        Changes of the waveforms; mix-up only where it is asked for.
    teacher
        Hears the same augmented waveforms.
    """

    def __init__(
        self, waveforms: Tensor, targets: Tensor, frontend: FrontEnd, augment: AugmentConfig,
        teacher: Recognizer | None, device: torch.device,
    ) -> None:  # fmt: skip
        self.waveforms, self.targets, self.frontend, self.augment = waveforms, targets, frontend, augment
        self.teacher, self.device = teacher, device

    def __len__(self) -> int:
        return len(self.waveforms)

    @torch.no_grad()
    def draw(self, rows: Sequence[int], mixed: bool, generator: torch.Generator, noisy: bool = True) -> Drawn:
        """The clips with these numbers; `mixed`: with mix-up among them."""
        changes: dict[str, object] = {} if mixed else {"mixup": 0.0}
        changes |= {} if noisy else {"noise_db": None}
        found = augment_waveforms(
            self.waveforms[rows], self.targets[rows], self.augment.model_copy(update=changes), generator
        )
        waveforms, targets = (part.to(self.device) for part in found)
        soft = None if self.teacher is None else self.teacher(self.teacher.features(waveforms))
        return Drawn(self.frontend(waveforms), targets, soft)


class CopiedClips:
    """Augmented copies of all clips, made once: every second one with mix-up, every other pair without noise.

    Of a drawn copy the levels are still rolled in time by a random amount. Features are kept as float16.
    """

    def __init__(self, fresh: FreshClips, copies: int, clock: Clock, generator: torch.Generator) -> None:
        self.clock, self.n_clips, self.shift, self.device = clock, len(fresh), fresh.augment.shift, fresh.device
        self.copies: list[Drawn] = []
        for copy in range(copies):
            # Mixed among neighbours in a random order, so that classes meet.
            order = torch.randperm(len(fresh), generator=generator)
            drawn = [
                fresh.draw(rows.tolist(), copy % 2 == 1, generator, noisy=(copy // 2) % 2 == 0)
                for rows in order.split(32)
            ]
            back = order.argsort()
            halves = torch.cat([one.features.half().cpu() for one in drawn])[back]
            targets = torch.cat([one.targets.cpu() for one in drawn])[back]
            soft = [one.soft.cpu() for one in drawn if one.soft is not None]
            self.copies.append(Drawn(halves, targets, torch.cat(soft)[back] if soft else None))

    def __len__(self) -> int:
        return self.n_clips

    def draw(self, rows: Sequence[int], mixed: bool, generator: torch.Generator) -> Drawn:
        """A random copy of each of the clips with these numbers; `mixed`: also copies with mix-up."""
        usable = list(range(len(self.copies))) if mixed else list(range(0, len(self.copies), 2))
        which = torch.randint(0, len(usable), (len(rows),), generator=generator).tolist()
        chosen = [(self.copies[usable[copy]], row) for copy, row in zip(which, rows, strict=True)]
        features = torch.stack([copy.features[row] for copy, row in chosen]).float()
        if self.shift:
            features = roll_levels(features, self.clock, generator)
        targets = torch.stack([copy.targets[row] for copy, row in chosen])
        soft = [copy.soft[row] for copy, row in chosen if copy.soft is not None]
        answers = torch.stack(soft).to(self.device) if soft else None
        return Drawn(features.to(self.device), targets.to(self.device), answers)


class HeldOutClips:
    """Validation clips ``[clips, samples]`` with targets; their features are computed once if they are to be kept."""

    def __init__(
        self, waveforms: Tensor, targets: Tensor, frontend: FrontEnd, keep: bool, device: torch.device
    ) -> None:
        self.waveforms, self.targets, self.frontend, self.device = waveforms, targets, frontend, device
        self.kept = [self._features(part) for part in waveforms.split(32)] if keep else None

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
        sizes, right = list(network.config.heads), torch.ones(len(self.waveforms), dtype=torch.bool)
        logits = torch.cat(found).cpu()
        for z, y in zip(logits.split(sizes, dim=1), self.targets.split(sizes, dim=1), strict=True):
            right &= z.argmax(dim=1) == y.argmax(dim=1)
        return right.float().mean().item()
