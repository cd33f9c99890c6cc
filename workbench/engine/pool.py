"""A pool of workers for analyses.

A page's script must not compute: one script thread serves a visitor, and Streamlit's fragments wait for it. So a page submits
a job, draws what is there, and looks again a moment later. Equal jobs of different visitors are computed once, and end early
only when none of them waits any more.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.errors import EarwitnessError
from workbench.engine.weight import held_bytes

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class CancelledError(Exception):
    """Raised inside a job's progress callback when nobody wants its result any more."""


@dataclass(eq=False)
class Job:
    """One computation: its progress, what is there of its result, and how it ended.

    Attributes
    ----------
    stage, share
        What is being done, and how much of it, 0 to 1.
    partial
        As much of the result as there is.
    result
        The result, once `state` is ``done``.
    error
        What went wrong, once `state` is ``failed``; has a message and an advice.
    weight
        Bytes that the result holds.
    """

    key: str
    state: State = "waiting"
    stage: str = ""
    share: float = 0.0
    partial: Any = None
    result: Any = None
    error: EarwitnessError | None = None
    started: float = 0.0
    weight: int = 0
    told: float = 0.0
    _kept: bool = False  # somebody wants it who cannot be seen to leave
    _cancel: threading.Event = field(default_factory=threading.Event)
    _finished: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._finished.is_set()

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the share that is done of the present stage; None while nothing can be said."""
        if self.state != "running" or self.share < 0.05:
            return None
        since = time.monotonic() - self.told  # or a step that takes long to tell again would seem to move away
        return max(0.0, (self.told - self.started) * (1 - self.share) / self.share - since)

    def progress(self, stage: str, share: float) -> None:
        """To be called by the work; raises `CancelledError` when nobody waits for the job any more."""
        if self._cancel.is_set():
            raise CancelledError
        self.told = time.monotonic()
        if stage != self.stage:
            self.started = self.told
        self.stage, self.share = stage, share

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False if the time ran out first."""
        return self._finished.wait(seconds)


Work = Callable[[Job], Any]
MODELS = 12  # that stay loaded at most; visitors' own models come and go
FOLLOWERS = 2000  # visitors whose present wish is remembered


class Engine:
    """Runs jobs, remembers their results, and keeps one copy of every model a worker.

    Parameters
    ----------
    workers
        Jobs at a time.
    remembered, remembered_bytes
        Finished results that are kept, by number and by what they hold; the least recently used one goes first.
    """

    def __init__(self, workers: int | None = None, remembered: int = 256, remembered_bytes: int = 2**30) -> None:
        self.workers = workers or max(1, min(4, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="engine")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._followed: OrderedDict[str, str] = OrderedDict()
        self._remembered = remembered
        self._remembered_bytes = remembered_bytes
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._loading = threading.Lock()
        self._local = threading.local()

    def submit(self, key: str, work: Work, *, visitor: str | None = None, retry_after: float = 0.0) -> Job:
        """The job with this key: the one there is, unless it failed or was cancelled, else a new one.

        Parameters
        ----------
        visitor
            Who waits for it, and from now on for nothing else: what this visitor waited for before is cancelled if nobody
            else wants it, or every choice that is changed while its result is computed would hold a worker for nothing.
            None: somebody whose leaving is not told; the job is never cancelled then.
        retry_after
            Seconds for which a failed job is returned as it is.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None or not _usable(job, retry_after):
                job = self._jobs[key] = Job(key)
                self._pool.submit(self._run, job, work)
                self._forget()
            self._jobs.move_to_end(key)
            if visitor is None:
                job._kept = True
            else:
                self._follow(visitor, key)
        return job

    def _follow(self, visitor: str, key: str) -> None:
        before = self._followed.pop(visitor, key)
        self._followed[visitor] = key
        while len(self._followed) > FOLLOWERS:
            _, forgotten = self._followed.popitem(last=False)
            if forgotten in self._jobs:
                self._jobs[forgotten]._kept = True
        left = self._jobs.get(before)
        if left is not None and not left.finished and not left._kept and before not in self._followed.values():
            left._cancel.set()

    def _forget(self) -> None:
        """Let the oldest finished results go until the limits hold; the newest one always stays."""
        finished = [(key, job) for key, job in self._jobs.items() if job.finished]
        held = sum(job.weight for _, job in finished)
        for key, job in finished[:-1]:
            if len(self._jobs) <= self._remembered and held <= self._remembered_bytes:
                break
            del self._jobs[key]
            held -= job.weight

    def find(self, key: str) -> Job | None:
        """The job with this key, if it is still remembered."""
        with self._lock:
            return self._jobs.get(key)

    def _run(self, job: Job, work: Work) -> None:
        job.state, job.started = "running", time.monotonic()
        try:
            job.progress("Starting", 0.0)
            job.result = work(job)
            job.partial = job.result
            job.weight = held_bytes(job.result)
            job.state = "done"
        except CancelledError:
            job.state = "cancelled"
        except EarwitnessError as error:
            job.error, job.state = error, "failed"
        except MemoryError:
            job.error = EarwitnessError(
                "There is not enough memory for this.", "Use a shorter clip or a smaller model."
            )
            job.state = "failed"
        except Exception as error:  # a defect of the program must not kill the worker or hang the page
            import logging

            logging.getLogger("earwitness").exception("job %s failed", job.key)
            job.error = EarwitnessError(
                f"Something went wrong inside Earwitness ({type(error).__name__}).",
                "Try another method or model; the server's log has the details.",
            )
            job.state = "failed"
        finally:
            job._finished.set()

    def recognizer(self, name: str) -> Any:
        """A recognizer for the calling worker alone, sharing its weights with all others.

        Captum changes a module while it explains it, so each thread works on modules of its own; a lock per model would
        make thirty visitors wait for each other.
        """
        replicas: OrderedDict[str, Any] = self._local.__dict__.setdefault("replicas", OrderedDict())
        stamp = f"{name}:{_stamp(name)}"
        if stamp not in replicas:
            replicas[stamp] = self._shared(name, stamp).replica()
        return _used(replicas, stamp)

    def _shared(self, name: str, stamp: str) -> Any:
        with self._loading:
            if stamp not in self._loaded:
                import torch

                from models.checkpoint import load_recognizer

                # Workers already use all cores; threads of threads would only get into each other's way.
                torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.workers))
                self._loaded[stamp] = load_recognizer(name)
                settle_memory()
            return _used(self._loaded, stamp)


def _usable(job: Job, retry_after: float) -> bool:
    """Whether a job that is there answers a new wish for the same."""
    if job.state == "failed":
        return time.monotonic() - job.started < retry_after
    return job.state == "done" or (job.state != "cancelled" and not job._cancel.is_set())


def _used(models: OrderedDict[str, Any], stamp: str) -> Any:
    """A model that is used now; of more than `MODELS`, the least recently used one is let go."""
    models.move_to_end(stamp)
    while len(models) > MODELS:
        models.popitem(last=False)
    return models[stamp]


def _stamp(name: str) -> str:
    from models.catalog import WEIGHTS, find_checkpoint

    return str((Path(find_checkpoint(name)) / WEIGHTS).stat().st_mtime_ns)


def settle_memory() -> None:
    """Take everything that is alive out of the garbage collector's sight.

    Streamlit collects after every script run; with torch loaded that costs 85 to 270 ms a run while holding the interpreter.
    """
    gc.collect()
    gc.freeze()


_engine: Engine | None = None
_engine_lock = threading.Lock()


def engine() -> Engine:
    """The server's engine."""
    global _engine
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
        return _engine
