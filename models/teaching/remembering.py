"""Making the memory of a checkpoint from the data set that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.checkpoint import load_recognizer, write_card
from models.data import READERS
from models.errors import DataError, SettingsError
from models.teaching.listening import window_length
from models.teaching.memory import Memory, remember, save_memory
from models.training.waveforms import load_waveforms


def remember_data(model: str | Path, root: Path, data_format: str, folds: Sequence[int], source: str) -> Memory:
    """Write ``memory.safetensors`` beside a checkpoint's weights, and what it is into its card.

    Parameters
    ----------
    folds
        Those that the model was trained on, and none that it is tested with.
    source
        What the clips are, with their licence.

    Raises
    ------
    EarwitnessError
        If the data cannot be read or has no class of the model's.
    """
    if data_format not in READERS:
        raise SettingsError(f"There is no data format named {data_format!r}.", f"Known are: {', '.join(READERS)}.")
    recognizer = load_recognizer(model)
    if recognizer.folder is None or recognizer.reads_video:
        raise SettingsError(f"{recognizer.name} cannot be given a memory: it looks at pictures.")
    examples = READERS[data_format](root).folds(folds)
    if not examples.examples or not set(examples.labels) <= set(recognizer.labels):
        raise DataError(
            f"{root.name} does not hold clips of the classes of {recognizer.name}.", "Check data and folds."
        )
    waveforms, targets = load_waveforms(examples, recognizer.sample_rate, window_length(recognizer))
    own = targets.new_zeros(len(targets), len(recognizer.labels))
    for column, label in enumerate(examples.labels):
        own[:, recognizer.labels.index(label)] = targets[:, column]
    memory = remember(recognizer, waveforms, own, source)
    save_memory(recognizer.folder, memory, recognizer.card.content_hash)
    clips = len(set(memory.groups.tolist()))
    sentence = (
        f"memory.safetensors holds embeddings of {clips} training clips ({source}), so that teaching this model more "
        "forgets little; the clips cannot be heard in it."
    )
    card = recognizer.card.model_copy(update={"training": recognizer.card.training | {"memory": sentence}})
    write_card(recognizer.folder, card)
    return memory
