"""ESC folders: official, small, incomplete and hostile ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models.data import ExampleSet, read_esc
from models.data.examples import Example, collect
from models.errors import DataError

HEADER = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
# filename, fold, category, whether in ESC-10
OFFICIAL = [
    ("1-100-A-0.wav", 1, "dog", True), ("2-100-A-0.wav", 2, "dog", True), ("1-200-A-14.wav", 1, "chirping_birds", False),
    ("5-300-A-10.wav", 5, "rain", True), ("5-301-A-10.wav", 5, "rain", True),
]  # fmt: skip


def official(root: Path, absent: tuple[str, ...] = ()) -> Path:
    (root / "meta").mkdir()
    (root / "audio").mkdir()
    with (root / "meta" / "esc50.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for name, fold, category, small in OFFICIAL:
            writer.writerow([name, fold, 0, category, small, 1, "A"])
            if name not in absent:
                (root / "audio" / name).touch()
    return root


def small(root: Path, text: str | bytes, *names: str) -> Path:
    data = text.encode() if isinstance(text, str) else text
    (root / "meta.csv").write_bytes(data)
    (root / "audio").mkdir(exist_ok=True)
    for name in names:
        (root / "audio" / name).touch()
    return root


def rows(found: ExampleSet) -> list[tuple[str, str, int | None]]:
    return [(e.path.name, e.labels[0], e.fold) for e in found.examples]


def test_the_official_folder(tmp_path: Path) -> None:
    found = read_esc(official(tmp_path))
    assert found.labels == ("chirping_birds", "dog", "rain") and not found.missing
    assert rows(found) == [(name, category, fold) for name, fold, category, _ in OFFICIAL]
    assert all(e.path.parent == tmp_path / "audio" and e.start is e.stop is None for e in found.examples)


def test_esc10_is_its_part(tmp_path: Path) -> None:
    found = read_esc(official(tmp_path), only_esc10=True)
    assert found.labels == ("dog", "rain") and len(found.examples) == 4


def test_wanted_classes_come_in_the_wanted_order(tmp_path: Path) -> None:
    found = read_esc(official(tmp_path), categories=["rain", "chirping_birds"])
    assert found.labels == ("rain", "chirping_birds") and {r[1] for r in rows(found)} == set(found.labels)
    with pytest.raises(DataError, match="no class named 'thunder', 'unicorn'"):
        read_esc(tmp_path, categories=["unicorn", "dog", "thunder"])
    with pytest.raises(DataError, match="no class named 'chirping_birds'"):
        read_esc(tmp_path, categories=["chirping_birds"], only_esc10=True)


def test_folds_part_the_examples(tmp_path: Path) -> None:
    found = read_esc(official(tmp_path))
    assert [e.fold for e in found.folds([5]).examples] == [5, 5]
    assert [e.fold for e in found.folds(iter([1, 2])).examples] == [1, 2, 1]
    assert found.folds([3]).examples == () and found.folds([3]).labels == found.labels


def test_the_small_annotation(tmp_path: Path) -> None:
    text = "\ufefffilename,fold,category\r\na.flac,1,dog\r\nb.flac,2,käse reiben\r\n"
    found = read_esc(small(tmp_path, text, "a.flac", "b.flac"))
    assert rows(found) == [("a.flac", "dog", 1), ("b.flac", "käse reiben", 2)]
    # Without a column for ESC-10 everything is in it.
    assert read_esc(tmp_path, only_esc10=True) == found


def test_the_official_annotation_comes_first(tmp_path: Path) -> None:
    small(official(tmp_path), "filename,fold,category\n1-100-A-0.wav,1,other\n")
    assert "other" not in read_esc(tmp_path).labels


def test_missing_files_are_named_not_fatal(tmp_path: Path) -> None:
    found = read_esc(official(tmp_path, absent=("1-200-A-14.wav", "5-300-A-10.wav")))
    assert [p.name for p in found.missing] == ["1-200-A-14.wav", "5-300-A-10.wav"] and len(found.examples) == 3
    assert found.labels == ("chirping_birds", "dog", "rain")  # indices must not depend on which files are there
    assert found.describe_missing() == "2 files are missing (1-200-A-14.wav, 5-300-A-10.wav)."
    assert found.folds([5]).missing == found.missing
    assert read_esc(official_complete(tmp_path)).describe_missing() == ""


def official_complete(root: Path) -> Path:
    for name, *_ in OFFICIAL:
        (root / "audio" / name).touch()
    return root


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "here.wav").touch()
    found = collect([Example(tmp_path / f"{n}.wav", ("a",)) for n in [*range(7), "here"]], ["a"])
    assert found.describe_missing() == "7 files are missing (0.wav, 1.wav, 2.wav, 3.wav, 4.wav, ...)."


def test_no_file_at_all_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"None of the 5 files .* audio"):
        read_esc(official(tmp_path, absent=tuple(name for name, *_ in OFFICIAL)))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.wav",
        "../../secret.wav",
        "/etc/passwd",
        "..",
        ".",
        "",
        "sub/../../secret.wav",
        "a" * 5000 + ".wav",
        "zero\0.wav",
    ],
    ids=lambda name: repr(name[:20]),
)
def test_no_name_leads_out_of_the_audio_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for secret in (tmp_path / "secret.wav", tmp_path / "data" / "secret.wav"):
        secret.touch()
    found = read_esc(small(tmp_path / "data", f'filename,fold,category\n"{name}",1,dog\nok.wav,1,dog\n', "ok.wav"))
    assert [e.path.name for e in found.examples] == ["ok.wav"] and len(found.missing) == 1
    assert all(p.parent == tmp_path / "data" / "audio" or p == tmp_path / "data" / "audio" for p in found.missing)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "must have the columns category, filename, fold"),
    "header only": (b"filename,fold,category\n", "must have the columns"),
    "another table": (b"path,label\na.wav,dog\n", "must have the columns"),
    "a fold in words": (b"filename,fold,category\na.wav,1,dog\nb.wav,one,dog\n", "line 3: the fold 'one'"),
    "a short row": (b"filename,fold,category\na.wav,1,dog\nb.wav\n", "line 3: the fold ''"),
    "no text": (b"filename,fold,category\n\xff\xfe\x80,1,dog\n", "cannot be read as a table"),
    "an endless field": (b"filename,fold,category\n" + b"a" * 200_000 + b",1,dog\n", "cannot be read as a table"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_annotations_are_explained(case: str, tmp_path: Path) -> None:
    data, message = BROKEN[case]
    with pytest.raises(DataError, match=message):
        read_esc(small(tmp_path, data, "a.wav"))


def test_lines_are_counted_in_the_file_not_in_the_selection(tmp_path: Path) -> None:
    text = "filename,fold,category\na.wav,1,cat\na.wav,2,cat\nb.wav,x,dog\n"
    with pytest.raises(DataError, match="line 4"):
        read_esc(small(tmp_path, text, "a.wav"), categories=["dog"])


def test_a_folder_without_annotation_says_where_to_get_it(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="no ESC annotation") as caught:
            read_esc(root)
        assert "github.com/karolpiczak/ESC-50" in caught.value.advice
