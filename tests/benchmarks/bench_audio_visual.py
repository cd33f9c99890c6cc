"""What sound and picture give the audio-video models, alone, together and mismatched, and where the event graph's links point.

Prints the tables of docs/audio-visual.md:
``python tests/benchmarks/bench_audio_visual.py FOLDER [--folds 7 5] [--draws 20] [MODEL ...]``

FOLDER is what ``python -m models.data.scenes render-audio-visual`` wrote.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import parsed
from torch import Tensor

from models.checkpoint import load_recognizer
from models.clip import open_clip
from models.recognizer import Recognizer
from models.training.waveforms import fit_samples
from saliency.graph import GraphExplanation, encode_clip, explain_graph
from saliency.graph_ablation import deletion_curve

MODELS = ("event-graph-scenes", "equiav-scenes")
LEAST_OVERLAP = 0.1
"""Seconds that a node has to share with an event to count as lying at its time."""
CONDITIONS = ("sound and picture", "sound alone", "picture alone", "mismatched picture")

Span = tuple[float, float]


@dataclass(frozen=True)
class TestClip:
    """A rendered clip and its truth, a line of ``scenes.jsonl``."""

    path: Path
    label: str
    shown: frozenset[str]
    roles: tuple[str, ...]
    heard: tuple[Span, ...]
    seen: tuple[Span, ...]


def read_clips(folder: Path, fold: int) -> list[TestClip]:
    """The clips of a fold."""
    clips = []
    for line in (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines():
        truth: dict[str, Any] = json.loads(line)
        if truth["fold"] == fold:
            actors, found = truth["actors"], truth["correspondences"]
            clips.append(TestClip(
                folder / "clips" / truth["filename"], truth["category"], frozenset(a["label"] for a in actors),
                tuple(a["role"] for a in actors), tuple((c["heard"][0], c["heard"][1]) for c in found),
                tuple((c["seen"][0], c["seen"][1]) for c in found),
            ))  # fmt: skip
    return clips


def mismatched(clips: Sequence[TestClip]) -> list[int]:
    """For every clip another one that does not show its class, far from it in the list and no clip twice if possible."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(clips)).tolist()
    chosen = []
    for clip in clips:
        found = next((i for i in order if clip.label not in clips[i].shown), order[0])
        order.remove(found)
        order.append(found)
        chosen.append(found)
    return chosen


@torch.no_grad()
def conditions(recognizer: Recognizer, clips: Sequence[TestClip]) -> dict[str, tuple[float, float]]:
    """Accuracy, and mean score of the true class, under every condition."""
    sounds, pictures = [], []
    for clip in clips:
        media = open_clip(clip.path)
        sounds.append(media.at(recognizer.sample_rate))
        frames = recognizer.frames(media.video)
        assert frames is not None
        pictures.append(recognizer.network.encode_frames(frames))
    grey = recognizer.frames(None)
    assert grey is not None
    blank = recognizer.network.encode_frames(grey)
    others = mismatched(clips)
    length = recognizer.window_samples
    assert length is not None
    truth = torch.tensor([recognizer.target_index(clip.label) for clip in clips])
    result = {}
    for condition in CONDITIONS:
        scores = []
        for index, sound in enumerate(sounds):
            heard = fit_samples(sound * 0.0 if condition == "picture alone" else sound, length)
            seen: Tensor = pictures[others[index] if condition == "mismatched picture" else index]
            seen = blank if condition == "sound alone" else seen
            scores.append(recognizer.probabilities(recognizer(recognizer.features(heard), seen)))
        table = torch.cat(scores)
        right = (table.argmax(dim=1) == truth).float().mean().item()
        result[condition] = right, table[torch.arange(len(truth)), truth].mean().item()
    return result


def at_time(starts: np.ndarray, ends: np.ndarray, spans: Sequence[Span], least: float = LEAST_OVERLAP) -> np.ndarray:
    """Which nodes share at least `least` seconds with one of the spans; all of a shorter span counts, too."""
    hit = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        shared = np.minimum(ends, end) - np.maximum(starts, start)
        hit |= shared >= min(least, end - start) - 1e-9
    return hit


@dataclass(frozen=True)
class Links:
    """Where a graph's links between picture and sound point, in the order of their importance.

    Attributes
    ----------
    sound, picture
        Whether an end of a link lies at the true time of the sound, of the motion of what sounds; ``[n_edges]``.
    chance
        Share of all pairs of nodes of which both would.
    """

    sound: np.ndarray
    picture: np.ndarray
    chance: float

    @property
    def right(self) -> np.ndarray:
        """Both."""
        return self.sound & self.picture


def links(explanation: GraphExplanation, clip: TestClip) -> Links:
    """Judge the links of one clip; those between the same nodes in several layers are counted together."""
    sound = at_time(explanation.node_start, explanation.node_end, clip.heard) & ~explanation.is_video
    picture = at_time(explanation.node_start, explanation.node_end, clip.seen) & explanation.is_video
    total: dict[tuple[int, int], float] = {}
    for source, target, importance in zip(
        explanation.edge_source, explanation.edge_target, explanation.edge_importance, strict=True
    ):
        if explanation.is_video[source] != explanation.is_video[target]:
            pair = (int(source), int(target))
            total[pair] = total.get(pair, 0.0) + float(importance)
    best = sorted(total, key=lambda pair: -total[pair])
    chance = sound.sum() / (~explanation.is_video).sum() * picture.sum() / explanation.is_video.sum()
    return Links(
        np.array([sound[target] for _, target in best]),
        np.array([picture[source] for source, _ in best]),
        float(chance),
    )


def judged_links(recognizer: Recognizer, clips: Sequence[TestClip], draws: int = 0) -> tuple[list[Links], list[float]]:
    """Links for the model's own answer in scenes with one sounding and one silent moving object, and the ratio of areas
    under the deletion curves (`saliency.graph_ablation`)."""
    found, ratios = [], []
    for clip in clips:
        if clip.roles.count("sounding") != 1 or clip.roles.count("silent") != 1 or not clip.heard:
            continue
        media = open_clip(clip.path)
        waveform = media.at(recognizer.sample_rate)
        encoded = encode_clip(recognizer, waveform, media.video)
        explanation = explain_graph(recognizer, waveform, media.video, encoded=encoded)
        found.append(links(explanation, clip))
        if draws:
            ratios.append(deletion_curve(recognizer, explanation, draws=draws).area_ratio)
    return found, ratios


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--folds", nargs="+", type=int, default=[7, 5])
    parser.add_argument("--draws", type=int, default=20, help="random orders of deletion; 0: no deletion")
    arguments = parsed(parser, "folder")
    torch.set_num_threads(1)
    clips = {fold: read_clips(arguments.folder, fold) for fold in arguments.folds}
    print(f"| model | clips | {' | '.join(CONDITIONS)} |\n|---|---|{'---|' * len(CONDITIONS)}")
    recognizers = [load_recognizer(name, "cpu") for name in arguments.models]
    for recognizer in recognizers:
        for fold, part in clips.items():
            cells = [f"{100 * a:.1f} % ({s:.2f})" for a, s in conditions(recognizer, part).values()]
            print(f"| {recognizer.name} | fold {fold} ({len(part)}) | {' | '.join(cells)} |", flush=True)
    print(
        "\n| model | clips | best link right | its sound | its picture | of the best three | all links | random pairs | "
        "deletion |\n|---|---|---|---|---|---|---|---|---|"
    )
    for recognizer in recognizers:
        if not recognizer.supports("graph"):
            continue
        for fold, part in clips.items():
            found, ratios = judged_links(recognizer, part, arguments.draws)
            values = [
                [x.right[0] for x in found], [x.sound[0] for x in found], [x.picture[0] for x in found],
                [x.right[:3].mean() for x in found], [x.right.mean() for x in found], [x.chance for x in found],
            ]  # fmt: skip
            cells = [f"{100 * np.mean(v):.1f} %" for v in values]
            below = f"{np.mean(ratios):.2f}" if ratios else ""
            print(f"| {recognizer.name} | fold {fold} ({len(found)}) | {' | '.join(cells)} | {below} |", flush=True)


if __name__ == "__main__":
    main()
