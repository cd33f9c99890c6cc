"""Everything that a recognizer offers over time for one clip and one class: its passes, if it listens again, and its courses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.clip import Clip
from models.prediction import predict
from models.recognizer import Recognizer
from saliency.over_time import KINDS, OverTime, kinds_of, over_time
from saliency.playback import PlaybackExplanation, listen_again

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Listening:
    """What there is over time.

    Attributes
    ----------
    target, probability
        The class, and how probable the model finds it in the clip.
    playback
        The passes of a model that listens again; None for others.
    courses
        One value for every moment, by kind, best first.
    hears_once
        Whether the model has no playback.
    """

    target: str
    probability: float
    playback: PlaybackExplanation | None
    courses: tuple[OverTime, ...]
    hears_once: bool


def listen(
    clip: Clip,
    recognizer: Recognizer,
    target: str | None = None,
    *,
    progress: Progress | None = None,
    partial: Callable[[Listening], None] | None = None,
) -> Listening:
    """All views over time that a recognizer supports.

    Parameters
    ----------
    target
        Label of the class; None: the most probable.
    progress
        Called with what is being done and the share of it. It may raise, to cancel.
    partial
        Called with what is there, after every step.

    Raises
    ------
    SettingsError
        If there is no such class.
    """

    def tell(stage: str) -> Callable[[float], None]:
        def advance(share: float) -> None:
            if progress is not None:
                progress(stage, share)

        advance(0.0)
        return advance

    advance = tell("Listening")
    waveform = clip.at(recognizer.sample_rate)
    prediction = predict(
        recognizer, waveform, video=clip.video, progress=lambda done, total: advance(done / total)
    )  # fmt: skip
    target = prediction.ranking()[0][0] if target is None else target
    probability = float(prediction.scores[recognizer.target_index(target)])
    again = recognizer.supports("playback")
    found = Listening(target, probability, None, (), not again)
    if again:
        played = listen_again(recognizer, waveform, target, progress=tell("Listening again"))
        found = Listening(target, probability, played, (), False)
        if partial is not None:
            partial(found)
    for kind in kinds_of(recognizer):
        course = over_time(
            recognizer, waveform, target, kind, video=clip.video, progress=tell(KINDS[kind].title)
        )  # fmt: skip
        found = Listening(target, probability, found.playback, (*found.courses, course), not again)
        if partial is not None:
            partial(found)
    return found
