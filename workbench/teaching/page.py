"""What the parts of the page Teach share: the tab's lesson, its job, and how messages and progress look."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from models.card import Card, Task
from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import Job
from workbench.jobs import JobRecord, JobStore, jobs
from workbench.steps import AT_ONCE, workspace
from workbench.teaching.lessons import Lesson, LessonBook
from workbench.teaching.words import duration

LOOK_EVERY = 0.7  # seconds between two looks at a job
STATES = {
    "waiting": "Waiting for its turn", "running": "Running", "done": "Done", "failed": "Failed", "cancelled": "Cancelled",
    "lost": "Stopped without a word",
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What a run of the page works with."""

    book: LessonBook
    lesson: Lesson
    store: JobStore
    base: str
    card: Card

    @property
    def job(self) -> JobRecord | None:
        """The lesson's job, if it is this visitor's and was not thrown away."""
        found = self.store.find(self.lesson.job) if self.lesson.job else None
        return found if found is not None and found.workspace == workspace() and found.discarded is None else None


@functools.cache
def style() -> str:
    """The style sheet of Teach and Jobs."""
    text = (Path(__file__).parents[1] / "static" / "teach.css").read_text(encoding="utf-8")
    return f"<style>{text}</style>"


def open_lesson() -> tuple[LessonBook, Lesson, JobStore]:
    """The tab's lesson: the one in the address, else the one it had, else a new one.

    Raises
    ------
    EarwitnessError
        If the server's data folder cannot be used.
    """
    state = st.session_state
    store, me = jobs(), workspace()
    store.here(me)
    book = LessonBook(me)
    asked, job_id = st.query_params.get("lesson", ""), st.query_params.get("job", "") or state.pop("open_job", "")
    job = store.find(job_id) if job_id else None
    if job is not None and job.workspace == me and job.kind == "teach":
        lesson = book.open(str(job.settings.get("lesson", "")))
        lesson = book.set(lesson.id, job=job.id, base=str(job.settings.get("base", "")))
    else:
        lesson = book.open(state.pop("other_lesson", None) or asked or state.get("lesson", ""))
    if lesson.id != state.get("lesson"):
        # What another lesson left in the widgets and messages does not concern this one.
        for key in [k for k in state if str(k).startswith(("teach_", "labels_", "held_"))]:
            del state[key]
        state.lesson = lesson.id
        if lesson.base:
            state.model = lesson.base
    return book, lesson, store


def keep_lesson_address(lesson: Lesson) -> None:
    """Write lesson and model into the address: a reload shows the same."""
    values = {"lesson": lesson.id, "model": str(st.session_state.model)}
    if st.query_params.to_dict() != values:
        st.query_params.from_dict(values)
    st.session_state.address = values


def attempt(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do something for a widget's callback; an error is shown where `show_problem` stands, in the next run."""
    st.session_state.pop("teach_problem", None)
    try:
        return act(*args, **kwargs)
    except EarwitnessError as error:
        st.session_state.teach_problem = error
        return None


def show_problem() -> None:
    """What went wrong in the last act."""
    problem = st.session_state.get("teach_problem")
    if problem is not None:
        ui.show_error(problem)


def chosen_task() -> Task | None:
    """What the new model is to do: None stands for what its base does."""
    return "multi-label" if st.session_state.get("teach_multi") else None


def begin_looking() -> None:
    """At the start of a run: nothing is waited for yet."""
    st.session_state.teach_waiting = []
    st.session_state.teach_patience = time.monotonic() + AT_ONCE


def ready(job: Job) -> bool:
    """Whether a job of the engine has ended; all together, a run waits a quarter of a second for jobs.

    What is not ready is looked at again by `look_again`. Only what this answers counts in a run: a job that ends between two
    looks of one run would be waited for no more, and not shown either.
    """
    state = st.session_state
    if job.wait(max(0.0, state.get("teach_patience", 0.0) - time.monotonic())):
        return True
    state.teach_waiting.append(job)
    return False


def look_again() -> None:
    """At the end of a run: come back by itself when what was not ready is."""
    waiting: list[Job] = st.session_state.get("teach_waiting", [])
    if waiting:
        st.fragment(_look, run_every=0.4)(list(waiting), time.monotonic())


def _look(waiting: list[Job], since: float) -> None:
    ended = [job.finished for job in waiting]
    if all(ended) or (any(ended) and time.monotonic() - since > 1.0):
        st.rerun()


def progress_of(job: JobRecord) -> str:
    """State, share and time left of a job, as HTML; keeps its height."""
    share = 100 * job.share
    said = STATES[job.state] if job.state != "running" else job.stage or "Starting"
    left = f"about {duration(job.seconds_left)} left" if job.active and job.seconds_left else ""
    # What has ended has no way to go.
    bar = (
        ""
        if job.state == "done"
        else f'<div class="ew-bar" aria-hidden="true"><i style="width:{share:.1f}%"></i></div>'
    )
    return (
        f'<div class="ew-job">{bar}<div class="ew-line"><span>{ui.escaped(said)}</span><span>{share:.0f} %</span>'
        f'<span class="ew-muted">{ui.sentence(left)}</span></div></div>'
    )
