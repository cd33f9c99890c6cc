"""Labels as people read them."""

from __future__ import annotations


def spoken(label: str) -> str:
    """A class name with blanks for underscores."""
    return " ".join(label.replace("_", " ").split())
