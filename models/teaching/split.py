"""Which examples are kept out of training to test with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from models.teaching.contract import TeachingExample

_LEAST_TO_LEARN = 2


def held_out_examples(
    examples: Sequence[TeachingExample], usable: Sequence[int], same: Sequence[int], share: float, seed: int
) -> set[int]:
    """Indices of the examples to test with.

    Where no example of a class is marked, a share of them is drawn, class by class; copies of one sound stay together.

    Parameters
    ----------
    usable, same
        Indices of the examples that can be used, and for each the number of its sound.
    """
    held = {index for index in usable if examples[index].held_out}
    number_of = dict(zip(usable, same, strict=True))
    labels = list(dict.fromkeys(label for index in usable for label in examples[index].labels))
    for label in labels:
        own = [index for index in usable if label in examples[index].labels]
        if any(index in held for index in own):
            continue
        sounds = list(dict.fromkeys(number_of[index] for index in own))
        wanted = min(max(1, round(share * len(sounds))), len(sounds) - _LEAST_TO_LEARN) if share > 0 else 0
        if wanted < 1 or len(sounds) < 4:
            continue
        drawn = set(random.Random(f"{seed} {label}").sample(sounds, wanted))
        held |= {index for index in own if number_of[index] in drawn}
    return held
