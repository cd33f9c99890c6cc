"""What every registered family has to do: be described, built, saved, analysed, and show what it says it can."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import build_network, load_recognizer, save_checkpoint
from models.clip import Clip
from models.errors import EarwitnessError, SettingsError
from models.frontends import build_frontend
from models.recognizer import Recognizer
from models.registry import VIEWS, families
from saliency.attribution import attribute
from saliency.cells import LevelCells, SampleCells, cells_of
from saliency.methods import METHODS
from tests.models.tiny_families import CONFIGS, sound, tiny_recognizer
from workbench.analysis import Analysis, AnalysisSettings, analyze_with_sound

DOCS = Path(__file__).resolve().parents[2] / "docs" / "families"
SMALL: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 4}, "occlusion": {"frames": 64, "bands": 64}, "grad_cam": {"positive_only": False},
}  # fmt: skip
EXPLAINED = ("integrated_gradients", "input_x_gradient", "gradient", "grad_cam")


def test_every_family_has_a_tiny_configuration() -> None:
    assert set(CONFIGS) == set(families())


@pytest.mark.parametrize("name", families())
def test_it_is_described(name: str) -> None:
    cls = families()[name]
    info = cls.info
    assert info.name == name and info.title and info.published_key
    assert info.summary.endswith(".") and len(info.summary) < 200
    assert re.search(r"20\d\d", info.citation)
    assert info.modalities and set(info.modalities) <= {"audio", "video"} and "audio" in info.modalities
    assert info.views and info.views <= set(VIEWS)
    page = DOCS / f"{name}.md"
    assert page.is_file() or any(f"`{name}`" in other.read_text(encoding="utf-8") for other in DOCS.glob("*.md"))


@pytest.mark.parametrize("name", families())
def test_the_published_size_is_built_without_memory(name: str) -> None:
    cls = families()[name]
    with torch.device("meta"):
        network = cls(cls.Config())
    assert all(value.is_meta for value in network.state_dict().values())
    persistent = set(network.state_dict())
    assert {key for key, _ in network.named_buffers()} <= persistent
    frontend = build_frontend(cls.default_frontend(network.config))
    assert frontend.samples_for(1) >= 0 and np.all(np.diff(frontend.frequencies) > 0)


@pytest.mark.parametrize("name", families())
def test_it_is_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    recognizer = tiny_recognizer(name)
    card = save_checkpoint(tmp_path / "tiny", recognizer.network, recognizer.card)
    loaded = load_recognizer(tmp_path / "tiny", "cpu")
    assert loaded.card == card and build_network(card).state_dict().keys() == loaded.network.state_dict().keys()
    waveform = sound(sample_rate=recognizer.sample_rate)
    assert torch.equal(loaded.features(waveform), recognizer.features(waveform))
    torch.testing.assert_close(loaded(loaded.features(waveform)), recognizer(recognizer.features(waveform)))


ANALYSED = [name for name, cls in families().items() if "attribution" in cls.info.views]


@pytest.mark.parametrize("name", ANALYSED)
def test_it_is_analysed(name: str) -> None:
    recognizer = tiny_recognizer(name)
    clip = Clip.from_array(np.stack([sound(), 0.5 * sound()]), 16000)
    found: list[np.ndarray] = []
    for method in EXPLAINED:
        if METHODS[method].missing(recognizer):
            continue
        settings = AnalysisSettings(target="class 1", method=method, parameters=SMALL.get(method, {}))
        analysis, parts = analyze_with_sound(clip, recognizer, settings)
        assert analysis.prediction.scores.shape == (len(recognizer.labels),)
        assert np.isfinite(analysis.prediction.scores).all()
        attribution, mask = analysis.attribution, analysis.mask
        assert attribution is not None and mask is not None and analysis.checks is not None
        assert attribution.values.shape == mask.shape == (len(attribution.times), len(attribution.frequencies))
        assert np.all(np.diff(attribution.times) > 0) and np.all(np.diff(attribution.frequencies) > 0)
        # Cells cover the clip: what is after the model's window apart.
        assert attribution.times[0] < 0.05 and clip.duration - attribution.times[-1] < 0.05
        assert np.isfinite(attribution.values).all() and np.abs(attribution.values).max() > 0
        np.testing.assert_allclose(parts.kept + parts.removed, clip.waveform, atol=1e-6)
        assert 0.0 <= parts.energy_share <= 1.1
        found.append(attribution.values)
        restored = Analysis.load(analysis.to_zip())
        assert restored.attribution is not None
        np.testing.assert_array_equal(restored.attribution.values, attribution.values)
    assert len(found) >= 3


@pytest.mark.parametrize("name", ANALYSED)
def test_occlusion_needs_no_gradient(name: str) -> None:
    recognizer = tiny_recognizer(name)
    values = attribute(recognizer, sound(0.3, recognizer.sample_rate), "class 0", "occlusion", SMALL["occlusion"])
    assert np.isfinite(values.values).all() and values.passes < 300


@pytest.mark.parametrize("name", sorted(set(families()) - set(ANALYSED)))
def test_what_cannot_be_attributed_says_so(name: str) -> None:
    recognizer = tiny_recognizer(name)
    with pytest.raises(SettingsError, match="cannot be attributed"):
        attribute(recognizer, sound(), recognizer.labels[0])


def time_attention(recognizer: Recognizer, features: Tensor) -> None:
    shares, centers = recognizer.network.time_attention(features)
    assert shares.shape[:2] == (1, len(recognizer.labels)) and shares.shape[2] == len(centers) > 0
    assert torch.isfinite(shares).all() and (centers.diff() > 0).all()


def token_attention(recognizer: Recognizer, features: Tensor) -> None:
    maps = recognizer.network.token_attention(features)  # type: ignore[operator]
    assert maps.ndim == 4 and maps.shape[0] == 1 and (maps >= 0).all() and maps.max() > 0


def playback(recognizer: Recognizer, features: Tensor) -> None:
    shown = recognizer.network.playback(features)  # type: ignore[operator]
    assert len(shown.passes) >= 2


def graph(recognizer: Recognizer, features: Tensor) -> None:
    drawn = recognizer.network.graph(features, None, 0)  # type: ignore[operator]
    assert drawn.to_networkx().number_of_nodes() > 0


@pytest.mark.parametrize("name", families())
def test_features_and_head_make_the_logits(name: str) -> None:
    recognizer = tiny_recognizer(name)
    features = recognizer.features(sound(sample_rate=recognizer.sample_rate))
    hidden = recognizer.network.forward_features(features)
    torch.testing.assert_close(recognizer.network.forward_head(hidden), recognizer(features))


def attribution(recognizer: Recognizer, features: Tensor) -> None:
    attribute(recognizer, sound(sample_rate=recognizer.sample_rate), recognizer.labels[0], "gradient")


SHOW: dict[str, Callable[[Recognizer, Tensor], None]] = {
    "attribution": attribution, "time_attention": time_attention, "token_attention": token_attention,
    "playback": playback, "graph": graph,
}  # fmt: skip


@pytest.mark.parametrize("name", families())
def test_views_that_are_offered_are_those_that_work(name: str) -> None:
    recognizer = tiny_recognizer(name)
    features = recognizer.features(sound(sample_rate=recognizer.sample_rate))
    assert set(SHOW) == set(VIEWS)
    for view, show in SHOW.items():
        if recognizer.supports(view):
            show(recognizer, features)
        else:
            with pytest.raises((NotImplementedError, AttributeError, EarwitnessError)):
                show(recognizer, features)


# --- front ends whose features are not the cells of a map -----------------------------------------------------------


def test_samples_become_one_band_over_time() -> None:
    recognizer = tiny_recognizer("hetero_graph")
    waveform = sound(0.605, 8000)
    cells = cells_of(recognizer.frontend)
    assert isinstance(cells, SampleCells) and cells.hop_length == 80
    features = recognizer.features(waveform).requires_grad_(True)
    recognizer(features)[0, 1].backward()
    assert features.grad is not None
    gradient = features.grad[0, : len(waveform), 0].numpy()
    result = attribute(recognizer, waveform, "class 1", "gradient")
    expected = np.array([gradient[start : start + 80].sum() for start in range(0, len(waveform), 80)])
    np.testing.assert_allclose(result.values[:, 0], expected, rtol=1e-3, atol=1e-7)
    assert result.times[0] == pytest.approx(0.005) and result.times[-1] == pytest.approx(0.6025)


def test_a_model_of_samples_keeps_a_gain_over_time() -> None:
    recognizer = tiny_recognizer("hetero_graph")
    clip = Clip.from_array(np.stack([sound(1.0), -sound(1.0)]), 16000)
    analysis, parts = analyze_with_sound(clip, recognizer, AnalysisSettings(target="class 1", method="gradient"))
    heard = np.abs(clip.waveform) > 1e-4
    gains = parts.kept[heard] / clip.waveform[heard]
    assert gains.min() >= -1e-6 and gains.max() <= 1 + 1e-6 and gains.max() > 0.99
    # Both channels are faded alike, and no faster than from one cell to the next.
    both = heard[0] & heard[1]
    np.testing.assert_allclose(
        (parts.kept[0] / clip.waveform[0])[both], (parts.kept[1] / clip.waveform[1])[both], atol=1e-5
    )
    assert analysis.mask is not None and analysis.mask.shape[1] == 1


def test_levels_are_summed_on_the_clock_of_the_first() -> None:
    recognizer = tiny_recognizer("play_it_back")
    cells = cells_of(recognizer.frontend)
    assert isinstance(cells, LevelCells)
    waveform = sound(0.5)
    features = recognizer.features(waveform)
    marked = np.zeros(features.shape[1:])
    levels = cells.frontend.levels_of(features.shape[1])
    at = int(np.argmin(np.abs(levels[1].times - 0.3)))
    marked[levels[1].frames][at, 3] = 2.0
    marked[levels[0].frames][int(np.argmin(np.abs(levels[0].times - 0.3))), 3] = 1.0
    folded = cells.fold(marked, len(waveform))
    times = cells.times(len(waveform))
    assert folded.shape[0] <= len(times)
    row, band = np.unravel_index(folded.argmax(), folded.shape)
    assert band == 3 and times[row] == pytest.approx(0.3, abs=cells.seconds) and folded.sum() == pytest.approx(3.0)


def test_relevance_of_all_levels_is_kept() -> None:
    recognizer = tiny_recognizer("play_it_back")
    waveform = sound(0.5)[: recognizer.window_samples]
    result = attribute(recognizer, waveform, "class 1", "gradient")
    features = recognizer.features(waveform).requires_grad_(True)
    recognizer(features)[0, 1].backward()
    assert features.grad is not None
    heard = recognizer.frontend.frame_times(features.shape[1]) >= 0
    assert result.values.sum() == pytest.approx(features.grad[0].numpy()[heard].sum(), rel=1e-3, abs=1e-5)


def test_long_clips_of_every_front_end_kind() -> None:
    for name in ("hetero_graph", "play_it_back", "slowfast"):
        recognizer = tiny_recognizer(name)
        window = recognizer.window_samples
        assert window is not None
        rate = recognizer.sample_rate
        waveform = sound(2.3 * window / rate, rate)
        result = attribute(recognizer, waveform, "class 0", "gradient")
        assert result.explained == pytest.approx((0.0, len(waveform) / rate))
        assert len(result.values) == len(result.times) == len(cells_of(recognizer.frontend).times(len(waveform)))
        # Every third of the clip was looked at.
        for third in np.array_split(np.abs(result.values).sum(axis=1), 3):
            assert third.max() > 0, name
