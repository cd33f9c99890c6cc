"""What the stages of Play It Back's training hear: random segments, hidden and replayed parts, rolled levels.

Every clip has random numbers of its own: what happens to it does not depend on which clips are heard with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.families.play_it_back import PlayItBack
from models.layers.replay import Clock, inside, keep_and_drop


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


def encoder_inputs(network: PlayItBack, features: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Level 0 of features of all levels, half the time replayed and half the time partly hidden.

    The encoder meets both later, so neither may be foreign to it: 10 to 40 % of a clip is replayed at a random level,
    and 10 to 60 % of it (or all but that) becomes the clip's floor.
    """
    clock, batch = network.clock(), features.shape[0]

    def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    valid = network.valid_cells(features, clock, None)
    starts = np.concatenate([[0], np.cumsum(clock.lengths)])
    index, hidden, there = [], [], []
    for cells, generator in zip(valid, generators, strict=True):
        level, segments = 0, np.zeros((0, 2), dtype=np.int64)
        if len(clock.lengths) > 1 and uniform(generator) < 0.5:
            level = int(torch.randint(1, len(clock.lengths), (1,), generator=generator))
            segments = random_segments(cells, round(uniform(generator, 0.1, 0.4) * cells), generator)
        seconds, levels, frames = clock.replay(segments, level)
        index.append(starts[levels] + frames)
        there.append(seconds < cells * clock.cell_seconds - 1e-9)
        mask = np.zeros(clock.n_cells, dtype=bool)
        if uniform(generator) < 0.5:
            covered = random_segments(cells, round(uniform(generator, 0.1, 0.6) * cells), generator)
            mask = inside(seconds, covered * clock.cell_seconds)
            mask = ~mask if uniform(generator) < 0.5 else mask
        hidden.append(mask)
    rows = torch.from_numpy(np.stack(index)).to(features.device)
    inputs = features[torch.arange(batch, device=features.device)[:, None], rows]
    silent, heard = (torch.from_numpy(np.stack(part)).to(features.device) for part in (hidden, there))
    return keep_and_drop(inputs, silent.to(inputs), heard)[1]


def explore(
    share: float, generators: Sequence[torch.Generator]
) -> Callable[[int, list[np.ndarray], list[int]], list[np.ndarray]]:
    """A choice for `PlayItBack.listen`: with probability `share` random segments of the same total."""

    def choose(_: int, segments: list[np.ndarray], valid: list[int]) -> list[np.ndarray]:
        return [
            random_segments(cells, int((found[:, 1] - found[:, 0]).sum()), generator)
            if torch.rand((), generator=generator).item() < share
            else found
            for found, cells, generator in zip(segments, valid, generators, strict=True)
        ]

    return choose


def explored_share(progress: float) -> float:
    """Share of random replays: from 1 down to 0.1 over the first 30 % of the steps, then 0.1."""
    return max(0.1, 1.0 - 0.9 * progress / 0.3)


def roll_levels(features: Tensor, clock: Clock, generators: Sequence[torch.Generator]) -> Tensor:
    """Features of all levels ``[batch, frames, n_mels]``, every clip rolled in time by a random number of cells."""
    cells = [int(torch.randint(0, clock.n_cells, (), generator=generator)) for generator in generators]
    rolled, start = torch.empty_like(features), 0
    for hop, length in zip(clock.hops, clock.lengths, strict=True):
        for clip, shift in enumerate(cells):
            moved = features[clip, start : start + length].roll(round(shift * clock.hops[0] / hop), 0)
            rolled[clip, start : start + length] = moved
        start += length
    return rolled
