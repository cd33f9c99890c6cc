"""Which clips make which step, and everything random about them.

All of it follows from the recipe's seed, the epoch and the clip's place in it. Nothing depends on how many processes share
the work, and there is no state of random numbers to keep: a run that goes on in the middle of an epoch draws what it would
have drawn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.training.clips import Draw, TrainingClips, key_of
from models.training.config import TrainConfig
from models.training.published_augment import mixing_weight
from models.training.sampling import read_weights, sampling_weights

# What a key is for: streams of the same place in an epoch must not be the same numbers.
_ORDER, _CLIP, _PARTNERS, _NETWORK = range(4)


class EpochPlan:
    """The steps of every epoch, and the part of each that one of several processes takes.

    A step takes ``batch_size * accumulate * processes`` clips, in as many parts; what is left at the end of an epoch is not
    used (the next one has another order). A data set smaller than a step is one step, shared as evenly as may be.

    Parameters
    ----------
    config
        The recipe.
    clips
        What is drawn from.
    rank, processes
        Which of how many processes this is.

    Attributes
    ----------
    step_size
        Clips of a step, over all processes.
    steps
        Of an epoch.
    parts
        Batches of a step that this process takes.

    Raises
    ------
    DataError
        If a file of weights does not belong to the clips.
    """

    def __init__(self, config: TrainConfig, clips: TrainingClips, rank: int = 0, processes: int = 1) -> None:
        settings, self.count = config.optimizer, len(clips)
        self.config, self.seed, self.rank, self.processes = config, config.seed, rank, processes
        self.step_size = min(settings.batch_size * settings.accumulate * processes, self.count)
        self.steps = self.count // self.step_size
        self.parts = min(settings.accumulate, -(-self.step_size // (settings.batch_size * processes)))
        bounds = np.linspace(0, self.step_size, self.parts * processes + 1).round().astype(int).tolist()
        self._bounds: list[tuple[int, int]] = list(itertools.pairwise(bounds))
        self._weights, self._cumulated = self._sampling(clips)

    def _sampling(self, clips: TrainingClips) -> tuple[Tensor | None, np.ndarray | None]:
        sampling = self.config.sampling
        if sampling.kind == "plain" and not sampling.weighted_partners:
            return None, None
        if sampling.weights is not None:
            values = read_weights(sampling.weights, self.count)
        else:
            values = sampling_weights([example.labels for example in clips.examples.examples])
        weights = torch.from_numpy(values) if sampling.kind == "balanced" else None
        return weights, np.cumsum(values) if sampling.weighted_partners else None

    def _generator(self, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(key_of(self.seed, *place))

    def order(self, epoch: int) -> Tensor:
        """Indices of the clips in the order of an epoch (counted from 1), ``[n]``."""
        generator = self._generator(_ORDER, epoch)
        if self._weights is not None:
            return torch.multinomial(self._weights, self.count, replacement=True, generator=generator)
        return torch.randperm(self.count, generator=generator)

    def _partner(self, generator: torch.Generator) -> int:
        if self._cumulated is None:
            return int(torch.randint(self.count, (1,), generator=generator))
        drawn = float(torch.rand((), generator=generator, dtype=torch.float64)) * self._cumulated[-1]
        return min(int(np.searchsorted(self._cumulated, drawn, side="right")), self.count - 1)

    def _draw(self, index: int, epoch: int, place: int) -> Draw:
        augment, key = self.config.augment, key_of(self.seed, _CLIP, epoch, place)
        if augment.kind == "standard":
            return Draw(index, key=key)
        generator = torch.Generator().manual_seed(key)
        where, picture = torch.rand(2, generator=generator).tolist()
        partner, weight = None, 1.0
        if augment.mixes_decoded and torch.rand((), generator=generator).item() < augment.mixup:
            weight = mixing_weight(generator)
            partner = self._partner(generator)
        return Draw(index, where, partner, weight, picture, key)

    def draws(self, epoch: int, order: Tensor, step: int) -> list[Draw]:
        """All clips of a step (counted from 0), over all processes."""
        first = step * self.step_size
        indices = order[first : first + self.step_size].tolist()
        draws = [self._draw(index, epoch, first + place) for place, index in enumerate(indices)]
        augment = self.config.augment
        if augment.kind != "standard" or augment.mixup <= 0:
            return draws
        # Clips are mixed with others of the same step, whichever process they belong to.
        rng = np.random.default_rng(key_of(self.seed, _PARTNERS, epoch, step))
        partners = rng.permutation(len(draws))
        weights = rng.beta(augment.mixup_beta, augment.mixup_beta, len(draws))
        chosen = rng.random(len(draws)) < augment.mixup
        return [
            draw.mixed_with(draws[partner], float(max(weight, 1 - weight))) if mixed and draws[partner] is not draw else draw
            for draw, partner, weight, mixed in zip(draws, partners, weights, chosen, strict=True)
        ]  # fmt: skip

    def _bounds_of(self, part: int) -> tuple[int, int]:
        return self._bounds[part * self.processes + self.rank]

    def share(self, part: int) -> float:
        """Weight of a part's mean loss in the step's, times the number of processes (over which gradients are averaged)."""
        first, last = self._bounds_of(part)
        return (last - first) / self.step_size * self.processes

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[list[Draw]]:
        """What this process hears in an epoch from a step on, `parts` batches a step."""
        order = self.order(epoch)
        for step in range(first_step, self.steps):
            draws = self.draws(epoch, order, step)
            for part in range(self.parts):
                first, last = self._bounds_of(part)
                # More processes than clips: one that has none hears a clip that does not count.
                yield draws[first:last] or draws[:1]

    def seed_network(self, epoch: int, step: int, part: int) -> None:
        """Set the random numbers with which the network hears a part: dropout and the like."""
        key = key_of(self.seed, _NETWORK, epoch, step, part * self.processes + self.rank)
        random.seed(key)
        np.random.seed(key % 2**32)
        torch.manual_seed(key)
