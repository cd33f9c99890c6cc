"""A recognizer: a trained network together with its front end, labels and task."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.card import Card
from models.errors import SettingsError
from models.frontends import FrontEnd
from models.network import Network

if TYPE_CHECKING:
    from models.video import VideoTrack


class Recognizer(nn.Module):
    """Waveform in, class scores out; the object that everything else explains.

    Parameters
    ----------
    network, frontend, card
        Must agree on the number of classes and the size of the features.
    folder
        Where it was loaded from, if anywhere.

    Attributes
    ----------
    lock
        Hold it while a method installs hooks: Captum changes a module while it runs, and two threads explaining the same
        module get silently wrong maps.
    """

    def __init__(self, network: Network, frontend: FrontEnd, card: Card, folder: Path | None = None) -> None:
        super().__init__()
        self.network = network
        self.frontend = frontend
        self.card = card
        self.folder = folder
        self.lock = threading.RLock()
        self._picture: Tensor | None = None
        self.eval()

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.card.name

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits."""
        return self.card.labels

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the waveform it reads."""
        return self.frontend.sample_rate

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @property
    def window_samples(self) -> int | None:
        """Samples it reads at once; None: a clip of any length."""
        return self.frontend.window_samples

    @property
    def reads_video(self) -> bool:
        """Whether it looks at the picture."""
        return "video" in self.network.modalities

    def frames(self, video: VideoTrack | None, start: float = 0.0, seconds: float | None = None) -> Tensor | None:
        """The picture from `start` on as the network reads it; None if it does not look at pictures.

        Raises
        ------
        MediaError
            If the video cannot be decoded.
        """
        return self.network.read_frames(video, start, seconds).to(self.device) if self.reads_video else None

    @contextmanager
    def watching(self, frames: Tensor | None) -> Iterator[None]:
        """Let all calls without frames see this picture, a batch of one for any number of sounds; it is encoded once.

        No other thread can use this very object meanwhile (see `replica`).
        """
        with self.lock:
            before = self._picture
            if frames is not None:
                with torch.no_grad():
                    self._picture = self.network.encode_frames(frames)
            try:
                yield
            finally:
                self._picture = before

    def replica(self) -> Recognizer:
        """A recognizer with modules of its own that shares this one's weights: safe to explain in another thread."""
        shared = [*self.parameters(), *self.buffers()]
        memo: dict[int, object] = {id(tensor): tensor for tensor in shared}
        memo[id(self.lock)] = threading.RLock()
        # A card is replaced as a whole, never changed in place.
        memo[id(self.card)] = self.card
        return copy.deepcopy(self, memo)

    def supports(self, view: str) -> bool:
        """Whether it offers a view (see `models.registry.VIEWS`)."""
        return view in self.network.views

    def target_index(self, label: str) -> int:
        """Index of a class.

        Raises
        ------
        SettingsError
            If the model has no such class.
        """
        try:
            return self.labels.index(label)
        except ValueError:
            shown = ", ".join(self.labels[:12]) + (", ..." if len(self.labels) > 12 else "")
            raise SettingsError(
                f"The model {self.name} has no class named {label!r}.", f"Its classes are: {shown}."
            ) from None

    def features(self, waveform: np.ndarray | Tensor) -> Tensor:
        """Features ``[batch, frames, n_mels]`` of ``[samples]`` or ``[batch, samples]`` at `sample_rate`."""
        tensor = torch.as_tensor(waveform, dtype=torch.float32, device=self.device)
        return self.frontend(tensor if tensor.ndim == 2 else tensor.unsqueeze(0))

    def forward(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Logits ``[batch, n_classes]``."""
        if frames is None and self._picture is not None:
            frames = self._picture.expand(features.shape[0], *self._picture.shape[1:])
        return self.network(features) if frames is None else self.network(features, frames)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores in 0..1: softmax (within each label group) or sigmoid, applied once."""
        if self.card.task == "multi-label":
            return logits.sigmoid()
        sizes = self.card.label_groups or [logits.shape[-1]]
        return torch.cat([group.softmax(dim=-1) for group in logits.split(sizes, dim=-1)], dim=-1)
