"""Data sets: annotation formats read into one common form."""

from collections.abc import Callable

from models.data.esc import read_esc
from models.data.examples import Example, ExampleSet

READERS: dict[str, Callable[..., ExampleSet]] = {"esc": read_esc}

__all__ = ["READERS", "Example", "ExampleSet", "read_esc"]
