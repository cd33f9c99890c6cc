"""A real Chromium and real servers for all browser tests, and how to wait on a machine that is slow."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240_000  # ms; a cold server on a busy machine loads its libraries first
STARTS_WITHIN = 240  # s
T = TypeVar("T")

# What the page says of itself once it rests: no script runs, nothing is computed, nothing is left of the run before.
RESTS = """downloads => {
  const all = css => [...document.querySelectorAll(css)];
  return document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "notRunning"
    && all("[data-testid=stDownloadButton]").length === downloads
    && !all("[data-testid=stElementContainer][data-stale=true]").length
    && !all(".ew-status .ew-done, .ew-old, .ew-skeleton").length
    && all("*").flatMap(e => e.shadowRoot ? [...e.shadowRoot.querySelectorAll(".earwitness-player, .earwitness-graph")] : [])
      .every(e => e.dataset.ready === "true" && e.ariaBusy !== "true");
}"""


@contextlib.contextmanager
def serving(
    command: Sequence[str] = ("-m", "workbench.cli", "serve", "--port", "{port}"), health: str = "/earwitness/health",
    log: Path | None = None, **environment: str,
) -> Iterator[str]:  # fmt: skip
    """A server, started as a person starts it; gives its address.

    Parameters
    ----------
    command
        Arguments of Python, with "{port}" where the port belongs.
    health
        The path that answers as soon as the server is there.
    log
        The file for what the server writes.
    environment
        Variables that the server gets beside those of the tests.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = [sys.executable, *(part.format(port=port) for part in command)]
    with (log or Path(os.devnull)).open("wb") as written:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=os.environ | environment, stdout=written,
            stderr=subprocess.STDOUT if log else None,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                urllib.request.urlopen(address + health, timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(page: Page, read: Callable[[], T], holds: Callable[[T], bool], patience: float = PATIENCE) -> T:
    """What `read` gives once it holds; where it never does, what it gave last, for the test to judge."""
    end = time.monotonic() + patience / 1000
    while not holds(value := read()) and time.monotonic() < end:
        page.wait_for_timeout(50)
    return value


def rests(page: Page, downloads: int) -> None:
    """Wait until nothing on a page with results changes any more.

    Directly after a click nothing has begun to change: wait for what is new before.
    """
    page.wait_for_function(RESTS, arg=downloads, timeout=PATIENCE, polling=200)


def steady_box(locator: Locator) -> dict[str, float]:
    """Where something stands, once it has stood there at three looks in a row."""
    page, seen = locator.page, []
    expect(locator).to_be_visible(timeout=PATIENCE)
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        # A box that is not there (the page draws anew) is waited for, too.
        seen.append(locator.bounding_box())
        if seen[-1] is not None and seen[-3:] == [seen[-1]] * 3:
            return {name: float(value) for name, value in seen[-1].items()}  # type: ignore[arg-type]
        page.wait_for_timeout(100)
    raise AssertionError(f"{locator} never comes to rest: {seen[-5:]}")


def fits_its_width(page: Page, width: int) -> None:
    """Wait until the page is not wider than the window."""
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width, timeout=30_000)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One Chromium for all browser tests; its event loop must be gone before other tests start their own."""
    if not CHROMIUM:
        pytest.fail("These tests need Chromium: apt-get install chromium, or set CHROMIUM to its path.")
    with sync_playwright() as playwright:
        # A busy machine may take long to draw: what a test waits for without saying how long gets a minute.
        expect.set_options(timeout=60_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, timeout=PATIENCE)
        yield browser
        browser.close()
        expect.set_options(timeout=5_000)


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """The workbench, started as a person starts it; gives its address."""
    with serving() as address:
        yield address


@contextlib.contextmanager
def visiting(browser: Browser, local: Sequence[str], script: str = "", **options: Any) -> Iterator[Page]:
    """A page on which nothing may be fetched from elsewhere and no script may fail.

    Parameters
    ----------
    local
        What addresses begin with that may be fetched.
    script
        Runs before those of the page.
    options
        Of the browser's context.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    allowed = (*local, "data:", "blob:", "ws:")
    page.on("request", lambda r: None if r.url.startswith(allowed) else wrong.append(f"leaves: {r.url}"))
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    if script:
        page.add_init_script(script)
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong


@pytest.fixture
def visitor(chromium: Browser, server: str) -> Iterator[Page]:
    """A visitor's page of the workbench."""
    with visiting(chromium, [server], base_url=server, accept_downloads=True) as page:
        yield page
