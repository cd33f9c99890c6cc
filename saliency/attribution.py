"""Attributions: how relevant every cell of the log-mel is for one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import SettingsError
from models.prediction import hop_samples, window_starts
from models.recognizer import Recognizer
from saliency.cells import cells_of, fold_padding
from saliency.methods import Method, Pass, find_method

if TYPE_CHECKING:
    from models.video import VideoTrack

__all__ = ["Attribution", "activation_bytes", "attribute", "explain_window", "fold_padding", "working_batch_size"]

Progress = Callable[[float], None]

# What `activation_bytes` measured, by the shape of the features: a forward pass is much for methods that need only one.
_measured: WeakKeyDictionary[Recognizer, dict[tuple[int, ...], int]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Attribution:
    """Relevance of every feature cell for one class's logit.

    Attributes
    ----------
    values
        float32 ``[frames, n_mels]``; positive supports the class, negative opposes it. Models that read samples have one
        band (see `saliency.cells`).
    times
        Centre of every frame in seconds, ``[frames]``.
    frequencies
        Centre of every mel band in Hz, ``[n_mels]``.
    target
        The class.
    method, parameters
        How it was made.
    completeness_gap
        For methods whose relevances should sum to ``logit(clip) - logit(silence)``: by how much they do not, relative to
        that difference (the largest gap of all windows). None for other methods.
    passes
        Forward passes of single inputs that it took.
    explained
        Start and end in seconds of the part that was explained.
    """

    values: np.ndarray
    times: np.ndarray
    frequencies: np.ndarray
    target: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    completeness_gap: float | None = None
    passes: int = 0
    explained: tuple[float, float] = (0.0, 0.0)


def activation_bytes(recognizer: Recognizer, features: Tensor) -> int:
    """Memory in bytes that one input's activations take, measured in one forward pass."""
    total = 0

    def count(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    leaves = [m for m in recognizer.network.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            recognizer(features[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, total)


def working_batch_size(recognizer: Recognizer, features: Tensor) -> int:
    """How many inputs to push through at once so that a backward pass stays within a bounded share of memory.

    A quarter of the GPU's free memory, or 512 MiB on a CPU, where larger batches are not faster.
    """
    if recognizer.device.type == "cuda":
        budget = torch.cuda.mem_get_info(recognizer.device)[0] // 4
        largest = 256
    else:
        budget, largest = 512 * 2**20, 16
    known = _measured.setdefault(recognizer, {})
    shape = tuple(features.shape[1:])
    if shape not in known:
        known[shape] = activation_bytes(recognizer, features)
    # Values and gradients of every activation, and what the operations keep besides.
    return int(min(largest, max(1, budget // (3 * known[shape]))))


def attribute(
    recognizer: Recognizer,
    waveform: np.ndarray,
    target: str,
    method: str = "integrated_gradients",
    parameters: dict[str, Any] | None = None,
    *,
    explain: tuple[float, float] | None = None,
    video: VideoTrack | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Attribution of a mono waveform ``[samples]`` at the recognizer's rate.

    Clips longer than the model's window are explained window by window; overlaps are averaged with triangular weights.

    Parameters
    ----------
    target
        Label whose logit is explained.
    method, parameters
        A registered method (see `saliency.methods`) and what differs from its defaults.
    explain
        Start and end in seconds: only windows that touch this part are explained.
    video
        The picture, for models that look at it; it stays as it is while the sound is varied.
    progress
        Called with the share that is done, 0 to 1. It may raise, to cancel.

    Raises
    ------
    SettingsError
        If there is no such class or method, or the model lacks what the method needs, or has no classes to explain.
    """
    if not recognizer.supports("attribution"):
        raise SettingsError(
            f"The scores of {recognizer.name} cannot be attributed to the sound.", "Choose another model or view."
        )
    index = recognizer.target_index(target)
    chosen = find_method(method)
    settings = chosen.validate(parameters or {})
    missing = chosen.missing(recognizer)
    if missing:
        raise SettingsError(f"{chosen.title} does not work with {recognizer.name}: {missing}", "Choose another method.")
    cells = cells_of(recognizer.frontend)
    asked = settings.model_dump(mode="json")
    settings = cells.scaled(settings)
    window, rate = recognizer.window_samples, recognizer.sample_rate
    starts = window_starts(len(waveform), window, hop_samples(recognizer))
    length = len(waveform) if window is None else min(window, len(waveform))
    if explain is not None:
        starts = [s for s in starts if s < explain[1] * rate and s + length > explain[0] * rate] or starts[:1]
    times = cells.times(len(waveform))
    total_frames = len(times)
    values = np.zeros((total_frames, len(cells.frequencies)), dtype=np.float64)
    weights = np.zeros((total_frames, 1))
    gaps: list[float] = []
    passes = 0
    for number, start in enumerate(starts):
        frames = recognizer.frames(video, start / rate, length / rate)
        with recognizer.lock, torch.no_grad():
            features = recognizer.features(waveform[start : start + length])

        def advance(share: float, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(starts))

        with recognizer.watching(frames):
            result = explain_window(recognizer, features, index, chosen, settings, advance)
        passes += result.passes
        if result.completeness_gap is not None:
            gaps.append(result.completeness_gap)
        first = round(start / cells.hop_length)
        part = cells.fold(result.values, length)[: total_frames - first]
        ramp = np.minimum(np.arange(1, len(part) + 1), np.arange(len(part), 0, -1)).astype(np.float64)[:, None]
        values[first : first + len(part)] += part * ramp
        weights[first : first + len(part)] += ramp
    values /= np.maximum(weights, 1e-12)
    return Attribution(
        values.astype(np.float32), times, cells.frequencies, target, chosen.name, asked, max(gaps) if gaps else None, passes,
        (starts[0] / rate, (starts[-1] + length) / rate),
    )  # fmt: skip


def explain_window(
    recognizer: Recognizer,
    features: Tensor,
    target_index: int,
    method: Method,
    settings: Any,
    advance: Callable[[float], None],
) -> Pass:
    """One method on one window's features ``[1, frames, n_mels]``, alone on the model while it runs."""
    with recognizer.lock:
        batch_size = working_batch_size(recognizer, features)
        result = method.attribute(recognizer, features.detach(), target_index, settings, batch_size, advance)
    if not np.isfinite(result.values).all():
        raise SettingsError(
            f"{method.title} gave values that are not numbers for this clip.", "Choose another method or class."
        )
    return result
