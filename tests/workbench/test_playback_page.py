"""The page "Playback" without a browser, its command, report and picture."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from models.checkpoint import load_recognizer
from models.clip import Clip, open_clip
from saliency.listening import Listening, listen
from saliency.over_time import OverTime, borders
from tests.workbench import app_pages
from tests.workbench.app_pages import ROOT, settle, text
from tests.workbench.playback_models import LABELS, NAME, write_checkpoint
from workbench.figures import data_url
from workbench.playback_picture import listening_png
from workbench.playback_report import listening_report, playback_section
from workbench.playback_view import (
    as_json,
    change_figure,
    change_figure_html,
    clip_player,
    course_lane,
    headline,
    in_words,
    spread_labels,
    strongest,
    through_player,
)
from workbench.report_page import Media

CLIP = ROOT / "assets" / "clips" / "dog_garden.flac"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARWITNESS_CHECKPOINTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def clip() -> Clip:
    return open_clip(CLIP)


@pytest.fixture(scope="module")
def listening(checkpoints: Path, clip: Clip) -> Listening:
    return listen(clip, load_recognizer(NAME, "cpu"))


# --- the page --------------------------------------------------------------------------------------------------------


def open_page(**address: str) -> AppTest:
    return settle(app_pages.open_page("playback", **address))


def test_a_model_that_listens_again(checkpoints: Path) -> None:
    app = open_page(model=NAME, clip="dog_garden")
    assert not app.exception and not app.error
    said = text(app)
    assert "What each pass changed" in said and "Listen through:" in said and "listens again to what stood out" in said
    assert re.search("change its mind|changed its mind", said)
    assert "has not been measured" in said  # beside the picture, not only further down
    assert len(app.get("download_button")) == 4
    assert not any(button.key == "listens_again" for button in app.button)


def test_a_model_that_hears_once_offers_one_that_listens_again(checkpoints: Path) -> None:
    app = open_page(model="resnet-esc10", clip="dog_garden")
    assert not app.exception and not app.error
    said = text(app)
    assert "is read out at" in said and "hears a clip once" in said
    assert "What each pass changed" not in said and len(app.get("download_button")) == 3
    app.button(key="listens_again").click()
    # The old result stays until the new one is there.
    settle(app.run(), lambda: "What each pass changed" in text(app))
    assert not app.error and app.selectbox(key="model").value == "play-it-back-esc10"  # a shipped one comes first


def test_another_class(checkpoints: Path) -> None:
    app = open_page(model=NAME, clip="rain_steady", **{"class": "sea_waves"})
    assert not app.exception and not app.error
    assert app.selectbox(key="target").value == "sea_waves" and "sea waves" in text(app)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_lanes_share_the_clips_axis(clip: Clip, listening: Listening) -> None:
    data = clip_player(clip, listening, data_url)
    assert data.lanes is not None and len(data.lanes) == 4 and data.segments is None
    assert [lane.label.split(":")[0] for lane in data.lanes[:3]] == ["Pass 1", "Pass 2", "Pass 3"]
    playback = listening.playback
    assert playback is not None
    for lane, one in zip(data.lanes, playback.passes, strict=False):
        assert min(lane.times) >= 0 and max(lane.times) <= data.duration
        boxes = [[segment.start, segment.end] for segment in lane.segments or []]
        np.testing.assert_allclose(boxes, np.minimum(one.selected, data.duration), atol=1e-9)
        assert boxes
    assert {segment.kind for segment in data.lanes[0].segments or []} == {"kept"}


def test_the_listen_through_has_a_box_a_pass(clip: Clip, listening: Listening) -> None:
    found = through_player(clip, listening, data_url)
    assert found is not None
    data, through = found
    assert data.compact and [segment.label for segment in data.segments or []] == ["The clip", "Pass 2", "Pass 3"]
    assert (
        data.duration == pytest.approx(through.waveform.shape[1] / clip.sample_rate) and data.duration > clip.duration
    )


def course(values: list[float], unit: str = "logit", kind: str = "time_attention") -> OverTime:
    times = np.arange(len(values)) + 0.5
    return OverTime(
        kind, "Title", "dog", unit, times, borders(times, float(len(values))), np.array(values), "", 0, 0, "0", ()
    )


def test_the_strongest_moments() -> None:
    np.testing.assert_array_equal(strongest(course([0, 4, 3, 0, 1, 2, 0])), [[1, 3], [5, 6]])
    assert len(strongest(course([-1, -2, 0]))) == 0
    assert len(strongest(course([1, 1, 1, 1]))) == 0  # all of it is no moment
    assert len(strongest(course([1.0, 1.1, 0.9], "share"))) == 0  # little more than the even share
    assert len(strongest(course([0.0, 0.02, 0.0], "probability"))) == 0  # heard nowhere
    assert len(strongest(course([1, 0] * 20))) == 8
    assert in_words(course([0, 4, 3, 0])) == "Most of what speaks for 'dog' is read out at 1.00–3.00 s."
    assert in_words(course([-1, -2, 0])) == "No moment speaks for 'dog'."
    assert in_words(course([1, 1, 1, 1])) == "All of the clip speaks for 'dog' alike."
    assert in_words(course([1, 1, 1, 1], "share", "token_attention")) == "Attention flows to all of the clip alike."


def test_the_edges_of_a_lane() -> None:
    both = course_lane(course([-0.5, 2.0]), 2.0)
    assert (both.low, both.high, both.low_label, both.high_label) == (-0.5, 2.0, "−0.5", "+2")
    assert both.times == [0.0, 1.0, 2.0]  # borders of steps
    assert course_lane(course([0.0, 0.0]), 2.0).high > 0
    chance = course_lane(course([0.2, 0.9], "probability", "class_scores"), 2.0)
    assert (chance.low, chance.high, chance.high_label) == (0.0, 1.0, "100 %") and len(chance.times) == 2
    assert course_lane(course([0.9, 1.8], "share", "token_attention"), 2.0).mark == 1.0


@pytest.mark.parametrize(
    "values", [[0.1, 0.1, 0.1], [1.0, 1.0, 0.99, 0.98], [0.0, 0.5, 1.0], [0.0, 0.01, 0.97, 1.0, 1.0]]
)
def test_labels_do_not_cover_each_other(values: list[float]) -> None:
    heights = spread_labels(values, 0.1)
    assert np.all(np.diff(sorted(heights)) >= 0.1 - 1e-9) and max(heights) <= 1.0 + 1e-9
    assert np.argsort(heights, kind="stable").tolist() == np.argsort(values, kind="stable").tolist()


def test_names_in_the_chart_are_text(listening: Listening) -> None:
    assert listening.playback is not None
    figure = change_figure(listening.playback, dark=True)
    assert len(figure.data) == len(LABELS) and list(figure.data[0].x) == [0, 1, 2, 3]
    texts = " ".join(str(annotation.text) for annotation in figure.layout.annotations)
    for drawn in (texts, change_figure_html(listening.playback)):
        assert "<b>" not in drawn and "&lt;b&gt;" in drawn


# --- to take away ----------------------------------------------------------------------------------------------------


def test_the_report_plays_offline_and_holds_no_foreign_markup(clip: Clip, listening: Listening) -> None:
    hostile = Clip(clip.waveform, clip.sample_rate, "</script><img src=x>", clip.content_hash)
    page = listening_report(hostile, listening, "Tiny <i>")
    assert "<img" not in page and "<i>" not in page and "<b>rain" not in page
    assert page.count("EarwitnessPlayer.create(document") == 2
    assert not re.search(r'(?:src|href)="?https?:', page)
    section = playback_section(clip, listening, Media())
    assert (
        headline(listening).split(":")[0] in section and "All passes" in section and "has not been measured" in section
    )


def test_the_picture(clip: Clip, listening: Listening) -> None:
    image = np.asarray(Image.open(io.BytesIO(listening_png(clip, listening))).convert("RGB"))
    assert image.shape[1] == 1200 and image.shape[0] > 600
    assert ((image == (242, 183, 139)).all(axis=2)).sum() > 1000  # attention has its colour


def test_numbers_are_plain(listening: Listening) -> None:
    data = json.loads(json.dumps(as_json(listening), allow_nan=False))
    assert data["target"] == listening.target and len(data["playback"]["passes"]) == 3
    assert len(data["courses"][0]["times"]) == len(listening.courses[0].times)


def run(*arguments: Any) -> Any:
    from workbench.cli import app

    return CliRunner().invoke(app, ["playback", *map(str, arguments)])


def test_the_command(checkpoints: Path, tmp_path: Path, clip: Clip, listening: Listening) -> None:
    result = run(CLIP, "--model", NAME, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "report.html", "playback.json", "picture.png", "listen-through.wav", "pass-1.wav", "pass-2.wav", "pass-3.wav"
    }  # fmt: skip
    assert "Pass 2: hears" in result.output and listening.target in result.output
    whole, rate = soundfile.read(tmp_path / "out" / "pass-1.wav", always_2d=True)
    np.testing.assert_array_equal(whole.T.astype(np.float32), clip.waveform)
    again, _ = soundfile.read(tmp_path / "out" / "pass-2.wav", always_2d=True)
    assert listening.playback is not None
    replayed = listening.playback.passes[1].replayed
    assert len(again) / rate == pytest.approx(float((replayed[:, 1] - replayed[:, 0]).sum()), abs=0.01)


def test_the_command_for_a_model_that_hears_once(tmp_path: Path) -> None:
    result = run(CLIP, "--model", "resnet-esc10", "--output", tmp_path / "out", "--target", "rain")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "playback.json", "picture.png"}
    data = json.loads((tmp_path / "out" / "playback.json").read_text(encoding="utf-8"))
    assert data["target"] == "rain" and data["playback"] is None and data["hears_once"]
