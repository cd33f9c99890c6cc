"""The sound of what a model heard again: cut from the clip, pass after pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saliency.playback import PassHeard, PlaybackExplanation

FADE_SECONDS, PAUSE_SECONDS = 0.008, 0.5


@dataclass(frozen=True, eq=False)
class Chapter:
    """A part of a listen-through.

    Attributes
    ----------
    label
        What is heard.
    number
        Pass; 1 is the clip itself.
    start, end
        Place in the listen-through in seconds.
    clip_start, clip_end
        Place in the clip in seconds.
    """

    label: str
    number: int
    start: float
    end: float
    clip_start: float
    clip_end: float


@dataclass(frozen=True, eq=False)
class ListenThrough:
    """The clip, a pause, and what was replayed pass after pass, at the clip's own rate: waveform ``[channels, samples]``."""

    waveform: np.ndarray
    sample_rate: int
    chapters: tuple[Chapter, ...]


def replayed_sound(waveform: np.ndarray, sample_rate: int, one: PassHeard) -> np.ndarray:
    """What a pass replayed, cut from the clip ``[channels, samples]`` and put one after the other; pass 1: the clip.

    Nothing is slowed down or stretched: at a finer hop the model sees the same sound in more detail.
    """
    if one.number == 1:
        return waveform
    pieces = [_cut(waveform, sample_rate, start, end) for start, end in one.replayed]
    return np.concatenate(pieces, axis=1) if pieces else waveform[:, :0]


def _cut(waveform: np.ndarray, rate: int, start: float, end: float) -> np.ndarray:
    """A stretch of the clip with short fades, so that cuts do not click."""
    piece = waveform[:, max(0, round(start * rate)) : max(0, round(end * rate))].copy()
    fade = min(round(FADE_SECONDS * rate), piece.shape[1] // 2)
    if fade:
        ramp = np.linspace(0.0, 1.0, fade, endpoint=False, dtype=np.float32)
        piece[:, :fade] *= ramp
        piece[:, -fade:] *= ramp[::-1]
    return piece


def listen_through(waveform: np.ndarray, sample_rate: int, explanation: PlaybackExplanation) -> ListenThrough:
    """The clip as the model heard it, pass after pass.

    Parameters
    ----------
    waveform
        The clip, ``[channels, samples]`` at its own `sample_rate`.
    """
    pause = np.zeros((waveform.shape[0], round(PAUSE_SECONDS * sample_rate)), dtype=waveform.dtype)
    parts: list[np.ndarray] = []
    chapters: list[Chapter] = []
    length = 0

    def add(piece: np.ndarray, label: str = "", number: int = 0, start: float = 0.0, end: float = 0.0) -> None:
        nonlocal length
        if piece.shape[1] and label:
            chapters.append(
                Chapter(label, number, length / sample_rate, (length + piece.shape[1]) / sample_rate, start, end)
            )
        parts.append(piece)
        length += piece.shape[1]

    heard = _cut(waveform, sample_rate, explanation.start, explanation.end)
    whole = explanation.start == 0 and heard.shape[1] >= waveform.shape[1] - 0.02 * sample_rate
    name = "The clip" if whole else f"{explanation.start:.2f}–{explanation.end:.2f} s"
    add(heard, name, 1, explanation.start, explanation.end)
    for one in explanation.passes[1:]:
        if len(one.replayed):
            add(pause)
        for start, end in one.replayed:
            add(
                _cut(waveform, sample_rate, start, end),
                f"Pass {one.number}: {start:.2f}–{end:.2f} s",
                one.number,
                start,
                end,
            )
    return ListenThrough(np.concatenate(parts, axis=1), sample_rate, tuple(chapters))
