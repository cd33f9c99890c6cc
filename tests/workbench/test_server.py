"""Our own routes and headers, spoken to as a web server would."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.websockets import WebSocket

from workbench import __version__, server
from workbench.blobs import PATH, BlobStore

DATA = bytes(range(256)) * 4  # 1024 bytes


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, found
        return found[0] if found else None


def speak(app: Any, scope: dict[str, Any], received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything an application sends over one connection."""
    sent: list[dict[str, Any]] = []

    async def talk() -> None:
        queue = iter(received)

        async def receive() -> dict[str, Any]:
            return next(queue, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(dict(message))

        await app(scope, receive, send)

    asyncio.run(talk())
    return sent


def scope_of(kind: str, path: str, headers: dict[str, str], method: str = "GET") -> dict[str, Any]:
    return {
        "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "method": method, "http_version": "1.1",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()], "scheme": "http",
        "server": ("localhost", 8501), "client": ("127.0.0.1", 5), "root_path": "", "subprotocols": [],
    }  # fmt: skip


def ask(app: Any, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    request = {"type": "http.request", "body": b"", "more_body": False}
    start, *rest = speak(app, scope_of("http", path, {"host": "localhost:8501"} | (headers or {}), method), [request])
    assert start["type"] == "http.response.start"
    body = b"".join(message.get("body", b"") for message in rest)
    return Answer(start["status"], [(k.decode(), v.decode("latin-1")) for k, v in start["headers"]], body)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    store = BlobStore()
    monkeypatch.setattr(server, "STORE", store)
    return store


@pytest.fixture
def app() -> Starlette:
    async def home(_: Any) -> PlainTextResponse:
        return PlainTextResponse("home")

    routes = [Route("/", home), Route(f"{PATH}/{{key}}", server.blob), Route("/earwitness/health", server.health)]
    return Starlette(routes=routes, middleware=[Middleware(server.Guard)])


def test_a_blob_is_sent_whole(app: Starlette, store: BlobStore) -> None:
    answer = ask(app, store.put(DATA, "audio/wav"))
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.header("content-type") == "audio/wav" and answer.header("content-length") == "1024"
    assert answer.header("accept-ranges") == "bytes" and answer.header("content-range") is None
    cached = answer.header("cache-control")
    assert cached is not None and "private" in cached and "immutable" in cached


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 0), ("bytes=0-", 0, 1023), ("bytes=100-199", 100, 199), ("bytes=1023-", 1023, 1023),
        ("bytes=1000-5000", 1000, 1023), ("bytes=-1", 1023, 1023), ("bytes=-300", 724, 1023), ("bytes=-9999", 0, 1023),
        ("bytes=0-999999999999999999", 0, 1023),
    ],
)  # fmt: skip
def test_a_range_of_a_blob(asked: str, start: int, end: int, app: Starlette, store: BlobStore) -> None:
    answer = ask(app, store.put(DATA, "audio/wav"), {"range": asked})
    assert (answer.status, answer.body) == (206, DATA[start : end + 1])
    assert answer.header("content-range") == f"bytes {start}-{end}/1024"
    assert answer.header("content-length") == str(end - start + 1)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=200-100", "bytes=-0"])
def test_a_range_that_is_not_there(asked: str, app: Starlette, store: BlobStore) -> None:
    answer = ask(app, store.put(DATA, "audio/wav"), {"range": asked})
    assert (answer.status, answer.body) == (416, b"") and answer.header("content-range") == "bytes */1024"


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "items=0-5",
        "bytes=0-1,5-6",
        "bytes=" + "9" * 5000 + "-",
        "bytes=-1-2",
        "\xb2",
    ],
)
def test_what_is_no_range_is_ignored(asked: str, app: Starlette, store: BlobStore) -> None:
    answer = ask(app, store.put(DATA, "audio/wav"), {"range": asked})
    assert (answer.status, answer.body) == (200, DATA)


def test_an_empty_blob(app: Starlette, store: BlobStore) -> None:
    address = store.put(b"", "text/plain")
    assert ask(app, address).body == b"" and ask(app, address, {"range": "bytes=0-"}).status == 416


@pytest.mark.parametrize("key", ["0" * 40, "nonsense", "%2e%2e"])
def test_an_unknown_blob(key: str, app: Starlette, store: BlobStore) -> None:
    answer = ask(app, f"{PATH}/{key}")
    assert answer.status == 404 and b"reload" in answer.body


def test_blobs_cannot_be_written(app: Starlette, store: BlobStore) -> None:
    assert ask(app, store.put(DATA, "audio/wav"), method="POST").status == 405


def test_health(app: Starlette) -> None:
    answer = ask(app, "/earwitness/health")
    assert answer.status == 200 and f'"{__version__}"'.encode() in answer.body


@pytest.mark.parametrize("path", ["/", "/earwitness/health", f"{PATH}/nothing", "/no/such/page"])
def test_every_answer_has_safe_headers(path: str, app: Starlette, store: BlobStore) -> None:
    answer = ask(app, path)
    policy = answer.header("content-security-policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'self'"
    assert rules["object-src"] == "'none'"
    # Nothing may be loaded from anywhere else.
    allowed = {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:", "ws:", "wss:"}
    assert {source for sources in rules.values() for source in sources.split()} <= allowed
    assert not {"data:"} & set(rules["script-src"].split())
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "same-origin"


def test_a_new_browser_gets_an_id_and_keeps_it(app: Starlette) -> None:
    cookies = [ask(app, "/").header("set-cookie") for _ in range(2)]
    ids = set()
    for cookie in cookies:
        assert cookie is not None
        name_and_value, *attributes = cookie.split("; ")
        name, value = name_and_value.split("=")
        assert name == server.COOKIE and re.fullmatch(r"[0-9a-f]{32}", value)  # what the page accepts
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
        ids.add(value)
    assert len(ids) == 2
    for header in (f"{server.COOKIE}={ids.pop()}", f"other=1; {server.COOKIE}={ids.pop()}; third=2"):
        assert ask(app, "/", {"cookie": header}).header("set-cookie") is None
    assert ask(app, "/", {"cookie": "other=1"}).header("set-cookie") is not None


def connect(headers: dict[str, str]) -> list[dict[str, Any]]:
    async def socket(scope: dict[str, Any], receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.close()

    return speak(
        server.Guard(socket), scope_of("websocket", "/_stcore/stream", headers), [{"type": "websocket.connect"}]
    )


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://localhost:9999", "http://localhost", "null", "http://localhost:8501.evil.example",
        "http://user@localhost:8501", "localhost:8501", "http://[", "http://127.0.0.1:8501", "file://",
    ],
)  # fmt: skip
def test_sockets_of_foreign_pages_are_refused(origin: str) -> None:
    assert connect({"host": "localhost:8501", "origin": origin}) == [{"type": "websocket.close", "code": 4403}]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8501", "origin": "http://localhost:8501"}, {"host": "ear.example", "origin": "https://ear.example"},
        {"host": "localhost:8501"}, {"host": "[::1]:8501", "origin": "http://[::1]:8501"},
    ],
)  # fmt: skip
def test_sockets_of_our_own_pages_are_let_in(headers: dict[str, str]) -> None:
    assert [message["type"] for message in connect(headers)] == ["websocket.accept", "websocket.close"]


def test_other_connections_pass() -> None:
    seen: list[str] = []

    async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    speak(server.Guard(inner), {"type": "lifespan"}, [])
    assert seen == ["lifespan"]


def test_the_server_has_these_routes_and_this_guard() -> None:
    shown = {route.path: route.endpoint for route in server.app._user_routes if isinstance(route, Route)}
    assert shown == {f"{PATH}/{{key}}": server.blob, "/earwitness/health": server.health}
    assert [m.cls for m in server.app._user_middleware] == [server.Guard]


def test_options_of_the_server_are_those_of_the_settings_file() -> None:
    options = server.server_options(1234, "0.0.0.0")
    assert options["server.port"] == 1234 and options["server.address"] == "0.0.0.0"
    assert options["browser.gatherUsageStats"] is False and options["server.enableXsrfProtection"] is True
    assert options["client.showErrorDetails"] == "none" and options["theme.light.sidebar.backgroundColor"].startswith(
        "#"
    )
    assert not any(isinstance(value, dict) for value in options.values())
    assert server.server_options(1, "127.0.0.1")["server.address"] == "127.0.0.1"
