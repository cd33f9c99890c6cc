"""Step 3 of the page Teach: what to train, and the start."""

from __future__ import annotations

import streamlit as st
from pydantic import ValidationError

from models.errors import EarwitnessError, SettingsError
from models.teaching.contract import Finding, TeachSettings
from workbench import ui
from workbench.engine import engine
from workbench.steps import workspace
from workbench.teaching.page import Scene, attempt, chosen_task, ready
from workbench.teaching.tasks import Ways, submit_ways
from workbench.teaching.words import duration, listed
from workbench.teaching.work import JobExample, TeachJob

WAYS = {
    "auto": "What suits the examples",
    "head": "Only its last layer",
    "last_blocks": "The last layer and the last blocks",
    "low_rank": "Small additions to every layer",
    "everything": "Everything",
}


def ways_of(scene: Scene) -> Ways | None:
    """What can be trained of the model; None while it is looked up, or if it cannot be taught."""
    lesson = scene.lesson
    job = submit_ways(engine(), scene.base, scene.card.content_hash, len(lesson.examples), len(lesson.labels))
    if not ready(job):
        return st.session_state.get("teach_ways")
    if job.error is not None:
        ui.show_error(job.error)
        return None
    st.session_state.teach_ways = job.result
    return job.result


def caption(way: str, ways: Ways | None) -> str:
    """What a way means and how long it takes."""
    if ways is None:
        return ""
    if way == "auto":
        return ui.plain(
            f"Now: {WAYS.get(ways.default, ways.default).lower()}, about {duration(ways.seconds[ways.default])}."
        )
    return ui.plain(f"{ways.sentences[way]} About {duration(ways.seconds[way])}.")


def training_step(scene: Scene, findings: list[Finding]) -> None:
    """What to train, more settings, the new model's name, and the start."""
    ui.step(3, "Teach")
    ways = ways_of(scene)
    names = ["auto", *(ways.sentences if ways is not None else {})]
    if st.session_state.get("teach_way") not in names:
        st.session_state.teach_way = "auto"
    st.radio(
        "What is trained", names, key="teach_way", captions=[caption(way, ways) for way in names],
        format_func=lambda way: WAYS.get(way, way.replace("_", " ").capitalize()),
    )  # fmt: skip
    with st.expander("More"):
        st.slider(
            "Kept for testing", 0, 60, 25, 5, format="%d %%", key="teach_share",
            help="Share of each class's examples that is not trained on, where no example is marked 'Test only'.",
        )  # fmt: skip
        st.checkbox("Train on changed copies too", True, key="teach_augment",
                    help="Shifted, faster and slower, louder and softer, with noise: few examples go further.")  # fmt: skip
        if scene.card.task == "single-label":
            st.checkbox("Several classes may be heard at once", key="teach_multi",
                        help="The new model says of each class for itself whether it is heard (multi-label).")  # fmt: skip
        st.number_input(
            "Passes over the examples", 1, 100_000, None, key="teach_epochs", placeholder="Chosen by the data"
        )
        st.number_input(
            "Learning rate", 0.0, 1.0, None, 0.0001, format="%.5f", key="teach_rate", placeholder="Chosen by the data"
        )
        st.number_input("Seed", 0, 2**31 - 1, 0, key="teach_seed")
    title = default_title(scene)
    st.text_input("Name of the new model", key="teach_title", placeholder=title, max_chars=120)
    job = scene.job
    stops = [f for f in findings if f.stops]
    busy = job is not None and job.active
    st.button(
        "Teach" if job is None else "Teach again", key="teach_start", type="primary", width="stretch",
        disabled=busy or not scene.lesson.examples or bool(stops), on_click=attempt, args=(start, scene, title),
        icon=":material/school:",
    )  # fmt: skip
    if busy:
        st.caption("It is being taught. Another tab can teach another model meanwhile.")
    elif not scene.lesson.examples:
        st.caption("Bring a few examples first.")
    elif stops:
        st.caption(f"First: {ui.plain(stops[0].message)}")
    st.caption(f"{ui.plain(scene.card.title or scene.base)} itself stays as it is: what you get is a new model.")


def default_title(scene: Scene) -> str:
    """What the new model is called unless the visitor calls it otherwise."""
    base = scene.card.title or scene.base
    new = [label for label in scene.lesson.labels if label not in scene.card.labels]
    return f"{base} with {listed(new, 3)}" if new else f"{base}, taught"


def settings() -> TeachSettings:
    """The settings as chosen.

    Raises
    ------
    SettingsError
        If they cannot work.
    """
    state = st.session_state
    rate = state.get("teach_rate")
    try:
        return TeachSettings(
            train=state.get("teach_way", "auto"), epochs=state.get("teach_epochs"),
            learning_rate=rate if rate else None, held_out_share=state.get("teach_share", 25) / 100,
            task=chosen_task(), augment=state.get("teach_augment", True), seed=state.get("teach_seed") or 0,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"The setting {first['loc'][0]} cannot be so: {first['msg']}.", "Change it.") from error


def start(scene: Scene, title: str) -> None:
    """Begin a job that teaches.

    Raises
    ------
    EarwitnessError
        If it cannot be begun.
    """
    lesson = scene.book.open(scene.lesson.id)
    if not lesson.examples:
        raise EarwitnessError("There are no examples.", "Bring some first.")
    job = TeachJob(
        base=scene.base, title=st.session_state.get("teach_title", "").strip() or title, lesson=lesson.id, settings=settings(),
        examples=[JobExample(name=e.name, file=e.file, labels=e.labels, held_out=e.held_out) for e in lesson.examples],
    )  # fmt: skip
    files = {e.file: scene.book.path_of(e) for e in lesson.examples}
    job_id = scene.store.submit(workspace(), "teach", job.title, job, files)
    scene.book.set(lesson.id, job=job_id, base=scene.base)
