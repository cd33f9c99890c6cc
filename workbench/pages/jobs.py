"""The page "Jobs": what of the visitor's runs or ran, wherever it was begun."""

from __future__ import annotations

import time

import streamlit as st

from models.errors import EarwitnessError
from workbench import ui
from workbench.jobs import JobRecord, JobStore, jobs
from workbench.jobs.kinds import KINDS
from workbench.steps import workspace
from workbench.teaching.page import LOOK_EVERY, attempt, progress_of, show_problem, style
from workbench.teaching.taught import discard_model, keep_model, let_model_go
from workbench.teaching.words import duration


def keep(store: JobStore, job: JobRecord, key: str) -> None:
    """Keep a job, or let it end with the session."""
    kept = bool(st.session_state[key])
    if job.kind == "teach" and job.state == "done":
        (keep_model if kept else let_model_go)(store, job)
    else:
        store.keep(job.id, kept)


def remove(store: JobStore, job: JobRecord) -> None:
    """Throw a job away; it can be brought back for ten minutes."""
    if job.kind == "teach" and job.state == "done":
        discard_model(store, job)
    else:
        store.discard(job.id)
    st.session_state.jobs_removed = (job.id, job.title, job.kept)


def bring_back(store: JobStore, job_id: str, kept: bool) -> None:
    """Undo the last removal.

    Raises
    ------
    EarwitnessError
        If it is gone for good.
    """
    st.session_state.pop("jobs_removed", None)
    job = store.find(job_id)
    if job is None or not store.restore(job_id):
        raise EarwitnessError("It is gone for good.")
    if kept and job.kind == "teach" and job.state == "done":
        keep_model(store, job)


def when(job: JobRecord) -> str:
    """Since when it runs, or when it ended and how long it took."""
    now = time.time()
    if job.active:
        return f"begun {duration(now - job.created)} ago"
    took = duration(job.ended - job.started) if job.ended and job.started else ""
    return f"ended {duration(now - (job.ended or now))} ago" + (f", took {took}" if took else "")


def show(store: JobStore, job: JobRecord) -> None:
    """One job."""
    kind = KINDS.get(job.kind)
    with st.container(border=True, key=f"jobs_{job.id}"):
        st.html(
            f'<div class="ew-job"><div class="ew-title">{ui.escaped(job.title)}</div>'
            f'<div class="ew-muted">{ui.escaped(kind.title if kind else job.kind)}, {ui.sentence(when(job))}</div></div>'
            + progress_of(job)
        )
        if job.message:
            st.html(
                f'<div class="ew-finding ew-warns"><p>{ui.sentence(job.message)}</p><p>{ui.sentence(job.advice)}</p></div>'
            )
        with st.container(horizontal=True, vertical_alignment="center"):
            if job.active:
                asked = job.cancel_asked is not None
                st.button("Stopping ..." if asked else "Cancel", key=f"jobs_cancel_{job.id}", on_click=attempt, disabled=asked,
                          args=(store.cancel, job.id), icon=":material/stop_circle:")  # fmt: skip
            if job.resumable:
                st.button("Resume", key=f"jobs_resume_{job.id}", on_click=attempt, args=(store.resume, job.id),
                          icon=":material/play_circle:")  # fmt: skip
            if kind is not None and kind.page:
                st.button(
                    "Open", key=f"jobs_open_{job.id}", on_click=open_job, args=(job,), icon=":material/open_in_full:"
                )
            st.button(
                "Remove",
                key=f"jobs_remove_{job.id}",
                on_click=attempt,
                args=(remove, store, job),
                icon=":material/delete:",
            )
            key = f"jobs_keep_{job.id}"
            st.session_state[key] = job.kept
            st.toggle("Keep", key=key, on_change=attempt, args=(keep, store, job, key),
                      help="Otherwise it is removed when you have been away for a day.")  # fmt: skip
        with st.expander("Log"):
            st.code(store.log(job.id) or "Nothing was written yet.", language=None, wrap_lines=True, height=200)


def open_job(job: JobRecord) -> None:
    """Go to the page that shows a job."""
    st.session_state.jobs_open = job.id


def listing(store: JobStore) -> None:
    """All jobs; looks again by itself while one is under way."""
    if st.session_state.get("jobs_open"):
        st.rerun()
    me = workspace()
    store.here(me)
    show_problem()
    removed = st.session_state.get("jobs_removed")
    if removed is not None:
        with st.container(key="jobs_removed_bar", horizontal=True, vertical_alignment="center"):
            st.text(f"“{removed[1]}” was removed.", width="content")
            st.button(
                "Undo",
                key="jobs_undo",
                on_click=attempt,
                args=(bring_back, store, removed[0], removed[2]),
                icon=":material/undo:",
            )
    found = store.find_all(me)
    busy = any(job.active for job in found)
    for job in found:
        show(store, job)
    if not found:
        st.html('<div class="ew-verdict"><div class="ew-label">No jobs yet</div><div class="ew-why">What takes long, such as '
                "teaching a model, is listed here: it goes on when you close the page.</div></div>")  # fmt: skip
        if st.button("Teach a model", key="jobs_teach", type="primary", icon=":material/school:"):
            st.session_state.jobs_open = "new"
            st.rerun()
    if busy != st.session_state.get("jobs_polling", False):
        st.session_state.jobs_polling = busy
        st.rerun()


def page() -> None:
    """The page."""
    st.html(ui.STYLE + style())
    opened = st.session_state.pop("jobs_open", None)
    if opened is not None:
        st.session_state.open_job = opened
        st.switch_page("pages/teach.py")
    with st.container(key="main"):
        ui.brand()
        st.html('<div class="ew-verdict" style="min-height:0"><div class="ew-label">Jobs</div></div>')
        try:
            store = jobs()
        except EarwitnessError as error:
            ui.show_error(error)
            return
        every = LOOK_EVERY if st.session_state.get("jobs_polling") else None
        st.fragment(listing, run_every=every)(store)


page()
