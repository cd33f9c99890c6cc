"""EquiAV's published interface, part one: recognise household sounds in files."""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.card import Card
from models.checkpoint import fill_network
from models.clip import open_clip
from models.data.equiav_json import ClassTable, known_labels, read_class_table
from models.errors import CheckpointError, EarwitnessError, SettingsError
from models.families.equiav import EquiAV
from models.frontends import build_frontend
from models.recognizer import Recognizer
from models.training.equiav_items import centered_channel, equiav_frontend, normalized_features, soft_labels
from models.training.equiav_weights import MissingFileError, checkpoint_kind, read_published


def choose_device(name: str | torch.device) -> torch.device:
    """A torch device; ``gpu`` means CUDA."""
    try:
        device = torch.device("cuda" if name == "gpu" else name)
    except RuntimeError as error:
        raise SettingsError(f"There is no device {str(name)!r}.", "Known are cpu, gpu and cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("This computer has no usable GPU.", "Use device='cpu'.")
    return device


def read_class_labels(class_indices_path: str | Path) -> pd.DataFrame:
    """The class table, indexed by class index in ascending order, with the columns ``mid`` and ``display_name``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is not a class table.
    """
    if not Path(class_indices_path).is_file():
        raise MissingFileError(f"There is no class table {Path(class_indices_path).name}.", "Check the path.")
    table = read_class_table(class_indices_path)
    index = pd.RangeIndex(len(table), name="index")
    return pd.DataFrame({"mid": table.mids, "display_name": table.names}, index=index)


def load_audio_model(
    class_indices_path: str | Path,
    weights_path: str | Path,
    device: str | torch.device = "cpu",
    head_type: str = "linear",
    modality_mode: str = "audio_only",
    num_mel_bins: int = 128,
    *,
    num_heads: int | None = None,
) -> tuple[EquiAV, pd.DataFrame]:
    """A fine-tuned EquiAV and its class table, ready for `audio_event_classification`.

    Parameters
    ----------
    class_indices_path
        ``class_labels_indices.csv``.
    weights_path
        A published ``.pth`` file; only tensors are read from it.
    device
        ``cpu``, ``gpu`` or ``cuda``.
    head_type, modality_mode, num_mel_bins
        What the file is expected to hold; checked against it.
    num_heads
        Attention heads; the file does not tell. Default: one for every 64 of the token size.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    CheckpointError
        If the weights are something else than asked for (it is a ValueError).
    """
    labels = read_class_labels(class_indices_path)
    target = choose_device(device)
    state_dict = read_published(weights_path)
    if checkpoint_kind(state_dict) != "fine-tuned":
        raise CheckpointError(
            f"{Path(weights_path).name} is a {checkpoint_kind(state_dict)} checkpoint and knows no classes.",
            "Fine-tune it first.",
        )
    hints: dict[str, Any] = {"mode": modality_mode, "n_mels": num_mel_bins}
    if num_heads is not None:
        hints["n_heads"] = num_heads
    try:
        config = EquiAV.infer_config(state_dict, hints)
    except ValidationError as error:
        raise CheckpointError(f"The weights do not fit the settings: {error.errors()[0]['msg']}.") from error
    if config.head_type != head_type:
        raise CheckpointError(
            f"The weights have a head of type {config.head_type!r}, not {head_type!r}.",
            "Give the head type of the file.",
        )
    if config.n_classes != len(labels):
        raise CheckpointError(
            f"The weights know {config.n_classes} classes, but the class table has {len(labels)}.",
            "Use the class table that the model was trained with.",
        )
    with torch.device("meta"):
        model = EquiAV(config)
    converted = EquiAV.convert_state_dict(state_dict, config)
    expected = model.state_dict().keys()
    unused = [key for key in converted if key not in expected]
    if unused:
        warnings.warn(f"{len(unused)} entries of the file were not used: {', '.join(unused[:3])}.", stacklevel=2)
    fill_network(model, {key: converted[key] for key in converted if key in expected}, Path(weights_path).name)
    return model.to(target).eval(), labels


def read_waveform(path: str | Path, resample_to: int | None = None) -> tuple[np.ndarray, int]:
    """Samples ``[channels, samples]`` of a file and their rate in Hz, resampled if asked for."""
    clip = open_clip(path)
    if resample_to is None or resample_to == clip.sample_rate:
        return clip.waveform, clip.sample_rate
    return soxr.resample(clip.waveform.T, clip.sample_rate, resample_to, quality="HQ").T, resample_to


def format_model_input(
    path: str | Path,
    target_length: int = 1024,
    num_mel_bins: int = 128,
    norm_mean: float = -4.346,
    norm_std: float = 4.332,
    noise: bool = False,
    *,
    resample_to: int | None = None,
    mono: bool = False,
    pad_short: bool = False,
) -> Tensor:
    """What the model reads of a sound file, ``[1, 3, target_length, num_mel_bins]``.

    Parameters
    ----------
    noise
        Roll the features along time by a random amount (the published code rolls the channels, without effect).
    resample_to
        Rate in Hz; None analyses the file at its own rate, as published. EquiAV's own weights want 16000; weights trained
        on files of another rate want None and files of that rate.
    mono
        Average the channels; by default the first one is analysed, as published.
    pad_short
        Pad a clip shorter than one frame (25 ms) with silence rather than refusing it.

    Raises
    ------
    MediaError
        If the file cannot be read, or is too short.
    """
    samples, sample_rate = read_waveform(path, resample_to)
    waveform = centered_channel(samples, mono=mono)
    features = normalized_features(
        waveform, sample_rate, target_length, num_mel_bins, norm_mean, norm_std, pad_short=pad_short
    )
    if noise:
        features = features.roll(int(torch.randint(-target_length, target_length, ())), 0)
    return features.expand(1, 3, -1, -1).clone()


@torch.no_grad()
def audio_event_classification(
    wav_files: Mapping[str, str | Path],
    model: nn.Module,
    labels: pd.DataFrame,
    target_length: int = 1024,
    num_mel_bins: int = 128,
    norm_mean: float = -4.346,
    norm_std: float = 4.332,
    *,
    threshold: float = 0.5,
    return_scores: bool = False,
    errors: dict[str, str] | None = None,
    resample_to: int | None = None,
) -> Any:
    """Recognise the events in sound files.

    Parameters
    ----------
    wav_files
        Path by id; empty paths are skipped.
    labels
        Class table of `load_audio_model`.
    threshold
        A class is reported if its probability is greater.
    return_scores
        Also return the probabilities.
    errors
        Filled with a message by id for files that cannot be read; without it, a warning names them.
    resample_to
        See `format_model_input`.

    Returns
    -------
    tuple
        (results, inference_times): by id, in the order of `wav_files`, the display names in ascending class index (possibly
        none), and the seconds it took. With `return_scores` a third entry: by id, float32 ``[n_classes]``.
    """
    results: dict[str, list[str]] = {}
    inference_times: dict[str, float] = {}
    scores: dict[str, np.ndarray] = {}
    names = labels["display_name"]
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        for key, path in wav_files.items():
            if not path:
                continue
            started = time.perf_counter()
            try:
                features = format_model_input(
                    path, target_length, num_mel_bins, norm_mean, norm_std, resample_to=resample_to
                )
            except EarwitnessError as error:
                if errors is None:
                    warnings.warn(f"{key} was left out: {error}", stacklevel=2)
                else:
                    errors[key] = str(error)
                continue
            probability = model(features.to(device)).sigmoid()[0].float().cpu().numpy()
            results[key] = [str(names.loc[i]) for i in range(len(probability)) if probability[i] > threshold]
            inference_times[key] = time.perf_counter() - started
            scores[key] = probability
    finally:
        model.train(was_training)
    return (results, inference_times, scores) if return_scores else (results, inference_times)


def write_predictions(path: str | Path, results: Mapping[str, Sequence[str]]) -> None:
    """Write ``video_id,predicted_label`` with the labels joined by "; " (display names contain commas)."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["video_id", "predicted_label"])
        writer.writeheader()
        writer.writerows({"video_id": key, "predicted_label": "; ".join(names)} for key, names in results.items())
    temporary.replace(target)


def read_predictions(path: str | Path) -> dict[str, list[str]]:
    """What `write_predictions` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["video_id"]: row["predicted_label"].split("; ") if row["predicted_label"] else [] for row in rows}


def format_label_data(
    labels: str | Sequence[str], index_dict: Mapping[str, int], classes_num: int, label_smooth: float = 0.0
) -> Tensor:
    """Target ``[classes_num]`` of a label string ``mid,mid``; ids that the table lacks are skipped with a warning."""
    indices, unknown = known_labels(labels, index_dict)
    if unknown:
        warnings.warn(f"Labels that are not in the class table were skipped: {', '.join(unknown)}.", stacklevel=2)
    return soft_labels(indices, classes_num, label_smooth)


def to_recognizer(
    model: EquiAV,
    labels: pd.DataFrame | ClassTable,
    name: str = "equiav",
    norm_mean: float = -4.346,
    norm_std: float = 4.332,
) -> Recognizer:
    """The model as everything else in Earwitness takes it: to explain, save, and compare."""
    names = list(labels.names) if isinstance(labels, ClassTable) else [str(n) for n in labels["display_name"]]
    config = model.config
    # A front end of its own: the cached one must not move to this model's device.
    frontend = build_frontend(equiav_frontend(16000, config.target_length, config.n_mels, norm_mean, norm_std).config)
    card = Card(
        name=name, title="EquiAV", family="equiav", config=model.config.model_dump(mode="json"),
        frontend=frontend.config.model_dump(mode="json"), labels=names, task="multi-label", citation=EquiAV.info.citation,
    )  # fmt: skip
    return Recognizer(model, frontend.to(next(model.parameters()).device), card)
