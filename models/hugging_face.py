"""Hugging Face folders of AST (``config.json``, ``preprocessor_config.json``, ``model.safetensors``), both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.card import Card, Task
from models.checkpoint import fill_network
from models.errors import CheckpointError
from models.families.ast import AST, ASTConfig
from models.frontends import build_frontend
from models.frontends.kaldi import KaldiFbank, KaldiFbankConfig
from models.layers.ast_names import from_hugging_face, is_hugging_face, to_hugging_face
from models.recognizer import Recognizer

CONFIG, EXTRACTOR, WEIGHTS, PICKLED = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "pytorch_model.bin",
)
_MODEL_TYPE, _ARCHITECTURE = "audio-spectrogram-transformer", "ASTForAudioClassification"
_AUDIOSET_CLASSES = 527


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder says that it holds a Hugging Face AST."""
    try:
        return bool(_read_json(folder / CONFIG).get("model_type") == _MODEL_TYPE)
    except CheckpointError:
        return False


def load_hugging_face(folder: Path, name: str | None = None, task: Task | None = None) -> Recognizer:
    """A recognizer from a Hugging Face AST folder.

    Parameters
    ----------
    name
        Of the new card; default: the folder's name.
    task
        Default: what ``problem_type`` says; else multi-label for AudioSet's 527 classes, single-label otherwise.

    Raises
    ------
    CheckpointError
        If files are missing, damaged, or not of an AST with a classifier.
    """
    settings = _read_json(folder / CONFIG)
    if settings.get("model_type") != _MODEL_TYPE:
        raise CheckpointError(
            f"{folder.name} is a Hugging Face model of the type {str(settings.get('model_type'))[:60]!r}, not AST.",
            f"Only the type {_MODEL_TYPE} can be read.",
        )
    labels = _labels(settings)
    config = ast_config(settings, len(labels))
    weights = _read_weights(folder)
    if not is_hugging_face(weights):
        raise CheckpointError(f"{folder.name} has no AST with a classifier.", "Use an audio-classification checkpoint.")
    with torch.device("meta"):
        network = AST(config)
    fill_network(network, from_hugging_face(weights), folder.name)
    extractor = folder / EXTRACTOR
    frontend = frontend_config(_read_json(extractor) if extractor.is_file() else {}, config)
    if task is None:
        kind = settings.get("problem_type")
        many = kind == "multi_label_classification" or (kind is None and len(labels) == _AUDIOSET_CLASSES)
        task = "multi-label" if many else "single-label"
    card = Card(
        name=name or folder.name, family="ast", config=config.model_dump(mode="json"),
        frontend=frontend.model_dump(mode="json"), labels=labels, task=task, citation=AST.info.citation,
    )  # fmt: skip
    recognizer = Recognizer(network, build_frontend(frontend), card, folder)
    recognizer.requires_grad_(False)
    return recognizer


def save_hugging_face(recognizer: Recognizer, folder: Path) -> None:
    """Write an AST as a folder that `ASTForAudioClassification.from_pretrained` reads.

    Raises
    ------
    CheckpointError
        If it is another family, or has a front end that `ASTFeatureExtractor` does not have.
    """
    network, frontend = recognizer.network, recognizer.frontend
    if not isinstance(network, AST):
        raise CheckpointError(f"{recognizer.name} is a {network.info.title}; only AST has a Hugging Face form.")
    given = frontend.config
    if not isinstance(frontend, KaldiFbank) or given.padding != "zero" or given.target_length is None:
        raise CheckpointError(
            f"Hugging Face's feature extractor cannot do what the front end of {recognizer.name} does.",
            "It knows Kaldi filter banks of a fixed length, padded with zeros.",
        )
    config = network.config
    width, n_heads, depth = config.shape
    labels = recognizer.labels
    settings = {
        "architectures": [_ARCHITECTURE], "model_type": _MODEL_TYPE, "hidden_size": width, "num_hidden_layers": depth,
        "num_attention_heads": n_heads, "intermediate_size": 4 * width, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "layer_norm_eps": config.eps, "patch_size": 16, "qkv_bias": True,
        "frequency_stride": config.frequency_stride, "time_stride": config.time_stride,
        "max_length": config.target_length, "num_mel_bins": config.n_mels,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": f"{recognizer.card.task.replace('-', '_')}_classification", "torch_dtype": "float32",
    }  # fmt: skip
    extractor = {
        "feature_extractor_type": "ASTFeatureExtractor", "feature_size": 1, "sampling_rate": given.sample_rate,
        "num_mel_bins": given.n_mels, "max_length": given.target_length, "padding_value": 0.0, "padding_side": "right",
        "do_normalize": True, "mean": given.mean, "std": given.std_scale / 2, "return_attention_mask": False,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    save_file(to_hugging_face(weights), folder / WEIGHTS, metadata={"format": "pt"})
    for name, values in ((CONFIG, settings), (EXTRACTOR, extractor)):
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def ast_config(settings: dict[str, Any], n_classes: int) -> ASTConfig:
    """AST's settings from a ``config.json``; what it leaves out has Hugging Face's defaults.

    Raises
    ------
    CheckpointError
        If it describes an AST that this one is not (other patches, activations or sizes).
    """
    width = settings.get("hidden_size", 768)
    for key, needed in (
        ("patch_size", 16), ("hidden_act", "gelu"), ("qkv_bias", True), ("intermediate_size", 4 * width)
    ):  # fmt: skip
        if settings.get(key, needed) != needed:
            raise CheckpointError(f"This AST has {key} = {settings[key]!r}; only {needed!r} is supported.")
    eps = settings.get("layer_norm_eps", 1e-12)
    try:
        return ASTConfig(
            model_size="custom", width=width, n_heads=settings.get("num_attention_heads", 12),
            depth=settings.get("num_hidden_layers", 12), frequency_stride=settings.get("frequency_stride", 10),
            time_stride=settings.get("time_stride", 10), n_mels=settings.get("num_mel_bins", 128),
            target_length=settings.get("max_length", 1024), eps=eps, head_eps=eps, n_classes=n_classes,
        )  # fmt: skip
    except ValidationError as error:
        raise CheckpointError(f"The {CONFIG} of this model is not valid: {error}") from error


def frontend_config(extractor: dict[str, Any], config: ASTConfig) -> KaldiFbankConfig:
    """The front end from a ``preprocessor_config.json``; without one, AudioSet's."""
    try:
        return KaldiFbankConfig(
            sample_rate=extractor.get("sampling_rate", 16000), n_mels=extractor.get("num_mel_bins", config.n_mels),
            target_length=extractor.get("max_length", config.target_length), padding="zero",
            mean=extractor.get("mean", -4.2677393), std_scale=2 * extractor.get("std", 4.5689974),
        )  # fmt: skip
    except (ValidationError, TypeError) as error:
        raise CheckpointError(f"The {EXTRACTOR} of this model is not valid: {error}") from error


def _labels(settings: dict[str, Any]) -> list[str]:
    table = settings.get("id2label") or {}
    try:
        labels = [str(table[key]) for key in sorted(table, key=int)]
        indices = sorted(int(key) for key in table)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The labels in {CONFIG} are not numbered.") from error
    if not labels or indices != list(range(len(labels))):
        raise CheckpointError(f"The labels in {CONFIG} are missing or not numbered from 0 on.")
    return labels


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} in {path.parent.name} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name} in {path.parent.name} is not a table of settings.")
    return values


def _read_weights(folder: Path) -> dict[str, Tensor]:
    try:
        if (folder / WEIGHTS).is_file():
            return load_file(folder / WEIGHTS)
        weights = torch.load(folder / PICKLED, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder.name} has neither {WEIGHTS} nor {PICKLED}.") from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"The weights in {folder.name} cannot be read: {error}") from error
    except Exception as error:  # the unpickler's own errors, which are not exported
        raise CheckpointError(f"The weights in {folder.name} are not a plain table of tensors.") from error
    return weights
