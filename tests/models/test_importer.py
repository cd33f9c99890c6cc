"""Importing published checkpoints: every container and family, and everything that can be wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from models.checkpoint import load_recognizer
from models.data.audioset_table import audioset_classes, published_outputs
from models.data.vggsound import vggsound_classes
from models.errors import CheckpointError
from models.families.ast import ASTConfig
from models.families.slowfast import SlowFast
from models.hugging_face import save_hugging_face
from models.import_settings import adapted_ast
from models.importer import detect_family, import_checkpoint
from models.label_files import choose_labels, read_labels
from models.layers.play_it_back_config import PlayItBackConfig
from models.layers.position_grid import adapt_positions
from models.layers.talnet import with_duplicates
from models.published_files import PublishedFile, read_published_file, strip_prefixes
from models.registry import families
from tests.models.tiny_families import FRONT_ENDS, HINTS, sound, tiny_network, tiny_recognizer, write_published


def given(name: str) -> dict[str, Any]:
    """What a file of that family does not tell."""
    config = dict(HINTS.get(name, {}))
    return config | {"frontend": FRONT_ENDS[name]} if name in FRONT_ENDS else config


@pytest.mark.parametrize("name", families())
def test_every_family_is_detected_and_answers_as_before(name: str, tmp_path: Path) -> None:
    network = write_published(tmp_path / "weights.pth", name, "module.")
    report = import_checkpoint(tmp_path / "weights.pth", config=given(name), output=tmp_path / "new")
    assert report.card.family == name and report.card.name == "new"
    assert len(report.card.labels) == network.config.n_classes
    imported = load_recognizer(tmp_path / "new", "cpu")
    features = imported.features(torch.from_numpy(sound(sample_rate=imported.sample_rate)))
    torch.testing.assert_close(imported(features), network(features), rtol=1e-4, atol=1e-5)
    assert "class 0" in report.text() or "dimension 0" in report.text()


@pytest.mark.parametrize("name", families())
def test_no_file_looks_like_two_families(name: str) -> None:
    published = PublishedFile("file.pth", dict(tiny_network(name).state_dict()))
    assert detect_family(published, None).info.name == name


CONTAINERS = {
    "bare.pth": ("", "", {}),
    "parallel.pt": ("module.", "", {}),
    "wrapped twice.pth": ("module.__M__.", "", {}),
    "equiav style.pth": ("__M__.", "", {}),
    "epoch.pyth": ("", "model_state", {"epoch": 12, "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.1}]}}),
    "iteration.pth": ("", "model", {"iteration": 4989, "trainer": {"hooks": {}}}),
    "lightning.ckpt": ("module.", "state_dict", {"epoch": 3}),
}


@pytest.mark.parametrize("file", CONTAINERS)
def test_containers_and_prefixes(file: str, tmp_path: Path) -> None:
    prefix, wrapper, beside = CONTAINERS[file]
    network = write_published(tmp_path / file, "linear", prefix, wrapper, **beside)
    published = read_published_file(tmp_path / file)
    assert set(published.state_dict) == set(network.state_dict())
    assert published.epoch == beside.get("epoch")
    report = import_checkpoint(tmp_path / file, output=tmp_path / "new")
    assert report.epoch == beside.get("epoch") and report.card.training["imported_from"] == file


def test_safetensors_and_old_pickles(tmp_path: Path) -> None:
    weights = tiny_network("linear").state_dict()
    save_file({f"module.{key}": value for key, value in weights.items()}, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    hashes = [
        import_checkpoint(tmp_path / f, output=tmp_path / f[0]).card.content_hash for f in ("a.safetensors", "b.pth")
    ]
    assert hashes[0] == hashes[1]


def test_a_prefix_is_stripped_from_all_names_or_from_none() -> None:
    one = torch.zeros(1)
    assert set(strip_prefixes({"module.a": one, "module.b": one})[0]) == {"a", "b"}
    assert set(strip_prefixes({"module.a": one, "b": one})[0]) == {"module.a", "b"}
    stripped, dropped = strip_prefixes({"__M__.a": one, "__L_inter__.tau": one})
    assert set(stripped) == {"a"} and dropped == ("__L_inter__.tau",)


def test_hugging_face_folder_and_its_file_alone(tmp_path: Path) -> None:
    recognizer = tiny_recognizer("ast")
    save_hugging_face(recognizer, tmp_path / "hub")
    for path, output in ((tmp_path / "hub", "a"), (tmp_path / "hub" / "model.safetensors", "b")):
        report = import_checkpoint(path, output=tmp_path / output)
        assert report.labels_from == "config.json" and report.card.labels == recognizer.labels
        imported = load_recognizer(tmp_path / output, "cpu")
        features = recognizer.features(torch.from_numpy(sound()))
        torch.testing.assert_close(imported(features), recognizer(features), rtol=1e-4, atol=1e-4)
    (tmp_path / "elsewhere").mkdir()
    alone = (tmp_path / "hub" / "model.safetensors").rename(tmp_path / "elsewhere" / "weights.safetensors")
    report = import_checkpoint(alone, config=HINTS["ast"], output=tmp_path / "c")
    assert report.card.family == "ast" and not report.unexpected and report.card.config["eps"] == 1e-12


def test_ast_positions_are_adapted_to_another_length(tmp_path: Path) -> None:
    network = write_published(tmp_path / "weights.pth", "ast")
    grid = network.config.grid
    source = network.config.model_copy(update={"n_classes": 5})
    wanted = source.model_copy(update={"target_length": 96})
    settings, entries, changed = adapted_ast(network.state_dict(), wanted, source)
    expected = adapt_positions(network.state_dict()["v.pos_embed"], grid, wanted.grid)
    assert torch.equal(entries["v.pos_embed"], expected) and settings.target_length == 96 and changed
    # 128 bands with stride 10 and 144 patches: a published file of 128 frames, asked to read 64.
    published = tiny_network("ast", n_mels=128, target_length=128).state_dict()
    torch.save(published, tmp_path / "published.pth")
    config = {"target_length": 64, "n_heads": 2}
    report = import_checkpoint(tmp_path / "published.pth", config=config, output=tmp_path / "short")
    assert report.card.config["target_length"] == report.card.frontend["target_length"] == 64
    assert report.mismatched == ("v.pos_embed: 12 x 12 to 12 x 5 patches (frequency x time)",)
    save_hugging_face(tiny_recognizer("ast"), tmp_path / "hub")
    report = import_checkpoint(tmp_path / "hub", config={"target_length": 96}, output=tmp_path / "hub-long")
    assert report.card.frontend["target_length"] == 96 and report.mismatched
    with pytest.raises(CheckpointError, match="strides"):
        adapted_ast(network.state_dict(), ASTConfig.model_validate(source.model_dump() | {"time_stride": 16}), source)


CFG = {
    "TRAIN": {"DATASET": "vggsound"}, "MODEL": {"ARCH": "fast"}, "SLOWFAST": {"ALPHA": 2},
    "AUDIO_DATA": {
        "SAMPLING_RATE": 24000, "NUM_FREQUENCIES": 128, "NUM_FRAMES": 32, "CLIP_SECS": 0.1, "WINDOW_LENGTH": 10,
        "HOP_LENGTH": 5,
    },
}  # fmt: skip


def slowfast_container(path: Path, with_cfg: bool = True) -> SlowFast:
    network = tiny_network("slowfast", arch="fast", width=4, n_classes=309, n_frames=32)
    content: dict[str, Any] = {"epoch": 49, "model_state": dict(network.state_dict())}
    content["model_state"] |= {"linear2.weight": torch.zeros(2, 2)}
    torch.save(content | ({"cfg": yaml.safe_dump(CFG)} if with_cfg else {}), path)
    assert isinstance(network, SlowFast)
    return network


def test_slowfast_is_set_up_as_the_settings_inside_say(tmp_path: Path) -> None:
    slowfast_container(tmp_path / "checkpoint_best.pyth")
    report = import_checkpoint(tmp_path / "checkpoint_best.pyth", output=tmp_path / "new")
    assert report.card.frontend["sample_rate"] == 24000 and report.card.frontend["hop_length"] == 120
    assert report.card.config["alpha"] == 2 and report.epoch == 49
    assert report.card.labels == [name for name, _ in vggsound_classes()] and report.labels_from == "VGG-Sound"
    assert "linear2.weight" in report.unexpected
    # The settings file of the run may be given instead.
    slowfast_container(tmp_path / "bare.pyth", with_cfg=False)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CFG))
    again = import_checkpoint(tmp_path / "bare.pyth", config=tmp_path / "run.yaml", output=tmp_path / "again")
    assert again.card.frontend == report.card.frontend and again.card.config == report.card.config


def test_play_it_back_is_set_up_as_the_settings_inside_say(tmp_path: Path) -> None:
    tree = {
        "MODEL": {"NUM_CLASSES": 527, "PLAYBACK": 1}, "TRAIN": {"DATASET": "audioset"},
        "AUDIO_DATA": {"SAMPLING_RATE": 16000, "CLIP_SECS": 0.5, "NUM_FRAMES": 50, "WINDOW_LENGTH": 20},
        "DATA_LOADER": {"TEST_CROP_SIZE": [400, 32]},
        "ENCODER": {
            "DEPTH": 3, "EMBED_DIM": 8, "DIM_MUL": [[1, 2.0], [2, 2.0]], "HEAD_MUL": [[1, 2.0], [2, 2.0]],
            "POOL_Q_STRIDE": [[1, 2, 2], [2, 2, 2]],
        },
        "DECODER": {"FUSION_LOC": "features"},
    }  # fmt: skip
    config = PlayItBackConfig.from_published(tree)
    network = tiny_network("play_it_back", **config.model_dump())
    content = {"epoch": 4, "model_state": dict(network.state_dict()), "cfg": yaml.safe_dump(tree), "scaler_state": {}}
    torch.save(content, tmp_path / "checkpoint_best.pyth")
    report = import_checkpoint(tmp_path / "checkpoint_best.pyth", output=tmp_path / "new")
    assert report.card.config == config.model_dump(mode="json") and report.epoch == 4
    assert report.card.task == "multi-label" and report.card.labels[-1] == "Speech"
    imported = load_recognizer(tmp_path / "new", "cpu")
    features = imported.features(torch.from_numpy(sound(0.5)))
    torch.testing.assert_close(imported(features), network(features), rtol=1e-4, atol=1e-5)
    # The encoder alone, without its prefix.
    bare = {k.removeprefix("encoder."): v for k, v in network.state_dict().items() if k.startswith("encoder.")}
    torch.save(bare, tmp_path / "encoder.pth")
    alone = tree | {"MODEL": tree["MODEL"] | {"IGNORE_DECODER": True}}
    report = import_checkpoint(tmp_path / "encoder.pth", config=alone, output=tmp_path / "encoder")
    assert report.card.config["playbacks"] == 0 and not report.unexpected


@pytest.mark.parametrize("mode", ["audio_only", "video_only", "multimodal"])
def test_equiav_of_every_mode(mode: str, tmp_path: Path) -> None:
    network = tiny_network("equiav", mode=mode, both_towers=True, projection_size=12)
    weights = {f"__M__.{key}": value for key, value in network.state_dict().items()}
    torch.save(weights | {"__M__.strange.weight": torch.zeros(1)}, tmp_path / "w.pth")
    report = import_checkpoint(tmp_path / "w.pth", config={"n_heads": 2}, output=tmp_path / "new")
    assert report.card.config["mode"] == mode and report.card.task == "multi-label"
    assert "strange.weight" in report.unexpected
    if mode == "video_only":
        # Where the sizes of two modes agree, it has to be said which one it is.
        same = tiny_network("equiav", mode=mode, both_towers=True, projection_size=8).state_dict()
        torch.save(same, tmp_path / "same.pth")
        with pytest.raises(CheckpointError, match=r"same\.pth.*multimodal or video_only.*Give the mode"):
            import_checkpoint(tmp_path / "same.pth", output=tmp_path / "same")
    assert any(key.startswith("blocks_v") for key in report.unexpected) == (mode == "audio_only")
    assert any("without a picture" in note for note in report.notes) == (mode != "audio_only")


def test_two_heads_two_groups_of_names(tmp_path: Path) -> None:
    network = tiny_network("slowfast", arch="fast", width=4, n_classes=7, class_groups=(3, 4))
    weights = dict(network.state_dict())
    weights["linear.weight"], weights["linear.bias"] = torch.zeros(5, 7), torch.zeros(5)
    torch.save(weights, tmp_path / "epic.pyth")
    report = import_checkpoint(tmp_path / "epic.pyth", config={"n_frames": 32}, output=tmp_path / "new")
    assert report.card.label_groups == [3, 4] and report.card.labels[2:4] == ["verb: 2", "noun: 0"]
    # An older name of the projection to label embeddings.
    assert report.card.config["label_embedding_size"] == 5 and not report.unexpected


def test_files_with_two_names_for_one_tensor(tmp_path: Path) -> None:
    network = tiny_network("crnn")
    torch.save(with_duplicates(network.state_dict()), tmp_path / "w.pth")
    report = import_checkpoint(tmp_path / "w.pth", config=given("crnn"), output=tmp_path / "new")
    loaded = load_recognizer(tmp_path / "new", "cpu").network.state_dict()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded[key], value)
    assert not any("bn" in key and key in network.state_dict() for key in report.unexpected)


def test_old_files_without_batch_counters(tmp_path: Path) -> None:
    weights = {k: v for k, v in tiny_network("mobilenet").state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "w.pth")
    report = import_checkpoint(tmp_path / "w.pth", config=given("mobilenet"), output=tmp_path / "new")
    assert report.missing and all(key.endswith("num_batches_tracked") for key in report.missing)


def test_settings_travel_into_the_card(tmp_path: Path) -> None:
    write_published(tmp_path / "w.pth", "linear")
    (tmp_path / "settings.yaml").write_text("task: single-label\ntitle: Mine\nfrontend: {target_length: 50}\n")
    report = import_checkpoint(
        tmp_path / "w.pth", "linear", tmp_path / "settings.yaml", output=tmp_path / "x", name="mine"
    )
    assert (report.card.name, report.card.title, report.card.task) == ("mine", "Mine", "single-label")
    assert report.card.frontend["target_length"] == 50


LABEL_FILES = {
    "a.txt": "dog\ncat, big\nrain\n",
    "b.csv": "index,mid,display_name\n1,/m/1,\"cat, big\"\n0,/m/0,dog\n2,/m/2,rain\n",
    "c.csv": "0,dog\n1,\"cat, big\"\n2,rain\n",
    "d.json": json.dumps(["dog", "cat, big", "rain"]),
    "e.json": json.dumps({"id2label": {"0": "dog", "1": "cat, big", "2": "rain"}}),
    "f.json": json.dumps({"cat, big": 1, "dog": 0, "rain": 2}),
    "g.tsv": "name\ndog\ncat, big\nrain\n",
}  # fmt: skip


@pytest.mark.parametrize("file", LABEL_FILES)
def test_label_files(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(LABEL_FILES[file], encoding="utf-8")
    assert read_labels(tmp_path / file) == ["dog", "cat, big", "rain"]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("a.txt", "dog\ndog\n", "twice"), ("b.csv", "index,name\n0,dog\n2,cat\n", "gap"), ("c.json", "{", "JSON"),
        ("d.txt", "", "no names"), ("e.csv", "index,name\nx,dog\n", "whole numbers"), ("f.json", "[1, 2]", "neither"),
    ],
)  # fmt: skip
def test_label_files_that_cannot_be_used(file: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_labels(tmp_path / file)


def test_known_classes_are_named() -> None:
    notes: list[str] = []
    config = ASTConfig(n_classes=527)
    assert choose_labels(None, "ast", config, None, notes) == (audioset_classes(), "AudioSet")
    assert choose_labels(None, "play_it_back", config, None, notes)[0] == published_outputs()
    assert choose_labels(None, "ast", ASTConfig(n_classes=35), None, notes)[1] == "Speech Commands"
    assert choose_labels(None, "hetero_graph", ASTConfig(n_classes=33), None, notes)[0][0] == "Aircraft"
    assert not notes
    assert choose_labels(None, "ast", ASTConfig(n_classes=3), None, notes)[0] == ["class 0", "class 1", "class 2"]
    assert "not known" in notes[0]
