"""Jobs as people handle them: begin, watch, cancel, resume, keep, throw away; and the processes that do the work."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from models.errors import EarwitnessError, SettingsError
from workbench.home import check_space
from workbench.jobs.kinds import find_kind
from workbench.jobs.records import JobRecord, JobRecords, mended_errors

GRACE = 8.0  # seconds between asking a job to stop and ending its process
UNDO = 600.0  # seconds in which something thrown away can be brought back
SESSION_HOURS = 24.0  # after which a workspace without a visitor is gone
EACH = 6  # jobs of one workspace that wait or run
LONGEST_TITLE = 120
_BEGUN = 60.0  # seconds in which a process must have been started after its job was taken
_SWEEP = 300.0
_LOG_BYTES, _HISTORY_BYTES = 64 * 2**10, 4 * 2**20


def processes_at_once() -> int:
    """How many jobs run at a time: as many as there are cores but at least 3, or ``EARWITNESS_JOBS``."""
    given = os.environ.get("EARWITNESS_JOBS", "")
    return max(1, int(given)) if given.isdigit() else max(3, os.cpu_count() or 1)


def clean_title(title: str) -> str:
    """A title on one line and of bounded length; it is shown letter by letter, so nothing else is taken out."""
    words = " ".join("".join(c if c.isprintable() else " " for c in title).split())
    return words if len(words) <= LONGEST_TITLE else f"{words[: LONGEST_TITLE - 1]}…"


class JobStore(JobRecords):
    """The jobs of one data folder.

    Parameters
    ----------
    home
        The data folder.
    at_once
        Processes at a time; the others wait.
    grace
        Seconds that a cancelled job has to stop by itself.
    session_seconds
        How long a workspace stays after its visitor was last seen.
    """

    def __init__(
        self, home: Path, at_once: int | None = None, grace: float = GRACE, session_seconds: float | None = None
    ) -> None:
        super().__init__(home)
        self.at_once = at_once or processes_at_once()
        self.grace = grace
        hours = os.environ.get("EARWITNESS_SESSION_HOURS", "")
        self.session_seconds = session_seconds or 3600 * (float(hours) if hours.isdigit() else SESSION_HOURS)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._swept = 0.0
        self._touched: dict[str, float] = {}

    # What a visitor does

    def submit(
        self, workspace: str, kind: str, title: str, settings: BaseModel, files: Mapping[str, Path] | None = None
    ) -> str:
        """A new job, begun as soon as there is room; returns its id.

        Parameters
        ----------
        files
            What the job needs of the visitor's files, by their names in the job's folder ``files``: it keeps them, whatever
            becomes of the originals.

        Raises
        ------
        EarwitnessError
            If the disk is full or the visitor has too many jobs under way.
        """
        if not isinstance(settings, find_kind(kind).settings_class()):
            raise SettingsError(f"These are not the settings of a job of kind {kind!r}.")
        check_space(self.home)
        if sum(job.workspace == workspace for job in self.active()) >= EACH:
            raise EarwitnessError(f"You have {EACH} jobs under way already.", "Wait for one to end, or cancel one.")
        job_id = self.add(workspace, kind, clean_title(title), settings.model_dump(mode="json"), files)
        self._wake.set()
        return job_id

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop; one that waits ends at once, one that does not listen is ended after `grace` seconds."""
        now = time.time()
        if self.change(job_id, "waiting", state="cancelled", ended=now, cancel_asked=now):
            return
        job = self.find(job_id)
        if job is not None and job.state == "running" and job.cancel_asked is None:
            self.change(job_id, "running", cancel_asked=now)
            _signal(job, signal.SIGTERM, group=False)
        self._wake.set()

    def resume(self, job_id: str) -> None:
        """Begin a job again where it stopped.

        Raises
        ------
        EarwitnessError
            If it did not stop, or the disk is full.
        """
        check_space(self.home)
        if not self.change(
            job_id, "lost", "failed", "cancelled", state="waiting", cancel_asked=None, message="", advice="", ended=None,
            seconds_left=None, discarded=None, pid=None, pid_started=None,
        ):  # fmt: skip
            raise EarwitnessError("This job cannot be resumed: it runs, or it is done.")
        self._wake.set()

    def keep(self, job_id: str, kept: bool = True) -> None:
        """Let a job stay when its visitor is gone, or not."""
        self.change(job_id, kept=kept)

    def rename(self, job_id: str, title: str) -> None:
        """Give a job another title."""
        self.change(job_id, title=clean_title(title) or "Job")

    def discard(self, job_id: str) -> None:
        """Throw a job away; it can be brought back for ten minutes."""
        self.cancel(job_id)
        self.change(job_id, discarded=time.time())

    def restore(self, job_id: str) -> bool:
        """Bring a job back; False if it is gone."""
        return self.change(job_id, discarded=None)

    def remove(self, job_id: str) -> None:
        """Delete a job and its files for good."""
        job = self.find(job_id)
        if job is None:
            return
        if job.state == "running":
            self._end(job)
        self.delete(job_id)
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def here(self, workspace: str) -> None:
        """Note that a visitor is here; writes at most once a minute."""
        now = time.monotonic()
        if now - self._touched.get(workspace, -60.0) >= 60.0:
            self._touched[workspace] = now
            self.touch(workspace)

    def history(self, job_id: str) -> list[dict[str, Any]]:
        """The points that a job told on its way."""
        points = []
        for line in _tail(self.folder_of(job_id) / "history.jsonl", _HISTORY_BYTES).splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half written
                points.append(json.loads(line))
        return points

    def log(self, job_id: str) -> str:
        """The end of what a job wrote."""
        return _tail(self.folder_of(job_id) / "log.txt", _LOG_BYTES)

    # Processes

    def keep_ticking(self) -> None:
        """Look after the jobs from a thread of its own, for as long as this process lives."""

        def look() -> None:
            while True:
                try:
                    busy = self.tick()
                except EarwitnessError as error:
                    _logger().warning("jobs: %s", error)
                    busy = True
                except Exception:  # looking after jobs must not end
                    _logger().exception("jobs")
                    busy = True
                self._wake.wait(0.5 if busy else 5.0)
                self._wake.clear()

        threading.Thread(target=look, daemon=True, name="jobs").start()

    def tick(self, begin: bool = True) -> bool:
        """Notice what ended, end what must, begin what can; True while something waits or runs.

        Parameters
        ----------
        begin
            Begin what waits and remove what is not needed any more, as a server does.
        """
        with self._lock:
            for job_id, child in list(self._children.items()):
                if child.poll() is not None:
                    del self._children[job_id]
            now = time.time()
            for job in self.active():
                if job.state != "running":
                    continue
                if not alive(job):
                    if job.pid is not None or now - (job.started or 0.0) > _BEGUN:
                        state = "lost" if job.cancel_asked is None else "cancelled"
                        self._ended(job, state)
                elif job.cancel_asked is not None and now - job.cancel_asked > self.grace:
                    self._end(job)
                    self._ended(job, "cancelled")
            while begin and (taken := self._take()) is not None:
                self._begin(taken)
            if begin and now - self._swept > _SWEEP:
                self._swept = now
                self.sweep()
            return bool(self.active())

    def _ended(self, job: JobRecord, state: str) -> None:
        message = "Its process ended without a word." if state == "lost" else ""
        advice = "Resume it: it goes on where it last stored its state." if state == "lost" else ""
        # Only if it did not tell how it ended in the meantime.
        self.change(job.id, "running", state=state, ended=time.time(), message=message, advice=advice)

    def _take(self) -> str | None:
        """Claim a waiting job, if there is room: of the workspace that has the fewest running, the oldest."""
        with self.writing() as connection:
            rows = connection.exec_driver_sql(
                "SELECT id, workspace, state FROM jobs WHERE state IN ('waiting', 'running') ORDER BY created"
            ).all()
            running = Counter(row.workspace for row in rows if row.state == "running")
            waiting = [row for row in rows if row.state == "waiting"]
            if not waiting or running.total() >= self.at_once:
                return None
            chosen = min(waiting, key=lambda row: running[row.workspace])
            connection.exec_driver_sql(
                "UPDATE jobs SET state = 'running', started = ?, attempts = attempts + 1, stage = 'Starting', pid = NULL "
                "WHERE id = ?",
                (time.time(), chosen.id),
            )
            return str(chosen.id)

    def _begin(self, job_id: str) -> None:
        folder = self.folder_of(job_id)
        threads = str(max(1, (os.cpu_count() or 1) // self.at_once))
        root = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {
            "EARWITNESS_HOME": str(self.home), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        try:
            folder.mkdir(exist_ok=True)
            with (folder / "log.txt").open("ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", "workbench.jobs.child", job_id], stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, env=environment, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self.change(
                job_id, "running", state="failed", ended=time.time(),
                message=f"The job could not be started: {error.strerror}.", advice="Make room on the server, then resume it.",
            )  # fmt: skip
            return
        self._children[job_id] = child
        with contextlib.suppress(psutil.Error):
            self.change(job_id, "running", pid=child.pid, pid_started=psutil.Process(child.pid).create_time())

    def _end(self, job: JobRecord) -> None:
        """End a job's process and all that it started."""
        _signal(job, getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
        child = self._children.pop(job.id, None)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)

    def sweep(self) -> None:
        """Remove what was thrown away and what visitors left behind who are gone."""
        now = time.time()
        seen = self.visits()
        left: set[str] = set()
        for job in self.find_all(discarded=True):
            gone = now - max(seen.get(job.workspace, 0.0), job.created, job.ended or 0.0) > self.session_seconds
            thrown_away = job.discarded is not None and now - job.discarded > UNDO
            if thrown_away or (gone and not job.kept):
                self.remove(job.id)
            else:
                left.add(job.workspace)
        for workspace, last in seen.items():
            if now - last > self.session_seconds and workspace not in left:
                shutil.rmtree(self.home / "lessons" / workspace, ignore_errors=True)
                self.forget_visit(workspace)


def alive(job: JobRecord) -> bool:
    """Whether a job's process is there: that one, and not another that was given its number."""
    if job.pid is None:
        return False
    try:
        process = psutil.Process(job.pid)
        same = job.pid_started is None or abs(process.create_time() - job.pid_started) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(job: JobRecord, number: int, group: bool) -> None:
    if job.pid is None or not alive(job):
        return
    with contextlib.suppress(OSError):
        if group and hasattr(os, "killpg"):
            os.killpg(job.pid, number)  # a job leads a group of its own
        else:
            os.kill(job.pid, number)


def _tail(path: Path, most: int) -> str:
    if not path.is_file():
        return ""
    with mended_errors(), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(max(0, size - most))
        text = file.read().decode("utf-8", "replace")
    return text if size <= most else text.partition("\n")[2]


def _logger() -> Any:
    import logging

    return logging.getLogger("earwitness")
