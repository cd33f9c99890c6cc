"""``analyze`` with a shipped model on shipped clips: results, round trip, pictures, report."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.checkpoint import load_recognizer
from models.clip import Clip, open_clip
from models.errors import EarwitnessError, SettingsError
from models.recognizer import Recognizer
from saliency.methods import METHODS
from workbench.analysis import Analysis, AnalysisSettings, analyze, analyze_with_sound, sound_of
from workbench.figures import data_url, frequency_axis, from_scale, player_data, row_frequencies, to_scale
from workbench.picture import picture_png
from workbench.report import report_html
from workbench.verdict import kept_band, kept_spans, percent, trust, verdict

CLIPS = Path(__file__).parents[2] / "assets" / "clips"


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return load_recognizer("resnet-esc10", "cpu")


@pytest.fixture(scope="module")
def dog() -> Clip:
    return open_clip(CLIPS / "dog_garden.flac")


@pytest.fixture(scope="module")
def analysis(model: Recognizer, dog: Clip) -> Analysis:
    return analyze(dog, model)


def events(name: str) -> list[dict]:
    return json.loads((CLIPS / f"{name}.json").read_text(encoding="utf-8"))["events"]


def test_the_dog_is_heard_where_it_barks(analysis: Analysis) -> None:
    assert analysis.target == "dog"
    spans = kept_spans(analysis)
    for event in events("dog_garden"):
        assert any(start < event["offset"] and end > event["onset"] for start, end in spans)
    for start, end in spans:
        assert any(start < e["offset"] + 0.1 and end > e["onset"] - 0.1 for e in events("dog_garden"))
    band = kept_band(analysis)
    assert band is not None and 200 < band[0] < band[1] < 8000


def test_the_checks_tell_what_matters(analysis: Analysis) -> None:
    checks = analysis.checks
    assert checks is not None
    assert checks.kept > 0.5 and checks.removed < 0.5 < checks.control
    assert len(trust(analysis)) >= 4


def test_saved_and_loaded_without_loss(analysis: Analysis, tmp_path: Path) -> None:
    analysis.save(tmp_path / "a.earwitness")
    loaded = Analysis.load(tmp_path / "a.earwitness")
    assert loaded.summary() == analysis.summary()
    assert loaded.settings == analysis.settings and loaded.clip == analysis.clip and loaded.model == analysis.model
    assert loaded.checks == analysis.checks and loaded.attribution is not None and analysis.attribution is not None
    for field in dataclasses.fields(analysis.attribution):
        mine, theirs = getattr(analysis.attribution, field.name), getattr(loaded.attribution, field.name)
        assert np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
    for field in dataclasses.fields(analysis.prediction):
        assert np.array_equal(getattr(analysis.prediction, field.name), getattr(loaded.prediction, field.name))
    assert loaded.mask is not None and analysis.mask is not None and np.array_equal(loaded.mask, analysis.mask)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04broken"])
def test_what_is_no_analysis_is_refused(data: bytes) -> None:
    with pytest.raises(EarwitnessError, match="not an analysis"):
        Analysis.load(data)


def test_an_analysis_that_unpacks_hugely_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.earwitness"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w", force_zip64=True) as f:
        for _ in range(1100):
            f.write(bytes(2**20))
    with pytest.raises(EarwitnessError, match="1 GiB"):
        Analysis.load(path)


def test_again_gives_the_same(analysis: Analysis, model: Recognizer, dog: Clip) -> None:
    again = analyze(dog, model)
    assert again.summary() == analysis.summary()
    assert again.attribution is not None and analysis.attribution is not None
    assert np.array_equal(again.attribution.values, analysis.attribution.values)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_splits_the_sound_exactly(method: str, model: Recognizer, dog: Clip) -> None:
    settings = AnalysisSettings(method=method, parameters={"steps": 8} if method == "integrated_gradients" else {})
    result, sound = analyze_with_sound(dog, model, settings)
    assert np.abs(sound.kept + sound.removed - dog.waveform).max() < 1e-5
    again = sound_of(dog, model, result)
    assert np.array_equal(again.kept, sound.kept)


def test_another_clip_is_refused(analysis: Analysis, model: Recognizer) -> None:
    with pytest.raises(SettingsError, match="not the one"):
        sound_of(open_clip(CLIPS / "rain_steady.flac"), model, analysis)


@pytest.mark.parametrize("samples", [1, 100, 8000, 240_000])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_odd_clips_are_analysed(samples: int, level: float, model: Recognizer) -> None:
    """1 sample, short, long, silent: no crash, an exact split, sentences."""
    noise = np.random.default_rng(0).standard_normal(samples).astype(np.float32) * level
    clip = Clip.from_array(noise, 16000)
    settings = AnalysisSettings(method="input_x_gradient")
    result, sound = analyze_with_sound(clip, model, settings)
    assert np.isfinite(result.prediction.scores).all()
    assert np.abs(sound.kept + sound.removed - clip.waveform).max() < 1e-5
    assert isinstance(verdict(result), str) and verdict(result)
    data = player_data(clip, result, sound, data_url)
    assert data.duration > 0 and len(data.tracks) == 3
    assert picture_png(clip, result).startswith(b"\x89PNG")


def test_partial_results_come_in_order(model: Recognizer, dog: Clip) -> None:
    seen: list[tuple[bool, bool]] = []
    stages: list[str] = []
    analyze_with_sound(
        dog, model, AnalysisSettings(method="gradient"),
        progress=lambda stage, share: stages.append(stage),
        partial=lambda a, sound: seen.append((a.attribution is not None, sound is not None)),
    )  # fmt: skip
    assert seen == [(False, False), (True, True)]
    assert list(dict.fromkeys(stages)) == ["Listening", "Explaining", "Splitting the sound", "Checking"]


def test_report_escapes_hostile_names_and_loads_nothing(model: Recognizer, dog: Clip) -> None:
    evil = "</script><img src=x onerror=alert(1)>.wav"
    clip = Clip.from_array(dog.waveform, dog.sample_rate, evil)
    result, sound = analyze_with_sound(clip, model, AnalysisSettings(method="gradient"))
    page = report_html(clip, result, sound)
    assert "<img src=x" not in page and "&lt;img" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert page.count("</script>") == 3
    assert "default-src 'none'" in page


@pytest.mark.parametrize("scale", ["mel", "log", "linear"])
def test_axes_go_both_ways(scale: str) -> None:
    hz = np.array([30.0, 440.0, 7999.0])
    np.testing.assert_allclose(from_scale(to_scale(hz, scale), scale), hz, rtol=1e-9)
    rows = row_frequencies(8000, scale)
    assert np.all(np.diff(rows) > 0) and rows[-1] < 8000
    ticks = frequency_axis(22050, scale).ticks
    assert len(ticks) >= 4 and all(0 <= t.position <= 1 for t in ticks)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (1.0, "100 %"),
        (0.9998, "over 99.9 %"),
        (0.995, "99.5 %"),
        (0.42, "42 %"),
        (0.004, "0.4 %"),
        (0.0, "under 0.1 %"),
    ],
)
def test_percent(score: float, words: str) -> None:
    assert percent(score) == words
