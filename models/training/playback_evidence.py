"""Does what a model selects mean anything? A test against the same selection at another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import SettingsError
from models.families.play_it_back import PlayItBack
from models.layers.replay import inside, keep_and_drop
from models.training.playback_slots import true_scores, valid_frames

NOT_BETTER = "The selection is not better than chance."


@dataclass(frozen=True)
class SelectionTest:
    """Mean over clips that the encoder gets right; all values are differences or values of the truth's probability.

    Attributes
    ----------
    n_clips
        Clips that count.
    drop, keep
        Probability lost when the selected segments are replaced by the floor, and left when everything else is.
    rotated_drop, rotated_keep
        The same for the same mask rotated in time by random offsets.
    drop_interval, keep_interval
        95 % bootstrap intervals over clips of the differences to the rotated mask.
    """

    n_clips: int
    drop: float
    keep: float
    rotated_drop: float
    rotated_keep: float
    drop_interval: tuple[float, float]
    keep_interval: tuple[float, float]

    @property
    def better_than_chance(self) -> bool:
        """Whether both differences exceed 0; otherwise `NOT_BETTER` belongs next to every picture."""
        return self.drop_interval[0] > 0 and self.keep_interval[0] > 0


@torch.no_grad()
def selection_test(
    network: PlayItBack, features: Tensor, targets: Tensor, *, valid_seconds: Sequence[float] | None = None,
    multi_label: bool = False, rotations: int = 10, batch_size: int = 16, seed: int = 0,
) -> SelectionTest:  # fmt: skip
    """Test the first pass's selection of a corrected model on ``[n, frames of all levels, n_mels]``.

    At least 200 held-out clips make the intervals narrow enough to mean something.

    Raises
    ------
    SettingsError
        If the model is not corrected or gets no clip right.
    """
    if not network.config.corrected or network.config.playbacks == 0:
        raise SettingsError("Only corrected models with playback have a selection that can be tested.")
    generator = torch.Generator().manual_seed(seed)
    sizes, encoder = list(network.config.heads), network.encoder
    clock, rows = network.clock(), []
    for start in range(0, features.shape[0], batch_size):
        part = features[start : start + batch_size]
        seconds = None if valid_seconds is None else valid_seconds[start : start + batch_size]
        heard = network.listen(part, valid_seconds=seconds)[0]
        assert heard.segments is not None and heard.seconds is not None
        valid = valid_frames(network, part, heard, seconds)
        truth = list(targets[start : start + batch_size].split(sizes, dim=1))
        whole = encoder.classify(encoder.pool(heard.tokens))
        before = true_scores(whole, truth, multi_label)[0]
        if multi_label:
            right = before > 0.5
        else:
            right = torch.stack([z.argmax(1) == y.argmax(1) for z, y in zip(whole, truth, strict=True)]).all(dim=0)
        masks = [
            torch.from_numpy(inside(when, found * clock.cell_seconds))
            for when, found in zip(heard.seconds, heard.segments, strict=True)
        ]

        def losses(mask: list[Tensor], inputs: Tensor = heard.inputs, there: Tensor = valid,
                   y: list[Tensor] = truth, p: Tensor = before) -> Tensor:  # fmt: skip
            kept, dropped = keep_and_drop(inputs, torch.stack(mask).to(inputs), there)
            after = [
                true_scores(encoder.classify(encoder.pool(encoder(x.unsqueeze(1))[0])), y, multi_label)[0]
                for x in (dropped, kept)
            ]
            return torch.stack([p - after[0], after[1]], dim=1)

        found = [losses(masks)]
        for _ in range(rotations):
            turned = []
            for mask, there in zip(masks, valid.cpu(), strict=True):
                count = int(there.sum())
                offset = int(torch.randint(1, max(count, 2), (1,), generator=generator))
                turned.append(torch.cat([mask[:count].roll(offset), mask[count:]]))
            found.append(losses(turned))
        rows.append(torch.cat([found[0], torch.stack(found[1:]).mean(dim=0)], dim=1)[right].cpu())
    values = torch.cat(rows).double().numpy()
    if values.shape[0] == 0:
        raise SettingsError("The encoder gets no clip right, so its selection cannot be tested.", "Train it first.")
    draws = np.random.default_rng(seed).integers(0, values.shape[0], (2000, values.shape[0]))
    differences = values[:, :2] - values[:, 2:]
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5], axis=0)
    mean = values.mean(axis=0).tolist()
    return SelectionTest(
        values.shape[0], mean[0], mean[1], mean[2], mean[3], (float(low[0]), float(high[0])),
        (float(low[1]), float(high[1])),
    )  # fmt: skip
