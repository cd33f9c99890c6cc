"""The verdict: an analysis as sentences, made from its data."""

from __future__ import annotations

import numpy as np

from workbench.analysis import Analysis


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


def kept_spans(analysis: Analysis, most: int = 4) -> list[tuple[float, float]]:
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
    """Time spans as a phrase."""
    if not spans:
        return ""
    if sum(e - s for s, e in spans) > 0.85 * duration:
        return "all through the clip"
    parts = [f"{s:.2f}-{e:.2f}" for s, e in spans]
    return (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}") + " s"


def verdict(analysis: Analysis) -> str:
    """What the model went by, as one sentence; empty while there is no explanation."""
    if analysis.mask is None:
        return ""
    if not analysis.mask.any():
        return "Nothing in this clip supports this class, so there is nothing to hear."
    band = kept_band(analysis)
    assert band is not None
    where = spans_in_words(kept_spans(analysis), analysis.clip.duration)
    verb = "What speaks against it lies at" if analysis.settings.keep.sign == "opposes" else "It went by"
    return f"{verb} {where}, {hertz(band[0])} to {hertz(band[1])}."


def trust(analysis: Analysis) -> list[str]:
    """What the checks say, as sentences."""
    sentences = []
    checks = analysis.checks
    if checks is not None:
        sentences.append(f"Hearing only what is kept, the model says {percent(checks.kept)}.")
        sentences.append(f"Without it, it says {percent(checks.removed)} (whole clip: {percent(checks.whole)}).")
        drop, control = checks.whole - checks.removed, checks.whole - checks.control
        if drop > control + 0.05:
            sentences.append(
                f"Removing as much elsewhere leaves {percent(checks.control)}: the marked part matters more than its size."
            )
        else:
            sentences.append(
                f"Removing as much elsewhere leaves {percent(checks.control)}: do not take this explanation for granted."
            )
    attribution = analysis.attribution
    if attribution is not None and attribution.completeness_gap is not None:
        sentences.append(f"The contributions add up to the score within {percent(attribution.completeness_gap)}.")
    return sentences
