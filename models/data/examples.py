"""Examples: which file, which labels, which fold; the common form that all annotation formats are read into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import DataError


@dataclass(frozen=True)
class Example:
    """One annotated clip.

    Attributes
    ----------
    path
        Media file.
    labels
        Names of the classes that are present, as the annotation gives them.
    fold
        Cross-validation fold, or None.
    start, stop
        Part of the file in seconds; None: from its beginning, to its end.
    """

    path: Path
    labels: tuple[str, ...]
    fold: int | None = None
    start: float | None = None
    stop: float | None = None


@dataclass(frozen=True)
class ExampleSet:
    """The examples of a data set that exist, their classes, and what is missing.

    Attributes
    ----------
    examples
        Those whose file is there.
    labels
        Class names in index order.
    missing
        Files that the annotation names and that are not there: counted and named, not fatal.
    """

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    missing: tuple[Path, ...] = ()
    titles: dict[str, str] = field(default_factory=dict)

    def folds(self, chosen: Iterable[int]) -> ExampleSet:
        """The part of it that lies in some folds."""
        wanted = set(chosen)
        return ExampleSet(
            tuple(e for e in self.examples if e.fold in wanted), self.labels, self.missing, dict(self.titles)
        )

    def describe_missing(self) -> str:
        """A sentence about the missing files, empty if there are none."""
        if not self.missing:
            return ""
        names = ", ".join(p.name for p in self.missing[:5])
        return f"{len(self.missing)} files are missing ({names}{', ...' if len(self.missing) > 5 else ''})."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system takes: too long, or with a zero byte
        return False


def collect(examples: Sequence[Example], labels: Sequence[str], titles: dict[str, str] | None = None) -> ExampleSet:
    """Sort examples into those whose file exists and those whose does not.

    Raises
    ------
    DataError
        If none is there.
    """
    present: list[Example] = []
    missing: list[Example] = []
    for example in examples:
        (present if _is_file(example.path) else missing).append(example)
    if not present:
        where = missing[0].path.parent if missing else "the folder"
        raise DataError(
            f"None of the {len(missing)} files that the annotation names was found in {where}.",
            "Check the audio folder; the annotation and the audio have to belong together.",
        )
    return ExampleSet(tuple(present), tuple(labels), tuple(e.path for e in missing), titles or {})
