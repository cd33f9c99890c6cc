"""The page "Playback" and its lanes in a real Chromium: one time axis, and a click that plays exactly its segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from models.checkpoint import load_recognizer
from models.clip import open_clip
from saliency.listening import Listening, listen
from tests.browser.conftest import PATIENCE, ROOT, fits_its_width, rests, serving, steady_box, visiting
from tests.workbench.playback_models import NAME, write_checkpoint
from workbench.playback_report import listening_report

CLIP = ROOT / "assets" / "clips" / "dog_garden.flac"

# Notes what is given to the loudspeaker: place in the sound and length, of every source that is started.
WATCH = """
globalThis.__played = [];
const begin = AudioBufferSourceNode.prototype.start, end = AudioBufferSourceNode.prototype.stop;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  this.__note = { from: offset, when, duration: this.buffer.duration };
  globalThis.__played.push(this.__note);
  return begin.apply(this, arguments);
};
AudioBufferSourceNode.prototype.stop = function (when) {
  if (this.__note && this.__note.length === undefined) this.__note.length = when - this.__note.when;
  return end.apply(this, arguments);
};
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def listening(checkpoints: Path) -> Listening:
    return listen(open_clip(CLIP), load_recognizer(checkpoints / NAME, "cpu"))


@pytest.fixture
def report(chromium: Browser, listening: Listening, tmp_path: Path) -> Iterator[Page]:
    """The report, opened from disk."""
    path = tmp_path / "report.html"
    path.write_text(listening_report(open_clip(CLIP), listening, "Tiny"), encoding="utf-8")
    with visiting(chromium, ["file:"], WATCH) as page:
        page.goto(path.as_uri())
        for name in ("over-time-player", "through-player"):
            expect(page.locator(f"#{name}")).to_have_attribute("data-ready", "true", timeout=PATIENCE)
        yield page


def played(page: Page, count: int = 1) -> dict[str, Any]:
    """What was started last, once so many sounds were started."""
    page.wait_for_function(f"globalThis.__played.length >= {count}")
    return page.evaluate("globalThis.__played[globalThis.__played.length - 1]")


def check_axis(root: Locator, duration: float, spans: list[list[float]], lane: int) -> None:
    """All plots have the same edges, and the segments of a lane lie where their times are."""
    picture = steady_box(root.locator(".ew-plot-spectrogram"))
    for plot in root.locator(".ew-plot-lane, .ew-plot-axis, .ew-plot-waveform").all():
        found = steady_box(plot)
        assert found["x"] == pytest.approx(picture["x"], abs=0.5)
        assert found["width"] == pytest.approx(picture["width"], abs=0.5)
    buttons = root.locator(f'[data-lane="{lane}"] .ew-segment')
    expect(buttons).to_have_count(len(spans))
    for number, (start, end) in enumerate(spans):
        found = steady_box(buttons.nth(number))
        assert found["x"] == pytest.approx(picture["x"] + picture["width"] * start / duration, abs=1)
        assert found["width"] == pytest.approx(max(10, picture["width"] * (end - start) / duration), abs=1)


def test_lanes_and_playhead_share_the_time_axis(report: Page, listening: Listening) -> None:
    assert listening.playback is not None
    root = report.locator("#over-time-player")
    expect(root.locator(".ew-lane")).to_have_count(4)
    for number, one in enumerate(listening.playback.passes):
        check_axis(root, 5.0, one.selected.tolist(), number)
    # A click on a lane seeks, as one on the spectrogram does.
    plot = root.locator(".ew-plot-lane").nth(1)
    width = steady_box(plot)["width"]
    plot.click(position={"x": width / 2, "y": 20})
    assert float(root.get_attribute("data-current-time") or 0) == pytest.approx(2.5, abs=0.02)
    # Zoomed in, segments go with the picture.
    root.get_by_role("button", name="Zoom in").click()
    start, end = (float(edge) for edge in (root.get_attribute("data-view") or "").split(","))
    assert end - start == pytest.approx(2.5, abs=0.01)
    picture = steady_box(root.locator(".ew-plot-spectrogram"))
    spans = [span for span in listening.playback.passes[0].selected.tolist() if start < span[0] and span[1] < end]
    visible = root.locator('[data-lane="0"] .ew-segment:visible')
    for number, span in enumerate(spans):
        assert steady_box(visible.nth(number))["width"] == pytest.approx(
            max(10, picture["width"] * (span[1] - span[0]) / (end - start)), abs=1
        )


def test_a_click_plays_exactly_its_segment(report: Page, listening: Listening) -> None:
    assert listening.playback is not None
    root = report.locator("#over-time-player")
    count = 0
    for lane, one in enumerate(listening.playback.passes[:2]):
        for number, (start, end) in enumerate(one.selected.tolist()):
            root.locator(f'[data-lane="{lane}"] .ew-segment').nth(number).click()
            count += 1
            note = played(report, count)
            assert note["from"] == pytest.approx(start, abs=1e-3)
            assert note["length"] == pytest.approx(min(end, 5.0) - start, abs=1e-3)
            expect(root).to_have_attribute("data-playing", "false", timeout=10_000)
            assert float(root.get_attribute("data-current-time") or 0) == pytest.approx(min(end, 5.0), abs=2e-3)


def test_the_listen_through_and_its_chapters(report: Page, listening: Listening) -> None:
    root = report.locator("#through-player")
    chapters = root.locator(".ew-segment")
    expect(chapters).to_have_count(3)
    expect(root.locator(".ew-zoom")).to_be_hidden()
    expect(root.locator(".ew-tracks")).to_be_hidden()
    root.get_by_role("button", name="Listen through").click()
    expect(root).to_have_attribute("data-playing", "true")
    whole = played(report)
    assert (
        whole["from"] == 0 and whole["length"] == pytest.approx(whole["duration"], abs=1e-3) and whole["duration"] > 5
    )
    chapters.nth(1).click()
    report.wait_for_function("globalThis.__played[globalThis.__played.length - 1].from > 5")
    assert listening.playback is not None
    replayed = listening.playback.passes[1].replayed
    assert played(report)["length"] == pytest.approx(float((replayed[:, 1] - replayed[:, 0]).sum()), abs=5e-3)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(report: Page, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 844})
    fits_its_width(report, width)


# --- the page itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(checkpoints: Path) -> Iterator[str]:
    """The workbench with the tiny model."""
    with serving(EARWITNESS_CHECKPOINTS=str(checkpoints)) as address:
        yield address


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_the_page(chromium: Browser, address: str, listening: Listening, size: tuple[int, int]) -> None:
    options = {"viewport": {"width": size[0], "height": size[1]}}
    with visiting(chromium, [address], WATCH, **options) as page:
        page.goto(f"{address}/playback?clip=dog_garden&model={NAME}")
        rests(page, downloads=4)
        expect(page.get_by_text("What each pass changed")).to_be_visible()
        root = page.locator(".earwitness-player").first
        assert listening.playback is not None
        spans = listening.playback.passes[0].selected.tolist()
        check_axis(root, 5.0, spans, 0)
        root.locator('[data-lane="0"] .ew-segment').first.click()
        assert played(page)["from"] == pytest.approx(spans[0][0], abs=1e-3)
        assert played(page)["length"] == pytest.approx(spans[0][1] - spans[0][0], abs=1e-3)
        fits_its_width(page, size[0])
