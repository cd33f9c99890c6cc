"""A real Chromium and a real server for all browser tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One Chromium for all browser tests; its event loop must be gone before other tests start their own."""
    if not CHROMIUM:
        pytest.fail("These tests need Chromium: apt-get install chromium, or set CHROMIUM to its path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """The workbench, started as a person starts it; gives its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", "serve", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/earwitness/health", timeout=1).read()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def visitor(chromium: Browser, server: str) -> Iterator[Page]:
    """A visitor's page, on which nothing may be fetched from elsewhere and no script may fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, base_url=server, accept_downloads=True)
    page = context.new_page()
    outside: list[str] = []
    failures: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((server, "data:", "blob:", "ws:")) else outside.append(r.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert not outside, outside
    assert not failures, failures
