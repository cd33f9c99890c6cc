"""Write the shipped scenes: ``python -m models.data.scenes FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from models.data.scenes.scene import SCENES, write_scenes


def main(arguments: list[str]) -> int:
    """Write all scenes to the folder named on the command line; returns the exit status."""
    if len(arguments) != 1:
        print("Usage: python -m models.data.scenes FOLDER", file=sys.stderr)
        return 2
    write_scenes(Path(arguments[0]))
    print(f"{len(SCENES)} scenes written to {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
