"""The page "Event graph" without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.models.tiny_families import tiny_recognizer
from tests.workbench import app_pages
from tests.workbench.app_pages import settle, text
from tests.workbench.graph_models import write_checkpoint
from workbench.examples import open_example
from workbench.graph_view.data import selection_of

FILM, SOUND = "video_rooster", "dog_garden"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder)
    return folder


@pytest.fixture(autouse=True)
def _with_graph(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_CHECKPOINTS", str(checkpoints))
    # Not what is tested here, and two dozen pictures of examples would be drawn first.
    monkeypatch.setattr("workbench.steps.example_tiles", lambda: None)


def open_page(clip: str = FILM, model: str = "tiny-graph", **address: str) -> AppTest:
    return app_pages.open_page("event_graph", clip=clip, model=model, **address)


def test_a_video_is_explained() -> None:
    app = settle(open_page())
    assert not app.exception and not app.error
    assert "linked most strongly" in text(app) and "Of all importance" in text(app)
    assert [b.label.split()[0] for b in app.button if b.key.startswith("bar_")] == ["class"] * 3
    assert len(app.get("download_button")) == 4
    assert "no moving picture" not in text(app)


def test_another_measure() -> None:
    app = settle(open_page())
    for measure in ("attention", "ablation"):
        app.selectbox(key="graph_measure").set_value(measure)
        settle(app.run(), lambda m=measure: app.session_state["last_graph"][1].explanation.measure == m)
        assert not app.exception and not app.error


def test_a_bar_asks_for_the_graph_of_that_class() -> None:
    app = settle(open_page())
    other = app.session_state["last_graph"][1].explanation.target
    app.button(key="bar_2").click()
    app = settle(app.run())
    target = app.session_state["last_graph"][1].explanation.target
    assert not app.exception and target != other and app.selectbox(key="target").value == target


def test_leaving_out_shows_before_and_after_and_can_be_undone() -> None:
    app = settle(open_page())
    assert "→" not in app.button(key="bar_0").label
    app.session_state["graph_out"][1].append(((0, 1, 2, 3), (2,)))
    app = settle(app.run(), lambda: "→" in app.button(key="bar_0").label)
    assert not app.exception and not app.error
    before, after = re.findall(r"\*\*(.*?)\*\*", app.button(key="bar_0").label)
    assert before != after
    assert "Left out: the sound at" in text(app) and "the link from sound" in text(app)
    app.session_state["graph_out"][1].clear()
    app = settle(app.run(), lambda: "→" not in app.button(key="bar_0").label)
    assert not app.exception and "→" not in app.button(key="bar_0").label


def test_the_deletion_curve_comes_on_demand_and_joins_the_downloads() -> None:
    app = settle(open_page())
    app.button(key="check_graph").click()
    app = settle(app.run(), lambda: len(app.get("download_button")) == 5)
    assert not app.exception and not app.error
    assert "times that of random orders" in text(app) and len(app.get("plotly_chart")) == 1


def test_a_long_clip_says_which_part_and_lets_one_choose() -> None:
    app = settle(open_page())
    choice = next(s for s in app.selectbox if s.label == "Part of the clip")
    assert len(choice.options) == 4 and "The graph shows" in text(app)
    assert "where the model is most sure" in text(app)
    choice.set_value((choice.value + 1) % len(choice.options))
    app = settle(app.run())
    assert not app.exception and "where the model is most sure" not in text(app)


def test_without_a_picture_it_says_so_and_offers_videos() -> None:
    app = settle(open_page(SOUND))
    assert not app.exception and not app.error
    assert "no moving picture: the model sees plain grey" in text(app) and "linked most strongly" in text(app)
    offered = [b for b in app.button if b.key.startswith("video_video_")]
    assert len(offered) > 5
    offered[0].click()
    app = settle(app.run())
    assert "no moving picture" not in text(app) and not app.exception


def test_a_model_without_a_graph_says_who_has_one_and_switches() -> None:
    app = open_page(SOUND, "resnet-esc10")
    assert not app.exception and not app.error
    assert "does not reason by a graph" in text(app) and "Tiny &lt;b&gt;graph" in text(app)
    app.button(key="take_graph_model").click()
    app = settle(app.run())
    assert app.selectbox(key="model").value == "event-graph-scenes" and "linked most strongly" in text(app)


def test_no_model_at_all_with_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from models import catalog

    monkeypatch.delenv("EARWITNESS_CHECKPOINTS")
    here = catalog.checkpoint_folders()
    plain = {name: folder for name, folder in here.items() if "graph" not in name}
    monkeypatch.setattr("workbench.steps.checkpoint_folders", lambda: plain)
    app = open_page(SOUND, "resnet-esc10")
    assert not app.exception and "no other model on this server does" in text(app)
    assert not [b for b in app.button if b.key == "take_graph_model"]


def test_a_failure_is_told_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import saliency.graph
    from models.errors import MediaError

    def fail(*_: object, **__: object) -> None:
        raise MediaError("The picture cannot be decoded.", "Take another video.")

    monkeypatch.setattr(saliency.graph, "encode_clip", fail)
    app = settle(open_page("video_waves"))
    assert not app.exception and "cannot be decoded" in app.error[0].value


@pytest.mark.parametrize(
    "value", [None, "x", {}, {"nodes": [], "edges": []}, {"nodes": [99], "edges": []}, {"nodes": [0], "edges": [-1]},
              {"nodes": ["<b>"], "edges": []}, {"nodes": 3, "edges": []}],
)  # fmt: skip
def test_nonsense_from_the_browser_leaves_nothing_out(value: object) -> None:
    from saliency.graph import explain_graph

    recognizer = tiny_recognizer("hetero_graph")
    clip = open_example(SOUND)
    explanation = explain_graph(recognizer, clip.at(recognizer.sample_rate)[:8000])
    assert selection_of(value, explanation) is None
    assert selection_of({"nodes": [8], "edges": [0]}, explanation) is not None
