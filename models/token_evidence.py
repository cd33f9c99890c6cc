"""Which patches an EquiAV reads its evidence from: exact shares of every score, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.errors import SettingsError
from models.families.equiav import EquiAV
from models.layers.equiav import PATCH
from models.recognizer import Recognizer


@dataclass(frozen=True, eq=False)
class TokenEvidence:
    """A score as a sum over patches.

    Attributes
    ----------
    labels
        Class names.
    logits, bias
        ``[n_classes]``; ``logits == bias + sound.sum((1, 2)) + picture.sum((1, 2))`` to float precision.
    sound
        ``[n_classes, rows, columns]``, lowest frequencies first; None if the model does not read sound.
    time_edges
        ``[columns + 1]`` borders of the columns in seconds (0.16 s apart at a hop of 10 ms).
    frequency_ranges
        ``[rows, 2]`` centres of the lowest and the highest mel band of each row, in Hz.
    padding
        ``[columns]`` share of each column that is padding after the end of the clip. Padding gets evidence, too.
    picture
        ``[n_classes, rows, columns]`` on the video frame, top left first; None if the model does not read pictures.
    """

    labels: tuple[str, ...]
    logits: np.ndarray
    bias: np.ndarray
    sound: np.ndarray | None
    time_edges: np.ndarray
    frequency_ranges: np.ndarray
    padding: np.ndarray
    picture: np.ndarray | None = None

    def _sound(self) -> np.ndarray:
        if self.sound is None:
            raise SettingsError("This model does not read sound.", "Show its evidence on the picture.")
        return self.sound

    def over_time(self, target: int) -> np.ndarray:
        """Evidence of every column for a class, ``[columns]``."""
        return self._sound()[target].sum(axis=0)

    def over_frequency(self, target: int) -> np.ndarray:
        """Evidence of every row for a class, ``[rows]``."""
        return self._sound()[target].sum(axis=1)

    def shares(self, target: int) -> tuple[float, float]:
        """What sound and picture add to the logit of a class."""
        sound = 0.0 if self.sound is None else float(self.sound[target].sum())
        return sound, 0.0 if self.picture is None else float(self.picture[target].sum())

    def segments(self, target: int, threshold: float = 0.0) -> list[tuple[float, float]]:
        """Start and end in seconds of runs of columns with more evidence than `threshold`; padding is left out."""
        above = (self.over_time(target) > threshold) & (self.padding < 1.0)
        borders = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(int)))
        return [
            (float(self.time_edges[start]), float(self.time_edges[end]))
            for start, end in zip(borders[::2], borders[1::2], strict=True)
        ]


@torch.no_grad()
def token_evidence(
    recognizer: Recognizer, waveform: np.ndarray | torch.Tensor, frames: torch.Tensor | None = None
) -> TokenEvidence:
    """Exact evidence of one window of a clip.

    Parameters
    ----------
    recognizer
        An EquiAV with a linear head.
    waveform
        ``[samples]`` at the recognizer's rate; what exceeds its window is not heard.
    frames
        RGB in 0..1, ``[n_frames, 3, height, width]``, for models that read pictures.

    Raises
    ------
    SettingsError
        If the model is no EquiAV, or its scores are no sum over patches.
    """
    network, frontend = recognizer.network, recognizer.frontend
    if not isinstance(network, EquiAV):
        raise SettingsError(
            f"{recognizer.name} is no EquiAV.", "Token evidence is exact for EquiAV with a linear head only."
        )
    features = recognizer.features(waveform)
    pictures = None if frames is None else frames.to(recognizer.device).unsqueeze(0)
    evidence = network.token_evidence(features, pictures)
    bias = network.mlp_head.get_parameter("0.bias")
    logits = bias + torch.stack([part.sum(dim=(2, 3))[0] for part in evidence.values()]).sum(dim=0)
    rows, columns = network.config.grid("a")
    samples = np.arange(columns + 1) * PATCH * frontend.hop_length + (frontend.win_length - frontend.hop_length) / 2
    valid = frontend.valid_frames(int(torch.as_tensor(waveform).shape[-1]))
    padding = np.clip((np.arange(1, columns + 1) * PATCH - valid) / PATCH, 0.0, 1.0)
    bands = frontend.frequencies[: rows * PATCH].reshape(rows, PATCH)
    sound, picture = evidence.get("a"), evidence.get("v")
    return TokenEvidence(
        tuple(recognizer.labels),
        logits.cpu().numpy(),
        bias.cpu().numpy(),
        None if sound is None else sound[0].cpu().numpy(),
        samples / frontend.sample_rate,
        bands[:, [0, -1]],
        padding,
        None if picture is None else picture[0].cpu().numpy(),
    )
