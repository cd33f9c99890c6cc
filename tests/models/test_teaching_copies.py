"""The same sound twice is found whatever model is taught, and what only resembles it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.teaching import TeachingExample, examine
from models.teaching.examination import SAME_SOUND
from models.teaching.listening import outlines

RATE = 16000
CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"


def rain(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Steady noise with drops, of one colour for all seeds."""
    rng = np.random.default_rng(seed)
    noise = 0.02 * rng.standard_normal(round(seconds * RATE))
    for start in rng.integers(0, len(noise) - 400, 60):
        noise[start : start + 400] += 0.1 * np.exp(-np.arange(400) / 60) * rng.standard_normal(400)
    return noise.astype(np.float32)


def alike(*sounds: np.ndarray) -> np.ndarray:
    found = outlines([torch.from_numpy(sound) for sound in sounds], RATE, max(map(len, sounds)))
    return (found @ found.T).numpy()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda x: 0.1 * x, True),
        (lambda x: -x, True),
        (lambda x: x + 2e-4 * np.random.default_rng(9).standard_normal(len(x)).astype(np.float32), True),
        (lambda x: np.concatenate([x, np.zeros(480, np.float32)]), True),
        (lambda x: x[::-1].copy(), False),
        (lambda x: np.roll(x, RATE // 4), False),
        (lambda x: rain(2), False),
    ],
    ids=["softer", "inverted", "noisier", "longer", "backwards", "later", "other rain"],
)
def test_copies(change: object, same: bool) -> None:
    original = rain(1)
    assert (alike(original, change(original))[0, 1] > SAME_SOUND) == same  # type: ignore[operator]


def test_correlations_by_hand() -> None:
    # Correlation of a sound with itself is 1, of silence with anything 0; the order of sounds does not count.
    a, b = rain(1), rain(2)
    found = alike(a, b, np.zeros_like(a))
    np.testing.assert_allclose(np.diag(found), [1, 1, 0], atol=1e-3)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(alike(b, a)[0, 1], found[0, 1], atol=1e-6)


# Their front ends give a log-mel, three log-mels at different rates, and plain samples.
@pytest.mark.parametrize("model", ["resnet-esc10", "play-it-back-esc10", "event-graph-scenes"])
def test_whatever_the_model_reads(model: str, tmp_path: Path) -> None:
    sounds = [("rain", rain(1)), ("rain", rain(2)), ("waves", rain(3)), ("waves", 0.3 * rain(1))]
    examples = []
    for number, (label, sound) in enumerate(sounds):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, sound, RATE, subtype="FLOAT")
        examples.append(TeachingExample(path.name, path, (label,)))
    found = [f.examples for f in examine(CHECKPOINTS / model, examples) if f.kind.startswith("duplicate")]
    assert found == [(0, 3)]
