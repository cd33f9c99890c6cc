"""Checkpoints: what is written is what is read, whole or not at all, and only if it fits its card."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import models.checkpoint as checkpoint
from models.card import Card
from models.catalog import CARD, WEIGHTS, checkpoint_folders, find_checkpoint, read_card
from models.checkpoint import hash_weights, load_recognizer, save_checkpoint
from models.errors import CheckpointError, EarwitnessError
from models.recognizer import Recognizer
from tests.conftest import make_recognizer


@pytest.fixture(scope="module")
def tiny() -> Recognizer:
    return make_recognizer("resnet_attention")


@pytest.fixture
def saved(tiny: Recognizer, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "tiny", tiny.network, tiny.card)
    return tmp_path / "tiny"


def scores(recognizer: Recognizer, waveform: np.ndarray) -> Tensor:
    with torch.no_grad():
        return recognizer.probabilities(recognizer(recognizer.features(waveform)))


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(half: bool, recognizer: Recognizer, chirp: np.ndarray, tmp_path: Path) -> None:
    written = save_checkpoint(tmp_path / "tiny", recognizer.network, recognizer.card, half=half)
    loaded = load_recognizer(tmp_path / "tiny", "cpu")
    assert loaded.card == written == read_card(tmp_path / "tiny")
    assert loaded.card == recognizer.card.model_copy(update={"content_hash": written.content_hash})
    assert loaded.folder == tmp_path / "tiny" and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    stored, original = loaded.network.state_dict(), recognizer.network.state_dict()
    assert stored.keys() == original.keys()
    for key, value in stored.items():
        assert value.dtype == original[key].dtype
        assert torch.equal(value, original[key].half().to(value.dtype) if half else original[key])
    torch.testing.assert_close(scores(loaded, chirp), scores(recognizer, chirp), atol=0.02 if half else 0.0, rtol=0.0)
    on_disk = load_file(tmp_path / "tiny" / WEIGHTS)
    assert {v.dtype for v in on_disk.values() if v.is_floating_point()} == {torch.float16 if half else torch.float32}


def test_what_float16_cannot_hold_is_stored_in_full(tmp_path: Path) -> None:
    recognizer = make_recognizer("resnet_attention")
    key = next(k for k in recognizer.network.state_dict() if k.endswith("running_var"))
    recognizer.network.state_dict()[key].fill_(1e6)
    save_checkpoint(tmp_path / "loud", recognizer.network, recognizer.card, half=True)
    assert (load_recognizer(tmp_path / "loud", "cpu").network.state_dict()[key] == 1e6).all()


@pytest.mark.parametrize("step", ["save_file", "write_card", "Path.rename"])
def test_a_failure_while_writing_leaves_the_old_checkpoint_whole(
    step: str, tiny: Recognizer, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    rename = Path.rename

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def rename_fails(self: Path, target: Path) -> Path:
        # Only putting the new one in its place fails; putting the old one back has to work.
        if (self / WEIGHTS).is_file() and self.name.startswith(".") and not self.name.endswith("-replaced"):
            full()
        return rename(self, target)

    if step == "Path.rename":
        monkeypatch.setattr(Path, "rename", rename_fails)
    else:
        monkeypatch.setattr(checkpoint, step, full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, make_recognizer("ast").network, tiny.card.model_copy(update={"title": "new"}))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]


def test_a_checkpoint_is_replaced_and_nothing_is_left_over(tiny: Recognizer, saved: Path) -> None:
    (saved / "notes.txt").write_text("of the old one")
    save_checkpoint(saved, tiny.network, tiny.card.model_copy(update={"title": "new"}))
    assert sorted(p.name for p in saved.iterdir()) == [CARD, WEIGHTS] and read_card(saved).title == "new"
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]


def test_the_hash_is_that_of_the_weights() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    same = {"b": torch.tensor(3), "a": torch.arange(6.0).reshape(3, 2).T.contiguous().T.reshape(2, 3)}
    assert hash_weights(weights) == hash_weights(same) and len(hash_weights(weights)) == 64
    others: list[dict[str, Tensor]] = [
        weights | {"a": weights["a"] + torch.tensor([[0, 0, 0], [0, 0, 1e-6]])},
        weights | {"a": weights["a"].reshape(3, 2)}, weights | {"a": weights["a"].half()},
        weights | {"b": torch.tensor(4)}, {"c": weights["a"], "b": weights["b"]}, {"a": weights["a"]}, {},
    ]  # fmt: skip
    assert len({hash_weights(w) for w in [weights, *others]}) == len(others) + 1


def test_the_card_s_hash_follows_the_weights(saved: Path) -> None:
    assert read_card(saved).content_hash == hash_weights(load_file(saved / WEIGHTS))
    changed = make_recognizer("resnet_attention")
    next(changed.network.parameters()).data.view(-1)[0] += 1
    assert save_checkpoint(saved, changed.network, changed.card).content_hash != hash_weights(
        make_recognizer("resnet_attention").network.state_dict()
    )


def edit_weights(edit: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        edit(state)
        save_file(state, folder / WEIGHTS)

    return damage


def edit_card(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        values = yaml.safe_load((folder / CARD).read_text(encoding="utf-8"))
        (folder / CARD).write_text(yaml.safe_dump(values | changes), encoding="utf-8")

    return damage


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def truncate(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


STEM = "conv1.weight"
TINY_CONFIG = {"block": "basic", "layers": [1, 1, 1, 1], "width": 4, "corrected_head": True, "n_classes": 3}
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an entry is missing": (edit_weights(lambda s: s.pop(min(s))), r"1 missing \("),
    "an entry is left over": (edit_weights(lambda s: s.update(extra=torch.zeros(2))), r"1 unexpected \(extra\)"),
    "an entry has another shape": (
        edit_weights(lambda s: s.update({min(s): torch.zeros(7, 7)})), r"of another shape .*\[7, 7\] instead of"
    ),
    "a weight is NaN": (edit_weights(lambda s: s[max(s)].view(-1)[:1].fill_(float("nan"))), "not numbers"),
    "a weight is infinite": (edit_weights(lambda s: s[max(s)].view(-1)[:1].fill_(float("-inf"))), "not numbers"),
    "nothing is stored": (edit_weights(lambda s: s.clear()), r"missing \(.*, \.\.\.\)"),
    "the weights are gone": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
    "the weights are cut off": (truncate, "cannot be read"),
    "the weights are text": (write(WEIGHTS, b"hello"), "cannot be read"),
    "the weights promise a huge header": (write(WEIGHTS, b"\xff" * 8 + b"{}"), "cannot be read"),
    "the card is no YAML": (write(CARD, b"name: [unclosed"), "not valid"),
    "the card is no text": (write(CARD, b"\xff\xfe\x00\x80" * 9), "not valid"),
    "the card is empty": (write(CARD, b""), "not valid"),
    "the card is a list": (write(CARD, b"- 1\n- 2\n"), "not valid"),
    "the card is nested without end": (write(CARD, b"[" * 20000), "not valid"),
    "the card runs Python": (write(CARD, b"name: !!python/object/apply:os.getcwd []\n"), "not valid"),
    "the card has an impossible date": (write(CARD, b"name: 2020-99-99\n"), "not valid"),
    "the card is of a later format": (edit_card(format=2), "not valid"),
    "the card has an unknown entry": (edit_card(nonsense=1), "not valid"),
    "the task is unknown": (edit_card(task="regression"), "not valid"),
    "the windows would not move": (edit_card(hop_seconds=0.0), "not valid"),
    "the family is unknown": (edit_card(family="no_such_family"), "no model family named 'no_such_family'"),
    "the family is a path": (edit_card(family="../../evil"), "no model family"),
    "the family is a module of something else": (edit_card(family="os.path"), "no model family"),
    "the family is nothing": (edit_card(family=""), "no model family"),
    "the front end is unknown": (edit_card(frontend={"kind": "ear"}), "no front end named 'ear'"),
    "the front end is impossible": (edit_card(frontend={"kind": "kaldi_fbank", "sample_rate": 0}), "not valid"),
    "a setting is unknown": (edit_card(config=TINY_CONFIG | {"depth": 3}), "do not fit the family"),
    "a size is negative": (edit_card(config=TINY_CONFIG | {"width": -4}), "tiny-resnet_attention"),
    "a label is missing": (edit_card(labels=["dog", "rain"]), "2 labels, but its network has 3 classes"),
    "the groups do not add up": (edit_card(label_groups=[1, 1]), "hold 2 classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_is_refused_by_name(case: str, saved: Path) -> None:
    damage, message = DAMAGE[case]
    damage(saved)
    with pytest.raises(EarwitnessError, match=message):
        load_recognizer(saved, "cpu")


@pytest.mark.parametrize("name", [WEIGHTS, CARD])
@pytest.mark.parametrize("protocol", [0, 4])
def test_pickles_are_never_run(name: str, protocol: int, saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (saved / name).write_bytes(pickle.dumps(Trap(mark), protocol=protocol))
    with pytest.raises(CheckpointError):
        load_recognizer(saved, "cpu")
    assert not mark.exists()
    pickle.loads((saved / name).read_bytes())
    assert mark.exists()  # the trap works


def test_a_torch_file_in_place_of_the_weights_is_not_run(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    torch.save({"weight": Trap(mark)}, saved / WEIGHTS)
    with pytest.raises(CheckpointError):
        load_recognizer(saved, "cpu")
    assert not mark.exists()


def test_known_checkpoints_are_those_with_card_and_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = saved.parent
    for name, files in {
        "no-card": [WEIGHTS],
        "no-weights": [CARD],
        "both": [CARD, WEIGHTS],
        ".both-x1": [CARD, WEIGHTS],
    }.items():
        (root / name).mkdir()
        for file in files:
            (root / name / file).write_bytes(b"")
    (root / "file").write_bytes(b"")
    shipped = set(checkpoint_folders())
    assert "tiny" not in shipped
    assert set(checkpoint_folders((root, root / "absent"))) - shipped == {"both", "tiny"}
    monkeypatch.setenv("EARWITNESS_CHECKPOINTS", f"{root / 'absent'}:{root}:")
    assert set(checkpoint_folders()) - shipped == {"both", "tiny"}
    assert find_checkpoint("tiny") == saved == find_checkpoint(saved) == find_checkpoint(str(saved))
    assert load_recognizer("tiny", "cpu").name == "tiny-resnet_attention"


def test_shipped_checkpoints_are_what_their_cards_say() -> None:
    assert checkpoint_folders()
    for name, folder in checkpoint_folders().items():
        assert read_card(folder).name == name
        assert hash_weights(load_file(folder / WEIGHTS)) == read_card(folder).content_hash


@pytest.mark.parametrize("name", ["nonsense", "", "../..", "a" * 5000, "zero\0byte", "/etc/passwd", "<b>x</b>"])
def test_what_is_no_checkpoint_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no model named|is not a checkpoint"):
        find_checkpoint(name)


def test_cards_keep_every_letter(tiny: Recognizer, tmp_path: Path) -> None:
    hostile = ["käse: 'x'", "- no", "null", "1e3", "<script>", "漢字\u2028", " lead", "tab\there"]
    card = Card.model_validate(tiny.card.model_dump() | {"labels": hostile, "license": "# none"})
    checkpoint.write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
