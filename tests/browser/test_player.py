"""The player in a real browser: its clock, its controls, its answers to Python, and that it works from a file."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import PATIENCE, ROOT, fits_its_width, serving, steady_box, until, visiting
from workbench.player import standalone_assets

SAMPLE_RATE = 16000
DURATION = 5.0

# Keeps every context that the page makes, and lets a test listen to what goes to the loudspeaker.
WATCH_AUDIO = """
(() => {
  const Native = globalThis.AudioContext;
  globalThis.__contexts = [];
  const recorder = URL.createObjectURL(new Blob([`registerProcessor("recorder", class extends AudioWorkletProcessor {
    process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; } });`],
    { type: "text/javascript" }));
  globalThis.AudioContext = class extends Native {
    constructor(...options) {
      super(...options);
      globalThis.__contexts.push(this);
      this.__collector = this.createGain();
      this.__blocks = [];
      if (this.audioWorklet && location.protocol !== 'file:') this.audioWorklet.addModule(recorder).then(() => {
        const node = new AudioWorkletNode(this, "recorder");
        node.port.onmessage = (event) => this.__blocks.push(event.data);
        this.__collector.connect(node);
      });
    }
  };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target === this.context.destination && this.context.__collector) connect.call(this, this.context.__collector);
    return connect.call(this, target, ...rest);
  };
})();
"""

# Notes every start and stop, with the place in the sound: a short piece may be over before a test looks.
ACCOUNT = """player => {
  globalThis.__account = [];
  let last = player.dataset.playing;
  new MutationObserver(() => {
    if (player.dataset.playing === last) return;
    last = player.dataset.playing;
    globalThis.__account.push([last, Number(player.dataset.currentTime)]);
  }).observe(player, { attributeFilter: ["data-playing"] });
}"""

APP = """
import json, os, pathlib
import streamlit as st
from streamlit import runtime
from workbench.player import player

st.set_page_config(page_title="Player", layout="wide")
folder = pathlib.Path(os.environ["PLAYER_DEMO"])
st.session_state.run = st.session_state.get("run", 0) + 1

def media(name):
    kind = "audio/wav" if name.endswith(".wav") else "image/png"
    return runtime.get_instance().media_file_mgr.add((folder / name).read_bytes(), kind, "demo/" + name)

def links(value):
    if isinstance(value, dict):
        return {k: links(v) for k, v in value.items()}
    if isinstance(value, list):
        return [links(v) for v in value]
    return media(value[5:]) if isinstance(value, str) and value.startswith("file:") else value

def seen(selection):
    st.session_state.seen = "cleared" if selection is None else "box"

data = json.loads((folder / "demo.json").read_text())
columns = st.columns(4)
if columns[0].checkbox("other overlay"):
    data["overlay"]["supportsUrl"] = data["overlay"]["opposesUrl"]
if columns[1].checkbox("other clip"):
    data |= {"clipId": "other", "duration": 2.0, "segments": []}
    data["tracks"] = [{"id": "original", "label": "Original", "url": "file:short.wav"}]
    data["spectrogram"] |= {"end": 2.0}
if columns[2].checkbox("missing track"):
    data["tracks"][1]["url"] = "/media/nothing.wav"
if not columns[3].checkbox("hide"):
    state = player(links(data), key="demo", on_selection=seen)
    st.text(f"track={state.track}")
    if state.selection:
        st.text(f"box={state.selection.start:.2f},{state.selection.end:.2f},"
                f"{state.selection.f_low:.0f},{state.selection.f_high:.0f}")
    if state.segment:
        st.text(f"segment={state.segment.index}")
st.text(f"seen={st.session_state.get('seen')}")
st.text(f"run={st.session_state.run}")
"""


# --- a clip: three barks over a hum, a chirp, and a band that "the model heard"


def wav_bytes(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def png_bytes(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(values * 255, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def mel(hz: np.ndarray | float) -> Any:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def demo_sounds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    t = np.arange(int(DURATION * SAMPLE_RATE)) / SAMPLE_RATE
    barks = np.zeros_like(t)
    for onset, pitch in [(0.45, 520), (0.95, 480), (3.3, 560)]:
        local = np.clip(t - onset, 0, None)
        envelope = (1 - np.exp(-local * 90)) * np.exp(-local * 11) * (t >= onset)
        tone = sum(np.sin(2 * np.pi * k * pitch * (local - 0.35 * local**2)) / k for k in range(1, 8))
        barks += 0.35 * envelope * (tone + 0.3 * generator.standard_normal(t.size))
    hum = 0.03 * np.sin(2 * np.pi * 120 * t) + 0.015 * np.sin(2 * np.pi * 240 * t)
    chirp = 0.05 * np.sin(2 * np.pi * (2500 * (t - 1.8) + 900 * (t - 1.8) ** 2)) * ((t > 1.8) & (t < 2.9))
    removed = hum + chirp + 0.0015 * generator.standard_normal(t.size)
    return {"original": barks + removed, "kept": barks, "removed": removed}


def write_demo(folder: Path) -> dict[str, Any]:
    """Sound and picture files in `folder`, and the data with `file:name` for each of them."""
    sounds = demo_sounds()
    for name, samples in sounds.items():
        (folder / f"{name}.wav").write_bytes(wav_bytes(samples))
    (folder / "short.wav").write_bytes(wav_bytes(sounds["original"][: 2 * SAMPLE_RATE]))

    size, hop = 1024, 160

    def power(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, size // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
        bins = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
        edges = 700 * (10 ** (np.linspace(0, mel(8000), 130) / 2595) - 1)
        hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        rise = (hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - hz[None]) / (edges[2:] - edges[1:-1])[:, None]
        filters = np.clip(np.minimum(rise, fall), 0, None) + 1e-6
        return (filters / filters.sum(1, keepdims=True)) @ bins.T

    whole, kept, removed = power(sounds["original"]), power(sounds["kept"]), power(sounds["removed"])
    level = 10 * np.log10(whole + 1e-9)
    level -= level.max()
    (folder / "spectrogram.png").write_bytes(png_bytes((np.clip(level, -80, 0)[::-1] + 80) / 80))
    share = np.clip((10 * np.log10(kept / kept.max() + 1e-9) + 42) / 34, 0, 1)
    for axis, width in ((0, 7), (1, 9)):  # a model does not see single cells, either
        window = np.hanning(width + 2)
        share = np.apply_along_axis(np.convolve, axis, share, window / window.sum(), "same")
    share = share / share.max()
    against = np.clip((10 * np.log10(removed / removed.max() + 1e-9) + 18) / 22, 0, 1) * (whole > 3 * kept)
    against[:40] = 0
    (folder / "supports.png").write_bytes(png_bytes(share[::-1]))
    (folder / "opposes.png").write_bytes(png_bytes(against[::-1]))
    (folder / "kept.png").write_bytes(png_bytes(np.where(share > 0.35, 1.0, 0.0)[::-1]))

    peaks = sounds["original"].reshape(500, -1)
    times = np.linspace(0, DURATION, 51)
    starts = [int(time * SAMPLE_RATE) for time in times]
    loud = np.array([np.abs(sounds["kept"][max(0, at - 2000) : at + 2000]).max() for at in starts])
    ticks = [{"position": float(mel(hz) / mel(8000)), "hz": hz} for hz in (0, 250, 500, 1000, 2000, 4000, 8000)]
    data: dict[str, Any] = {
        "clipId": "demo",
        "title": "dog.wav",
        "duration": DURATION,
        "tracks": [
            {"id": "original", "label": "Original", "url": "file:original.wav"},
            {"id": "kept", "label": "What it heard", "url": "file:kept.wav"},
            {"id": "removed", "label": "What is left", "url": "file:removed.wav", "gainDb": 18},
        ],
        "spectrogram": {"url": "file:spectrogram.png", "start": 0, "end": DURATION, "dbMin": -80, "dbMax": 0},
        "overlay": {
            "supportsUrl": "file:supports.png",
            "opposesUrl": "file:opposes.png",
            "keptOutline": "file:kept.png",
        },
        "frequencyAxis": {"scale": "mel", "ticks": ticks, "fMin": 0, "fMax": 8000},
        "segments": [
            {"start": 0.42, "end": 0.8, "label": "1 bark", "kind": "kept"},
            {"start": 0.92, "end": 1.3, "label": "2 bark", "kind": "kept"},
            {"start": 1.8, "end": 2.9, "label": "chirp", "kind": "opposes"},
            {"start": 3.27, "end": 3.65, "label": "3 bark", "kind": "kept"},
        ],
        "curve": {
            "label": "Probability of “dog”",
            "times": times.tolist(),
            "values": (0.04 + 0.93 * np.clip(loud / loud.max() * 1.4, 0, 1)).clip(0, 1).tolist(),
        },
        "waveform": {"min": peaks.min(1).tolist(), "max": peaks.max(1).tolist()},
    }
    (folder / "demo.json").write_text(json.dumps(data))
    return data


def as_data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def inlined(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: inlined(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [inlined(item, folder) for item in value]
    if isinstance(value, str) and value.startswith("file:"):
        kind = "audio/wav" if value.endswith(".wav") else "image/png"
        return as_data_url((folder / value[5:]).read_bytes(), kind)
    return value


def report_html(data: dict[str, Any]) -> str:
    script, style = standalone_assets()
    content = json.dumps(data).replace("<", "\\u003c")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<style>:root{color-scheme:light dark}body{margin:24px;background:#fff}"
        "@media(prefers-color-scheme:dark){body{background:#14181f}}@media(max-width:500px){body{margin:14px}}</style>"
        f"<style>{style}</style><main id=player></main><script>{script}</script>"
        f"<script>globalThis.player = EarwitnessPlayer.create(document.getElementById('player'), {content});</script>"
    )


# --- fixtures


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_demo(folder)


@pytest.fixture(scope="module")
def server(demo: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    (home / "app.py").write_text(APP)
    command = [
        "-m",
        "streamlit",
        "run",
        str(home / "app.py"),
        "--server.port",
        "{port}",
        "--server.address",
        "127.0.0.1",
    ]
    log = home / "server.log"
    with serving(
        command, "/_stcore/health", log, HOME=str(home), PLAYER_DEMO=str(demo[0]), PYTHONPATH=str(ROOT)
    ) as url:
        yield url
    assert "Traceback" not in log.read_text()


@contextlib.contextmanager
def local_page(browser: Browser, **options: Any) -> Iterator[Page]:
    with visiting(browser, ["http://127.0.0.1", "http://localhost", "file:"], WATCH_AUDIO, **options) as page:
        yield page


@pytest.fixture
def app(chromium: Browser, server: str) -> Iterator[Page]:
    with local_page(chromium) as page:
        page.goto(server)
        ready(page)
        yield page


@pytest.fixture
def report(chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> Iterator[Page]:
    """The player without a server, opened from disk and offline."""
    (tmp_path / "report.html").write_text(report_html(inlined(demo[1], demo[0])), encoding="utf-8")
    with local_page(chromium, offline=True) as page:
        page.goto((tmp_path / "report.html").as_uri())
        ready(page)
        yield page


def root(page: Page) -> Locator:
    return page.locator(".ew-player")


def ready(page: Page) -> Locator:
    player = root(page)
    expect(player).to_have_attribute("data-ready", "true", timeout=PATIENCE)
    expect(player).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
    return player


def now(page: Page) -> float:
    return float(root(page).get_attribute("data-current-time") or "nan")


def view(page: Page) -> list[float]:
    return [float(edge) for edge in (root(page).get_attribute("data-view") or "").split(",")]


def play(page: Page) -> None:
    page.get_by_role("button", name="Play", exact=True).click()
    expect(root(page)).to_have_attribute("data-playing", "true")
    page.wait_for_function("() => globalThis.__contexts.at(-1)?.currentTime > 0.05")


def account(page: Page, entries: int) -> list[tuple[str, float]]:
    """Starts ("true") and stops ("false") since `ACCOUNT`, each with its place in s, once there are so many."""
    page.wait_for_function("entries => globalThis.__account.length >= entries", arg=entries)
    return [(state, place) for state, place in page.evaluate("globalThis.__account")]


def head_start(page: Page) -> tuple[float, float]:
    """By how much the player's position is ahead of its audio clock, and that clock, in s; round a loop of the clip.

    A frame that was held up shows an old position, never a new one: of a dozen frames the best counts.
    """
    ahead, clock = root(page).evaluate(
        """async player => {
          let best = -Infinity;
          const context = globalThis.__contexts.at(-1);
          for (let number = 0; number < 12; number += 1) {
            await new Promise(requestAnimationFrame);
            const ahead = Number(player.dataset.currentTime) - context.currentTime;
            best = Math.max(best, ahead);
          }
          return [best, context.currentTime];
        }"""
    )
    return ahead, clock


def runs_on(page: Page, before: float) -> bool:
    """Whether the player still is as far ahead of its audio clock as it was, full rounds of the clip aside."""
    after = head_start(page)[0]
    return abs((after - before + DURATION / 2) % DURATION - DURATION / 2) < 0.05


def endlessly(page: Page) -> None:
    """Play the whole clip again and again, so that it does not end before a slow machine is done with it."""
    page.get_by_role("button", name="Loop", exact=True).click()
    expect(root(page)).to_have_attribute("data-loop", "all")
    play(page)


def surface(page: Page) -> Locator:
    return page.get_by_role("slider", name="Spectrogram, Position")


def drag(page: Page, start: float, end: float, low: float = 0.3, high: float = 0.7, shift: bool = False) -> None:
    """Drags over the spectrogram; all values are shares of its width or height (from the top)."""
    box = steady_box(surface(page))
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(box["x"] + start * box["width"], box["y"] + low * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * (start + end) * box["width"], box["y"] + 0.5 * (low + high) * box["height"])
    page.mouse.move(box["x"] + end * box["width"], box["y"] + high * box["height"])
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def click_at(page: Page, share: float) -> None:
    box = steady_box(surface(page))
    surface(page).click(position={"x": share * box["width"], "y": 0.5 * box["height"]})


# --- the clock


def test_nothing_sounds_before_a_gesture(report: Page) -> None:
    assert report.evaluate("globalThis.__contexts.length") == 0
    expect(root(report)).to_have_attribute("data-playing", "false")
    assert now(report) == 0


def test_the_playhead_runs_with_the_audio_clock(report: Page) -> None:
    endlessly(report)
    ahead, clock = head_start(report)
    assert until(report, lambda: head_start(report)[1], lambda now: now > clock + 1.5) > clock + 1.5
    assert runs_on(report, ahead)
    assert report.evaluate("globalThis.__contexts.length") == 1


def test_switching_tracks_keeps_the_position(report: Page) -> None:
    endlessly(report)
    ahead, clock = head_start(report)
    for label, track in [("What it heard", "kept"), ("What is left", "removed"), ("Original", "original")]:
        report.get_by_role("button", name=label, exact=True).click()
        expect(root(report)).to_have_attribute("data-track", track)
        assert runs_on(report, ahead)
    assert head_start(report)[1] > clock


def test_the_end_stops_and_play_starts_again(report: Page) -> None:
    click_at(report, 0.97)
    root(report).evaluate(ACCOUNT)
    button = report.get_by_role("button", name="Play", exact=True)
    button.click()
    assert account(report, 2) == [
        ("true", pytest.approx(4.85, abs=0.02)),
        ("false", pytest.approx(DURATION, abs=0.001)),
    ]
    button.click()
    assert account(report, 3)[2] == ("true", pytest.approx(0, abs=0.02))


def what_is_heard(page: Page, data: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Samples at the loudspeaker while tracks are switched and, after the number given as well, a range is looped."""
    page.route("http://localhost/player", lambda route: route.fulfill(body=report_html(data), content_type="text/html"))
    page.goto("http://localhost/player")  # an AudioWorklet needs a secure origin
    ready(page)
    endlessly(page)
    page.wait_for_function("() => globalThis.__contexts[0].__blocks.length > 20")
    page.evaluate("() => { globalThis.__contexts[0].__blocks = []; }")
    for key in "231323121":
        page.keyboard.press(key)
        page.wait_for_timeout(30)
    enough = "blocks => globalThis.__contexts[0].__blocks.length >= blocks"
    page.wait_for_function(enough, arg=100)
    switched = page.evaluate("() => globalThis.__contexts[0].__blocks.length") * 128
    drag(page, 0.25, 0.40)  # whole periods: 1.25 s to 2 s, so the join is smooth if and only if it is exact
    dragged = page.evaluate("() => globalThis.__contexts[0].__blocks.length")
    page.wait_for_function(enough, arg=dragged + 500)  # 1.3 s: once round, and more
    blocks = page.evaluate("() => globalThis.__contexts[0].__blocks.map(block => Array.from(block))")
    return np.concatenate([np.asarray(block) for block in blocks]), switched


def test_tracks_and_loops_join_without_a_gap(chromium: Browser, demo: tuple[Path, dict[str, Any]]) -> None:
    """Three tracks with the same tone: whatever is switched or looped, the loudspeaker gets a smooth tone."""
    folder, data = demo
    tone = 0.25 * np.sin(2 * np.pi * 400 * np.arange(int(DURATION * SAMPLE_RATE)) / SAMPLE_RATE)
    same = as_data_url(wav_bytes(tone), "audio/wav")
    data = inlined({**data, "tracks": [{**track, "url": same} for track in data["tracks"]]}, folder)
    with local_page(chromium) as page:
        heard, switched = what_is_heard(page, data)
    frames = heard[: heard.size // 480 * 480].reshape(-1, 480)  # 10 ms = 4 periods
    turns = np.exp(-2j * np.pi * 400 * np.arange(480) / 48000)
    phases = np.angle((frames[: switched // 480 - 1] @ turns) / (frames[0] @ turns))
    assert len(phases) > 20
    assert np.abs(phases).max() < 0.05, "the tracks do not start at the same sample"
    jump = int(np.argmin(np.sqrt((frames**2).mean(1))))  # the drag itself jumps once, with a short fade
    quiet = np.sqrt((frames**2).mean(1)) < 0.9 * 0.25 / np.sqrt(2)
    assert len(frames) > 100
    assert quiet.sum() <= 3, f"gaps at {np.flatnonzero(quiet)}, expected only around {jump}"
    steps = np.abs(np.diff(heard))
    assert steps.max() < 1.6 * 0.25 * 2 * np.pi * 400 / 48000, "a click: a step steeper than the tone"
    assert np.abs(heard).max() < 0.26


# --- where to, and what part


def test_a_click_seeks(report: Page) -> None:
    click_at(report, 0.5)
    assert now(report) == pytest.approx(2.5, abs=0.02)
    expect(surface(report)).to_have_attribute("aria-valuetext", "2.5 seconds of 5.0")
    expect(root(report)).to_have_attribute("data-playing", "false")


# Positions at every frame until the player went back three times.
THREE_ROUNDS = """async player => {
  const seen = [];
  for (let rounds = 0; rounds < 3;) {
    await new Promise(requestAnimationFrame);
    const now = Number(player.dataset.currentTime);
    if (now < seen.at(-1) - 0.1) rounds += 1;
    seen.push(now);
  }
  return seen;
}"""


def test_a_dragged_range_loops(report: Page) -> None:
    drag(report, 0.4, 0.5)
    expect(root(report)).to_have_attribute("data-loop", re.compile(r"^(2|1\.99\d),2\.(49\d|5)"))
    expect(report.get_by_role("button", name="Loop", exact=True)).to_have_attribute("aria-pressed", "true")
    assert now(report) == pytest.approx(2.0, abs=0.02)
    play(report)
    positions = np.array(root(report).evaluate(THREE_ROUNDS))
    assert positions.min() >= 1.98
    assert positions.max() <= 2.52
    report.keyboard.press("Escape")
    expect(root(report)).to_have_attribute("data-loop", "")
    expect(root(report)).to_have_attribute("data-playing", "true")


def test_a_segment_plays_exactly_itself(report: Page) -> None:
    root(report).evaluate(ACCOUNT)
    report.get_by_role("button", name="Play 2 bark, 0.92 to 1.30 seconds").click()
    once = [("true", pytest.approx(0.92, abs=0.03)), ("false", pytest.approx(1.3, abs=0.001))]
    assert account(report, 2) == once
    report.keyboard.press("Space")  # again the same
    assert account(report, 4) == once + once
    assert now(report) == pytest.approx(1.3, abs=0.001)


def test_keys(report: Page) -> None:
    surface(report).focus()
    press = report.keyboard.press
    player = root(report)
    press("ArrowRight")
    press("ArrowRight")
    assert now(report) == pytest.approx(0.2, abs=0.001)
    press("Shift+ArrowRight")
    assert now(report) == pytest.approx(1.2, abs=0.001)
    press("[")
    press("Shift+ArrowRight")
    press("]")
    expect(player).to_have_attribute("data-loop", "1.2,2.2")
    press("l")
    expect(player).to_have_attribute("data-loop", "")
    press("Escape")
    press("l")
    expect(player).to_have_attribute("data-loop", "all")
    press("End")
    assert now(report) == pytest.approx(DURATION)
    press("Home")
    assert now(report) == 0
    for key, track in [("2", "kept"), ("3", "removed"), ("1", "original")]:
        press(key)
        expect(player).to_have_attribute("data-track", track)
    press("Space")
    expect(player).to_have_attribute("data-playing", "true")
    press("Space")
    expect(player).to_have_attribute("data-playing", "false")
    press("?")
    expect(report.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    press("Escape")
    expect(report.get_by_role("dialog", name="Shortcuts")).to_be_hidden()


def test_zoom_and_following(report: Page) -> None:
    click_at(report, 0.5)
    report.keyboard.press("+")
    report.keyboard.press("+")
    start, end = view(report)
    assert end - start == pytest.approx(1.25, abs=0.01)
    assert start < 2.5 < end
    click_at(report, 0.9)
    assert now(report) == pytest.approx(start + 0.9 * 1.25, abs=0.01)  # the axis is zoomed, too
    endlessly(report)
    turned = "start => Number(document.querySelector('.ew-player').dataset.view.split(',')[0]) > start + 0.5"
    report.wait_for_function(turned, arg=start)
    place, edges = root(report).evaluate("e => [Number(e.dataset.currentTime), e.dataset.view.split(',').map(Number)]")
    assert edges[0] <= place <= edges[1]
    report.keyboard.press("Space")
    report.keyboard.press("0")
    assert view(report) == [0.0, DURATION]
    box = steady_box(surface(report))
    report.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    report.keyboard.down("Control")
    report.mouse.wheel(0, -100)
    report.keyboard.up("Control")
    start, end = view(report)
    assert end - start < 4
    assert start + 0.2 * (end - start) == pytest.approx(1.0, abs=0.02)  # what is under the pointer stays there


def pixel_colours(page: Page) -> dict[str, int]:
    """How many pixels of the spectrogram are clearly orange, and how many clearly blue."""
    picture = np.asarray(Image.open(io.BytesIO(surface(page).screenshot())).convert("RGB")).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    orange = (red - blue > 60) & (red > green)
    return {"orange": int(orange.sum()), "blue": int((blue - red > 60).sum())}


def test_overlay_switches_and_opacity(report: Page) -> None:
    def seen(holds: Callable[[dict[str, int]], bool]) -> bool:
        return holds(until(report, lambda: pixel_colours(report), holds, 20_000))

    assert seen(lambda colours: colours["orange"] > 500 and colours["blue"] > 500)
    report.get_by_role("switch", name="Opposes").uncheck()
    assert seen(lambda colours: colours["orange"] > 500 and colours["blue"] == 0)
    opacity = report.get_by_role("slider", name="Overlay")
    opacity.focus()
    opacity.press("Home")
    expect(opacity).to_have_attribute("aria-valuetext", "0 %")
    assert seen(lambda colours: colours == {"orange": 0, "blue": 0})


def test_a_quiet_track_is_made_audible_only_when_asked(report: Page) -> None:
    button = report.get_by_role("button", name="Make audible (+18 dB)")
    expect(button).to_be_hidden()
    report.get_by_role("button", name="What is left").click()
    expect(report.get_by_text("Very quiet")).to_be_visible()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(report.get_by_text("Gain +18 dB")).to_be_visible()


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1280, 1600])
def test_one_time_axis_at_every_width(report: Page, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 900})
    fits_its_width(report, width)
    read = """() => [...document.querySelectorAll('.ew-plot, .ew-overlay, .ew-pan')]
        .filter(e => e.clientWidth).map(e => { const b = e.getBoundingClientRect(); return [b.left, b.right]; })"""

    def aligned(edges: list[list[float]]) -> bool:
        return len(edges) == 7 and bool(np.ptp(np.array(edges), axis=0).max() <= 1)

    edges = until(report, lambda: report.evaluate(read), aligned, 20_000)
    assert aligned(edges), edges
    too_small = report.evaluate(
        """() => [...document.querySelectorAll('.ew-button, .ew-track, .ew-segment')].filter(e => e.clientWidth)
        .filter(e => e.getBoundingClientRect().height < (innerWidth < 500 ? 36 : 24)).map(e => e.textContent)"""
    )
    assert too_small == []


def test_names_are_never_read_as_markup(chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, data = demo
    evil = "<img src=x onerror='globalThis.pwned=1'></script><script>globalThis.pwned=1</script>"
    data = json.loads(json.dumps(data))
    data["title"] = data["curve"]["label"] = data["tracks"][0]["label"] = data["segments"][0]["label"] = evil
    (tmp_path / "evil.html").write_text(report_html(inlined(data, folder)), encoding="utf-8")
    with local_page(chromium, offline=True) as page:
        page.goto((tmp_path / "evil.html").as_uri())
        ready(page)
        expect(page.locator(".ew-track").first).to_have_text(evil)
        assert page.evaluate("globalThis.pwned") is None


@contextlib.contextmanager
def film_page(
    chromium: Browser, demo: tuple[Path, dict[str, Any]], folder: Path, seconds: int, rate: int = 25
) -> Iterator[Page]:
    """The player with a video of which the brightness tells the time, and a strip of ten small pictures."""
    import av
    from PIL import Image

    sounds, data = demo
    with av.open(str(folder / "film.webm"), "w") as film:
        stream: Any = film.add_stream("libvpx", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"deadline": "realtime", "cpu-used": "8"}
        for number in range(rate * seconds):
            picture = np.full((48, 64, 3), 250 * number // (rate * seconds), np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())
    video = as_data_url((folder / "film.webm").read_bytes(), "video/webm")
    strip = np.repeat(np.arange(10, dtype=np.uint8) * 25, 64)[None].repeat(48, 0)
    Image.fromarray(strip).convert("RGB").save(folder / "strip.png")
    data = {**data, "video": {"url": video}, "duration": float(seconds), "segments": []}
    data["filmstrip"] = {"url": as_data_url((folder / "strip.png").read_bytes(), "image/png"), "count": 10}
    data["spectrogram"] = {**data["spectrogram"], "end": float(seconds)}
    if seconds > 5:
        long = as_data_url(wav_bytes(np.tile(demo_sounds()["original"], seconds // 5)), "audio/wav")
        data["tracks"] = [{**track, "url": long} for track in data["tracks"]]
    (folder / "film.html").write_text(report_html(inlined(data, sounds)), encoding="utf-8")
    with local_page(chromium, offline=True) as page:
        page.goto((folder / "film.html").as_uri())
        ready(page)
        page.wait_for_function("() => document.querySelector('video').readyState >= 2")
        yield page


BOTH_CLOCKS = """[Number(document.querySelector('.ew-player').dataset.currentTime),
    document.querySelector('video').currentTime]"""


def test_pictures_follow_the_same_clock(chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with film_page(chromium, demo, tmp_path, 5) as page:
        click_at(page, 0.5)
        assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(2.5, abs=0.03)
        endlessly(page)

        def together(both: list[float]) -> bool:
            return 3.2 < both[0] < 4.9 and abs(both[1] - both[0]) < 0.25

        both = until(page, lambda: page.evaluate(BOTH_CLOCKS), together, 60_000)
        assert together(both), both
        assert page.evaluate("document.querySelector('video').muted")


def test_small_pictures_stand_at_their_time(
    chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    brightness = """share => { const c = document.querySelector('.ew-strip');
        return c.getContext('2d').getImageData(share * c.width, c.height / 2, 1, 1).data[0]; }"""
    with film_page(chromium, demo, tmp_path, 5) as page:
        strip, plot = (steady_box(page.locator(css)) for css in (".ew-strip", ".ew-row-spectrogram canvas"))
        assert (strip["x"], strip["width"]) == pytest.approx((plot["x"], plot["width"]), abs=1)
        places = (0.05, 0.33, 0.62, 0.95)
        expected = [pytest.approx(250 * share, abs=40) for share in places]
        read = lambda: [page.evaluate(brightness, share) for share in places]  # noqa: E731
        assert until(page, read, lambda found: found == expected, 20_000) == expected


@pytest.mark.slow
def test_sound_picture_and_playhead_stay_together_for_a_minute(
    chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with film_page(chromium, demo, tmp_path, 60) as page:
        play(page)
        page.wait_for_timeout(2000)
        apart, last = [], 0.0
        for _ in range(110):
            position, picture = page.evaluate(BOTH_CLOCKS)
            apart.append(abs(position - picture))
            last = position
            page.wait_for_timeout(500)
    assert last > 50
    apart.sort()
    # A busy machine may hold up a single frame; what stays apart is a fault.
    assert apart[len(apart) // 2] < 0.025 and apart[int(0.97 * len(apart))] < 0.05, apart[-8:]


def test_a_minute_of_sound_is_ready_and_seeks(
    chromium: Browser, demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, data = demo
    long = as_data_url(wav_bytes(np.tile(demo_sounds()["original"], 12)), "audio/wav")
    data = {**data, "duration": 60.0, "segments": [], "tracks": [{**track, "url": long} for track in data["tracks"]]}
    data["spectrogram"] = {**data["spectrogram"], "end": 60.0}
    (tmp_path / "long.html").write_text(report_html(inlined(data, folder)), encoding="utf-8")
    with local_page(chromium, offline=True) as page:
        page.goto((tmp_path / "long.html").as_uri())
        ready(page)
        click_at(page, 0.75)
        root(page).evaluate(ACCOUNT)
        page.get_by_role("button", name="Play", exact=True).click()
        assert account(page, 1) == [("true", pytest.approx(45, abs=0.2))]
        assert until(page, lambda: now(page), lambda place: place > 45.5, 30_000) > 45.5


def test_destroy_closes_the_sound(report: Page) -> None:
    play(report)
    report.evaluate("globalThis.player.destroy()")
    report.wait_for_function("() => globalThis.__contexts[0].state === 'closed'")
    expect(report.locator(".ew-player")).to_have_count(0)


# --- inside Streamlit


def test_track_goes_to_python_and_the_position_stays(app: Page) -> None:
    endlessly(app)
    ahead = head_start(app)[0]
    app.keyboard.press("2")
    expect(app.get_by_text("track=kept")).to_be_visible()
    assert runs_on(app, ahead)
    expect(root(app)).to_have_attribute("data-playing", "true")
    assert app.evaluate("globalThis.__contexts.length") == 1


def test_a_box_goes_to_python_and_clearing_it_too(app: Page) -> None:
    drag(app, 0.2, 0.4, low=0.0, high=1.0, shift=True)
    # Dragged from the top edge to the bottom one: the whole range of the axis.
    box = app.get_by_text(re.compile(r"^box="))
    expect(box).to_be_visible()
    start, end, low, high = (float(value) for value in (box.text_content() or "")[4:].split(","))
    assert (start, end) == (pytest.approx(1.0, abs=0.02), pytest.approx(2.0, abs=0.02))
    assert low < 20
    assert high > 7900
    expect(app.get_by_text("seen=box")).to_be_visible()
    app.keyboard.press("Escape")
    expect(app.get_by_text("seen=cleared")).to_be_visible()


def test_box_by_button_is_measured_in_hz(app: Page) -> None:
    app.get_by_role("button", name="Select region").click()
    top = 1 - float(mel(2000) / mel(8000))
    bottom = 1 - float(mel(500) / mel(8000))
    drag(app, 0.1, 0.3, low=top, high=bottom)
    box = app.get_by_text(re.compile(r"^box="))
    expect(box).to_be_visible()
    low, high = (float(value) for value in (box.text_content() or "")[4:].split(",")[2:])
    assert low == pytest.approx(500, rel=0.04)
    assert high == pytest.approx(2000, rel=0.04)


def test_a_segment_goes_to_python(app: Page) -> None:
    app.get_by_role("button", name=re.compile("^Play chirp")).click()
    expect(app.get_by_text("segment=2")).to_be_visible()


def test_keys_do_not_reach_the_page(app: Page) -> None:
    surface(app).focus()
    app.keyboard.press("l")
    expect(root(app)).to_have_attribute("data-loop", "all")
    run = app.get_by_text(re.compile(r"^run=")).text_content()
    app.keyboard.press("b")
    app.wait_for_timeout(300)
    assert app.get_by_text(re.compile(r"^run=")).text_content() == run


def test_only_what_changed_is_loaded(app: Page) -> None:
    requests: list[str] = []
    endlessly(app)
    app.on("request", lambda request: requests.append(request.url) if "/media/" in request.url else None)
    ahead = head_start(app)[0]
    app.get_by_text("other overlay").click()
    expect(app.get_by_text("run=2")).to_be_visible()
    ready(app)
    assert runs_on(app, ahead)
    assert requests == []  # the other overlay's picture was there already, and so was all the sound


def test_another_clip_starts_anew(app: Page) -> None:
    click_at(app, 0.5)
    app.keyboard.press("+")
    app.get_by_text("other clip").click()
    expect(surface(app)).to_have_attribute("aria-valuemax", "2.00")
    ready(app)
    assert now(app) == 0
    assert view(app) == [0.0, 2.0]
    expect(app.locator(".ew-track")).to_have_count(1)


def test_a_missing_track_is_said_and_the_rest_plays(app: Page) -> None:
    app.get_by_text("missing track").click()
    expect(app.locator(".ew-notes")).to_contain_text("“What it heard” cannot be played")
    expect(app.get_by_role("button", name="What it heard")).to_be_disabled()
    play(app)
    app.keyboard.press("3")
    expect(root(app)).to_have_attribute("data-track", "removed")


def test_leaving_closes_the_sound(app: Page) -> None:
    play(app)
    app.get_by_text("hide").click()
    app.wait_for_function("() => globalThis.__contexts[0].state === 'closed'")
    app.get_by_text("hide").click()
    ready(app)
    play(app)
    assert app.evaluate("globalThis.__contexts.filter(context => context.state !== 'closed').length") == 1
