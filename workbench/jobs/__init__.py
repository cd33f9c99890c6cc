"""Long work: in processes of its own, with progress, log, cancel and result; it survives reloads and restarts."""

from __future__ import annotations

import threading
from pathlib import Path

from workbench.home import data_home
from workbench.jobs.records import JobRecord
from workbench.jobs.store import JobStore

__all__ = ["JobRecord", "JobStore", "jobs"]

_STORES: dict[Path, JobStore] = {}
_LOCK = threading.Lock()


def jobs() -> JobStore:
    """The server's jobs; a thread looks after them from the first call on.

    Raises
    ------
    EarwitnessError
        If the data folder cannot be used.
    """
    home = data_home()
    with _LOCK:
        if home not in _STORES:
            _STORES[home] = JobStore(home)
            _STORES[home].keep_ticking()
        return _STORES[home]
