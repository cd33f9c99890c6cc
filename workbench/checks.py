"""Whether the model itself agrees with its explanation: it hears what is kept, what is left, and a control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.clip import Clip
from models.prediction import Prediction, predict
from models.recognizer import Recognizer
from saliency.attribution import Attribution
from saliency.reconstruction import SalientAudio, salient_audio


@dataclass(frozen=True)
class Checks:
    """The model's own score for the class when it hears only a part of the clip.

    Attributes
    ----------
    whole, kept, removed
        Score of the clip, of what is kept, of what is left; of the explained part where a long clip was not explained as
        a whole, because the rest would hide any difference.
    control
        Mean score of what is left when an equally large part *elsewhere in time* is removed instead.
    """

    whole: float
    kept: float
    removed: float
    control: float


def check(
    clip: Clip,
    recognizer: Recognizer,
    prediction: Prediction,
    attribution: Attribution,
    mask: np.ndarray,
    sound: SalientAudio,
    advance: Callable[[float], None],
) -> Checks:
    """Let the model hear the kept part, the rest, and the clip without an equally large part elsewhere.

    Parameters
    ----------
    mask, sound
        What the explanation keeps, ``[frames, n_mels]``, and the clip split by it.
    advance
        Called with the share that is done.
    """
    index = recognizer.target_index(attribution.target)
    times = attribution.times
    start, end = attribution.explained
    whole_clip = end - start >= 0.98 * clip.duration
    first, last = (0, clip.n_samples) if whole_clip else (int(start * clip.sample_rate), int(end * clip.sample_rate))
    done = 0

    def heard(waveform: np.ndarray) -> float:
        nonlocal done
        part = Clip.from_array(waveform[:, first:last], clip.sample_rate).at(recognizer.sample_rate)
        seen = clip.video if whole_clip or clip.video is None else clip.video.excerpt(start, end)
        before, done = done, done + 1

        def tell(now: int, total: int) -> None:
            advance((before + now / total) / 6)

        return float(predict(recognizer, part, video=seen, progress=tell).scores[index])

    explained = (times >= start) & (times <= end)
    frames = np.flatnonzero(explained if explained.any() else times >= 0)
    controls = []
    for share in (0.25, 0.5, 0.75):
        moved = np.zeros_like(mask)
        moved[frames] = np.roll(mask[frames], round(share * len(frames)), axis=0)
        controls.append(heard(salient_audio(clip, moved, times, recognizer.frontend).removed))
    whole = float(prediction.scores[index]) if whole_clip else heard(clip.waveform)
    return Checks(whole, heard(sound.kept), heard(sound.removed), float(np.mean(controls)))
