"""Visitors' clips: apart from each other, and within a limit."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from models.clip import Clip
from workbench import workspace
from workbench.workspace import CLIPS_EACH, clip_id, clips, remember


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_CLIPS", OrderedDict())


def clip(number: int, samples: int = 100) -> Clip:
    return Clip.from_array(np.full(samples, number / 100, dtype=np.float32), 16000, f"clip {number}")


def test_clips_are_found_by_their_id_oldest_first() -> None:
    assert clips("anna") == {}
    ids = [remember("anna", clip(n)) for n in range(3)]
    assert list(clips("anna")) == ids and [c.name for c in clips("anna").values()] == ["clip 0", "clip 1", "clip 2"]
    assert all(i == clip_id(clip(n)) and i.startswith("u-") and len(i) == 18 for n, i in enumerate(ids))


def test_visitors_do_not_see_each_other_s_clips() -> None:
    remember("anna", clip(1))
    remember("bert", clip(2))
    assert [c.name for c in clips("anna").values()] == ["clip 1"]
    assert [c.name for c in clips("bert").values()] == ["clip 2"]
    assert clips("") == {} and clips("carl") == {}


def test_the_answer_is_a_copy() -> None:
    remember("anna", clip(1))
    clips("anna").clear()
    assert len(clips("anna")) == 1


def test_the_same_content_is_one_clip_and_counts_as_new() -> None:
    for number in (1, 2, 1):
        remember("anna", clip(number))
    assert [c.name for c in clips("anna").values()] == ["clip 2", "clip 1"]
    renamed = Clip.from_array(clip(2).waveform, 16000, "another name")
    assert remember("anna", renamed) == clip_id(clip(2))
    assert [c.name for c in clips("anna").values()] == ["clip 1", "another name"]


def test_each_visitor_keeps_the_newest() -> None:
    remember("bert", clip(99))
    for number in range(CLIPS_EACH + 3):
        remember("anna", clip(number))
    assert [c.name for c in clips("anna").values()] == [f"clip {n}" for n in range(3, CLIPS_EACH + 3)]
    assert len(clips("bert")) == 1


def test_all_together_stay_within_the_limit_and_who_was_away_longest_loses_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workspace, "BYTES_IN_ALL", 5 * 400)  # five clips of 100 samples
    for visitor, number in [("bert", 2), ("anna", 1), ("anna", 3), ("carl", 4), ("bert", 5)]:
        remember(visitor, clip(number))
    assert [len(clips(v)) for v in ("anna", "bert", "carl")] == [2, 2, 1]
    remember("carl", clip(6))
    assert [c.name for c in clips("anna").values()] == ["clip 3"]
    remember("carl", clip(7))
    assert clips("anna") == {} and len(clips("bert")) == 2 and len(clips("carl")) == 3
    remember("carl", clip(8, samples=300))
    assert clips("bert") == {} and [c.name for c in clips("carl").values()] == ["clip 6", "clip 7", "clip 8"]


def test_the_clip_that_was_just_opened_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "BYTES_IN_ALL", 1000)
    remember("bert", clip(1))
    remember("anna", clip(2))
    remember("anna", clip(3, samples=5000))
    assert [c.name for c in clips("anna").values()] == ["clip 3"] and clips("bert") == {}
    remember("anna", clip(4))
    assert [c.name for c in clips("anna").values()] == ["clip 4"]
