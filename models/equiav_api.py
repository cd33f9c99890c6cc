"""EquiAV for household sounds: recognise events in files, learn from one clip at a time, add classes.

The functions, classes and arguments have the names of the published interface, so that its scripts go on working::

    from models.equiav_api import load_audio_model, audio_event_classification

    model, class_labels = load_audio_model("class_labels_indices.csv", "model_bestLoss_ft.pth")
    results, seconds = audio_event_classification({"kitchen": "kitchen.wav"}, model, class_labels)

Differences from the published behaviour are additions or mended mistakes: missing files are errors, the model moves to the
device it was asked for, a file that cannot be read is reported instead of being replaced by a constant.
"""

from __future__ import annotations

from models.equiav_evaluation import evaluate_metadata
from models.equiav_finetuning import EquiAV_ft, ModelTrainer, WrappedModel, fine_tune_online
from models.equiav_inference import (
    audio_event_classification,
    format_label_data,
    format_model_input,
    load_audio_model,
    read_class_labels,
    read_predictions,
    to_recognizer,
    write_predictions,
)
from models.training.reservoir import store_audio_decision

__all__ = [
    "EquiAV_ft",
    "ModelTrainer",
    "WrappedModel",
    "audio_event_classification",
    "evaluate_metadata",
    "fine_tune_online",
    "format_label_data",
    "format_model_input",
    "load_audio_model",
    "read_class_labels",
    "read_predictions",
    "store_audio_decision",
    "to_recognizer",
    "write_predictions",
]
