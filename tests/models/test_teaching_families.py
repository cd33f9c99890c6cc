"""Every family can be extended by classes without a change to what it says about the old ones, or says why not."""

from __future__ import annotations

import pytest
import torch

from models.errors import SettingsError
from models.teaching.contract import TeachSettings
from models.teaching.extension import extend_recognizer
from models.teaching.low_rank import add_low_rank, merge_low_rank
from models.teaching.ways import chosen_way, head_of, offered_ways, silent_input, teachable_problem
from tests.models.tiny_families import CONFIGS, tiny_recognizer


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"equiav_pretraining"}))
def test_a_family_is_extended_and_keeps_its_old_logits(name: str) -> None:
    base = tiny_recognizer(name)
    features, frames = silent_input(base)
    features = features + 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    before = base(features, frames)
    if base.card.label_groups:
        with pytest.raises(SettingsError, match="groups"):
            extend_recognizer(base, ("new",))
        return
    taught, rows = extend_recognizer(base, ("new", "newer"))
    assert taught.labels == [*base.labels, "new", "newer"]
    after = taught(features, frames)
    assert after.shape[1] == before.shape[1] + 2 == len(taught.labels)
    torch.testing.assert_close(after[:, :-2], before)
    head = head_of(taught)
    assert set(rows) <= set(taught.network.state_dict()) and set(rows) & set(head)
    assert all(taught.network.state_dict()[key].shape[0] == old + 2 for key, old in rows.items())
    assert len(head) < len(list(taught.network.parameters()))
    ways = list(offered_ways(base))
    assert ways[0] == "head" and ways[-1] == "everything"


@pytest.mark.parametrize("name", ["ast", "transformer", "equiav", "fnet"])
def test_low_rank_additions_begin_with_nothing_and_are_merged(name: str) -> None:
    base = tiny_recognizer(name)
    assert "low_rank" in offered_ways(base)
    features, frames = silent_input(base)
    features = features + 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    before, keys = base(features, frames), set(base.network.state_dict())
    taught, _ = extend_recognizer(base, ())
    added = add_low_rank(taught.network, set(head_of(taught)), rank=3, seed=0)
    assert added
    torch.testing.assert_close(taught(features, frames), before)
    with torch.no_grad():
        for name_, value in added.items():
            if name_.endswith(".b"):
                value.fill_(0.05)
    changed = taught(features, frames)
    assert not torch.allclose(changed, before)
    merge_low_rank(taught.network)
    assert set(taught.network.state_dict()) == keys
    torch.testing.assert_close(taught(features, frames), changed)
    torch.testing.assert_close(base(features, frames), before)


def test_what_names_no_classes_cannot_be_taught() -> None:
    recognizer = tiny_recognizer("equiav_pretraining")
    assert "names no classes" in teachable_problem(recognizer) and offered_ways(recognizer) == {}


@pytest.mark.parametrize(
    ("n_examples", "remembers", "way"),
    [(20, True, "head"), (20, False, "head"), (199, False, "head"), (200, False, "last_blocks"), (5000, True, "head")],
)
def test_what_is_trained_by_default(n_examples: int, remembers: bool, way: str) -> None:
    base = tiny_recognizer("ast")
    assert chosen_way(base, TeachSettings(), n_examples, 2, remembers=remembers) == way
    assert chosen_way(base, TeachSettings(train="everything"), n_examples, 2, remembers=remembers) == "everything"
