"""The verdict's spans, bands and sentences, from analyses made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.prediction import Prediction
from saliency.attribution import Attribution
from saliency.reconstruction import KeepSettings
from workbench.analysis import Analysis, AnalysisSettings, ClipInfo, ModelInfo
from workbench.checks import Checks
from workbench.verdict import clearly_lower, hertz, kept_band, kept_spans, percent, spans_in_words, trust, verdict

STEP = 0.01  # seconds a frame
FREQUENCIES = np.array([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0])


def analysis(
    mask: np.ndarray | None,
    values: np.ndarray | None = None,
    *,
    sign: str = "supports",
    checks: Checks | None = None,
    gap: float | None = None,
    duration: float = 2.0,
    **clip: Any,
) -> Analysis:
    frames = round(duration / STEP)
    shape = (frames, len(FREQUENCIES))
    values = np.ones(shape, dtype=np.float32) if values is None else values
    attribution = Attribution(
        values, (np.arange(frames) + 0.5) * STEP, FREQUENCIES, "dog", "gradient", completeness_gap=gap,
        explained=(0.0, duration),
    )  # fmt: skip
    scores = np.array([0.9, 0.1])
    return Analysis(
        ClipInfo("clip", "0", duration, 16000, 1, **clip), ModelInfo("m", "M", "f", "0", "single-label", 16000, STEP),
        AnalysisSettings(keep=KeepSettings(sign=sign)), "dog",
        Prediction(("dog", "cat"), scores, scores, np.array([[0.0, duration]]), scores[None]),
        None if mask is None else attribution, mask, checks=checks,
    )  # fmt: skip


def boxes(*parts: tuple[slice, slice], frames: int = 200) -> np.ndarray:
    mask = np.zeros((frames, len(FREQUENCIES)), dtype=np.float32)
    for times, bands in parts:
        mask[times, bands] = 1.0
    return mask


EVERY = slice(None)


def test_a_span_is_where_the_mask_is() -> None:
    # Frames 50 to 79: their centres are 0.505 s to 0.795 s, widened by a frame.
    (span,) = kept_spans(analysis(boxes((slice(50, 80), EVERY))))
    assert span == pytest.approx((0.495, 0.805))


def test_spans_stay_within_the_clip() -> None:
    assert kept_spans(analysis(boxes((EVERY, EVERY)))) == [pytest.approx((0.0, 2.0))]


@pytest.mark.parametrize(("gap", "spans"), [(1, 1), (14, 1), (16, 2), (60, 2)])
def test_short_gaps_are_bridged(gap: int, spans: int) -> None:
    mask = boxes((slice(20, 40), EVERY), (slice(40 + gap, 60 + gap), EVERY))
    assert len(kept_spans(analysis(mask))) == spans


def test_weak_stretches_are_left_out() -> None:
    mask = boxes((slice(20, 60), EVERY), (slice(100, 104), EVERY))
    values = np.ones_like(mask)
    assert len(kept_spans(analysis(mask, values))) == 2  # 4 of 44 frames are 9 %
    values[100:104] = 0.4
    assert len(kept_spans(analysis(mask, values))) == 1  # now under 5 %


def test_only_the_strongest_are_kept_in_order_of_time() -> None:
    parts = [
        (slice(start, start + length), EVERY) for start, length in ((0, 8), (40, 12), (80, 9), (120, 11), (160, 10))
    ]
    spans = kept_spans(analysis(boxes(*parts)), most=3)
    assert [round(start / STEP) for start, _ in spans] == [pytest.approx(f, abs=1) for f in (40, 120, 160)]


def test_what_opposes_does_not_count_unless_it_was_asked_for() -> None:
    mask = boxes((slice(20, 40), EVERY), (slice(100, 120), EVERY))
    values = np.ones_like(mask)
    values[100:120] = -1.0
    assert len(kept_spans(analysis(mask, values))) == 1
    assert len(kept_spans(analysis(mask, values, sign="opposes"))) == 2
    # Where nothing kept supports the class, the mask itself is what there is to tell.
    assert len(kept_spans(analysis(mask, -np.ones_like(mask)))) == 2


@pytest.mark.parametrize("bands", [(0, 6), (2, 4), (3, 3)], ids=str)
def test_the_band_is_where_the_mask_is(bands: tuple[int, int]) -> None:
    first, last = bands[0], max(bands[1] - 1, bands[0])
    mask = boxes((slice(50, 80), slice(first, last + 1)))
    assert kept_band(analysis(mask)) == (FREQUENCIES[first], FREQUENCIES[last])
    assert kept_band(analysis(mask, np.zeros_like(mask))) == (FREQUENCIES[first], FREQUENCIES[last])


def test_the_band_holds_the_middle_90_percent() -> None:
    mask, values = boxes((EVERY, EVERY)), np.ones((200, 6), dtype=np.float32)
    values[:, 0], values[:, 1:5], values[:, 5] = 0.04 * 4, 0.92, 0.04 * 4
    assert kept_band(analysis(mask, values)) == (200.0, 1600.0)
    values[:, 0], values[:, 5] = 0.4, -0.4  # shares of nearly 9 %
    assert kept_band(analysis(mask, values)) == (100.0, 3200.0)


@pytest.mark.parametrize("mask", [None, boxes()], ids=["none", "empty"])
def test_nothing_kept_nothing_told(mask: np.ndarray | None) -> None:
    found = analysis(mask)
    assert kept_spans(found) == [] and kept_band(found) is None
    assert ("Nothing in this clip" in verdict(found)) == (mask is not None)
    assert (verdict(found) == "") == (mask is None)


def test_the_verdict_names_time_and_band() -> None:
    found = verdict(analysis(boxes((slice(50, 80), slice(2, 4)))))
    assert found.startswith("It went by") and ("0.49" in found or "0.50" in found)
    assert "0.8" in found and "400 Hz" in found and "800 Hz" in found
    against = verdict(analysis(boxes((slice(50, 80), slice(2, 4))), sign="opposes"))
    assert against.startswith("What speaks against it") and against != found
    assert "all through the clip" in verdict(analysis(boxes((EVERY, EVERY))))


def test_spans_become_words() -> None:
    assert spans_in_words([], 5.0) == ""
    assert spans_in_words([(0.0, 4.9)], 5.0) == "all through the clip"
    one = spans_in_words([(1.0, 2.0)], 5.0)
    assert "1.00" in one and "2.00" in one and one.endswith(" s") and "and" not in one
    two = spans_in_words([(1.0, 1.5), (2.0, 2.5)], 5.0)
    assert " and " in two and all(t in two for t in ("1.00", "1.50", "2.00", "2.50"))
    many = spans_in_words([(n, n + 0.1) for n in range(6)], 60.0)
    assert "0.00" in many and "5.10" in many


@pytest.mark.parametrize(
    ("value", "words"),
    [(20.4, "20 Hz"), (99.4, "99 Hz"), (123.0, "120 Hz"), (440.0, "440 Hz"), (1000.0, "1.0 kHz"), (7951.0, "8.0 kHz")],
)
def test_hertz(value: float, words: str) -> None:
    assert hertz(value) == words


@pytest.mark.parametrize("score", np.linspace(0, 1, 41))
def test_percent_is_the_score_to_a_percent(score: float) -> None:
    words = percent(float(score))
    assert words.endswith(" %")
    if not words.startswith(("over", "under")):
        assert float(words.removesuffix(" %")) == pytest.approx(100 * score, abs=0.51)


@pytest.mark.parametrize(
    ("removed", "control", "trusted"), [(0.1, 0.9, True), (0.1, 0.16, True), (0.1, 0.14, False), (0.9, 0.1, False)]
)
def test_an_explanation_is_trusted_if_it_matters_more_than_its_size(
    removed: float, control: float, trusted: bool
) -> None:
    checks = Checks(whole=0.9, kept=0.8, removed=removed, control=control)
    sentences = trust(analysis(boxes((slice(5, 9), EVERY)), checks=checks))
    text = " ".join(sentences)
    assert "80 %" in sentences[0] and percent(removed) in sentences[1] and "90 %" in sentences[1]
    assert ("matters more than its size" in text) == trusted
    assert ("do not take this explanation for granted" in text) == (not trusted)


def test_completeness_is_told_where_it_is_known() -> None:
    mask = boxes((slice(5, 9), EVERY))
    assert trust(analysis(mask)) == []
    (sentence,) = trust(analysis(mask, gap=0.034))
    assert "add up" in sentence and "3 %" in sentence


@pytest.mark.parametrize(
    ("score", "than", "lower"),
    [
        (0.05, 0.9, True),
        (0.9, 0.9, False),
        (0.86, 0.9, False),
        (0.01, 0.04, True),
        (0.03, 0.04, False),
        (0.0, 1e-5, False),
    ],
)
def test_what_counts_as_clearly_lower(score: float, than: float, lower: bool) -> None:
    assert clearly_lower(score, than) == lower
