"""Analyses as jobs of the engine: each step is computed once and remembered for every visitor."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from models.clip import Clip, MediaLimits, open_clip
from workbench.blobs import STORE
from workbench.engine.pool import Engine, Job, Work
from workbench.engine.weight import held_bytes

if TYPE_CHECKING:
    from saliency.reconstruction import SalientAudio
    from workbench.analysis import Analysis, AnalysisSettings
    from workbench.figures import Scale
    from workbench.player.data import PlayerData

T = TypeVar("T")
RETRY_AFTER = 30.0  # seconds after which a failed job may be tried again


@dataclass(frozen=True, eq=False)
class Shown:
    """An analysis as far as it is, with what the page needs to show it."""

    analysis: Analysis
    player: PlayerData
    sound: SalientAudio | None = None


@dataclass(frozen=True)
class Download:
    """A file to take away."""

    label: str
    name: str
    mime: str
    data: bytes


class Memory:
    """Remembers the last results of pure functions by key, up to a number of them and of bytes they hold."""

    def __init__(self, size: int, most_bytes: int = 2**28) -> None:
        self._size, self._most_bytes = size, most_bytes
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        with self._lock:
            self._values[key] = value, held_bytes(value)
            held = sum(weight for _, weight in self._values.values())
            while len(self._values) > 1 and (len(self._values) > self._size or held > self._most_bytes):
                held -= self._values.popitem(last=False)[1][1]
        return value


_predictions = Memory(512)
_attributions = Memory(128)
_sounds = Memory(24, 2**29)


def digest(*parts: object) -> str:
    """A short key of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def once(engine: Engine, key: str, work: Work, visitor: str | None = None) -> Job:
    """The job with this key, even if it failed a moment ago: a page that looks again and again must come to rest."""
    return engine.submit(key, work, visitor=visitor, retry_after=RETRY_AFTER)


def submit_open(engine: Engine, data: bytes, name: str, limits: MediaLimits | None = None) -> Job:
    """Decode an uploaded file; the result is a `Clip`."""
    key = digest("open", hashlib.sha256(data).hexdigest(), name, limits.model_dump() if limits else None)
    return engine.submit(key, lambda job: open_clip(data, name=name, limits=limits, require_audio=False))


def submit_thumbnail(engine: Engine, example_id: str) -> Job:
    """Draw the small picture of an example; the result is a PNG."""
    from workbench.examples import thumbnail

    return engine.submit(digest("thumbnail", example_id), lambda job: thumbnail(example_id))


def submit_analysis(
    engine: Engine, clip: Clip, model: str, settings: AnalysisSettings, scale: Scale, visitor: str | None = None
) -> Job:
    """Analyse a clip for a visitor (see `Engine.submit`); the result and the partial results are `Shown`."""
    key = digest("analysis", clip.content_hash, clip.name, model, settings.model_dump(mode="json"), scale)
    return once(engine, key, lambda job: _analyze(engine, job, clip, model, settings, scale), visitor)


def _analyze(engine: Engine, job: Job, clip: Clip, model: str, settings: AnalysisSettings, scale: Scale) -> Shown:
    import workbench.analysis as core
    from models.prediction import predict
    from saliency.attribution import attribute
    from saliency.reconstruction import keep
    from workbench.figures import player_data

    job.progress("Loading the model", 0.0)
    recognizer = engine.recognizer(model)
    identity = (clip.content_hash, model, recognizer.card.content_hash)

    def show(analysis: Analysis, sound: SalientAudio | None) -> Shown:
        return Shown(analysis, player_data(clip, analysis, sound, STORE.put, scale), sound)

    def remembered_prediction(*args: Any, **kwargs: Any) -> Any:
        return _predictions.get(digest("prediction", identity), lambda: predict(*args, **kwargs))

    def remembered_attribution(
        recognizer: Any, waveform: Any, target: str, method: str, parameters: Any, **kwargs: Any
    ) -> Any:
        key = digest("attribution", identity, target, method, parameters, kwargs.get("explain"))
        return _attributions.get(key, lambda: attribute(recognizer, waveform, target, method, parameters, **kwargs))

    def remembered_keep(clip: Clip, attribution: Any, frontend: Any, settings: Any) -> Any:
        key = digest(
            "keep", identity, attribution.target, attribution.method, attribution.parameters, attribution.explained,
            settings.model_dump(),
        )  # fmt: skip
        return _sounds.get(key, lambda: keep(clip, attribution, frontend, settings))

    steps = core.Steps(remembered_prediction, remembered_attribution, remembered_keep)

    def partial(analysis: Analysis, sound: SalientAudio | None) -> None:
        job.partial = show(analysis, sound)

    analysis, sound = core.analyze_with_sound(
        clip, recognizer, settings, progress=job.progress, partial=partial, steps=steps
    )
    return show(analysis, sound)


def submit_downloads(engine: Engine, clip: Clip, shown: Shown) -> Job:
    """Make the files of an analysis; the result is a list of `Download`."""
    analysis = shown.analysis
    key = digest("downloads", clip.content_hash, clip.name, analysis.summary())
    return once(engine, key, lambda job: _downloads(job, clip, shown))


def _downloads(job: Job, clip: Clip, shown: Shown) -> list[Download]:
    from models.clip import encode_wav
    from workbench.picture import picture_png
    from workbench.report import report_html

    analysis, sound = shown.analysis, shown.sound
    assert sound is not None
    stem = safe_stem(clip.name)
    job.progress("Writing the report", 0.1)
    summary = json.dumps(analysis.summary(), indent=1, ensure_ascii=False).encode()
    return [
        Download("Report (HTML, plays offline)", f"{stem}-report.html", "text/html", report_html(clip, analysis, sound).encode()),
        Download("What it heard (WAV)", f"{stem}-heard.wav", "audio/wav", encode_wav(sound.kept, clip.sample_rate, "FLOAT")),
        Download("What is left (WAV)", f"{stem}-left.wav", "audio/wav", encode_wav(sound.removed, clip.sample_rate, "FLOAT")),
        Download("Picture (PNG)", f"{stem}.png", "image/png", picture_png(clip, analysis)),
        Download("Numbers (JSON)", f"{stem}-analysis.json", "application/json", summary),
        Download("All data (.earwitness)", f"{stem}.earwitness", "application/zip", analysis.to_zip()),
    ]  # fmt: skip


def safe_stem(name: str) -> str:
    """A file name's stem made of letters, digits, dots, dashes and underscores."""
    stem = name.rsplit(".", 1)[0]
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")[:60]
    return kept or "clip"
