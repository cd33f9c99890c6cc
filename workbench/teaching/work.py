"""The job that teaches: runs in a process of its own, writes into its own folder only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from models.teaching.contract import TeachingExample, TeachProgress, TeachSettings
from workbench.jobs.records import FILES
from workbench.teaching.taught import MODELS_IN_JOB, model_of_job

if TYPE_CHECKING:
    from workbench.jobs.child import JobContext

_POINT_EVERY = 0.15  # seconds between two points of a curve
# What a stage is called, and from where to where it takes the whole job.
STAGES = {
    "listening": ("Listening to the examples", 0.0, 0.15),
    "embedding": ("Listening to changed copies", 0.15, 0.3),
    "checking": ("Leaving each example out in turn", 0.3, 0.6),
    "training": ("Training", 0.6, 0.85),
    "testing": ("Testing", 0.85, 0.97),
    "saving": ("Saving", 0.97, 1.0),
}


class JobExample(BaseModel):
    """An example with its file's name in the job's own folder."""

    name: str
    file: str
    labels: tuple[str, ...]
    held_out: bool = False


class TeachJob(BaseModel):
    """What a job of teaching needs to know.

    Attributes
    ----------
    base
        Name of the model to start from.
    lesson
        Where the examples came from.
    """

    base: str
    title: str
    lesson: str = ""
    examples: list[JobExample]
    settings: TeachSettings


def run(context: JobContext, job: TeachJob) -> dict[str, Any]:
    """Teach, telling how far it is; returns the result as plain data."""
    from models.teaching import teach

    told = 0.0

    def report(progress: TeachProgress) -> None:
        nonlocal told
        title, begin, end = STAGES.get(progress.stage, (progress.stage.capitalize(), 0.0, 1.0))
        share = begin + (end - begin) * progress.step / max(1, progress.steps)
        context.progress(title, share, progress.seconds_left)
        if progress.loss is None:
            return
        now = time.monotonic()
        if now - told >= _POINT_EVERY or progress.validation_accuracy is not None or progress.step >= progress.steps:
            told = now
            context.point(
                step=progress.step, steps=progress.steps, loss=progress.loss, accuracy=progress.validation_accuracy
            )

    files = context.folder / FILES
    examples = [TeachingExample(e.name, files / Path(e.file).name, e.labels, e.held_out) for e in job.examples]
    context.say(f"{len(examples)} examples, {job.settings.model_dump_json(exclude_none=True)}")
    result = teach(
        job.base, examples, job.settings, context.folder / MODELS_IN_JOB, name=model_of_job(context.job.id), title=job.title,
        report=report, resume=context.resume,
    )  # fmt: skip
    values = result.as_dict()
    # Shown from the history; a result is read at every look at the page.
    values.pop("curve", None)
    return values
