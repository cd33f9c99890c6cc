"""Lessons on disk, taught models, and what is said about them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench.teaching.lessons as lessons_module
from models.catalog import find_checkpoint, read_card
from models.checkpoint import load_recognizer, save_checkpoint
from models.clip import Clip, encode_wav
from models.errors import CheckpointError, EarwitnessError
from models.teaching.contract import TeachSettings
from saliency.difference import Movement
from tests.conftest import make_recognizer
from workbench.engine import Engine
from workbench.jobs import JobStore
from workbench.teaching.curves import confusion_table, latest_run, per_class_table, thinned, training_curves
from workbench.teaching.example import SAMPLE_RATE, example_sounds
from workbench.teaching.lessons import LessonBook, clean_label
from workbench.teaching.tasks import Given, submit_additions, submit_preview
from workbench.teaching.taught import (
    discard_model,
    keep_model,
    let_model_go,
    model_of_job,
    own_models,
    rename_model,
    taught_folder,
    zip_of_model,
)
from workbench.teaching.words import (
    duration,
    forgetting,
    left_out,
    listed,
    moved_in_words,
    outcome,
    points,
    untested,
    worst_class,
)
from workbench.teaching.work import JobExample, TeachJob

ME, YOU = "a" * 32, "b" * 32
HOSTILE = '../../<img src=x onerror=alert(1)>"|.wav'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_HOME", str(tmp_path))
    return tmp_path.resolve()


@pytest.fixture
def book(home: Path) -> LessonBook:
    return LessonBook(ME)


@pytest.fixture
def engine() -> Engine:
    return Engine(workers=1)


def tone(seconds: float = 0.5, pitch: float = 440.0) -> bytes:
    t = np.arange(int(8000 * seconds)) / 8000
    return encode_wav(0.3 * np.sin(2 * np.pi * pitch * t)[None].astype(np.float32), 8000)


def test_a_lesson_survives_and_tabs_do_not_meet(book: LessonBook) -> None:
    first, second = book.open(""), book.open("")
    assert first.id != second.id
    example = book.add(first.id, tone(), HOSTILE, ["doorbell"], 0.5)
    book.add(second.id, tone(), "same sound", ["kettle"], 0.5)
    again = LessonBook(ME).open(first.id)
    assert again.examples == (example,) and again.labels == ["doorbell"] and example.name == HOSTILE
    assert book.open(second.id).labels == ["kettle"]
    # Equal content lies there once, under a name made from it.
    (stored,) = book.files.iterdir()
    assert stored.name == example.file and set(stored.name) <= set("0123456789abcdef")
    assert book.path_of(example).read_bytes() == tone()
    assert {lesson.id for lesson in book.lessons()} == {first.id, second.id}
    assert LessonBook(YOU).open(first.id).examples == ()


def test_examples_are_changed_removed_and_brought_back(book: LessonBook) -> None:
    lesson = book.open("")
    first = book.add(lesson.id, tone(), "one", ["a"], 0.5)
    second = book.add(lesson.id, tone(pitch=500), "two", [], 0.5)
    book.set_example(lesson.id, second.id, labels=("a", "b"), held_out=True)
    before = book.open(lesson.id).examples
    assert before[1].labels == ("a", "b") and before[1].held_out and before[0] == first
    assert book.remove(lesson.id, [first.id]).examples == before[1:]
    assert book.put_back(lesson.id, before).examples == before
    assert [e.path for e in book.teaching_examples(book.open(lesson.id))] == [book.path_of(e) for e in before]


@pytest.mark.parametrize("lesson_id", ["../../x", "a/b", "", "x" * 12, "0" * 500])
def test_ids_are_never_paths(book: LessonBook, lesson_id: str) -> None:
    assert book.open(lesson_id).id != lesson_id
    with pytest.raises(EarwitnessError):
        LessonBook(lesson_id)


def test_a_damaged_lesson_is_an_empty_one(book: LessonBook) -> None:
    (book.folder / "0123456789ab.json").write_text("{nonsense")
    assert book.open("0123456789ab").examples == ()


@pytest.mark.parametrize("label", ["", "   ", "x" * 500, "a\u202eb"])
def test_labels_that_cannot_be(label: str) -> None:
    with pytest.raises(EarwitnessError):
        clean_label(label)


def test_a_label_is_text_whatever_it_says() -> None:
    assert clean_label("  <b>door</b> \n bell ") == "<b>door</b> bell"


def test_limits(book: LessonBook, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = book.open("")
    with pytest.raises(EarwitnessError, match="120 s"):
        book.add(lesson.id, tone(), "long", [], 121.0)
    monkeypatch.setattr(lessons_module, "MOST_BYTES", 2 * len(tone()))
    first = book.add(lesson.id, tone(pitch=300), "1", [], 0.5)
    book.add(lesson.id, tone(pitch=400), "2", [], 0.5)
    with pytest.raises(EarwitnessError, match="MiB"):
        book.add(lesson.id, tone(pitch=500), "3", [], 0.5)
    # What no lesson names any more makes room.
    book.remove(lesson.id, [first.id])
    book.add(lesson.id, tone(pitch=500), "3", [], 0.5)
    monkeypatch.setattr(lessons_module, "MOST_EXAMPLES", 2)
    with pytest.raises(EarwitnessError, match="holds 2"):
        book.add(lesson.id, tone(pitch=400), "4", [], 0.5)
    monkeypatch.setattr(lessons_module, "MOST_EXAMPLES", 9)
    monkeypatch.setattr("workbench.home.SPARE_BYTES", 2**62)
    with pytest.raises(EarwitnessError, match="disk is full"):
        book.add(lesson.id, tone(pitch=700), "5", [], 0.5)


def test_files_and_clips_are_added_and_bad_ones_named(book: LessonBook, engine: Engine) -> None:
    lesson = book.open("")
    clip = Clip.from_array(np.zeros((2, 800), np.float32), 8000, name="a clip")
    given = [
        Given(HOSTILE, tone(), ("a",)), Given("noise.wav", b"RIFF not a sound", ("a",)), Given("a clip", clip, ("b", "c")),
    ]  # fmt: skip
    job = submit_additions(engine, book, lesson.id, given, "1")
    assert job.wait(60) and job.error is None
    assert job.result.added == 2 and [name for name, _ in job.result.refused] == ["noise.wav"]
    stored = book.open(lesson.id).examples
    assert [e.labels for e in stored] == [("a",), ("b", "c")] and stored[0].seconds == pytest.approx(0.5)
    shown = submit_preview(engine, book.path_of(stored[0]))
    assert shown.wait(60) and shown.result.sound[:4] == b"RIFF" and shown.result.picture[1:4] == b"PNG"


def test_the_example_lesson_is_audible_and_its_classes_differ() -> None:
    sounds = example_sounds(3)
    assert [label for _, label, _ in sounds] == ["doorbell", "kettle"] * 3
    assert all(np.isfinite(w).all() and 0.1 < np.abs(w).max() <= 0.55 for _, _, w in sounds)
    assert len({w.tobytes() for _, _, w in sounds}) == 6
    again = example_sounds(3)
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(sounds, again, strict=True))

    def middle(waveform: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(waveform[0])) ** 2
        return float((power * np.fft.rfftfreq(waveform.shape[1], 1 / SAMPLE_RATE)).sum() / power.sum())

    assert max(middle(w) for _, label, w in sounds if label == "doorbell") < min(
        middle(w) for _, label, w in sounds if label == "kettle"
    )


@pytest.fixture
def taught(home: Path) -> tuple[JobStore, str]:
    """A job of mine that is done, with its model."""
    store = JobStore(home)
    settings = TeachJob(base="x", title="mine", examples=[], settings=TeachSettings())
    job_id = store.submit(ME, "teach", "mine", settings)
    recognizer = make_recognizer("resnet_attention")
    folder = store.folder_of(job_id) / "model" / model_of_job(job_id)
    save_checkpoint(folder, recognizer.network, recognizer.card.model_copy(update={"name": folder.name}))
    store.change(job_id, state="done", result={"labels": ["a"]})
    return store, job_id


def test_a_taught_model_is_kept_renamed_and_thrown_away(taught: tuple[JobStore, str], home: Path) -> None:
    store, job_id = taught
    name = model_of_job(job_id)

    def job() -> Any:
        return store.find(job_id)

    assert find_checkpoint(name) == taught_folder(name) and own_models(ME) == {}
    keep_model(store, job(), "My <b>bell</b>")
    assert own_models(ME) == {name: home / "models" / ME / name} and own_models(YOU) == {}
    assert job().kept and job().title == "My <b>bell</b>" == read_card(own_models(ME)[name]).title
    assert load_recognizer(name).labels == ["dog", "rain", "clock"]
    rename_model(store, job(), "Bell")
    assert read_card(find_checkpoint(name)).title == "Bell"
    with pytest.raises(EarwitnessError, match="needs a name"):
        rename_model(store, job(), " \n ")
    discard_model(store, job())
    assert own_models(ME) == {} and store.find_all(ME) == []
    assert store.restore(job_id)
    keep_model(store, job())
    assert list(own_models(ME)) == [name]
    let_model_go(store, job())
    assert own_models(ME) == {} and find_checkpoint(name).is_dir()
    store.remove(job_id)
    with pytest.raises(CheckpointError):
        find_checkpoint(name)


def test_a_model_as_a_file_is_a_checkpoint(taught: tuple[JobStore, str], tmp_path: Path) -> None:
    folder = taught_folder(model_of_job(taught[1]))
    assert folder is not None
    with zipfile.ZipFile(io.BytesIO(zip_of_model(folder, "bell"))) as archive:
        archive.extractall(tmp_path / "out")
    assert load_recognizer(tmp_path / "out" / "bell").labels == ["dog", "rain", "clock"]


@pytest.mark.parametrize("name", ["taught-", "taught-../../etc", "taught-" + "g" * 16, "../taught-" + "0" * 16])
def test_names_of_taught_models_are_never_paths(home: Path, name: str) -> None:
    assert taught_folder(name) is None


def test_models_that_nobody_uses_are_let_go() -> None:
    from collections import OrderedDict

    from workbench.engine.pool import MODELS, _used

    held: OrderedDict[str, int] = OrderedDict()
    for number in range(MODELS + 3):
        held[str(number)] = number
        assert _used(held, str(number)) == number
        _used(held, "0")
    assert len(held) == MODELS and "0" in held and "1" not in held and str(MODELS + 2) in held


def test_a_job_keeps_its_files(home: Path, book: LessonBook) -> None:
    """What becomes of the lesson afterwards does not matter to it."""
    lesson = book.open("")
    example = book.add(lesson.id, tone(), "x", ["a"], 0.5)
    store = JobStore(home)
    settings = TeachJob(
        base="b", title="t", settings=TeachSettings(),
        examples=[JobExample(name="x", file=example.file, labels=("a",))],
    )  # fmt: skip
    job_id = store.submit(ME, "teach", "t", settings, {example.file: book.path_of(example)})
    book.path_of(example).unlink()
    assert (store.folder_of(job_id) / "files" / example.file).read_bytes() == tone()
    with pytest.raises(EarwitnessError):
        store.submit(ME, "teach", "t", settings, {"gone": home / "gone"})
    assert len(store.find_all()) == 1 == len(list(store.folder.iterdir()))


def scores(accuracy: float, clips: int, **per_class: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "clips": clips, "per_class": per_class, "labels": [], "confusion": []}


def made(**values: Any) -> dict[str, Any]:
    return {
        "new_labels": ["doorbell", "kettle"],
        "labels": [],
        "before": scores(0, 10),
        "after": scores(0.9, 10),
    } | values


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (made(), "It now knows “doorbell” and “kettle”: 9 of 10 held-out clips right, before 0."),
        (made(after=None), "It now knows “doorbell” and “kettle”. No example was held out"),
        (
            made(after=None, left_out={"examples": 12, "recognised": 9, "favour": 0.2}),
            "It now knows “doorbell” and “kettle”. Each example that it learned from was left out once: 9 of 12 were recognised",
        ),
        (
            made(new_labels=[], after=scores(1, 4, dog=1.0)),
            "It was trained further on “dog”: 4 of 4 held-out clips right",
        ),
        (
            made(after=scores(1.0, 1)),
            "1 of 1 held-out clip right, before 0. So few clips say little: each is worth 100 points.",
        ),
    ],
)
def test_the_outcome_in_words(result: dict[str, Any], said: str) -> None:
    assert said in outcome(result)


def test_other_sentences() -> None:
    assert "mean average precision 0.90 on 10" in outcome(made(), multi_label=True)
    assert (
        forgetting(made(old_before=scores(0.938, 80), old_after=scores(0.932, 80)))
        == "The old classes lost 0.6 points."
    )
    assert forgetting(made(old_before=scores(0.9, 8), old_after=scores(0.9, 8))) == "The old classes lost nothing."
    assert forgetting(made(old_how="No data of the old classes.")) == "No data of the old classes."
    assert points(0.01) == "1 point" and points(-0.105) == "10.5 points"
    assert "“kettle” is the hardest: 25 %" in worst_class(made(after=scores(0.5, 8, kettle=0.25, doorbell=1.0)))
    assert worst_class(made(after=scores(1, 8, kettle=1.0))) == ""
    assert untested(made(after=scores(1, 2, kettle=1.0))).startswith("How well it knows “doorbell” was not tested")
    assert untested(made(after=scores(1, 2, kettle=1.0, doorbell=1.0))) == untested(made(after=None)) == ""
    assert left_out(made()) == left_out(made(left_out=None)) == ""
    assert listed(["a"]) == "“a”" and listed(list("abcdef"), 2) == "“a”, “b” and 4 more"
    assert duration(0.3) == "a second" and duration(75) == "75 s" and duration(600) == "10 min" and duration(None) == ""
    moved = Movement(np.zeros((1, 1)), np.zeros(1), np.zeros(1), 0.31, 0.5, (0.4, 0.8, 1000.0, 3000.0), None)
    assert (
        moved_in_words(moved, "dog", "dog")
        == "31 % of what counts lies elsewhere now. More than before: 0.4–0.8 s, 1.0 kHz to 3.0 kHz."
    )
    assert "took it for “clock tick”; now for “doorbell”" in moved_in_words(moved, "clock_tick", "doorbell")


def test_curves_and_tables() -> None:
    history = [
        {"step": n, "steps": 900, "loss": 1 / (n + 1), "accuracy": 0.5 if n == 450 else None} for n in range(900)
    ]
    assert len(thinned(history)) < 310 and {450, 899} <= {p["step"] for p in thinned(history)}
    resumed = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.9}, {"step": 2, "loss": 0.8, "accuracy": 0.5}]
    assert latest_run(resumed) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.8, "accuracy": 0.5}]
    figure = training_curves(history)
    assert [len(trace.x) for trace in figure.data] == [len(thinned(history)), 1] and figure.layout.xaxis.range == (
        0,
        900,
    )
    assert len(training_curves([]).data) == 2
    hostile = {"labels": ["<script>a", "b", "c"], "confusion": [[3, 1, 0], [0, 0, 0], [0, 0, 0]]}
    table = confusion_table(hostile, "After")
    assert "<script>a" not in table and "&lt;script&gt;a" in table and ">c<" not in table and ">3<" in table
    rows = per_class_table(
        made(after=scores(0.5, 4, **{"<b>": 0.5}), old_after=scores(1, 4, dog=1.0), old_before=scores(1, 4, dog=0.75))
    )
    assert "&lt;b&gt;" in rows and "75 %" in rows and "100 %" in rows
