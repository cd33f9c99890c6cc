"""The kinds of jobs there are: a name, the function that does the work, and its settings."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from models.errors import SettingsError


@dataclass(frozen=True)
class JobKind:
    """One kind of job.

    Attributes
    ----------
    name, title
        For the table of jobs and for people.
    work
        ``module:function``, called as ``function(context, settings)`` in a process of its own; what it returns (plain data)
        is the job's result. Given as text, because the server must not load what the work needs.
    settings
        ``module:class`` of its settings, a pydantic model.
    page
        Address of the page that shows its result, with the job's id after it.
    """

    name: str
    title: str
    work: str
    settings: str
    page: str = ""

    def work_function(self) -> Any:
        """The function."""
        return _imported(self.work)

    def settings_class(self) -> type[BaseModel]:
        """The class of its settings."""
        found: type[BaseModel] = _imported(self.settings)
        return found


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


KINDS: dict[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind(
            "teach", "Teach a model", "workbench.teaching.work:run", "workbench.teaching.work:TeachJob", "teach?job="
        ),
    )
}


@functools.cache
def _load_others() -> None:
    """Kinds of other packages: modules named in ``EARWITNESS_JOB_KINDS`` add theirs to `KINDS` when they are imported."""
    for name in filter(None, os.environ.get("EARWITNESS_JOB_KINDS", "").split(",")):
        import_module(name.strip())


def find_kind(name: str) -> JobKind:
    """A kind by its name.

    Raises
    ------
    SettingsError
        If there is none.
    """
    _load_others()
    if name not in KINDS:
        raise SettingsError(f"There is no kind of job named {name!r}.", f"Known are: {', '.join(KINDS)}.")
    return KINDS[name]
