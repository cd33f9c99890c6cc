"""What came of teaching: how well it knows the new classes, what it forgot, and what to do with the new model."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from models.catalog import read_card
from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import engine
from workbench.engine.analyses import safe_stem
from workbench.jobs import JobRecord
from workbench.teaching.curves import confusion_table, per_class_table
from workbench.teaching.page import Scene, attempt, ready
from workbench.teaching.running import curve, log_of
from workbench.teaching.tasks import submit_zip
from workbench.teaching.taught import discard_model, keep_model, let_model_go, model_of_job, rename_model, taught_folder
from workbench.teaching.words import duration, forgetting, left_out, outcome, untested, worst_class


def result_view(scene: Scene, job: JobRecord) -> None:
    """The whole result of a job that is done."""
    result = job.result or {}
    folder = taught_folder(model_of_job(job.id))
    if folder is None:
        ui.show_error(EarwitnessError("This model is not there any more.", "Teach it again."))
        return
    try:
        multi_label = read_card(folder).task == "multi-label"
    except EarwitnessError as error:
        ui.show_error(error)
        return
    checked = left_out(result) if result.get("after") else ""  # else the verdict says it
    notes = [checked, forgetting(result), untested(result), worst_class(result), *result.get("notes", [])]
    st.html(
        f'<div class="ew-verdict" role="status" aria-live="polite"><div class="ew-eyebrow">{ui.escaped(job.title)}</div>'
        f'<div class="ew-why" style="font-size:1.35rem;font-weight:600">{ui.sentence(outcome(result, multi_label))}</div>'
        + "".join(f'<div class="ew-why">{ui.sentence(note)}</div>' for note in notes if note)
        + "</div>"
    )
    model_actions(scene, job, str(folder))
    tables, how = st.tabs(["How well it knows them", "How it was taught"])
    with tables:
        figures(result, multi_label)
    with how:
        how_taught(scene, job, result)


def figures(result: dict[str, Any], multi_label: bool) -> None:
    """Confusion before and after, and every class."""
    before, after = result.get("before"), result.get("after")
    if after is None:
        st.caption("No example was held out.")
        return
    left, right = st.columns(2)
    with left:
        st.html(confusion_table(after, f"After: {after['clips']} held-out clips"))
        if before is not None:
            with st.expander("Before"):
                st.html(confusion_table(before, "Before"))
    with right:
        st.html(per_class_table(result))
        st.caption(
            "Average precision of each class." if multi_label else "Share of each class's held-out clips that is right."
        )
    if result.get("old_after") is not None:
        st.caption(ui.plain(result.get("old_how", "")))


def how_taught(scene: Scene, job: JobRecord, result: dict[str, Any]) -> None:
    """Curves, settings and log."""
    curve(scene, job)
    used = result.get("settings", {})
    facts = {
        "Trained": result.get("trained", "-"), "Numbers that were trained": f"{result.get('trained_parameters', 0):,}",
        "Against forgetting": result.get("rehearsal") or "-", "Took": duration(result.get("seconds")) or "-",
        "Passes": str(used.get("epochs") or "-"), "Learning rate": f"{used.get('learning_rate') or 0:g}",
        "Seed": str(used.get("seed", 0)), "Began from": str(job.settings.get("base", "")),
    }  # fmt: skip
    items = "".join(f"<dt>{ui.escaped(k)}</dt><dd>{ui.sentence(v)}</dd>" for k, v in facts.items())
    st.html(f'<dl class="ew-card">{items}</dl>')
    log_of(scene, job)


def title_key(job: JobRecord) -> str:
    """Key of the field with the model's name."""
    return f"teach_title_{job.id}"


def model_actions(scene: Scene, job: JobRecord, folder: str) -> None:
    """Keep with a name, download, throw away."""
    model = model_of_job(job.id)
    with st.container(key="teach_actions", horizontal=True, vertical_alignment="bottom"):
        st.text_input("Name", job.title, key=title_key(job), max_chars=120, width=320)
        if job.kept:
            st.button("Rename", key="teach_rename", on_click=attempt, args=(rename, scene, job), icon=":material/edit:")
            st.button("Try it on Inspect", key="teach_try", on_click=choose, args=(model,), icon=":material/hearing:")
        else:
            st.button("Keep", key="teach_keep", on_click=attempt, args=(keep, scene, job), type="primary",
                      icon=":material/bookmark:", help="It stays in your list of models until you throw it away.")  # fmt: skip
        download(job, folder)
        st.button(
            "Discard", key="teach_discard", on_click=attempt, args=(discard, scene, job), icon=":material/delete:"
        )
    if st.session_state.pop("teach_go", False):
        st.switch_page("pages/inspect.py")
    if job.kept:
        st.caption("Kept: it is in your list of models on every page, in this browser.")
    else:
        st.caption("Not kept yet: it goes when you have been away for a day.")


def choose(model: str) -> None:
    """Take the taught model along to the page Inspect."""
    st.session_state.model = model
    st.session_state.target = "The most likely"
    st.session_state.teach_go = True


def keep(scene: Scene, job: JobRecord) -> None:
    """Keep the model under the name in the field."""
    keep_model(scene.store, job, st.session_state.get(title_key(job), "").strip() or job.title)


def rename(scene: Scene, job: JobRecord) -> None:
    """Give the model the name in the field."""
    rename_model(scene.store, job, st.session_state.get(title_key(job), ""))


def discard(scene: Scene, job: JobRecord) -> None:
    """Throw the model away; `undo_discard` brings it back."""
    discard_model(scene.store, job)
    st.session_state.teach_discarded = (job.id, job.title, job.kept, time.time())


def discarded_bar(scene: Scene) -> None:
    """What was thrown away last, and the way back."""
    found = st.session_state.get("teach_discarded")
    if found is None:
        return
    with st.container(key="teach_discarded_bar", horizontal=True, vertical_alignment="center"):
        st.text(f"“{found[1]}” was thrown away.", width="content")
        st.button(
            "Undo",
            key="teach_undo_discard",
            on_click=attempt,
            args=(undo_discard, scene, found),
            icon=":material/undo:",
        )


def undo_discard(scene: Scene, found: tuple[str, str, bool, float]) -> None:
    """Bring back what was thrown away.

    Raises
    ------
    EarwitnessError
        If it is gone for good.
    """
    st.session_state.pop("teach_discarded", None)
    job = scene.store.find(found[0])
    if job is None or not scene.store.restore(job.id):
        raise EarwitnessError("It is gone for good.", "Teach it again.")
    if found[2]:
        keep_model(scene.store, job)
    else:
        let_model_go(scene.store, job)
    scene.book.set(scene.lesson.id, job=job.id)


def download(job: JobRecord, folder: str) -> None:
    """The model as a file, packed beside the page."""
    from pathlib import Path

    name = safe_stem(job.title.replace(".", "-"))
    packed = submit_zip(engine(), Path(folder), name, job.title)
    if not ready(packed) or packed.result is None:
        st.button("Download", key="teach_packing", disabled=True, icon=":material/download:")
        return
    st.download_button(
        "Download", packed.result, f"{name}.zip", "application/zip", key="teach_download", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip
