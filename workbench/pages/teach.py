"""The page "Teach": a few examples make a new model, and one sees and hears what changed."""

from __future__ import annotations

import streamlit as st

from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import engine
from workbench.jobs import JobStore
from workbench.steps import AT_ONCE, cards, model_step, start_from_address
from workbench.teaching.choices import training_step
from workbench.teaching.collecting import collecting_step
from workbench.teaching.explained import explained_view
from workbench.teaching.lessons import Lesson, LessonBook
from workbench.teaching.page import (
    Scene,
    attempt,
    begin_looking,
    keep_lesson_address,
    look_again,
    open_lesson,
    show_problem,
    style,
)
from workbench.teaching.result import discarded_bar, result_view
from workbench.teaching.rows import examples_table, findings_of, show_findings
from workbench.teaching.running import running_view, stopped_view
from workbench.teaching.tasks import submit_example_lesson
from workbench.teaching.words import listed


def fill_in(book: LessonBook, lesson_id: str) -> None:
    """Put the example lesson into this tab's lesson."""
    st.session_state.teach_adding = submit_example_lesson(engine(), book, lesson_id)
    st.session_state.teach_adding.wait(AT_ONCE)


def other_lesson(lesson_id: str) -> None:
    """Open another lesson in this tab; an empty id begins a new one."""
    st.query_params.clear()
    st.session_state.lesson = ""
    st.session_state.other_lesson = lesson_id


def invitation(scene: Scene) -> None:
    """What the page is for, one button that fills it, and earlier lessons."""
    st.html(
        '<div class="ew-verdict" style="min-height:0"><div class="ew-label">Teach it a sound in five minutes</div>'
        '<div class="ew-why">A few recordings of a doorbell, of your dog, of a bird are enough for a model to know it. You hear '
        'what it goes by before and after.</div><ol class="ew-steps-list"><li>Bring five or more examples of each sound, and say '
        "what is heard in them.</li><li>Choose the model that is to learn them.</li><li>Press <b>Teach</b>. The model you began "
        "with stays as it is.</li></ol></div>"
    )
    with st.container(horizontal=True):
        st.button(
            "Fill in an example: doorbell and kettle", key="teach_fill", on_click=attempt,
            args=(fill_in, scene.book, scene.lesson.id), type="primary", icon=":material/auto_awesome:",
        )  # fmt: skip
    earlier = [lesson for lesson in scene.book.lessons() if lesson.id != scene.lesson.id][:6]
    if earlier:
        st.html('<div class="ew-listen">Your other lessons</div>')
        for lesson in earlier:
            st.button(lesson_title(scene.store, lesson), key=f"teach_lesson_{lesson.id}", on_click=other_lesson, args=(lesson.id,),
                      icon=":material/school:")  # fmt: skip


def lesson_title(store: JobStore, lesson: Lesson) -> str:
    """A lesson in a line."""
    job = store.find(lesson.job) if lesson.job else None
    state = {"running": ", being taught", "waiting": ", waiting", "done": ", taught"}.get(job.state, "") if job else ""
    return ui.plain(f"{listed(lesson.labels) or 'No class yet'}: {len(lesson.examples)} examples{state}")


def main_part(scene: Scene) -> None:
    """The right side: what came of it, what is wrong with the examples, the examples."""
    from workbench.teaching.rows import undo_bar

    show_problem()
    discarded_bar(scene)
    job = scene.job
    if job is not None:
        if job.active:
            running_view(scene, job)
        elif job.state == "done":
            result_view(scene, job)
            explained_view(scene, job)
        else:
            stopped_view(scene, job)
    elif not scene.lesson.examples:
        undo_bar(scene)
        invitation(scene)
        return
    if not scene.lesson.examples:
        return
    findings, looking = st.session_state.teach_now
    if job is None:
        show_findings(scene, findings, looking)
        examples_table(scene, findings)
        return
    with st.expander(f"Examples ({len(scene.lesson.examples)})"):
        if not job.active:
            show_findings(scene, findings, looking)
        examples_table(scene, findings)
    st.button("Begin another lesson", key="teach_another", on_click=other_lesson, args=("",), icon=":material/add:")


def page() -> None:
    """The page."""
    st.html(ui.STYLE + style())
    ui.skip_links()
    try:
        book, lesson, store = open_lesson()
    except EarwitnessError as error:
        ui.show_error(error)
        return
    begin_looking()
    start_from_address()
    known = cards()
    with st.container(key="layout"):
        left, right = st.columns([1, 3], gap="medium")
        with left, st.container(key="steps"):
            ui.place("steps")
            ui.brand()
            if not known:
                st.error("There is no model on this server. Run 'earwitness doctor' to see what is missing.")
                return
            if st.session_state.model not in known:
                st.session_state.model = next(iter(known))
            base = st.session_state.model
            collecting_step(Scene(book, lesson, store, base, known[base]))
            card = model_step(known)
            scene = Scene(book, book.open(lesson.id), store, st.session_state.model, card)
            found = findings_of(scene)
            st.session_state.teach_now = found
            training_step(scene, found[0])
            ui.way_back()
            ui.about()
        keep_lesson_address(scene.lesson)
        with right, st.container(key="main"):
            ui.place("result")
            main_part(scene)
    look_again()


page()
