"""The synthesizers by class label: one physically motivated model each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.data.scenes import machines, nature, struck, voices
from models.data.scenes.dsp import Signal
from models.errors import SettingsError


@dataclass(frozen=True)
class Synthesizer:
    """How one class is rendered, and what is usual for it.

    Parameters
    ----------
    takes
        Renders a number of short sounds of one individual; `None` for sounds that last as long as asked.
    stretch
        Renders one sound of a length in s; `None` for sounds that have their own length.
    places
        Places (see `dsp.ROOMS`) where the sound is usually heard.
    onsets
        Draws plausible onsets in s for a random scene of a given length in s.
    """

    takes: Callable[[np.random.Generator, int], list[Signal]] | None
    stretch: Callable[[np.random.Generator, float], Signal] | None
    places: tuple[str, ...]
    onsets: Callable[[np.random.Generator, float], list[float]]

    def render(self, rng: np.random.Generator, durations: list[float]) -> list[Signal]:
        """Render one sound per wanted duration in s; sounds with their own length ignore the duration."""
        if self.takes is not None:
            return self.takes(rng, len(durations))
        assert self.stretch is not None
        return [self.stretch(rng, duration) for duration in durations]


def _spaced(first: tuple[float, float], gap: tuple[float, float], count: tuple[int, int]) -> Callable[..., list[float]]:
    """Onsets with random gaps, as many as drawn and as fit."""

    def draw(rng: np.random.Generator, seconds: float) -> list[float]:
        gaps = rng.uniform(*gap, int(rng.integers(count[0], count[1] + 1)) - 1)
        onsets = rng.uniform(*first) + np.concatenate([[0.0], np.cumsum(gaps)])
        return [float(onset) for onset in onsets if onset < seconds - 0.4]

    return draw


def _beating(rng: np.random.Generator, seconds: float) -> list[float]:
    period = rng.choice([0.25, 0.4, 0.5, 0.5, 1.0]) * rng.uniform(0.97, 1.03)
    return [float(onset) for onset in np.arange(rng.uniform(0.05, period), seconds - 0.1, period)]


def _ringing(rng: np.random.Generator, seconds: float) -> list[float]:
    """The even strokes of a bell that swings."""
    onsets = rng.uniform(0.3, 1.2) + rng.uniform(0.9, 1.6) * np.arange(int(rng.integers(2, 5)))
    return [float(onset) for onset in onsets if onset < seconds - 0.4]


def _drumming(rng: np.random.Generator, seconds: float) -> list[float]:
    """One to three bars of a rhythm, played by a person."""
    bars = ((0, 2, 4, 5, 6), (0, 3, 4, 6), (0, 1, 2, 4, 6), (0, 4, 6, 7), (0, 2, 3, 4, 6, 7))
    bar = bars[int(rng.integers(len(bars)))]
    step = rng.uniform(0.15, 0.22)
    steps = np.concatenate([np.array(bar) + 8 * k for k in range(int(rng.integers(1, 4)))])
    onsets = rng.uniform(0.2, 0.9) + step * steps + rng.uniform(-0.006, 0.006, len(steps))
    return [float(onset) for onset in onsets if onset < seconds - 0.4]


def _throughout(rng: np.random.Generator, seconds: float) -> list[float]:
    return [0.0]


SYNTHESIZERS: dict[str, Synthesizer] = {
    "dog": Synthesizer(voices.dog_bark, None, ("garden", "yard"), _spaced((0.2, 1.5), (0.35, 1.1), (2, 6))),
    "rooster": Synthesizer(voices.rooster_crow, None, ("yard", "garden"), _spaced((0.2, 1.8), (2.4, 3.0), (1, 1))),
    "crying_baby": Synthesizer(voices.baby_cry, None, ("room",), _spaced((0.1, 0.8), (1.35, 1.7), (2, 3))),
    "sneezing": Synthesizer(voices.sneeze, None, ("room",), _spaced((0.3, 2.0), (1.2, 2.0), (1, 2))),
    "clock_tick": Synthesizer(machines.clock_tick, None, ("room",), _beating),
    "rain": Synthesizer(None, nature.rain, ("open", "garden"), _throughout),
    "sea_waves": Synthesizer(None, nature.sea_wave, ("open",), _spaced((0.0, 0.1), (1.4, 2.4), (1, 3))),
    "crackling_fire": Synthesizer(None, nature.crackling_fire, ("open", "room"), _throughout),
    "helicopter": Synthesizer(None, machines.helicopter, ("open",), _throughout),
    "chainsaw": Synthesizer(None, machines.chainsaw, ("yard", "open"), _throughout),
}
"""The ten classes of ESC-10, which models are trained on and which their old sounds are rehearsed from."""

FURTHER_SYNTHESIZERS: dict[str, Synthesizer] = {
    "bell": Synthesizer(struck.bell_strike, None, ("open", "yard"), _ringing),
    "drum": Synthesizer(struck.drum_strike, None, ("room", "yard"), _drumming),
}
"""Sounds for scenes that no shipped model is trained on.

They stand apart because data to train on, and what is rehearsed in teaching, come from all of `SYNTHESIZERS` in turn: one
more class there would give the same seed other sounds.
"""


def synthesizer(label: str) -> Synthesizer:
    """Look up a synthesizer.

    Raises
    ------
    SettingsError
        If there is none for `label`.
    """
    known = SYNTHESIZERS | FURTHER_SYNTHESIZERS
    if label not in known:
        raise SettingsError(f"There is no synthesizer for {label!r}.", f"Choose one of {', '.join(known)}.")
    return known[label]
