"""Does Play It Back replay the right moments? Prints the tables of docs/playback.md.

``python tests/benchmarks/bench_playback.py MODEL --data ESC-FOLDER [--scenes 20] [--write-card]``

Held-out clips: fold 5 of ESC-10, and generated scenes (another seed than the training's) in which a class is heard for a part of
the clip only and in which the truth is known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.card import Metric
from models.checkpoint import load_recognizer, write_card
from models.clip import Clip
from models.data import READERS
from models.data.esc_scenes import numbered_scene
from models.families.play_it_back import PlayItBack
from models.recognizer import Recognizer
from models.training.playback_evidence import NOT_BETTER, SelectionTest, selection_test
from models.training.waveforms import fit_samples, load_waveforms

SCENES_SEED = 2
DRAWS, ROTATIONS = 500, 10
COMMAND = "python tests/benchmarks/bench_playback.py {name} --data {data}"


@dataclass(frozen=True)
class Clips:
    """Features of all levels, targets, and where the class is heard on the clock's cells (None: not known)."""

    name: str
    features: Tensor
    targets: Tensor
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class Overlap:
    """What a pass replays against the true events: means over clips, with 95 % intervals.

    `iou` is of time that is replayed and time in which the class sounds; a `hit` is a segment whose centre lies in an event;
    `covered` is the share of the events that is replayed. `random_...`: segments of the same lengths at random places, mean
    and interval over draws.
    """

    step: int
    clips: int
    without: int
    replayed: float
    values: dict[str, tuple[float, float, float]]
    random: dict[str, tuple[float, float, float]]


def scene_clips(recognizer: Recognizer, per_class: int, seed: int = SCENES_SEED) -> Clips:
    """Scenes of which a part is silent, with their truth."""
    network = playback_network(recognizer)
    clock, rate = network.clock(), recognizer.sample_rate
    waveforms, rows = [], []
    for label in recognizer.labels:
        for number in range(per_class):
            scene = numbered_scene(label, 2 * number + 1, seed)
            heard = Clip.from_array(scene.waveform, scene.sample_rate).at(rate)
            waveforms.append(torch.from_numpy(fit_samples(heard, round(clock.seconds * rate))))
            centres = (np.arange(clock.n_cells) + 0.5) * clock.cell_seconds
            rows.append(np.any([(e.onset <= centres) & (centres < e.offset) for e in scene.events], axis=0))
    targets = torch.eye(len(recognizer.labels)).repeat_interleave(per_class, dim=0)
    return Clips("generated scenes", features_of(recognizer, torch.stack(waveforms)), targets, np.stack(rows))


def esc_clips(recognizer: Recognizer, root: Path) -> Clips:
    """The fold that nothing was trained on."""
    part = READERS["esc"](root, categories=list(recognizer.labels)).folds([5])
    window = recognizer.window_samples
    assert window is not None
    waveforms, targets = load_waveforms(part, recognizer.sample_rate, window)
    return Clips(f"{root.name}, fold 5", features_of(recognizer, waveforms), targets)


@torch.no_grad()
def features_of(recognizer: Recognizer, waveforms: Tensor) -> Tensor:
    """Features of ``[n, samples]``."""
    return torch.cat([recognizer.features(part).cpu() for part in waveforms.split(16)])


def playback_network(recognizer: Recognizer) -> PlayItBack:
    """The network of a corrected model."""
    network = recognizer.network
    if not isinstance(network, PlayItBack) or not network.config.corrected or network.config.playbacks == 0:
        raise SystemExit(f"{recognizer.name} is no corrected Play It Back.")
    return network


@torch.no_grad()
def listened(network: PlayItBack, clips: Clips) -> tuple[dict[str, float], list[list[np.ndarray]]]:
    """Accuracy of the encoder alone, after every pass and of all together; and the segments of every pass, per clip."""
    truth, right = clips.targets.argmax(dim=1), {}
    found: dict[str, list[Tensor]] = {}
    segments: list[list[np.ndarray]] = [[] for _ in range(network.config.playbacks + 1)]
    for part in clips.features.split(16):
        passes = network.listen(part, explain=True)
        decoder, encoder = network.decoder, network.encoder
        summaries = decoder.summarize(decoder.listen(network.contexts(passes)))
        by_pass = decoder.scores(summaries)[0]
        answers = {"encoder alone": encoder.classify(encoder.pool(passes[0].tokens))[0]}
        answers |= {f"after pass {step + 1}": by_pass[:, step] for step in range(by_pass.shape[1])}
        answers["all passes"] = decoder.predict(decoder.fuse(summaries))[0]
        for name, logits in answers.items():
            found.setdefault(name, []).append(logits.argmax(dim=1).cpu())
        for step, heard in enumerate(passes):
            segments[step] += heard.segments or []
    for name, parts in found.items():
        right[name] = (torch.cat(parts) == truth).double().mean().item()
    return right, segments


def at_random(segments: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Segments of the same lengths in another order and at other places, not overlapping."""
    lengths = rng.permutation(segments[:, 1] - segments[:, 0])
    gaps = np.sort(rng.integers(0, n_cells - lengths.sum() + 1, len(lengths)))
    starts = gaps + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.stack([starts, starts + lengths], axis=1)


def agreement(segments: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """IoU, hits and coverage of segments in cells and the cells in which the class sounds."""
    chosen = np.zeros(len(truth), dtype=bool)
    for start, end in segments:
        chosen[start:end] = True
    together = (chosen | truth).sum()
    centres = (segments[:, 0] + segments[:, 1]) // 2
    return {
        "iou": float((chosen & truth).sum() / together) if together else 0.0,
        "hit": float(truth[centres].mean()) if len(segments) else 0.0,
        "covered": float((chosen & truth).sum() / truth.sum()) if truth.any() else 0.0,
    }


def overlap(clips: Clips, segments: Sequence[np.ndarray], step: int, draws: int = DRAWS, seed: int = 0) -> Overlap:
    """What pass `step` replays (`segments` in cells, per clip) against the truth, and segments at random places."""
    assert clips.truth is not None
    rng, n_cells = np.random.default_rng(seed), clips.truth.shape[1]
    model = [agreement(found, truth) for found, truth in zip(segments, clips.truth, strict=True)]
    chance = [
        [agreement(at_random(found, n_cells, rng), truth) for _ in range(draws)]
        for found, truth in zip(segments, clips.truth, strict=True)
    ]
    values, random = {}, {}
    for name in ("iou", "hit", "covered"):
        own = np.array([row[name] for row in model])
        again = own[rng.integers(0, len(own), (2000, len(own)))].mean(axis=1)
        values[name] = (float(own.mean()), *np.percentile(again, [2.5, 97.5]).tolist())
        means = np.array([[row[name] for row in clip] for clip in chance]).mean(axis=0)
        random[name] = (float(means.mean()), *np.percentile(means, [2.5, 97.5]).tolist())
    replayed = float(np.mean([(found[:, 1] - found[:, 0]).sum() / n_cells for found in segments]))
    return Overlap(step, len(model), sum(len(found) == 0 for found in segments), replayed, values, random)


def metrics_of(result: SelectionTest, clips: Clips, command: str) -> list[Metric]:
    """The figures of a selection test as a card holds them."""
    figures = {
        "playback drop": result.drop, "playback drop rotated": result.rotated_drop,
        "playback drop low": result.drop_interval[0], "playback drop high": result.drop_interval[1],
        "playback keep": result.keep, "playback keep rotated": result.rotated_keep,
        "playback keep low": result.keep_interval[0], "playback keep high": result.keep_interval[1],
    }  # fmt: skip
    data = f"{clips.name}; {result.n_clips} clips that the encoder gets right"
    return [Metric(name=name, value=round(value, 4), data=data, command=command) for name, value in figures.items()]


def interval(values: tuple[float, float, float]) -> str:
    """A figure and its interval, in percent."""
    return f"{100 * values[0]:.1f} % ({100 * values[1]:.1f} to {100 * values[2]:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Does Play It Back replay the right moments?")
    parser.add_argument("model", nargs="?", default="play-it-back-esc10", help="Name or folder of a checkpoint.")
    parser.add_argument("--data", type=Path, help="ESC-10 or ESC-50 folder; without it only scenes are measured.")
    parser.add_argument("--scenes", type=int, default=20, help="Scenes of every class.")
    parser.add_argument("--write-card", action="store_true", help="Write the figures into the model's card.")
    options = parser.parse_args(arguments)
    recognizer = load_recognizer(options.model, "cpu")
    network = playback_network(recognizer).eval()
    sets = [esc_clips(recognizer, options.data)] if options.data is not None else []
    sets.append(scene_clips(recognizer, options.scenes))
    metrics: list[Metric] = []
    command = COMMAND.format(name=recognizer.name, data=options.data.name if options.data else "ESC-10")
    for clips in sets:
        right, segments = listened(network, clips)
        print(f"\n## {clips.name}, {len(clips.targets)} clips\n\n| answer | right |\n|---|---|")
        for name, share in right.items():
            print(f"| {name} | {100 * share:.2f} % |")
        data = f"{clips.name}; all {len(clips.targets)} clips"
        metrics += [
            Metric(name=f"accuracy {k}", value=round(v, 4), data=data, command=command) for k, v in right.items()
        ]
        test = selection_test(network, clips.features, clips.targets, rotations=ROTATIONS)
        print(f"\n{test.n_clips} clips that the encoder gets right; mean, and difference to the rotated mask:\n")
        print("| | selection | same mask, rotated | difference (95 % interval) |\n|---|---|---|---|")
        for name, own, other, (low, high) in (
            ("drop", test.drop, test.rotated_drop, test.drop_interval),
            ("keep", test.keep, test.rotated_keep, test.keep_interval),
        ):
            print(f"| {name} | {own:.3f} | {other:.3f} | {own - other:+.3f} ({low:+.3f} to {high:+.3f}) |")
        print("\nBetter than chance." if test.better_than_chance else f"\n{NOT_BETTER}")
        if clips is sets[0]:
            metrics += metrics_of(test, clips, command)
        if clips.truth is None:
            continue
        share = clips.truth.mean()
        print(f"\nThe class sounds for {100 * share:.0f} % of the time. Replayed segments against the events:\n")
        print("| pass | replayed | nothing | measure | selection | at random places |\n|---|---|---|---|---|---|")
        for step in range(1, network.config.playbacks + 1):
            row = overlap(clips, segments[step - 1], step)
            for name in ("iou", "hit", "covered"):
                both = f"{interval(row.values[name])} | {interval(row.random[name])}"
                print(f"| {step + 1} | {100 * row.replayed:.0f} % | {row.without} | {name} | {both} |")
                if step == 1:
                    for key, pair in (("", row.values[name]), (" at random", row.random[name])):
                        figure = round(pair[0], 4)
                        metrics.append(Metric(name=f"replayed {name}{key}", value=figure, data=data, command=command))
    features = sets[-1].features[:1]
    started = time.perf_counter()
    for _ in range(10):
        network.playback(features)
    print(f"\nOne clip, with everything that is shown: {(time.perf_counter() - started) / 10:.3f} s")
    if options.write_card:
        assert recognizer.folder is not None
        others = [m for m in recognizer.card.metrics if not m.name.startswith(("playback ", "replayed ", "accuracy "))]
        recognizer.card = recognizer.card.model_copy(update={"metrics": others + metrics})
        write_card(recognizer.folder, recognizer.card)


if __name__ == "__main__":
    main()
