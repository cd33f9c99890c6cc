"""Any module as a recognizer: on features, on samples, with odd outputs; and Hugging Face folders."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.clip import Clip
from models.custom import wrap_module
from models.errors import CheckpointError, SettingsError
from models.hugging_face import save_hugging_face
from models.hugging_face_any import load_any_hugging_face
from models.network import CamLayer
from saliency.attribution import attribute
from tests.models.tiny_families import sound, tiny_recognizer
from workbench.analysis import AnalysisSettings, analyze_with_sound

MEL = {"kind": "kaldi_fbank", "n_mels": 16, "mean": -8.0, "std_scale": 8.0}
SAMPLES = {"kind": "waveform", "sample_rate": 8000, "target_length": 4000}


class Mel(nn.Module):
    """A recurrent network over frames, with its logits in an object if asked for."""

    def __init__(self, boxed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head, self.boxed = nn.GRU(16, 8, batch_first=True), nn.Linear(8, 3), boxed

    def forward(self, x: Tensor) -> Any:
        logits = self.head(self.gru(x)[0].mean(dim=1))
        return SimpleNamespace(logits=logits) if self.boxed else logits


class Samples(nn.Module):
    """Convolutions over samples."""

    def __init__(self, probabilities: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv1d(1, 6, 16, 8), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3)
        )
        self.probabilities = probabilities

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x.unsqueeze(1) * 10)
        return logits.softmax(1) if self.probabilities else logits


WRAPPED: dict[str, Any] = {
    "frames": lambda: wrap_module(Mel(), MEL, ["a", "b", "c"]),
    "logits in an object": lambda: wrap_module(Mel(True), MEL, ["a", "b", "c"], answer=lambda out: out.logits),
    "samples": lambda: wrap_module(Samples(), SAMPLES, ["a", "b", "c"]),
    "probabilities": lambda: wrap_module(Samples(True), SAMPLES, ["a", "b", "c"], probabilities=True),
    "multi-label": lambda: wrap_module(Mel(), MEL, ["a", "b", "c"], "multi-label"),
}


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion"])
def test_a_wrapped_module_is_analysed(case: str, method: str) -> None:
    recognizer = WRAPPED[case]()
    clip = Clip.from_array(sound(0.6), 16000)
    analysis, parts = analyze_with_sound(clip, recognizer, AnalysisSettings(target="b", method=method))
    assert analysis.attribution is not None and np.abs(analysis.attribution.values).max() > 0
    np.testing.assert_allclose(parts.kept + parts.removed, clip.waveform, atol=1e-6)


def test_wrapping_changes_no_score() -> None:
    module = Samples(probabilities=True)
    recognizer = wrap_module(module, SAMPLES, ["a", "b", "c"], probabilities=True)
    waveform = torch.from_numpy(sound(0.5, 8000))
    scores = recognizer.probabilities(recognizer(recognizer.features(waveform)))
    torch.testing.assert_close(scores, module(waveform.unsqueeze(0)), rtol=1e-4, atol=1e-6)
    twin = recognizer.replica()
    assert torch.equal(twin(twin.features(waveform)), recognizer(recognizer.features(waveform)))


def test_grad_cam_with_a_layer_that_is_named() -> None:
    convolution = nn.Conv2d(1, 4, 3, padding=1)
    module = nn.Sequential(convolution, nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3))
    layer = CamLayer("convolution", convolution, lambda x: x, 0.0, 1.0, 0.0, 1.0)
    recognizer = wrap_module(module, MEL, ["a", "b", "c"], read=lambda x: x.unsqueeze(1), cam_layers=[layer])
    values = attribute(recognizer, sound(0.5), "a", "grad_cam", {"positive_only": False}).values
    assert values.shape[1] == 16 and np.abs(values).max() > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((Mel(), MEL, ["a", "b"]), "not with \\[2, 2\\]"),
        ((Mel(), MEL, ["a", "a", "b"]), "different"),
        ((Mel(), MEL | {"n_mels": 20}, ["a", "b", "c"]), "cannot read features"),
        ((Mel(boxed=True), MEL, ["a", "b", "c"]), "SimpleNamespace"),
        ((Mel(), {"kind": "magic"}, ["a", "b", "c"]), "magic"),
    ],
)
def test_what_does_not_fit_is_said(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        wrap_module(*arguments)


# --- Hugging Face ---------------------------------------------------------------------------------------------------

NEEDS_TRANSFORMERS = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the optional library transformers is not installed"
)


def wav2vec2_folder(folder: Path, head: bool = True, **changes: Any) -> nn.Module:
    """A tiny wav2vec 2.0 classifier as transformers saves it."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
        Wav2Vec2Model,
    )

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, num_labels=3,
        id2label={0: "yes", 1: "no", 2: "<b>maybe</b>"}, label2id={"yes": 0, "no": 1, "<b>maybe</b>": 2}, **changes,
    )  # fmt: skip
    model = (Wav2Vec2ForSequenceClassification if head else Wav2Vec2Model)(config).eval()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return model


@NEEDS_TRANSFORMERS
def test_a_folder_of_another_architecture_is_analysed(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor

    model = wav2vec2_folder(tmp_path / "spoken")
    recognizer = load_any_hugging_face(tmp_path / "spoken", seconds=1.0)
    assert recognizer.name == "spoken" and recognizer.labels == ["yes", "no", "<b>maybe</b>"]
    waveform = sound(1.0)
    read = AutoFeatureExtractor.from_pretrained(tmp_path / "spoken")(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = model(read["input_values"]).logits
    torch.testing.assert_close(recognizer(recognizer.features(waveform)), expected, rtol=1e-3, atol=1e-4)
    clip = Clip.from_array(np.tile(waveform, 2), 16000)
    analysis, parts = analyze_with_sound(clip, recognizer, AnalysisSettings(target="no", method="input_x_gradient"))
    assert analysis.attribution is not None and analysis.attribution.values.shape == (200, 1)
    np.testing.assert_allclose(parts.kept + parts.removed, clip.waveform, atol=1e-6)


@NEEDS_TRANSFORMERS
def test_folders_that_are_no_classifiers_are_refused(tmp_path: Path) -> None:
    wav2vec2_folder(tmp_path / "encoder", head=False)
    with pytest.raises(CheckpointError, match="would be random"):
        load_any_hugging_face(tmp_path / "encoder")
    wav2vec2_folder(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cut"):
        load_any_hugging_face(tmp_path / "cut")


def test_an_ast_folder_needs_no_other_library(tmp_path: Path) -> None:
    recognizer = tiny_recognizer("ast")
    save_hugging_face(recognizer, tmp_path / "ast")
    assert load_any_hugging_face(tmp_path / "ast").labels == recognizer.labels


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        (None, None, "config.json"),
        ({"model_type": "wav2vec2", "auto_map": {"AutoModel": "evil.Model"}}, b"x", "code of its own"),
        ({"model_type": "wav2vec2"}, None, "pickled weights"),
    ],
)
def test_unsafe_folders_are_refused(
    config: dict[str, Any] | None, weights: bytes | None, words: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n.")
    with pytest.raises(CheckpointError, match=words):
        load_any_hugging_face(tmp_path)


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    monkeypatch.setattr("models.hugging_face_any.transformers_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"earwitness\[huggingface\]"):
        load_any_hugging_face(tmp_path)
