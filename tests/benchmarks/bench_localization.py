"""Where the most relevant cells lie, against the known truth of the example scenes; prints the table of docs/localization.md.

``python tests/benchmarks/bench_localization.py [MODEL ...]``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.frontends import FrontEnd
from models.prediction import predict
from models.recognizer import Recognizer
from saliency.attribution import attribute
from saliency.reconstruction import KeepSettings, smoothed

CLIPS = Path(__file__).parents[2] / "assets" / "clips"
MARGIN, SHARE = 0.05, 0.05


def truth_mask(events: list[dict], label: str, times: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Cells inside a true box of a class, widened by 50 ms and one mel band."""
    inside = np.zeros((len(times), frontend.n_mels), dtype=bool)
    for event in events:
        if event["label"] != label:
            continue
        in_time = (times >= event["onset"] - MARGIN) & (times <= event["offset"] + MARGIN)
        bands = np.flatnonzero((frontend.frequencies >= event["f_low"]) & (frontend.frequencies <= event["f_high"]))
        first, last = max(0, bands[0] - 1), min(frontend.n_mels - 1, bands[-1] + 1)
        inside[in_time, first : last + 1] = True
    return inside


def top_cells(values: np.ndarray, share: float = SHARE) -> np.ndarray:
    """The most relevant share of all cells."""
    count = max(1, round(share * values.size))
    chosen = np.zeros(values.size, dtype=bool)
    chosen[np.argsort(-values, axis=None)[:count]] = True
    return chosen.reshape(values.shape)


def rows(recognizer: Recognizer) -> list[tuple[str, str, float, float, float, bool]]:
    """What the table shows.

    Scene, class, share of the top cells inside the truth (as they are, and smoothed as people hear them), area of the
    truth, and whether the class is the predicted one.
    """
    found = []
    for path in sorted(CLIPS.glob("*.flac")):
        events = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["events"]
        clip = open_clip(path)
        prediction = predict(recognizer, clip.at(recognizer.sample_rate)).ranking()[0][0]
        for label in dict.fromkeys(e["label"] for e in events):
            result = attribute(recognizer, clip.at(recognizer.sample_rate), label)
            truth = truth_mask(events, label, result.times, recognizer.frontend)
            step = recognizer.frontend.hop_length / recognizer.sample_rate
            calm = smoothed(result.values, step, KeepSettings())
            raw, heard = (truth[top_cells(v)].mean() for v in (result.values, calm))
            found.append((path.stem, label, float(raw), float(heard), float(truth.mean()), label == prediction))
    return found


def main() -> None:
    """Print one table per model."""
    for name in sys.argv[1:] or ["resnet-esc10"]:
        table = rows(load_recognizer(name))
        print(
            f"\n## {name}\n\n| scene | class | predicted | inside | inside, smoothed | true area |\n|---|---|---|---|---|---|"
        )
        for scene, label, raw, heard, area, first in table:
            print(
                f"| {scene} | {label} | {'yes' if first else ''} | {100 * raw:.0f} % | {100 * heard:.0f} % | {100 * area:.0f} % |"
            )
        for wanted, chosen in (("predicted class of a scene", [r for r in table if r[5]]), ("every class", table)):
            for title, column in (("as they are", 2), ("smoothed", 3)):
                shares = np.array([row[column] for row in chosen])
                print(
                    f"\n{wanted.capitalize()}, top 5 % of cells {title}: {100 * shares.mean():.0f} % inside on average; "
                    f"{(shares >= 0.8).sum()} of {len(shares)} have at least 80 % inside."
                )


if __name__ == "__main__":
    main()
