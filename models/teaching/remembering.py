"""Making the memory of a checkpoint from the data set that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import load_recognizer, write_card
from models.data import READERS, ExampleSet
from models.errors import DataError, SettingsError
from models.recognizer import Recognizer
from models.teaching.contract import TeachingExample
from models.teaching.listening import Progress, hear, window_length
from models.teaching.memory import Memory, remember, save_memory
from models.teaching.scoring import targets_of
from models.training.waveforms import load_waveforms


def remember_data(
    model: str | Path,
    root: Path,
    data_format: str,
    folds: Sequence[int],
    source: str,
    progress: Progress | None = None,
) -> Memory:
    """Write ``memory.safetensors`` beside a checkpoint's weights, and what it is into its card.

    Parameters
    ----------
    folds
        Those that the model was trained on, and none that it is tested with.
    source
        What the clips are, with their licence.
    progress
        Told how many clips were read, and of how many.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or has no class of the model's.
    """
    if data_format not in READERS:
        raise SettingsError(f"There is no data format named {data_format!r}.", f"Known are: {', '.join(READERS)}.")
    recognizer = load_recognizer(model)
    if recognizer.folder is None:
        raise SettingsError(f"{recognizer.name} cannot be given a memory: it lies in no folder.")
    examples = READERS[data_format](root).folds(folds)
    if not examples.examples or not set(examples.labels) <= set(recognizer.labels):
        raise DataError(
            f"{root.name} does not hold clips of the classes of {recognizer.name}.", "Check data and folds."
        )
    pictures: list[Tensor | None] | None = None
    if recognizer.reads_video:
        waveforms, pictures = _seen(recognizer, examples, progress)
    else:
        waveforms, _ = load_waveforms(examples, recognizer.sample_rate, window_length(recognizer), progress)
    targets = targets_of([example.labels for example in examples.examples], recognizer.labels)
    memory = remember(recognizer, waveforms, targets, source, pictures=pictures)
    save_memory(recognizer.folder, memory, recognizer.card.content_hash)
    clips = len(set(memory.groups.tolist()))
    sentence = (
        f"memory.safetensors holds embeddings of {clips} training clips ({source}), so that teaching this model more "
        "forgets little; the clips cannot be heard in it."
    )
    card = recognizer.card.model_copy(update={"training": recognizer.card.training | {"memory": sentence}})
    write_card(recognizer.folder, card)
    return memory


def _seen(
    recognizer: Recognizer, examples: ExampleSet, progress: Progress | None
) -> tuple[Tensor, list[Tensor | None]]:
    """Sound and picture of the loudest window of every clip."""
    heard, problems = hear(
        recognizer, [TeachingExample(e.path.name, e.path, e.labels) for e in examples.examples], progress
    )
    if problems:
        row, message = next(iter(problems.items()))
        raise DataError(
            f"{examples.examples[row].path.name} cannot be used: {message}", "Mend it or take it out of the table."
        )
    waveforms, pictures = torch.zeros(len(heard), window_length(recognizer)), []
    for row, one in enumerate(heard):
        loudest = int(torch.stack([window.square().mean() for window in one.windows]).argmax())
        waveforms[row, : len(one.windows[loudest])] = one.windows[loudest]
        pictures.append(one.pictures[loudest])
    return waveforms, pictures
