"""The sentences that tell what an analysis found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.prediction import Prediction
from saliency.attribution import Attribution
from workbench.analysis import Analysis, AnalysisSettings, ClipInfo, ModelInfo
from workbench.checks import Checks
from workbench.verdict import part_in_words, region_in_words, spans_in_words, verdict, without_it


def analysis_of(
    duration: float, kept: list[tuple[float, float]], explained: tuple[float, float] | None = None
) -> Analysis:
    """An analysis with frames of 0.05 s and four bands, relevance 1 where something is kept and -1 in the top band."""
    times = np.arange(0.025, duration, 0.05)
    frequencies = np.array([100.0, 500.0, 1500.0, 6000.0])
    mask = np.zeros((len(times), 4), dtype=np.float32)
    for start, end in kept:
        mask[(times >= start) & (times <= end), :2] = 1
    values = mask.copy()
    values[:, 3] = -1
    scores = np.array([0.9, 0.1], dtype=np.float32)
    prediction = Prediction(("dog_bark", "rain"), scores, scores, np.array([[0.0, duration]]), scores[None])
    attribution = Attribution(
        values, times, frequencies, "dog_bark", "gradient", explained=explained or (0.0, duration)
    )
    return Analysis(
        ClipInfo("a", "0", duration, 16000, 1), ModelInfo("m", "M", "f", "0", "single-label", 16000, 0.05),
        AnalysisSettings(), "dog_bark", prediction, attribution, mask, 0.5, Checks(0.9, 0.8, 0.1, 0.9),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spans", "duration", "words"),
    [
        ([], 5.0, ""),
        ([(1.0, 2.0)], 5.0, "1.00–2.00 s"),
        ([(1.0, 2.0), (3.0, 3.5)], 5.0, "1.00–2.00 and 3.00–3.50 s"),
        ([(0.1, 4.9)], 5.0, "all through the clip"),
        ([(i, i + 0.2) for i in range(4)], 5.0, "4 short moments between 0.00 and 3.20 s"),
        ([(i, i + 6) for i in range(0, 40, 10)], 60.0, "4 stretches between 0.00 and 36.00 s"),
        ([(386.0, 387.2)], 600.0, "6:26–6:27 min"),
    ],
)
def test_spans_are_listed_or_counted(spans: list[tuple[float, float]], duration: float, words: str) -> None:
    assert spans_in_words(spans, duration) == words


def test_verdict_names_time_and_band() -> None:
    assert verdict(analysis_of(5.0, [(1.0, 2.0)])).startswith("It went by the sound at 0.9")
    assert verdict(analysis_of(8.0, [(i, i + 0.3) for i in (1, 2, 4, 6)])).startswith(
        "It went by 4 short moments between"
    )
    assert verdict(analysis_of(5.0, [(0.0, 5.0)])).startswith("It went by sound all through the clip, from 100 Hz to")


def test_silence_is_not_explained_away() -> None:
    analysis = analysis_of(5.0, [(1.0, 2.0)])
    silent = dataclasses.replace(analysis, clip=dataclasses.replace(analysis.clip, notes=("The file is silent.",)))
    assert verdict(silent).startswith("There is nothing to hear") and not without_it(silent)


def test_the_drop_is_told_only_where_there_is_one() -> None:
    analysis = analysis_of(5.0, [(1.0, 2.0)])
    assert without_it(analysis) == "Without that part: 10 %."
    assert "still says 90 %" in without_it(dataclasses.replace(analysis, checks=Checks(0.9, 0.9, 0.9, 0.9)))


def test_a_part_of_a_long_clip_is_named() -> None:
    assert part_in_words(analysis_of(5.0, [(1.0, 2.0)])) == ""
    part = analysis_of(300.0, [(70.0, 71.0)], (60.0, 121.0))
    assert part_in_words(part).startswith("Only 1:00 to 2:01 min is explained")
    assert "In that part of the clip it says 90 %" in without_it(part)


def test_a_region_holds_its_share() -> None:
    analysis = analysis_of(4.0, [(1.0, 2.0), (3.0, 4.0)])
    told = region_in_words(analysis, 0.0, 2.5, 50.0, 1000.0)
    assert "holds 50 % of what supports dog bark and under 0.1 % of what opposes it" in told
    assert "holds under 0.1 % of what supports" in region_in_words(analysis, 0.0, 0.5, 50.0, 8000.0)
