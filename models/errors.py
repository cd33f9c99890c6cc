"""Errors that a person can act on.

Every failure that a user can cause (a broken file, a wrong checkpoint, an impossible setting) is raised as an
`EarwitnessError`. The page, the command line and the Python interface all show its two sentences: what happened, and
what to do about it. Anything else that is raised is a defect of the program.
"""

from __future__ import annotations


class EarwitnessError(ValueError):
    """Something the user can understand and mend.

    Parameters
    ----------
    message
        What happened and why, one sentence a layperson understands.
    advice
        What to do about it, one sentence; empty if there is nothing sensible to suggest.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


class MediaError(EarwitnessError):
    """A clip cannot be opened, is empty, damaged, or exceeds a limit."""


class CheckpointError(EarwitnessError):
    """A checkpoint is missing, damaged, hostile, or does not fit the model it is loaded into."""


class SettingsError(EarwitnessError):
    """A setting, name or option has a value that cannot work."""


class DataError(EarwitnessError):
    """A data set or an annotation file cannot be read as what it claims to be."""
