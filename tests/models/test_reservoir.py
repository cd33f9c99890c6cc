"""The reservoir: decisions, their guarantees, and a store that survives a crash anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.clip import Clip
from models.errors import DataError, SettingsError
from models.training import reservoir_store
from models.training.reservoir import (
    count_labels,
    simulate_reservoir,
    store_audio_decision,
    target_distribution,
    total_variation,
)
from models.training.reservoir_store import STATE, AudioReservoir, ReservoirSettings

# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"obs_counts": [0, 0]}, "Nothing has been observed"),
        ({"obs_counts": [1, -1, 3]}, "equally long"),
        ({"obs_counts": [3, -1]}, "negative"),
        ({"incoming_labels": [2]}, "not all in"),
        ({"obs_counts": [0, 4]}, "never been observed"),
        ({"replace_prob": 1.5}, "probability"),
        ({"stored_counts": [1, 1]}, "not the counts"),
        ({"policy": "other"}, "no policy"),
        ({"capacity": 0}, "cannot hold"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {
        "obs_counts": [4, 4], "stored_counts": [2, 1], "incoming_labels": [0],
        "stored_examples": [{"labels": [0]}, {"labels": [0, 1]}], "replace_prob": 0.5,
    }  # fmt: skip
    store_audio_decision(**arguments)
    with pytest.raises(ValueError, match=match):
        store_audio_decision(**arguments | change)


def test_published_interface_takes_what_the_sample_gives() -> None:
    labels = [np.int64(1), np.int64(0)]
    decision = store_audio_decision(np.array([5, 5]), np.array([1, 0]), labels, [{"labels": [np.int64(0)]}], 1.0)
    assert isinstance(decision, tuple) and len(decision) == 3
    assert decision[0] in (True, False)
    for value in decision[1:]:
        assert value is None or type(value) is int


def test_empty_labels_and_repeated_labels() -> None:
    assert store_audio_decision([5, 5], [1, 0], [], [[0]], 1.0) == (False, None, None)
    assert store_audio_decision([5, 5], [1, 0], [], [[0]], 1.0, policy="published") == (False, None, None)
    assert store_audio_decision([5, 5], [0, 0], [1, 1], [], 0.0, capacity=3) == (True, None, None)


def test_distance_never_grows_and_size_never_exceeds_capacity() -> None:
    rng = np.random.default_rng(0)
    observed = np.array([50.0, 30.0, 15.0, 5.0])
    stored: list[dict[str, list[int]]] = []
    counts = np.zeros(4, dtype=int)
    target, previous = target_distribution(observed), 1.0
    for _ in range(400):
        incoming = [int(c) for c in rng.choice(4, size=rng.integers(1, 3), replace=False)]
        before = len(stored)
        keep, _, place = store_audio_decision(observed, counts, incoming, stored, 0.7, capacity=20, rng=rng)
        if keep and place is None:
            stored.append({"labels": incoming})
        elif keep:
            assert place is not None
            stored[place] = {"labels": incoming}
        counts = count_labels(stored, 4)
        distance = total_variation(counts, target)
        assert before <= len(stored) <= 20
        if before == 20:
            assert distance <= previous + 1e-12
        previous = distance
    assert len(stored) == 20


@pytest.mark.parametrize("probabilities", [[0.2] * 5, [0.6, 0.1, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.07, 0.03]])
def test_single_label_streams_come_to_rest(probabilities: list[float]) -> None:
    result = simulate_reservoir(5, 50, 400, 0.7, probabilities=probabilities, most_labels=1, seed=1)
    assert result.distance[-180:].max() <= 5 / (4 * 50) + 0.01


def test_beats_the_published_rule_on_the_same_stream() -> None:
    for seed in range(3):
        matched, published = (
            simulate_reservoir(5, 50, 300, 0.7, policy=policy, probabilities=[0.4, 0.3, 0.2, 0.07, 0.03], seed=seed)
            for policy in ("matched", "published")
        )
        assert matched.distance[200:].mean() <= 0.03
        assert matched.distance[200:].mean() < published.distance[200:].mean()


def test_simulation_of_the_description() -> None:
    for seed in range(8):
        result = simulate_reservoir(seed=seed)
        assert result.distance[-1] <= 0.02
        assert result.distance[-1] < result.distance[0]
    assert result.stored.shape == result.observed.shape == (100, 5)
    assert np.allclose(result.stored.sum(axis=1), 1)


def test_alpha_zero_balances() -> None:
    result = simulate_reservoir(4, 40, 400, 1.0, alpha=0.0, probabilities=[0.7, 0.1, 0.1, 0.1], most_labels=1)
    assert np.abs(result.stored[-1] - 0.25).max() <= 0.03


def test_constant_stream_is_a_classic_reservoir() -> None:
    # Vitter: after n arrivals each is inside with probability M / n.
    capacity, n, runs = 5, 20, 200
    inside: Counter[int] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(runs):
        stored: list[int] = []
        for arrival in range(n):
            keep, _, place = store_audio_decision(
                [arrival + 1], [len(stored)], [0], [[0]] * len(stored), 1.0, capacity=capacity, rng=rng
            )
            if keep and place is None:
                stored.append(arrival)
            elif keep:
                assert place is not None
                stored[place] = arrival
        inside.update(stored)
    expected = runs * capacity / n
    statistic = sum((inside[i] - expected) ** 2 / (expected * (1 - capacity / n)) for i in range(n))
    assert statistic < 45  # 0.999 quantile of chi-square with 20 degrees of freedom


def test_published_rule_started_empty_stays_at_one() -> None:
    stored: list[list[int]] = []
    rng = np.random.default_rng(0)
    for step in range(50):
        keep, _, place = store_audio_decision(
            [step + 1.0], [len(stored)], [0], stored, 1.0, policy="published", rng=rng
        )  # fmt: skip
        if keep and place is None:
            stored.append([0])
    assert len(stored) == 1


# --- the store ------------------------------------------------------------------------------------------------------


def clip(number: int, seconds: float = 0.05) -> Clip:
    samples = np.random.default_rng(number).uniform(-0.5, 0.5, int(16000 * seconds)).astype(np.float32)
    return Clip.from_array(samples, 16000, f"clip {number}.wav")


SETTINGS = ReservoirSettings(n_classes=3, capacity=4, seed=1)


def sound_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".flac")


def check_whole(folder: Path) -> AudioReservoir:
    """Open a reservoir and check that what it names is there, whole, and nothing else."""
    store = AudioReservoir(folder)
    try:
        assert not store.notes
        assert len(store.examples) <= store.settings.capacity
        assert sound_files(folder) == sorted(example.file for example in store.examples)
        assert not list(folder.glob(".*.tmp"))
        for example in store.examples:
            assert store.open_clip(example).n_samples > 0
        assert store.stored_counts.sum() == sum(len(example.labels) for example in store.examples)
    finally:
        store.close()
    return store


def test_store_keeps_and_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with AudioReservoir(tmp_path, SETTINGS) as store:
        for number in range(20):
            offered = store.offer(clip(number), [int(rng.integers(0, 3))])
            assert offered.stored or offered.evicted is None
            assert len(sound_files(tmp_path)) == len(store.examples) <= 4
        assert store.obs_counts.sum() == 20
        kept, counts = store.examples, store.obs_counts
    reopened = check_whole(tmp_path)
    assert reopened.examples == kept
    assert np.array_equal(reopened.obs_counts, counts)


def test_same_stream_interrupted_gives_the_same_reservoir(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).integers(0, 3, size=16)
    with AudioReservoir(tmp_path / "one", SETTINGS) as store:
        for number, label in enumerate(labels):
            store.offer(clip(number), [int(label)])
        expected = store.examples
    for number, label in enumerate(labels):
        with AudioReservoir(tmp_path / "two", SETTINGS if number == 0 else None) as store:
            store.offer(clip(number), [int(label)])
    assert AudioReservoir(tmp_path / "two").examples == expected


def test_sound_is_kept_as_it_was(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS) as store:
        original = clip(1)
        store.offer(original, [2])
        kept = store.open_clip(store.examples[0])
        assert kept.sample_rate == 16000
        assert np.abs(kept.mono() - original.mono()).max() <= 2**-15
        assert kept.name == "clip 1.wav"


def test_space_is_bounded(tmp_path: Path) -> None:
    settings = ReservoirSettings(n_classes=2, capacity=2, max_seconds=0.1, max_sample_rate=8000)
    with AudioReservoir(tmp_path, settings) as store:
        noise = np.random.default_rng(0).uniform(-1, 1, (2, 44100)).astype(np.float32)
        for number in range(6):
            store.offer(Clip.from_array(noise, 44100), [number % 2])
        kept = store.open_clip(store.examples[0])
        assert (kept.sample_rate, kept.n_samples, kept.n_channels) == (8000, 800, 1)
        assert sum((tmp_path / name).stat().st_size for name in sound_files(tmp_path)) <= store.max_bytes


class Crash(BaseException):
    """The power is gone."""


def test_crash_at_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before each single file operation of a swap; afterwards the reservoir is the old or the new one."""
    operations = [(Path, "replace"), (Path, "unlink"), (Path, "open"), (os, "fsync")]
    remaining = {"n": 10**9}

    def crashing(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            remaining["n"] -= 1
            if remaining["n"] < 0:
                raise Crash
            return original(*args, **kwargs)

        return call

    outcomes = set()
    for point in range(60):
        folder = tmp_path / str(point)
        with AudioReservoir(folder, SETTINGS.model_copy(update={"replace_prob": 1.0})) as store:
            for number in range(4):
                store.offer(clip(number), [0])
            before, counts = store.examples, store.obs_counts
            with monkeypatch.context() as patch:
                for owner, name in operations:
                    patch.setattr(owner, name, crashing(getattr(owner, name)))
                remaining["n"] = point
                try:
                    store.offer(clip(9), [1])
                    finished = True
                except Crash:
                    finished = False
                remaining["n"] = 10**9
        after = check_whole(folder)
        assert len(after.examples) == 4
        swapped = after.examples != before
        # Observation and decision become true together, in one step.
        assert np.array_equal(after.obs_counts, counts + np.array([0, 1, 0]) if swapped else counts)
        outcomes.add((finished, swapped))
        if finished:
            break
    assert outcomes == {(False, False), (False, True), (True, True)}


WRITER = """
import sys
import numpy as np
from models.clip import Clip
from models.training.reservoir_store import AudioReservoir, ReservoirSettings
store = AudioReservoir(sys.argv[1], ReservoirSettings(n_classes=3, capacity=4, replace_prob=1.0))
rng = np.random.default_rng(0)
print("ready", flush=True)
while True:
    store.offer(Clip.from_array(rng.uniform(-0.5, 0.5, 800).astype(np.float32), 16000), [int(rng.integers(0, 3))])
"""


@pytest.mark.slow
def test_killed_process_leaves_a_whole_reservoir(tmp_path: Path) -> None:
    for attempt in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.07 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert len(check_whole(tmp_path / "r").examples) > 0


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS), pytest.raises(SettingsError, match="Another process"):
        AudioReservoir(tmp_path)
    AudioReservoir(tmp_path).close()


def test_damage_is_reported_and_vanished_clips_are_struck_off(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS) as store:
        for number in range(4):
            store.offer(clip(number), [number % 3])
        store.path(store.examples[1]).unlink()
    with AudioReservoir(tmp_path) as store:
        assert len(store.examples) == 3
        assert "1 stored clips have vanished" in store.notes[0]
    good = (tmp_path / STATE).read_text()
    for damage in (
        good[:40],
        "[]",
        good.replace('"n_classes": 3', '"n_classes": 2'),
        good.replace("clip-00000001.flac", "../../secret.flac"),
    ):
        assert damage != good
        (tmp_path / STATE).write_text(damage)
        with pytest.raises(DataError, match="damaged"):
            AudioReservoir(tmp_path)
    (tmp_path / STATE).write_text(good)
    AudioReservoir(tmp_path).close()


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "clip-00000099.flac").write_bytes(b"an orphan")
    AudioReservoir(tmp_path, SETTINGS).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not sound_files(tmp_path)


def test_classes_can_be_added(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS) as store:
        store.offer(clip(0), [2])
        store.extend_classes(5)
        assert store.offer(clip(1), [4]).stored
        with pytest.raises(SettingsError):
            store.extend_classes(4)
    with AudioReservoir(tmp_path) as store:
        assert store.settings.n_classes == 5
        assert store.obs_counts.tolist() == [0, 0, 1, 0, 1]
    with pytest.raises(SettingsError, match="knows 5 classes"):
        AudioReservoir(tmp_path, SETTINGS)


def test_forgetting(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS.model_copy(update={"forgetting": 0.5})) as store:
        for number in range(3):
            store.offer(clip(number), [0])
        assert store.obs_counts[0] == 1.75
        assert not store.offer(clip(4), []).stored
        assert store.obs_counts[0] == 1.75
        with pytest.raises(SettingsError, match="not all in"):
            store.offer(clip(5), [3])


def test_state_is_plain_json(tmp_path: Path) -> None:
    with AudioReservoir(tmp_path, SETTINGS) as store:
        store.offer(clip(0), [1])
    state = json.loads((tmp_path / STATE).read_text())
    assert state["examples"] == [{"file": "clip-00000001.flac", "labels": [1], "name": "clip 0.wav"}]
    assert reservoir_store.STATE == "reservoir.json"
