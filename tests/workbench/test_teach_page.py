"""The pages "Teach" and "Jobs" without a browser: a tiny model, and real jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from models.catalog import find_checkpoint
from models.checkpoint import hash_weights, load_recognizer, save_checkpoint
from models.clip import encode_wav
from tests.conftest import make_recognizer
from tests.workbench import app_pages
from tests.workbench.app_pages import has, text, until
from workbench.jobs import jobs
from workbench.teaching.lessons import Lesson, LessonBook
from workbench.teaching.taught import own_models

ME = "c" * 32
HOSTILE = "<img src=x onerror=alert(1)> **b** [l](http://example.com)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EARWITNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EARWITNESS_CHECKPOINTS", str(tmp_path / "models"))
    recognizer = make_recognizer("resnet_attention")
    save_checkpoint(
        tmp_path / "models" / "tiny", recognizer.network, recognizer.card.model_copy(update={"title": "Tiny"})
    )
    yield tmp_path / "home"
    for job in jobs().active():
        jobs().remove(job.id)


def tone(pitch: float, seconds: float = 0.4) -> bytes:
    t = np.arange(int(16000 * seconds)) / 16000
    noise = np.random.default_rng(int(pitch)).standard_normal(len(t))
    return encode_wav((0.3 * np.sin(2 * np.pi * pitch * t) + 0.02 * noise)[None].astype(np.float32), 16000)


def make_lesson(*labels: tuple[str, ...], silent: bool = False) -> tuple[LessonBook, Lesson]:
    """A lesson with a short tone for each entry."""
    book = LessonBook(ME)
    lesson = book.open("")
    for number, own in enumerate(labels):
        sound = encode_wav(np.zeros((1, 6400 + number), np.float32), 16000) if silent else tone(300 + 350 * number)
        book.add(lesson.id, sound, f"{HOSTILE} {number}", own, 0.4)
    return book, book.open(lesson.id)


BELLS = (("bell",), ("bell",), ("bell",), ("buzz",), ("buzz",), ("buzz",))


def open_page(page: str = "teach", **address: str) -> AppTest:
    return app_pages.open_page(page, {"workspace": ME}, **address)


def can_start(app: AppTest) -> bool:
    return not app.button(key="teach_start").disabled and "Looking through" not in text(app)


def test_the_empty_page_teaches_and_fills_itself(home: Path) -> None:
    app = open_page(model="tiny")
    assert "Teach it a sound in five minutes" in text(app) and app.button(key="teach_start").disabled
    app.button(key="teach_fill").click()
    until(app.run(), lambda: "16 examples: 8 doorbell, 8 kettle" in text(app))
    assert app.query_params["lesson"] in (app.session_state["lesson"], [app.session_state["lesson"]])
    # A reload finds the same.
    again = open_page(lesson=app.session_state["lesson"], model="tiny")
    assert "16 examples" in text(again)
    # Another tab has a lesson of its own, and finds this one by its name.
    other = open_page(model="tiny")
    assert "Teach it a sound" in text(other)
    other.button(key=f"teach_lesson_{app.session_state['lesson']}").click()
    assert "16 examples" in text(other.run())


@pytest.mark.slow
def test_teach_compare_keep_and_discard(home: Path) -> None:
    book, lesson = make_lesson(*BELLS)
    for example in (lesson.examples[2], lesson.examples[5]):
        book.set_example(lesson.id, example.id, held_out=True)
    before = hash_weights(load_recognizer("tiny").network.state_dict())
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: can_start(app) and len(app.radio(key="teach_way").options) > 1)
    assert "<img src=x" not in text(app)
    app.radio(key="teach_way").set_value("head")
    app.number_input(key="teach_epochs").set_value(20)
    app.text_input(key="teach_title").set_value(HOSTILE)
    app.button(key="teach_start").click()
    app.run()
    assert has(app, "teach_cancel") and "<img src=x" not in text(app)
    until(app, lambda: has(app, "teach_keep"))
    assert "It now knows “bell” and “buzz”" in text(app) and "held-out" in text(app)
    assert "The old classes" in text(app) or "forgotten" in text(app)
    (job,) = jobs().find_all(ME)
    assert job.title == HOSTILE and own_models(ME) == {}
    until(app, lambda: "what counts lies elsewhere" in text(app) or "the same as before" in text(app))
    until(app, lambda: len(app.get("download_button")) == 1)
    app.text_input(key=f"teach_title_{job.id}").set_value("My bell")
    app.button(key="teach_keep").click()
    app.run()
    assert list(own_models(ME)) == [f"taught-{job.id}"] and has(app, "teach_rename")
    assert "My bell" in app.selectbox(key="model").options
    # The taught model is a model as any other, and in this visitor's list alone.
    assert load_recognizer(f"taught-{job.id}").labels == ["dog", "rain", "clock", "bell", "buzz"]
    assert hash_weights(load_recognizer("tiny").network.state_dict()) == before
    app.button(key="teach_discard").click()
    app.run()
    assert own_models(ME) == {} and "My bell" not in app.selectbox(key="model").options
    app.button(key="teach_undo_discard").click()
    app.run()
    assert list(own_models(ME)) == [f"taught-{job.id}"] and not app.exception


@pytest.mark.parametrize(
    ("labels", "silent", "said"),
    [
        ((("bell",),), False, ""),  # one example only
        (((), ("bell",), ("bell",)), False, ""),  # one without a label
        ((("bell",), ("bell",), ("buzz",), ("buzz",)), True, "silent"),
        ((("dog", "bell"), ("dog",), ("rain",), ("rain",)), False, ""),  # several labels, one is right
    ],
)
def test_what_is_wrong_with_the_examples_is_said(
    home: Path, labels: tuple[tuple[str, ...], ...], silent: bool, said: str
) -> None:
    _, lesson = make_lesson(*labels, silent=silent)
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: "Looking through" not in text(app) and "ew-finding" in text(app))
    assert "Nothing looks wrong" not in text(app) and said in text(app)
    assert "<img src=x" not in text(app)
    if silent:
        assert app.button(key="teach_start").disabled


def test_several_labels_make_it_a_multi_label_lesson(home: Path) -> None:
    _, lesson = make_lesson(("dog", "bell"), ("bell",), ("bell",), ("dog",))
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: has(app, "teach_several"))
    assert app.button(key="teach_start").disabled
    app.button(key="teach_several").click()
    until(app.run(), lambda: not has(app, "teach_several") and can_start(app))
    assert app.checkbox(key="teach_multi").value is True


def test_rows_are_edited_removed_and_brought_back(home: Path) -> None:
    book, lesson = make_lesson(*BELLS)
    app = open_page(lesson=lesson.id, model="tiny")
    first = lesson.examples[0]
    field = app.multiselect(key=f"labels_{first.id}_0")
    assert field.value == ["bell"] and set(field.options) >= {"dog", "rain", "clock", "bell", "buzz"}
    field.set_value(["bell", "dog"])
    app.run()
    assert book.open(lesson.id).examples[0].labels == ("bell", "dog")
    app.checkbox(key=f"held_{first.id}").check()
    app.run()
    assert book.open(lesson.id).examples[0].held_out
    app.button(key=f"teach_remove_{first.id}").click()
    app.run()
    assert len(book.open(lesson.id).examples) == 5 and "5 examples" in text(app)
    app.button(key="teach_undo_button").click()
    app.run()
    assert book.open(lesson.id).examples[0].labels == ("bell", "dog") and not app.exception


def test_a_class_name_that_cannot_be_is_refused_in_place(home: Path) -> None:
    _, lesson = make_lesson(*BELLS)
    app = open_page(lesson=lesson.id, model="tiny")
    app.session_state["teach_new_labels"] = ["x" * 500]
    app.run()
    assert "500 characters" in text(app) and not app.exception
    app.session_state["teach_new_labels"] = ["<b>bell</b>"]
    app.run()
    assert not app.error and "<b>bell</b>" in app.multiselect(key="teach_new_labels").options


@pytest.mark.slow
def test_cancel_resume_and_failure(home: Path) -> None:
    _, lesson = make_lesson(*BELLS)
    files = sorted(find_checkpoint("tiny").iterdir())
    before = [file.read_bytes() for file in files]
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: can_start(app))
    app.button(key="teach_start").click()
    app.run()
    app.button(key="teach_cancel").click()
    until(app.run(), lambda: has(app, "teach_resume"))
    assert "Cancelled" in text(app) and [file.read_bytes() for file in files] == before
    app.button(key="teach_resume").click()
    until(app.run(), lambda: has(app, "teach_keep"))
    # A rate at which the loss is no number any more is told, and the base stays.
    until(app, lambda: len(app.radio(key="teach_way").options) > 1)
    app.radio(key="teach_way").set_value("everything")
    app.number_input(key="teach_rate").set_value(1.0)
    app.number_input(key="teach_epochs").set_value(2)
    app.button(key="teach_start").click()
    until(app.run(), lambda: has(app, "teach_resume") or has(app, "teach_keep"))
    assert [file.read_bytes() for file in files] == before


def test_a_full_disk_is_said_in_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, lesson = make_lesson(*BELLS)
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: can_start(app))
    monkeypatch.setattr("workbench.home.SPARE_BYTES", 2**62)
    app.button(key="teach_start").click()
    app.run()
    assert "disk is full" in text(app) and not app.exception and jobs().find_all(ME) == []


def test_another_visitor_s_job_is_not_shown(home: Path) -> None:
    book, lesson = make_lesson(*BELLS)
    book.set(lesson.id, job="0" * 16)
    app = open_page(lesson=lesson.id, model="tiny")
    assert not app.exception and "6 examples" in text(app)
    assert not open_page(job="0" * 16).exception
    assert not open_page(lesson="../../x", model="<b>").exception


@pytest.mark.slow
def test_the_page_jobs(home: Path) -> None:
    assert "No jobs yet" in text(open_page("jobs"))
    _, lesson = make_lesson(*BELLS)
    app = open_page(lesson=lesson.id, model="tiny")
    until(app, lambda: can_start(app))
    app.text_input(key="teach_title").set_value(HOSTILE)
    app.button(key="teach_start").click()
    app.run()
    (job,) = jobs().find_all(ME)
    listed = open_page("jobs")
    assert has(listed, f"jobs_cancel_{job.id}") and "<img src=x" not in text(listed)
    until(listed, lambda: not has(listed, f"jobs_cancel_{job.id}"))
    assert "Done" in text(listed) and "begun" in listed.code[0].value
    listed.toggle(key=f"jobs_keep_{job.id}").set_value(True)
    listed.run()
    assert list(own_models(ME)) == [f"taught-{job.id}"]
    listed.button(key=f"jobs_remove_{job.id}").click()
    listed.run()
    assert "No jobs yet" in text(listed) and own_models(ME) == {}
    listed.button(key="jobs_undo").click()
    listed.run()
    assert has(listed, f"jobs_remove_{job.id}") and not listed.exception
    assert list(own_models(ME)) == [f"taught-{job.id}"]
