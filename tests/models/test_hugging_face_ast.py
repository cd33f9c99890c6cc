"""AST folders of Hugging Face, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.card import Card
from models.errors import CheckpointError
from models.families.ast import AST, ASTConfig
from models.frontends import build_frontend
from models.frontends.kaldi import KaldiFbankConfig
from models.hugging_face import is_hugging_face_folder, load_hugging_face, save_hugging_face
from models.layers.ast_names import from_hugging_face, to_hugging_face
from models.recognizer import Recognizer

LABELS = ["dog", "<b>cat</b>", "rain"]


def small_recognizer(**frontend: Any) -> Recognizer:
    torch.manual_seed(0)
    config = ASTConfig(
        model_size="custom", width=128, n_heads=2, depth=2, n_mels=36, target_length=56, time_stride=8, n_classes=3
    )
    values = {"n_mels": 36, "target_length": 56, "padding": "zero", "mean": -5.0, "std_scale": 8.0} | frontend
    settings = KaldiFbankConfig.model_validate(values)
    card = Card(
        name="small", family="ast", config=config.model_dump(mode="json"), frontend=settings.model_dump(mode="json"),
        labels=LABELS, task="single-label",
    )  # fmt: skip
    return Recognizer(AST(config), build_frontend(settings), card)


def test_round_trip(tmp_path: Path) -> None:
    original = small_recognizer()
    save_hugging_face(original, tmp_path / "folder")
    assert is_hugging_face_folder(tmp_path / "folder")
    loaded = load_hugging_face(tmp_path / "folder")
    assert loaded.card.name == "folder"
    assert loaded.labels == LABELS
    assert loaded.card.task == "single-label"
    assert loaded.frontend.config == original.frontend.config
    waveform = torch.randn(2, 9000)
    with torch.no_grad():
        expected, found = original(original.features(waveform)), loaded(loaded.features(waveform))
    # The head's epsilon becomes that of the other norms.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_files_have_the_names_of_the_hub(tmp_path: Path) -> None:
    save_hugging_face(small_recognizer(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = "audio_spectrogram_transformer.encoder.layer.1.attention.attention.key.weight"
    assert weights[key].shape == (128, 128)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["architectures"] == ["ASTForAudioClassification"]
    assert settings["id2label"] == {"0": "dog", "1": "<b>cat</b>", "2": "rain"}
    extractor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (extractor["mean"], extractor["std"], extractor["max_length"]) == (-5.0, 4.0, 56)


@pytest.mark.parametrize("style", ["hub", "modules"])
def test_names_of_both_versions_are_read(style: Any) -> None:
    weights = small_recognizer().network.state_dict()
    back = from_hugging_face(to_hugging_face(weights, style))
    assert set(back) == set(weights)
    assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_a_lone_weights_file_is_recognized() -> None:
    network = small_recognizer().network
    assert isinstance(network, AST)
    renamed = to_hugging_face(network.state_dict())
    assert AST.recognizes(renamed)
    hints = {"n_mels": 36, "target_length": 56, "time_stride": 8}
    config = AST.infer_config(renamed, hints)
    assert (config.shape, config.eps, config.head_eps) == ((128, 2, 2), 1e-12, 1e-12)
    AST(config).load_state_dict(AST.convert_state_dict(renamed, config))


def test_a_pickled_folder_is_read_without_running_it(tmp_path: Path) -> None:
    recognizer = small_recognizer()
    save_hugging_face(recognizer, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert load_hugging_face(tmp_path).labels == LABELS

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"x": Hostile()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        load_hugging_face(tmp_path)
    assert not (tmp_path / "executed").exists()


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "wav2vec2"}, "type"),
        ({"patch_size": 8}, "patch_size"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "numbered from 0"),
        ({"id2label": {"0": "a", "one": "b"}}, "not numbered"),
        ({"time_stride": 10}, "do not fit|other shape|of another shape"),
        ({"num_hidden_layers": "many"}, "not valid"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    save_hugging_face(small_recognizer(), tmp_path)
    change(tmp_path, "config.json", **values)
    with pytest.raises(CheckpointError, match=reason):
        load_hugging_face(tmp_path)


def test_what_the_other_side_cannot_do_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="feature extractor"):
        save_hugging_face(small_recognizer(padding="silence"), tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_hugging_face(tmp_path / "nothing")
