"""The process that does one job: ``python -m workbench.jobs.child JOB``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from models.errors import EarwitnessError
from workbench.engine.pool import CancelledError
from workbench.home import data_home
from workbench.jobs.kinds import find_kind
from workbench.jobs.records import JobRecord, JobRecords, as_json

_TOLD_EVERY = 0.3  # seconds between two notes of how far it is


@dataclass(eq=False)
class JobContext:
    """What the work of a job is given.

    Attributes
    ----------
    folder
        Its own folder for everything that it writes.
    resume
        Whether it was begun before: what it stored in `folder` may be used.
    """

    records: JobRecords
    job: JobRecord
    folder: Path
    resume: bool
    _stop: threading.Event = field(default_factory=threading.Event)
    _told: float = 0.0
    _stage: str = ""

    def progress(self, stage: str, share: float, seconds_left: float | None = None) -> None:
        """Tell how far it is; raises `CancelledError` when it is to stop."""
        self.check()
        now = time.monotonic()
        if stage == self._stage and now - self._told < _TOLD_EVERY:
            return
        self._told, self._stage = now, stage
        self.records.change(
            self.job.id,
            "running",
            stage=stage,
            share=min(1.0, max(0.0, share)),
            seconds_left=seconds_left,
            told=time.time(),
        )

    def check(self) -> None:
        """Raise `CancelledError` when it is to stop."""
        if self._stop.is_set():
            raise CancelledError

    def point(self, **values: Any) -> None:
        """Add a point to its history, for curves."""
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(as_json(values) + "\n")

    def say(self, text: str) -> None:
        """Add a line to its log."""
        print(f"{time.strftime('%H:%M:%S')}  {' '.join(text.split())}", flush=True)


def run_job(records: JobRecords, job_id: str) -> str:
    """Do a job and note how it ended; returns the state it ended in."""
    job = records.find(job_id)
    if job is None or job.state != "running":
        return "lost"
    folder = records.folder_of(job_id)
    context = JobContext(records, job, folder, job.attempts > 1)
    signal.signal(signal.SIGTERM, lambda *_: context._stop.set())
    records.change(job_id, "running", pid=os.getpid(), pid_started=psutil.Process().create_time())
    context.say("resumed" if context.resume else "begun")
    state, result, message, advice = "failed", None, "", ""
    try:
        if (again := records.find(job_id)) is not None and again.cancel_asked is not None:
            raise CancelledError
        kind = find_kind(job.kind)
        result = kind.work_function()(context, kind.settings_class().model_validate(job.settings))
        state = "done"
    except CancelledError:
        now = records.find(job_id)
        # Stopped by somebody else, such as a machine that is shut down: it can go on later.
        state = "cancelled" if now is None or now.cancel_asked is not None else "lost"
    except EarwitnessError as error:
        message, advice = error.message, error.advice
    except MemoryError:
        message, advice = "There is not enough memory for this.", "Use fewer or shorter examples, or a smaller model."
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, advice = "The server's disk is full.", "Make room, then resume the job."
        else:
            with contextlib.suppress(OSError):
                traceback.print_exc()
            message = f"Something went wrong inside Earwitness ({type(error).__name__})."
            advice = "The job's log has the details; resume it, or begin it with other settings."
    _note_end(records, job_id, state, result, message, advice)
    with contextlib.suppress(OSError):
        context.say(f"{state}. {message} {advice}")
    return state


def _note_end(
    records: JobRecords, job_id: str, state: str, result: dict[str, Any] | None, message: str, advice: str
) -> None:
    """Write the end into the table, also if the disk is full for a moment."""
    for patience in (0.5, 2.0, 5.0, 0.0):
        try:
            records.change(
                job_id, "running", state=state, result=result, message=message, advice=advice, ended=time.time(),
                seconds_left=None, **({"share": 1.0} if state == "done" else {}),
            )  # fmt: skip
            return
        except EarwitnessError as error:
            print(json.dumps({"not noted": state, "why": error.message}), flush=True)
            time.sleep(patience)


def main(arguments: list[str]) -> int:
    """Do the job named on the command line; the exit status says whether it was done."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)
    records = JobRecords(data_home())
    return 0 if run_job(records, arguments[0]) == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
