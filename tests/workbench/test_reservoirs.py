"""A visitor's reservoir on the server, and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from models.clip import Clip
from models.errors import SettingsError
from tests.workbench import app_pages
from tests.workbench.app_pages import text, until
from workbench import reservoirs
from workbench.examples import example_clips


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_HOME", str(tmp_path))
    return tmp_path


def noise(seed: int, name: str = "noise") -> Clip:
    return Clip.from_array(0.1 * np.random.default_rng(seed).standard_normal(4000).astype(np.float32), 8000, name)


def test_clips_are_kept_until_it_is_full_and_classes_are_added() -> None:
    assert reservoirs.contents("a") is None
    reservoirs.start_anew("a", capacity=3)
    for seed, label in enumerate(["dog", "rain", "dog", "<b>bell</b>"]):
        told = reservoirs.offer("a", noise(seed, f"clip {seed}"), [label])
        assert label.replace("_", " ") in told.sentence
    shown = reservoirs.contents("a")
    assert shown is not None and shown.labels == ("dog", "rain", "<b>bell</b>") and len(shown.clips) == 3
    assert shown.observed.shape == shown.stored.shape == (4, 3)
    np.testing.assert_allclose(shown.observed[-1], [0.5, 0.25, 0.25])
    np.testing.assert_allclose(shown.stored[-1], shown.counts / shown.counts.sum())
    assert 0 < shown.used_bytes <= shown.max_bytes
    assert all(path.is_file() for _, _, path in shown.clips)
    assert reservoirs.contents("b") is None  # another visitor's is another one
    reservoirs.start_anew("a")
    fresh = reservoirs.contents("a")
    assert fresh is not None and not fresh.clips and len(fresh.observed) == 0


def test_it_follows_the_stream() -> None:
    reservoirs.start_anew("a", capacity=10)
    rng = np.random.default_rng(0)
    for seed in range(60):
        reservoirs.offer("a", noise(seed), [("dog", "rain")[int(rng.random() < 0.3)]])
    shown = reservoirs.contents("a")
    assert shown is not None
    assert 0.5 * np.abs(shown.stored[-1] - shown.observed[-1]).sum() <= 2 / (4 * 10) + 0.05


def test_what_cannot_be_offered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="without a class"):
        reservoirs.offer("a", noise(0), ["  "])
    monkeypatch.setattr(reservoirs, "MOST_CLASSES", 1)
    reservoirs.offer("a", noise(0), ["x" * 500])
    shown = reservoirs.contents("a")
    assert shown is not None and len(shown.labels[0]) == reservoirs.LONGEST_NAME
    with pytest.raises(SettingsError, match="holds 1 classes"):
        reservoirs.offer("a", noise(1), ["another"])


def open_page(part: str = "Simulation") -> AppTest:
    app = app_pages.open_page("reservoir", {"reservoir_part": part})
    return until(app, lambda: part != "Simulation" or len(app.get("plotly_chart")) >= 3)


def test_the_page_simulates() -> None:
    app = open_page()
    assert not app.exception and not app.error
    assert "After 100 clips" in text(app) and len(app.get("plotly_chart")) == 3


def test_the_page_takes_clips() -> None:
    app = open_page("Your clips")
    assert not app.exception and not app.error
    assert "Nothing has been heard yet" in text(app)
    first = next(iter(example_clips().values()))
    app.selectbox(key="reservoir_clip").select(first.id).run()
    assert app.multiselect(key=f"classes_{first.id}").value == list(first.labels)
    next(b for b in app.button if b.label == "Offer this clip").click().run()
    assert not app.exception and not app.error
    assert "is kept" in text(app) and "1 clip was heard" in text(app)


def test_a_clip_without_class_says_so_in_place() -> None:
    app = open_page("Your clips")
    chosen = app.selectbox(key="reservoir_clip").value
    app.multiselect(key=f"classes_{chosen}").set_value([]).run()
    next(b for b in app.button if b.label == "Offer this clip").click().run()
    assert not app.exception and any("without a class" in error.value for error in app.error)
