"""Teaching a recognizer new or better-known classes from a few examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.teaching.contract import (
    Finding,
    HeldOut,
    Scores,
    TeachingExample,
    TeachProgress,
    TeachResult,
    TeachSettings,
)

if TYPE_CHECKING:
    from models.teaching.examination import examine
    from models.teaching.session import teach
    from models.teaching.ways import offered_ways

__all__ = [
    "Finding",
    "HeldOut",
    "Scores",
    "TeachProgress",
    "TeachResult",
    "TeachSettings",
    "TeachingExample",
    "examine",
    "offered_ways",
    "teach",
]
# What needs torch is imported when it is first used: a page asks for the types only.
_PLACES = {"examine": "examination", "offered_ways": "ways", "teach": "session"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"models.teaching.{_PLACES[name]}"), name)
