"""Step 1 of the page Teach: bring examples and say what is heard in them."""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import engine
from workbench.examples import example_clips, open_example
from workbench.labels import spoken
from workbench.steps import AT_ONCE, FORMATS, workspace
from workbench.teaching.lessons import clean_label
from workbench.teaching.page import Scene, attempt, ready
from workbench.teaching.tasks import Given, submit_additions
from workbench.workspace import clips as own_clips

NEW_LABELS = "teach_new_labels"


def known_labels(scene: Scene) -> list[str]:
    """Classes to choose from: those of the model, then the lesson's new ones."""
    return list(dict.fromkeys([*scene.card.labels, *scene.lesson.labels]))


def cleaned(labels: list[str]) -> tuple[str, ...]:
    """Class names as they are stored, each once.

    Raises
    ------
    EarwitnessError
        If one cannot be a name.
    """
    return tuple(dict.fromkeys(clean_label(label) for label in labels))


def labels_to_give() -> tuple[str, ...] | None:
    """The labels that new examples get; None, with a message in place, if one cannot be a name."""
    try:
        return cleaned(st.session_state.get(NEW_LABELS) or [])
    except EarwitnessError as error:
        ui.show_error(error)
        return None


def collecting_step(scene: Scene) -> None:
    """Upload, record, take from the visitor's clips, or a whole folder."""
    ui.step(1, "Examples")
    chosen = [label for label in st.session_state.get(NEW_LABELS, []) if label]
    st.multiselect(
        "What is heard in the next ones?", list(dict.fromkeys([*known_labels(scene), *chosen])), key=NEW_LABELS,
        accept_new_options=True, select_all=False, format_func=spoken, placeholder="Choose or type a class",
        help="Choose a class of the model, or type the name of a new one. More than one, if more is heard.",
    )  # fmt: skip
    labels = labels_to_give()
    number = st.session_state.setdefault("teach_uploads", 0)
    files = st.file_uploader(
        "Upload sounds or videos", type=FORMATS, accept_multiple_files=True, key=f"teach_upload_{number}",
        label_visibility="collapsed",
    )  # fmt: skip
    recorded = st.audio_input("Record with the microphone", key=f"teach_microphone_{number}", sample_rate=48000)
    with st.expander("From your clips"):
        from_clips(scene, labels)
    with st.expander("A folder of each class"):
        st.caption("The name of the folder that a file lies in becomes its class.")
        folder = st.file_uploader(
            "Choose a folder", type=FORMATS, accept_multiple_files="directory", key=f"teach_folder_{number}",
            label_visibility="collapsed",
        )  # fmt: skip
    given: list[tuple[Any, str | None]] = [(file, None) for file in files or []]
    given += [(file, folder_label(file.name)) for file in folder or []]
    if recorded is not None:
        given.append((recorded, None))
    if given and labels is not None:
        take(scene, given, labels)
    job = st.session_state.get("teach_adding")
    if job is not None:
        adding(job)


def folder_label(path: str) -> str:
    """The class that the folder of a file is named after; empty if it lies in none."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return parts[-2] if len(parts) > 1 else ""


def take(scene: Scene, given: list[tuple[Any, str | None]], labels: tuple[str, ...]) -> None:
    """Let the engine open what was given; the widgets are empty again afterwards."""
    items, ticket = [], []
    for file, folder in given:
        own = labels
        if folder:
            try:
                own = tuple(dict.fromkeys([*labels, clean_label(folder)]))
            except EarwitnessError as error:
                st.session_state.teach_problem = error
                continue
        name = PurePosixPath(file.name.replace("\\", "/")).name or "recording.wav"
        items.append(Given(name, file.getvalue(), own))
        ticket.append(file.file_id)
    if items:
        st.session_state.teach_adding = submit_additions(engine(), scene.book, scene.lesson.id, items, " ".join(ticket))
        st.session_state.teach_adding.wait(AT_ONCE)
    st.session_state.teach_uploads += 1
    st.rerun()


def adding(job: Any) -> None:
    """How far opening the examples is; what was refused, and why."""
    if not ready(job):
        st.html(f'<div class="ew-muted" role="status">{ui.escaped(job.stage)} {100 * job.share:.0f} %</div>')
        return
    if job.error is not None:
        ui.show_error(job.error)
    elif job.result is not None:
        for name, error in job.result.refused[:5]:
            ui.show_error(type(error)(f"{name}: {error.message}", error.advice))
        if len(job.result.refused) > 5:
            st.caption(f"{len(job.result.refused) - 5} more could not be added.")


def from_clips(scene: Scene, labels: tuple[str, ...] | None) -> None:
    """Clips that the visitor opened on other pages, and the shipped ones."""
    mine = own_clips(workspace())
    names = {clip_id: clip.name for clip_id, clip in reversed(mine.items())}
    names |= {example.id: example.title for example in example_clips().values()}
    st.multiselect(
        "Clips", list(names), key="teach_clips", format_func=lambda clip_id: names.get(clip_id, clip_id),
        label_visibility="collapsed", placeholder="Choose clips", select_all=False,
    )  # fmt: skip
    st.button(
        "Add them", key="teach_add_clips", on_click=attempt, args=(add_clips, scene, labels or ()), width="stretch",
        disabled=labels is None or not st.session_state.get("teach_clips"),
    )  # fmt: skip


def add_clips(scene: Scene, labels: tuple[str, ...]) -> None:
    """Add the chosen clips to the lesson."""
    chosen: list[str] = st.session_state.get("teach_clips", [])
    mine = own_clips(workspace())
    given = []
    for clip_id in chosen:
        clip = open_example(clip_id) if clip_id in example_clips() else mine.get(clip_id)
        if clip is not None:
            given.append(Given(clip.name, clip, labels))
    if given:
        st.session_state.teach_adding = submit_additions(
            engine(), scene.book, scene.lesson.id, given, secrets.token_hex(8)
        )
        st.session_state.teach_adding.wait(AT_ONCE)
    st.session_state.teach_clips = []
