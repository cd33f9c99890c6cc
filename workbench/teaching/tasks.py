"""What the page Teach lets the engine compute beside it: opening examples, looking through them, comparing, packing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.clip import Clip, MediaLimits, encode_flac, encode_wav, open_clip
from models.errors import EarwitnessError
from models.teaching.contract import Finding, TeachSettings
from workbench.blobs import STORE
from workbench.engine import Engine, Job
from workbench.engine.analyses import Shown, digest
from workbench.teaching.lessons import LONGEST_SECONDS, Lesson, LessonBook

if TYPE_CHECKING:
    from models.recognizer import Recognizer
    from saliency.difference import Movement
    from workbench.player.data import PlayerData

# An example is short; what is longer is refused while it is being decoded.
LIMITS = MediaLimits(max_seconds=LONGEST_SECONDS, max_bytes=100 * 2**20)


@dataclass(frozen=True)
class Given:
    """Something a visitor gave: the bytes of a file, or a clip that is open already."""

    name: str
    content: bytes | Clip
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Additions:
    """How many examples were added, and what was wrong with the others."""

    added: int
    refused: tuple[tuple[str, EarwitnessError], ...]


@dataclass(frozen=True)
class Preview:
    """An example as its row shows it: sound (WAV) and a small spectrogram (PNG)."""

    sound: bytes
    picture: bytes


@dataclass(frozen=True, eq=False)
class Moved:
    """How the explanation of a clip moved, and how to show it."""

    movement: Movement
    player: PlayerData


def submit_additions(
    engine: Engine, book: LessonBook, lesson_id: str, given: Sequence[Given], ticket: str, limits: MediaLimits = LIMITS
) -> Job:
    """Open files and add them to a lesson; `ticket` tells one act of adding from another. The result is `Additions`."""

    def work(job: Job) -> Additions:
        added, refused = 0, []
        for number, item in enumerate(given):
            job.progress("Opening the examples", number / len(given))
            try:
                clip = (
                    item.content
                    if isinstance(item.content, Clip)
                    else open_clip(item.content, name=item.name, limits=limits)
                )
                book.add(lesson_id, _bytes_of(item.content), clip.name, item.labels, clip.duration)
                added += 1
            except EarwitnessError as error:
                refused.append((item.name, error))
        return Additions(added, tuple(refused))

    return engine.submit(digest("add examples", lesson_id, ticket), work)


def _bytes_of(content: bytes | Clip) -> bytes:
    if isinstance(content, bytes):
        return content
    source = content.video.source.content if content.video is not None else None
    return source if isinstance(source, bytes) else encode_flac(content.waveform, content.sample_rate, "PCM_24")


def submit_example_lesson(engine: Engine, book: LessonBook, lesson_id: str) -> Job:
    """Fill a lesson with the two sounds that no shipped model knows; the result is `Additions`."""

    def work(job: Job) -> Additions:
        from workbench.teaching.example import SAMPLE_RATE, example_sounds

        sounds = example_sounds()
        for number, (name, label, waveform) in enumerate(sounds):
            job.progress("Making the example", number / len(sounds))
            data = encode_flac(waveform, SAMPLE_RATE)
            book.add(lesson_id, data, name, (label,), waveform.shape[1] / SAMPLE_RATE)
        return Additions(len(sounds), ())

    return engine.submit(digest("example lesson", lesson_id), work)


def submit_preview(engine: Engine, path: Path) -> Job:
    """What a row plays and shows of an example; the result is a `Preview`."""

    def work(job: Job) -> Preview:
        import numpy as np

        from workbench.figures import grey_png, level_range, spectrogram_db

        clip = open_clip(path, name="example", limits=LIMITS)
        mono = clip.mono()[None]
        loudest = max(1.0, float(np.abs(mono).max()))
        image = spectrogram_db(clip.waveform, clip.sample_rate, "mel", min(12000.0, clip.sample_rate / 2))
        bottom, top = level_range(image)
        shade = 28 + 190 * np.clip((image - bottom) / (top - bottom), 0, 1)
        picture = grey_png(shade[::4, :: max(1, image.shape[1] // 220)].astype(np.uint8))
        return Preview(encode_wav(mono / loudest, clip.sample_rate), picture)

    return engine.submit(digest("preview", path.name), work)


def lesson_key(lesson: Lesson) -> list[Any]:
    """Everything of a lesson that decides what is found in it."""
    return [[e.file, e.name, e.labels, e.held_out] for e in lesson.examples]


def submit_examination(engine: Engine, book: LessonBook, lesson: Lesson, base: str, settings: TeachSettings) -> Job:
    """Look for what is wrong with the examples; the result is a list of `Finding`."""

    def work(job: Job) -> list[Finding]:
        from models.teaching.examination import examine_with

        def heard(done: int, total: int) -> None:
            job.progress("Looking through the examples", done / max(1, total))

        return examine_with(engine.recognizer(base), book.teaching_examples(lesson), settings, heard).findings

    return engine.submit(digest("examine", base, lesson_key(lesson), settings.model_dump()), work)


@dataclass(frozen=True)
class Ways:
    """What can be trained of a model.

    Attributes
    ----------
    sentences
        What each way means.
    default
        The way that suits the examples.
    seconds
        How long each takes about, on this machine.
    """

    sentences: dict[str, str]
    default: str
    seconds: dict[str, float]


def submit_ways(engine: Engine, base: str, stamp: str, n_examples: int, n_labels: int) -> Job:
    """Which ways a model offers, and how long they take; the result is `Ways`."""

    def work(job: Job) -> Ways:
        from models.teaching.memory import load_memory
        from models.teaching.ways import chosen_way, offered_ways, teachable_problem

        recognizer = engine.recognizer(base)
        problem = teachable_problem(recognizer)
        if problem:
            raise EarwitnessError(problem, "Choose another model.")
        offered = offered_ways(recognizer)
        seconds = expected_seconds(recognizer, max(2, n_examples))
        remembers = load_memory(recognizer) is not None
        default = chosen_way(recognizer, TeachSettings(), n_examples, n_labels, remembers=remembers)
        return Ways(offered, default, {way: seconds[way] for way in offered})

    return engine.submit(digest("ways", base, stamp, n_examples, n_labels), work)


_BEGINNING = 5.0  # seconds until a process has loaded its libraries
_GENERATED = 24  # sounds that are rehearsed beside the examples, about
_BACKWARD = 3.0  # a step of training takes about so many times a forward pass


def expected_seconds(recognizer: Recognizer, n_examples: int) -> dict[str, float]:
    """About how long each way takes: from the time of a forward pass here and now."""
    import torch

    from models.teaching.deep import default_epochs
    from models.teaching.lesson import default_views
    from models.teaching.ways import silent_input

    features, frames = silent_input(recognizer)
    with torch.no_grad():
        recognizer.network(features) if frames is None else recognizer.network(features, frames)
        begin = time.perf_counter()
        recognizer.network(features) if frames is None else recognizer.network(features, frames)
        once = time.perf_counter() - begin
    sounds = n_examples + _GENERATED
    head = _BEGINNING + once * (n_examples * (1 + default_views(n_examples)) + 3 * _GENERATED)
    deep = head + _BACKWARD * once * sounds * default_epochs(sounds)
    return {"head": head, "last_blocks": head + 0.6 * (deep - head), "low_rank": deep, "everything": deep}


def submit_movement(engine: Engine, clip: Clip, before: Shown, after: Shown) -> Job:
    """Compare two explanations of a clip; the result is `Moved`."""
    key = digest("movement", clip.content_hash, before.analysis.summary(), after.analysis.summary())
    return engine.submit(key, lambda job: _moved(clip, before, after))


def _moved(clip: Clip, before: Shown, after: Shown) -> Moved:
    from saliency.difference import movement
    from workbench.figures import display_top, grey_png, on_display, player_data, strength
    from workbench.player.data import Overlay, Track

    first, second = before.analysis.attribution, after.analysis.attribution
    if first is None or second is None or before.sound is None or after.sound is None:
        raise EarwitnessError("One of the two explanations is empty.", "Choose another clip or class.")
    found = movement(first, second)
    shown = player_data(clip, None, None, STORE.put)
    f_max = display_top(clip.sample_rate, "mel")
    heard = after.analysis.model.sample_rate / 2
    picture = on_display(found.values, found.times, found.frequencies, shown.duration, "mel", f_max, heard)
    # One gain for both, or the change would be heard where there is only a change of level.
    gain = min(before.sound.gain, after.sound.gain)

    def track(name: str, label: str, waveform: Any) -> Track:
        return Track(id=name, label=label, url=STORE.put(encode_wav(waveform * gain, clip.sample_rate), "audio/wav"))

    player = shown.model_copy(
        update={
            "clip_id": f"{clip.content_hash[:24]}-moved",
            "overlay": Overlay(
                supports_url=STORE.put(grey_png(strength(picture)), "image/png"),
                opposes_url=STORE.put(grey_png(strength(-picture)), "image/png"),
            ),
            "tracks": [
                track("before", "Heard before", before.sound.kept), track("after", "Hears now", after.sound.kept),
                track("original", "Original", clip.waveform),
            ],
            "segments": None,
            "strings": {"supports": "More than before", "opposes": "Less than before"},
        }
    )  # fmt: skip
    return Moved(found, player)


def submit_zip(engine: Engine, folder: Path, name: str, stamp: str) -> Job:
    """Pack a model; the result is the bytes of a ZIP file."""
    from workbench.teaching.taught import zip_of_model

    return engine.submit(digest("zip", folder.name, name, stamp), lambda job: zip_of_model(folder, name))
