"""The page "Inspect" as a person uses it, in a real Chromium with a real server."""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, TimeoutError, expect

from tests.browser.conftest import PATIENCE, ROOT, fits_its_width, rests, steady_box, until, visiting

CLIPS = ROOT / "assets" / "clips"
PLAYER = ".earwitness-player"
MARGIN = 3  # px


def ready(page: Page) -> None:
    """Wait until the explanation and the downloads are there, and nothing of what was there before."""
    rests(page, downloads=6)


def choose(page: Page, name: str, option: str) -> None:
    """Choose from a menu as a person does: bring it into view first (a menu closes when the page scrolls under it)."""
    menu, wanted = page.get_by_role("combobox", name=name), page.get_by_role("option", name=option)
    for _ in range(10):
        menu.scroll_into_view_if_needed()
        steady_box(menu)
        menu.click()
        try:
            wanted.click(timeout=10_000)
            return
        except TimeoutError:
            page.keyboard.press("Escape")  # a page that draws anew may close it, too
    raise AssertionError(f"the menu {name} does not stay open")


def mp4_of(source: Path, path: Path) -> Path:
    """An mp4 with the sound of a clip and a moving picture."""
    wave, rate = soundfile.read(source, dtype="float32")
    with av.open(path, "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=rate)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for number in range(125):
            image = np.full((240, 320, 3), 40, dtype=np.uint8)
            image[100:140, 2 * number : 2 * number + 30] = 220
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def player_time(page: Page) -> float:
    return float(page.locator("[data-current-time]").first.get_attribute("data-current-time") or 0)


# Seconds by the player and seconds by the clock on the wall, while it plays for a second and a half.
BOTH_CLOCKS = """async player => {
  const look = () => [Number(player.dataset.currentTime), performance.now() / 1000];
  const until = holds => new Promise(done => { const see = () => holds() ? done(look()) : setTimeout(see, 10); see(); });
  const first = await until(() => Number(player.dataset.currentTime) > 0.1);
  const last = await until(() => performance.now() / 1000 > first[1] + 1.5);
  return [last[0] - first[0], last[1] - first[1]];
}"""

# Notes at every frame where the player stands, and whether it is still the same one.
FOLLOW = """player => {
  globalThis.__places = [];
  const see = () => {
    const { y, height } = player.getBoundingClientRect();
    const place = `${player.isConnected} ${Math.round(y)} ${Math.round(height)}`;
    if (globalThis.__places.at(-1) !== place) globalThis.__places.push(place);
    requestAnimationFrame(see);
  };
  see();
}"""


def test_a_stranger_hears_an_explanation(visitor: Page) -> None:
    visitor.goto("/")
    ready(visitor)
    expect(visitor.locator(".ew-label").first).to_have_text(re.compile("^dog"))
    expect(visitor.locator(".ew-why")).to_contain_text("It went by")
    visitor.get_by_role("button", name="Play", exact=True).first.click()
    played, passed = visitor.locator("[data-current-time]").first.evaluate(BOTH_CLOCKS)
    assert 0.6 * passed < played < 1.4 * passed
    visitor.get_by_role("button", name="What it heard", exact=True).click()
    before = player_time(visitor)
    assert before > 1  # the same place of the other track
    assert until(visitor, lambda: player_time(visitor), lambda now: now > before, 10_000) > before
    expect(visitor.locator("[data-track]").first).to_have_attribute("data-track", "kept")


@pytest.mark.parametrize(
    ("kind", "example", "label"), [("wav", "rooster_farmyard", "rooster"), ("mp4", "baby_nursery", "crying baby")]
)
def test_an_upload_is_recognised(kind: str, example: str, label: str, visitor: Page, tmp_path: Path) -> None:
    source = CLIPS / f"{example}.flac"
    path, name = tmp_path / f"clip.{kind}", f"my <b>clip<i>.{kind}"
    if kind == "wav":
        soundfile.write(path, *soundfile.read(source))
    else:
        mp4_of(source, path)
    visitor.goto("/")
    ready(visitor)
    upload: Any = {"name": name, "mimeType": "audio/wav" if kind == "wav" else "video/mp4", "buffer": path.read_bytes()}
    visitor.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(upload)
    expect(visitor.locator(".ew-label").first).to_contain_text(label, timeout=PATIENCE)
    expect(visitor.locator(".ew-eyebrow").first).to_have_text(name)
    ready(visitor)
    expect(visitor).to_have_url(re.compile(r"clip=u-[0-9a-f]{16}"))
    # A reload is a new session of the server, but the same visitor.
    visitor.reload()
    expect(visitor.locator(".ew-label").first).to_contain_text(label, timeout=PATIENCE)


def test_method_and_class_change_without_jumps(visitor: Page) -> None:
    visitor.goto("/?clip=dog_and_helicopter")
    ready(visitor)
    player = visitor.locator(PLAYER).first
    before = steady_box(player)
    visitor.get_by_role("button", name="Loop", exact=True).click()
    visitor.get_by_role("button", name="Play", exact=True).first.click()
    expect(player).to_have_attribute("data-playing", "true")
    player.evaluate(FOLLOW)
    visitor.locator(".st-key-bar_1 button").click()
    expect(visitor).to_have_url(re.compile("class="), timeout=PATIENCE)
    expect(visitor.locator(".ew-label").first).to_contain_text("helicopter", timeout=PATIENCE)
    ready(visitor)
    after = steady_box(player)
    assert after == {name: pytest.approx(value, abs=MARGIN) for name, value in before.items()}
    # The player stands where it stood at every moment, and plays on.
    places = visitor.evaluate("globalThis.__places")
    assert len(places) == 1 and places[0].startswith("true"), places
    expect(player).to_have_attribute("data-playing", "true")
    choose(visitor, "Method", "Grad-CAM")
    expect(visitor).to_have_url(re.compile("method=grad_cam"), timeout=PATIENCE)
    expect(visitor.locator("dl.ew-card")).to_contain_text("Grad-CAM", timeout=PATIENCE)
    ready(visitor)


def test_the_link_shows_the_same_to_another_visitor(visitor: Page, chromium: Browser, server: str) -> None:
    visitor.goto("/?clip=rain_steady&method=gradient&class=sea_waves")
    ready(visitor)
    said, link = visitor.locator(".ew-verdict").inner_text(), visitor.url
    with visiting(chromium, [server]) as other:
        other.goto(link)
        ready(other)
        assert other.locator(".ew-verdict").inner_text() == said


def test_the_report_plays_without_a_server(visitor: Page, chromium: Browser, tmp_path: Path) -> None:
    visitor.goto("/?clip=sneeze_room")
    ready(visitor)
    files = {}
    for button in visitor.get_by_test_id("stDownloadButton").all():
        with visitor.expect_download() as waiting:
            button.get_by_role("button").click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        files[path.suffix if path.suffix != ".wav" else path.stem.rsplit("-", 1)[-1]] = path
    assert set(files) == {".html", "heard", "left", ".png", ".json", ".earwitness"}
    kept, _ = soundfile.read(files["heard"], dtype="float32")
    left, _ = soundfile.read(files["left"], dtype="float32")
    original, _ = soundfile.read(CLIPS / "sneeze_room.flac", dtype="float32")
    assert np.abs(kept + left - original).max() < 1e-5
    assert json.loads(files[".json"].read_text())["target"] == "sneezing"
    assert "analysis.json" in zipfile.ZipFile(files[".earwitness"]).namelist()
    with visiting(chromium, ["file:"], offline=True) as report:
        report.goto(files[".html"].as_uri())
        expect(report.locator("[data-ready=true]").first).to_be_attached(timeout=PATIENCE)
        report.get_by_role("button", name="Play", exact=True).first.click()
        assert until(report, lambda: player_time(report), lambda now: now > 0.3, 30_000) > 0.3
        report.set_viewport_size({"width": 390, "height": 844})
        fits_its_width(report, 390)


def test_a_bad_file_is_explained_in_its_place(visitor: Page, tmp_path: Path) -> None:
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear model, I am not a sound.")
    visitor.goto("/")
    ready(visitor)
    visitor.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(bad)
    expect(visitor.get_by_test_id("stAlert").first).to_be_visible(timeout=PATIENCE)
    expect(visitor.locator(".ew-label").first).to_have_text(re.compile("^dog"))
    assert "Traceback" not in visitor.content()


def test_phone_and_dark(chromium: Browser, server: str) -> None:
    """The first result needs no scrolling sideways and comes before the steps."""
    options: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "base_url": server, "color_scheme": "dark"}
    with visiting(chromium, [server], **options) as page:
        page.goto("/")
        ready(page)
        fits_its_width(page, 390)
        assert steady_box(page.locator(".ew-verdict"))["y"] < steady_box(page.locator(".st-key-steps"))["y"]
        background = page.locator("[data-testid=stApp]").evaluate("e => getComputedStyle(e).backgroundColor")
        assert sum(int(v) for v in re.findall(r"\d+", background)[:3]) < 150


def test_two_visitors_at_once_see_what_each_would_see_alone(chromium: Browser, server: str) -> None:
    """Hook-based methods on the same model at the same time."""
    links = [
        f"/?clip=waves_beach&method={m}&class={c}" for m in ("grad_cam", "occlusion") for c in ("rain", "sea_waves")
    ]
    with contextlib.ExitStack() as all_of_them:
        pages = [all_of_them.enter_context(visiting(chromium, [server], base_url=server)) for _ in links]
        for page, link in zip(pages, links, strict=True):
            page.goto(link, wait_until="commit")
        together = []
        for page in pages:
            ready(page)
            together.append(page.locator(".ew-verdict").inner_text())
    import workbench.analysis as core
    from models.checkpoint import load_recognizer
    from models.clip import open_clip
    from workbench.verdict import verdict as sentence

    model, clip = load_recognizer("resnet-esc10", "cpu"), open_clip(CLIPS / "waves_beach.flac")
    for link, seen in zip(links, together, strict=True):
        method, target = re.findall(r"method=(\w+)&class=(\w+)", link)[0]
        alone = core.analyze(clip, model, core.AnalysisSettings(method=method, target=target))
        assert sentence(alone) in seen.replace("\u00a0", " ")


def test_back_and_forward_show_what_was_there(visitor: Page) -> None:
    visitor.goto("/")
    ready(visitor)
    visitor.locator(".st-key-example_rooster_farmyard button").click()
    expect(visitor).to_have_url(re.compile("clip=rooster_farmyard"), timeout=PATIENCE)
    expect(visitor.locator(".ew-label").first).to_contain_text("rooster", timeout=PATIENCE)
    visitor.go_back()
    expect(visitor.locator(".ew-eyebrow").first).to_contain_text("A dog barks four times", timeout=PATIENCE)
    ready(visitor)
    expect(visitor).to_have_url(re.compile("clip=dog_garden"))
    visitor.go_forward()
    expect(visitor.locator(".ew-eyebrow").first).to_contain_text("A rooster crows", timeout=PATIENCE)


def test_a_drawn_region_is_told_in_words(visitor: Page) -> None:
    visitor.goto("/")
    ready(visitor)
    visitor.get_by_role("button", name="Select region").click()
    box = steady_box(visitor.locator(".ew-plot-spectrogram"))
    visitor.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    visitor.mouse.down()
    visitor.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.99 * box["height"], steps=5)
    visitor.mouse.up()
    told = visitor.locator(".ew-region")
    expect(told).to_contain_text("of what supports dog", timeout=PATIENCE)
    assert int(re.findall(r"holds (\d+)", told.inner_text())[0]) > 50
    visitor.keyboard.press("Escape")
    expect(told).to_contain_text("Drag on the picture", timeout=PATIENCE)


def test_the_picture_of_a_video_follows_the_sound(visitor: Page, tmp_path: Path) -> None:
    path = mp4_of(CLIPS / "sneeze_room.flac", tmp_path / "clip.mp4")
    visitor.goto("/")
    ready(visitor)
    visitor.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(path)
    expect(visitor.locator(".ew-eyebrow").first).to_have_text("clip.mp4", timeout=PATIENCE)
    video = visitor.locator("video")
    expect(video).to_be_visible(timeout=PATIENCE)
    ready(visitor)
    # The uploader is free for the next file.
    expect(visitor.get_by_test_id("stFileUploaderFile")).to_have_count(0)
    visitor.locator(".ew-plot-waveform").scroll_into_view_if_needed()
    plot = steady_box(visitor.locator(".ew-plot-waveform"))
    visitor.mouse.click(plot["x"] + plot["width"] / 2, plot["y"] + 10)
    time = until(visitor, lambda: video.evaluate("v => v.currentTime"), lambda time: abs(time - 2.5) < 0.1, 30_000)
    assert abs(time - 2.5) < 0.1


def test_a_choice_that_was_changed_does_not_hold_up_the_next(visitor: Page, tmp_path: Path) -> None:
    """And of a long clip only a part is explained, which the page says."""
    wave, rate = soundfile.read(CLIPS / "dog_garden.flac", dtype="float32")
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([wave] * 4 + [0 * wave] * 20), rate)
    visitor.goto("/?method=occlusion")
    ready(visitor)
    visitor.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(path)
    expect(visitor.locator(".ew-status").first).to_contain_text("Explaining", timeout=PATIENCE)
    choose(visitor, "Method", "Grad-CAM")
    expect(visitor.locator("dl.ew-card")).to_contain_text("Grad-CAM", timeout=PATIENCE)
    ready(visitor)
    expect(visitor.locator(".ew-note").first).to_contain_text(re.compile(r"Only 0:00 to 1:0\d\smin is explained"))


def test_the_keyboard_reaches_the_result_first(visitor: Page) -> None:
    visitor.goto("/")
    ready(visitor)
    skip = visitor.get_by_role("link", name="Skip to the result")
    skip.focus()
    visitor.keyboard.press("Enter")
    expect(visitor.locator("#ew-result")).to_be_focused()
    visitor.keyboard.press("Tab")
    expect(visitor.locator(".st-key-bar_0 button")).to_be_focused()


def test_blobs_need_their_address_and_serve_ranges(server: str, visitor: Page) -> None:
    visitor.goto("/")
    ready(visitor)
    answer = visitor.request.get("/earwitness/blobs/0000000000000000000000000000000000000000")
    assert answer.status == 404
    headers = visitor.request.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
