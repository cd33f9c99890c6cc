"""Tiny kinds of jobs for the tests; named to the job's process in EARWITNESS_JOB_KINDS."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

from pydantic import BaseModel

from models.errors import EarwitnessError
from workbench.jobs.child import JobContext
from workbench.jobs.kinds import KINDS, JobKind


class CountSettings(BaseModel):
    """How far to count, and what is to happen on the way."""

    steps: int = 5
    pause: float = 0.0
    deaf: bool = False
    die_at: int = -1
    fail: str = ""


def count(context: JobContext, settings: CountSettings) -> dict[str, Any]:
    """Count; after a crash, go on where it stopped."""
    stored = context.folder / "state.txt"
    first = int(stored.read_text()) if context.resume and stored.exists() else 0
    if settings.fail == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if settings.fail == "known":
        raise EarwitnessError("It cannot be counted <b>so</b>.", "Count otherwise.")
    if settings.fail == "defect":
        raise ZeroDivisionError("secret detail")
    for step in range(first, settings.steps):
        if not settings.deaf:
            context.progress("Counting", step / settings.steps, 1.0)
        context.point(step=step, loss=float("nan") if step == 1 else 1 / (step + 1))
        stored.write_text(str(step))
        if step == settings.die_at and not context.resume:
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.monotonic() + settings.pause
        while time.monotonic() < end:
            time.sleep(0.02)
            if not settings.deaf:
                context.check()
    return {"counted": settings.steps, "first": first, "threads": os.environ["OMP_NUM_THREADS"], "odd": float("inf")}


KINDS["count"] = JobKind("count", "Count", "tests.workbench.job_kinds:count", "tests.workbench.job_kinds:CountSettings")
