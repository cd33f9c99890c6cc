"""How the explanation of the same clip moved: before and after, to see and to hear, and the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from models.card import Card
from models.catalog import read_card
from models.clip import Clip, open_clip
from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import Job, engine
from workbench.engine.analyses import Shown, digest, submit_analysis
from workbench.examples import example_clips, open_example
from workbench.jobs import JobRecord
from workbench.jobs.records import FILES
from workbench.labels import spoken
from workbench.player import player
from workbench.steps import BEST
from workbench.teaching.page import Scene, ready
from workbench.teaching.tasks import LIMITS, submit_movement
from workbench.teaching.taught import model_of_job, taught_folder
from workbench.teaching.words import moved_in_words
from workbench.verdict import percent, verdict


def clips_to_choose(job: JobRecord) -> dict[str, str]:
    """Clips by key: the examples that were held out, the other ones, then the shipped clips."""
    examples = job.settings.get("examples", [])
    held_out = [h["example"] for h in (job.result or {}).get("held_out", [])]
    order = [*held_out, *(i for i in range(len(examples)) if i not in held_out)]
    found = {
        f"example {i}": f"{examples[i]['name']} ({'held out' if i in held_out else 'trained on'})"
        for i in order
        if i < len(examples)
    }
    return found | {f"shipped {example.id}": example.title for example in example_clips().values()}


def submit_clip(scene: Scene, job: JobRecord, key: str) -> Job:
    """Open one of `clips_to_choose`; the result is a `Clip`."""
    kind, _, name = key.partition(" ")
    if kind == "shipped":
        return engine().submit(digest("shipped clip", name), lambda _: open_example(name))
    example = job.settings["examples"][int(name)]
    path = scene.store.folder_of(job.id) / FILES / Path(example["file"]).name
    return engine().submit(
        digest("example clip", path.name, example["name"]),
        lambda _: open_clip(path, name=example["name"], limits=LIMITS),
    )


def own_label(job: JobRecord, key: str) -> str:
    """The class to explain first: the example's own."""
    kind, _, name = key.partition(" ")
    labels = job.settings["examples"][int(name)]["labels"] if kind == "example" else []
    return str(labels[0]) if labels else BEST


def explained_view(scene: Scene, job: JobRecord) -> None:
    """The whole section."""
    folder = taught_folder(model_of_job(job.id))
    if folder is None:
        return
    st.html(
        '<div class="ew-step ew-later" role="heading" aria-level="2">How the explanation of the same clip moved</div>'
    )
    try:
        card = read_card(folder)
    except EarwitnessError as error:
        ui.show_error(error)
        return
    clips = clips_to_choose(job)
    which, what = st.columns(2)
    key = which.selectbox("Clip", list(clips), key=f"teach_clip_{job.id}", format_func=lambda k: clips.get(k, k))
    labels = [BEST, *card.labels]
    label = own_label(job, key)
    first = labels.index(label) if label in labels else 0
    target = what.selectbox("Class", labels, first, key=f"teach_class_{job.id}_{key}", format_func=spoken)
    opening = submit_clip(scene, job, key)
    if not ready(opening):
        return
    if opening.error is not None:
        ui.show_error(opening.error)
    else:
        compare(scene, job, card, opening.result, None if target == BEST else target)


def compare(scene: Scene, job: JobRecord, card: Card, clip: Clip, target: str | None) -> None:
    """Explain the clip with both models and show what moved."""
    from workbench.analysis import AnalysisSettings

    base = str(job.settings.get("base", scene.base))
    after = submit_analysis(engine(), clip, model_of_job(job.id), AnalysisSettings(target=target), "mel")
    waiting = [(after, ready(after))]
    new: Shown | None = after.result or after.partial
    shown_class = target if target is not None else (new.analysis.target if new is not None else None)
    old: Shown | None = None
    if shown_class is not None:
        known = shown_class in scene.card.labels if base == scene.base else shown_class in labels_of(base)
        before = submit_analysis(engine(), clip, base, AnalysisSettings(target=shown_class if known else None), "mel")
        waiting.append((before, ready(before)))
        old = before.result or before.partial
    failed = next((task.error for task, ended in waiting if ended and task.error is not None), None)
    if failed is not None:
        ui.show_error(failed)
        return
    moved: Any = None
    if old is not None and new is not None and len(waiting) == 2 and all(ended for _, ended in waiting):
        comparing = submit_movement(engine(), clip, old, new)
        if ready(comparing):
            moved = comparing.result
            if comparing.error is not None:
                ui.show_error(comparing.error)
    sentence = "Listening with both models ..."
    if moved is not None and old is not None and new is not None:
        sentence = moved_in_words(moved.movement, old.analysis.target, new.analysis.target)
    st.html(f'<div class="ew-why ew-region" role="status" aria-live="polite">{ui.sentence(sentence)}</div>')
    if moved is not None:
        st.html('<div class="ew-listen">What moved: orange counts more than before, blue less</div>')
        player(moved.player, key="teach_moved", height=200)
    left, right = st.columns(2)
    with left:
        side("Before", old, "teach_before")
    with right:
        side("After", new, "teach_after")


def labels_of(model: str) -> list[str]:
    """Classes of a model; none if it is not there any more."""
    from models.catalog import find_checkpoint

    try:
        return read_card(find_checkpoint(model)).labels
    except EarwitnessError:
        return []


def side(title: str, shown: Shown | None, key: str) -> None:
    """One model's answer and player."""
    if shown is None:
        st.html(
            f'<div class="ew-listen">{title}</div><div class="ew-skeleton" style="height:22rem" aria-hidden="true"></div>'
        )
        return
    analysis = shown.analysis
    score = float(analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)])
    why = verdict(analysis)
    st.html(
        f'<div class="ew-listen">{title}: {ui.escaped(spoken(analysis.target))} '
        f'<span class="ew-muted">{ui.sentence(percent(score))}</span></div>'
        f'<div class="ew-muted" style="min-height:3.2rem">{ui.sentence(why)}</div>'
    )
    player(shown.player, key=key, height=180)
