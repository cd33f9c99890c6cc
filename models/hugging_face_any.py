"""Audio-classification folders of Hugging Face, of any architecture that ``transformers`` knows (optional extra)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.card import Task
from models.custom import wrap_module
from models.errors import CheckpointError, SettingsError
from models.frontends.waveform import WaveformConfig
from models.published_files import read_json_table
from models.recognizer import Recognizer

CONFIG, EXTRACTOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_DEFAULT_SECONDS = 10.0


def transformers_installed() -> bool:
    """Whether the optional library is there."""
    return importlib.util.find_spec("transformers") is not None


class _SampleClassifier(nn.Module):
    """A transformers model that reads samples, with the normalisation of its feature extractor."""

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize

    def forward(self, samples: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of ``[batch, samples]``."""
        if self.normalize:
            # As Wav2Vec2FeatureExtractor: zero mean and unit variance of every clip.
            mean, variance = samples.mean(1, keepdim=True), samples.var(1, keepdim=True, unbiased=False)
            samples = (samples - mean) / (variance + 1e-7).sqrt()
        return self.model(input_values=samples).logits


def load_any_hugging_face(
    folder: Path | str, name: str | None = None, task: Task | None = None, seconds: float | None = None
) -> Recognizer:
    """A recognizer of a Hugging Face audio-classification folder.

    ASTs are read without transformers (`models.hugging_face`). Others have to read samples (wav2vec 2.0, HuBERT, WavLM,
    SEW, UniSpeech, Data2Vec and their like).

    Parameters
    ----------
    name
        Of the recognizer; default: the folder's name.
    task
        Default: what ``problem_type`` says, else single-label.
    seconds
        How much it reads at once; longer clips are read in windows. Default 10.

    Raises
    ------
    SettingsError
        If transformers is not installed.
    CheckpointError
        If the folder is no audio classifier, its weights are no safetensors file, or it reads something else than samples.
    """
    folder = Path(folder)
    settings = read_json_table(folder / CONFIG)
    kind = str(settings.get("model_type"))[:60]
    if not settings:
        raise CheckpointError(
            f"{folder.name} has no {CONFIG} that can be read.", "Give a folder saved by transformers."
        )
    if kind == "audio-spectrogram-transformer":
        from models.hugging_face import load_hugging_face

        return load_hugging_face(folder, name, task)
    if "auto_map" in settings:
        raise CheckpointError(
            f"{folder.name} needs code of its own, which is never run.", "Use a model without such code."
        )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder.name} has no {WEIGHTS}; pickled weights are not read.", "Save it with safe_serialization=True."
        )
    if not transformers_installed():
        raise SettingsError(
            f"{folder.name} is a {kind}, which needs the library transformers.",
            "pip install 'earwitness[huggingface]'.",
        )
    model = _load(folder, kind)
    extractor = read_json_table(folder / EXTRACTOR)
    rate = extractor.get("sampling_rate", 16000)
    if getattr(model, "main_input_name", "") != "input_values" or extractor.get("num_mel_bins"):
        raise CheckpointError(f"{folder.name} is a {kind}, which does not read samples.", "Wrap it with models.custom.")
    labels = [str(model.config.id2label[index]) for index in range(len(model.config.id2label))]
    many = settings.get("problem_type") == "multi_label_classification"
    length = round((seconds or _DEFAULT_SECONDS) * rate)
    frontend = WaveformConfig(sample_rate=rate, target_length=length)
    return wrap_module(
        _SampleClassifier(model, bool(extractor.get("do_normalize", False))), frontend, labels,
        task or ("multi-label" if many else "single-label"), name=name or folder.name,
    )  # fmt: skip


def _load(folder: Path, kind: str) -> Any:
    from transformers import AutoModelForAudioClassification

    try:
        model, found = AutoModelForAudioClassification.from_pretrained(
            str(folder.resolve()), local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, dtype=torch.float32,
        )  # fmt: skip
    except Exception as error:  # transformers raises errors of every kind
        first = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{folder.name} ({kind}) is no audio classifier that transformers can read: {first}",
            "Use a folder that AutoModelForAudioClassification.from_pretrained reads.",
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder.name} lacks {len(missing)} weights of its network ({', '.join(missing[:3])}); they would be random.",
            "Use a fine-tuned audio classifier, not a pre-trained encoder.",
        )
    if not all(np.isfinite(p.detach().float().sum().item()) for p in model.parameters()):
        raise CheckpointError(f"The weights in {folder.name} hold values that are not numbers.", "Download it again.")
    return model.eval()
