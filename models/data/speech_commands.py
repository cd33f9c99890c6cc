"""Speech Commands v2 with 35 words.

P. Warden: Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv 1804.03209 (CC BY 4.0).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from models.data.examples import Example, ExampleSet, collect
from models.errors import DataError

TRAIN, VALIDATION, TEST = 1, 2, 3
# The class order of the published AST checkpoint.
WORDS = (
    "backward", "follow", "five", "bed", "zero", "on", "learn", "two", "house", "tree", "dog", "stop", "seven", "eight",
    "down", "six", "forward", "cat", "right", "visual", "four", "wow", "no", "nine", "off", "three", "left", "marvin",
    "yes", "up", "sheila", "happy", "bird", "go", "one",
)  # fmt: skip


def read_speech_commands(root: Path) -> ExampleSet:
    """Examples of the official folder (a folder a word); folds 1, 2 and 3 are training, validation and test.

    Raises
    ------
    DataError
        If the lists that split the data are not there, or no audio is.
    """
    lists: dict[str, int] = {}
    for fold, name in ((VALIDATION, "validation_list.txt"), (TEST, "testing_list.txt")):
        try:
            lines = (root / name).read_text(encoding="utf-8").split()
        except OSError as error:
            raise DataError(
                f"There is no {name} in {root}.", "Give the unpacked folder of speech_commands_v0.02."
            ) from error
        # Only word and file name: a list must not reach outside the data set.
        lists |= {"/".join(PurePosixPath(line).parts[-2:]): fold for line in lines}
    examples = [
        Example(path, (word,), lists.get(f"{word}/{path.name}", TRAIN))
        for word in WORDS
        for path in sorted((root / word).glob("*.wav"))
    ]
    found = {f"{example.labels[0]}/{example.path.name}" for example in examples}
    missing = [
        Example(root / name, (name.split("/")[0],), fold)
        for name, fold in lists.items()
        if name not in found and name.split("/")[0] in WORDS
    ]
    return collect([*examples, *missing], WORDS)
