"""Write scenes: the shipped ones, or a folder of random audio-video scenes to train on.

``python -m models.data.scenes FOLDER`` and ``python -m models.data.scenes render-audio-visual --output FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.data.scenes.scene import SCENES, write_scenes
from models.data.scenes.training_folder import FolderSettings, render_folder
from models.data.scenes.video_scenes import VIDEOS, write_videos
from models.errors import EarwitnessError

RENDER = "render-audio-visual"


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; returns the exit status."""
    if arguments and arguments[0] == RENDER:
        return _render(arguments[1:])
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("Usage: python -m models.data.scenes FOLDER", file=sys.stderr)
        print(f"       python -m models.data.scenes {RENDER} --help", file=sys.stderr)
        return 2
    write_scenes(Path(arguments[0]))
    write_videos(Path(arguments[0]))
    print(f"{len(SCENES)} scenes and {len(VIDEOS)} videos written to {arguments[0]}")
    return 0


def _render(arguments: list[str]) -> int:
    usual = FolderSettings()
    parser = argparse.ArgumentParser(
        prog=f"python -m models.data.scenes {RENDER}",
        description="Write random audio-video scenes with their truth to a new folder: clips/, meta.csv, scenes.jsonl.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--esc", type=Path, help="folder of ESC-10 or ESC-50; its clips keep folds 1 to 5")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    for name, kind, what in [
        ("scenes", int, "generated scenes to train on (fold 6)"),
        ("test-scenes", int, "generated scenes to test on (fold 7)"),
        ("repeats", int, "different pictures for every recording"),
        ("alone", float, "share of clips without a silent distractor"),
        ("mismatched", float, "share of clips that show only another class"),
        ("seed", int, "all randomness"),
        ("frame-rate", float, "pictures per second"),
        ("height", int, "pixels"),
        ("width", int, "pixels"),
    ]:
        parser.add_argument(f"--{name}", type=kind, default=getattr(usual, name.replace("-", "_")), help=what)
    what = "what is heard in generated scenes (default: the ten classes of ESC-10)"
    parser.add_argument("--classes", nargs="+", metavar="CLASS", default=argparse.SUPPRESS, help=what)
    values = vars(parser.parse_args(arguments))
    values["classes"] = tuple(values.get("classes", ()))
    esc, output = values.pop("esc"), values.pop("output")

    def report(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{done} of {total} clips", flush=True)

    try:
        render_folder(output, esc, FolderSettings(**values), report)
    except EarwitnessError as error:
        print(f"{error.message} {error.advice}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
