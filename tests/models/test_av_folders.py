"""Videos in class folders."""

from pathlib import Path

import pytest

from models.data.av_folders import read_av_folders
from models.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for label, count in (("Train", 4), ("Bird", 6)):
        (tmp_path / label).mkdir()
        for index in range(count):
            (tmp_path / label / f"clip_{index}.mp4").write_bytes(b"x")
    (tmp_path / "Bird" / "notes.txt").write_text("not a clip")
    (tmp_path / "Empty").mkdir()
    (tmp_path / "stray.mp4").write_bytes(b"x")
    return tmp_path


def test_all_classes_in_alphabetical_order(root: Path) -> None:
    examples = read_av_folders(root, n_folds=2)
    assert examples.labels == ("Bird", "Empty", "Train")
    assert len(examples.examples) == 10
    assert examples.missing == (root / "Empty",)
    assert {example.labels for example in examples.examples} == {("Bird",), ("Train",)}


def test_folds_share_every_class_and_stay(root: Path) -> None:
    first, again = read_av_folders(root, n_folds=2), read_av_folders(root, n_folds=2)
    assert first == again
    for fold in (1, 2):
        labels = [example.labels[0] for example in first.folds([fold]).examples]
        assert (labels.count("Bird"), labels.count("Train")) == (3, 2)
    assert read_av_folders(root, n_folds=2, seed=1) != first


def test_wanted_classes_keep_their_order_and_absent_ones_are_named(root: Path) -> None:
    examples = read_av_folders(root, classes=["Train", "Whale", "Bird"])
    assert examples.labels == ("Train", "Whale", "Bird")
    assert examples.missing == (root / "Whale",)
    assert "Whale" in examples.describe_missing()


def test_a_class_name_cannot_leave_the_folder(root: Path) -> None:
    with pytest.raises(DataError):
        read_av_folders(root / "Empty", classes=["../Bird"])


def test_errors_say_what_to_do(root: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        read_av_folders(root / "nowhere")
    with pytest.raises(DataError, match="There is no"):
        read_av_folders(root / "Empty")
    with pytest.raises(DataError, match="0 folds"):
        read_av_folders(root, n_folds=0)
