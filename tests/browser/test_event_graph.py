"""The event graph in a real browser: what is clicked is heard exactly, the threshold hides links, leaving out is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from models.clip import open_clip
from saliency.graph import explain_graph
from tests.browser.conftest import PATIENCE, rests, serving, until, visiting
from tests.models.media_files import with_pyav
from tests.models.tiny_families import sound
from tests.workbench.graph_models import NAME, write_checkpoint
from workbench.graph_view.report import graph_report

# Notes which part of a sound is scheduled, in seconds of the buffer.
WATCH = """
(() => {
  globalThis.__played = [];
  const { start, stop } = AudioBufferSourceNode.prototype;
  AudioBufferSourceNode.prototype.start = function (when, offset, ...rest) {
    this.__entry = { when, offset, length: null };
    globalThis.__played.push(this.__entry);
    return start.call(this, when, offset, ...rest);
  };
  AudioBufferSourceNode.prototype.stop = function (when) {
    if (this.__entry && this.__entry.length === null) this.__entry.length = when - this.__entry.when;
    return stop.call(this, when);
  };
})();
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def film() -> bytes:
    pictures = []
    for number in range(50):
        picture = np.full((96, 128, 3), 70, dtype=np.uint8)
        picture[30:60, 2 * number : 2 * number + 24] = (220, 120, 30)
        pictures.append(picture)
    return with_pyav("mp4", "aac", sound(1.9, 48000)[None], 48000, pictures=pictures, frame_rate=25)


@pytest.fixture(scope="module")
def graph_server(checkpoint: Path) -> Iterator[str]:
    with serving(EARWITNESS_CHECKPOINTS=str(checkpoint.parent)) as address:
        yield address


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    options = {"viewport": {"width": 1280, "height": 1400}}
    with visiting(chromium, ["http://127.0.0.1", "file:"], WATCH, **options) as page:
        yield page


def played(page: Page, number: int) -> list[tuple[float, float]]:
    """Start and length in s of what was played so far, once it is `number` pieces."""
    page.wait_for_function("n => globalThis.__played.length >= n", arg=number)
    pieces: list[dict[str, Any]] = page.evaluate("globalThis.__played")
    return [(piece["offset"], piece["length"]) for piece in pieces]


def test_hear_hide_and_leave_out(page: Page, graph_server: str, film: bytes) -> None:
    page.goto(f"{graph_server}/event_graph?clip=dog_garden&model={NAME}")
    rests(page, downloads=4)
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "film.mp4", "mimeType": "video/mp4", "buffer": film}
    )
    expect(page.locator(".ew-eyebrow").first).to_have_text("film.mp4", timeout=PATIENCE)
    rests(page, downloads=4)
    graph = page.locator(".ewg[data-ready=true]")
    expect(graph).to_have_count(1)
    nodes = page.locator(".ewg-node")
    expect(nodes).to_have_count(9)

    # A piece: exactly its part of the sound, and the video shows the same.
    name = nodes.nth(1).get_attribute("aria-label") or ""
    start, end = (float(t) for t in re.findall(r"[\d.]+", name)[:2])
    video = page.locator(".ewg video")
    until(page, lambda: video.evaluate("v => v.readyState"), lambda state: state >= 2)
    nodes.nth(1).click()
    offset, length = played(page, 1)[0]
    assert offset == pytest.approx(start, abs=0.006) and length == pytest.approx(end - start, abs=0.012)
    begin, finish = (float(t) for t in (graph.get_attribute("data-span") or "").split(","))
    assert offset == pytest.approx(begin, abs=1e-3) and length == pytest.approx(finish - begin, abs=1e-3)
    expect(graph).to_have_attribute("data-playing", "")
    shown = until(
        page, lambda: video.evaluate("v => v.currentTime"), lambda t: begin - 0.05 <= t <= finish + 0.2, 5_000
    )
    assert begin - 0.05 <= shown <= finish + 0.2

    # A link: both ends, one after the other.
    page.get_by_role("button", name="Play both ends").first.click()
    expect(graph).to_have_attribute("data-played", re.compile(r"^1 \d \d$"))
    assert len(played(page, 3)) == 3

    # The threshold hides links without asking the server.
    links = int(graph.get_attribute("data-links") or 0)
    slider = page.get_by_role("slider", name="Hide links weaker than")
    slider.evaluate("s => { s.value = 100; s.dispatchEvent(new Event('input')); }")
    few = int(graph.get_attribute("data-links") or 0)
    assert 1 <= few < links
    expect(page.locator(".ewg-edge")).to_have_count(few)
    slider.evaluate("s => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    many = int(graph.get_attribute("data-links") or 0)
    assert many >= links
    expect(page.locator(".ewg-edge")).to_have_count(many)

    # Leaving out changes the bars, putting back undoes it.
    nodes.nth(0).click(modifiers=["Shift"])
    page.get_by_role("button", name="Leave out").click()
    expect(page.locator(".st-key-bar_0 button")).to_contain_text("→")
    expect(page.get_by_text(re.compile("Left out: the sound at .*the sound at|Left out: .*link"))).to_be_visible()
    expect(page.locator(".ewg-node.ewg-out")).not_to_have_count(0)
    page.get_by_role("button", name="Put all back").click()
    expect(page.locator(".st-key-bar_0 button")).not_to_contain_text("→")
    expect(page.locator(".ewg-node.ewg-out")).to_have_count(0)


def test_a_report_plays_from_disk_by_keyboard_and_lays_out_freely(
    page: Page, checkpoint: Path, film: bytes, tmp_path: Path
) -> None:
    from models.checkpoint import load_recognizer

    recognizer = load_recognizer(str(checkpoint))
    clip = open_clip(film, name="<script>alert(1)</script>.mp4")
    explanation = explain_graph(recognizer, clip.at(recognizer.sample_rate), clip.video, measure="attention")
    (tmp_path / "report.html").write_text(graph_report(clip, explanation, None, recognizer.card), encoding="utf-8")
    page.goto((tmp_path / "report.html").as_uri())
    graph = page.locator(".ewg[data-ready=true]")
    expect(graph).to_have_count(1)
    page.locator('.ewg-node[data-node="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".ewg-node:focus")).to_have_attribute("aria-label", re.compile("^Picture"))
    page.keyboard.press("Enter")
    assert played(page, 1)[0][1] > 0.1
    on_axis = page.locator('.ewg-node[data-node="0"]').get_attribute("transform")
    page.get_by_role("radio", name="Free").check(force=True)
    expect(graph).to_have_attribute("data-layout", "free")
    expect(page.locator('.ewg-node[data-node="0"]')).not_to_have_attribute("transform", on_axis or "")
    expect(page.get_by_role("button", name="Leave out")).to_be_hidden()
