"""What a model that listens again did: passes in seconds of the clip, words, reliability from the card, and the sound of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.card import Card, Metric
from models.clip import Clip
from models.errors import SettingsError
from models.families.play_it_back import PlayItBack
from models.frontends import build_frontend
from models.recognizer import Recognizer
from saliency.listen_through import listen_through, replayed_sound
from saliency.listening import Listening, listen
from saliency.playback import (
    PassHeard,
    PlaybackExplanation,
    change_of_mind,
    hop_in_words,
    listen_again,
    pass_title,
    spans_in_words,
)
from saliency.trust.selection import NOT_BETTER, reliability
from tests.models.test_play_it_back import tiny_config
from tests.models.tiny_families import sound, tiny_recognizer

LABELS = ["dog", "rooster", "rain", "sea_waves", "clock tick"]
SELECTS = {"schedule": {"corrected": True}, "slots": {"slot_dim": 16, "stand_out": 0.0}}
MODES: dict[str, dict[str, Any]] = {
    "corrected": SELECTS,
    "corrected, nothing stands out": {"schedule": {"corrected": True}},
    "published": {},
    "verbs and nouns": SELECTS | {"groups": (2, 3)},
}


def recognizer_of(mode: str = "corrected", metrics: tuple[Metric, ...] = (), **changes: Any) -> Recognizer:
    torch.manual_seed(0)
    network = PlayItBack(tiny_config(**(MODES[mode] | changes))).eval().requires_grad_(False)
    frontend = network.default_frontend(network.config).model_dump(mode="json")
    groups = list(network.config.groups)
    card = Card(
        name="tiny", family="play_it_back", config=network.config.model_dump(mode="json"), frontend=frontend, labels=LABELS,
        task="single-label", label_groups=groups, metrics=list(metrics),
    )  # fmt: skip
    return Recognizer(network, build_frontend(frontend), card)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.7])
def test_passes_lie_in_the_clip(mode: str, seconds: float) -> None:
    recognizer = recognizer_of(mode)
    found = listen_again(recognizer, sound(seconds), "dog")
    assert [one.number for one in found.passes] == [1, 2, 3]
    assert 0 <= found.start < found.end <= seconds + 1e-3
    assert found.mind and found.reliability.sentence and found.notes
    for before, one in zip((None, *found.passes), found.passes, strict=False):
        for spans in (one.replayed, one.selected):
            assert spans.shape[1:] == (2,) and np.all(spans[:, 0] < spans[:, 1])
            assert np.all(spans >= found.start - 1e-9) and np.all(spans <= found.end + 1e-3)
        assert len(one.times) == len(one.attention) == len(one.spread) > 0
        assert np.all((one.times >= found.start) & (one.times <= found.end + 1e-3))
        assert np.all((one.attention >= 0) & (one.attention <= 1))
        for group in np.split(one.probabilities, np.cumsum(recognizer.card.label_groups)[:-1].astype(int)):
            assert group.sum() == pytest.approx(1.0, abs=1e-5)
        if mode == "corrected" and before is not None:
            np.testing.assert_allclose(one.replayed, before.selected)
    assert np.all(np.diff([one.hop_seconds for one in found.passes]) < 0)


def test_the_answer_is_the_recognizers() -> None:
    recognizer = recognizer_of()
    waveform = sound(0.4)
    with torch.no_grad():
        expected = recognizer.probabilities(recognizer(recognizer.features(waveform)))[0].numpy()
    found = listen_again(recognizer, waveform)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.target == LABELS[int(expected.argmax())]
    assert found.by_pass().shape == (3, 5)
    assert found.shown_classes(3)[0] == LABELS.index(found.target) and len(set(found.shown_classes(3))) == 3


def test_of_a_long_clip_the_window_with_the_class_is_shown() -> None:
    recognizer = recognizer_of()
    waveform = np.concatenate([np.zeros(16000, dtype=np.float32), sound(0.5), np.zeros(8000, dtype=np.float32)])
    target = max(LABELS, key=lambda name: _gain(recognizer, waveform, name))
    found = listen_again(recognizer, waveform, target)
    assert 0.6 < found.start < 1.5 and found.notes[0].startswith("The model hears 0.5 s at once.")
    assert all(np.all(one.times >= found.start) for one in found.passes)


def _gain(recognizer: Recognizer, waveform: np.ndarray, name: str) -> float:
    """By how much a class is more probable in the sound than in silence."""
    with torch.no_grad():
        parts = [waveform[16000:23999], waveform[:7999]]
        loud, silent = (recognizer.probabilities(recognizer(recognizer.features(p)))[0] for p in parts)
    return float((loud - silent)[LABELS.index(name)])


def test_only_models_that_listen_again() -> None:
    for other in (tiny_recognizer("crnn"), recognizer_of(playbacks=0)):
        assert not other.supports("playback")
        with pytest.raises(SettingsError, match="hears a clip once"):
            listen_again(other, sound(0.5))
    with pytest.raises(SettingsError, match="no class named"):
        listen_again(recognizer_of(), sound(0.5), "siren")


# --- in words --------------------------------------------------------------------------------------------------------


def passes_with(*rows: list[float], spans: list[list[float]] | None = None) -> tuple[PassHeard, ...]:
    """Passes after which the classes had these probabilities."""
    replayed = np.array(spans if spans is not None else [[0.8, 1.3]]).reshape(-1, 2)
    empty, times = np.zeros((0, 2)), np.array([0.5])
    return tuple(
        PassHeard(
            number,
            0.0125 / number,
            empty if number == 1 else replayed,
            empty,
            times,
            times,
            times,
            np.array(row, dtype=float),
        )
        for number, row in enumerate(rows, start=1)
    )


MINDS = [
    ([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], [0.2, 0.7, 0.1], 0, 2,
     "It heard 0.80–1.30 s again, and changed its mind from 'dog' to 'sea waves' (20 % before, 60 % after pass 2)."),
    ([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05]], [0.9, 0.05, 0.05], 0, 0,
     "It did not change its mind: 'dog' led after every pass. Hearing 0.80–1.30 s again raised 'dog' from 70 % to 90 %."),
    ([[0.7, 0.2, 0.1], [0.8, 0.1, 0.1]], [0.8, 0.1, 0.1], 1, 0,
     "It did not change its mind: 'dog' led after every pass. Hearing 0.80–1.30 s again lowered 'sea waves' from 20 % to 10 %."),
    ([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], [0.7, 0.2, 0.1], 0, 0,
     "It did not change its mind: 'dog' led after every pass. Listening again hardly changed 'dog'."),
    ([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], [0.1, 0.8, 0.1], 0, 0,
     "It did not change its mind: 'dog' led after every pass. Listening again hardly changed 'dog'. All passes together, though, "
     "say 'sea waves' (80 %)."),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "final", "target", "changed", "sentence"), MINDS)
def test_change_of_mind(rows: list[list[float]], final: list[float], target: int, changed: int, sentence: str) -> None:
    labels = ["dog", "sea_waves", "rain"]
    assert change_of_mind(passes_with(*rows), np.array(final), labels, target, np.arange(3)) == (changed, sentence)


def test_only_the_classes_of_a_group_compete() -> None:
    rows = [[0.9, 0.1, 0.4, 0.6], [0.9, 0.1, 0.7, 0.3]]
    labels = ["open", "close", "door", "tap"]
    _, verbs = change_of_mind(passes_with(*rows), np.array(rows[1]), labels, 0, np.arange(2))
    changed, nouns = change_of_mind(passes_with(*rows), np.array(rows[1]), labels, 2, np.arange(2, 4))
    assert verbs.startswith("It did not change its mind: 'open'")
    assert changed == 2 and "from 'tap' to 'door'" in nouns


def test_titles() -> None:
    first, second = passes_with([1.0], [1.0])
    assert pass_title(first) == "Pass 1: hears everything, every 12.5 ms"
    assert pass_title(second) == "Pass 2: hears 0.80–1.30 s again, every 6.25 ms"
    (_, nothing) = passes_with([1.0], [1.0], spans=[])
    assert "nothing stood out" in pass_title(nothing)
    assert spans_in_words(np.array([[0, 1], [2, 3], [4, 5], [6, 7]])) == "4 moments between 0.00 and 7.00 s"
    assert hop_in_words(67 / 16000) == "4.19 ms"


# --- reliability -----------------------------------------------------------------------------------------------------


def card_with(*metrics: Metric) -> Card:
    return Card(name="m", family="play_it_back", frontend={"kind": "play_it_back"}, labels=["a"], task="single-label",
                metrics=list(metrics))  # fmt: skip


def figures(drop_low: float, keep_low: float) -> list[Metric]:
    return [
        Metric(name="playback drop", value=0.31, data="ESC-10, fold 5"),
        Metric(name="playback keep", value=0.62, data="ESC-10, fold 5"),
        Metric(name="playback_drop_rotated", value=0.1),
        Metric(name="playback keep rotated", value=0.4),
        Metric(name="playback drop low", value=drop_low),
        Metric(name="playback drop high", value=0.3),
        Metric(name="playback keep low", value=keep_low),
        Metric(name="playback keep high", value=0.25),
    ]


def test_a_selection_that_means_something() -> None:
    found = reliability(card_with(*figures(0.12, 0.18)), True)
    assert found.measured and found.better and NOT_BETTER not in found.sentence
    assert (found.drop, found.keep, found.rotated_drop, found.rotated_keep) == (0.31, 0.62, 0.1, 0.4)
    assert found.drop_interval == (0.12, 0.3) and found.keep_interval == (0.18, 0.25)
    assert "ESC-10" in found.sentence and "12 to 30 more" in found.sentence and "18 to 25" in found.sentence


@pytest.mark.parametrize(("drop_low", "keep_low"), [(-0.01, 0.2), (0.2, -0.01), (0.0, 0.2)])
def test_a_selection_that_is_no_better_than_chance(drop_low: float, keep_low: float) -> None:
    found = reliability(card_with(*figures(drop_low, keep_low)), True)
    assert found.measured and not found.better and found.sentence.startswith(NOT_BETTER)


def test_intervals_in_the_text() -> None:
    text = "ESC-10 fold 5, 80 clips; 95 % interval of the difference to the rotated mask 0.05 to 0.21"
    found = reliability(
        card_with(
            Metric(name="playback drop", value=0.3, data=text), Metric(name="playback keep", value=0.5, data=text)
        ),
        True,
    )
    assert found.drop_interval == (0.05, 0.21) and found.better
    unknown = reliability(
        card_with(Metric(name="playback drop", value=0.3), Metric(name="playback keep", value=0.5)), True
    )
    assert unknown.measured and not unknown.better and unknown.drop_interval is None
    assert unknown.sentence.startswith(NOT_BETTER)


def test_what_was_not_measured_is_said() -> None:
    assert "has not been measured" in reliability(card_with(), True).sentence
    assert reliability(card_with(), False).sentence.startswith(NOT_BETTER)


# --- to hear ---------------------------------------------------------------------------------------------------------


def explanation(spans: list[list[float]], second: list[list[float]]) -> PlaybackExplanation:
    recognizer = recognizer_of()
    found = listen_again(recognizer, sound(0.5), "dog")
    passes = list(found.passes)
    for number, given in ((1, spans), (2, second)):
        passes[number] = replace(passes[number], replayed=np.array(given).reshape(-1, 2))
    return replace(found, passes=tuple(passes), start=0.0, end=1.0)


def test_the_listen_through_is_cut_from_the_clip() -> None:
    rate = 8000
    clip = np.random.default_rng(0).standard_normal((2, rate)).astype(np.float32) * 0.1
    found = explanation([[0.1, 0.3], [0.5, 0.6]], [[0.55, 0.6]])
    through = listen_through(clip, rate, found)
    assert [one.label for one in through.chapters] == [
        "The clip", "Pass 2: 0.10–0.30 s", "Pass 2: 0.50–0.60 s", "Pass 3: 0.55–0.60 s"
    ]  # fmt: skip
    assert through.waveform.shape[0] == 2 and through.sample_rate == rate
    for one in through.chapters:
        first, last = round(one.start * rate), round(one.end * rate)
        source = clip[:, round(one.clip_start * rate) : round(one.clip_end * rate)]
        assert last - first == source.shape[1]
        fade = 64  # 8 ms
        np.testing.assert_array_equal(through.waveform[:, first + fade : last - fade], source[:, fade:-fade])
        assert np.all(through.waveform[:, first] == 0)
    # A pause before each pass, and nothing else.
    silent = through.chapters[1].start - through.chapters[0].end
    assert silent == pytest.approx(0.5, abs=1e-3)
    assert through.chapters[2].start == pytest.approx(through.chapters[1].end)


def test_the_sound_of_a_pass() -> None:
    rate = 8000
    clip = np.ones((1, rate), dtype=np.float32)
    found = explanation([[0.1, 0.3], [0.5, 0.6]], [])
    first, second, third = (replayed_sound(clip, rate, one) for one in found.passes)
    assert first is clip and second.shape == (1, 2400) and third.shape == (1, 0)
    assert second[0, 0] == 0 and second[0, 1600] == 0 and second[0, 800] == 1


def test_nothing_replayed_is_nothing_to_hear() -> None:
    through = listen_through(np.ones((1, 8000), dtype=np.float32), 8000, explanation([], []))
    assert len(through.chapters) == 1 and through.waveform.shape[1] == 8000


# --- everything together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["play_it_back", "psla", "ast", "mobilenet", "hetero_graph"])
def test_all_that_a_model_offers(name: str) -> None:
    recognizer = tiny_recognizer(name)
    clip = Clip(sound(1.1, 22050)[None], 22050, "tiny", "0" * 64)
    seen: list[Listening] = []
    stages: list[str] = []
    found = listen(clip, recognizer, "class 1", progress=lambda stage, _: stages.append(stage), partial=seen.append)
    assert (found.playback is not None) == recognizer.supports("playback") == (not found.hears_once)
    assert found.target == "class 1" and 0 <= found.probability <= 1
    assert len(seen) == len(found.courses) + (not found.hears_once) and len(set(stages)) == len(seen) + 1
    assert listen(clip, recognizer).target in recognizer.labels
