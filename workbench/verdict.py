"""The verdict: an analysis as sentences, made from its data."""

from __future__ import annotations

import numpy as np

from workbench.analysis import Analysis
from workbench.labels import spoken


def percent(score: float) -> str:
    """A score in 0..1 with sensible digits."""
    value = 100 * score
    if value >= 99.95:
        return "100 %" if value >= 99.995 else "over 99.9 %"
    if value >= 99:
        return f"{value:.1f} %"
    if value >= 1:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else "under 0.1 %"


def hertz(value: float) -> str:
    """A frequency with sensible digits."""
    if value >= 1000:
        return f"{value / 1000:.1f} kHz"
    return f"{round(value, -1):.0f} Hz" if value >= 100 else f"{value:.0f} Hz"


def clock(seconds: float, duration: float) -> str:
    """A time within a clip: seconds with two digits, minutes and seconds where the clip is longer than the player counts so."""
    if duration <= 90:
        return f"{seconds:.2f}"
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def kept_spans(analysis: Analysis, most: int = 12) -> list[tuple[float, float]]:
    """Stretches of time in seconds that hold what is kept, the strongest `most` of them in order of time.

    Gaps of under 0.15 s are bridged; stretches that hold under 5 % of what is kept are left out.
    """
    if analysis.mask is None or analysis.attribution is None or not analysis.mask.any():
        return []
    supports = (
        np.maximum(analysis.attribution.values, 0.0)
        if analysis.settings.keep.sign != "opposes"
        else np.abs(analysis.attribution.values)
    )
    weight = (analysis.mask * supports).sum(axis=1).astype(np.float64)
    if not weight.any():
        weight = analysis.mask.sum(axis=1).astype(np.float64)
    times = analysis.attribution.times
    step = analysis.model.frame_seconds
    active = np.flatnonzero(weight > 0.05 * weight.max())
    groups = np.split(active, np.flatnonzero(np.diff(active) * step > 0.15) + 1)
    strong = [g for g in groups if weight[g].sum() >= 0.05 * weight.sum()]
    strong = sorted(sorted(strong, key=lambda g: -weight[g].sum())[:most], key=lambda g: g[0])
    return [
        (max(0.0, float(times[g[0]]) - step), min(analysis.clip.duration, float(times[g[-1]]) + step)) for g in strong
    ]


def kept_band(analysis: Analysis) -> tuple[float, float] | None:
    """Band in Hz that holds the middle 90 % of what is kept."""
    if analysis.mask is None or analysis.attribution is None or not analysis.mask.any():
        return None
    weight = (analysis.mask * np.abs(analysis.attribution.values)).sum(axis=0).astype(np.float64)
    if not weight.any():
        weight = analysis.mask.sum(axis=0).astype(np.float64)
    share = np.cumsum(weight) / weight.sum()
    frequencies = analysis.attribution.frequencies
    low, high = int(np.searchsorted(share, 0.05)), int(np.searchsorted(share, 0.95))
    return float(frequencies[low]), float(frequencies[min(high, len(frequencies) - 1)])


def spans_in_words(spans: list[tuple[float, float]], duration: float) -> str:
    """Time spans as a phrase; more than three are counted instead of listed."""
    if not spans:
        return ""
    unit = " s" if duration <= 90 else " min"
    if sum(e - s for s, e in spans) > 0.85 * duration:
        return "all through the clip"
    if len(spans) > 3:
        what = "short moments" if sum(e - s for s, e in spans) < 0.5 * len(spans) else "stretches"
        return f"{len(spans)} {what} between {clock(spans[0][0], duration)} and {clock(spans[-1][1], duration)}{unit}"
    parts = [f"{clock(s, duration)}–{clock(e, duration)}" for s, e in spans]
    return (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}") + unit


def is_silent(analysis: Analysis) -> bool:
    """Whether the clip holds nothing but zeros."""
    return "The file is silent." in analysis.clip.notes


def verdict(analysis: Analysis) -> str:
    """What the model went by, as one sentence; empty while there is no explanation."""
    if analysis.mask is None:
        return ""
    if is_silent(analysis):
        return "There is nothing to hear in this clip: this is what the model says to silence."
    if not analysis.mask.any():
        return "Nothing in this clip supports this class, so there is nothing to hear."
    band = kept_band(analysis)
    assert band is not None
    spans = kept_spans(analysis)
    where = spans_in_words(spans, analysis.clip.duration)
    if where[:1].isdigit() and len(spans) <= 3:
        where = f"the sound at {where}"
    elif where.startswith("all"):
        where = f"sound {where}"
    verb = "What speaks against it is" if analysis.settings.keep.sign == "opposes" else "It went by"
    if analysis.attribution is not None and len(analysis.attribution.frequencies) == 1:
        return f"{verb} {where}."  # the model reads samples: it is explained over time only
    return f"{verb} {where}, from {hertz(band[0])} to {hertz(band[1])}."


def clearly_lower(score: float, than: float) -> bool:
    """Whether a score fell by a twentieth or more, or its odds to less than half.

    Odds, because a class at 4 % can only fall by 4 points, however much its sound matters.
    """
    if score <= than - 0.05:
        return True
    odds, before = (value / max(1.0 - value, 1e-9) for value in (score, than))
    return before > 1e-3 and odds < before / 2


def without_it(analysis: Analysis) -> str:
    """What the model says when the kept part is missing, as one sentence; empty before it was checked."""
    checks = analysis.checks
    if checks is None or analysis.mask is None or not analysis.mask.any() or is_silent(analysis):
        return ""
    if explained_part(analysis) is not None:
        return f"In that part of the clip it says {percent(checks.whole)}, and {percent(checks.removed)} without what is kept."
    if not clearly_lower(checks.removed, checks.whole):
        return f"Without that part it still says {percent(checks.removed)}, so that part alone does not decide."
    return f"Without that part: {percent(checks.removed)}."


def explained_part(analysis: Analysis) -> tuple[float, float] | None:
    """Start and end in seconds of what was explained, if that is not the whole clip."""
    if analysis.attribution is None:
        return None
    start, end = analysis.attribution.explained
    end = min(end, analysis.clip.duration)
    return (start, end) if end - start < 0.98 * analysis.clip.duration else None


def part_in_words(analysis: Analysis) -> str:
    """That only a part of a long clip was explained, as one sentence; empty if all of it was."""
    part = explained_part(analysis)
    if part is None:
        return ""
    duration = analysis.clip.duration
    unit = "s" if duration <= 90 else "min"
    why = " There the model is most sure of this class." if analysis.settings.explain is None else ""
    return f"Only {clock(part[0], duration)} to {clock(part[1], duration)} {unit} is explained and checked.{why}"


def region_in_words(analysis: Analysis, start: float, end: float, f_low: float, f_high: float) -> str:
    """How much of what supports and of what opposes the class lies in a box in time (s) and frequency (Hz)."""
    attribution = analysis.attribution
    if attribution is None:
        return ""
    inside = np.outer(
        (attribution.times >= start) & (attribution.times <= end),
        (attribution.frequencies >= f_low) & (attribution.frequencies <= f_high),
    )

    def share(values: np.ndarray) -> str:
        total = float(values.sum(dtype=np.float64))
        return percent(float((values * inside).sum(dtype=np.float64)) / total) if total > 0 else "nothing"

    label = spoken(analysis.target)
    duration = analysis.clip.duration
    unit = "s" if duration <= 90 else "min"
    return (
        f"The region {clock(start, duration)}–{clock(end, duration)} {unit}, {hertz(f_low)} to {hertz(f_high)}, holds "
        f"{share(np.maximum(attribution.values, 0))} of what supports {label} and "
        f"{share(np.maximum(-attribution.values, 0))} of what opposes it."
    )


def trust(analysis: Analysis) -> list[str]:
    """What the checks say, as sentences."""
    sentences = []
    checks = analysis.checks
    if checks is not None:
        sentences.append(f"Hearing only what is kept, the model says {percent(checks.kept)}.")
        whole = "whole clip" if explained_part(analysis) is None else "this part of the clip"
        sentences.append(f"Without it, it says {percent(checks.removed)} ({whole}: {percent(checks.whole)}).")
        if clearly_lower(checks.removed, checks.control):
            sentences.append(
                f"Removing as much elsewhere leaves {percent(checks.control)}: the marked part matters more than its size."
            )
        else:
            sentences.append(
                f"Removing as much elsewhere leaves {percent(checks.control)}: do not take this explanation for granted."
            )
    attribution = analysis.attribution
    if attribution is not None and attribution.completeness_gap is not None:
        gap = attribution.completeness_gap
        exactly = "to within 0.1 %" if gap < 0.001 else f"to within {percent(gap)}"
        sentences.append(f"The contributions add up to the score {exactly}.")
    return sentences
