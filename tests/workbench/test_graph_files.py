"""Event graphs as files: the command, the report, the picture, and what the component is given."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import networkx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.card import Card
from models.clip import Clip, open_clip
from saliency.graph import MEASURES, GraphExplanation, explain_graph
from saliency.graph_ablation import DeletionCurve, deletion_curve
from tests.models.media_files import with_pyav
from tests.models.tiny_families import sound, tiny_recognizer
from tests.workbench.graph_models import write_checkpoint
from workbench.cli import app
from workbench.figures import data_url
from workbench.graph_view import standalone_assets
from workbench.graph_view.data import graph_view_data, window_spectrogram
from workbench.graph_view.picture import graph_png
from workbench.graph_view.report import graph_report, graph_section
from workbench.graph_view.words import curve_in_words, linked, missing_in_words, shares, strongest
from workbench.report_page import Media

HOSTILE = "</script><script>alert(1)</script><!--"


def film(seconds: float = 1.0, *, with_sound: bool = True, frames: int = 25) -> bytes:
    pictures = [np.full((48, 64, 3), 5 * number, dtype=np.uint8) for number in range(frames)]
    waveform = sound(seconds, 48000)[None] if with_sound else None
    return with_pyav("mp4", "aac" if with_sound else None, waveform, 48000, pictures=pictures)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return open_clip(film(), name=f"{HOSTILE}.mp4")


@pytest.fixture(scope="module")
def graphs(clip: Clip) -> dict[str, GraphExplanation]:
    recognizer = tiny_recognizer("hetero_graph")
    waveform = clip.at(recognizer.sample_rate)
    return {name: explain_graph(recognizer, waveform, clip.video, measure=name) for name in MEASURES}


def test_the_command_writes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_CHECKPOINTS", str(write_checkpoint(tmp_path / "models").parent))
    (tmp_path / "film.mp4").write_bytes(film(1.6, frames=40))
    out = tmp_path / "out"
    arguments = ["graph", str(tmp_path / "film.mp4"), "-m", "tiny-graph", "-o", str(out), "--draws", "3"]
    done = CliRunner().invoke(app, [*arguments, "--target", "class 2", "--measure", "ablation"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("class 2 ") and "times that of random orders (mean of 3)" in done.output
    assert {p.name for p in out.iterdir()} == {
        "report.html",
        "graph.graphml",
        "graph.json",
        "graph.png",
        "deletion.json",
    }
    assert networkx.read_graphml(out / "graph.graphml").graph["target"] == "class 2"
    assert json.loads((out / "deletion.json").read_text())["draws"] == 3
    assert json.loads((out / "graph.json").read_text())["graph"]["measure"] == "ablation"
    refused = CliRunner().invoke(app, [*arguments, "--measure", "loudness"])
    assert refused.exit_code != 0 and "no measure" in str(refused.exception)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (film(with_sound=False), "hears silence"),
        (film(frames=1), "plain grey"),
        (film(frames=2), "plain grey after it"),
    ],
    ids=["no sound", "one frame", "two frames"],
)
def test_what_a_file_lacks_is_said_and_the_rest_works(data: bytes, said: str) -> None:
    recognizer = tiny_recognizer("hetero_graph")
    clip = open_clip(data, require_audio=False)
    graph = explain_graph(recognizer, clip.at(recognizer.sample_rate), clip.video)
    assert said in missing_in_words(graph, silent=not clip.waveform.any())
    assert Image.open(io.BytesIO(graph_png(clip, graph))).width == 2400
    assert len(graph_view_data(clip, graph, data_url).nodes) == 9


@pytest.mark.parametrize("measure", MEASURES)
def test_the_component_gets_what_was_computed(clip: Clip, graphs: dict[str, GraphExplanation], measure: str) -> None:
    graph = graphs[measure]
    data = json.loads(json.dumps(graph_view_data(clip, graph, data_url, without_nodes=(1,)).as_json(), allow_nan=False))
    assert [n["kind"] for n in data["nodes"]] == ["audio"] * 5 + ["video"] * 4
    assert data["leftOut"] == {"nodes": [1], "edges": []} and data["signed"] == (measure != "attention")
    for edge, shown in enumerate(data["edges"]):
        expected = graph.edge_importance[edge]
        assert shown["importance"] is None if np.isnan(expected) else shown["importance"] == pytest.approx(expected)
    assert data["strip"]["count"] == 4 and data["video"].startswith("data:video/mp4")


def test_the_spectrogram_ends_where_the_clip_ends(clip: Clip, graphs: dict[str, GraphExplanation]) -> None:
    windows = np.array([[0.0, 2.0 * clip.duration]])
    image = window_spectrogram(clip, dataclasses.replace(graphs["gradient"], window=0, windows=windows))
    half = image.shape[1] // 2
    assert image[:, : half - 2].any(axis=0).all() and not image[:, half + 2 :].any()


def test_the_report_holds_nothing_hostile(clip: Clip, graphs: dict[str, GraphExplanation]) -> None:
    graph = graphs["gradient"]
    graph = dataclasses.replace(graph, labels=(HOSTILE, *graph.labels[1:]), target=HOSTILE)
    curve = deletion_curve(tiny_recognizer("hetero_graph"), graphs["gradient"], draws=2, steps=4)
    card = Card(
        name="m", title=HOSTILE, family="hetero_graph", config={}, frontend={}, labels=["a", "b"], task="single-label"
    )
    report = graph_report(clip, graph, curve, card)
    assert HOSTILE not in report and report.count("</script>") == 3 and "Content-Security-Policy" in report
    assert "Do the important links count?" in report and "Deletion curve" in report
    assert "Do the important links count?" not in graph_section(graph, clip, Media())


def test_the_assets_can_stand_in_a_page() -> None:
    script, style = standalone_assets()
    assert "</script" not in script and "<!--" not in script and "</style" not in style
    assert "EarwitnessGraph" in script and ".ewg" in style


def test_the_picture_is_print_ready(clip: Clip, graphs: dict[str, GraphExplanation]) -> None:
    image = Image.open(io.BytesIO(graph_png(clip, graphs["gradient"])))
    assert image.size == (2400, 1394) and round(image.info["dpi"][0]) == 300
    colours = np.asarray(image.convert("RGB")).astype(int)
    orange = (colours[..., 0] > 200) & (colours[..., 2] < 60) & (colours[..., 1] < 130)
    blue = (colours[..., 2] > 160) & (colours[..., 0] < 80)
    assert orange.sum() > 500 and blue.sum() > 500


def test_the_sentence_names_the_strongest_link_of_the_clip(graphs: dict[str, GraphExplanation]) -> None:
    graph = graphs["ablation"]
    edge = strongest(graph)
    assert edge is not None and graph.edge_importance[edge] == graph.edge_importance.max() > 0
    assert linked(graph).endswith("were linked most strongly.")
    assert sum(shares(graph).values()) == pytest.approx(1.0)
    against = dataclasses.replace(graph, edge_importance=-np.abs(graph.edge_importance))
    assert "No link supports it" in linked(against)
    nothing = dataclasses.replace(graph, edge_importance=0 * graph.edge_importance)
    assert linked(nothing).startswith("No link") and shares(nothing) == {}


@pytest.mark.parametrize(
    ("ratio", "values", "said"),
    [
        (0.5, (0.9, 0.2, 0.1), "faster, so the measure finds"), (1.0, (0.9, 0.88, 0.87), "hardly falls in any order"),
        (1.0, (0.9, 0.5, 0.1), "no faster than chance"), (1.4, (0.9, 0.9, 0.1), "slower than chance"),
    ],
)  # fmt: skip
def test_the_curve_is_judged_in_words(ratio: float, values: tuple[float, ...], said: str) -> None:
    line = np.array(values)
    curve = DeletionCurve("dog", "gradient", np.linspace(0, 1, 3), line, line, line, line, ratio, 20, 0)
    assert said in curve_in_words(curve) and f"{ratio:.2f} times" in curve_in_words(curve)
