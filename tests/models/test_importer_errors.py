"""What can be wrong with a published file: damaged, hostile, of another family, or with other labels; nothing stays behind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.data.audioset_table import audioset_classes
from models.data.vggsound import vggsound_classes
from models.errors import CheckpointError
from models.importer import import_checkpoint
from tests.models.test_importer import slowfast_container
from tests.models.tiny_families import tiny_network, write_published


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def good(folder: Path) -> Path:
    write_published(folder / "weights.pth", "linear")
    return folder / "weights.pth"


def truncated(folder: Path) -> Path:
    path = good(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def truncated_safetensors(folder: Path) -> Path:
    save_file(tiny_network("linear").state_dict(), folder / "weights.safetensors")
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])
    return folder / "weights.safetensors"


def with_bytes(data: bytes) -> Any:
    def write(folder: Path) -> Path:
        (folder / "weights.pth").write_bytes(data)
        return folder / "weights.pth"

    return write


def changed(change: Any) -> Any:
    def write(folder: Path) -> Path:
        weights = dict(tiny_network("linear").state_dict())
        result = change(weights)
        torch.save(weights if result is None else result, folder / "weights.pth")
        return folder / "weights.pth"

    return write


def not_a_number(weights: dict[str, Any]) -> None:
    weights["fc_prob.bias"] = torch.full_like(weights["fc_prob.bias"], float("nan"))


def incomplete(weights: dict[str, Any]) -> None:
    weights.pop("linear.1.weight")


def misshapen(weights: dict[str, Any]) -> None:
    weights["fc_prob.bias"] = torch.zeros(9)


BROKEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (lambda folder: folder / "nothing.pth", {}, "no file nothing.pth"),
    "empty": (with_bytes(b""), {}, "0 bytes"),
    "truncated": (truncated, {}, "weights.pth"),
    "truncated safetensors": (truncated_safetensors, {}, "cut off"),
    "text": (with_bytes(b"hello world, this is no file of weights"), {}, "weights.pth"),
    "web page": (with_bytes(b"<!DOCTYPE html><html></html>"), {}, "web page"),
    "not a number": (changed(not_a_number), {}, "not numbers"),
    "incomplete": (changed(incomplete), {}, "linear.1.weight"),
    "misshapen": (changed(misshapen), {}, "another shape"),
    "other family": (good, {"family": "crnn"}, "it looks like Linear baseline"),
    "unknown family": (good, {"family": "magic"}, "magic"),
    "of no family": (changed(lambda weights: {"a": torch.zeros(1)}), {}, "no known model family"),
    "no tensors": (changed(lambda weights: {"lr": 0.1, "name": "x"}), {}, "lr"),
    "a single tensor": (changed(lambda weights: torch.zeros(3)), {}, "Tensor"),
    "unknown setting": (good, {"config": {"colour": "red"}}, "colour"),
    "wrong front end": (good, {"config": {"frontend": {"n_mels": 40}}}, "front end"),
    "no settings file": (good, {"config": "nowhere.yaml"}, "nowhere.yaml"),
    "bad name": (good, {"name": "../up"}, "name"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_leave_nothing_behind(case: str, tmp_path: Path) -> None:
    make, options, words = BROKEN[case]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    expected = CheckpointError if case != "unknown family" else ValueError
    with pytest.raises(expected, match=words) as caught:
        import_checkpoint(path, output=tmp_path / "models" / "new", **options)
    assert caught.value.advice  # type: ignore[attr-defined]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("writer", ["torch", "pickle", "nested"])
def test_hostile_pickles_are_not_run(writer: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "weights.pth"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Hostile(trap)))
    elif writer == "torch":
        torch.save(Hostile(trap), path)
    else:
        torch.save(dict(tiny_network("linear").state_dict()) | {"extra": Hostile(trap)}, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        import_checkpoint(path, output=tmp_path / "new")
    assert not trap.exists() and not (tmp_path / "new").exists()
    # The trap works: the ordinary unpickler would have made the file.
    with path.open("rb") as file:
        pickle.load(file) if writer == "pickle" else torch.load(path, weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cnn_transformer", "n_trans_layers"),
        ("transformer", "pooling"),
        ("slowfast", "n_frames"),
        ("ast", "target_length"),
    ],
)
def test_what_cannot_be_told_is_asked_for(name: str, words: str, tmp_path: Path) -> None:
    write_published(tmp_path / "weights.pth", name)
    with pytest.raises(CheckpointError, match=words) as caught:
        import_checkpoint(tmp_path / "weights.pth", output=tmp_path / "new")
    assert "weights.pth" in caught.value.message


def test_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    slowfast_container(tmp_path / "vgg.pyth")
    cases = {
        "audioset.txt": (audioset_classes(), r"527 labels \(they are those of AudioSet\).*309"),
        "few.txt": (["dog", "cat"], "2 labels.*309"),
        "others.txt": ([f"thing {i}" for i in range(309)], "another data set.*VGG-Sound"),
    }
    for file, (names, words) in cases.items():
        (tmp_path / file).write_text("\n".join(names))
        with pytest.raises(CheckpointError, match=words):
            import_checkpoint(tmp_path / "vgg.pyth", labels=tmp_path / file, output=tmp_path / "new")
        assert not (tmp_path / "new").exists()
    shuffled = sorted(name for name, _ in vggsound_classes())[::-1]
    (tmp_path / "shuffled.txt").write_text("\n".join(shuffled))
    report = import_checkpoint(tmp_path / "vgg.pyth", labels=tmp_path / "shuffled.txt", output=tmp_path / "new")
    assert report.card.labels == shuffled and any("another order" in note for note in report.notes)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = good(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists already"):
        import_checkpoint(path, output=tmp_path / "kept")
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "years of work"


def test_other_folders_say_what_they_are(tmp_path: Path) -> None:
    for content, words in (({"model_type": "wav2vec2"}, "'wav2vec2'"), (None, "without a Hugging Face model")):
        folder = tmp_path / f"folder {content is None}"
        folder.mkdir()
        if content is not None:
            (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=words) as caught:
            import_checkpoint(folder, output=tmp_path / "new")
        assert caught.value.advice and not (tmp_path / "new").exists()
