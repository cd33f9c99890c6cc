"""The server: Streamlit with our own routes, headers and start-up; ``earwitness serve`` and ``streamlit run`` start it."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from streamlit.runtime.pages_manager import PagesManager

from workbench import __version__
from workbench.blobs import PATH, STORE

COOKIE = "earwitness_workspace"
# Streamlit's own page needs inline styles and eval; nothing may be loaded from or sent to anywhere else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' ws: wss: data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'"
)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})$")


async def blob(request: Request) -> Response:
    """Bytes of the blob store, whole or a range of them."""
    found = STORE.get(request.path_params["key"])
    if found is None:
        return JSONResponse({"error": "This is not here any more; reload the page."}, status_code=404)
    headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=86400, immutable"}
    size = len(found.data)
    asked = _RANGE.match(request.headers.get("range", ""))
    if asked and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size - 1, int(last)) if first and last else size - 1
        if start >= size or start > end:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        headers["content-range"] = f"bytes {start}-{end}/{size}"
        return Response(found.data[start : end + 1], 206, headers, found.mime)
    return Response(found.data, 200, headers, found.mime)


async def health(_: Request) -> Response:
    """Alive, and which version."""
    return JSONResponse({"status": "ok", "version": __version__})


Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def _same_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # a malformed address
        return False


class Guard:
    """Gives every browser a workspace cookie and safe headers, and turns foreign pages' sockets away.

    Streamlit itself looks up its public address (a blocking call to the outside) for every foreign origin; refusing them
    first avoids that.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "websocket":
            origin = headers.get(b"origin", "")
            if origin and not _same_host(origin, headers.get(b"host", "")):
                await receive()
                await send({"type": "websocket.close", "code": 4403})
                return
            await self.app(scope, receive, send)
            return
        fresh = f"{COOKIE}=" not in headers.get(b"cookie", "")

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [
                    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                ]  # fmt: skip
                if fresh:
                    cookie = f"{COOKIE}={uuid.uuid4().hex}; HttpOnly; SameSite=Lax; Path=/; Max-Age=31536000"
                    extra.append((b"set-cookie", cookie.encode()))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self.app(scope, receive, guarded)


def warm_up() -> None:
    """Import what the first analysis needs and load the models, while the first visitor still looks at the page."""
    from models.catalog import checkpoint_folders
    from workbench.engine import engine

    def load(job: Any) -> None:
        import workbench.analysis  # noqa: F401  (imported for its cost)

        for name in checkpoint_folders():
            engine().recognizer(name)

    engine().submit("warm-up", load)


def look_after_jobs() -> None:
    """Notice what became of the jobs while no server ran, and begin those that wait."""
    from models.errors import EarwitnessError
    from workbench.jobs import jobs

    try:
        jobs()
    except EarwitnessError as error:  # everything but long jobs works without a data folder
        print(f"Error: {error}", flush=True)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    """Start-up: warm up in the background."""
    # Or an address that names a page would, until somebody opened the first page, run that page's file without navigation.
    PagesManager.uses_pages_directory = False
    look_after_jobs()
    threading.Thread(target=warm_up, daemon=True).start()
    yield


app = st.App(
    str(Path(__file__).with_name("app.py")),
    routes=[Route(f"{PATH}/{{key}}", blob), Route("/earwitness/health", health)],
    middleware=[Middleware(Guard)],
    lifespan=lifespan,
)


def run(port: int = 8501, address: str = "127.0.0.1") -> None:
    """Serve until stopped."""
    import os

    # Short-lived script threads otherwise keep an arena each; must be set before they start.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    shown = "localhost" if address in ("127.0.0.1", "0.0.0.0", "::") else address
    print(f"Earwitness {__version__}: open http://{shown}:{port} (Ctrl+C stops it)", flush=True)
    app.run(config=server_options(port, address))


def server_options(port: int, address: str) -> dict[str, Any]:
    """The options of ``.streamlit/config.toml``, which is not found when the server is started from another folder."""
    import tomllib

    # An installed package has no such file: nothing may leave the machine even so.
    options: dict[str, Any] = {
        "browser.gatherUsageStats": False, "browser.serverAddress": "localhost", "server.headless": True,
        "server.showEmailPrompt": False, "server.fileWatcherType": "none", "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }  # fmt: skip

    def flatten(prefix: str, section: dict[str, Any]) -> None:
        for key, value in section.items():
            if isinstance(value, dict):
                flatten(f"{prefix}{key}.", value)
            else:
                options[f"{prefix}{key}"] = value

    source = Path(__file__).resolve().parent.parent / ".streamlit" / "config.toml"
    if source.is_file():
        flatten("", tomllib.loads(source.read_text(encoding="utf-8")))
    return options | {"server.port": port, "server.address": address}


if __name__ == "__main__":
    run()
