"""What a model did over time as a job of the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.clip import Clip
from workbench.blobs import STORE
from workbench.engine.analyses import Download, digest, once, safe_stem
from workbench.engine.pool import Engine, Job

if TYPE_CHECKING:
    from saliency.listening import Listening
    from workbench.player.data import PlayerData


@dataclass(frozen=True, eq=False)
class ShownListening:
    """What there is over time, with what the page needs to show it.

    Attributes
    ----------
    player, through
        The clip with its lanes, and the listen-through of models that listen again.
    model
        Title of the model.
    clip_hash
        Of the clip that it belongs to.
    downloads
        Files to take away, once all is there.
    """

    listening: Listening
    player: PlayerData
    through: PlayerData | None
    model: str
    clip_hash: str
    downloads: tuple[Download, ...] = ()


def submit_listening(engine: Engine, clip: Clip, model: str, target: str | None, visitor: str | None = None) -> Job:
    """All that a model shows over time, for a visitor (see `Engine.submit`); results are `ShownListening`."""
    key = digest("listening", clip.content_hash, clip.name, model, target)
    return once(engine, key, lambda job: _listen(engine, job, clip, model, target), visitor)


def _listen(engine: Engine, job: Job, clip: Clip, model: str, target: str | None) -> ShownListening:
    from models.clip import encode_wav
    from saliency.listening import listen
    from workbench.playback_picture import listening_png
    from workbench.playback_report import listening_report
    from workbench.playback_view import as_json, clip_player, through_player

    job.progress("Loading the model", 0.0)
    recognizer = engine.recognizer(model)
    title = recognizer.card.title or recognizer.name

    def show(found: Listening) -> ShownListening:
        through = through_player(clip, found, STORE.put)
        return ShownListening(
            found, clip_player(clip, found, STORE.put), through[0] if through else None, title, clip.content_hash
        )

    def partial(found: Listening) -> None:
        job.partial = show(found)

    found = listen(clip, recognizer, target, progress=job.progress, partial=partial)
    job.progress("Writing the files", 0.5)
    stem, files = safe_stem(clip.name), []
    again = through_player(clip, found, STORE.put)
    files.append(Download("Report (HTML, plays offline)", f"{stem}-over-time.html", "text/html",
                          listening_report(clip, found, title).encode()))  # fmt: skip
    if again is not None:
        sound = encode_wav(again[1].waveform, clip.sample_rate, "FLOAT")
        files.append(Download("Listen-through (WAV)", f"{stem}-listen-through.wav", "audio/wav", sound))
    files.append(Download("Picture (PNG)", f"{stem}-over-time.png", "image/png", listening_png(clip, found)))
    numbers = json.dumps(as_json(found), indent=1, ensure_ascii=False).encode()
    files.append(Download("Numbers (JSON)", f"{stem}-over-time.json", "application/json", numbers))
    shown = show(found)
    return ShownListening(found, shown.player, shown.through, title, clip.content_hash, tuple(files))
