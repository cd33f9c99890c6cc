"""What is seen of a model while it is taught, and of one whose teaching did not end well."""

from __future__ import annotations

import streamlit as st

from workbench import ui
from workbench.jobs import JobRecord
from workbench.teaching.curves import training_curves
from workbench.teaching.page import LOOK_EVERY, Scene, attempt, progress_of
from workbench.teaching.words import listed

_PLAIN = {"displayModeBar": False, "scrollZoom": False}


def new_labels(job: JobRecord, known: list[str]) -> list[str]:
    """Classes of a job's examples that its base did not know."""
    labels = dict.fromkeys(label for e in job.settings.get("examples", []) for label in e.get("labels", []))
    return [label for label in labels if label not in known] or list(labels)


def running_view(scene: Scene, job: JobRecord) -> None:
    """Live curves, time left, cancel; looks again by itself."""
    st.fragment(_live, run_every=LOOK_EVERY)(scene, job.id)


def _live(scene: Scene, job_id: str) -> None:
    job = scene.store.find(job_id)
    if job is None or not job.active:
        st.rerun()  # the whole page: there is a result, or a reason
        return
    scene.store.here(job.workspace)
    labels = listed(new_labels(job, scene.card.labels))
    st.html(
        f'<div class="ew-verdict" role="status"><div class="ew-eyebrow">{ui.escaped(job.title)}</div>'
        f'<div class="ew-label">{"Learning" if job.state == "running" else "Waiting to learn"} {ui.escaped(labels)}</div></div>'
    )
    st.html(progress_of(job))
    curve(scene, job)
    asked = job.cancel_asked is not None
    st.button(
        "Stopping ..." if asked else "Cancel", key="teach_cancel", on_click=attempt, args=(scene.store.cancel, job.id),
        disabled=asked, icon=":material/stop_circle:",
    )  # fmt: skip
    st.caption("You may close or reload this page: it goes on, and is listed under Jobs.")


def curve(scene: Scene, job: JobRecord) -> None:
    """Loss and held-out figure over the steps so far."""
    history = scene.store.history(job.id)
    measure = "Held-out mean average precision" if scene.card.task == "multi-label" else "Held-out right"
    st.plotly_chart(
        training_curves(history, measure), key="teach_curve", width="stretch", config=_PLAIN,
        alt="Loss and held-out figure over the steps of the training",
    )  # fmt: skip


def stopped_view(scene: Scene, job: JobRecord) -> None:
    """Why there is no result, and how to get one."""
    titles = {
        "failed": "It could not be taught", "cancelled": "Cancelled", "lost": "The training stopped without a word",
    }  # fmt: skip
    why = job.message or (
        "Nothing was changed: the model it was to start from is as it was." if job.state == "cancelled" else ""
    )
    st.html(
        f'<div class="ew-verdict" role="status"><div class="ew-eyebrow">{ui.escaped(job.title)}</div>'
        f'<div class="ew-label">{titles[job.state]}</div><div class="ew-why">{ui.sentence(f"{why} {job.advice}")}</div></div>'
    )
    with st.container(horizontal=True):
        st.button("Resume", key="teach_resume", on_click=attempt, args=(scene.store.resume, job.id), type="primary",
                  icon=":material/play_circle:", help="Goes on where it last stored its state.")  # fmt: skip
        st.button("Put it aside", key="teach_aside", on_click=attempt, args=(scene.book.set, scene.lesson.id), kwargs={"job": ""},
                  icon=":material/close:")  # fmt: skip
    if scene.store.history(job.id):
        curve(scene, job)
    log_of(scene, job)


def log_of(scene: Scene, job: JobRecord) -> None:
    """What the job wrote."""
    with st.expander("Log"):
        st.code(scene.store.log(job.id) or "Nothing was written.", language=None, wrap_lines=True, height=220)
