"""Models that look at the picture: it reaches them, and where it is missing they say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.card import Card
from models.clip import Clip, open_clip
from models.errors import SettingsError
from models.frontends import build_frontend
from models.prediction import predict
from models.recognizer import Recognizer
from saliency.attribution import attribute
from tests.models.media_files import with_pyav
from tests.models.test_equiav import build
from tests.models.tiny_families import CONFIGS, sound, tiny_network
from workbench.analysis import NO_PICTURE, AnalysisSettings, analyze, analyze_with_sound
from workbench.verdict import verdict

QUICK = AnalysisSettings(method="input_x_gradient", target="class 1")


def equiav(mode: str) -> Recognizer:
    network = build(mode=mode, head_type="mlp")  # with a linear one, sound and picture only add up
    frontend = network.default_frontend(network.config).model_dump(mode="json")
    labels = [f"class {i}" for i in range(network.config.n_classes)]
    card = Card(name=f"tiny-{mode}", family="equiav", frontend=frontend, labels=labels, task="single-label")
    return Recognizer(network.requires_grad_(False), build_frontend(frontend), card)


def event_graph() -> Recognizer:
    network = tiny_network("hetero_graph")
    frontend = network.default_frontend(network.config).model_dump(mode="json")
    labels = [f"class {i}" for i in range(network.config.n_classes)]
    card = Card(
        name="tiny-graph", family="hetero_graph", config=CONFIGS["hetero_graph"], frontend=frontend, labels=labels,
        task="single-label",
    )  # fmt: skip
    return Recognizer(network, build_frontend(frontend), card)


LOOKING = {"multimodal": lambda: equiav("multimodal"), "hetero_graph": event_graph}


def video(tmp_path: Path, levels: tuple[int, ...], seconds: float = 1.2, name: str = "clip.mp4") -> Clip:
    """The same sound with pictures of these grey levels, one after the other, with some structure."""
    n = round(10 * seconds)
    pictures = [np.full((48, 64, 3), levels[i * len(levels) // n], np.uint8) for i in range(n)]
    for picture in pictures:
        picture[:24, :32] = 255 - picture[0, 0]
    waveform = np.stack([sound(seconds)] * 2)
    path = tmp_path / name
    path.write_bytes(with_pyav("mp4", "aac", waveform, 16000, pictures=pictures, frame_rate=10))
    return open_clip(path)


@pytest.mark.parametrize("kind", LOOKING)
def test_the_picture_decides_too(kind: str, tmp_path: Path) -> None:
    recognizer = LOOKING[kind]()
    dark, bright = (video(tmp_path, (level,), name=f"{level}.mp4") for level in (20, 230))
    assert np.array_equal(dark.waveform, bright.waveform)
    first, second = (analyze(clip, recognizer, QUICK) for clip in (dark, bright))
    assert np.abs(first.prediction.logits - second.prediction.logits).max() > 1e-4
    assert first.attribution is not None and second.attribution is not None
    assert np.abs(first.attribution.values - second.attribution.values).max() > 0
    assert first.checks is not None and NO_PICTURE not in first.clip.notes
    # What reads samples has no bands to speak of.
    assert ("Hz" in verdict(first)) == (kind == "multimodal")


@pytest.mark.parametrize("kind", LOOKING)
def test_without_a_picture_it_is_grey_and_said(kind: str) -> None:
    analysis = analyze(Clip.from_array(sound(1.2), 16000), LOOKING[kind](), QUICK)
    assert NO_PICTURE in analysis.clip.notes and analysis.attribution is not None


def test_every_window_sees_its_own_part(tmp_path: Path) -> None:
    recognizer = equiav("multimodal")
    clip = video(tmp_path, (20, 230), seconds=2.4)
    waveform = clip.at(recognizer.sample_rate)
    seconds = len(waveform) / recognizer.sample_rate
    prediction = predict(recognizer, waveform, video=clip.video)
    assert len(prediction.windows) > 2
    for (start, end), scores in zip(prediction.windows, prediction.window_scores, strict=True):
        part = waveform[round(start * 16000) : round(end * 16000)]
        alone = predict(recognizer, part, video=clip.video.excerpt(start, end) if clip.video else None)
        np.testing.assert_allclose(alone.scores, scores, atol=1e-5)
        assert 0 <= start < end <= seconds + 1e-6


def test_the_picture_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, seen = equiav("multimodal"), []
    clip = video(tmp_path, (90,), seconds=0.6)
    encode = type(recognizer.network).encode_frames

    def counting(network: object, frames: object) -> object:
        seen.append(1)
        return encode(network, frames)  # type: ignore[arg-type]

    monkeypatch.setattr(type(recognizer.network), "encode_frames", counting)
    attribute(recognizer, clip.at(16000), "class 1", "integrated_gradients", {"steps": 8}, video=clip.video)
    assert len(seen) == 1 and recognizer._picture is None


def test_one_that_only_looks_predicts_and_does_not_pretend(tmp_path: Path) -> None:
    recognizer = equiav("video_only")
    analysis, parts = analyze_with_sound(video(tmp_path, (20, 230)), recognizer, AnalysisSettings())
    assert parts is None and analysis.attribution is None and np.isclose(analysis.prediction.scores.sum(), 1)
    with pytest.raises(SettingsError, match="picture alone"):
        analyze(Clip.from_array(sound(), 16000), recognizer, AnalysisSettings())
