"""The examples of a lesson in a table, and what was found wrong with them, in place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import streamlit as st

from models.teaching.contract import Finding, TeachSettings
from workbench import ui
from workbench.blobs import STORE
from workbench.engine import Job, engine
from workbench.labels import spoken
from workbench.teaching.collecting import cleaned, known_labels
from workbench.teaching.lessons import LessonExample
from workbench.teaching.page import Scene, attempt, chosen_task, ready
from workbench.teaching.tasks import lesson_key, submit_examination, submit_preview

PER_PAGE = 8
# Findings that are mended by taking examples out, and how many of the named ones stay.
REMOVABLE = {"duplicate": 1, "silent": 0, "unreadable": 0}


def findings_of(scene: Scene) -> tuple[list[Finding], Job | None]:
    """What is wrong with the examples, and the job that still looks; until it has ended, what was found before."""
    state = st.session_state
    if not scene.lesson.examples:
        return [], None
    job = submit_examination(engine(), scene.book, scene.lesson, scene.base, tested_settings())
    if ready(job):
        if job.error is not None:
            return [Finding("error", job.error.message, job.error.advice, (), True)], None
        state.teach_found = list(job.result)
        state.teach_found_for = (scene.base, lesson_key(scene.lesson))
        return state.teach_found, None
    return [f for f in state.get("teach_found", []) if max(f.examples, default=-1) < len(scene.lesson.examples)], job


def tested_settings() -> TeachSettings:
    """The settings that decide what is held out."""
    return TeachSettings(held_out_share=st.session_state.get("teach_share", 25) / 100, task=chosen_task())


def show_findings(scene: Scene, findings: list[Finding], looking: Job | None) -> None:
    """Every finding with what to do about it; a button where one act mends it."""
    if looking is not None:
        st.html('<div class="ew-status ew-muted" role="status">Looking through the examples ...</div>')
    elif not any(f.kind != "none" for f in findings):
        st.html('<div class="ew-finding ew-fine" role="status"><p>Nothing looks wrong with the examples.</p></div>')
    for number, finding in enumerate(sorted(findings, key=lambda f: not f.stops)):
        if finding.kind == "none" and not finding.stops:
            continue
        numbers = ", ".join(str(index + 1) for index in finding.examples[:12])
        more = " ..." if len(finding.examples) > 12 else ""
        which = f"Example{'s' if len(finding.examples) > 1 else ''} {numbers}{more}."
        about = f' <span class="ew-muted">{which}</span>' if numbers else ""
        st.html(
            f'<div class="ew-finding {"ew-stops" if finding.stops else "ew-warns"}"><p><b>{ui.sentence(finding.message)}</b>'
            f"{about}</p><p>{ui.sentence(finding.advice)}</p></div>"
        )
        if finding.kind == "several_labels":
            st.button(
                "Let several classes be heard at once",
                key="teach_several",
                on_click=several,
                icon=":material/checklist:",
            )
        if finding.kind in REMOVABLE and finding.examples:
            gone = [scene.lesson.examples[i] for i in finding.examples[REMOVABLE[finding.kind] :]]
            st.button(
                f"Remove {'it' if len(gone) == 1 else f'these {len(gone)}'}", key=f"teach_mend_{number}",
                on_click=attempt, args=(remove, scene, gone), icon=":material/delete:",
            )  # fmt: skip


def several() -> None:
    """Make a model that says of each class for itself whether it is heard."""
    st.session_state.teach_multi = True


def remove(scene: Scene, examples: list[LessonExample]) -> None:
    """Take examples out of the lesson; `undo_bar` brings them back."""
    before = scene.book.open(scene.lesson.id).examples
    scene.book.remove(scene.lesson.id, [e.id for e in examples])
    what = f"“{examples[0].name}” was" if len(examples) == 1 else f"{len(examples)} examples were"
    st.session_state.teach_undo = (f"{what} removed.", before)


def undo_bar(scene: Scene) -> None:
    """What was removed last, and the way back."""
    undo = st.session_state.get("teach_undo")
    if undo is None:
        return
    with st.container(key="teach_undo_bar", horizontal=True, vertical_alignment="center"):
        st.text(undo[0], width="content")
        st.button(
            "Undo", key="teach_undo_button", on_click=attempt, args=(put_back, scene, undo[1]), icon=":material/undo:"
        )


def put_back(scene: Scene, examples: tuple[LessonExample, ...]) -> None:
    """Undo the last removal."""
    scene.book.put_back(scene.lesson.id, examples)
    st.session_state.pop("teach_undo", None)


def set_labels(scene: Scene, example: LessonExample) -> None:
    """Store the labels that were chosen in a row."""
    key = labels_key(example)
    try:
        scene.book.set_example(scene.lesson.id, example.id, labels=cleaned(st.session_state[key]))
    except ValueError:
        # A widget with a new key shows the labels that there are.
        st.session_state.setdefault("teach_versions", Counter())[example.id] += 1
        raise


def labels_key(example: LessonExample) -> str:
    """Key of the field with an example's labels."""
    return f"labels_{example.id}_{st.session_state.get('teach_versions', Counter())[example.id]}"


def set_held_out(scene: Scene, example: LessonExample) -> None:
    """Store whether an example is kept for testing."""
    scene.book.set_example(scene.lesson.id, example.id, held_out=bool(st.session_state[f"held_{example.id}"]))


def counts_in_words(scene: Scene) -> str:
    """How many examples of each class."""
    counts = Counter(label for example in scene.lesson.examples for label in example.labels)
    named = ", ".join(f"{count} {spoken(label)}" for label, count in counts.most_common(6))
    more = f", and {len(counts) - 6} more classes" if len(counts) > 6 else ""
    total = len(scene.lesson.examples)
    return f"{total} example{'s' if total != 1 else ''}" + (f": {named}{more}" if named else "")


def examples_table(scene: Scene, findings: list[Finding]) -> None:
    """A row for each example: play, labels, whether it is held out, remove."""
    examples = scene.lesson.examples
    marked = {index for finding in findings for index in finding.examples if finding.kind != "none"}
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.html(f'<div class="ew-muted" role="status">{ui.escaped(counts_in_words(scene))}</div>')
        st.button("Remove all", key="teach_remove_all", on_click=attempt, args=(remove, scene, list(examples)), type="tertiary",
                  icon=":material/delete_sweep:")  # fmt: skip
    undo_bar(scene)
    pages = -(-len(examples) // PER_PAGE)
    page = 1
    if pages > 1:
        page = min(pages, st.pagination(pages, key="teach_page") or 1)
    shown = list(enumerate(examples))[(page - 1) * PER_PAGE : page * PER_PAGE]
    previews = {example.id: submit_preview(engine(), scene.book.path_of(example)) for _, example in shown}
    with st.container(key="rows"):
        for index, example in shown:
            row(scene, index, example, previews[example.id], index in marked)
    if pages > 1:
        st.caption(f"Examples {shown[0][0] + 1} to {shown[-1][0] + 1} of {len(examples)}.")


def row(scene: Scene, index: int, example: LessonExample, preview: Job, marked: bool) -> None:
    """One example."""
    media, labels, held_out, gone = st.columns([3, 4, 1.5, 1.3], vertical_alignment="center")
    media.html(
        f'<div class="ew-example{" ew-marked" if marked else ""}"><span class="ew-number">{index + 1}</span>'
        f'<span class="ew-name" title="{ui.escaped(example.name)}">{ui.escaped(example.name)} '
        f'<span class="ew-muted">{example.seconds:.1f} s</span></span>'
        f'<div class="ew-media">{media_of(example, preview)}</div></div>'
    )
    key = labels_key(example)
    chosen = st.session_state.get(key, [])
    # What a widget begins with is given as its default: state that is set beforehand is lost when a run is cut short.
    options = list(dict.fromkeys([*known_labels(scene), *example.labels, *chosen]))
    labels.multiselect(
        f"What is heard in {ui.plain(example.name)}", options, list(example.labels), key=key, accept_new_options=True,
        select_all=False, label_visibility="collapsed", format_func=spoken, placeholder="Choose or type a class",
        on_change=attempt, args=(set_labels, scene, example),
    )  # fmt: skip
    held_out.checkbox(
        "Test only", example.held_out, key=f"held_{example.id}", on_change=attempt, args=(set_held_out, scene, example),
        help="Not trained on, but used to find out how well it works. Where none is chosen, some of each class are drawn.",
    )  # fmt: skip
    gone.button("Remove", key=f"teach_remove_{example.id}", on_click=attempt, args=(remove, scene, [example]), type="tertiary",
                icon=":material/close:", help=f"Remove {ui.plain(example.name)}")  # fmt: skip


def media_of(example: LessonExample, preview: Job) -> str:
    """Picture and sound of an example as HTML, as far as they are there."""
    made: Any = preview.result if ready(preview) else None
    if made is None:
        problem = "" if preview.error is None else ui.escaped(preview.error.message)
        return f'<span class="ew-blank"></span><span class="ew-muted">{problem or "Opening ..."}</span>'
    picture, sound = STORE.put(made.picture, "image/png"), STORE.put(made.sound, "audio/wav")
    return (
        f'<img src="{picture}" alt=""><audio controls preload="none" src="{sound}" '
        f'aria-label="Play {ui.escaped(example.name)}"></audio>'
    )
