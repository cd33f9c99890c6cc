"""The folder in which a server keeps what outlives it: jobs, taught models, examples."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from models.errors import EarwitnessError

# Below this, nothing new is begun: a full disk hurts everything else on the machine.
SPARE_BYTES = 200 * 2**20


def data_home() -> Path:
    """The server's data folder, made if it is not there; ``EARWITNESS_HOME`` names another one.

    Raises
    ------
    EarwitnessError
        If it cannot be made.
    """
    given = os.environ.get("EARWITNESS_HOME")
    if given:
        home = Path(given).expanduser()
    elif sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "Earwitness"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support" / "Earwitness"
    else:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "earwitness"
    try:
        # Visitors' sounds lie there: no other user of the machine needs to read them.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EarwitnessError(
            f"The server's data folder cannot be made: {error.strerror}.",
            "Set EARWITNESS_HOME to a folder that the server may write to.",
        ) from error
    return home.resolve()


def check_space(folder: Path, wanted: int = 0) -> None:
    """Refuse to begin something that the disk has no room for.

    Raises
    ------
    EarwitnessError
        If fewer than `wanted` bytes and a reserve are free.
    """
    if shutil.disk_usage(folder).free < wanted + SPARE_BYTES:
        raise EarwitnessError(
            "The server's disk is full.", "Remove jobs and models that are not needed any more, then try again."
        )
