"""What counted when: every view over time that a model itself offers, named as what it is.

The kinds are different things and must not be mixed up: parts of the score that a pooling layer reads out of every moment,
attention that flows from the answer back to the patches, and answers to short stretches that are heard alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import SettingsError
from models.frontends.play_it_back import PlayItBackMel
from models.prediction import hop_samples, window_starts
from models.recognizer import Recognizer
from models.video import VideoTrack
from saliency.rollout import attention_rollout, rolls_out

Progress = Callable[[float], None]
MOST_STRETCHES = 160  # answers to short stretches that are asked for at most


@dataclass(frozen=True, eq=False)
class OverTime:
    """One value for every moment of a clip.

    Attributes
    ----------
    kind
        A key of `KINDS`.
    title
        What it is, for people.
    target
        The class; empty where the values belong to no class.
    unit
        ``logit`` or ``score`` (parts of one), ``probability``, or ``share`` (times the even share).
    times, spans
        Centre ``[steps]`` and borders ``[steps, 2]`` of every step in seconds of the clip.
    values
        ``[steps]``.
    adds_up_to
        What values and `rest` sum to: ``logit``, ``score`` (of a model that averages probabilities), or empty.
    total, rest
        That sum, and the part of it that belongs to no moment of the clip; 0 where nothing adds up.
    zero
        What the value 0 means.
    notes
        What a reader has to know beside the picture.
    """

    kind: str
    title: str
    target: str
    unit: str
    times: np.ndarray
    spans: np.ndarray
    values: np.ndarray
    adds_up_to: str
    total: float
    rest: float
    zero: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of view over time: its name in menus and in one sentence what it shows."""

    name: str
    title: str
    summary: str
    supported: Callable[[Recognizer], bool]


# Families whose parts and a remainder are the logit, and what the remainder is.
REST = {
    "slowfast": "what the model says of this class whatever it hears",
    "equiav": "what the model says of this class whatever it hears",
    "hetero_graph": "the picture, and what the model says of this class whatever it hears",
}
# What the pooling of a family is; all others average scores with weights that attention or a rule gives.
POOLINGS = {
    "slowfast": "What each moment adds to the score (class activation map, summed over frequency)",
    "equiav": "What each moment adds to the score (evidence of its patches)",
    "hetero_graph": "What each stretch of sound adds to the score (read-out attention times its own score)",
}
READ_OUT = (
    "It says where the score is read out. A step has heard its surroundings, so what it reports may have sounded a little "
    "before or after."
)
ROLLOUT = (
    "Attention rollout (Abnar and Zuidema, ACL 2020) follows attention through all blocks. It is the same for every class, and "
    "says where the model looked, not what spoke for or against anything."
)


def supports_time_attention(recognizer: Recognizer) -> bool:
    """Whether the network says what every moment adds to a score."""
    return recognizer.supports("time_attention")


def supports_scores(recognizer: Recognizer) -> bool:
    """Whether the network names classes for what it hears."""
    return "audio" in recognizer.network.modalities and recognizer.supports("attribution")


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "time_attention", "What each moment adds to the score",
            "The model pools over time: how much of this class's score comes out of every step.", supports_time_attention,
        ),
        Kind(
            "token_attention", "Where attention flows (attention rollout)",
            "Attention of all blocks together, from the answer back to every moment. It belongs to no class.", rolls_out,
        ),
        Kind(
            "class_scores", "What the model says of every moment alone",
            "Short stretches are given to the model by themselves: how probable the class is in each.", supports_scores,
        ),
    )
}  # fmt: skip


def kinds_of(recognizer: Recognizer) -> tuple[str, ...]:
    """Names of the kinds that a recognizer offers, best first; empty if there is none."""
    return tuple(name for name, kind in KINDS.items() if kind.supported(recognizer))


def over_time(
    recognizer: Recognizer,
    waveform: np.ndarray,
    target: str,
    kind: str,
    *,
    video: VideoTrack | None = None,
    progress: Progress | None = None,
) -> OverTime:
    """One view over time of a mono waveform ``[samples]`` at the recognizer's rate.

    Clips longer than the model's window are looked at window by window; overlaps are averaged with triangular weights.

    Parameters
    ----------
    target
        Label of the class (not used by kinds that belong to no class).
    kind
        A key of `KINDS`.
    video
        The picture, for models that look at it.
    progress
        Called with the share that is done, 0 to 1. It may raise, to cancel.

    Raises
    ------
    SettingsError
        If there is no such kind or class, or the model does not offer it.
    """
    if kind not in KINDS:
        raise SettingsError(f"There is no view over time named {kind!r}.", f"Known are: {', '.join(KINDS)}.")
    if not KINDS[kind].supported(recognizer):
        offered = kinds_of(recognizer)
        raise SettingsError(
            f"{recognizer.name} does not offer '{KINDS[kind].title}'.",
            f"It offers: {', '.join(offered)}." if offered else "It offers no view over time.",
        )
    waveform = without_crumbs(recognizer, waveform)
    if kind == "class_scores":
        return class_scores(recognizer, waveform, target, video, progress)
    if kind == "token_attention":
        return _by_window(recognizer, waveform, "", kind, None, progress)
    recognizer.target_index(target)
    return _by_window(recognizer, waveform, target, kind, video, progress)


def without_crumbs(recognizer: Recognizer, waveform: np.ndarray) -> np.ndarray:
    """A waveform without the little that goes beyond its only window: it holds nothing more to hear."""
    window = recognizer.window_samples
    return waveform[:window] if len(window_starts(len(waveform), window)) == 1 else waveform


# --- time attention and rollout ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """One window: steps (seconds from its start), their values, and what they add up to."""

    times: np.ndarray
    values: np.ndarray
    adds_up_to: str = ""
    total: float = 0.0
    outside: float = 0.0  # of steps behind the end of the clip


def _by_window(
    recognizer: Recognizer, waveform: np.ndarray, target: str, kind: str, video: VideoTrack | None, progress: Progress | None
) -> OverTime:  # fmt: skip
    window, rate = recognizer.window_samples, recognizer.sample_rate
    starts = window_starts(len(waveform), window, hop_samples(recognizer))
    length = len(waveform) if window is None else min(window, len(waveform))
    seconds, clip_seconds = max(length, 1) / rate, max(len(waveform), 1) / rate
    parts: list[_Window] = []
    for number, start in enumerate(starts):
        samples = waveform[start : start + length]
        if kind == "token_attention":
            parts.append(_rollout(recognizer, samples, seconds))
        else:
            frames = recognizer.frames(video, start / rate, length / rate)
            parts.append(_contributions(recognizer, samples, target, seconds, frames))
        if progress is not None:
            progress((number + 1) / len(starts))
    only = parts[0] if len(parts) == 1 else None
    if only is not None:
        times, values = only.times, only.values
    else:
        times, values = _joined(parts, [start / rate for start in starts], seconds, clip_seconds)
    notes: list[str] = []
    if only is None:
        notes.append(
            f"The clip is longer than the {seconds:.3g} s that the model hears at once: it is looked at in {len(parts)} "
            "overlapping windows, and each has an answer of its own."
        )
    if kind == "token_attention":
        title = "Where attention flows (attention rollout), times the even share"
        notes.append(ROLLOUT)
        if only is not None and only.outside >= 0.005:
            notes.append(f"{100 * only.outside:.0f} % of the attention goes to the padding after the end of the clip.")
        return OverTime(kind, title, "", "share", times, borders(times, clip_seconds), values, "", 0.0, 0.0,
                        "0: no attention arrives there; 1: as much as if it were spread evenly.", tuple(notes))  # fmt: skip
    family = recognizer.card.family
    adds_up = only.adds_up_to if only is not None else ""
    total = only.total if only is not None and adds_up else 0.0
    rest = total - float(values.sum()) if adds_up else 0.0
    what = "score" if parts[0].adds_up_to == "score" else "logit"
    if adds_up == "score":
        notes.append("This model averages scores between 0 and 1 over time; the values are parts of that average.")
    if adds_up and only is not None:
        behind = abs(only.outside) > 1e-3 * max(1.0, abs(total))
        named = [REST[family]] if family in REST else []
        named += [f"the padding after the end of the clip ({only.outside:+.2f})"] if behind else []
        left = f" of {total:.2f}; the rest is {', and '.join(named)}" if named else ""
        notes.append(f"The moments add up to the class's {adds_up}: {float(values.sum()):.2f}{left}.")
    notes.append(READ_OUT)
    title = POOLINGS.get(family, "What each moment adds to the score (pooling weight times its own score)")
    return OverTime(kind, title, target, what, times, borders(times, clip_seconds), values, adds_up, total, rest,
                    "0: this moment adds nothing to the score; below 0 it speaks against the class.", tuple(notes))  # fmt: skip


def borders(times: np.ndarray, end: float) -> np.ndarray:
    """Borders ``[steps, 2]`` of steps whose centres are known: halfway to the neighbours, the ends at 0 and `end`."""
    inner = (times[:-1] + times[1:]) / 2
    edges = np.concatenate([[0.0], inner, [max(end, float(inner[-1]) if len(inner) else 0.0)]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _seconds_of(recognizer: Recognizer, centers: np.ndarray, n_frames: int) -> np.ndarray:
    """Centres in (fractions of) feature frames to seconds; the last frames' distance goes on behind the end."""
    times = recognizer.frontend.frame_times(max(n_frames, 2))
    inside = np.interp(centers, np.arange(len(times)), times)
    return inside + np.maximum(centers - (len(times) - 1), 0.0) * (times[-1] - times[-2])


def _cut(times: np.ndarray, values: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps within the clip, and the sum of those behind its end."""
    count = max(1, int((times < seconds).sum()))
    kept = np.clip(times[:count], 0.0, seconds)
    return kept, values[:count], float(values[count:].sum())


@torch.no_grad()
def _contributions(
    recognizer: Recognizer, samples: np.ndarray, target: str, seconds: float, frames: Tensor | None
) -> _Window:
    index = recognizer.target_index(target)
    network = recognizer.network
    with recognizer.lock:
        features = recognizer.features(samples)
        seen = None if frames is None else network.encode_frames(frames)
        # Only networks that look at the picture take it here.
        attend: Callable[..., tuple[Tensor, Tensor]] = network.time_attention
        given, centers = attend(features) if seen is None else attend(features, seen)
        logit = float((network(features) if seen is None else network(features, seen))[0, index])
    parts = given[0, index].double().cpu().numpy()
    times = _seconds_of(recognizer, centers.double().cpu().numpy(), features.shape[1])
    adds_up, total = "", 0.0
    near = 1e-3 * max(1.0, abs(logit))
    score = float(torch.sigmoid(torch.tensor(logit, dtype=torch.float64)))
    if recognizer.card.family in REST or abs(parts.sum() - logit) < near:
        adds_up, total = "logit", logit
    elif abs(parts.sum() - score) < 1e-4:
        adds_up, total = "score", float(parts.sum())
    times, values, outside = _cut(times, parts, seconds)
    return _Window(times, values, adds_up, total, outside)


def _rollout(recognizer: Recognizer, samples: np.ndarray, seconds: float) -> _Window:
    with recognizer.lock:
        features = recognizer.features(samples)
        shares, centers = attention_rollout(recognizer.network, features)
    columns = shares.sum(axis=0)
    times, values, outside = _cut(_seconds_of(recognizer, centers, features.shape[1]), columns, seconds)
    return _Window(times, values * len(columns), outside=outside)


def _joined(parts: list[_Window], starts: list[float], seconds: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Windows on one grid of the clip, overlaps averaged with weights that fall towards each window's ends."""
    first = parts[0].times
    step = float(np.median(np.diff(first))) if len(first) > 1 else seconds
    times = np.arange(float(first[0]), end, step)
    values, weights = np.zeros(len(times)), np.zeros(len(times))
    for part, start in zip(parts, starts, strict=True):
        inside = (times >= start - 1e-9) & (times < start + seconds)
        at = times[inside] - start
        weight = np.minimum(at, seconds - at) + 1e-6
        values[inside] += weight * np.interp(at, part.times, part.values)
        weights[inside] += weight
    return times, values / np.maximum(weights, 1e-12)


# --- class scores --------------------------------------------------------------------------------------------------

FILLED = {
    "zero": "zeros, as in its training (which is louder than silence)",
    "silence": "silence",
    "repeat": "its last frame repeated",
}


def padding_of(recognizer: Recognizer) -> str:
    """What the front end puts behind a short clip."""
    frontend = recognizer.frontend
    if isinstance(frontend, PlayItBackMel) and frontend.schedule.corrected:
        return "silence"
    return frontend.config.padding


def class_scores(
    recognizer: Recognizer, waveform: np.ndarray, target: str, video: VideoTrack | None = None, progress: Progress | None = None
) -> OverTime:  # fmt: skip
    """Probability of a class in stretch after stretch, each heard alone.

    Clips longer than the model's window are heard in whole windows, an eighth of one apart where that is not too many. All
    others are heard in stretches of a second (a quarter of clips under 4 s), which the front end pads as it pads short clips.
    """
    index, rate, window = recognizer.target_index(target), recognizer.sample_rate, recognizer.window_samples
    clip_seconds = max(len(waveform), 1) / rate
    whole = window is not None and len(waveform) > window
    if window is not None and whole:
        length = window
        hop = max(1, min(window // 2, max(window // 8, -(-(len(waveform) - window) // MOST_STRETCHES))))
    else:
        length = max(1, min(len(waveform), max(min(rate, len(waveform) // 4), rate // 20)))
        hop = max(1, length // 4, -(-(len(waveform) - length) // MOST_STRETCHES))
        length = max(length, hop)  # nothing may stay unheard
    starts = window_starts(len(waveform), length, hop)
    # The picture of a short clip stays the same: only the sound is cut into stretches.
    still = None if whole else recognizer.frames(video, 0.0, clip_seconds)
    scores: list[np.ndarray] = []
    with torch.no_grad(), recognizer.watching(still):
        for first in range(0, len(starts), 8):
            part = starts[first : first + 8]
            batch = np.stack([waveform[start : start + length] for start in part])
            seen = [recognizer.frames(video, start / rate, length / rate) for start in part] if whole else []
            frames = torch.cat([one for one in seen if one is not None]) if whole and recognizer.reads_video else None
            logits = recognizer(recognizer.features(batch), frames)
            scores.append(recognizer.probabilities(logits)[:, index].double().cpu().numpy())
            if progress is not None:
                progress(min(1.0, (first + 8) / len(starts)))
    times = np.array([(start + length / 2) / rate for start in starts])
    if whole:
        notes = [
            f"Each value is the answer to the {length / rate:.3g} s around it, which is what the model hears at once."
        ]
    else:
        filled = FILLED[padding_of(recognizer)]
        fill = "" if window is None else f" The rest of the {window / rate:.3g} s that the model reads is {filled}."
        notes = [
            f"Each value is the answer to {length / rate:.2g} s of sound, heard alone.{fill} A model that was trained on longer "
            "clips can be wrong about such short ones, and misses what only the whole clip tells."
        ]
        notes += [] if still is None else ["The picture stays that of the whole clip."]
    title = "Every moment heard alone: probability of the class"
    return OverTime("class_scores", title, target, "probability", times, borders(times, clip_seconds), np.concatenate(scores), "",
                    0.0, 0.0, "0: the class is not heard in this stretch.", tuple(notes))  # fmt: skip
